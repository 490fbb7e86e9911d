"""Private names of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PYTORCHS, CAUSAL_SKIP = "sdpa", "allow_is_causal_skip"  # an attention, and what leaves its mask out
CHOOSES_EXPERTS = "_can_set_experts_implementation"  # of models with a mixture of experts; others do not have it
ON_TORCHVISION, PILLOW = "TorchvisionBackend", "Pil"  # the base of image processors, and how the others' names end
RESIZES = "resize_positional_embeddings"  # of the embeddings of SigLIP 2 and of what has its image encoder


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
