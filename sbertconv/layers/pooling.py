"""Pooling: token embeddings [batch, sequence, dim] and the attention mask to [batch, modes * dim].

The arithmetic of `sentence_transformers...modules.pooling.Pooling`, in float32 whatever the model's policy: sums
over hundreds of tokens lose too much in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

SMALLEST_WEIGHT = 1e-9  # the library's own guard against an empty text
Tensor = Any


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
        return ops.cast(ops.expand_dims(self.mask, -1), "float32")

    def divisor(self, weights: Tensor) -> Tensor:
        total = ops.sum(weights, axis=1) if self.weights_sum is None else ops.expand_dims(self.weights_sum, -1)
        return ops.maximum(total, SMALLEST_WEIGHT)

    def sum(self, weights: Tensor) -> Tensor:
        return ops.sum(self.embeddings * weights, axis=1)

    def at(self, index: Tensor) -> Tensor:
        """The embedding of one token of each row: index [batch] -> [batch, dim]."""
        chosen = ops.equal(positions(self.mask), ops.expand_dims(index, -1))
        return self.sum(ops.cast(ops.expand_dims(chosen, -1), "float32"))


def positions(mask: Tensor) -> Tensor:
    """0, 1, 2, ... along the sequence: [1, sequence]."""
    return ops.expand_dims(ops.arange(ops.shape(mask)[1], dtype="int32"), 0)


def first_token(mask: Tensor) -> Tensor:
    """The position of each row's first unmasked token, 0 for a row without any: [batch]."""
    return ops.cast(ops.argmax(mask, axis=1), "int32")


def pool_mean(tokens: Tokens) -> Tensor:
    return tokens.sum(tokens.weights) / tokens.divisor(tokens.weights)


def pool_mean_sqrt_len(tokens: Tokens) -> Tensor:
    return tokens.sum(tokens.weights) / ops.sqrt(tokens.divisor(tokens.weights))


def pool_weightedmean(tokens: Tokens) -> Tensor:
    """Weights 1, 2, 3, ... from the first token of the text, prompt included."""
    ranks = positions(tokens.mask) + 1 - ops.expand_dims(first_token(tokens.attention_mask), -1)
    weights = tokens.weights * ops.cast(ops.expand_dims(ranks, -1), "float32")
    return tokens.sum(weights) / tokens.divisor(weights)


def pool_max(tokens: Tokens) -> Tensor:
    return ops.max(ops.where(tokens.weights > 0, tokens.embeddings, float("-inf")), axis=1)


def pool_cls(tokens: Tokens) -> Tensor:
    return tokens.at(first_token(tokens.mask))


def pool_lasttoken(tokens: Tokens) -> Tensor:
    """Zeros for a row without any token, as in the library."""
    last = ops.max(positions(tokens.mask) * tokens.mask, axis=1)
    return tokens.at(last) * ops.cast(ops.max(tokens.mask, axis=1, keepdims=True), "float32")


MODES: dict[str, Callable[[Tokens], Tensor]] = {
    "cls": pool_cls,
    "lasttoken": pool_lasttoken,
    "max": pool_max,
    "mean": pool_mean,
    "mean_sqrt_len_tokens": pool_mean_sqrt_len,
    "weightedmean": pool_weightedmean,
}


@keras.saving.register_keras_serializable("sbertconv")
class Pooling(keras.layers.Layer):
    """All pooling modes, alone or concatenated.

    Args:
        modes: names of pooling modes, in the order of their parts in the result.
        include_prompt: False: the first "prompt_length" tokens of each row do not count, where that is given.

    Input: a dict with "token_embeddings" [batch, sequence, dim] and, where the model has them,
    "attention_mask" [batch, sequence], "prompt_length" [batch], "token_weights_sum" [batch] and
    "cls_token_embeddings" [batch, dim]. Output: float32 [batch, modes * dim].
    """

    def __init__(self, modes: Sequence[str], include_prompt: bool = True, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.modes = tuple(modes)
        self.include_prompt = include_prompt

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        embeddings = inputs["token_embeddings"]
        attention_mask = inputs.get("attention_mask")
        if attention_mask is None:  # images have no padding
            attention_mask = ops.ones_like(embeddings[..., 0], dtype="int32")
        mask = ops.cast(attention_mask, "int32")
        if not self.include_prompt and "prompt_length" in inputs:
            start = first_token(mask) + ops.cast(inputs["prompt_length"], "int32")
            mask = mask * ops.cast(positions(mask) >= ops.expand_dims(start, -1), "int32")
        tokens = Tokens(embeddings, mask, ops.cast(attention_mask, "int32"), inputs.get("token_weights_sum"))
        pooled = [
            inputs["cls_token_embeddings"]
            if mode == "cls" and "cls_token_embeddings" in inputs
            else MODES[mode](tokens)
            for mode in self.modes
        ]
        return pooled[0] if len(pooled) == 1 else ops.concatenate(pooled, axis=-1)

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> Tensor:
        batch, _, dim = inputs["token_embeddings"].shape
        return keras.KerasTensor((batch, dim * len(self.modes)), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "modes": list(self.modes), "include_prompt": self.include_prompt}
