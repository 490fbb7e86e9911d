"""LogitScore: the last token's logit of one entry of the vocabulary, less that of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_logit_score(module: torch.nn.Module, context: Context) -> LayerStep:
    """The module's own forward, traced on the few logits that reach it."""
    from sbertconv.converters.causal import entries_read, score_of_few
    from sbertconv.converters.keras.step import LayerStep, features_step
    from sbertconv.converters.keras.tracing import traced_layer

    name = module.module_input_name
    logits = context.walk.features(module)[name]
    if entries := entries_read(module, context):
        logits = logits[:, -1:, : len(entries)].clone()  # a view would be guarded by what it is of
    layer = traced_layer(score_of_few(module, context), {name: logits}, context.name(module), "module.", {})
    step = features_step(layer, (name,))
    return LayerStep(step.run)
