"""BoW: the weight of every word of the vocabulary that a text has, once or as often as it has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_bow(module: torch.nn.Module, context: Context) -> LayerStep:
    """Counting happens in the model: word ids in, weighted counts out."""
    from sbertconv.converters.keras.step import features_step
    from sbertconv.layers import BoW

    layer = BoW(len(module.weights), bool(module.cumulative_term_frequency), name=context.name(module))
    layer.build()
    layer.word_weights.assign(module.weights)
    return features_step(layer, ("input_ids", "attention_mask"), "sentence_embedding")
