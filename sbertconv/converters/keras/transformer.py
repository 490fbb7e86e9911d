"""Transformer and CLIPModel: the transformers model, traced through the module's own forward."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.converters.checks import check_transformer
from sbertconv.errors import UnsupportedOptionError
from sbertconv.plan.context import Context
from sbertconv.source.routes import GROUPS

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_transformer(module: torch.nn.Module, context: Context) -> LayerStep:
    """The transformers model as one layer, its linears, embeddings, norms and dropouts under their own paths.

    Raises:
        UnsupportedOptionError: see `check_transformer`.
        UnsupportedModuleError: if it cannot be traced, or uses operations that the table does not have.
    """
    from sbertconv.converters.causal import FewLogits, entries_read
    from sbertconv.converters.keras.step import LayerStep
    from sbertconv.converters.keras.traced import traced_step

    check_transformer(module, context)
    if GROUPS in context.walk.route.inputs:
        raise UnsupportedOptionError("images as tokens of any number (have: the backends onnx and torch)")
    entries = entries_read(module, context)
    few = FewLogits(module, entries) if entries else None
    step = traced_step(module, context, inside="model.", by=few)
    return LayerStep(step.run, {"model.": step.state[""]})
