"""Late interaction: the mask of the tokens that count, and MaxSim scores to train with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from sbertconv.artifact.scoring import IS_QUERY, ScoringRule

LOWEST = -1e9  # below any similarity
Tensor = Any


@keras.saving.register_keras_serializable("sbertconv")
class MultiVectorMask(keras.layers.Layer):
    """Which tokens count, as `sentence_transformers`' MultiVectorMask has it; the arguments are those of
    `sbertconv.scoring.ScoringRule`.

    Input: a dict with "input_ids" and "attention_mask" [batch, sequence] and, where the rule tells queries from
    documents, "is_query" [batch]. Output: int32 [batch, sequence].
    """

    def __init__(
        self, expanded: int, skipped: Sequence[int], skipping: Sequence[str], kept: Sequence[int], **options: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.rule = ScoringRule(expanded, tuple(skipped), tuple(skipping), tuple(kept))

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        rule, ids = self.rule, inputs["input_ids"]
        mask = ops.not_equal(inputs["attention_mask"], 0)
        query = ops.not_equal(ops.expand_dims(inputs[IS_QUERY], -1), 0) if rule.tells_queries else None
        if rule.expanded:
            places = ops.expand_dims(ops.arange(ops.shape(ids)[1], dtype="int32"), 0)
            mask = ops.logical_or(mask, ops.logical_and(query, ops.less(places, rule.expanded)))
        if rule.skipped:
            skipped = among(ids, rule.skipped)
            if len(rule.skipping) == 1:
                skipped = ops.logical_and(skipped, query if "query" in rule.skipping else ops.logical_not(query))
            mask = ops.logical_and(mask, ops.logical_not(skipped))
        if rule.kept:
            mask = ops.logical_and(mask, ops.logical_or(among(ids, rule.kept), query))
        return ops.cast(mask, "int32")

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return keras.KerasTensor(inputs["attention_mask"].shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{name: _plain(value) for name, value in vars(self.rule).items()}}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def among(ids: Tensor, chosen: Sequence[int]) -> Tensor:
    """Whether an id is one of a list: [batch, sequence] -> bool [batch, sequence]."""
    listed = ops.convert_to_tensor(list(chosen), dtype="int32")
    return ops.any(ops.equal(ops.expand_dims(ids, -1), listed), axis=-1)


def maxsim(queries: Mapping[str, Tensor], documents: Mapping[str, Tensor]) -> Tensor:
    """MaxSim of every query with every document, to be trained through.

    Args:
        queries: what a converted MultiVectorEncoder gives: "token_embeddings" [n, s, dim] and "scoring_mask" [n, s].
        documents: the same, [m, t, dim] and [m, t]; each with a token that counts.

    Returns:
        [n, m]: the sum over a query's tokens of the largest dot product with a token of the document
        (https://arxiv.org/abs/2004.12832, equation 3).
    """
    found = ops.einsum("nsd,mtd->nmst", queries["token_embeddings"], documents["token_embeddings"])
    counts = ops.not_equal(documents["scoring_mask"], 0)[None, :, None, :]
    best = ops.max(ops.where(counts, found, LOWEST), axis=-1)
    return ops.sum(best * ops.cast(queries["scoring_mask"], best.dtype)[:, None, :], axis=-1)
