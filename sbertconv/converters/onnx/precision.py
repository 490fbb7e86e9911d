"""Smaller weights in an ONNX graph: per precision, the recipes to try, fastest first.

Blocks: a weight matrix is cut into runs of `block` numbers along the axis that a product sums over; each run has a
scale of its own, and the activations are rounded in the same runs while the product is computed. So a text's vector
does not depend on the other texts of its batch, as it does where one scale serves a whole tensor.

MatMulNBits, GatherBlockQuantized: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.classes import EXACT
from sbertconv.converters.onnx.fusion import CONTRIB

if TYPE_CHECKING:
    import onnx_ir

INT8_PRODUCTS = 4  # MatMulNBits' accuracy_level for products of 8-bit integers
SMALLEST = 4096  # numbers; smaller weights are not worth a scale
SMALLEST_HALF = float(np.finfo(np.float16).smallest_subnormal)
LARGEST_HALF = 16384.0  # a quarter of float16's range, for texts beyond those of the probe
MASK_FILL = 1e30  # what is larger stands for infinity in a mask; float16's largest number does there
Probe = Callable[[], Mapping[str, float]]  # the largest absolute value of every floating tensor, by name


@dataclass(frozen=True)
class Recipe:
    """One way to a precision.

    Attributes:
        name: for the manifest.
        change: (graph in float32, probe) -> the smaller graph; None: it stays as it is.
        calibrated: whether the probe is asked, so that the texts it runs matter.
    """

    name: str
    change: Callable[[onnx_ir.Model, Probe], onnx_ir.Model] | None
    calibrated: bool = False


def in_blocks(model: onnx_ir.Model, probe: Probe, *, bits: int, block: int) -> onnx_ir.Model:
    """Weights of matrix products and embedding tables as integers of so many bits, one scale per block."""
    unpack_attention(model)
    fold_constants(model)
    for node in list(model.graph):
        operator = BLOCKWISE.get(node.op_identifier()[:2])
        matrix = None if operator is None else node.inputs[operator.matrix]
        if operator is None or matrix is None or matrix.const_value is None:
            continue
        values = matrix.const_value.numpy()
        if values.ndim != 2 or values.size < SMALLEST:
            continue
        rows = np.ascontiguousarray(values.T if operator.sums_over_rows else values)
        if bits * rows.shape[1] % 8:  # two rows of a table would share a byte
            continue
        packed, scales = quantized(rows, bits, min(block, _power_of_two(rows.shape[1])))
        replace(model, node, *operator.quantized(node, rows.shape, packed, scales, bits))
    return clean(model)


def quantized(rows: np.ndarray, bits: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric rounding in blocks along the last axis.

    Args:
        rows: float32 [n, k].
        bits: 4 or 8.
        block: numbers that share a scale, a power of 2 from 16 on; the last block of a row is filled up with zeros.

    Returns:
        uint8 [n, blocks, block * bits / 8] around 2 ** (bits - 1), the lower half of a byte first, and scales,
        float32 [n, blocks].
    """
    n, k = rows.shape
    blocks = -(-k // block)
    padded = np.zeros((n, blocks * block), np.float32)
    padded[:, :k] = rows
    padded = padded.reshape(n, blocks, block)
    middle = 2 ** (bits - 1)
    # The number farthest from zero becomes the lowest integer, of which there is one more than of the highest.
    farthest = np.take_along_axis(padded, np.abs(padded).argmax(axis=2)[..., None], axis=2)[..., 0]
    scales = (-farthest / middle).astype(np.float32)
    divisor = np.where(scales == 0, 1, scales)[..., None]
    integers = (np.clip(np.rint(padded / divisor), -middle, middle - 1) + middle).astype(np.uint8)
    if bits == 4:
        integers = integers[..., ::2] | (integers[..., 1::2] << 4)
    return integers, scales


def _power_of_two(size: int) -> int:
    """The smallest power of 2 that holds it, at least 16."""
    return max(16, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Blockwise:
    """How an operator with a constant matrix is replaced.

    Attributes:
        matrix: its place among the inputs.
        sums_over_rows: whether the product sums over the matrix's first axis.
        quantized: (node, shape of the rows, packed, scales, bits) -> operator, inputs and attributes of the new one.
    """

    matrix: int
    sums_over_rows: bool
    quantized: Callable[..., tuple[str, list[Any], dict[str, int]]]


def _product(node: Any, shape: tuple[int, int], packed: Any, scales: Any, bits: int) -> Any:
    sizes = {"K": shape[1], "N": shape[0], "bits": bits, "block_size": packed.shape[2] * 8 // bits}
    return "MatMulNBits", [node.inputs[0], packed, scales], {**sizes, "accuracy_level": INT8_PRODUCTS}


def _lookup(node: Any, shape: tuple[int, int], packed: Any, scales: Any, bits: int) -> Any:
    table = packed.reshape(len(packed), -1)[:, : shape[1] * bits // 8]
    attributes = {"bits": bits, "block_size": packed.shape[2] * 8 // bits, "gather_axis": 0, "quantize_axis": 1}
    return "GatherBlockQuantized", [np.ascontiguousarray(table), node.inputs[1], scales], attributes


BLOCKWISE = {
    ("", "MatMul"): Blockwise(1, True, _product),
    ("", "Gather"): Blockwise(0, False, _lookup),
}


def unpack_attention(model: onnx_ir.Model) -> None:
    """Attention with a packed weight as a product and MultiHeadAttention, so that the product can be rounded."""
    import onnx_ir

    for node in list(model.graph):
        if node.op_identifier()[:2] != (CONTRIB, "Attention"):
            continue
        x, weight, bias, _, _, attention_bias, *_ = [*node.inputs, *[None] * 6][:7]
        product = onnx_ir.node("MatMul", [x, weight])
        split = onnx_ir.node("Split", [product.outputs[0]], {"axis": -1, "num_outputs": 3}, num_outputs=3)
        kept = {name: value for name, value in node.attributes.items() if name != "qkv_hidden_sizes"}
        attention = onnx_ir.node("MultiHeadAttention", [*split.outputs, bias, None, attention_bias], domain=CONTRIB)
        attention.attributes.update(kept)
        new = [product, split, attention]
        onnx_ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], new, node.outputs[:1], attention.outputs
        )


def fold_constants(model: onnx_ir.Model) -> None:
    """Whatever does not depend on the input, weights of any size included."""
    from onnxscript import optimizer

    optimizer.fold_constants(model, input_size_limit=2**62, output_size_limit=2**62)


def replace(model: onnx_ir.Model, node: Any, op_type: str, inputs: list[Any], attributes: Mapping[str, Any]) -> None:
    """One of Microsoft's operators in the place of a node; arrays among the inputs become weights."""
    import onnx_ir

    values = [
        _weight(model, f"{node.outputs[0].name}.{index}", value) if isinstance(value, np.ndarray) else value
        for index, value in enumerate(inputs)
    ]
    new = onnx_ir.node(op_type, values, attributes, domain=CONTRIB)
    onnx_ir.convenience.replace_nodes_and_values(model.graph, node, [node], [new], node.outputs, new.outputs)


def _weight(model: onnx_ir.Model, name: str, array: np.ndarray) -> onnx_ir.Value:
    import onnx_ir

    tensor = onnx_ir.tensor(array, name=name)
    value = onnx_ir.Value(
        name=name, shape=onnx_ir.Shape(array.shape), type=onnx_ir.TensorType(tensor.dtype), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value


def clean(model: onnx_ir.Model) -> onnx_ir.Model:
    """Without the nodes and weights that nothing uses any more."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    model.graph.opset_imports.setdefault(CONTRIB, 1)
    return model


def as_bfloat16(model: onnx_ir.Model, probe: Probe) -> onnx_ir.Model:
    """Weights as bfloat16, brought back to float32 when the graph is loaded; an engine may compute in either."""
    import onnx_ir

    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size < SMALLEST:
            continue
        half = tensor.numpy().astype(onnx_ir.DataType.BFLOAT16.numpy())
        cast = onnx_ir.node("Cast", [_weight(model, f"{name}.bfloat16", half)], {"to": onnx_ir.DataType.FLOAT})
        model.graph.insert_before(model.graph[0], cast)
        onnx_ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del model.graph.initializers[name]
    return model


def as_float16(model: onnx_ir.Model, probe: Probe) -> onnx_ir.Model:
    """Weights and computation in float16, but for operators that have none and nodes whose values leave its range.
    Inputs and outputs stay in float32.
    """
    import onnx_ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    single, half = onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    weights = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    sizes = {name: np.abs(array).max(initial=0) for name, array in weights.items() if array.dtype == np.float32}
    outside = {name for name, v in {**probe(), **sizes}.items() if LARGEST_HALF < v < MASK_FILL or np.isnan(v)}
    outside |= {name for name, size in sizes.items() if 0 < size < SMALLEST_HALF}  # they keep divisors from 0
    halves: dict[onnx_ir.Value, onnx_ir.Value] = {}  # a value in float32 -> the same in float16
    singles: dict[onnx_ir.Value, onnx_ir.Value] = {}  # and back

    def cast(value: onnx_ir.Value, dtype: onnx_ir.DataType, before: onnx_ir.Node) -> onnx_ir.Value:
        node = onnx_ir.node("Cast", [value], {"to": dtype})
        node.outputs[0].dtype = dtype
        model.graph.insert_before(before, node)
        return node.outputs[0]

    def in_half(value: onnx_ir.Value, before: onnx_ir.Node) -> onnx_ir.Value:
        if value.name in weights:
            limit = np.finfo(np.float16).max
            return _weight(model, f"{value.name}.half", np.clip(weights[value.name], -limit, limit).astype(np.float16))
        return cast(value, half, before)

    for node in list(model.graph):
        inputs = [value for value in node.inputs if value is not None]
        stays = node.op_type in DEFAULT_OP_BLOCK_LIST or any(v.name in outside for v in (*inputs, *node.outputs))
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            if stays and value.dtype == half:
                singles[value] = singles.get(value) or cast(value, single, node)
                node.replace_input_with(index, singles[value])
            elif not stays and value.dtype == single:
                halves[value] = halves.get(value) or in_half(value, node)
                node.replace_input_with(index, halves[value])
        if stays:
            continue
        if node.op_type == "Cast" and node.attributes["to"].as_int() == single:
            node.attributes["to"] = onnx_ir.AttrInt64("to", half)
        if node.op_type == "ConstantOfShape" and "value" in node.attributes:
            filled = node.attributes["value"].as_tensor().numpy()
            if filled.dtype == np.float32:
                node.attributes["value"] = onnx_ir.AttrTensor("value", onnx_ir.tensor(filled.astype(np.float16)))
        for value in node.outputs:
            if value.dtype == single:
                value.dtype = half
    last = model.graph[-1]
    for index, value in enumerate(model.graph.outputs):
        if value.dtype == half:
            name, value.name = value.name, f"{value.name}.half"
            back = onnx_ir.node("Cast", [value], {"to": single})
            back.outputs[0].name, back.outputs[0].dtype, back.outputs[0].shape = name, single, value.shape
            model.graph.insert_after(last, back)
            model.graph.outputs[index] = back.outputs[0]
    return clean(model)


def largest_values(path: Path, feeds: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Run a graph and tell the largest absolute value of every floating tensor in it, by name.

    Args:
        path: an .onnx file in float32.
        feeds: batches for its inputs.
    """
    import onnx_ir
    import onnxruntime

    model = onnx_ir.load(path)
    floating = [
        value for node in model.graph for value in node.outputs if value.dtype == onnx_ir.DataType.FLOAT and value.name
    ]
    names = {}
    for index, value in enumerate(floating):
        size = onnx_ir.node("Abs", [value])
        largest = onnx_ir.node("ReduceMax", [size.outputs[0]], {"keepdims": 0})
        largest.outputs[0].name = f"largest_{index}"
        largest.outputs[0].dtype = onnx_ir.DataType.FLOAT
        names[largest.outputs[0].name] = value.name
        model.graph.extend([size, largest])
        model.graph.outputs.append(largest.outputs[0])
    probe = path.with_name("probe.onnx")
    onnx_ir.save(model, probe, external_data="probe.onnx_data")
    session = onnxruntime.InferenceSession(probe, providers=["CPUExecutionProvider"])
    found: dict[str, float] = {}
    for feed in feeds:
        for name, largest in zip(names.values(), session.run(list(names), dict(feed)), strict=True):
            found[name] = max(found.get(name, 0.0), float(largest), key=lambda v: (np.isnan(v), v))
    return found


IN_BLOCKS = {"int8": (64, 32), "int4": (64, 32, 16)}  # numbers that share a scale: the smaller, the more exact
RECIPES: Mapping[str, tuple[Recipe, ...]] = {
    EXACT: (Recipe("weights in float32", None),),
    "bf16": (Recipe("weights in bfloat16", as_bfloat16),),
    "fp16": (Recipe("float16 where its range allows", as_float16, calibrated=True),),
    **{
        name: tuple(
            Recipe(f"blocks of {block}", partial(in_blocks, bits=int(name.removeprefix("int")), block=block))
            for block in blocks
        )
        for name, blocks in IN_BLOCKS.items()
    },
}
