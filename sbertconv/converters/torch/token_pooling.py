"""HierarchicalTokenPooling: nothing in the graph; the run time clusters tokens, see `sbertconv.token_pooling`."""

from __future__ import annotations

import torch

from sbertconv.converters.checks import check_token_pooling
from sbertconv.plan.context import Context, Step


def convert_token_pooling(module: torch.nn.Module, context: Context) -> Step:
    """Raises UnsupportedOptionError if a module of another kind follows."""
    check_token_pooling(module, context)
    step: Step = torch.nn.Identity()
    return step
