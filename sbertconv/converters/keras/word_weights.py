"""WordWeights: token embeddings times the weights of their words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_word_weights(module: torch.nn.Module, context: Context) -> LayerStep:
    """Token embeddings times their words' weights, and the sum of these weights."""
    from sbertconv.converters.keras.step import features_step
    from sbertconv.converters.keras.weights import assign
    from sbertconv.layers import WordWeights

    layer = WordWeights(module.emb_layer.num_embeddings, name=context.name(module))
    layer.build()
    assign(layer, module.state_dict())
    return features_step(layer, ("input_ids", "attention_mask", "token_embeddings"), **{"": layer})
