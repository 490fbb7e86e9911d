"""Weights of a half-precision checkpoint as float32 tensors that take half the memory, or none.

`encode()` of the model in float32 is what a conversion is held to. A checkpoint in bfloat16 or float16 need not lie in
memory in float32 for that: the file stays mapped, and whatever operation reads a weight widens that one weight, which
is exact. How a tensor subclass takes part in operations: https://docs.pytorch.org/docs/stable/notes/extending.html
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch

from sbertconv.source.torch_compat import CAST, TorchDispatchMode, own_parameters, tree_map_only, wrapper, writes

HALVES = (torch.bfloat16, torch.float16)
SMALLEST = 1 << 16  # numbers; a smaller weight is widened at once
ONE_BY_ONE = "HF_DEACTIVATE_ASYNC_LOAD"  # transformers loads in threads, where a dispatch mode is not seen
aten = torch.ops.aten


class Widened(torch.Tensor):
    """A float32 tensor whose numbers are kept as they are in the checkpoint, until something writes to it.

    Attributes:
        kept: [the same in bfloat16 or float16], one list for all that are the same weight.
    """

    kept: list[torch.Tensor]

    @staticmethod
    def __new__(cls, kept: list[torch.Tensor]) -> Widened:
        made: Widened = wrapper(cls, kept[0], torch.float32)
        made.kept = kept
        return made

    @property
    def stored(self) -> torch.Tensor:
        """The numbers as they lie in memory."""
        return self.kept[0]

    def empty(self) -> None:
        """Let the numbers go."""
        self.kept[0] = torch.empty(0, dtype=self.stored.dtype)

    def __repr__(self, **_: Any) -> str:
        return f"Widened({tuple(self.shape)}, {self.stored.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (aten.detach.default, aten.alias.default):
            return cls(args[0].kept)
        if func is aten.embedding.default:  # the rows that are looked up, not the table
            return func(args[0].stored, *args[1:], **kwargs or {}).float()
        if writes(func):
            tree_map_only(cls, cls._widen, (args, kwargs))
        plain, more = tree_map_only(cls, lambda tensor: tensor.stored.float(), (args, kwargs or {}))
        found = func(*plain, **more)
        return args[0] if writes(func) and found is plain[0] else found

    def _widen(self) -> None:
        self.kept[0] = self.stored.float()


class _Keep(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (
            func is CAST
            and kwargs.get("dtype") == torch.float32
            and type(args[0]) is torch.Tensor
            and args[0].dtype in HALVES
            and args[0].numel() >= SMALLEST
            and args[0].device.type == torch.device(kwargs.get("device") or "cpu").type == "cpu"
        ):
            return Widened([args[0]])
        return func(*args, **kwargs)


@contextlib.contextmanager
def widened_late() -> Iterator[None]:
    """Large tensors in half precision that are cast to float32 in here become `Widened`."""
    before = os.environ.get(ONE_BY_ONE)
    os.environ[ONE_BY_ONE] = "1"
    try:
        with _Keep():
            yield
    finally:
        os.environ.pop(ONE_BY_ONE)
        if before is not None:
            os.environ[ONE_BY_ONE] = before


def stored(weight: torch.Tensor) -> torch.Tensor:
    """A weight as it lies in memory."""
    return weight.stored if isinstance(weight, Widened) else weight


def widen(model: torch.nn.Module) -> None:
    """Give a model plain float32 weights, for what cannot work with others."""
    _replace(model, {id(weight): weight.stored.float() for weight in _widened(model).values()})


@contextlib.contextmanager
def stand_ins(model: torch.nn.Module) -> Iterator[Mapping[str, torch.Tensor]]:
    """Plain weights in the place of `Widened` ones, for a tracer, which looks at shapes alone: never written to, they
    take no memory. Gives the numbers they stand for, by every name that they have in the model.
    """
    widened = _widened(model)
    names = {name: weight.stored for name, weight in widened.items()}
    kept = _replace(model, {id(weight): torch.empty(weight.shape) for weight in widened.values()})
    try:
        yield names
    finally:
        for parameters, name, weight in kept:
            parameters[name] = weight


def _widened(model: torch.nn.Module) -> dict[str, Widened]:
    named = model.named_parameters(remove_duplicate=False)
    return {name: weight for name, weight in named if isinstance(weight, Widened)}


def _replace(
    model: torch.nn.Module, new: Mapping[int, torch.Tensor]
) -> list[tuple[MutableMapping[str, Any], str, Any]]:
    """Put other parameters in the place of some, known by their ids; returns those, and where they were."""
    made = {old: torch.nn.Parameter(tensor, requires_grad=False) for old, tensor in new.items()}
    found = [
        (own_parameters(module), name, weight)
        for module in model.modules()
        for name, weight in own_parameters(module).items()
        if id(weight) in made
    ]
    for parameters, name, weight in found:
        parameters[name] = made[id(weight)]
    return found
