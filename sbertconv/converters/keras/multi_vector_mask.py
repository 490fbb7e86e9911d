"""MultiVectorMask: the attention mask becomes the mask of the tokens that count in late interaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.artifact.scoring import IS_QUERY, ScoringRule
from sbertconv.converters.checks import check_tokens
from sbertconv.plan.context import Context
from sbertconv.source.st_compat import skipped_ids

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_multi_vector_mask(module: torch.nn.Module, context: Context) -> LayerStep:
    """Raises UnsupportedOptionError: see `check_tokens`."""
    from sbertconv.converters.keras.step import features_step
    from sbertconv.layers import MultiVectorMask

    check_tokens(context)
    rule = ScoringRule.of(module, context.modules, skipped_ids(module))
    layer = MultiVectorMask(**vars(rule), name=context.name(module))
    takes = ("input_ids", "attention_mask", *([IS_QUERY] if rule.tells_queries else []))
    return features_step(layer, takes, "attention_mask")
