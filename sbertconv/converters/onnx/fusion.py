"""Fuses a graph into ONNX Runtime's own operators (domain com.microsoft).

onnxscript's fusions do most of it, on the forms in which most models write attention and normalisation.
The rules below bring other forms into those (`PREPARING`) and fuse what is left afterwards (`FINISHING`).
They look at operations and shapes, never at which architecture the graph came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from onnxscript.rewriter import pattern
from onnxscript.rewriter.ort_fusions import optimize_for_ort
from onnxscript.rewriter.ort_fusions.sdpa import fuse_sdpa
from onnxscript.rewriter.rules.common import expand_before_binary_op_rules

from sbertconv.converters.onnx.saving import lazy

CONTRIB = "com.microsoft"
FUSED_ATTENTION = frozenset({"Attention", "GroupQueryAttention", "MultiHeadAttention"})
PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Einsum"})
PASSING = frozenset({"Cast", "Dropout", "Identity", "Reshape", "Where"})  # between a softmax and its values
BEGINNING = 256  # numbers that two weights are told apart by before all of them are compared
ABSORBING = -1e30  # added to any attention score, a fill below this swallows it in float32


def fuse(model: ir.Model) -> None:
    """Replace attention, normalisation, activations and rotary embeddings by ONNX Runtime's operators, in place.

    Args:
        model: a graph as it was traced, float32, its batch and sequence dynamic.
    """
    slice_weights(model)
    transpose_weights(model)
    passes.ShapeInferencePass()(model)
    optimizer.optimize(model)
    for rule in PREPARING:
        rule.apply_to_model(model)
    # Before the optimizer runs again: it merges transposes into forms that the attention fusion does not know.
    passes.RemoveUnusedNodesPass()(model)
    passes.ShapeInferencePass()(model)
    fuse_sdpa(model, apply_shape_inference=True)
    optimize_for_ort(model, clear_metadata=True)
    for rule in FINISHING:
        rule.apply_to_model(model)
    passes.IdentityEliminationPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.DeduplicateInitializersPass()(model)
    share_equal_weights(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)


def zero_unattended(model: ir.Model) -> None:
    """Zeros for queries that may attend to no key: what PyTorch's scaled_dot_product_attention gives with a mask of
    bools. Its translation fills the mask with the lowest number, and a softmax over nothing else is a mean.

    Args:
        model: a graph as it was traced.
    """
    attended: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        # softmax(scores + where(mask, 0, lowest)), 0 where it is not a number: only masks of bools are translated so
        softmax = _made_by(node.inputs[0], "Softmax") if node.op_type == "IsNaN" else None
        added = None if softmax is None else _made_by(softmax.inputs[0], "Add")
        filled = None if added is None else _made_by(added.inputs[1], "Where")
        product = None if filled is None else _only_user(_only_user(node, "Where"), "MatMul")
        if product is None or filled is None or (mask := filled.inputs[0]) is None:
            continue
        if mask not in attended:
            attended[mask] = _attended(model.graph, filled, mask)
        heads = _only_user(product, "Reshape") or product  # newer translations flatten the batch and the heads before
        merged = _only_user(_only_user(heads, "Transpose"), "Reshape")
        if merged is not None and _dims(mask)[1:2] == [1] and len(_dims(merged.outputs[0])) == 3:
            # behind the heads, where the attention fusion looks no more
            _multiply(model.graph, merged, attended[mask], without_heads=True)
        else:
            _multiply(model.graph, product, attended[mask])


def _only_user(node: ir.Node | None, op_type: str) -> ir.Node | None:
    """The node that alone uses the result of another, if it is one of these."""
    uses = [] if node is None else list(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and uses[0].node.op_type == op_type else None


def _attended(graph: ir.Graph, before: ir.Node, mask: ir.Value) -> ir.Value:
    """1 for queries with a key and 0 for those without, float32 [batch, heads or 1, queries or 1, 1]."""
    numbers = ir.node("Cast", [mask], {"to": ir.DataType.FLOAT})
    axis = ir.node("Constant", [], {"value_ints": [-1]})
    largest = ir.node("ReduceMax", [numbers.outputs[0], axis.outputs[0]], {"keepdims": 1})
    graph.insert_before(before, [numbers, axis, largest])
    found = largest.outputs[0]
    found.dtype, found.shape = ir.DataType.FLOAT, ir.Shape([*_known(mask)[:-1], 1])
    return found


def _known(value: ir.Value) -> list[int | str | None]:
    return [size if isinstance(size, int | str) else None for size in _dims(value)]


def _multiply(graph: ir.Graph, node: ir.Node, factor: ir.Value, without_heads: bool = False) -> None:
    """Put a factor behind a node."""
    made = node.outputs[0]
    extra = []
    if without_heads:
        axis = ir.node("Constant", [], {"value_ints": [1]})
        squeezed = ir.node("Squeeze", [factor, axis.outputs[0]])
        extra, factor = [axis, squeezed], squeezed.outputs[0]
    times = ir.node("Mul", [made, factor])
    graph.insert_after(node, [*extra, times])
    uses = [use for use in made.uses() if use.node is not times]
    for user, index in uses:
        user.replace_input_with(index, times.outputs[0])
    times.outputs[0].dtype, times.outputs[0].shape = made.dtype, made.shape


def slice_weights(model: ir.Model) -> None:
    """Parts of weights as weights, cut out when they are written: a graph would cut them out in every call."""
    for node in list(model.graph):
        weight = node.inputs[0] if node.op_identifier()[:2] == ("", "Slice") else None
        tensor = None if weight is None else weight.const_value
        if weight is None or tensor is None or not weight.is_initializer():
            continue
        given = [_integers(value) for value in node.inputs[1:]]
        if not all(given):
            continue
        starts, ends, axes, steps = given
        cut = [slice(None)] * len(tensor.shape)
        for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
            cut[axis] = slice(*bounds)
        shape = [len(range(size)[part]) for size, part in zip(tensor.shape, cut, strict=True)]
        name = f"{weight.name}.{node.outputs[0].name}"
        part = lazy(name, tensor, partial(_cut, tensor, tuple(cut)), shape)
        value = ir.Value(name=name, shape=part.shape, type=ir.TensorType(tensor.dtype), const_value=part)
        model.graph.register_initializer(value)
        node.outputs[0].replace_all_uses_with(value)
        model.graph.remove(node, safe=True)


def _integers(value: ir.Value | None) -> list[int]:
    """Constant bounds, through the casts and reshapes around them; none if they are computed."""
    while value is not None and (node := _made_by(value, "Cast", "Reshape")) is not None:
        value = node.inputs[0]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return [] if tensor is None else [int(number) for number in tensor.numpy().reshape(-1)]


def _cut(tensor: ir.TensorProtocol, part: tuple[slice, ...]) -> np.ndarray:
    found: np.ndarray = tensor.numpy()[part]
    return found


def pick_rows(model: ir.Model) -> None:
    """Single rows of a weight as weights, where nothing uses the rest of it."""
    for weight in list(model.graph.initializers.values()):
        nodes = [use.node for use in weight.uses()]
        places = [ir.convenience.get_const_tensor(node.inputs[-1]) for node in nodes]
        tensor = weight.const_value
        if tensor is None or not all(
            node.op_identifier()[:2] == ("", "Gather")
            and node.inputs[0] is weight
            and node.attributes.get_int("axis", 0) == 0
            and place is not None
            and place.size == 1
            for node, place in zip(nodes, places, strict=True)
        ):
            continue
        for node, place in zip(nodes, places, strict=True):
            row = int(place.numpy().item())
            name, shape = f"{weight.name}.{row}", [*place.shape, *tensor.shape[1:]]
            kept = lazy(name, tensor, partial(_row, tensor, row, shape), shape)
            value = ir.Value(name=name, shape=kept.shape, type=ir.TensorType(tensor.dtype), const_value=kept)
            model.graph.register_initializer(value)
            node.outputs[0].replace_all_uses_with(value)
            model.graph.remove(node, safe=True)
        if nodes:
            passes.RemoveUnusedNodesPass()(model)


def _row(tensor: ir.TensorProtocol, row: int, shape: Sequence[int]) -> np.ndarray:
    found: np.ndarray = tensor.numpy()[row].reshape(shape)
    return found


def transpose_weights(model: ir.Model) -> None:
    """Transposed weights as weights, each one stored once however many nodes use it, and transposed when it is
    written: the optimizer would hold them all in memory.
    """
    made: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}
    for node in list(model.graph):
        weight = node.inputs[0] if node.op_identifier()[:2] == ("", "Transpose") else None
        tensor = None if weight is None else weight.const_value
        if weight is None or tensor is None or not weight.is_initializer():
            continue
        perm = tuple(node.attributes.get_ints("perm", range(len(tensor.shape))[::-1]))
        if (weight, perm) not in made:
            name, shape = f"{weight.name}.{'_'.join(map(str, perm))}", [tensor.shape[axis] for axis in perm]
            turned = lazy(name, tensor, partial(_transposed, tensor, perm), shape)
            made[weight, perm] = ir.Value(
                name=name, shape=turned.shape, type=ir.TensorType(tensor.dtype), const_value=turned
            )
            model.graph.register_initializer(made[weight, perm])
        node.outputs[0].replace_all_uses_with(made[weight, perm])
        model.graph.remove(node, safe=True)


def share_equal_weights(model: ir.Model) -> None:
    """One weight in the place of equal ones of any size, which fusions make of layers that share theirs."""
    found: dict[tuple[Any, ...], list[ir.Value]] = {}
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or isinstance(tensor, ir.LazyTensor):  # those are computed once for all
            continue
        numbers = tensor.numpy()
        same = found.setdefault((tensor.dtype, numbers.shape, numbers.reshape(-1)[:BEGINNING].tobytes()), [])
        equal = (other for other in same if other.const_value is not None)
        twin = next((other for other in equal if np.array_equal(other.const_value.numpy(), numbers)), None)
        if twin is None or value.is_graph_output():
            same.append(value)
        else:
            value.replace_all_uses_with(twin)
            del model.graph.initializers[str(value.name)]


def _transposed(tensor: ir.TensorProtocol, perm: Sequence[int]) -> np.ndarray:
    turned: np.ndarray = tensor.numpy().transpose(perm)
    return turned


def count_attention(model: ir.Model) -> dict[str, int]:
    """How many attentions a graph has: {"found": all of them, "fused": those that are one operator}."""
    nodes = list(model.graph.all_nodes())
    fused = sum(node.op_type in FUSED_ATTENTION for node in nodes)
    return {"found": fused + sum(_weighs_values(node) for node in nodes), "fused": fused}


def _weighs_values(node: ir.Node) -> bool:
    """Whether a node is a softmax whose result, perhaps cast or reshaped, is a factor of a matrix product."""
    waiting, seen = ([node] if node.op_type == "Softmax" else []), set()
    while waiting:
        current = waiting.pop()
        seen.add(current)
        for user, index in current.outputs[0].uses():
            if user.op_type in PRODUCTS and index == 0:
                return True
            if user.op_type in PASSING and user not in seen:
                waiting.append(user)
    return False


def _dims(value: ir.Value | None) -> list[Any]:
    """The shape of a value, integers and names; empty where it is not known. A size without a name equals no other."""
    sizes = [] if value is None or value.shape is None else list(value.shape)
    return [size if isinstance(size, int) else size.value or object() for size in sizes]


def _made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that makes a value, if it is one of these."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types and node.domain == "" else None


def _scalar(value: ir.Value | None) -> float | None:
    """The number that a value is, if it is known."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return float(tensor.numpy().reshape(())) if tensor is not None and tensor.size == 1 else None


def _permuted(op: Any, x: ir.Value, perm: Sequence[int]) -> ir.Value:
    """A transpose that knows its shape, on which later rules rely."""
    return _typed(op.Transpose(x, perm=list(perm)), x, [_dims(x)[axis] for axis in perm])


def _typed(value: ir.Value, like: ir.Value, shape: Sequence[Any]) -> ir.Value:
    value.dtype, value.shape = like.dtype, ir.Shape(size if isinstance(size, int | str) else None for size in shape)
    return value


class LinearOnRows(pattern.RewriteRuleClassBase):
    """A linear layer on tokens flattened to rows and back: a product needs no flattening."""

    def pattern(self, op: Any, x: Any, rows: Any, weight: Any, shape: Any) -> Any:
        flat, bias = op.Reshape(x, rows), pattern.Var("bias", can_match_none=True)
        product = op.Gemm(flat, weight, bias, _outputs=["product"], _allow_other_attributes=True)
        return op.Reshape(product, shape, _outputs=["result"])

    def check(self, context: Any, x: Any, weight: Any, product: Any, result: Any, **_: Any) -> bool:
        options = {name: attribute.value for name, attribute in product.producer().attributes.items()}
        before, after, matrix = _dims(x), _dims(result), _dims(weight)
        return (
            all(options.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
            and not any(options.get(name, 0) for name in ("transA", "transB"))
            and len(after) == 3
            and len(before) >= 3
            and before[:2] == after[:2]
            and all(isinstance(size, int) for size in (*before[2:], *matrix))
            and [int(np.prod(before[2:])), after[2]] == matrix
        )

    def rewrite(self, op: Any, x: Any, weight: Any, bias: Any, **_: Any) -> Any:
        if len(_dims(x)) > 3:
            x = op.Reshape(x, op.Constant(value_ints=[0, 0, _dims(weight)[0]]))
        product = op.MatMul(x, weight)
        return product if bias is None else op.Add(product, bias)


class PairEinsum(pattern.RewriteRuleClassBase):
    """An Einsum of two operands as a MatMul between transposes.

    Indices are in one of four groups: of the batch (both operands and the result), contracted (both operands),
    and of the left or the right operand and the result.
    """

    def pattern(self, op: Any, left: Any, right: Any) -> Any:
        return op.Einsum(left, right, _outputs=["result"], _allow_other_attributes=True)

    def check(self, context: Any, left: Any, right: Any, result: Any, **_: Any) -> bool:
        equation = result.producer().attributes.get_string("equation", "").replace(" ", "")
        if not equation or not equation.replace(",", "").replace("->", "").isalpha() or "->" not in equation:
            return False
        operands, self._out = equation.split("->")
        self._left, self._right = operands.split(",")
        both = [index for index in self._left if index in self._right]
        self._batch = "".join(index for index in both if index in self._out)
        self._contracted = "".join(index for index in both if index not in self._out)
        self._rows = "".join(index for index in self._left if index not in both)
        self._columns = "".join(index for index in self._right if index not in both)
        sizes, rights = (
            dict(zip(*pair, strict=False)) for pair in ((self._left, _dims(left)), (self._right, _dims(right)))
        )
        self._sizes = rights | sizes
        flattened = [] if self._batch else [self._sizes.get(index) for index in self._contracted + self._columns]
        groups = (self._contracted, self._columns) if not self._batch else (self._rows, self._contracted, self._columns)
        return (
            len(_dims(left)) == len(set(self._left)) == len(self._left)
            and len(_dims(right)) == len(set(self._right)) == len(self._right)
            and set(self._out) == set(self._batch + self._rows + self._columns)
            and all((sizes[index] == 1) == (rights[index] == 1) for index in both)  # no broadcasting
            and all(isinstance(size, int) for size in flattened)
            and (all(len(group) == 1 for group in groups) if self._batch else all(groups))
        )

    def rewrite(self, op: Any, left: Any, right: Any, **_: Any) -> Any:
        left = self._ordered(op, left, self._left, self._batch + self._rows + self._contracted)
        if self._batch:  # as attention transposes its keys
            right = self._ordered(op, right, self._right, self._batch + self._columns + self._contracted)
            last = len(_dims(right)) - 1
            right = _permuted(op, right, [*range(last - 1), last, last - 1])
        else:
            right = self._ordered(op, right, self._right, self._contracted + self._columns)
        found = self._batch + self._rows + self._columns
        if not self._batch:
            contracted, columns = (self._total(group) for group in (self._contracted, self._columns))
            if len(self._contracted) > 1:
                left = self._split_last(op, left, self._rows, [contracted])
            right = op.Reshape(right, op.Constant(value_ints=[contracted, columns]))
        product = op.MatMul(left, right)
        if len(self._columns) > 1:
            product = self._split_last(op, product, self._rows, [self._sizes[index] for index in self._columns])
        product = _typed(product, left, [self._sizes[index] for index in found])
        return self._ordered(op, product, found, self._out)

    def _ordered(self, op: Any, x: Any, order: str, wanted: str) -> Any:
        return x if order == wanted else _permuted(op, x, [order.index(index) for index in wanted])

    def _total(self, indices: str) -> int:
        return int(np.prod([self._sizes[index] for index in indices]))

    def _split_last(self, op: Any, x: Any, kept: str, last: list[int]) -> Any:
        shape = op.Constant(value_ints=[0] * len(kept) + last)
        return _typed(op.Reshape(x, shape), x, [*(self._sizes[index] for index in kept), *last])


class SumOfBranches(pattern.RewriteRuleClassBase):
    """Heads of two branches that are added, as of a projection and its adapter: the library's fusion would take an Add
    before heads for a bias, whatever is added.
    """

    def pattern(self, op: Any, x: Any, y: Any, shape: Any) -> Any:
        return op.Reshape(op.Add(x, y), shape, _outputs=["result"])

    def check(self, context: Any, x: Any, y: Any, result: Any, **_: Any) -> bool:
        sizes, heads = _dims(x), _dims(result)
        return len(sizes) == len(_dims(y)) == 3 and len(heads) == 4 and heads[:2] == sizes[:2]

    def rewrite(self, op: Any, x: Any, y: Any, shape: Any, **_: Any) -> Any:
        return op.Reshape(_typed(op.Sum(x, y), x, _dims(x)), shape)


class PackedHeads(pattern.RewriteRuleClassBase):
    """Queries, keys or values cut out of a packed projection after it was split into heads: cut out before."""

    def __init__(self) -> None:
        super().__init__(remove_nodes=False)  # the three parts share the reshape

    def pattern(self, op: Any, packed: Any, shape: Any, start: Any, end: Any, axes: Any, squeezed: Any) -> Any:
        heads = op.Reshape(packed, shape, _outputs=["heads"])
        return op.Squeeze(op.Slice(heads, start, end, axes), squeezed, _outputs=["part"])

    def check(
        self, context: Any, packed: Any, heads: Any, part: Any, start: Any, end: Any, axes: Any, **_: Any
    ) -> bool:
        sizes, first = _dims(heads), _scalar(start)
        return (
            len(sizes) == 5
            and _dims(packed)[:-1] == sizes[:2] == _dims(part)[:2]
            and all(isinstance(size, int) for size in sizes[2:])
            and _scalar(axes) in (2, -3)
            and first is not None
            and 0 <= first < sizes[2]
            and _scalar(end) == first + 1
            and _dims(part)[2:] == sizes[3:]
        )

    def rewrite(self, op: Any, packed: Any, heads: Any, start: Any, **_: Any) -> Any:
        _, _, _, count, size = _dims(heads)
        first, width = int(_scalar(start) or 0), count * size
        bounds = (op.Constant(value_ints=[(first + step) * width]) for step in (0, 1))
        part = op.Slice(packed, *bounds, op.Constant(value_ints=[2]))
        part = _typed(part, packed, [*_dims(packed)[:2], width])
        return op.Reshape(part, op.Constant(value_ints=[0, 0, count, size]))


class UnmergedValues(pattern.RewriteRuleClassBase):
    """A product whose batch and heads were merged into one axis: the same with both axes."""

    def pattern(self, op: Any, x: Any, y: Any, x_shape: Any, y_shape: Any, shape: Any) -> Any:
        merged = op.MatMul(op.Reshape(x, x_shape, _outputs=["x_merged"]), op.Reshape(y, y_shape, _outputs=["y_merged"]))
        return op.Reshape(merged, shape, _outputs=["result"])

    def check(self, context: Any, x_merged: Any, y_merged: Any, result: Any, **_: Any) -> bool:
        x, y = _dims(_unmerged(x_merged)), _dims(_unmerged(y_merged))
        return len(x) == len(y) == 4 and x[:2] == y[:2] and _dims(result) == [*x[:3], y[3]]

    def rewrite(self, op: Any, x: Any, y: Any, **_: Any) -> Any:
        return op.MatMul(x, y)


def _unmerged(value: ir.Value) -> ir.Value | None:
    """[batch, heads, rows, columns], if a value is the same as [batch * heads, rows, columns]."""
    node = _made_by(value, "Reshape")
    split = None if node is None else node.inputs[0]
    return split if len(_dims(split)) == 4 and len(_dims(value)) == 3 and _dims(split)[2:] == _dims(value)[1:] else None


Build = Callable[[Any], ir.Value]


@dataclass(frozen=True)
class Scores:
    """What a softmax is taken of: scale * queries @ keys + bias; what is computed is built when it is written down."""

    query: ir.Value
    key: Build  # transposed: [batch, heads, size, sequence]
    scale: float
    bias: Build | None
    path: tuple[str, ...]  # the operations on the way to the product

    KNOWN = frozenset({(), ("Add",), ("Mul",), ("Div",), ("Add", "Mul"), ("Add", "Div")})

    def after(self, op_type: str, *, scale: float = 1.0, bias: Build | None = None) -> Scores:
        """The scores after one more operation, with another bias or none."""
        return replace(self, scale=self.scale * scale, bias=bias, path=(op_type, *self.path))

    def total(self, op: Any) -> Any:
        """The bias, zero where there is none."""
        return op.Constant(value_float=0.0) if self.bias is None else self.bias(op)


def scores_of(value: ir.Value | None) -> Scores | None:
    """The parts of attention scores, or None if a value is made in another way."""
    node = None if value is None else value.producer()
    read = None if node is None or node.domain else READ.get(node.op_type)
    return None if read is None or node is None else next(iter(read(node)), None)


def _product(node: ir.Node) -> Iterator[Scores]:
    query, key = node.inputs
    if query is not None and key is not None and len(_dims(query)) == len(_dims(key)) == 4:
        yield Scores(query, _copied(key), 1.0, None, ())


def _copied(key: ir.Value) -> Build:
    """Transposed keys for one product alone: the attention fusion wants no other use of them."""
    turned = _made_by(key, "Transpose")
    if turned is None or (source := turned.inputs[0]) is None:
        return lambda op: key
    perm = turned.attributes.get_ints("perm", [])
    return lambda op: _permuted(op, source, perm)


def _sum(node: ir.Node) -> Iterator[Scores]:
    left, right = node.inputs
    for scores, other in ((left, right), (right, left))[: 2 if node.op_type == "Add" else 1]:
        if (found := scores_of(scores)) is not None:
            yield found.after(node.op_type, bias=_with(found, node.op_type, other))


def _with(found: Scores, op_type: str, other: ir.Value | None) -> Build:
    if op_type == "Add" and found.bias is None:
        return lambda op: other
    return lambda op: getattr(op, op_type)(found.total(op), other)


def _multiple(node: ir.Node) -> Iterator[Scores]:
    factor, found = _factor(node), scores_of(node.inputs[0])
    if factor and found is not None:
        yield found.after(node.op_type, scale=factor, bias=found.bias and _scaled(found, factor))


def _factor(node: ir.Node) -> float:
    """What a product or quotient multiplies its first input by; 0 where that is not known."""
    number = _scalar(node.inputs[1]) or 0.0
    return number if node.op_type == "Mul" or not number else 1 / number


def _scaled(found: Scores, scale: float) -> Build:
    return lambda op: op.Mul(found.total(op), op.Constant(value_float=scale))


def _filled(node: ir.Node) -> Iterator[Scores]:
    condition, *sides = node.inputs
    for place in (0, 1):
        fill, found = sides[1 - place], scores_of(sides[place])
        number = _scalar(fill)
        if found is not None and number is not None and number <= ABSORBING:
            yield found.after("Where", bias=_hidden(found, condition, fill, place))


def _hidden(found: Scores, condition: ir.Value | None, fill: ir.Value | None, place: int) -> Build:
    return lambda op: op.Where(condition, *((found.total(op), fill) if place == 0 else (fill, found.total(op))))


def _split(node: ir.Node) -> Iterator[Scores]:
    """Scores whose batch and heads were one axis: a product, perhaps scaled, and biases."""
    merged, shape = node.inputs
    if merged is None or shape is None or len(_dims(merged)) != 3 or len(_dims(node.outputs[0])) != 4:
        return
    biases: list[tuple[ir.Value | None, float]] = []
    scale = 1.0
    while (outer := _made_by(merged, "Add", "Mul", "Div")) is not None:
        if outer.op_type == "Add":
            left, right = (_made_by(value, "MatMul", "Add") for value in outer.inputs)
            place = 0 if left is not None or right is None else 1
            scores, added = outer.inputs[place], outer.inputs[1 - place]
            if _dims(scores) != _dims(merged) or len(_dims(added)) != 3 or _dims(added)[0] != _dims(merged)[0]:
                return
            biases.append((added, scale))
            merged = scores
        else:
            merged, scale = outer.inputs[0], scale * _factor(outer)
    product = _made_by(merged, "MatMul")
    if product is None or not scale:
        return
    query, key = _unmerged(product.inputs[0]), product.inputs[1]
    if (scaled := _made_by(key, "Mul", "Div")) is not None and (factor := _factor(scaled)):
        key, scale = scaled.inputs[0], scale * factor
    turned = _made_by(key, "Transpose")
    untransposed = None
    if turned is not None and list(turned.attributes.get_ints("perm", [])) == [0, 2, 1]:
        untransposed = _unmerged(turned.inputs[0])
    if query is None or untransposed is None:
        return

    def bias(op: Any) -> Any:
        return reduce(op.Add, (_split_bias(op, value, factor, merged, shape) for value, factor in biases))

    keys = partial(_permuted, x=untransposed, perm=(0, 1, 3, 2))
    yield Scores(query, keys, scale, bias if biases else None, ("Reshape",))


def _split_bias(op: Any, bias: Any, factor: float, merged: ir.Value, shape: ir.Value) -> Any:
    """A multiple of a bias with batch and heads as two axes, as `shape` has them; its rows may be one for all."""
    if _dims(bias) != _dims(merged):
        first = op.Slice(shape, op.Constant(value_ints=[0]), op.Constant(value_ints=[2]))
        shape = op.Concat(first, op.Shape(bias, start=1, end=3), axis=0)
    split = op.Reshape(bias, shape)
    return split if factor == 1 else op.Mul(split, op.Constant(value_float=factor))


READ: dict[str, Callable[[ir.Node], Iterator[Scores]]] = {
    "Add": _sum,
    "Div": _multiple,
    "MatMul": _product,
    "Mul": _multiple,
    "Reshape": _split,
    "Sub": _sum,
    "Where": _filled,
}


class OneBias(pattern.RewriteRuleClassBase):
    """Attention scores in any order of scaling, adding and masking, as softmax(scale * queries @ keys + bias)."""

    def pattern(self, op: Any, scores: Any) -> Any:
        return op.Softmax(scores, _outputs=["weights"], _allow_other_attributes=True)

    def check(self, context: Any, scores: Any, weights: Any, **_: Any) -> bool:
        self._scores = scores_of(scores)
        axis = weights.producer().attributes.get_int("axis", -1)
        return (
            self._scores is not None
            and self._scores.path not in Scores.KNOWN
            and _weighs_values(weights.producer())
            and axis in (-1, len(_dims(scores)) - 1)
        )

    def rewrite(self, op: Any, weights: Any, **_: Any) -> Any:
        found = self._scores
        assert found is not None
        scores = op.Mul(op.MatMul(found.query, found.key(op)), op.Constant(value_float=found.scale))
        return op.Softmax(scores if found.bias is None else op.Add(scores, found.bias(op)), axis=-1)


class Rotary(pattern.RewriteRuleClassBase):
    """x * cos + rotate_half(x) * sin with the same angles for every text.

    The operator goes before the heads are transposed: behind that, the library's fusion of grouped queries would
    take any mask for a causal one without padding.
    """

    def pattern(self, op: Any, x: Any, cos: Any, sin: Any, start: Any, middle: Any, half: Any, end: Any) -> Any:
        turned = op.Concat(op.Neg(op.Slice(x, half, end, [3], [1])), op.Slice(x, start, middle, [3], [1]), axis=-1)
        return op.Add(op.Mul(x, cos), op.Mul(turned, sin))

    def check(
        self, context: Any, x: Any, cos: Any, sin: Any, start: Any, middle: Any, half: Any, end: Any, **_: Any
    ) -> bool:
        size = _dims(x)[-1] if len(_dims(x)) == 4 else None
        stop = _scalar(end)
        return (
            isinstance(size, int)
            and isinstance(_dims(x)[1], int)
            and size % 2 == 0
            and _dims(cos) == _dims(sin) == [1, 1, _dims(x)[2], size]
            and _scalar(start) == 0
            and _scalar(middle) == _scalar(half) == size // 2
            and stop is not None
            and stop >= size
            and _repeats_its_half(cos)
            and _repeats_its_half(sin)
        )

    def rewrite(self, op: Any, x: Any, cos: Any, sin: Any, **_: Any) -> Any:
        batch, heads, length, size = _dims(x)
        first, half, last = (op.Constant(value_ints=[number]) for number in (0, size // 2, -1))
        axes = op.Constant(value_ints=[0, 1])
        tables = [op.Squeeze(op.Slice(table, first, half, last), axes) for table in (cos, sin)]
        flat, split = (op.Constant(value_ints=[0, 0, *sizes]) for sizes in ([heads * size], [heads, size]))
        joined = _typed(op.Reshape(_permuted(op, x, (0, 2, 1, 3)), flat), x, [batch, length, heads * size])
        turned = op.RotaryEmbedding(joined, _positions(op, x, joined), *tables, interleaved=0, _domain=CONTRIB)
        turned = _typed(turned, x, _dims(joined))
        return op.Transpose(_typed(op.Reshape(turned, split), x, [batch, length, heads, size]), perm=[0, 2, 1, 3])


def _positions(op: Any, x: ir.Value, joined: ir.Value) -> ir.Value:
    """0, 1, 2, ... for each text. ONNX Runtime would take one offset instead, which OpenVINO misreads. They are made
    from an input of the graph where one has the sizes, so that they are the same everywhere.
    """
    sizes = _dims(joined)[:2]
    value = next((value for value in x.graph.inputs if _dims(value) == sizes), joined)
    ones = op.ConstantOfShape(op.Shape(value, start=0, end=2), value=ir.tensor(np.ones(1, np.int64)))
    return op.CumSum(ones, op.Constant(value_int=1), exclusive=1)


def _repeats_its_half(value: ir.Value | None) -> bool:
    """Whether a table of angles is one half twice along its last axis, for all that was done to it since."""
    while (node := _made_by(value, "Unsqueeze", "Cos", "Sin", "Cast", "Mul")) is not None:
        if node.op_type == "Mul" and _scalar(node.inputs[1]) is None:
            return False
        value = node.inputs[0]
    joined = _made_by(value, "Concat")
    return (
        joined is not None
        and len(joined.inputs) == 2
        and joined.inputs[0] is joined.inputs[1]
        and joined.attributes.get_int("axis", 0) in (-1, len(_dims(value)) - 1)
    )


class SplitSkipNorm(pattern.RewriteRuleClassBase):
    """A residual connection and the normalisation after it, as two operators.

    On a CPU the fused one takes six times as long as the two: it goes through its rows number by number.
    """

    def __init__(self, name: str, norm: str, bias: int) -> None:
        super().__init__(name)
        self._norm = norm
        self._bias = bias  # the place of the bias that is added before, among the inputs

    def pattern(self, op: Any, x: Any, skip: Any) -> Any:
        norm, _mean, _deviation, total = getattr(op, f"Skip{self._norm}")(
            x,
            skip,
            _allow_other_inputs=True,
            _allow_other_attributes=True,
            _domain=CONTRIB,
            _outputs=["norm", "mean", "deviation", "total"],
        )
        return norm, total

    def rewrite(self, op: Any, x: Any, skip: Any, norm: Any, **_: Any) -> Any:
        node = norm.producer()
        weights, bias = node.inputs[2 : self._bias], node.inputs[self._bias :]
        total = _sum_for_norm(op, op.Add(x, *bias) if any(bias) else x, skip)
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        return getattr(op, self._norm)(total, *weights, axis=-1, epsilon=epsilon, stash_type=1), total


class NormOfSum(pattern.RewriteRuleClassBase):
    """A sum and the normalisation after it, in a form that ONNX Runtime does not fuse when it loads the graph."""

    def __init__(self, name: str, norm: str) -> None:
        super().__init__(name)
        self._norm = norm

    def pattern(self, op: Any, x: Any, skip: Any) -> Any:
        total = op.Add(x, skip)
        norm = getattr(op, self._norm)(total, _allow_other_inputs=True, _allow_other_attributes=True, _outputs=["norm"])
        return norm, total

    def rewrite(self, op: Any, x: Any, skip: Any, norm: Any, **_: Any) -> Any:
        node, total = norm.producer(), _sum_for_norm(op, x, skip)
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        return getattr(op, self._norm)(total, *node.inputs[1:], **attributes), total


def _sum_for_norm(op: Any, x: Any, skip: Any) -> Any:
    return op.Sum(x, skip)  # an Add before a normalisation is what ONNX Runtime looks for


class GatheredMask(pattern.RewriteRuleClassBase):
    """A [batch, sequence] mask looked up at every batch and position: the mask itself, perhaps with more axes."""

    def pattern(self, op: Any, mask: Any, rows: Any, columns: Any, shape: Any) -> Any:
        places = [op.Unsqueeze(op.Expand(index, shape), [-1]) for index in (rows, columns)]
        return op.GatherND(mask, op.Concat(*places, axis=-1), batch_dims=0, _outputs=["found"])

    def check(self, context: Any, mask: Any, rows: Any, columns: Any, found: Any, **_: Any) -> bool:
        long_axes = [[size for size in _dims(value) if size != 1] for value in (rows, columns, found)]
        return (
            len(set(_dims(mask))) == 2
            and long_axes == [_dims(mask)[:1], _dims(mask)[1:], _dims(mask)]
            and _counts_up(rows)
            and _counts_up(columns)
        )

    def rewrite(self, op: Any, mask: Any, found: Any, **_: Any) -> Any:
        axes = [axis for axis, size in enumerate(_dims(found)) if size == 1]
        return op.Unsqueeze(mask, op.Constant(value_ints=axes)) if axes else op.Identity(mask)


def _counts_up(value: ir.Value | None) -> bool:
    """Whether a value with one long axis is 0, 1, 2, ... along it."""
    while (node := _made_by(value, "Unsqueeze", "Reshape")) is not None:
        value = node.inputs[0]
    node = _made_by(value, "Range")
    return node is not None and _scalar(node.inputs[0]) == 0 and _scalar(node.inputs[2]) == 1


class InputShape(pattern.RewriteRuleClassBase):
    """The shape of something computed, read off the graph's inputs instead, so that nothing waits for it."""

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Shape(x, _outputs=["sizes"], _allow_other_attributes=True)

    def check(self, context: Any, x: Any, sizes: Any, **_: Any) -> bool:
        graph, attributes = sizes.producer().graph, sizes.producer().attributes
        if x.producer() is None or not isinstance(graph, ir.Graph):
            return False
        self._known = {size: (value, axis) for value in graph.inputs for axis, size in enumerate(_dims(value))}
        dims = _dims(x)
        self._wanted = dims[attributes.get_int("start", 0) : attributes.get_int("end", len(dims))]
        return bool(self._wanted) and all(isinstance(size, int) or size in self._known for size in self._wanted)

    def rewrite(self, op: Any, **_: Any) -> Any:
        return op.Concat(*(self._size(op, size) for size in self._wanted), axis=0)

    def _size(self, op: Any, size: Any) -> Any:
        if isinstance(size, int):
            return op.Constant(value_ints=[size])
        value, axis = self._known[size]
        return op.Shape(value, start=axis, end=axis + 1)


class OneBatchTransposed(pattern.RewriteRuleClassBase):
    """A product of factors with different numbers of axes, one of them transposed with its first axis, which ONNX
    Runtime does for equal numbers alone: transposed before.
    """

    def pattern(self, op: Any, x: Any, y: Any) -> Any:
        return op.FusedMatMul(x, y, _domain=CONTRIB, _allow_other_attributes=True, _outputs=["product"])

    def check(self, context: Any, x: Any, y: Any, product: Any, **_: Any) -> bool:
        attributes = product.producer().attributes
        return len(_dims(x)) != len(_dims(y)) and any(
            attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB")
        )

    def rewrite(self, op: Any, x: Any, y: Any, product: Any, **_: Any) -> Any:
        attributes = {name: attribute.value for name, attribute in product.producer().attributes.items()}
        first = (attributes.pop(name, 0) for name in ("transBatchA", "transBatchB"))
        factors = [
            _first_axis_inside(op, value) if turned else value for value, turned in zip((x, y), first, strict=True)
        ]
        return op.FusedMatMul(*factors, **attributes, _domain=CONTRIB)


def _first_axis_inside(op: Any, x: ir.Value) -> ir.Value:
    """The first axis as the last but one."""
    axes = list(range(len(_dims(x))))
    return _permuted(op, x, [*axes[1:-1], 0, axes[-1]])


class NormBetweenTransposes(pattern.RewriteRuleClassBase):
    """Heads normalised between two transposes that undo each other."""

    def pattern(self, op: Any, x: Any, weight: Any) -> Any:
        norm = op.SimplifiedLayerNormalization(
            op.Transpose(x, perm=[0, 2, 1, 3]), weight, _outputs=["norm"], _allow_other_attributes=True
        )
        return op.Transpose(norm, perm=[0, 2, 1, 3])

    def check(self, context: Any, norm: Any, **_: Any) -> bool:
        return norm.producer().attributes.get_int("axis", -1) in (-1, 3)

    def rewrite(self, op: Any, x: Any, weight: Any, norm: Any, **_: Any) -> Any:
        attributes = {name: attribute.value for name, attribute in norm.producer().attributes.items()}
        return op.SimplifiedLayerNormalization(x, weight, **attributes)


class RepeatedHeads(pattern.RewriteRuleClassBase):
    """Heads shared by a group of queries, repeated and then transposed: repeated where they lie."""

    def pattern(self, op: Any, x: Any, groups: Any, heads: Any, flat: Any) -> Any:
        alone = op.Unsqueeze(op.Transpose(x, perm=[0, 2, 1, 3]), [2])
        repeated = op.Expand(alone, groups, _outputs=["repeated"])
        return op.Reshape(op.Transpose(op.Reshape(repeated, heads), perm=[0, 2, 1, 3]), flat, _outputs=["result"])

    def check(self, context: Any, x: Any, repeated: Any, result: Any, **_: Any) -> bool:
        before, after, wanted = _dims(x), _dims(repeated), _dims(result)
        return (
            len(before) == 4
            and len(after) == 5
            and all(isinstance(size, int) for size in (*before[2:], after[2]))
            and after == [before[0], before[2], after[2], before[1], before[3]]
            and wanted == [*before[:2], before[2] * after[2] * before[3]]
        )

    def rewrite(self, op: Any, x: Any, repeated: Any, result: Any, **_: Any) -> Any:
        alone = op.Unsqueeze(x, op.Constant(value_ints=[3]))
        groups = op.Expand(alone, op.Constant(value_ints=[1, 1, 1, _dims(repeated)[2], 1]))
        return op.Reshape(groups, op.Constant(value_ints=[0, 0, _dims(result)[2]]))


class ReshapedBack(pattern.RewriteRuleClassBase):
    """Two reshapes that undo each other."""

    def pattern(self, op: Any, x: Any, first: Any, second: Any) -> Any:
        return op.Reshape(op.Reshape(x, first), second, _outputs=["result"])

    def check(self, context: Any, x: Any, result: Any, **_: Any) -> bool:
        return bool(_dims(x)) and _dims(x) == _dims(result)

    def rewrite(self, op: Any, x: Any, **_: Any) -> Any:
        return op.Identity(x)


class GatheredRange(pattern.RewriteRuleClassBase):
    """The first elements along an axis, looked up one by one: a slice."""

    def pattern(self, op: Any, x: Any, stop: Any) -> Any:
        return op.Gather(x, op.Range(0, stop, 1), _allow_other_attributes=True, _outputs=["found"])

    def check(self, context: Any, x: Any, stop: Any, **_: Any) -> bool:
        size = _made_by(stop, "Gather", "Squeeze")
        return size is not None and _made_by(size.inputs[0], "Shape") is not None

    def rewrite(self, op: Any, x: Any, stop: Any, found: Any, **_: Any) -> Any:
        axis = found.producer().attributes.get_int("axis", 0)
        first, last = op.Constant(value_ints=[0]), op.Reshape(stop, op.Constant(value_ints=[-1]))
        return op.Slice(x, first, last, op.Constant(value_ints=[axis]))


# Both in this order, each rule on what the ones before left.
PREPARING: tuple[pattern.RewriteRule, ...] = tuple(
    rule.rule()
    for rule in (
        LinearOnRows,
        PairEinsum,
        SumOfBranches,
        PackedHeads,
        UnmergedValues,
        OneBias,
        Rotary,
        GatheredMask,
        GatheredRange,
        InputShape,
    )
)
FINISHING: tuple[pattern.RewriteRule, ...] = (
    OneBatchTransposed.rule(),
    NormBetweenTransposes.rule(),
    RepeatedHeads.rule(),
    ReshapedBack.rule(),
    *expand_before_binary_op_rules,
    SplitSkipNorm.rule("SkipNorm", "LayerNormalization", bias=4),
    SplitSkipNorm.rule("SkipRMSNorm", "SimplifiedLayerNormalization", bias=3),
    NormOfSum.rule("NormOfSum", "LayerNormalization"),
    NormOfSum.rule("RMSNormOfSum", "SimplifiedLayerNormalization"),
)
