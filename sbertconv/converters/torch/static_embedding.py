"""StaticEmbedding: the mean of the token embeddings, as a lookup and a masked mean.

The library passes a flat list of ids with offsets to an EmbeddingBag. The graph takes the padded
`input_ids` and `attention_mask` that every other model takes and every tokenizer emits.
"""

from __future__ import annotations

import torch

from sbertconv.converters.checks import check_static_embedding
from sbertconv.plan.context import Context, Features, Step


def convert_static_embedding(module: torch.nn.Module, context: Context) -> Step:
    """Raises UnsupportedOptionError for an EmbeddingBag that does not take the mean."""
    check_static_embedding(module)
    return StaticEmbeddingStep(module.embedding)


class StaticEmbeddingStep(torch.nn.Module):
    """input_ids, attention_mask [batch, sequence] -> sentence_embedding [batch, dim]; zeros for an empty text."""

    def __init__(self, bag: torch.nn.EmbeddingBag) -> None:
        super().__init__()
        self.embedding = bag

    def forward(self, features: Features) -> Features:
        weight = self.embedding.weight
        mask = features["attention_mask"].unsqueeze(-1).to(weight.dtype)
        summed = (torch.nn.functional.embedding(features["input_ids"], weight) * mask).sum(dim=1)
        return {**features, "sentence_embedding": summed / torch.clamp(mask.sum(dim=1), min=1)}
