"""BoW: the weight of every word of the vocabulary that a text has, once or as often as it has it."""

from __future__ import annotations

import torch

from sbertconv.plan.context import Context, Features, Step


def convert_bow(module: torch.nn.Module, context: Context) -> Step:
    """Counting happens in the graph: word ids in, weighted counts out.

    The library counts in its tokenizer and has an identity for forward.
    """
    return BoWStep(torch.tensor(module.weights, dtype=torch.float32), bool(module.cumulative_term_frequency))


class BoWStep(torch.nn.Module):
    """input_ids, attention_mask [batch, sequence] -> sentence_embedding [batch, vocabulary]."""

    def __init__(self, weights: torch.Tensor, cumulative: bool) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)  # a setting, not a weight
        self.cumulative = cumulative

    def forward(self, features: Features) -> Features:
        ids, mask = features["input_ids"], features["attention_mask"].to(self.weights.dtype)
        counts = self.weights.new_zeros(ids.shape[0], self.weights.shape[0])
        counts = counts.scatter_add(1, ids, mask)
        if not self.cumulative:
            counts = torch.clamp(counts, max=1)
        return {**features, "sentence_embedding": counts * self.weights}
