"""CNN: convolutions of several widths over the token embeddings, channels concatenated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_cnn(module: torch.nn.Module, context: Context) -> LayerStep:
    """One stock Conv1D per width; a mask that no longer fits the shorter sequence is replaced."""
    from sbertconv.converters.keras.step import features_step
    from sbertconv.converters.keras.weights import assign
    from sbertconv.layers import CNN

    layer = CNN(
        module.out_channels, module.kernel_sizes, module.stride_sizes, module.in_embedding_dimension,
        name=context.name(module),
    )  # fmt: skip
    layer.build()
    assign(layer, module.state_dict())
    return features_step(layer, ("token_embeddings", "attention_mask"), **{"": layer})
