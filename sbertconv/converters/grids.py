"""Images of any number of patches in a trace, one image for each run: its places, its one stretch of attention and its
pixels without padding, which models find out from the numbers of its grid.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

GRID = "grid_thw"  # how the forward of an encoder of such images calls their grids


def grid_places(grid: Tensor, count: int, merge: int) -> Tensor:
    """Row and column of each patch of an image, in the order of its groups of merge x merge patches.

    Args:
        grid: frames, rows and columns of patches, int64 [1, 3].
        count: how many patches there are.
        merge: how many on each side become a token together.

    Returns:
        int64 [count, 2].
    """
    numbers = torch.arange(count)
    across = torch.div(grid[0, 2], merge, rounding_mode="floor")
    groups = torch.div(numbers, merge * merge, rounding_mode="floor")
    inside = torch.remainder(numbers, merge * merge)
    rows = torch.div(groups, across, rounding_mode="floor") * merge + torch.div(inside, merge, rounding_mode="floor")
    return torch.stack([rows, torch.remainder(groups, across) * merge + torch.remainder(inside, merge)], dim=-1)


class _OneImage(TorchFunctionMode):
    """A tensor split into one piece is that piece, and patches chosen by a mask of one image are all of them."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.split and isinstance(args[1], list) and len(args[1]) == 1:
            return (args[0],)
        if function is Tensor.__getitem__ and _chooses_patches(*args):
            return args[0].flatten(0, 1)
        return function(*args, **(kwargs or {}))


def _chooses_patches(values: Tensor, mask: Any) -> bool:
    is_mask = isinstance(mask, Tensor) and mask.dtype is torch.bool and mask.ndim == 2 and values.ndim == 3
    return is_mask and isinstance(values.shape[0], int) and values.shape[0] == 1


def _settled(part: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an encoder with its places and its stretch of attention, which it takes in place of its own."""
    given = inspect.signature(type(part).forward).bind_partial(part, *args, **kwargs).arguments
    patches = next(value for name, value in given.items() if isinstance(value, Tensor) and name != GRID)
    count = torch.ones(patches.shape[0], dtype=torch.int64).sum()
    stretch = torch.stack([torch.zeros_like(count), count])
    places = grid_places(given[GRID], patches.shape[0], part.spatial_merge_size)
    return args, {**kwargs, "position_ids": places, "cu_seqlens": stretch}


@contextlib.contextmanager
def traceable_grids(module: torch.nn.Module) -> Iterator[None]:
    """Encoders of images of any number of patches, in the forms that one image for each run has."""
    owners = [
        part for part in module.modules()
        if hasattr(part, "spatial_merge_size") and GRID in inspect.signature(type(part).forward).parameters
    ]  # fmt: skip
    hooks = [owner.register_forward_pre_hook(_settled, with_kwargs=True) for owner in owners]
    try:
        with _OneImage() if owners else contextlib.nullcontext():
            yield
    finally:
        for hook in hooks:
            hook.remove()
