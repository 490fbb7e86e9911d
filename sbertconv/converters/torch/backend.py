"""Assembles the steps of a route into one torch module, and traces it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sbertconv.artifact.kinds import HEAD_OUTPUTS
from sbertconv.converters.decomposing import decomposed
from sbertconv.converters.exporting import exported
from sbertconv.converters.guards import TraceFacts, forget_guards
from sbertconv.converters.places import place_of
from sbertconv.converters.traced import quiet, traceable, unchanged
from sbertconv.errors import WAYS_OUT, UnsupportedModuleError, UnsupportedOptionError, error_text
from sbertconv.plan.context import Features
from sbertconv.plan.examples import examples, other_example, token_example, with_tokens
from sbertconv.plan.outputs import OUTPUTS
from sbertconv.plan.routes import PlannedRoute
from sbertconv.runtime.tokenization import TextTokenizer
from sbertconv.source.kinds import class_of
from sbertconv.source.routes import open_axes
from sbertconv.source.torch_compat import free_symbols

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SIZES_SEEN = 2  # a trace takes no size for 0 or 1, and PyTorch does not hold a program to that


class Pipeline(torch.nn.Module):
    """A whole chain as one module: tensors by name -> the outputs asked for, by name.

    Its weights are the model's own and have the names that they have in the model's `state_dict()`.

    Attributes:
        inputs: the names of the tensors that it takes.
        outputs: the names of those that it gives.
    """

    def __init__(self, route: PlannedRoute, model: SentenceTransformer, outputs: Sequence[str] | None = None) -> None:
        super().__init__()
        model_class = class_of(model)
        assert model_class is not None
        for (name, _), step in zip(model.named_children(), route.steps, strict=True):
            self.add_module(name, step)
        self._chain = tuple(name for name, _ in model.named_children())
        self._route = route
        self.inputs = route.inputs
        self.outputs = model_class.choose_outputs(outputs)
        self._known = OUTPUTS[model_class.name].outputs
        chosen = {name: self._known[name] for name in self.outputs}
        self._made_of = {name: (output.feature, output.finish(model)) for name, output in chosen.items()}
        for name, (_, finish) in self._made_of.items():
            if name in HEAD_OUTPUTS and isinstance(finish, torch.nn.Module):
                self.add_module(name, finish)  # its weights are weights

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        prompt_length: Tensor | None = None,
        is_query: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        patch_groups: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        input_features: Tensor | None = None,
        input_values: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Run a batch. `inputs` says which of the arguments this chain takes.

        Args:
            input_ids: int64 [batch, sequence].
            token_type_ids: int64 [batch, sequence]; all 0 if not given, and ignored where the chain has none.
            attention_mask: 1 for tokens, 0 for padding, int64 [batch, sequence].
            prompt_length: tokens of the prompt in each text, int64 [batch].
            is_query: 1 for queries, 0 for documents, int64 [batch].
            pixel_values: float32 [batch, channels, height, width], or of patches [batch, patches, numbers].
            pixel_attention_mask: 1 for patches, 0 behind the last one, int64 [batch, patches].
            spatial_shapes: patches below and beside one another, int64 [batch, 2].
            patch_groups: of one image, those patches together that become a token, float32 [tokens, patches, numbers].
            image_grid_thw: frames, rows and columns of patches of that image, int64 [1, 3].
            input_features: spectrograms, float32 [batch, filters, frames] or [batch, 1, frames, filters], or with an
                attention mask rows of one, [batch, sequence, numbers].
            input_values: spectrograms, float32 [batch, frames, filters], or waves, float32 [batch, samples].

        Returns:
            "sentence_embedding", float32 [batch, dim]; "token_embeddings", float32 [batch, sequence, dim];
            "scoring_mask", int64 [batch, sequence], 1 for tokens that count in late interaction; "logits" and "scores",
            float32 [batch, labels]; "lexical_weights", float32 [batch, sequence], and "colbert_vecs", float32 [batch,
            sequence, dim], with special tokens and padding; "indices", int64, and "values", float32: docs/sparse.md.
        """
        given = {
            "input_ids": input_ids,
            "token_type_ids": token_type_ids,
            "attention_mask": attention_mask,
            "prompt_length": prompt_length,
            "is_query": is_query,
            "pixel_values": pixel_values,
            "pixel_attention_mask": pixel_attention_mask,
            "spatial_shapes": spatial_shapes,
            "patch_groups": patch_groups,
            "image_grid_thw": image_grid_thw,
            "input_features": input_features,
            "input_values": input_values,
        }
        features: Features = {name: given[name] for name in self.inputs if given[name] is not None}
        if "token_type_ids" in self.inputs and token_type_ids is None:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        features = with_tokens(self._route, features)
        for name in self._chain:
            features = self.get_submodule(name)(features)
        made_of = self._made_of
        if missing := [name for name in self.outputs if made_of[name][0] not in features]:
            has = [name for name, out in self._known.items() if out.feature in features and name not in HEAD_OUTPUTS]
            raise UnsupportedOptionError(
                f"The chain gives no {' or '.join(missing)} (has: {', '.join(has)}).\nChoose another output."
            )
        return {name: finish(features[feature]) for name, (feature, finish) in made_of.items()}


def example_tensors(route: PlannedRoute, inputs: Sequence[str], tokenizer: TextTokenizer | None) -> dict[str, Tensor]:
    """A batch to trace with, in the order of the inputs."""
    if tokenizer is None:
        return other_example(route)
    known = sorted({int(number) for number in tokenizer(examples(tokenizer.takes_single))["input_ids"].flat})
    given = token_example(route, tokenizer.section, known)
    return {name: given[name] for name in inputs}


def dynamic_shapes(example: Mapping[str, Tensor]) -> dict[str, dict[int, object]]:
    """The same as torch.export takes it, for every input."""
    dynamic = torch.export.Dim.DYNAMIC
    return {name: dict.fromkeys(open_axes(name, tensor.ndim, example), dynamic) for name, tensor in example.items()}


def exported_program(
    pipeline: Pipeline, route: PlannedRoute, example: Mapping[str, Tensor]
) -> tuple[torch.export.ExportedProgram, TraceFacts]:
    """The pipeline as a traced program with named inputs and outputs, without weights that lead to no output; and the
    facts of its trace.

    Raises:
        UnsupportedModuleError: if it cannot be traced with batch and sequence open.
        UnsupportedOptionError: if an output asked for does not exist.
    """
    with _explained("trace", route), torch.no_grad(), quiet(), unchanged(pipeline), traceable(pipeline):
        program = exported(pipeline, (), dict(example), shapes=dynamic_shapes(example))
        facts = TraceFacts.of(program)
        # No operation is broken up, but vmap, which cannot be saved, is resolved, and nothing is written over.
        return pruned(decomposed(program, {}, lambda operation: True)), facts


def save_program(program: torch.export.ExportedProgram, route: PlannedRoute, path: Path) -> None:
    """Write the .pt2 file, and the folders above it.

    Raises:
        UnsupportedModuleError: if the format has no room for one of the program's operations.
        OSError: of the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _explained("save", route), quiet(), path.open("wb", buffering=0) as file:
        kept = _ErrorsKept(file)
        torch.export.save(program, kept)
        if kept.error:
            raise kept.error


class _ErrorsKept(io.RawIOBase):
    """A file that is written to, and keeps its first error: PyTorch's writer ends the process if it meets one while it
    is let go.
    """

    def __init__(self, file: io.FileIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(place, whence)

    def write(self, content: Any) -> int:
        try:
            rest = memoryview(content)
            while len(rest) and not self.error:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            self.error = error
        return len(content)


@contextlib.contextmanager
def _explained(what: str, route: PlannedRoute) -> Iterator[None]:
    """PyTorch's own errors as one line about the route."""
    try:
        yield
    except (UnsupportedOptionError, OSError):
        raise
    except Exception as error:
        modules = " -> ".join(type(module).__name__ for _, module in route.modules)
        raise UnsupportedModuleError(
            f"Cannot {what} {modules} ({route.architecture}) as a program of PyTorch: {root_cause(error)}"
            f"{place_of(error)}\n{WAYS_OUT}"
        ) from error


def pruned(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without operations that lead to no output, and without their weights: a pooler that nobody reads,
    the image tower on a route of texts. Nor is it held to sizes that were ruled out because one made of them would
    be 0 or 1: the comparison has texts of such lengths, and of those that the guards tell apart.
    """
    from torch.export.graph_signature import ExportGraphSignature, InputKind

    graph, signature = program.graph, program.graph_signature
    graph.eliminate_dead_code()
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    idle = [
        spec
        for spec in signature.input_specs
        if spec.kind is not InputKind.USER_INPUT and not nodes[spec.arg.name].users
    ]
    for spec in idle:
        graph.erase_node(nodes[spec.arg.name])
    for part in program.graph_module.modules():
        for node in part.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
    program.graph_module.recompile()
    gone = {spec.target for spec in idle}
    left = {size for node in graph.nodes for size in free_symbols(node.meta.get("val"))}  # of a check, say
    found = torch.export.ExportedProgram(
        root=program.graph_module,
        graph=graph,
        graph_signature=ExportGraphSignature(
            [spec for spec in signature.input_specs if spec not in idle], signature.output_specs
        ),
        state_dict={name: weight for name, weight in program.state_dict.items() if name not in gone},
        range_constraints={
            size: type(bounds)(min(bounds.lower, SIZES_SEEN), bounds.upper)
            for size, bounds in program.range_constraints.items()
            if size in left
        },
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants={name: value for name, value in program.constants.items() if name not in gone},
        verifiers=program.verifiers,
    )
    forget_guards(found)
    return found


def root_cause(error: BaseException) -> str:
    """The root cause of an exporter's error in one line; the errors on top of it are advice and decoration."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error_text(error)
