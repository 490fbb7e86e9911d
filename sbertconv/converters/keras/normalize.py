"""Normalize: a stock UnitNormalization, in float32 so that half precision still gives vectors of length 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_normalize(module: torch.nn.Module, context: Context) -> LayerStep:
    """Divides by the Euclidean length; zeros stay zeros."""
    from keras import layers

    from sbertconv.converters.keras.step import layer_step

    layer = layers.UnitNormalization(axis=-1, name=context.name(module), dtype="float32")
    return layer_step(layer, module.module_input_name, module.module_output_name)
