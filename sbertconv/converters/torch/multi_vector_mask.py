"""MultiVectorMask: the attention mask becomes the mask of the tokens that count in late interaction.

The arithmetic of `sentence_transformers...multi_vector_mask.MultiVectorMask.forward`, with the task as a tensor: one
graph serves queries and documents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sbertconv.artifact.scoring import IS_QUERY, ScoringRule
from sbertconv.converters.checks import check_tokens
from sbertconv.plan.context import Context, Features, Step
from sbertconv.source.st_compat import skipped_ids


def convert_multi_vector_mask(module: torch.nn.Module, context: Context) -> Step:
    """Raises UnsupportedOptionError: see `check_tokens`."""
    check_tokens(context)
    return MultiVectorMaskStep(ScoringRule.of(module, context.modules, skipped_ids(module)))


class MultiVectorMaskStep(torch.nn.Module):
    """input_ids, attention_mask [batch, sequence] and, where the rule tells queries from documents, is_query [batch]
    -> attention_mask of the same dtype.
    """

    def __init__(self, rule: ScoringRule) -> None:
        super().__init__()
        self.rule = rule
        self.register_buffer("skipped", torch.tensor(rule.skipped, dtype=torch.int64), persistent=False)
        self.register_buffer("kept", torch.tensor(rule.kept, dtype=torch.int64), persistent=False)

    def forward(self, features: Features) -> Features:
        rule, ids, attention = self.rule, features["input_ids"], features["attention_mask"]
        mask = attention != 0
        query: Any = features[IS_QUERY].unsqueeze(-1) != 0 if rule.tells_queries else None
        if rule.expanded:
            places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
            mask = mask | (query & (places < rule.expanded))
        if rule.skipped:
            skipped = among(ids, self.skipped)
            if len(rule.skipping) == 1:
                skipped = skipped & (query if "query" in rule.skipping else ~query)
            mask = mask & ~skipped
        if rule.kept:
            mask = mask & (among(ids, self.kept) | query)
        return {**features, "attention_mask": mask.to(attention.dtype)}


def among(ids: Tensor, chosen: Tensor) -> Tensor:
    """Whether an id is one of a list: int64 [batch, sequence], [n] -> bool [batch, sequence]."""
    return (ids.unsqueeze(-1) == chosen).any(dim=-1)
