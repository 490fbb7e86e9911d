"""Sizes in a trace: operations in forms that hold for all of them, and the lines of code that hold for one only."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sbertconv.converters.branches import SIDES, answered, answers_of
from sbertconv.converters.places import line_running
from sbertconv.source.torch_compat import BranchOnData, is_from_data, telling_numbers_of_sizes

SQUEEZES = ("squeeze.default", "squeeze.dim", "squeeze.dims")


def _largest(values: Tensor, k: Any, dim: int = -1, *args: Any, **options: Any) -> Any:
    """torch.topk of no more values than there are: models branch on that, or take the smaller of both, and a trace
    keeps the branch of its example.
    """
    return torch.topk(values, torch.sym_min(k, values.shape[dim]), dim, *args, **options)


def _quotient(number: Any, other: Any, **options: Any) -> Any:
    """torch.div of two sizes as a size; as a tensor it would be one that only the data tells."""
    sizes = not isinstance(number, Tensor) and not isinstance(other, Tensor)
    return number // other if sizes and options.get("rounding_mode") else torch.div(number, other, **options)


def _every_place(values: Tensor, **options: Any) -> Any:
    """Tensor.nonzero() of as many values as there are experts: models go through those that some token takes, and the
    others, which no token takes, add nothing.
    """
    if options.get("as_tuple") or values.ndim != 1 or not isinstance(values.shape[0], int):
        return torch.nonzero(values, **options)
    return [torch.tensor([place]) for place in range(values.shape[0])]


def _number(values: Tensor) -> Any:
    """Tensor.numel(), 1 at least where only the data tells: models leave out tokens where there are none, and those add
    nothing.
    """
    count = values.numel()
    return torch.sym_max(count, 1) if is_from_data(count) else count


def _written(number: Tensor, form: str = "") -> str:
    """A number in a text, as an expert's in its name."""
    return format(number.item(), form) if number.ndim == 0 else format(repr(number), form)


# function -> the same with open sizes; its name is what a model's code is searched for
OPEN: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.topk: _largest,
    Tensor.topk: _largest,
    torch.div: _quotient,
    Tensor.nonzero: _every_place,
    Tensor.numel: _number,
    Tensor.__format__: _written,
}


class _InOpenSizes(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return OPEN.get(function, function)(*args, **(kwargs or {}))


@contextlib.contextmanager
def traceable_sizes(module: torch.nn.Module) -> Iterator[None]:
    """Operations in forms that hold for every size while tracing, for models whose code has any."""
    uses_them = any(function.__name__ in source for source in sources(module) for function in OPEN)
    with _InOpenSizes() if uses_them else contextlib.nullcontext():
        yield


def sources(module: torch.nn.Module) -> list[str]:
    """The code of the files that the classes of a module's parts stand in."""
    files = [sys.modules[name] for name in {type(part).__module__ for part in module.modules()} if name in sys.modules]
    return [inspect.getsource(file) for file in files if getattr(file, "__file__", None)]


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
    program.graph_module.recompile()
    return program


def _program(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any
) -> torch.export.ExportedProgram:
    """A module traced with the sides that it takes of branches on the data of its example, if it has any."""
    try:
        return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
    except BranchOnData:
        answers = answers_of(module, args, kwargs)
        if not answers:
            raise
    with answered(answers) as lines:
        program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
    program.graph_module.meta[SIDES] = tuple(lines)
    return program


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
