"""Settings of modules that no backend converts: said once, in the same words."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sbertconv.errors import UnsupportedOptionError

if TYPE_CHECKING:
    import torch

    from sbertconv.converters import Context


def check_transformer(module: torch.nn.Module, context: Context) -> None:
    """Raise UnsupportedOptionError if the module has no entry for the route's modality, or expands queries with mask
    tokens.
    """
    modalities = module.modality_config
    if context.modality not in modalities:
        raise UnsupportedOptionError(f"takes {', '.join(map(str, modalities))}, not {context.modality!r}")
    if module.query_expansion is not None:
        raise UnsupportedOptionError("query_expansion is not supported for sentence embeddings")


def pooling_modes(module: torch.nn.Module, known: Collection[str]) -> tuple[str, ...]:
    """The pooling modes in order.

    Raises:
        UnsupportedOptionError: for one that is not known.
    """
    modes = (module.pooling_mode,) if isinstance(module.pooling_mode, str) else tuple(module.pooling_mode)
    if unknown := [mode for mode in modes if mode not in known]:
        raise UnsupportedOptionError(
            f"pooling_mode={', '.join(map(repr, unknown))} is not known (have: {', '.join(sorted(known))})"
        )
    return modes


def check_static_embedding(module: torch.nn.Module) -> None:
    """Raise UnsupportedOptionError for an EmbeddingBag that does not take the mean."""
    if module.embedding.mode != "mean":
        raise UnsupportedOptionError(f"EmbeddingBag mode={module.embedding.mode!r} is not known (have: mean)")
