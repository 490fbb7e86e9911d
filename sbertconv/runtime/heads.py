"""What is left of the outputs of further heads once padding and special tokens are taken out, as the package
FlagEmbedding gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from sbertconv.artifact.kinds import COLBERT_VECS, LEXICAL_WEIGHTS


def lexical_weights(values: np.ndarray, ids: np.ndarray, left_out: Collection[int]) -> dict[int, float]:
    """Token id -> its largest weight in one text, where that is more than 0.

    Args:
        values: a weight for each token, float32 [tokens].
        ids: the tokens, int64 [tokens].
        left_out: special tokens.
    """
    found: dict[int, float] = {}
    for token, weight in zip(ids.tolist(), values.tolist(), strict=True):
        if weight > 0 and token not in left_out:
            found[token] = max(weight, found.get(token, 0.0))
    return found


def colbert_vecs(values: np.ndarray, ids: np.ndarray, left_out: Collection[int]) -> np.ndarray:
    """The vectors of all tokens but the first, float32 [tokens - 1, dim]: that is the text's own."""
    return values[1:]


SHAPED: Mapping[str, Callable[[np.ndarray, np.ndarray, Collection[int]], object]] = {
    LEXICAL_WEIGHTS: lexical_weights,
    COLBERT_VECS: colbert_vecs,
}
