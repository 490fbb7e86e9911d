"""Weights that are cut, picked, transposed and shared before a graph is written, and computed when it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from sbertconv.converters.onnx.fusion.values import made_by
from sbertconv.converters.onnx.saving import SMALL, lazy

PARTS = ("Slice", "Transpose")
BEGINNING = 256  # numbers that two weights are told apart by before all of them are compared


def is_tied(weight: ir.Value) -> bool:
    """Whether the graph has a use for the whole of a large weight, as the embedding table that is a model's head for
    masked words too: parts of it, and the transposed, would be the same numbers once more in the file. Engines make
    them while they load.
    """
    tensor = weight.const_value
    return tensor is not None and tensor.nbytes > SMALL and any(use.node.op_type not in PARTS for use in weight.uses())


def slice_weights(model: ir.Model, tied: bool) -> None:
    """Parts of weights as weights, cut out when they are written: a graph would cut them out in every call.

    Args:
        model: the graph.
        tied: whether those of tied weights stay as they are.
    """
    for node in list(model.graph):
        weight = node.inputs[0] if node.op_identifier()[:2] == ("", "Slice") else None
        tensor = None if weight is None else weight.const_value
        if weight is None or tensor is None or not weight.is_initializer() or (tied and is_tied(weight)):
            continue
        starts, ends, *rest = [None if value is None else _integers(value) for value in node.inputs[1:]]
        if not starts or not ends or [] in rest:
            continue
        axes, steps = (*rest, None, None)[:2]  # which may be left out
        axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
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
    while value is not None and (node := made_by(value, "Cast", "Reshape")) is not None:
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


def transpose_weights(model: ir.Model, tied: bool) -> None:
    """Transposed weights as weights, each one stored once however many nodes use it, and transposed when it is
    written: the optimizer would hold them all in memory. Args: see `slice_weights`.
    """
    made: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}
    for node in list(model.graph):
        weight = node.inputs[0] if node.op_identifier()[:2] == ("", "Transpose") else None
        tensor = None if weight is None else weight.const_value
        if weight is None or tensor is None or not weight.is_initializer() or (tied and is_tied(weight)):
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


def _transposed(tensor: ir.TensorProtocol, perm: Sequence[int]) -> np.ndarray:
    turned: np.ndarray = tensor.numpy().transpose(perm)
    return turned


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
