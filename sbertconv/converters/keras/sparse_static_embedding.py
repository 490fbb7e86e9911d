"""SparseStaticEmbedding: the weight of every token of the vocabulary that a text has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_sparse_static_embedding(module: torch.nn.Module, context: Context) -> LayerStep:
    """Weights that are frozen there do not train here."""
    from sbertconv.converters.keras.step import features_step
    from sbertconv.converters.keras.weights import assign
    from sbertconv.layers import SparseStaticEmbedding

    layer = SparseStaticEmbedding(module.num_dimensions, bool(module.frozen), name=context.name(module))
    layer.build()
    assign(layer, module.state_dict())
    return features_step(
        layer, ("input_ids", "attention_mask", "sentence_embedding"), "sentence_embedding", **{"": layer}
    )
