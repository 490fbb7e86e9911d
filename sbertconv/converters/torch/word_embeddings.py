"""WordEmbeddings: one row of a table per word."""

from __future__ import annotations

import torch

from sbertconv.plan.context import Context, Features, Step


def convert_word_embeddings(module: torch.nn.Module, context: Context) -> Step:
    """A lookup; the sentence lengths that later modules want are the sums of the attention mask."""
    return WordEmbeddingsStep(module.emb_layer)


class WordEmbeddingsStep(torch.nn.Module):
    """input_ids [batch, sequence] -> token embeddings [batch, sequence, dim] and sentence lengths [batch]."""

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        super().__init__()
        self.emb_layer = embedding

    def forward(self, features: Features) -> Features:
        return {
            **features,
            "token_embeddings": self.emb_layer(features["input_ids"]),
            "sentence_lengths": features["attention_mask"].sum(dim=1),
        }
