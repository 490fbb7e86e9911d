"""LayerNorm: a stock LayerNormalization on the sentence embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_layer_norm(module: torch.nn.Module, context: Context) -> LayerStep:
    """Scale, shift and epsilon as in PyTorch."""
    from keras import layers

    from sbertconv.converters.keras.step import layer_step
    from sbertconv.converters.keras.weights import build

    layer = layers.LayerNormalization(epsilon=module.norm.eps, name=context.name(module))
    build(layer, (None, module.dimension), module.norm.state_dict())
    return layer_step(layer, "sentence_embedding", **{"norm.": layer})
