"""WordEmbeddings: one row of a table per word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_word_embeddings(module: torch.nn.Module, context: Context) -> LayerStep:
    """A stock Embedding, frozen where the module says that its table is not updated."""
    from keras import layers

    from sbertconv.converters.keras.step import layer_step
    from sbertconv.converters.keras.weights import build

    table = module.emb_layer
    layer = layers.Embedding(
        table.num_embeddings, table.embedding_dim, name=context.name(module), trainable=table.weight.requires_grad
    )
    build(layer, None, table.state_dict())
    return layer_step(layer, "input_ids", "token_embeddings", **{"emb_layer.": layer})
