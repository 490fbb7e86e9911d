"""Settings of modules that no backend converts: said once, in the same words."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sbertconv.errors import UnsupportedOptionError

if TYPE_CHECKING:
    import torch

    from sbertconv.converters import Context


def check_transformer(module: torch.nn.Module, context: Context) -> None:
    """Raise UnsupportedOptionError if the module has no entry for the route's modality, renders texts through a
    chat template, or expands queries with mask tokens.
    """
    modalities = module.modality_config
    if context.modality not in modalities:
        raise UnsupportedOptionError(f"takes {', '.join(map(str, modalities))}, not {context.modality!r}")
    if context.modality == "text" and "message" in modalities:
        raise UnsupportedOptionError(
            "renders texts through the tokenizer's chat template, which an artifact cannot do; "
            "save the model with modality_config={'text': ...} if plain texts are meant"
        )
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


LOGARITHMS = {"relu": 1, "log1p_relu": 2}  # SpladePooling's activations -> how often log(1 + x) is taken


def splade_settings(module: torch.nn.Module) -> tuple[bool, int]:
    """Whether the largest logit is taken and not the sum, and how often its logarithm.

    Raises:
        UnsupportedOptionError: for a strategy or an activation that is not known.
    """
    for name, known in (("pooling_strategy", ("max", "sum")), ("activation_function", tuple(LOGARITHMS))):
        if (value := getattr(module, name)) not in known:
            raise UnsupportedOptionError(f"{name}={value!r} is not known (have: {', '.join(known)})")
    return module.pooling_strategy == "max", LOGARITHMS[module.activation_function]


def active_latents(module: torch.nn.Module, context: Context) -> int:
    """How many latents of a SparseAutoEncoder stay: the model's `max_active_dims`, or the module's own k.

    Raises:
        UnsupportedOptionError: if it has fewer.
    """
    limit = getattr(context.walk.model, "max_active_dims", None)
    k = int(module.k if limit is None else limit)
    if not 0 < k <= module.hidden_dim:
        raise UnsupportedOptionError(f"{k} active dimensions of {module.hidden_dim}")
    return k
