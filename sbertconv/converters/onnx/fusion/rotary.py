"""Rotary position embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from sbertconv.converters.onnx.fusion.values import CONTRIB, dims, made_by, permuted, scalar, typed


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
        size = dims(x)[-1] if len(dims(x)) == 4 else None
        stop = scalar(end)
        return (
            isinstance(size, int)
            and isinstance(dims(x)[1], int)
            and size % 2 == 0
            and dims(cos) == dims(sin) == [1, 1, dims(x)[2], size]
            and scalar(start) == 0
            and scalar(middle) == scalar(half) == size // 2
            and stop is not None
            and stop >= size
            and _repeats_its_half(cos)
            and _repeats_its_half(sin)
        )

    def rewrite(self, op: Any, x: Any, cos: Any, sin: Any, **_: Any) -> Any:
        batch, heads, length, size = dims(x)
        first, half, last = (op.Constant(value_ints=[number]) for number in (0, size // 2, -1))
        axes = op.Constant(value_ints=[0, 1])
        tables = [op.Squeeze(op.Slice(table, first, half, last), axes) for table in (cos, sin)]
        flat, split = (op.Constant(value_ints=[0, 0, *sizes]) for sizes in ([heads * size], [heads, size]))
        joined = typed(op.Reshape(permuted(op, x, (0, 2, 1, 3)), flat), x, [batch, length, heads * size])
        turned = op.RotaryEmbedding(joined, _positions(op, x, joined), *tables, interleaved=0, _domain=CONTRIB)
        turned = typed(turned, x, dims(joined))
        return op.Transpose(typed(op.Reshape(turned, split), x, [batch, length, heads, size]), perm=[0, 2, 1, 3])


def _positions(op: Any, x: ir.Value, joined: ir.Value) -> ir.Value:
    """0, 1, 2, ... for each text. ONNX Runtime would take one offset instead, which OpenVINO misreads. They are made
    from an input of the graph where one has the sizes, so that they are the same everywhere.
    """
    sizes = dims(joined)[:2]
    value = next((value for value in x.graph.inputs if dims(value) == sizes), joined)
    ones = op.ConstantOfShape(op.Shape(value, start=0, end=2), value=ir.tensor(np.ones(1, np.int64)))
    return op.CumSum(ones, op.Constant(value_int=1), exclusive=1)


def _repeats_its_half(value: ir.Value | None) -> bool:
    """Whether a table of angles is one half twice along its last axis, for all that was done to it since."""
    while (node := made_by(value, "Unsqueeze", "Cos", "Sin", "Cast", "Mul")) is not None:
        if node.op_type == "Mul" and scalar(node.inputs[1]) is None:
            return False
        value = node.inputs[0]
    joined = made_by(value, "Concat")
    return (
        joined is not None
        and len(joined.inputs) == 2
        and joined.inputs[0] is joined.inputs[1]
        and joined.attributes.get_int("axis", 0) in (-1, len(dims(value)) - 1)
    )
