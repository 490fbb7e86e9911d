"""Complex numbers, in which some models turn queries and keys, as pairs of real ones: no format has room for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sbertconv.converters.sizes import sources


class Pairs:
    """A complex tensor while tracing: what models do with one between making it and reading its parts.

    Attributes:
        parts: float32 [..., 2], the real and the imaginary one.
    """

    def __init__(self, parts: Tensor) -> None:
        self.parts = parts

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return MADE[function](*args, **(kwargs or {})) if function in MADE else NotImplemented

    @property
    def shape(self) -> torch.Size:
        return self.parts.shape[:-1]

    @property
    def device(self) -> torch.device:
        return self.parts.device

    def to(self, *_: Any, **__: Any) -> Pairs:
        """Itself: a trace has one device."""
        return self

    def unsqueeze(self, axis: int) -> Pairs:
        """One more axis."""
        return Pairs(self.parts.unsqueeze(axis if axis >= 0 else axis - 1))

    def __getitem__(self, index: Any) -> Pairs:
        places = index if isinstance(index, tuple) else (index,)
        return Pairs(self.parts[(*places, slice(None))] if Ellipsis in places else self.parts[places])

    def __mul__(self, other: Any) -> Pairs:
        if not isinstance(other, Pairs):
            return Pairs(self.parts * (other.unsqueeze(-1) if isinstance(other, Tensor) else other))
        (a, b), (c, d) = self.parts.unbind(-1), other.parts.unbind(-1)
        return Pairs(torch.stack([a * c - b * d, a * d + b * c], dim=-1))

    __rmul__ = __mul__


def _polar(length: Tensor, angle: Tensor) -> Pairs:
    return Pairs(torch.stack([length * torch.cos(angle), length * torch.sin(angle)], dim=-1))


def _parts(value: Pairs | Tensor) -> Tensor:
    return value.parts if isinstance(value, Pairs) else torch.view_as_real(value)


MADE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.polar: _polar,
    torch.view_as_complex: Pairs,
    torch.view_as_real: _parts,
}


class _InPairs(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return MADE.get(function, function)(*args, **(kwargs or {}))


@contextlib.contextmanager
def traceable_complex_numbers(module: torch.nn.Module) -> Iterator[None]:
    """Pairs in the place of complex numbers while tracing, for models whose code makes any."""
    uses_them = any("view_as_complex" in source for source in sources(module))
    with _InPairs() if uses_them else contextlib.nullcontext():
        yield
