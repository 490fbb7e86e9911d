"""What TensorRT takes: the operators of its ONNX parser, another form of one that it lacks, the shapes that a plan is
built for, and a script that builds it.

Operators: docs/operators.md of https://github.com/onnx/onnx-tensorrt as of TensorRT 10.15.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript.rewriter import pattern

from sbertconv.errors import UnsupportedModuleError, UnsupportedOptionError

OPSET = 18  # has LayerNormalization as one operator, which is more exact in half precision than its parts
PRECISIONS = ("fp32", "fp16")  # in a strongly typed network the graph's own types; the others need other operators
SCRIPT = "build-plan.sh"
LARGEST_BATCH = 32
TOKENS = 16384  # of the largest batch, padding included: a plan's memory is sized for its largest shapes
OFTEN = {"batch": 32, "sequence": 64}  # the shape that a plan's kernels are chosen for: a full batch of the run time
_TAKEN = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU
Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
GridSample GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If
InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop
LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression
NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign
RotaryEmbedding Round STFT Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size
Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh TensorScatter ThresholdedRelu
Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_TAKEN.split())
# Operator -> whether a node of it is refused all the same, and why.
RESTRICTIONS: Mapping[str, tuple[Callable[[ir.Node], bool], str]] = {
    "EyeLike": (lambda node: not _is_fixed(node.inputs[0]), "of a size that is not fixed"),
    "LayerNormalization": (lambda node: len(node.outputs) > 1, "with more than one output"),
    "ScatterND": (lambda node: node.attributes.get_string("reduction", "none") != "none", "with a reduction"),
    "TopK": (lambda node: not node.attributes.get_int("sorted", 1), "without sorting"),
}


def _is_fixed(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and all(isinstance(size, int) for size in value.shape)


class ComparedEye(pattern.RewriteRuleClassBase):
    """An identity matrix of a size that is not fixed: where the number of the row is that of the column."""

    def pattern(self, op: Any, x: Any) -> Any:
        return op.EyeLike(x, _allow_other_attributes=True, _outputs=["eye"])

    def check(self, context: Any, x: Any, eye: Any) -> bool:
        attributes = eye.producer().attributes
        return not _is_fixed(x) and not attributes.get_int("k", 0) and "dtype" not in attributes

    def rewrite(self, op: Any, x: Any, **_: Any) -> Any:
        sizes = op.Shape(x)
        zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
        rows, columns = (op.Range(zero, op.Gather(sizes, axis), one) for axis in (zero, one))
        same = op.Equal(op.Unsqueeze(rows, op.Constant(value_ints=[1])), columns)
        return op.CastLike(same, x)


RULES = (ComparedEye.rule(),)


def prepare(model: ir.Model) -> None:
    """Bring what TensorRT's parser lacks into a form that it takes, in place."""
    for rule in RULES:
        rule.apply_to_model(model)
    passes.RemoveUnusedNodesPass()(model)


def refused_nodes(model: ir.Model) -> list[str]:
    """The operators of a graph that TensorRT's parser does not take, with their counts."""
    found: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        domain, name, _ = node.op_identifier()
        refuses, why = RESTRICTIONS.get(name, (None, ""))
        if domain:
            found[f"{domain}.{name}"] += 1
        elif name not in OPERATORS:
            found[name] += 1
        elif refuses is not None and refuses(node):
            found[f"{name} {why}"] += 1
    return [f"{name} ({count}x)" for name, count in sorted(found.items())]


def check_operators(model_name: str, refused: Mapping[str, Sequence[str]]) -> None:
    """Raise UnsupportedModuleError if a graph has operators that TensorRT's parser does not take.

    Args:
        model_name: for the message.
        refused: a graph's name -> what `refused_nodes` says of it.
    """
    lines = [f"  {name}: {', '.join(found)}" for name, found in refused.items() if found]
    if lines:
        raise UnsupportedModuleError(
            f"Cannot write {model_name!r} for TensorRT: its ONNX parser does not take these operators:\n"
            + "\n".join(lines)
            + "\nConvert without target='tensorrt'; ONNX Runtime runs them on a GPU as well."
        )


def largest_shape(section: Mapping[str, Any] | None, asked: tuple[int, int] | None) -> tuple[int, int]:
    """The largest batch and sequence that a plan is to take.

    Args:
        section: the manifest's description of the tokenizer; None for images, which have no sequence.
        asked: what the user said.

    Raises:
        UnsupportedOptionError: if nobody says how long a text can be.
    """
    if asked is not None:
        return asked
    if section is None:
        return LARGEST_BATCH, 1
    limits = [section["max_length"], *section["task_max_length"].values()]
    if None in limits:
        raise UnsupportedOptionError(
            "target='tensorrt': this model cuts no text, and a plan has a largest sequence.\n"
            f"Pass max_shape=({LARGEST_BATCH}, 512), for example: texts and tokens."
        )
    longest = max(limits)
    return max(1, min(LARGEST_BATCH, TOKENS // longest)), longest


def shape_profile(inputs: Iterable[Mapping[str, Any]], largest: tuple[int, int]) -> dict[str, dict[str, list[int]]]:
    """The shapes that a plan is built for: name of an input -> {"min", "opt", "max"} -> its sizes.

    Args:
        inputs: the manifest's entries, whose open sizes are called batch and sequence.
        largest: batch and sequence.
    """
    most = dict(zip(("batch", "sequence"), largest, strict=True))
    sizes = {
        "min": dict.fromkeys(most, 1),
        "opt": {axis: min(OFTEN[axis], size) for axis, size in most.items()},
        "max": most,
    }
    return {
        tensor["name"]: {
            kind: [size if isinstance(size, int) else open_sizes[size] for size in tensor["shape"]]
            for kind, open_sizes in sizes.items()
        }
        for tensor in inputs
    }


def build_script(graphs: Iterable[Mapping[str, Any]]) -> str:
    """A shell script that builds a plan of every graph with trtexec.

    Args:
        graphs: the manifest's entries, with their profiles.

    Options: https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/command-line-programs.html
    """
    lines = [_SCRIPT_HEAD]
    for graph in graphs:
        file = graph["formats"]["onnx"]
        shapes = (f"--{kind}Shapes={_shapes(graph['profile'], kind)}" for kind in ("min", "opt", "max"))
        plan = f'"$plans/{PurePosixPath(file).stem}.plan"'
        options = (f'--onnx="$folder/{file}"', f"--saveEngine={plan}", *shapes, "--stronglyTyped", "--noTF32")
        lines += ["", " \\\n    ".join(("trtexec", *options, "--skipInference"))]
    return "\n".join(lines) + "\n"


def _shapes(profile: Mapping[str, Mapping[str, Sequence[int]]], kind: str) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, sizes[kind]))}" for name, sizes in profile.items())


_SCRIPT_HEAD = """\
#!/bin/sh
# Builds a TensorRT plan of every graph in this folder, for the GPU of this machine, with NVIDIA's trtexec.
# Usage: sh build-plan.sh [folder for the plans; default: the current one]
# sbertconv build-plan does the same through TensorRT's Python package, compares the plans and makes them loadable.
set -eu
folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
plans=${1:-.}
if ! command -v trtexec >/dev/null; then
    echo "trtexec is not on the PATH: it is in TensorRT's archives and containers, not in its Python package." >&2
    echo "With the Python package: pip install \\"sbertconv[tensorrt]\\", then sbertconv build-plan $folder" >&2
    exit 1
fi
mkdir -p "$plans\""""
