"""LogitScore: the last token's logit of one entry of the vocabulary, less that of another."""

from __future__ import annotations

import torch

from sbertconv.converters.causal import score_of_few
from sbertconv.plan.context import Context, Step


def convert_logit_score(module: torch.nn.Module, context: Context) -> Step:
    """The module's own forward, on the few logits that reach it."""
    step: Step = score_of_few(module, context)
    return step
