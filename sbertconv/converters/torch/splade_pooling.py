"""SpladePooling: the logits of a masked language model [batch, sequence, vocabulary] to one weight per token of the
vocabulary.

The library takes log(1 + relu(x)) of every logit and pools then. The activation never falls where x rises, so the
maximum of it is that of the largest logit: `max` pools first, and all that follows is as small as the result.

The logits themselves would be the largest tensor of all. Where they are the result of a linear layer and nothing else,
that layer runs here, for some columns of the vocabulary at a time, each pooled before the next are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from sbertconv.converters.checks import splade_settings
from sbertconv.plan.context import Context, Features, Step

COLUMNS = 4096  # of the vocabulary at a time


def convert_splade_pooling(module: torch.nn.Module, context: Context) -> Step:
    """Both strategies with both activations; `chunk_size` changes the library's memory and not what it gives.

    Raises:
        UnsupportedOptionError: for a strategy or an activation that is not known.
    """
    before, _ = context.around(module)
    heads = [head for found in before[-1:] for head in getattr(context.convert(found), "heads", ())]
    return SpladePoolingStep(*splade_settings(module), *heads)


def head_to_pool(module: torch.nn.Module, context: Context) -> torch.nn.Linear | None:
    """The layer that gives a model's logits, if a SpladePooling comes next and nothing is done to them in between."""
    _, behind = context.around(module)
    if [context.registry.find(context.backend, found) for found in behind[:1]] != [convert_splade_pooling]:
        return None
    head = module.model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return None
    given: list[Any] = []
    hook = head.register_forward_hook(lambda layer, taken, result: given.append(result))
    try:
        with torch.no_grad():
            logits = module(context.walk.features(module)).get("token_embeddings")
    finally:
        hook.remove()
    return head if len(given) == 1 and given[0] is logits else None


class SpladePoolingStep(torch.nn.Module):
    """token_embeddings, attention_mask -> sentence_embedding [batch, vocabulary]; zeros for an empty text; and
    token_logits, a function that gives [batch, sequence, vocabulary].

    Args:
        pools_first: whether the maximum is taken, and not the sum.
        logarithms: how often log(1 + x) is taken.
        heads: the layer that makes logits of the token embeddings, unless they are that already.
    """

    def __init__(self, pools_first: bool, logarithms: int, *heads: torch.nn.Linear) -> None:
        super().__init__()
        self.pools_first = pools_first
        self.logarithms = logarithms
        self.heads = heads  # no weights of its own: they are the model's

    def forward(self, features: Features) -> Features:
        mask, tokens = features["attention_mask"].unsqueeze(-1), features["token_embeddings"]
        pooled = [self.pool(logits * mask.to(logits.dtype)) for logits in self.logits(tokens)]
        return {
            **features,
            "sentence_embedding": joined(pooled),
            "token_logits": lambda: joined(list(self.logits(tokens))),
        }

    def logits(self, tokens: Tensor) -> Iterator[Tensor]:
        """The logits of some columns at a time, or all as they are."""
        if not self.heads:
            yield tokens
        for head in self.heads:
            parts = [slice(start, start + COLUMNS) for start in range(0, head.out_features, COLUMNS)]
            for part in parts if len(parts) > 1 else [slice(None)]:
                yield linear(tokens, head.weight[part], None if head.bias is None else head.bias[part])

    def pool(self, logits: Tensor) -> Tensor:
        return self.activate(logits.amax(dim=1)) if self.pools_first else self.activate(logits).sum(dim=1)

    def activate(self, logits: Tensor) -> Tensor:
        weights = torch.relu(logits)
        for _ in range(self.logarithms):
            weights = torch.log1p(weights)
        return weights


def joined(parts: list[Tensor]) -> Tensor:
    """The columns of every part, one after the other."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
