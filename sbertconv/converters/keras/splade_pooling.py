"""SpladePooling: the logits of a masked language model to one weight per token of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.converters.checks import splade_settings
from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_splade_pooling(module: torch.nn.Module, context: Context) -> LayerStep:
    """Raises UnsupportedOptionError for a strategy or an activation that is not known."""
    from sbertconv.converters.keras.step import features_step
    from sbertconv.layers import SpladePooling

    layer = SpladePooling(*splade_settings(module), name=context.name(module))
    return features_step(layer, ("token_embeddings", "attention_mask"), "sentence_embedding")
