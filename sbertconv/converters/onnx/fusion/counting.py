"""How many attentions a graph has, and how many of them are one operator."""

from __future__ import annotations

import onnx_ir as ir

FUSED_ATTENTION = frozenset({"Attention", "GroupQueryAttention", "MultiHeadAttention"})
PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Einsum"})
PASSING = frozenset({"Cast", "Dropout", "Identity", "Reshape", "Where"})  # between a softmax and its values


def count_attention(model: ir.Model) -> dict[str, int]:
    """How many attentions a graph has: {"found": all of them, "fused": those that are one operator}."""
    nodes = list(model.graph.all_nodes())
    fused = sum(node.op_type in FUSED_ATTENTION for node in nodes)
    return {"found": fused + sum(weighs_values(node) for node in nodes), "fused": fused}


def weighs_values(node: ir.Node) -> bool:
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
