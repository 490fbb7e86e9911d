"""Questions and answers about the values of a graph: their shapes, the nodes that make them, the numbers they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

CONTRIB = "com.microsoft"


def dims(value: ir.Value | None) -> list[Any]:
    """The shape of a value, integers and names; empty where it is not known. A size without a name equals no other."""
    sizes = [] if value is None or value.shape is None else list(value.shape)
    return [size if isinstance(size, int) else size.value or object() for size in sizes]


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that makes a value, if it is one of these."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types and node.domain == "" else None


def scalar(value: ir.Value | None) -> float | None:
    """The number that a value is, if it is known."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return float(tensor.numpy().reshape(())) if tensor is not None and tensor.size == 1 else None


def permuted(op: Any, x: ir.Value, perm: Sequence[int]) -> ir.Value:
    """A transpose that knows its shape, on which later rules rely."""
    return typed(op.Transpose(x, perm=list(perm)), x, [dims(x)[axis] for axis in perm])


def typed(value: ir.Value, like: ir.Value, shape: Sequence[Any]) -> ir.Value:
    """A value that a rule made, with the dtype of another one, if that is known, and a shape, on which later rules
    rely.
    """
    if like.dtype is not None:
        value.dtype = like.dtype
    value.shape = ir.Shape(size if isinstance(size, int | str) else None for size in shape)
    return value
