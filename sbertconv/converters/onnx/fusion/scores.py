"""Attention scores in whatever order they are scaled, added to and masked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

from sbertconv.converters.onnx.fusion.counting import weighs_values
from sbertconv.converters.onnx.fusion.values import dims, made_by, permuted, scalar

ABSORBING = -1e30  # added to any attention score, a fill below this swallows it in float32
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
    if query is not None and key is not None and len(dims(query)) == len(dims(key)) == 4:
        yield Scores(query, _copied(key), 1.0, None, ())


def _copied(key: ir.Value) -> Build:
    """Transposed keys for one product alone: the attention fusion wants no other use of them."""
    turned = made_by(key, "Transpose")
    if turned is None or (source := turned.inputs[0]) is None:
        return lambda op: key
    perm = turned.attributes.get_ints("perm", [])
    return lambda op: permuted(op, source, perm)


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
    number = scalar(node.inputs[1]) or 0.0
    return number if node.op_type == "Mul" or not number else 1 / number


def _scaled(found: Scores, scale: float) -> Build:
    return lambda op: op.Mul(found.total(op), op.Constant(value_float=scale))


def _filled(node: ir.Node) -> Iterator[Scores]:
    condition, *sides = node.inputs
    for place in (0, 1):
        fill, found = sides[1 - place], scores_of(sides[place])
        number = scalar(fill)
        if found is not None and number is not None and number <= ABSORBING:
            yield found.after("Where", bias=_hidden(found, condition, fill, place))


def _hidden(found: Scores, condition: ir.Value | None, fill: ir.Value | None, place: int) -> Build:
    return lambda op: op.Where(condition, *((found.total(op), fill) if place == 0 else (fill, found.total(op))))


def _split(node: ir.Node) -> Iterator[Scores]:
    """Scores whose batch and heads were one axis: a product, perhaps scaled, and biases."""
    merged, shape = node.inputs
    if merged is None or shape is None or len(dims(merged)) != 3 or len(dims(node.outputs[0])) != 4:
        return
    biases: list[tuple[ir.Value | None, float]] = []
    scale = 1.0
    while (outer := made_by(merged, "Add", "Mul", "Div")) is not None:
        if outer.op_type == "Add":
            left, right = (made_by(value, "MatMul", "Add") for value in outer.inputs)
            place = 0 if left is not None or right is None else 1
            scores, added = outer.inputs[place], outer.inputs[1 - place]
            if dims(scores) != dims(merged) or len(dims(added)) != 3 or dims(added)[0] != dims(merged)[0]:
                return
            biases.append((added, scale))
            merged = scores
        else:
            merged, scale = outer.inputs[0], scale * _factor(outer)
    product = made_by(merged, "MatMul")
    if product is None or not scale:
        return
    query, key = _unmerged(product.inputs[0]), product.inputs[1]
    if (scaled := made_by(key, "Mul", "Div")) is not None and (factor := _factor(scaled)):
        key, scale = scaled.inputs[0], scale * factor
    turned = made_by(key, "Transpose")
    untransposed = None
    if turned is not None and list(turned.attributes.get_ints("perm", [])) == [0, 2, 1]:
        untransposed = _unmerged(turned.inputs[0])
    if query is None or untransposed is None:
        return

    def bias(op: Any) -> Any:
        return reduce(op.Add, (_split_bias(op, value, factor, merged, shape) for value, factor in biases))

    keys = partial(permuted, x=untransposed, perm=(0, 1, 3, 2))
    yield Scores(query, keys, scale, bias if biases else None, ("Reshape",))


def _split_bias(op: Any, bias: Any, factor: float, merged: ir.Value, shape: ir.Value) -> Any:
    """A multiple of a bias with batch and heads as two axes, as `shape` has them; its rows may be one for all."""
    if dims(bias) != dims(merged):
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
            and weighs_values(weights.producer())
            and axis in (-1, len(dims(scores)) - 1)
        )

    def rewrite(self, op: Any, weights: Any, **_: Any) -> Any:
        found = self._scores
        assert found is not None
        scores = op.Mul(op.MatMul(found.query, found.key(op)), op.Constant(value_float=found.scale))
        return op.Softmax(scores if found.bias is None else op.Add(scores, found.bias(op)), axis=-1)


class UnmergedValues(pattern.RewriteRuleClassBase):
    """A product whose batch and heads were merged into one axis: the same with both axes."""

    def pattern(self, op: Any, x: Any, y: Any, x_shape: Any, y_shape: Any, shape: Any) -> Any:
        merged = op.MatMul(op.Reshape(x, x_shape, _outputs=["x_merged"]), op.Reshape(y, y_shape, _outputs=["y_merged"]))
        return op.Reshape(merged, shape, _outputs=["result"])

    def check(self, context: Any, x_merged: Any, y_merged: Any, result: Any, **_: Any) -> bool:
        x, y = dims(_unmerged(x_merged)), dims(_unmerged(y_merged))
        return len(x) == len(y) == 4 and x[:2] == y[:2] and dims(result) == [*x[:3], y[3]]

    def rewrite(self, op: Any, x: Any, y: Any, **_: Any) -> Any:
        return op.MatMul(x, y)


def _unmerged(value: ir.Value) -> ir.Value | None:
    """[batch, heads, rows, columns], if a value is the same as [batch * heads, rows, columns]."""
    node = made_by(value, "Reshape")
    split = None if node is None else node.inputs[0]
    return split if len(dims(split)) == 4 and len(dims(value)) == 3 and dims(split)[2:] == dims(value)[1:] else None


class AttentionWithoutKernel(pattern.RewriteRuleClassBase):
    """An attention that onnxscript found and made none of ONNX Runtime's operators of, as of a number of heads that is
    not known: written as products again.
    """

    def pattern(self, op: Any, query: Any, key: Any, value: Any, key_format: Any) -> Any:
        return op.SDPA(
            query,
            key,
            value,
            key_format=key_format,
            _allow_other_inputs=True,
            _outputs=["attended"],
            _domain="ai.onnxruntime._fusion",
        )

    def rewrite(
        self, op: Any, query: ir.Value, key: ir.Value, value: ir.Value, key_format: ir.Attr, attended: ir.Value
    ) -> Any:
        node = attended.producer()
        assert node is not None
        scale = node.attributes.get_float("scale", None) or float(dims(query)[-1]) ** -0.5  # left out where it is this
        turned = op.Transpose(key, perm=[0, 1, 3, 2] if key_format.as_string() == "BHSd" else [0, 2, 3, 1])
        scores = op.MatMul(op.Mul(query, op.Constant(value_float=scale)), turned)
        mask = node.inputs[3] if len(node.inputs) > 3 else None
        weights = op.Softmax(scores if mask is None else op.Add(scores, mask), axis=-1)
        hidden = op.IsNaN(weights)  # of a row that sees nothing
        return op.MatMul(op.Where(hidden, op.Constant(value_float=0.0), weights), value)
