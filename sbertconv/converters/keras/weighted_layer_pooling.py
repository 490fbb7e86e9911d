"""WeightedLayerPooling: the weighted mean of the hidden states from one layer on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_weighted_layer_pooling(module: torch.nn.Module, context: Context) -> LayerStep:
    """Does nothing where the Transformer gives no hidden states, as in sentence-transformers."""
    from sbertconv.converters.keras.step import layer_step
    from sbertconv.converters.keras.weights import assign
    from sbertconv.layers import WeightedLayerPooling

    start = module.layer_start
    layer = WeightedLayerPooling(start, start + len(module.layer_weights), name=context.name(module))
    layer.build()
    assign(layer, {"layer_weights": module.layer_weights})
    return layer_step(layer, "all_layer_embeddings", "token_embeddings", **{"": layer})
