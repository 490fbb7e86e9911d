"""Dropout: a stock Dropout on the sentence embedding, active in `fit` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_dropout(module: torch.nn.Module, context: Context) -> LayerStep:
    """The same rate."""
    from keras import layers

    from sbertconv.converters.keras.step import layer_step

    return layer_step(layers.Dropout(module.dropout, name=context.name(module)), "sentence_embedding")
