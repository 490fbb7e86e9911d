"""StaticEmbedding: the mean of the token embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.converters.checks import check_static_embedding
from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_static_embedding(module: torch.nn.Module, context: Context) -> LayerStep:
    """Raises UnsupportedOptionError for an EmbeddingBag that does not take the mean."""
    from sbertconv.converters.keras.step import features_step
    from sbertconv.converters.keras.weights import assign
    from sbertconv.layers import StaticEmbedding

    check_static_embedding(module)
    layer = StaticEmbedding(module.num_embeddings, module.embedding_dim, name=context.name(module))
    layer.build()
    assign(layer, module.state_dict())
    return features_step(layer, ("input_ids", "attention_mask"), "sentence_embedding", **{"": layer})
