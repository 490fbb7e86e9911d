"""Pooling: token embeddings [batch, sequence, dim] and the attention mask to [batch, modes * dim].

The same arithmetic as `sentence_transformers...modules.pooling.Pooling._forward_padded`, written so that
every operation has an ONNX Runtime kernel (no int64 ArgMax, no boolean Where) and no shape is guarded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sbertconv.converters.checks import masks_tokens, pooling_modes
from sbertconv.plan.context import Context, Features, Step

SMALLEST_WEIGHT = 1e-9  # the library's own guard against an empty text


@dataclass(frozen=True)
class Tokens:
    """What every pooling mode reads: token embeddings [batch, sequence, dim], the mask of the tokens that
    count [batch, sequence], the attention mask with the prompt still in it, and the sum of WordWeights.
    """

    embeddings: Tensor
    mask: Tensor
    attention_mask: Tensor
    weights_sum: Tensor | None

    @property
    def weights(self) -> Tensor:
        return self.mask.unsqueeze(-1).to(self.embeddings.dtype)

    def divisor(self, weights: Tensor) -> Tensor:
        total = weights.sum(dim=1) if self.weights_sum is None else self.weights_sum.unsqueeze(-1)
        return torch.clamp(total, min=SMALLEST_WEIGHT)

    def at(self, index: Tensor) -> Tensor:
        """The embedding of one token of each row: index [batch] -> [batch, dim]."""
        picked = index.view(-1, 1, 1).expand(-1, 1, self.embeddings.shape[-1])
        return torch.gather(self.embeddings, 1, picked).squeeze(1)


def positions(mask: Tensor) -> Tensor:
    """0, 1, 2, ... along the sequence: [1, sequence]."""
    return torch.arange(mask.shape[1], device=mask.device).unsqueeze(0)


def first_token(mask: Tensor) -> Tensor:
    """The position of each row's first unmasked token, 0 for a row without any: [batch]."""
    return mask.to(torch.int32).argmax(dim=1)


def pool_mean(tokens: Tokens) -> Tensor:
    return (tokens.embeddings * tokens.weights).sum(dim=1) / tokens.divisor(tokens.weights)


def pool_mean_sqrt_len(tokens: Tokens) -> Tensor:
    return (tokens.embeddings * tokens.weights).sum(dim=1) / torch.sqrt(tokens.divisor(tokens.weights))


def pool_weightedmean(tokens: Tokens) -> Tensor:
    """Weights 1, 2, 3, ... from the first token of the text, prompt included."""
    ranks = positions(tokens.mask) + 1 - first_token(tokens.attention_mask).unsqueeze(-1)
    weights = tokens.weights * ranks.unsqueeze(-1).to(tokens.embeddings.dtype)
    return (tokens.embeddings * weights).sum(dim=1) / tokens.divisor(weights)


def pool_max(tokens: Tokens) -> Tensor:
    return tokens.embeddings.masked_fill(tokens.weights == 0, float("-inf")).max(dim=1).values


def pool_cls(tokens: Tokens) -> Tensor:
    return tokens.at(first_token(tokens.mask).to(torch.int64))


def pool_lasttoken(tokens: Tokens) -> Tensor:
    """Zeros for a row without any token, as in the library."""
    last = (positions(tokens.mask) * tokens.mask).max(dim=1).values
    return tokens.at(last) * tokens.mask.max(dim=1).values.unsqueeze(-1)


MODES: dict[str, Callable[[Tokens], Tensor]] = {
    "cls": pool_cls,
    "lasttoken": pool_lasttoken,
    "max": pool_max,
    "mean": pool_mean,
    "mean_sqrt_len_tokens": pool_mean_sqrt_len,
    "weightedmean": pool_weightedmean,
}


def convert_pooling(module: torch.nn.Module, context: Context) -> Step:
    """All six modes, alone or concatenated, with or without the prompt's tokens.

    Raises:
        UnsupportedOptionError: for a pooling mode that is not in the table.
    """
    return PoolingStep(pooling_modes(module, MODES), bool(module.include_prompt), masks_tokens(module, context))


class PoolingStep(torch.nn.Module):
    """With include_prompt=False, as many tokens as "prompt_length" [batch] do not count, where features hold that: the
    library counts the prompt of a Transformer alone, and of no image. With masked=False all tokens count.
    """

    def __init__(self, modes: tuple[str, ...], include_prompt: bool, masked: bool = True) -> None:
        super().__init__()
        self.modes = modes
        self.include_prompt = include_prompt
        self.masked = masked

    def forward(self, features: Features) -> Features:
        embeddings = features["token_embeddings"]
        attention_mask = features.get("attention_mask") if self.masked else None
        if attention_mask is None:  # images have no padding
            attention_mask = torch.ones_like(embeddings[..., 0], dtype=torch.int64)
        mask = attention_mask
        if not self.include_prompt and "prompt_length" in features:
            start = first_token(attention_mask).to(torch.int64) + features["prompt_length"]
            mask = attention_mask * (positions(mask) >= start.unsqueeze(-1)).to(attention_mask.dtype)
        tokens = Tokens(embeddings, mask, attention_mask, features.get("token_weights_sum"))
        pooled = [
            features["cls_token_embeddings"]
            if mode == "cls" and features.get("cls_token_embeddings") is not None
            else MODES[mode](tokens)
            for mode in self.modes
        ]
        return {**features, "sentence_embedding": torch.cat(pooled, dim=-1)}
