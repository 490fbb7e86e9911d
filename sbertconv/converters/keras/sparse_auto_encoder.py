"""SparseAutoEncoder: the k largest latents of an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.converters.checks import active_latents
from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_sparse_auto_encoder(module: torch.nn.Module, context: Context) -> LayerStep:
    """The encoder alone: the decoder and the auxiliary latents belong to the library's loss."""
    from sbertconv.converters.keras.step import layer_step
    from sbertconv.converters.keras.weights import assign
    from sbertconv.layers import SparseAutoEncoder

    layer = SparseAutoEncoder(
        module.input_dim,
        module.hidden_dim,
        active_latents(module, context),
        bool(module.normalize),
        name=context.name(module),
    )
    layer.build()
    assign(layer, module.state_dict())
    return layer_step(layer, "sentence_embedding", **{"": layer})
