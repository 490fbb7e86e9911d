"""Recurrences over the tokens, as state-space models have them, as operations on whole tensors.

Their own code is a loop over the tokens, which a trace would freeze at the length of its example.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

LONGEST_SCAN = 1 << 17  # where a model has no limit; a doubling of it is one more step


def recurrence(decay: Tensor, added: Tensor, most: int) -> Tensor:
    """state[t] = decay[t] * state[t - 1] + added[t], in steps that double how far they reach (Hillis and Steele).

    Args:
        decay: float32 [batch, tokens, ...].
        added: of the same shape.
        most: no more tokens than this.

    Returns:
        The states, of the same shape.
    """
    places, reach = torch.arange(decay.shape[1], device=decay.device), 1
    while reach < most:
        before, earlier = (_moved(value, places - reach) for value in (added, decay))
        added, decay = added + decay * before, decay * earlier
        reach *= 2
    return added


def _moved(value: Tensor, places: Tensor) -> Tensor:
    """What stands at these places, and zeros before the beginning."""
    there = (places >= 0).to(value.dtype).view(1, -1, *[1] * (value.ndim - 2))
    return value.index_select(1, places.clamp(min=0)) * there


def selective_scan(
    hidden_states: Tensor, dt: Tensor, decay: Tensor, inwards: Tensor, outwards: Tensor, *, most: int, **options: Any
) -> Any:
    """Mamba's scan, called like the kernel selective_scan_fn of the package mamba_ssm.

    Args:
        hidden_states: float32 [batch, channels, tokens].
        dt: the step of each token, of the same shape.
        decay: the kernel's A, [channels, states].
        inwards: its B, [batch, states, tokens].
        outwards: its C, of the same shape.
        most: no more tokens than this.
        options: its D and delta_bias [channels], z like the hidden states, delta_softplus, return_last_state.

    Returns:
        Of the shape of the hidden states; with return_last_state also the last states, [batch, channels, states].
    """
    bias, direct, gate = (options.get(name) for name in ("delta_bias", "D", "z"))
    dt = dt if bias is None else dt + bias.to(dt.dtype)[..., None]
    dt = torch.nn.functional.softplus(dt) if options.get("delta_softplus") else dt
    steps, inputs = dt.transpose(1, 2)[..., None], hidden_states.transpose(1, 2)[..., None].float()
    states = recurrence(torch.exp(decay * steps), steps * inwards.transpose(1, 2)[:, :, None].float() * inputs, most)
    found = (states * outwards.transpose(1, 2)[:, :, None]).sum(-1).transpose(1, 2).to(hidden_states.dtype)
    found = found if direct is None else found + hidden_states * direct[None, :, None]
    found = found if gate is None else found * torch.nn.functional.silu(gate)
    return (found, states[:, -1]) if options.get("return_last_state") else found


def gated_scan(
    self: Any, hidden_states: Tensor, recurrent_gate: Tensor, reset: Tensor, *_: Any, most: int, **__: Any
) -> Any:
    """Griffin's scan from its beginning, [batch, tokens, channels]."""
    states = recurrence((recurrent_gate * ~reset).float(), hidden_states.float(), most).to(hidden_states.dtype)
    return states, states[:, -1]


# Names of functions in transformers' files of models, and of methods of their modules
FUNCTIONS: dict[str, Callable[..., Any]] = {"mamba_selective_scan": selective_scan}
METHODS: dict[str, Callable[..., Any]] = {"_rnn_scan": gated_scan}


@contextlib.contextmanager
def traceable_scans(module: torch.nn.Module) -> Iterator[None]:
    """Scans without loops in the place of a model's own, while tracing."""
    classes = {type(part) for part in module.modules()}
    files = {sys.modules[found.__module__] for found in classes if found.__module__ in sys.modules}
    places: list[tuple[Any, str, Callable[..., Any]]] = [
        (file, name, scan) for file in files for name, scan in FUNCTIONS.items() if hasattr(file, name)
    ]
    places += [(found, name, scan) for found in classes for name, scan in METHODS.items() if name in vars(found)]
    most = _most_tokens(module)
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    try:
        for owner, name, scan in places:
            bound = partial(scan, most=most)
            setattr(owner, name, _as_method(bound) if isinstance(owner, type) else bound)
        yield
    finally:
        for owner, name, own in before:
            setattr(owner, name, own)


def _most_tokens(module: torch.nn.Module) -> int:
    """The limit of the texts that a model takes; a step may call its module's forward without holding the module."""
    owners = [getattr(getattr(part, "dispatch", None), "__self__", part) for part in module.modules()]
    names = ("max_seq_length", "query_length", "document_length")
    found = [limit for owner in owners for name in names if type(limit := getattr(owner, name, None)) is int]
    return min(max(found, default=LONGEST_SCAN), LONGEST_SCAN)


def _as_method(scan: Callable[..., Any]) -> Callable[..., Any]:
    """A partial is no method by itself."""
    return lambda self, *args, **options: scan(self, *args, **options)
