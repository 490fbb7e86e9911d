"""Sizes, positions and masks that are computed where they are known already."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

from sbertconv.converters.onnx.fusion.values import dims, made_by, scalar


class GatheredMask(pattern.RewriteRuleClassBase):
    """A [batch, sequence] mask looked up at every batch and position: the mask itself, perhaps with more axes."""

    def pattern(self, op: Any, mask: Any, rows: Any, columns: Any, shape: Any) -> Any:
        places = [op.Unsqueeze(op.Expand(index, shape), [-1]) for index in (rows, columns)]
        return op.GatherND(mask, op.Concat(*places, axis=-1), batch_dims=0, _outputs=["found"])

    def check(self, context: Any, mask: Any, rows: Any, columns: Any, found: Any, **_: Any) -> bool:
        long_axes = [[size for size in dims(value) if size != 1] for value in (rows, columns, found)]
        return (
            len(set(dims(mask))) == 2
            and long_axes == [dims(mask)[:1], dims(mask)[1:], dims(mask)]
            and _counts_up(rows)
            and _counts_up(columns)
        )

    def rewrite(self, op: Any, mask: Any, found: Any, **_: Any) -> Any:
        axes = [axis for axis, size in enumerate(dims(found)) if size == 1]
        return op.Unsqueeze(mask, op.Constant(value_ints=axes)) if axes else op.Identity(mask)


def _counts_up(value: ir.Value | None) -> bool:
    """Whether a value with one long axis is 0, 1, 2, ... along it."""
    while (node := made_by(value, "Unsqueeze", "Reshape")) is not None:
        value = node.inputs[0]
    node = made_by(value, "Range")
    return node is not None and scalar(node.inputs[0]) == 0 and scalar(node.inputs[2]) == 1


class InputShape(pattern.RewriteRuleClassBase):
    """The shape of something computed, read off the graph's inputs instead, so that nothing waits for it."""

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Shape(x, _outputs=["sizes"], _allow_other_attributes=True)

    def check(self, context: Any, x: Any, sizes: Any, **_: Any) -> bool:
        graph, attributes = sizes.producer().graph, sizes.producer().attributes
        if x.producer() is None or not isinstance(graph, ir.Graph):
            return False
        self._known = {size: (value, axis) for value in graph.inputs for axis, size in enumerate(dims(value))}
        sizes_of_x = dims(x)
        self._wanted = sizes_of_x[attributes.get_int("start", 0) : attributes.get_int("end", len(sizes_of_x))]
        return bool(self._wanted) and all(isinstance(size, int) or size in self._known for size in self._wanted)

    def rewrite(self, op: Any, **_: Any) -> Any:
        return op.Concat(*(self._size(op, size) for size in self._wanted), axis=0)

    def _size(self, op: Any, size: Any) -> Any:
        if isinstance(size, int):
            return op.Constant(value_ints=[size])
        value, axis = self._known[size]
        return op.Shape(value, start=axis, end=axis + 1)


class ReshapedBack(pattern.RewriteRuleClassBase):
    """Two reshapes that undo each other."""

    def pattern(self, op: Any, x: Any, first: Any, second: Any) -> Any:
        return op.Reshape(op.Reshape(x, first), second, _outputs=["result"])

    def check(self, context: Any, x: Any, result: Any, **_: Any) -> bool:
        return bool(dims(x)) and dims(x) == dims(result)

    def rewrite(self, op: Any, x: Any, **_: Any) -> Any:
        return op.Identity(x)


class GatheredRange(pattern.RewriteRuleClassBase):
    """The first elements along an axis, looked up one by one: a slice."""

    def pattern(self, op: Any, x: Any, stop: Any) -> Any:
        return op.Gather(x, op.Range(0, stop, 1), _allow_other_attributes=True, _outputs=["found"])

    def check(self, context: Any, x: Any, stop: Any, **_: Any) -> bool:
        size = made_by(stop, "Gather", "Squeeze")
        return size is not None and made_by(size.inputs[0], "Shape") is not None

    def rewrite(self, op: Any, x: Any, stop: Any, found: Any, **_: Any) -> Any:
        axis = found.producer().attributes.get_int("axis", 0)
        first, last = op.Constant(value_ints=[0]), op.Reshape(stop, op.Constant(value_ints=[-1]))
        return op.Slice(x, first, last, op.Constant(value_ints=[axis]))
