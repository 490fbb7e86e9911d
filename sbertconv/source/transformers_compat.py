"""Private names of transformers."""

from __future__ import annotations

from typing import Any

CHOOSES_EXPERTS = "_can_set_experts_implementation"  # of models with a mixture of experts; others do not have it
RESIZES = "resize_positional_embeddings"  # of the embeddings of SigLIP 2 and of what has its image encoder


def chooses_experts(module: Any) -> bool:
    """Whether the way in which a model's experts are computed can be chosen."""
    return bool(getattr(module, CHOOSES_EXPERTS, bool)())
