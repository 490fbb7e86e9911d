"""The similarity functions and embedding precisions of sentence-transformers, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sbertconv.errors import UnsupportedOptionError

SMALLEST_NORM = 1e-12  # torch.nn.functional.normalize's eps


def normalize(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., dim] divided by their Euclidean length."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, SMALLEST_NORM), vectors.dtype)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return dot(normalize(a), normalize(b))


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a @ b.T)


def euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Negative distances, so that more is more similar; row by row, exact for near neighbours."""
    return -np.stack([np.linalg.norm(row - b, axis=-1) for row in a])


def manhattan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -np.stack([np.abs(row - b).sum(axis=-1) for row in a])


SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "manhattan": manhattan,
}


def similarity(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All pairs: [n, dim] and [m, dim] (or one vector each) -> [n, m].

    Raises:
        UnsupportedOptionError: for an unknown function.
    """
    if name not in SIMILARITIES:
        raise UnsupportedOptionError(
            f"similarity function {name!r} is not known (have: {', '.join(SIMILARITIES)})\nChoose one of these."
        )
    return SIMILARITIES[name](np.atleast_2d(numbers(a)), np.atleast_2d(numbers(b)))


def numbers(vectors: Any) -> np.ndarray:
    """Vectors as an array.

    Raises:
        UnsupportedOptionError: if they are no numbers.
    """
    found = np.asarray(vectors)
    if found.dtype.kind not in "fiub":
        raise UnsupportedOptionError(
            f"{vectors!r:.60} is no array of numbers.\nPass embeddings, as encode() gives them for the texts."
        )
    return found


def similarity_pairwise(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row i of `a` with row i of `b`: [n, dim] and [n, dim] -> [n]; [dim] and [dim] -> [].

    Raises:
        UnsupportedOptionError: for an unknown function, or if there are not as many rows of each.
    """
    single = np.ndim(a) == np.ndim(b) == 1
    first, second = np.atleast_2d(numbers(a)), np.atleast_2d(numbers(b))
    if len(first) != len(second):
        raise UnsupportedOptionError(
            f"{len(first)} and {len(second)} embeddings are no pairs.\nPass as many of each, or call similarity()."
        )
    found = np.array([similarity(name, x, y)[0, 0] for x, y in zip(first, second, strict=True)])
    return found.reshape(()) if single else found


def _buckets(vectors: np.ndarray) -> np.ndarray:
    """255 steps between each dimension's smallest and largest value, as quantize_embeddings does."""
    if len(vectors) < 2:
        raise UnsupportedOptionError(
            "precision int8 and uint8 take their ranges from the embeddings; one text gives none.\nEncode more texts."
        )
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    steps = (high - low) / 255
    return np.asarray(np.clip(np.floor((vectors - low) / np.where(steps == 0, 1, steps)), 0, 255))


PRECISIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda v: v.astype(np.float32, copy=False),
    "int8": lambda v: (_buckets(v) - 128).astype(np.int8),
    "uint8": lambda v: _buckets(v).astype(np.uint8),
    "binary": lambda v: (np.packbits(v > 0, axis=-1).astype(np.int16) - 128).astype(np.int8),
    "ubinary": lambda v: np.packbits(v > 0, axis=-1),
}


def quantize(vectors: np.ndarray, precision: str) -> np.ndarray:
    """Embeddings [n, dim] in another precision, bit for bit as `quantize_embeddings` of sentence-transformers.

    Raises:
        UnsupportedOptionError: for an unknown precision, or int8 ranges from a single embedding.
    """
    if precision not in PRECISIONS:
        raise UnsupportedOptionError(
            f"precision {precision!r} is not known (have: {', '.join(PRECISIONS)})\nChoose one of these."
        )
    return PRECISIONS[precision](vectors)
