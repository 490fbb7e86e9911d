"""LSTM: PyTorch's gates and packing, one recurrent layer per direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_lstm(module: torch.nn.Module, context: Context) -> LayerStep:
    """Layers, directions and the dropout between layers as in the module."""
    from sbertconv.converters.keras.step import features_step
    from sbertconv.converters.keras.weights import assign
    from sbertconv.layers import LSTM

    lstm = module.encoder
    layer = LSTM(
        lstm.input_size, lstm.hidden_size, lstm.num_layers, lstm.bidirectional, lstm.dropout,
        name=context.name(module),
    )  # fmt: skip
    layer.build()
    assign(layer, module.state_dict())
    return features_step(layer, ("token_embeddings", "attention_mask"), "token_embeddings", **{"": layer})
