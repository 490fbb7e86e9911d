"""HierarchicalTokenPooling: nothing in the graph; the run time clusters tokens, see `sbertconv.token_pooling`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.converters.checks import check_token_pooling
from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_token_pooling(module: torch.nn.Module, context: Context) -> LayerStep:
    """Raises UnsupportedOptionError if a module of another kind follows."""
    from sbertconv.converters.keras.step import LayerStep

    check_token_pooling(module, context)
    return LayerStep(lambda features: features)
