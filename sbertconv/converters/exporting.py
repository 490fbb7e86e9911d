"""torch.export on an example, with open sizes, on one side of each branch on data, and without writing into inputs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sbertconv.converters.branches import SIDES, Answers, Said, answers_of
from sbertconv.converters.places import line_running
from sbertconv.converters.repeated import same_layers_once
from sbertconv.source.torch_compat import (
    BranchOnData,
    in_example,
    storage_of,
    telling_numbers_of_sizes,
    tree_map_only,
    without_stack_traces,
    writes,
)

SQUEEZES = ("squeeze.default", "squeeze.dim", "squeeze.dims")


@without_stack_traces()
def exported(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, *, shapes: Any
) -> torch.export.ExportedProgram:
    """A module traced by torch.export on an example.

    Args:
        module: to trace, in a form that can be: see `sbertconv.converters.traced.traceable`.
        args: of its forward.
        kwargs: of its forward.
        shapes: the axes whose sizes stay open, as torch.export takes them; None: none does.

    Raises:
        Exception: whatever the trace meets; a note names the lines of code that hold for the example's sizes only.
    """
    lines: dict[str, None] = {}

    def tell() -> None:
        lines.update(dict.fromkeys(filter(None, [line_running()])))

    try:
        with telling_numbers_of_sizes(tell):
            program = _program(module, args, kwargs or {}, shapes)
    except Exception as error:
        if lines:
            error.add_note(f"a size of the example is taken for a number in {'; '.join(lines)}")
        raise
    _squeeze_what_is_one(program.graph)
    _slice_from_the_front(program.graph)
    program.graph_module.recompile()
    return program


def _program(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any
) -> torch.export.ExportedProgram:
    """A module traced with the sides that it takes of branches on the data of its example, if it has any; on copies, if
    it writes into its inputs.
    """
    export = partial(torch.export.export, module, args, kwargs, dynamic_shapes=shapes, strict=False)
    try:
        with same_layers_once(module):
            program = export()
    except BranchOnData:
        answers = answers_of(module, args, kwargs)
        if not answers:
            raise
        export = partial(_on_one_side, export, answers)
        program = export()
    if _writes_into_inputs(program):
        hook = module.register_forward_pre_hook(_copied, with_kwargs=True)
        try:
            program = export()
        finally:
            hook.remove()
    return program


def _on_one_side(export: Callable[[], torch.export.ExportedProgram], answers: Answers) -> torch.export.ExportedProgram:
    """A program with these answers of the data, and with the lines that asked for them in its meta."""
    with Said(answers) as said:
        program = export()
    program.graph_module.meta[SIDES] = tuple(said.used)
    return program


def _writes_into_inputs(program: torch.export.ExportedProgram) -> bool:
    given = set(program.graph_signature.user_inputs)
    inputs = [node.meta["val"] for node in program.graph.find_nodes(op="placeholder") if node.name in given]
    places = {storage_of(value) for value in inputs if isinstance(value, Tensor)}
    writing = [node for node in program.graph.nodes if writes(node.target)]
    return any(storage_of(node.args[0].meta["val"]) in places for node in writing)


def _copied(module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
    """Inputs that nobody else has."""
    return tree_map_only(Tensor, Tensor.clone, (args, kwargs))


def _squeeze_what_is_one(graph: torch.fx.Graph) -> None:
    """Leave out the axes that are of size 1 whatever the input, and no others: a batch of one text has one more."""
    for name in SQUEEZES:
        packet, overload = name.split(".")
        for node in graph.find_nodes(op="call_function", target=getattr(getattr(torch.ops.aten, packet), overload)):
            sizes = node.args[0].meta["val"].shape
            asked = node.args[1] if len(node.args) > 1 else range(len(sizes))
            axes = [asked] if isinstance(asked, int) else list(asked)
            kept = [axis for axis in axes if isinstance(sizes[axis], int) and sizes[axis] == 1]
            if kept != axes or name == SQUEEZES[0]:
                node.target, node.args = torch.ops.aten.squeeze.dims, (node.args[0], kept)


def _slice_from_the_front(graph: torch.fx.Graph) -> None:
    """Values[:-n] as values[:size - n]: models cut off their padding where there is any, and n is 0 elsewhere."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.slice.Tensor):
        values, axis, *ends = node.args
        for place, end in enumerate(ends[:2]):
            if isinstance(end, torch.fx.Node) and (in_example(end.meta["val"]) or 0) < 0:
                with graph.inserting_before(node):
                    size = graph.call_function(torch.ops.aten.sym_size.int, (values, axis))
                    ends[place] = graph.call_function(operator.add, (size, end))
                size.meta["val"] = values.meta["val"].shape[axis]
                ends[place].meta["val"] = size.meta["val"] + end.meta["val"]
        node.args = (values, axis, *ends)
