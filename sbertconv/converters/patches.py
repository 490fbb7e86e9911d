"""Places of patches in a trace: a table of places that a model resizes to the grid of each image, one after the other,
as the product of that table with weights that are made of the grids.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from sbertconv.source.transformers_compat import RESIZES


def resized_places(table: Tensor, grids: Tensor, max_length: int) -> Tensor:
    """The places of each image's patches, row by row, resized as torch.nn.functional.interpolate does with
    mode="bilinear" and antialias=True; behind the last patch of an image those of its first.

    Args:
        table: the model's places, float32 [height, width, dim].
        grids: the patches of each image from top to bottom and from left to right, int64 [batch, 2].
        max_length: of an image, in patches.

    Returns:
        float32 [batch, max_length, dim].
    """
    height, width, dim = table.shape
    rows, columns = grids[:, :1], grids[:, 1:]
    numbers = torch.arange(max_length, device=grids.device).unsqueeze(0)
    numbers = torch.where(numbers < rows * columns, numbers, 0)
    down = _weights(torch.div(numbers, columns, rounding_mode="floor"), rows, height)
    along = _weights(torch.remainder(numbers, columns), columns, width)
    both = (down.unsqueeze(-1) * along.unsqueeze(-2)).flatten(2)
    return both @ table.float().reshape(height * width, dim)


def _weights(places: Tensor, count: Tensor, size: int) -> Tensor:
    """How much of each of `size` numbers is in some of the `count` that they are resized to: a triangle around the
    middle of each, as wide as a number of the coarser of both; int64 [batch, n] and [batch, 1] -> float32 [batch, n,
    size].
    """
    step = (size / count.float()).unsqueeze(-1)
    middles = (places.unsqueeze(-1).float() + 0.5) * step
    distances = (torch.arange(size, device=places.device).float() + 0.5 - middles).abs()
    found = (1 - distances / step.clamp(min=1)).clamp(min=0)
    return found / found.sum(-1, keepdim=True)


@contextlib.contextmanager
def traceable_patches(module: torch.nn.Module) -> Iterator[None]:
    """Models that resize their places for each image of a batch do so for all of them at once while tracing."""
    owners = [part for part in module.modules() if hasattr(part, RESIZES)]
    try:
        for owner in owners:
            setattr(owner, RESIZES, resized_places)
        yield
    finally:
        for owner in owners:
            delattr(owner, RESIZES)
