"""Private names of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from sbertconv.frameworks import private

PYTORCHS, CAUSAL_SKIP = "sdpa", "allow_is_causal_skip"  # an attention, and what leaves its mask out
CHOOSES_EXPERTS = "_can_set_experts_implementation"  # of models with a mixture of experts; others do not have it
ON_TORCHVISION, PILLOW = "TorchvisionBackend", "Pil"  # the base of image processors, and how the others' names end
RESIZES = "resize_positional_embeddings"  # of the embeddings of SigLIP 2 and of what has its image encoder
ADDS_AT_IMAGES = "_deepstack_process"  # of language models that read features of an image after their first layers

# Module -> the function there that every chat template goes through
RENDERS = dict.fromkeys(("tokenization_utils_base", "processing_utils"), "render_jinja_template")
COMPILES = {"utils.chat_template_utils": "_compile_jinja_template"}


def templating(places: Mapping[str, str]) -> Iterator[tuple[Any, str]]:
    """The modules of transformers that compile or render chat templates, and their functions' names."""
    for place, name in places.items():
        module = import_module(f"transformers.{place}")
        private(module, name, "transformers")
        yield module, name


def chooses_experts(module: Any) -> bool:
    """Whether the way in which a model's experts are computed can be chosen."""
    return bool(getattr(module, CHOOSES_EXPERTS, bool)())


@contextmanager
def causal_masks_written_out(model: Any) -> Iterator[bool]:
    """In here, models of transformers have a causal mask as numbers, as they have it in a padded batch, also where
    nothing is padded: PyTorch's attention is else told in words that it is causal, or not told. Gives whether a model
    holds any model of transformers.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as MASKS

    own = MASKS[PYTORCHS]

    def written_out(*given: Any, **settings: Any) -> Any:
        return own(*given, **{**settings, CAUSAL_SKIP: False})

    MASKS[PYTORCHS] = written_out
    try:
        yield any(hasattr(part, "set_attn_implementation") for part in model.modules())
    finally:
        MASKS[PYTORCHS] = own


def on_pillow(processor: Any) -> Any | None:
    """The same image processor on Pillow, for one on torchvision of whose class transformers has that."""
    import transformers

    if not any(base.__name__ == ON_TORCHVISION for base in type(processor).__mro__):
        return None
    other = getattr(transformers, f"{type(processor).__name__}{PILLOW}", None)
    return None if other is None else other.from_dict(processor.to_dict())


def interpolation(encoder: Any, places: Any, grid: Any) -> dict[str, Any]:
    """How an encoder of images resizes its table of places to the grid of one image, which it asks for by these names.

    Args:
        encoder: has `num_grid_per_side`, `interpolation_mode` and `interpolation_align_corners`.
        places: row and column of each patch, int64 [patches, 2].
        grid: frames, rows and columns of patches, int64 [1, 3].

    Returns:
        interp_indices, int64 [patches, entries], which entries of the table make a place, and interp_weights, float32
        [patches, entries], how much of each is in it.
    """
    from transformers import vision_utils

    side, along = encoder.num_grid_per_side, private(vision_utils, "_interpolation_axis_taps_weights", "transformers")
    options = (side, encoder.interpolation_mode, encoder.interpolation_align_corners)
    (rows, of_rows), (columns, of_columns) = (along(places[:, axis], grid[0, axis + 1], *options) for axis in (0, 1))
    return {
        "interp_indices": (rows[:, :, None] * side + columns[:, None, :]).flatten(1),
        "interp_weights": (of_rows[:, :, None] * of_columns[:, None, :]).flatten(1),
    }
