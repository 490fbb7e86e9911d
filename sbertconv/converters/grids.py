"""Images of any number of patches in a trace, one image for each run: its places, what its patches attend to, its
pixels without padding and the positions of its tokens, which models find out from the numbers of its grid.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, softmax
from torch.overrides import TorchFunctionMode

from sbertconv.source.transformers_compat import ADDS_AT_IMAGES, interpolation

GRID = "grid_thw"  # how the forward of an encoder of such images calls their grids
STRETCHES = "cu_seqlens"  # how its layers call the ends of the stretches of patches that attend to one another
POSITIONS = "get_rope_index"  # of a language model whose tokens have a time, a row and a column
IMAGE = 1  # the number of an image's tokens among the types of tokens


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


def token_positions(kinds: Tensor, grid: Tensor, merge: int) -> Tensor:
    """Time, row and column of each token around one image and in it: a text counts on behind the longer side of the
    image, as `get_rope_index` of transformers' models has it.

    Args:
        kinds: 1 for the tokens of the image, 0 for others, int64 [1, tokens].
        grid: frames, rows and columns of patches, int64 [1, 3].
        merge: how many on each side become a token together.

    Returns:
        int64 [3, 1, tokens].
    """
    inside = kinds == IMAGE
    seen = inside.to(torch.int64).cumsum(-1)
    sides = torch.div(grid[0, 1:], merge, rounding_mode="floor")
    begin = (seen == 0).to(torch.int64).sum()
    rows, columns = torch.div(seen - 1, sides[1], rounding_mode="floor"), torch.remainder(seen - 1, sides[1])
    image = torch.stack([torch.zeros_like(rows), rows, columns]) + begin
    text = torch.arange(kinds.shape[1]) - seen + torch.where(seen > 0, sides.max(), 0)
    return torch.where(inside, image, text)


def window_mask(places: Tensor, edge: int) -> Tensor:
    """Whether two patches are in the same window of an image: patches in the order of their windows, each window as a
    stretch of its own, give the same numbers in another order.

    Args:
        places: row and column of each patch, int64 [patches, 2].
        edge: patches on each side of a window.

    Returns:
        bool [patches, patches].
    """
    windows = torch.div(places, edge, rounding_mode="floor")
    return (windows.unsqueeze(0) == windows.unsqueeze(1)).all(-1)


class _OneImage(TorchFunctionMode):
    """A tensor split into one piece is that piece, patches chosen by a mask of one image are all of them, and attention
    is within windows where they are given, bool [patches, patches].
    """

    windows: Tensor | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.split and isinstance(args[1], list) and len(args[1]) == 1:
            return (args[0],)
        if function is Tensor.__getitem__ and _chooses_patches(*args):
            return args[0].flatten(0, 1)
        if self.windows is not None and function is scaled_dot_product_attention:
            kwargs = {**kwargs, "attn_mask": self.windows}
        if self.windows is not None and function is softmax:  # of attention that a model writes out
            args = (args[0].masked_fill(~self.windows, float("-inf")), *args[1:])
        return function(*args, **kwargs)


def _chooses_patches(values: Tensor, mask: Any) -> bool:
    is_mask = isinstance(mask, Tensor) and mask.dtype is torch.bool and mask.ndim == 2 and values.ndim == 3
    return is_mask and isinstance(values.shape[0], int) and values.shape[0] == 1


class _Encoder:
    """An encoder of images with what it finds out from a grid given to it, in place of its own."""

    def __init__(self, part: Any, mode: _OneImage) -> None:
        self.part = part
        self.mode = mode
        self.windows: tuple[Tensor, Tensor] | None = None  # their mark among a layer's arguments, and their mask

    def hooks(self) -> Iterator[Any]:
        """Hooks on the encoder, and on those of its layers that attend within windows or along the whole image."""
        yield self.part.register_forward_pre_hook(self.settled, with_kwargs=True)
        if hasattr(self.part, "window_size"):
            for layer in self.part.modules():
                if STRETCHES in inspect.signature(type(layer).forward).parameters:
                    yield layer.register_forward_pre_hook(self.attending, with_kwargs=True)
                    yield layer.register_forward_hook(self.attended)

    def settled(self, part: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The arguments of the encoder: its patches in a row, its places, and the stretch of its attention."""
        bound = inspect.signature(type(part).forward).bind_partial(part, *args, **kwargs)
        given = bound.arguments
        name = next(name for name, value in given.items() if isinstance(value, Tensor) and name != GRID)
        patches, merge = given[name].flatten(0, -2), part.spatial_merge_size
        places = grid_places(given[GRID], patches.shape[0], merge)
        given[name], found = patches, {"position_ids": places, STRETCHES: _stretch(patches)}
        if hasattr(part, "window_size"):
            mask = window_mask(places, part.window_size // merge // part.patch_size * merge)
            self.windows = (_stretch(patches), mask)
            order = torch.arange(patches.shape[0] // merge**2)
            found |= {"cu_window_seqlens": self.windows[0], "window_index": order}
        if hasattr(part, "interpolation_mode"):
            found |= interpolation(part, places, given[GRID])
        return bound.args[1:], {**bound.kwargs, **found}

    def attending(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A layer that is given the mark of the windows attends within them."""
        mark, mask = self.windows or (None, None)
        self.mode.windows = mask if kwargs[STRETCHES] is mark else None

    def attended(self, *_: Any) -> None:
        """No layer attends any more."""
        self.mode.windows = None


def _stretch(patches: Tensor) -> Tensor:
    """Both ends of all patches of an image, [patches, ...], as one stretch: int64 [2]."""
    count = torch.ones(patches.shape[0], dtype=torch.int64).sum()
    return torch.stack([torch.zeros_like(count), count])


def _positions(merge: int, input_ids: Tensor, mm_token_type_ids: Tensor, **options: Any) -> tuple[Tensor, None]:
    """The positions of tokens as a model asks for them, and nothing for tokens that it would write itself."""
    return token_positions(mm_token_type_ids, options["image_grid_thw"], merge), None


def added_at_images(states: Tensor, is_image: Tensor, features: Tensor) -> Tensor:
    """Hidden states, float32 [1, tokens, dim], with features, float32 [places, dim], added where an image stands, bool
    [1, tokens].
    """
    return states + torch.zeros_like(states).masked_scatter(is_image.unsqueeze(-1), features)


@contextlib.contextmanager
def traceable_grids(module: torch.nn.Module) -> Iterator[None]:
    """Encoders of images of any number of patches, and language models that read them, in the forms that one image for
    each run has.
    """
    owners = [
        part for part in module.modules()
        if hasattr(part, "spatial_merge_size") and GRID in inspect.signature(type(part).forward).parameters
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        mode = _OneImage()
        for owner in owners:
            for hook in _Encoder(owner, mode).hooks():
                stack.callback(hook.remove)
        for part in module.modules() if owners else ():
            if hasattr(part, POSITIONS):
                setattr(part, POSITIONS, partial(_positions, part.config.vision_config.spatial_merge_size))
                stack.callback(delattr, part, POSITIONS)
            if hasattr(part, ADDS_AT_IMAGES):
                setattr(part, ADDS_AT_IMAGES, added_at_images)
                stack.callback(delattr, part, ADDS_AT_IMAGES)
        if owners:
            stack.enter_context(mode)
        yield
