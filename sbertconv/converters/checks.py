"""Settings of modules that no backend converts: said once, in the same words."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sbertconv.errors import UnsupportedOptionError
from sbertconv.plan.examples import other_example
from sbertconv.source.routes import GROUPS, MASK

if TYPE_CHECKING:
    import torch

    from sbertconv.plan.context import Context


def check_transformer(module: torch.nn.Module, context: Context) -> None:
    """Raise UnsupportedOptionError if the module has no entry for the route's modality, or expands queries in a way
    that cannot be the same for every batch or that nothing scores.
    """
    modalities = module.modality_config
    if context.modality not in modalities:
        raise UnsupportedOptionError(f"takes {', '.join(map(str, modalities))}, not {context.modality!r}")
    if module.query_expansion is None:
        return
    if context.modality != "text":
        raise UnsupportedOptionError(f"query_expansion beside the modality {context.modality!r}")
    if not context.walk.route.scoring_rules:
        raise UnsupportedOptionError("query_expansion without a MultiVectorMask behind it, which scores the tokens")
    if module.query_expansion["strategy"] == "min" and module.tokenizer.padding_side == "left":
        raise UnsupportedOptionError(
            "query_expansion of strategy 'min' with padding on the left: how far a query is expanded depends on the "
            "longest of its batch; choose the strategy 'fixed'"
        )


def check_tokens(context: Context) -> None:
    """Raise UnsupportedOptionError on a route whose tokens have no ids, such as the patches of an image alone."""
    if context.modality != "text" and "input_ids" not in context.walk.route.tokens:
        raise UnsupportedOptionError(f"takes tokens that have ids, not {context.modality!r}")
    route = context.walk.route
    if GROUPS in route.inputs and any(rule.tells_queries for rule in route.scoring_rules):
        raise UnsupportedOptionError("other tokens that count in queries than in documents, of images of any size")


def check_token_pooling(module: torch.nn.Module, context: Context) -> None:
    """Raise UnsupportedOptionError if a module of another kind follows: what pools tokens is the run time, after the
    graph.
    """
    _, behind = context.around(module)
    if others := [type(found).__name__ for found in behind if type(found) is not type(module)]:
        raise UnsupportedOptionError(f"{', '.join(others)} behind it; only as the last module it can be converted")


def masks_tokens(module: torch.nn.Module, context: Context) -> bool:
    """Whether the attention mask is that of the tokens that reach a module. An adapter makes fewer of the rows of a
    sound, all of which count then, in the library too.
    """
    if context.modality != "audio" or MASK not in context.walk.route.inputs:
        return True
    import torch

    before, _ = context.around(module)
    # Of another length than the example, because what a model keeps for a length would be a constant of its trace
    features = other_example(context.walk.route, beyond=1)
    with torch.no_grad():
        for one in before:
            features = one({**features, "modality": context.modality})
    return bool(features[MASK].shape[1] == features["token_embeddings"].shape[1])


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
