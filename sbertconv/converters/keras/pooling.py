"""Pooling: all six modes, alone or concatenated, with or without the prompt's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.converters.checks import masks_tokens, pooling_modes
from sbertconv.plan.context import Context
from sbertconv.source.routes import MASK

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep

TAKES = ("token_embeddings", "attention_mask", "prompt_length", "token_weights_sum", "cls_token_embeddings")


def convert_pooling(module: torch.nn.Module, context: Context) -> LayerStep:
    """Raises UnsupportedOptionError for a pooling mode that is not in the table."""
    from sbertconv.converters.keras.step import features_step
    from sbertconv.layers import Pooling
    from sbertconv.layers.pooling import MODES

    layer = Pooling(pooling_modes(module, MODES), bool(module.include_prompt), name=context.name(module))
    taken = TAKES if masks_tokens(module, context) else tuple(name for name in TAKES if name != MASK)
    return features_step(layer, taken, "sentence_embedding")
