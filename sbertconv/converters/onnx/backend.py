"""Traces the pipeline of a route once and translates it to an ONNX graph."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sbertconv.artifact.kinds import EXACT, NOT_ZERO, ModelClass
from sbertconv.converters.exporting import exported
from sbertconv.converters.guards import FACTS, TraceFacts
from sbertconv.converters.onnx.compat import exact_constants, optimized_once, quick_exporter, rules_by_anchor
from sbertconv.converters.onnx.fusion.padding import zero_unattended
from sbertconv.converters.onnx.fusion.weights import pick_rows
from sbertconv.converters.onnx.precision import IN_BLOCKS, RECIPES
from sbertconv.converters.onnx.saving import lazy
from sbertconv.converters.onnx.tensorrt import OPSET, prepare
from sbertconv.converters.onnx.tensorrt import PRECISIONS as TENSORRT_PRECISIONS
from sbertconv.converters.places import is_of_a_model, line_of, place_of
from sbertconv.converters.torch.backend import Pipeline, dynamic_shapes, example_tensors, root_cause
from sbertconv.converters.traced import quiet, traceable, unchanged
from sbertconv.errors import WAYS_OUT, ArtifactError, UnsupportedModuleError, UnsupportedOptionError, require
from sbertconv.options import GRAPH_ENGINES, OnnxOptions
from sbertconv.plan.routes import PlannedRoute
from sbertconv.runtime.engines import ENGINES
from sbertconv.runtime.tokenization import TextTokenizer
from sbertconv.source.routes import GROUPS, MASK, SOUNDS, open_axes
from sbertconv.source.widening import stand_ins, widen

if TYPE_CHECKING:
    import onnx_ir
    from sentence_transformers import SentenceTransformer

LINES = 4  # of the code of a model in one message
FROM_DATA = re.compile(r"u\d+")  # torch.export's name for a size that only the data tells


@dataclass(frozen=True, kw_only=True)
class GraphSettings(OnnxOptions):
    """The options of a graph, with what they leave open decided.

    Attributes:
        form: "onnx", or "openvino" for its intermediate representation.
    """

    form: str = "onnx"

    @property
    def proven_on(self) -> tuple[str, ...]:
        """The engines that it is compared on."""
        if self.engines is not None:
            return self.engines
        # of the engines OpenVINO alone computes in bfloat16
        return GRAPH_ENGINES if self.precision == "bf16" and find_spec("openvino") else GRAPH_ENGINES[:1]

    @property
    def for_tensorrt(self) -> bool:
        """Whether the graph is written for TensorRT."""
        return self.target == "tensorrt"

    @property
    def kind(self) -> str:
        """What the folder is called after."""
        return self.target if self.for_tensorrt else self.form

    def check(self) -> None:
        """Raise UnsupportedOptionError for options that exclude each other, MissingDependencyError for an engine that
        is not installed.
        """
        for name in self.proven_on:
            require(ENGINES[name].extra or "onnx", ENGINES[name].package)
        if self.precision in IN_BLOCKS and not self.optimize:
            raise UnsupportedOptionError(
                f"optimize=False: {self.precision} weights need ONNX Runtime's own operators.\n"
                "Leave the option out, or choose bf16 or fp16."
            )
        calibrated = [name for name, recipes in RECIPES.items() if any(recipe.calibrated for recipe in recipes)]
        if self.calibration and self.precision not in calibrated:
            raise UnsupportedOptionError(
                f"calibration=: {self.precision} looks at no values of texts (have: {', '.join(calibrated)}).\n"
                "Leave the option out; texts= measures the quality on your own texts."
            )
        self._check_target()

    def _check_target(self) -> None:
        if not self.for_tensorrt:
            if self.max_shape is not None:
                raise UnsupportedOptionError("max_shape=: only plans have one.\nAdd target='tensorrt'.")
            return
        fits = {
            "opset": self.opset == OPSET,
            "precision": self.precision in TENSORRT_PRECISIONS,
            "text_input": not self.text_input,
            "input_names": not self.input_names,
            "output_names": not self.output_names,
        }
        if misfits := ", ".join(f"{name}=" for name, fit in fits.items() if not fit):
            raise UnsupportedOptionError(
                f"target='tensorrt' with {misfits}: TensorRT is given opset {OPSET} in "
                f"{' or '.join(TENSORRT_PRECISIONS)}, and takes neither strings nor other names.\nLeave {misfits} out."
            )
        if self.max_shape is not None and min(self.max_shape) < 1:
            raise UnsupportedOptionError(
                f"max_shape={self.max_shape}: not a batch and a sequence.\nPass max_shape=(32, 256), say."
            )

    def of(self, model_class: ModelClass) -> GraphSettings:
        """The settings for a class of models, its outputs chosen.

        Raises:
            UnsupportedOptionError: for an output, a precision or an input that does not fit the class.
        """
        outputs = model_class.choose_outputs(self.outputs, self.activation, self.sparse)
        if self.precision != EXACT and model_class.output not in outputs:
            raise UnsupportedOptionError(
                f"outputs={list(outputs)} alone: the quality of {self.precision} is measured on {model_class.output}.\n"
                f"Ask for outputs={[model_class.output]} too, or for {EXACT}."
            )
        if model_class.pairs and self.token_type_ids is False:
            raise UnsupportedOptionError(
                f"token_type_ids=False: a {model_class.name} may tell the texts of a pair by them.\n"
                "Leave the option out."
            )
        if self.text_input:
            model_class.check_text_input()
            self._check_text_input(set(outputs) & set(model_class.token_outputs))
        return replace(self, outputs=outputs, optimize=self.optimize and not self.for_tensorrt)

    def _check_text_input(self, token_outputs: set[str]) -> None:
        refused = {
            "engines": self.proven_on != ("onnxruntime",),
            "outputs": bool(token_outputs),
            "token_type_ids": self.token_type_ids is not None,
        }
        if problems := ", ".join(f"{name}=" for name, wrong in refused.items() if wrong):
            raise UnsupportedOptionError(
                "text_input=True: ONNX Runtime alone runs such a graph, it has an output for each text and none for "
                f"each token, and its token types are the tokenizer's.\nLeave {problems} out."
            )


class Chain(torch.nn.Module):
    """A pipeline on tensors in the order of `inputs`, which is what the exporters can name."""

    def __init__(self, pipeline: Pipeline, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.pipeline(**dict(zip(self.inputs, tensors, strict=True))).values())


def graph_inputs(route: PlannedRoute, options: GraphSettings) -> tuple[str, ...]:
    """The names of the tensors the graph takes: what the tokenizer emits, unless the options say otherwise.

    Raises:
        UnsupportedOptionError: if token_type_ids are dropped although they are not all zeros, and for a TensorRT graph
            of images that become tokens of any number.
    """
    names = list(route.inputs)
    if GROUPS in names and options.for_tensorrt:
        raise UnsupportedOptionError(
            "target='tensorrt': TensorRT is given images of one size, and this model's become tokens of any number.\n"
            "Leave the option out."
        )
    if route.input is None or route.modality != "text":
        return tuple(names)
    if options.token_type_ids is True and "token_type_ids" not in names:
        names.insert(1, "token_type_ids")
    if options.token_type_ids is False and "token_type_ids" in names:
        if route.input.section["pad_type_id"] != 0:
            raise UnsupportedOptionError(
                f"token_type_ids=False: this tokenizer pads with token type {route.input.section['pad_type_id']}, "
                "not 0.\nLeave the option out."
            )
        names.remove("token_type_ids")
    return tuple(names)


@contextlib.contextmanager
def exported_graph(
    route: PlannedRoute, options: GraphSettings, tokenizer: TextTokenizer | None, model: SentenceTransformer
) -> Iterator[tuple[onnx_ir.Model, str]]:
    """A route as an ONNX graph, and the tracer that could do it; the graph loses its weights afterwards.

    Raises:
        UnsupportedModuleError: if no way of tracing works, with each one's reason.
        UnsupportedOptionError: if an output asked for does not exist, or an option does not fit.
        ArtifactError: if the graph cannot be fused.
    """
    inputs = graph_inputs(route, options)
    chain = Chain(Pipeline(route, model, options.outputs).eval(), inputs)
    example = example_tensors(route, inputs, tokenizer)
    with torch.no_grad(), quiet(), traceable(chain), exact_constants(), rules_by_anchor(), optimized_once():
        graph, tracer = _translate(chain, example, options, route)
        name_axes(graph)  # the same size of two inputs under one name, which fusion relies on
        weights = list(graph.graph.initializers.values())
        pick_rows(graph)
        if reads_padding(chain, example):
            zero_unattended(graph)
        if options.optimize:
            _fuse(graph, tied=options.precision not in IN_BLOCKS)  # whose kernels want a weight, not one turned
        if options.for_tensorrt:
            prepare(graph)
    try:
        yield tidy(graph), tracer
    finally:
        # The fusion rules are module-level objects that keep the last graph they saw, and with it its weights.
        for value in (*weights, *graph.graph.initializers.values()):
            value.const_value = None


def reads_padding(chain: Chain, example: Mapping[str, torch.Tensor]) -> bool:
    """Whether what is given for a row of nothing but padding depends on its tokens. A mean over no tokens does not."""
    if "attention_mask" not in example or "input_ids" not in example:
        return False
    padding = {**example, "attention_mask": torch.zeros_like(example["attention_mask"])}
    turned = {**padding, "input_ids": example["input_ids"].flip(1)}
    with unchanged(chain):
        both = zip(chain(*padding.values()), chain(*turned.values()), strict=True)
        return not all(torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)) for one, other in both)


def _translate(
    chain: Chain, example: Mapping[str, torch.Tensor], options: GraphSettings, route: PlannedRoute
) -> tuple[onnx_ir.Model, str]:
    """The first translation that works, and its name."""
    reasons = []
    for tracer, translate in TRANSLATIONS.items():
        try:
            with unchanged(chain):
                return translate(chain, example, options), tracer
        except UnsupportedOptionError:
            raise
        except Exception as error:
            reasons.append(f"  {tracer}: {root_cause(error)}{place_of(error)}")
    modules = " -> ".join(type(module).__name__ for _, module in route.modules)
    raise UnsupportedModuleError(
        f"Cannot trace {modules} ({route.architecture}):\n" + "\n".join(reasons) + f"\n{WAYS_OUT}"
    )


def _fuse(model: onnx_ir.Model, tied: bool) -> None:
    from sbertconv.converters.onnx.fusion import fuse

    try:
        fuse(model, tied)
    except Exception as error:
        raise ArtifactError(f"The graph cannot be fused: {root_cause(error)}\nPass optimize=False.") from error


def _translate_exported(chain: Chain, example: Mapping[str, torch.Tensor], options: GraphSettings) -> onnx_ir.Model:
    """torch.export, batch and sequence dynamic, then PyTorch's translation of its operations."""
    dynamic = tuple(dynamic_shapes(example).values())
    with stand_ins(chain) as widened:
        program = exported(chain, tuple(example.values()), shapes=(dynamic,))
        facts = TraceFacts.of(program)
        with quick_exporter():
            translated = torch.onnx.export(
                program,
                input_names=list(example),
                output_names=list(chain.pipeline.outputs),
                opset_version=options.opset,
                optimize=False,
                verbose=False,
            )
    assert translated is not None
    for name, value in translated.model.graph.initializers.items():
        if name in widened:
            value.const_value = lazy(name, value, partial(_float32, widened[name]))
    if not options.optimize:
        translated.optimize()
    translated.model.meta[FACTS] = facts
    return translated.model


def _float32(half: torch.Tensor) -> np.ndarray:
    wide: np.ndarray = half.float().numpy()
    return wide


def _translate_scripted(chain: Chain, example: Mapping[str, torch.Tensor], options: GraphSettings) -> onnx_ir.Model:
    """TorchScript's tracer, for the few architectures whose shapes torch.export cannot keep dynamic.

    It warns where it takes a tensor for a number or a choice of its example. That is right where a shorter example
    makes the same graph, and the lengths beyond are compared like all others.

    Raises:
        UnsupportedModuleError: for a model whose graph is another one for a shorter example, with the lines.
    """
    widen(chain)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", torch.jit.TracerWarning)
        graph = _scripted(chain, example, options)
        if MASK in example and not _same(graph, _scripted(chain, _shorter(example), options)):
            lines = dict.fromkeys(line_of(str(one.filename), one.lineno) for one in said if _is_assumed(one))
            raise UnsupportedModuleError(
                f"the graph is another one for each length of the texts. What it depends on: "
                f"{'; '.join(list(lines)[:LINES]) or 'a loop over the tokens'}"
            )
    return graph


def _is_assumed(warning: warnings.WarningMessage) -> bool:
    return issubclass(warning.category, torch.jit.TracerWarning) and is_of_a_model(str(warning.filename))


def _scripted(chain: Chain, example: Mapping[str, torch.Tensor], options: GraphSettings) -> onnx_ir.Model:
    import onnx
    import onnx_ir

    buffer = io.BytesIO()
    torch.onnx.export(
        chain,
        tuple(example.values()),
        buffer,
        input_names=list(example),
        output_names=list(chain.pipeline.outputs),
        dynamic_axes={name: open_axes(name, tensor.ndim, example) for name, tensor in example.items()},
        opset_version=min(options.opset, 20),
        dynamo=False,
    )
    return onnx_ir.from_proto(onnx.load_from_string(buffer.getvalue()))


def _shorter(example: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The example without some of its tokens, on the side where texts are padded."""
    mask = example[MASK]
    length = mask.shape[1] // 2 + 1
    kept = slice(-length, None) if bool(mask[:, -1].all()) else slice(length)
    return {name: value[:, kept] if value.shape[:2] == mask.shape else value for name, value in example.items()}


def _same(one: onnx_ir.Model, other: onnx_ir.Model) -> bool:
    """Whether two graphs are the same operations with the same numbers."""

    def told(model: onnx_ir.Model) -> list[Any]:
        nodes = [
            (node.op_type, *(_numbers(attribute.value) for attribute in node.attributes.values()))
            for node in model.graph.all_nodes()
        ]
        return nodes + sorted(_numbers(value.const_value) for value in model.graph.initializers.values())

    return told(one) == told(other)


def _numbers(value: Any) -> str:
    """What an attribute or a weight holds; graphs inside a node are among the nodes."""
    import onnx_ir

    if isinstance(value, onnx_ir.Graph):
        return ""
    return hashlib.sha256(value.tobytes()).hexdigest() if isinstance(value, onnx_ir.TensorProtocol) else str(value)


Translation = Callable[[Chain, Mapping[str, torch.Tensor], GraphSettings], "onnx_ir.Model"]
TRANSLATIONS: dict[str, Translation] = {"torch.export": _translate_exported, "TorchScript": _translate_scripted}


def name_axes(model: onnx_ir.Model) -> None:
    """Call the axes that vary as the inputs do everywhere, and one that only the data tells as outputs call it."""
    import onnx_ir

    names: dict[str, str] = {}
    for value in model.graph.outputs:
        names |= {str(size): NOT_ZERO for size in value.shape or () if FROM_DATA.fullmatch(str(size))}
    inputs = [value.name for value in model.graph.inputs]
    for value in model.graph.inputs:
        axes = open_axes(value.name, len(value.shape), inputs)
        names |= {str(value.shape[axis]): label for axis, label in axes.items()}
    if {GROUPS, *SOUNDS} & set(inputs):  # frames by the formula of convolutions, tokens around an image
        derived = {
            str(size) for value in model.graph.outputs for size in value.shape or () if not isinstance(size, int)
        }
        names = dict.fromkeys(derived, "sequence") | names
    for value in [*model.graph.inputs, *model.graph.outputs, *(v for node in model.graph for v in node.outputs)]:
        if value.shape is not None:
            sizes = (size if isinstance(size, int) else size.value for size in value.shape)  # None: it has no name
            value.shape = onnx_ir.Shape([names.get(size, size) if isinstance(size, str) else size for size in sizes])


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
