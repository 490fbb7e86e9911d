"""Sizes in a trace: operations in forms that hold for all of them."""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sbertconv.converters.places import is_model_running
from sbertconv.source.torch_compat import in_example, is_from_data


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


def _all_rows(values: Tensor, dim: int = 0) -> Any:
    """Tensor.unbind() of an axis that is open as one piece with all its rows: models go through the images of a batch
    to put what each of them gives behind one another again.
    """
    is_open = dim == 0 and values.ndim > 2 and not isinstance(values.shape[0], int)
    return (values.flatten(0, 1),) if is_open else torch.unbind(values, dim)


def _length(values: Tensor) -> int:
    """Tensor.__len__(), which list() asks for as a hint and goes without where there is none.

    Raises:
        TypeError: for an axis that is open, whose size is no number.
    """
    if not isinstance(values.shape[0], int):
        raise TypeError("len() of an axis that is open")
    return values.shape[0]


def _scattered(values: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Tensor.masked_scatter(): as many numbers as the mask has marks lie in the source in their order, so that the
    n-th mark tells the place. Rows are taken as a whole where the mask tells no numbers of a row apart.
    """
    width = values.shape[-1] if mask.shape[-1] == 1 else 1
    marks = mask.expand(*values.shape[:-1], mask.shape[-1]).reshape(-1)
    places = (marks.to(torch.int64).cumsum(0) - 1).clamp(min=0)
    return torch.where(mask, source.reshape(-1, width)[places].reshape(values.shape), values)


def _written(number: Tensor, form: str = "") -> str:
    """A number in a text, as an expert's in its name."""
    return format(number.item(), form) if number.ndim == 0 else format(repr(number), form)


def _strided(values: Tensor, size: Sequence[Any], stride: Sequence[Any], offset: Any = None) -> Tensor:
    """Tensor.as_strided() as numbers at their places: exporters know nothing of the order that numbers lie in."""
    steps = [in_example(step) or 0 for step in values.stride()]
    order = sorted(range(values.ndim), key=steps.__getitem__, reverse=True)
    lying = values.permute(order)
    counts = [in_example(count) or 0 for count in lying.shape]
    if offset or [steps[axis] for axis in order] != [math.prod(counts[axis + 1 :]) for axis in range(values.ndim)]:
        return torch.as_strided(values, size, stride, offset)
    places: Any = torch.zeros((), dtype=torch.int64)
    for count, step in zip(size, stride, strict=True):
        places = places[..., None] + torch.arange(count) * step
    return lying.reshape(-1)[places]


# function -> the same with open sizes; its name is what a model's code is searched for
OPEN: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.topk: _largest,
    Tensor.topk: _largest,
    torch.div: _quotient,
    Tensor.nonzero: _every_place,
    Tensor.numel: _number,
    Tensor.as_strided: _strided,
    Tensor.masked_scatter: _scattered,
    Tensor.unbind: _all_rows,
    Tensor.__len__: _length,
    Tensor.__format__: _written,
}


class _InOpenSizes(TorchFunctionMode):
    """While code of a model runs: before, PyTorch makes views of weights with strides."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_of_model = function in OPEN and is_model_running()
        return (OPEN[function] if is_of_model else function)(*args, **(kwargs or {}))


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
