"""MaxSim in numpy: how late interaction compares the token vectors of a query with those of a document.

score(q, d) = sum over the tokens of q of the largest dot product with a token of d
(https://arxiv.org/abs/2004.12832, equation 3). Arguments and results are those of `sentence_transformers.util.maxsim`.

Nothing is padded: the tokens of all documents stand in one matrix, one matrix product compares them with those of
many queries, and the largest of each document is taken over its own rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sbertconv.errors import UnsupportedOptionError
from sbertconv.runtime.similarity import array_of, check_lengths

AT_ONCE = 4_000_000  # dot products held at once, 16 MB: more no longer fit into the caches
EMPTY_DOCUMENT = -1e9  # the score of a document without a token that counts: the library's own


def maxsim(
    a: Any,
    b: Any,
    a_mask: Any = None,
    b_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> np.ndarray:
    """Every query with every document.

    Args:
        a: queries: a list of arrays [tokens, dim], an array [n, tokens, dim] whose rows of zeros are padding, or one
            query as an array [tokens, dim].
        b: documents, likewise.
        a_mask: which tokens of the queries count: [n, tokens], or a list of arrays; default all.
        b_mask: which of the documents.
        chunk_elements: how many dot products are held at once, at least those of one pair.
        length_normalize: divide by the number of the query's tokens (MeanMaxSim).

    Returns:
        float32 [n, m]; -1e9 for a document without a token.

    Raises:
        UnsupportedOptionError: for anything else than vectors of tokens, of one length, or if a mask does not have the
            length of its tokens.
    """
    queries, documents = _both(a, a_mask, b, b_mask)
    budget = AT_ONCE if chunk_elements is None else chunk_elements
    scores = np.zeros((len(queries), len(documents)), np.float32)
    longest = max([1, *map(len, documents)])
    for some in _chunks([len(query) for query in queries], budget // longest):
        asked = _Stack(queries[some])
        for others in _chunks([len(document) for document in documents], budget // max(1, len(asked.rows))):
            given = _Stack(documents[others])
            best = given.reduced(np.maximum, given.rows @ asked.rows.T, EMPTY_DOCUMENT)
            found = asked.reduced(np.add, np.ascontiguousarray(best.T), 0)
            found[:, given.empty] = EMPTY_DOCUMENT
            scores[some, others] = found
    return _normalized(scores, queries, length_normalize)


def maxsim_pairwise(
    a: Any,
    b: Any,
    a_mask: Any = None,
    b_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> np.ndarray:
    """Query i with document i: float32 [n]. Args and Raises: see `maxsim`; one pair is held at a time.

    Raises:
        UnsupportedOptionError: also if there are not as many queries as documents.
    """
    queries, documents = _both(a, a_mask, b, b_mask)
    if len(queries) != len(documents):
        raise UnsupportedOptionError(
            f"{len(queries)} queries and {len(documents)} documents are no pairs.\nPass as many of each."
        )
    pairs = zip(queries, documents, strict=True)
    found = [(d @ q.T).max(axis=0).sum() if len(d) else EMPTY_DOCUMENT for q, d in pairs]
    return _normalized(np.array(found, np.float32).reshape(-1, 1), queries, length_normalize)[:, 0]


SIMILARITIES = {"maxsim": False, "meanmaxsim": True}  # whether a score is divided by the number of the query's tokens


def _both(a: Any, a_mask: Any, b: Any, b_mask: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The tokens of the queries and of the documents; UnsupportedOptionError for vectors of several lengths."""
    queries, documents = tokens_of(a, a_mask, "a_mask"), tokens_of(b, b_mask, "b_mask")
    check_lengths({rows.shape[1] for rows in (*queries, *documents)})
    return queries, documents


def tokens_of(side: Any, mask: Any, name: str) -> list[np.ndarray]:
    """The tokens that count of each text, float [tokens, dim].

    Raises:
        UnsupportedOptionError: for anything else than vectors, or if a mask does not have the length of its tokens.
    """
    if isinstance(side, (str, bytes, dict)) or not np.iterable(side):
        raise UnsupportedOptionError(
            f"{type(side).__name__} where vectors of tokens are due.\nPass what encode_query() gives."
        )
    if getattr(side, "ndim", 0) == 2:
        side, mask = [side], None if mask is None else np.atleast_2d(mask)
    found = [_floating(array_of(rows)) for rows in side]
    if strange := [rows.shape for rows in found if rows.ndim != 2]:
        raise UnsupportedOptionError(
            f"an array of the shape {strange[0]}, where the vectors of a text's tokens are due, [tokens, dim].\n"
            "Pass what encode_query() and encode_document() give."
        )
    if mask is None:
        return found if isinstance(side, list) else [rows[rows.any(axis=-1)] for rows in found]
    masks = [array_of(one) != 0 for one in (mask if np.iterable(mask) else [mask])]
    if isinstance(side, list) and len(masks) == len(found):  # a mask may go on over padding that a list has not
        masks = [np.atleast_1d(one)[: len(rows)] for one, rows in zip(masks, found, strict=True)]
    if [one.shape for one in masks] != [(len(rows),) for rows in found]:
        raise UnsupportedOptionError(f"{name} has another length than its tokens.\nPass one number for each token.")
    return [rows[one] for rows, one in zip(found, masks, strict=True)]


def _floating(rows: np.ndarray) -> np.ndarray:
    return rows if rows.dtype == np.float64 else rows.astype(np.float32, copy=False)


class _Stack:
    """The tokens of several texts in one matrix."""

    def __init__(self, texts: Sequence[np.ndarray]) -> None:
        self.lengths = np.array([len(text) for text in texts])
        self.empty = self.lengths == 0
        self.rows = np.concatenate(texts)

    def reduced(self, operation: np.ufunc, values: np.ndarray, empty: float) -> np.ndarray:
        """[tokens, x] -> [texts, x], each text's own rows together; `empty` where it has none."""
        found = np.full((len(self.lengths), values.shape[1]), empty, np.float32)
        filled = self.lengths[~self.empty]
        if len(filled):
            found[~self.empty] = operation.reduceat(values, np.cumsum(filled) - filled, axis=0)
        return found


def _chunks(lengths: Sequence[int], tokens: int) -> Iterator[slice]:
    """Texts in a row that have at most so many tokens together, or one."""
    start, total = 0, 0
    for place, length in enumerate(lengths):
        if place > start and total + length > tokens:
            yield slice(start, place)
            start, total = place, 0
        total += length
    if lengths:
        yield slice(start, len(lengths))


def _normalized(scores: np.ndarray, queries: Sequence[np.ndarray], wanted: bool) -> np.ndarray:
    """Each row divided by the number of its query's tokens, where that is wanted."""
    if not wanted:
        return scores
    counts = np.array([[max(1, len(query))] for query in queries], np.float32).reshape(-1, 1)
    return np.asarray(scores / counts, np.float32)
