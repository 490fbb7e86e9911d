"""Assembles the steps of a route into one torch module, traces it once and writes an ONNX graph."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sbertconv.converters import Features
from sbertconv.converters.examples import TEXTS, image_example, token_example
from sbertconv.converters.onnx.precision import IN_BLOCKS, RECIPES
from sbertconv.converters.onnx.router import RouteStep
from sbertconv.converters.traced import quiet, traceable_experts
from sbertconv.engines import ENGINES
from sbertconv.errors import ArtifactError, UnsupportedModuleError, UnsupportedOptionError, error_text, require
from sbertconv.questions import EXACT
from sbertconv.routes import Route
from sbertconv.tokenization import TextTokenizer

if TYPE_CHECKING:
    import onnx_ir

OPSETS = range(18, 23)  # torch.onnx lowers to 18 and up; ONNX Runtime 1.31 misreads RotaryEmbedding of 23
OUTPUTS = ("sentence_embedding", "token_embeddings")


@dataclass(frozen=True)
class OnnxOptions:
    """How a graph is written.

    Attributes:
        opset: the version of the ai.onnx operators.
        outputs: "sentence_embedding" and "token_embeddings", in the graph's order.
        external_data: weights in a file beside the graph; None: only past 2 GB.
        token_type_ids: None: as the tokenizer emits; True: always an input; False: never, all zeros inside.
        optimize: fuse attention and normalisation into ONNX Runtime's own operators.
        precision: a row of `RECIPES`.
        form: "onnx", or "openvino" for its intermediate representation.
        engines: what the graph is proven on.
        text_input: put the tokenizer into the graph, which then takes `text`, strings [batch].
    """

    opset: int = 18
    outputs: tuple[str, ...] = ("sentence_embedding",)
    external_data: bool | None = None
    token_type_ids: bool | None = None
    optimize: bool = True
    precision: str = EXACT
    form: str = "onnx"
    engines: tuple[str, ...] = ("onnxruntime",)
    text_input: bool = False

    def check(self) -> None:
        """Raise UnsupportedOptionError for an opset, an output, a precision or an engine that is not supported."""
        if self.precision not in RECIPES:
            raise UnsupportedOptionError(
                f"precision {self.precision!r} is not known (have: {', '.join(RECIPES)}).\nChoose one of these."
            )
        able = [name for name, engine in ENGINES.items() if self.form in engine.opens]
        if not self.engines or set(self.engines) - set(able) or len(set(self.engines)) < len(self.engines):
            raise UnsupportedOptionError(
                f"engines {', '.join(self.engines) or 'none'}: each of {', '.join(able)} at most once.\n"
                "Choose among these."
            )
        for name in self.engines:
            require(name if name == "openvino" else "onnx", ENGINES[name].package)
        if self.precision in IN_BLOCKS and not self.optimize:
            raise UnsupportedOptionError(
                f"--no-optimize: {self.precision} weights need ONNX Runtime's own operators.\n"
                "Leave the option out, or choose bf16 or fp16."
            )
        if self.text_input:
            self._check_text_input()
        if self.opset not in OPSETS:
            raise UnsupportedOptionError(
                f"opset {self.opset} is not supported (have: {', '.join(map(str, OPSETS))}).\nChoose one of these."
            )
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise UnsupportedOptionError(
                f"outputs {', '.join(self.outputs) or 'none'}: each of {', '.join(OUTPUTS)} at most once.\n"
                "Choose among these."
            )

    def _check_text_input(self) -> None:
        have = {"engine": ("onnxruntime",), "output": ("sentence_embedding",), "token-type-ids": None}
        asked = {"engine": self.engines, "output": self.outputs, "token-type-ids": self.token_type_ids}
        if problems := [name for name in have if asked[name] != have[name]]:
            raise UnsupportedOptionError(
                f"--text-input: ONNX Runtime alone runs such a graph, its one output is sentence_embedding, and its "
                f"token types are the tokenizer's.\nLeave {', '.join(f'--{name}' for name in problems)} out."
            )


class Chain(torch.nn.Module):
    """A route as one module: tensors in the order of `inputs` -> the outputs asked for."""

    def __init__(self, route: Route, inputs: tuple[str, ...], options: OnnxOptions, truncate_dim: int | None) -> None:
        super().__init__()
        self.steps = RouteStep(list(route.steps))
        self.inputs = inputs
        self.outputs = options.outputs
        self.wants_token_types = route.input is not None and "token_type_ids" in route.input.section["tensors"]
        self.truncate_dim = truncate_dim

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features: Features = dict(zip(self.inputs, tensors, strict=True))
        if not self.wants_token_types:
            features.pop("token_type_ids", None)
        elif "token_type_ids" not in features:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        features = self.steps(features)
        if missing := [name for name in self.outputs if name not in features]:
            raise UnsupportedOptionError(
                f"The chain gives no {' or '.join(missing)} "
                f"(has: {', '.join(name for name in OUTPUTS if name in features)}).\nChoose another output."
            )
        if "sentence_embedding" in features:
            features["sentence_embedding"] = features["sentence_embedding"][:, : self.truncate_dim]
        return tuple(features[name] for name in self.outputs)


def graph_inputs(route: Route, options: OnnxOptions) -> tuple[str, ...]:
    """The names of the tensors the graph takes: what the tokenizer emits, unless the options say otherwise.

    Raises:
        UnsupportedOptionError: if token_type_ids are dropped although they are not all zeros.
    """
    names = list(route.inputs)
    if route.input is None:
        return tuple(names)
    if options.token_type_ids is True and "token_type_ids" not in names:
        names.insert(1, "token_type_ids")
    if options.token_type_ids is False and "token_type_ids" in names:
        if route.input.section["pad_type_id"] != 0:
            raise UnsupportedOptionError(
                f"--no-token-type-ids: this tokenizer pads with token type {route.input.section['pad_type_id']}, "
                "not 0.\nLeave the option out."
            )
        names.remove("token_type_ids")
    return tuple(names)


def example_tensors(route: Route, inputs: tuple[str, ...], tokenizer: TextTokenizer | None) -> dict[str, torch.Tensor]:
    """A batch to trace with, in the order of the graph's inputs."""
    if tokenizer is None:
        return image_example(route)
    known = sorted({int(number) for number in tokenizer(TEXTS)["input_ids"].flat})
    given = token_example(route, tokenizer.section, known)
    return {name: given[name] for name in inputs}


@contextlib.contextmanager
def exported_graph(
    route: Route, options: OnnxOptions, tokenizer: TextTokenizer | None, truncate_dim: int | None
) -> Iterator[tuple[onnx_ir.Model, str]]:
    """A route as an ONNX graph, and the tracer that could do it; the graph loses its weights afterwards.

    Raises:
        UnsupportedModuleError: if no way of tracing works, with each one's reason.
        UnsupportedOptionError: if an output asked for does not exist, or an option does not fit.
        ArtifactError: if the graph cannot be fused.
    """
    inputs = graph_inputs(route, options)
    chain = Chain(route, inputs, options, truncate_dim).eval()
    example = example_tensors(route, inputs, tokenizer)
    with torch.no_grad(), quiet(), traceable_experts(chain):
        model, tracer = _translate(chain, example, options, route)
        name_axes(model)  # the same size of two inputs under one name, which fusion relies on
        weights = list(model.graph.initializers.values())
        if options.optimize:
            _fuse(model)
    try:
        yield tidy(model), tracer
    finally:
        # The fusion rules are module-level objects that keep the last graph they saw, and with it its weights.
        for value in (*weights, *model.graph.initializers.values()):
            value.const_value = None


def _translate(
    chain: Chain, example: Mapping[str, torch.Tensor], options: OnnxOptions, route: Route
) -> tuple[onnx_ir.Model, str]:
    """The first translation that works, and its name."""
    reasons = []
    for tracer, translate in TRANSLATIONS.items():
        try:
            return translate(chain, example, options), tracer
        except UnsupportedOptionError:
            raise
        except Exception as error:
            reasons.append(f"  {tracer}: {_reason(error)}")
    modules = " -> ".join(type(module).__name__ for _, module in route.modules)
    raise UnsupportedModuleError(
        f"Cannot trace {modules} ({route.architecture}):\n" + "\n".join(reasons) + "\n"
        "Register a converter: docs/extending.md"
    )


def _fuse(model: onnx_ir.Model) -> None:
    from sbertconv.converters.onnx.fusion import fuse

    try:
        fuse(model)
    except Exception as error:
        raise ArtifactError(f"The graph cannot be fused: {_reason(error)}\nPass --no-optimize.") from error


def _translate_exported(chain: Chain, example: Mapping[str, torch.Tensor], options: OnnxOptions) -> onnx_ir.Model:
    """torch.export, batch and sequence dynamic, then PyTorch's translation of its operations."""
    dynamic = tuple(dict.fromkeys(dynamic_axes(name), torch.export.Dim.DYNAMIC) for name in example)
    program = torch.export.export(chain, tuple(example.values()), dynamic_shapes=(dynamic,), strict=False)
    translated = torch.onnx.export(
        program,
        input_names=list(example),
        output_names=list(chain.outputs),
        opset_version=options.opset,
        optimize=not options.optimize,
        verbose=False,
    )
    assert translated is not None
    return translated.model


def _translate_scripted(chain: Chain, example: Mapping[str, torch.Tensor], options: OnnxOptions) -> onnx_ir.Model:
    """TorchScript's tracer, for the few architectures whose shapes torch.export cannot keep dynamic."""
    import onnx
    import onnx_ir

    buffer = io.BytesIO()
    names = {"batch": 0, "sequence": 1}
    torch.onnx.export(
        chain,
        tuple(example.values()),
        buffer,
        input_names=list(example),
        output_names=list(chain.outputs),
        dynamic_axes={
            name: {axis: label for label, axis in names.items() if axis in dynamic_axes(name)} for name in example
        },
        opset_version=min(options.opset, 20),
        dynamo=False,
    )
    return onnx_ir.from_proto(onnx.load_from_string(buffer.getvalue()))


Translation = Callable[[Chain, Mapping[str, torch.Tensor], OnnxOptions], "onnx_ir.Model"]
TRANSLATIONS: dict[str, Translation] = {"torch.export": _translate_exported, "TorchScript": _translate_scripted}


def dynamic_axes(name: str) -> tuple[int, ...]:
    """The axes of an input that vary: batch, and sequence for tokens."""
    return (0,) if name in ("prompt_length", "pixel_values") else (0, 1)


def name_axes(model: onnx_ir.Model) -> None:
    """Call the axes that vary batch and sequence everywhere."""
    import onnx_ir

    names = {}
    for value in model.graph.inputs:
        for axis, label in zip(dynamic_axes(value.name or ""), ("batch", "sequence"), strict=False):
            names[str(value.shape[axis])] = label
    for value in [*model.graph.inputs, *model.graph.outputs, *(v for node in model.graph for v in node.outputs)]:
        if value.shape is not None:
            value.shape = onnx_ir.Shape([d if isinstance(d, int) else names.get(str(d), str(d)) for d in value.shape])


def tidy(model: onnx_ir.Model) -> onnx_ir.Model:
    """A name for who made it, and no trace of the tracing."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    from sbertconv import __version__

    ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "sbertconv", __version__
    return model


def describe_tensors(values: Any) -> list[dict[str, Any]]:
    """The manifest's entries for a graph's inputs or outputs: name, numpy dtype, shape."""
    return [
        {
            "name": value.name,
            "dtype": str(value.dtype.numpy()),
            "shape": [dim if isinstance(dim, int) else str(dim) for dim in value.shape],
        }
        for value in values
    ]


def _reason(error: BaseException) -> str:
    """The root cause of an exporter's error in one line; the errors on top of it are advice and decoration."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error_text(error)
