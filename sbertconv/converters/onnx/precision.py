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

from sbertconv.artifact.kinds import EXACT
from sbertconv.converters.onnx.fusion.values import CONTRIB
from sbertconv.converters.onnx.saving import lazy, read

if TYPE_CHECKING:
    import onnx_ir

INT8_PRODUCTS = 4  # MatMulNBits' accuracy_level for products of 8-bit integers
PIECE = 1 << 22  # numbers that are rounded at a time
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
        block: how many numbers share a scale, for the manifest; None: they have none.
    """

    name: str
    change: Callable[[onnx_ir.Model, Probe], onnx_ir.Model] | None
    calibrated: bool = False
    block: int | None = None


def in_blocks(model: onnx_ir.Model, probe: Probe, *, bits: int, block: int) -> onnx_ir.Model:
    """Weights of matrix products and embedding tables as integers of so many bits, one scale per block."""
    unpack_attention(model)
    fold_constants(model)
    stored: dict[tuple[onnx_ir.Value, Blockwise], tuple[onnx_ir.Value, onnx_ir.Value]] = {}
    for node in list(model.graph):
        operator = BLOCKWISE.get(node.op_identifier()[:2])
        matrix = None if operator is None else node.inputs[operator.matrix]
        tensor = None if matrix is None else matrix.const_value
        if operator is None or matrix is None or tensor is None or len(tensor.shape) != 2 or tensor.size < SMALLEST:
            continue
        n, k = reversed(tensor.shape) if operator.sums_over_rows else tensor.shape
        if bits * k % 8:  # two rows of a table would share a byte
            continue
        size = min(block, _power_of_two(k))
        if (matrix, operator) not in stored:
            stored[matrix, operator] = _in_blocks(model, matrix, operator, (n, k), bits, size)
        inputs, attributes = operator.call(node, *stored[matrix, operator], {"K": k, "N": n})
        replace(model, node, operator.name, inputs, {**attributes, "bits": bits, "block_size": size})
    return clean(model)


def _in_blocks(
    model: onnx_ir.Model, matrix: onnx_ir.Value, operator: Blockwise, shape: tuple[int, int], bits: int, block: int
) -> tuple[onnx_ir.Value, onnx_ir.Value]:
    """The integers and the scales of a weight."""
    import onnx_ir

    (n, k), tensor = shape, matrix.const_value
    blocks = -(-k // block)
    packed_shape = (n, k * bits // 8) if operator.flat else (n, blocks, block * bits // 8)

    def rows(values: np.ndarray) -> np.ndarray:
        return values.T if operator.sums_over_rows else values

    def packed(values: np.ndarray) -> np.ndarray:
        integers = block_integers(rows(values), bits, block)
        return integers.reshape(n, -1)[:, : packed_shape[1]] if operator.flat else integers

    def scales(values: np.ndarray) -> np.ndarray:
        return block_scales(rows(values), bits, block)

    name = f"{matrix.name}.{'rows' if operator.flat else 'columns'}"
    return (
        derived(model, f"{name}.packed", tensor, packed, packed_shape, onnx_ir.DataType.UINT8),
        derived(model, f"{name}.scales", tensor, scales, (n, blocks), onnx_ir.DataType.FLOAT),
    )


def block_scales(rows: np.ndarray, bits: int, block: int) -> np.ndarray:
    """The scales of symmetric rounding in blocks along the last axis.

    Args:
        rows: float32 [n, k].
        bits: 4 or 8.
        block: numbers that share a scale, a power of 2 from 16 on; the last block of a row is filled up with zeros.

    Returns:
        float32 [n, blocks]. The number farthest from zero becomes the lowest integer, of which there is one more than
        of the highest.
    """
    return _in_pieces(lambda piece: _scales(_cut(piece, block), bits), rows)


def block_integers(rows: np.ndarray, bits: int, block: int) -> np.ndarray:
    """The integers that go with `block_scales`, which says what the arguments are.

    Returns:
        uint8 [n, blocks, block * bits / 8] around 2 ** (bits - 1), the lower half of a byte first.
    """
    return _in_pieces(lambda piece: _integers(_cut(piece, block), bits), rows)


def _in_pieces(work: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """What `work` makes of some rows at a time: an embedding table and all that is computed from it are several GB."""
    step = max(1, PIECE // rows.shape[1])
    return np.concatenate([work(rows[start : start + step]) for start in range(0, len(rows), step)])


def _cut(rows: np.ndarray, block: int) -> np.ndarray:
    """[n, k] -> [n, blocks, block]."""
    n, k = rows.shape
    padded = np.zeros((n, -(-k // block) * block), np.float32)
    padded[:, :k] = rows
    return padded.reshape(n, -1, block)


def _scales(blocks: np.ndarray, bits: int) -> np.ndarray:
    highest, lowest = blocks.max(axis=2), blocks.min(axis=2)
    scales: np.ndarray = -np.where(highest > -lowest, highest, lowest) / np.float32(2 ** (bits - 1))
    return scales


def _integers(blocks: np.ndarray, bits: int) -> np.ndarray:
    middle, scales = 2 ** (bits - 1), _scales(blocks, bits)
    divisor = np.where(scales == 0, 1, scales)[..., None]
    integers = (np.clip(np.rint(blocks / divisor), -middle, middle - 1) + middle).astype(np.uint8)
    packed: np.ndarray = integers[..., ::2] | (integers[..., 1::2] << 4) if bits == 4 else integers
    return packed


def _power_of_two(size: int) -> int:
    """The smallest power of 2 that holds it, at least 16."""
    return max(16, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Blockwise:
    """How an operator with a constant matrix is replaced.

    Attributes:
        name: of the operator that takes its place.
        matrix: its place among the inputs.
        sums_over_rows: whether the product sums over the matrix's first axis.
        flat: whether the integers of a row lie in one axis, without those that fill up its last block.
        call: (node, integers, scales, {"K": length of a row, "N": rows}) -> inputs and attributes of the new one.
    """

    name: str
    matrix: int
    sums_over_rows: bool
    flat: bool
    call: Callable[..., tuple[list[Any], dict[str, int]]]


def _product(node: Any, packed: Any, scales: Any, sizes: dict[str, int]) -> tuple[list[Any], dict[str, int]]:
    return [node.inputs[0], packed, scales], {**sizes, "accuracy_level": INT8_PRODUCTS}


def _lookup(node: Any, packed: Any, scales: Any, sizes: dict[str, int]) -> tuple[list[Any], dict[str, int]]:
    return [packed, node.inputs[1], scales], {"gather_axis": 0, "quantize_axis": 1}


BLOCKWISE = {
    ("", "MatMul"): Blockwise("MatMulNBits", 1, True, False, _product),
    ("", "Gather"): Blockwise("GatherBlockQuantized", 0, False, True, _lookup),
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
    """One of Microsoft's operators in the place of a node."""
    import onnx_ir

    new = onnx_ir.node(op_type, inputs, attributes, domain=CONTRIB)
    onnx_ir.convenience.replace_nodes_and_values(model.graph, node, [node], [new], node.outputs, new.outputs)


def derived(
    model: onnx_ir.Model,
    name: str,
    tensor: Any,
    change: Callable[[np.ndarray], np.ndarray],
    shape: Iterable[int],
    dtype: onnx_ir.DataType,
) -> onnx_ir.Value:
    """A weight that is computed from another one when it is written.

    Args:
        model: gets the weight.
        name: of the new weight.
        tensor: what it is computed from.
        change: the numbers of `tensor` -> those of the new weight.
        shape: of the new weight.
        dtype: of the new weight.
    """
    import onnx_ir

    weight = lazy(name, tensor, partial(read, tensor, change), list(shape), dtype)
    value = onnx_ir.Value(name=name, shape=weight.shape, type=onnx_ir.TensorType(dtype), const_value=weight)
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

    to_single = {"to": onnx_ir.DataType.FLOAT}

    def rounded(values: np.ndarray) -> np.ndarray:
        return values.astype(onnx_ir.DataType.BFLOAT16.numpy())

    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size < SMALLEST:
            continue
        half = derived(model, f"{name}.bfloat16", tensor, rounded, tensor.shape, onnx_ir.DataType.BFLOAT16)
        for user in [user for user, index in value.uses() if user.op_type == "Gather" and index == 0]:
            rows = onnx_ir.node("Gather", [half, user.inputs[1]], user.attributes)  # of a table, only these are cast
            cast = onnx_ir.node("Cast", rows.outputs, to_single)
            onnx_ir.convenience.replace_nodes_and_values(
                model.graph, user, [user], [rows, cast], user.outputs, cast.outputs
            )
        if value.uses():
            cast = onnx_ir.node("Cast", [half], to_single)
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
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    weights = {name: tensor for name, tensor in tensors.items() if tensor is not None and tensor.dtype == single}
    sizes = {name: read(tensor, magnitude) for name, tensor in weights.items()}
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
            return derived(model, f"{value.name}.half", weights[value.name], within_half, value.shape, half)
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


def within_half(values: np.ndarray) -> np.ndarray:
    """float16, what is beyond its range at its end."""
    limit = np.finfo(np.float16).max
    half: np.ndarray = np.clip(values, -limit, limit).astype(np.float16)
    return half


def magnitude(values: np.ndarray) -> float:
    """The largest absolute value, NaN if there is one."""
    return float(np.maximum(values.max(initial=0), -values.min(initial=0)))


def largest_values(path: Path, feeds: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Run a graph and tell the largest absolute value of every floating tensor in it, by name.

    Args:
        path: an .onnx file in float32, its weights in a file beside it.
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
        model.graph.insert_after(value.producer(), [size, largest])
        model.graph.outputs.append(largest.outputs[0])
    probe = path.with_name("probe.onnx")
    onnx_ir.save(model, probe)  # its weights stay where they are
    options = (
        onnxruntime.SessionOptions()
    )  # in the order of the file, or every tensor waits for the end to be looked at
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(probe, options, providers=["CPUExecutionProvider"])
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
            Recipe(
                f"blocks of {block}", partial(in_blocks, bits=int(name.removeprefix("int")), block=block), block=block
            )
            for block in blocks
        )
        for name, blocks in IN_BLOCKS.items()
    },
}
