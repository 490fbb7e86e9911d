"""Lookups in tables of small integers, in operators of ai.onnx alone: not every run time has Microsoft's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

LOOKUP = "GatherBlockQuantized"


def plain_lookups(proto: Any) -> None:
    """Replace every GatherBlockQuantized of a graph by the arithmetic that it stands for, (integer - middle) * scale,
    which gives the same numbers.

    Args:
        proto: a graph with its weights, which changes.
    """
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        nodes += lookup(node, weights, proto.graph) if node.op_type == LOOKUP else [node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def lookup(node: Any, weights: Mapping[str, Any], graph: Any) -> list[Any]:
    """The nodes of one lookup: rows of integers, two in a byte where they have four bits, and of their scales."""
    import onnx

    packed, ids, scales = node.input
    said = {attribute.name: attribute.i for attribute in node.attribute}
    bits, block = said["bits"], said["block_size"]
    columns = weights[packed].dims[1] * 8 // bits
    prefix, made = f"{node.output[0]}_plain", onnx.helper.make_node
    constants = {
        "middle": np.float32(2 ** (bits - 1)),
        "half": np.float32(16),
        "axis": np.array([-1], np.int64),
        "columns": np.array([columns], np.int64),
        "blocks": np.arange(columns, dtype=np.int64) // block,
    }
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), f"{prefix}_{name}") for name, value in constants.items()
    )

    def step(kind: str, given: str, out: str, **more: Any) -> Any:
        names = [name if name in (packed, ids, scales) else f"{prefix}_{name}" for name in given.split()]
        return made(kind, names, [f"{prefix}_{out}"], **more)

    two_in_a_byte = [
        step("Div", "bytes half", "shifted"),
        step("Floor", "shifted", "high"),
        step("Mul", "high half", "of_high"),
        step("Sub", "bytes of_high", "low"),
        step("Unsqueeze", "low axis", "low_column"),
        step("Unsqueeze", "high axis", "high_column"),
        step("Concat", "low_column high_column", "pairs", axis=-1),
        step("Shape", "bytes", "rows_shape", end=-1),
        step("Concat", "rows_shape columns", "shape", axis=0),
        step("Reshape", "pairs shape", "integers"),
    ]
    return [
        step("Gather", f"{packed} {ids}", "rows"),
        step("Cast", "rows", "bytes" if bits == 4 else "integers", to=onnx.TensorProto.FLOAT),
        *(two_in_a_byte if bits == 4 else []),
        step("Sub", "integers middle", "centred"),
        step("Gather", f"{scales} {ids}", "row_scales"),
        step("Gather", "row_scales blocks", "column_scales", axis=-1),
        made("Mul", [f"{prefix}_centred", f"{prefix}_column_scales"], [node.output[0]]),
    ]
