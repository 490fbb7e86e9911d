"""SpladePooling: the logits of a masked language model [batch, sequence, vocabulary] to one weight per token of the
vocabulary.

The library takes log(1 + relu(x)) of every logit and pools then. The activation never falls where x rises, so the
maximum of it is that of the largest logit: `max` pools first, and all that follows is as small as the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbertconv.converters import Context, Features, Step
from sbertconv.converters.checks import splade_settings


def convert_splade_pooling(module: torch.nn.Module, context: Context) -> Step:
    """Both strategies with both activations; `chunk_size` changes the library's memory and not what it gives.

    Raises:
        UnsupportedOptionError: for a strategy or an activation that is not known.
    """
    return SpladePoolingStep(*splade_settings(module))


class SpladePoolingStep(torch.nn.Module):
    """token_embeddings (logits), attention_mask -> sentence_embedding [batch, vocabulary]; zeros for an empty text.

    Args:
        pools_first: whether the maximum is taken, and not the sum.
        logarithms: how often log(1 + x) is taken.
    """

    def __init__(self, pools_first: bool, logarithms: int) -> None:
        super().__init__()
        self.pools_first = pools_first
        self.logarithms = logarithms

    def forward(self, features: Features) -> Features:
        logits = features["token_embeddings"]
        logits = logits * features["attention_mask"].unsqueeze(-1).to(logits.dtype)
        pooled = self.activate(logits.amax(dim=1)) if self.pools_first else self.activate(logits).sum(dim=1)
        return {**features, "sentence_embedding": pooled}

    def activate(self, logits: Tensor) -> Tensor:
        weights = torch.relu(logits)
        for _ in range(self.logarithms):
            weights = torch.log1p(weights)
        return weights
