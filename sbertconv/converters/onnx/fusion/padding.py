"""Rows of nothing but padding."""

from __future__ import annotations

import onnx_ir as ir

from sbertconv.converters.onnx.fusion.values import dims, made_by


def zero_unattended(model: ir.Model) -> None:
    """Zeros for queries that may attend to no key: what PyTorch's scaled_dot_product_attention gives with a mask of
    bools. Its translation fills the mask with the lowest number, and a softmax over nothing else is a mean.

    Args:
        model: a graph as it was traced.
    """
    attended: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        # softmax(scores + where(mask, 0, lowest)), 0 where it is not a number: only masks of bools are translated so
        softmax = made_by(node.inputs[0], "Softmax") if node.op_type == "IsNaN" else None
        added = None if softmax is None else made_by(softmax.inputs[0], "Add")
        filled = None if added is None else made_by(added.inputs[1], "Where")
        product = None if filled is None else _only_user(_only_user(node, "Where"), "MatMul")
        if product is None or filled is None or (mask := filled.inputs[0]) is None:
            continue
        if mask not in attended:
            attended[mask] = _attended(model.graph, filled, mask)
        heads = _only_user(product, "Reshape") or product  # newer translations flatten the batch and the heads before
        merged = _only_user(_only_user(heads, "Transpose"), "Reshape")
        if merged is not None and dims(mask)[1:2] == [1] and len(dims(merged.outputs[0])) == 3:
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
    return [size if isinstance(size, int | str) else None for size in dims(value)]


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
    times.outputs[0].type, times.outputs[0].shape = made.type, made.shape
