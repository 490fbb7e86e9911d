"""SparseStaticEmbedding: the weight of every token of the vocabulary that a text has."""

from __future__ import annotations

import torch

from sbertconv.converters.torch.pooling import positions
from sbertconv.plan.context import Context, Features, Step


def convert_sparse_static_embedding(module: torch.nn.Module, context: Context) -> Step:
    """Presence is counted, because graphs leave open which of several writes to one place stays."""
    return SparseStaticEmbeddingStep(module.weight)


class SparseStaticEmbeddingStep(torch.nn.Module):
    """input_ids, attention_mask [batch, sequence] -> sentence_embedding [batch, vocabulary], times the one that is
    there already.

    The library writes each token's mask to its place, so that the last one stays: padding behind a text takes a
    padding token away that is written out in the text.
    """

    def __init__(self, weight: torch.nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, features: Features) -> Features:
        ids, mask = features["input_ids"], features["attention_mask"]
        places = positions(mask)
        behind = (1 - mask) * (places > (places * mask).max(dim=1, keepdim=True).values).to(mask.dtype)
        embedding = self.present(ids, mask) * (1 - self.present(ids, behind)) * self.weight
        if "sentence_embedding" in features:
            embedding = embedding * features["sentence_embedding"]
        return {**features, "sentence_embedding": embedding}

    def present(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """1 for every token that is there where the mask is 1: [batch, vocabulary]."""
        counts = self.weight.new_zeros(ids.shape[0], self.weight.shape[0])
        return torch.clamp(counts.scatter_add(1, ids, mask.to(self.weight.dtype)), max=1)
