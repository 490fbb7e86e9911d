"""Queries, keys and values as heads, before and behind their attention."""

from __future__ import annotations

from typing import Any

from onnxscript.rewriter import pattern

from sbertconv.converters.onnx.fusion.values import CONTRIB, dims, scalar, typed


class SumOfBranches(pattern.RewriteRuleClassBase):
    """Heads of two branches that are added, as of a projection and its adapter: the library's fusion would take an Add
    before heads for a bias, whatever is added.
    """

    def pattern(self, op: Any, x: Any, y: Any, shape: Any) -> Any:
        return op.Reshape(op.Add(x, y), shape, _outputs=["result"])

    def check(self, context: Any, x: Any, y: Any, result: Any, **_: Any) -> bool:
        sizes, heads = dims(x), dims(result)
        return len(sizes) == len(dims(y)) == 3 and len(heads) == 4 and heads[:2] == sizes[:2]

    def rewrite(self, op: Any, x: Any, y: Any, shape: Any, **_: Any) -> Any:
        return op.Reshape(typed(op.Sum(x, y), x, dims(x)), shape)


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
        sizes, first = dims(heads), scalar(start)
        return (
            len(sizes) == 5
            and dims(packed)[:-1] == sizes[:2] == dims(part)[:2]
            and all(isinstance(size, int) for size in sizes[2:])
            and scalar(axes) in (2, -3)
            and first is not None
            and 0 <= first < sizes[2]
            and scalar(end) == first + 1
            and dims(part)[2:] == sizes[3:]
        )

    def rewrite(self, op: Any, packed: Any, heads: Any, start: Any, **_: Any) -> Any:
        _, _, _, count, size = dims(heads)
        first, width = int(scalar(start) or 0), count * size
        bounds = (op.Constant(value_ints=[(first + step) * width]) for step in (0, 1))
        part = op.Slice(packed, *bounds, op.Constant(value_ints=[2]))
        part = typed(part, packed, [*dims(packed)[:2], width])
        return op.Reshape(part, op.Constant(value_ints=[0, 0, count, size]))


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
        before, after, wanted = dims(x), dims(repeated), dims(result)
        return (
            len(before) == 4
            and len(after) == 5
            and all(isinstance(size, int) for size in (*before[2:], after[2]))
            and after == [before[0], before[2], after[2], before[1], before[3]]
            and wanted == [*before[:2], before[2] * after[2] * before[3]]
        )

    def rewrite(self, op: Any, x: Any, repeated: Any, result: Any, **_: Any) -> Any:
        alone = op.Unsqueeze(x, op.Constant(value_ints=[3]))
        groups = op.Expand(alone, op.Constant(value_ints=[1, 1, 1, dims(repeated)[2], 1]))
        return op.Reshape(groups, op.Constant(value_ints=[0, 0, dims(result)[2]]))


class AttentionAsRows(pattern.RewriteRuleClassBase):
    """An attention that took the place of a reshape to anything but [batch, sequence, width], as to rows of tokens: the
    library's fusion takes any reshape behind heads for that one.
    """

    def __init__(self, operator: str) -> None:
        super().__init__(operator)
        self._operator = operator

    def pattern(self, op: Any) -> Any:
        return getattr(op, self._operator)(
            _allow_other_inputs=True, _allow_other_attributes=True, _domain=CONTRIB, _outputs=["result"]
        )

    def check(self, context: Any, result: Any, **_: Any) -> bool:
        sizes, known = dims(result), [size for size in dims(result) if isinstance(size, int)]
        queries = result.producer().inputs[0]
        as_rows = bool(sizes) and sizes[:2] != dims(queries)[:2]
        return as_rows and len(dims(queries)) == 3 and len(sizes) <= len(known) + 1

    def rewrite(self, op: Any, result: Any, **_: Any) -> Any:
        node = result.producer()
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        attention = getattr(op, self._operator)(*node.inputs, **attributes, _domain=CONTRIB)
        shape = [size if isinstance(size, int) else -1 for size in dims(result)]
        return op.Reshape(typed(attention, result, [*dims(node.inputs[0])[:2], None]), op.Constant(value_ints=shape))
