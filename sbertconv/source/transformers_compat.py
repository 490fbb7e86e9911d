"""Private names of transformers."""

from __future__ import annotations

from typing import Any

CHOOSES_EXPERTS = "_can_set_experts_implementation"  # of models with a mixture of experts; others do not have it
ON_TORCHVISION, PILLOW = "TorchvisionBackend", "Pil"  # the base of image processors, and how the others' names end
RESIZES = "resize_positional_embeddings"  # of the embeddings of SigLIP 2 and of what has its image encoder


def chooses_experts(module: Any) -> bool:
    """Whether the way in which a model's experts are computed can be chosen."""
    return bool(getattr(module, CHOOSES_EXPERTS, bool)())


def on_pillow(processor: Any) -> Any | None:
    """The same image processor on Pillow, for one on torchvision of whose class transformers has that."""
    import transformers

    if not any(base.__name__ == ON_TORCHVISION for base in type(processor).__mro__):
        return None
    other = getattr(transformers, f"{type(processor).__name__}{PILLOW}", None)
    return None if other is None else other.from_dict(processor.to_dict())
