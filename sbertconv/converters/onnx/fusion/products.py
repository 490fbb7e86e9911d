"""Matrix products in the forms that ONNX Runtime and the fusions know."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from sbertconv.converters.onnx.fusion.values import CONTRIB, dims, permuted, typed


class LinearOnRows(pattern.RewriteRuleClassBase):
    """A linear layer on tokens flattened to rows and back: a product needs no flattening."""

    def pattern(self, op: Any, x: Any, rows: Any, weight: Any, shape: Any) -> Any:
        flat, bias = op.Reshape(x, rows), pattern.Var("bias", can_match_none=True)
        product = op.Gemm(flat, weight, bias, _outputs=["product"], _allow_other_attributes=True)
        return op.Reshape(product, shape, _outputs=["result"])

    def check(self, context: Any, x: Any, weight: Any, product: Any, result: Any, **_: Any) -> bool:
        options = {name: attribute.value for name, attribute in product.producer().attributes.items()}
        before, after, matrix = dims(x), dims(result), dims(weight)
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
        if len(dims(x)) > 3:
            x = op.Reshape(x, op.Constant(value_ints=[0, 0, dims(weight)[0]]))
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
            dict(zip(*pair, strict=False)) for pair in ((self._left, dims(left)), (self._right, dims(right)))
        )
        self._sizes = rights | sizes
        flattened = [] if self._batch else [self._sizes.get(index) for index in self._contracted + self._columns]
        groups = (self._contracted, self._columns) if not self._batch else (self._rows, self._contracted, self._columns)
        return (
            len(dims(left)) == len(set(self._left)) == len(self._left)
            and len(dims(right)) == len(set(self._right)) == len(self._right)
            and set(self._out) == set(self._batch + self._rows + self._columns)
            and all((sizes[index] == 1) == (rights[index] == 1) for index in both)  # no broadcasting
            and all(isinstance(size, int) for size in flattened)
            and (all(len(group) == 1 for group in groups) if self._batch else all(groups))
        )

    def rewrite(self, op: Any, left: Any, right: Any, **_: Any) -> Any:
        left = self._ordered(op, left, self._left, self._batch + self._rows + self._contracted)
        if self._batch:  # as attention transposes its keys
            right = self._ordered(op, right, self._right, self._batch + self._columns + self._contracted)
            last = len(dims(right)) - 1
            right = permuted(op, right, [*range(last - 1), last, last - 1])
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
        product = typed(product, left, [self._sizes[index] for index in found])
        return self._ordered(op, product, found, self._out)

    def _ordered(self, op: Any, x: Any, order: str, wanted: str) -> Any:
        return x if order == wanted else permuted(op, x, [order.index(index) for index in wanted])

    def _total(self, indices: str) -> int:
        return int(np.prod([self._sizes[index] for index in indices]))

    def _split_last(self, op: Any, x: Any, kept: str, last: list[int]) -> Any:
        shape = op.Constant(value_ints=[0] * len(kept) + last)
        return typed(op.Reshape(x, shape), x, [*(self._sizes[index] for index in kept), *last])


class BatchTransposed(pattern.RewriteRuleClassBase):
    """A product of a factor that is transposed with its first axis: transposed before. ONNX Runtime does this inside
    the product for factors of equal numbers of axes alone, and OpenVINO exchanges other axes.
    """

    def pattern(self, op: Any, x: Any, y: Any) -> Any:
        return op.FusedMatMul(x, y, _domain=CONTRIB, _allow_other_attributes=True, _outputs=["product"])

    def check(self, context: Any, x: Any, y: Any, product: Any, **_: Any) -> bool:
        attributes = product.producer().attributes
        return any(attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB"))

    def rewrite(self, op: Any, x: Any, y: Any, product: Any, **_: Any) -> Any:
        attributes = {name: attribute.value for name, attribute in product.producer().attributes.items()}
        first = (attributes.pop(name, 0) for name in ("transBatchA", "transBatchB"))
        factors = [
            _first_axis_inside(op, value) if turned else value for value, turned in zip((x, y), first, strict=True)
        ]
        return op.FusedMatMul(*factors, **attributes, _domain=CONTRIB)


def _first_axis_inside(op: Any, x: ir.Value) -> ir.Value:
    """The first axis as the last but one."""
    axes = list(range(len(dims(x))))
    return permuted(op, x, [*axes[1:-1], 0, axes[-1]])
