"""Causal rerankers: of all the logits, only those of the last token that LogitScore reads."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch

from sbertconv.plan.context import Features

if TYPE_CHECKING:
    from sbertconv.plan.context import Context


def entries_read(module: torch.nn.Module, context: Context) -> list[int]:
    """The entries of the vocabulary that the route reads of a module's logits; none if it may read all of them.

    Args:
        module: a causal Transformer, or the LogitScore behind it.
        context: says what else is on the route.
    """
    from sentence_transformers.cross_encoder.modules import LogitScore

    for model, score in itertools.pairwise(context.modules):
        if module in (model, score) and type(score) is LogitScore and _has_head(model, score.module_input_name):
            return [entry for entry in (score.true_token_id, score.false_token_id) if entry is not None]
    return []


def _has_head(module: Any, feature: str) -> bool:
    """Whether a feature is what a plain linear layer makes of the hidden states, entry by entry."""
    model: Any = getattr(module, "model", None)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return type(head) is torch.nn.Linear and module.module_output_name == feature


class FewLogits(torch.nn.Module):
    """features -> causal_logits [batch, 1, entries]: the last token's. The head's other rows are not multiplied.

    The head stays as it is, and with it the name of its weight and what is tied to it.
    """

    def __init__(self, module: torch.nn.Module, entries: list[int]) -> None:
        super().__init__()
        self.model = module.model
        self.dispatch = module.forward
        self.entries = entries

    def forward(self, features: Features) -> Features:
        head: Any = self.model.get_output_embeddings()

        def few(hidden: torch.Tensor) -> torch.Tensor:
            rows = [
                torch.stack([tensor[entry] for entry in self.entries]) if tensor is not None else None
                for tensor in (head.weight, head.bias)
            ]
            return torch.nn.functional.linear(hidden, *rows)

        head.forward = few
        try:
            result: Features = self.dispatch({**features, "logits_to_keep": 1})
        finally:
            del head.forward
        return result


def score_of_few(module: Any, context: Context) -> Any:
    """LogitScore on the logits that `FewLogits` leaves, or the module itself where it reads all of them."""
    entries = entries_read(module, context)
    return type(module)(0, 1 if len(entries) > 1 else None, module.module_input_name) if entries else module
