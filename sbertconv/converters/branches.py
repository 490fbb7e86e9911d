"""Branches on data, as `if mask.any():`, in a trace, which has one side of each: the one that its example takes."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sbertconv.converters.places import line_running
from sbertconv.source.torch_compat import tree_map_only

SIDES = "sides"  # in the meta of a traced module: the lines of its branches on data
ASKING: tuple[Callable[..., Any], ...] = (Tensor.__bool__, Tensor.item)  # a tensor for a number of Python
Answers = dict[str, list[bool]]  # line of a model's code -> what a tensor of truth was there, every time


def _asks(function: Any, args: Any) -> bool:
    return function in ASKING and args[0].dtype is torch.bool


class _Heard(TorchFunctionMode):
    """Keeps the answers that a module gets."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: Answers = defaultdict(list)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if _asks(function, args) and (line := line_running()):
            self.answers[line].append(found)
        return found


class Said(TorchFunctionMode):
    """Gives a trace these answers to what is asked on the same lines, in the same order.

    Attributes:
        used: the lines that asked so far.
    """

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.left = {line: deque(given) for line, given in answers.items()}
        self.used: dict[str, None] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _asks(function, args) and (line := line_running()) and self.left.get(line):
            self.used[line] = None
            return self.left[line].popleft()
        return function(*args, **(kwargs or {}))


def answers_of(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Answers:
    """The answers that a module gets from its data on a copy of an example; none where it cannot run, as with weights
    that only stand in for others.
    """
    heard = _Heard()
    own_args, own_kwargs = tree_map_only(Tensor, Tensor.clone, (args, dict(kwargs)))
    try:
        with torch.no_grad(), heard:
            module(*own_args, **own_kwargs)
    except Exception:
        return {}
    return heard.answers
