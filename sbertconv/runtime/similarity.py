"""The similarity functions and embedding precisions of sentence-transformers, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    return -np.array([np.linalg.norm(row - b, axis=-1) for row in a]).reshape(len(a), len(b))


def manhattan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -np.array([np.abs(row - b).sum(axis=-1) for row in a]).reshape(len(a), len(b))


SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "manhattan": manhattan,
}


def floating(vectors: Any) -> Any:
    """Vectors, sparse or not, in a type that they can be compared in: whole numbers, whose sums and differences leave
    their own, as float64, in which those of quantized embeddings are exact.
    """
    return vectors if vectors.dtype.kind == "f" else vectors.astype(np.float64)


def similarity(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All pairs: [n, dim] and [m, dim] (or one vector each) -> [n, m]; of whole numbers float64.

    Raises:
        UnsupportedOptionError: for an unknown function, or vectors of other sizes.
    """
    if name not in SIMILARITIES:
        raise UnsupportedOptionError(
            f"similarity function {name!r} is not known (have: {', '.join(SIMILARITIES)})\nChoose one of these."
        )
    a, b = (np.atleast_2d(floating(array_of(vectors))) for vectors in (a, b))
    check_shapes(a.shape, b.shape)
    return SIMILARITIES[name](a, b)


def check_shapes(a: Sequence[int], b: Sequence[int]) -> None:
    """Raise UnsupportedOptionError unless these are the shapes of vectors [n, dim] and [m, dim]."""
    if len(a) != 2 or len(b) != 2 or a[1] != b[1]:
        raise UnsupportedOptionError(
            f"vectors of the shapes {tuple(a)} and {tuple(b)}, where [n, dim] and [m, dim] are due.\n"
            "Pass embeddings of one model, cut to the same dimensions."
        )


def check_lengths(lengths: set[int]) -> None:
    """Raise UnsupportedOptionError for vectors of several lengths."""
    if len(lengths) > 1:
        raise UnsupportedOptionError(
            f"vectors of several lengths: {', '.join(map(str, sorted(lengths)))}.\nPass embeddings of one model."
        )


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
    given = array_of(a), array_of(b)
    single = given[0].ndim == given[1].ndim == 1
    first, second = map(np.atleast_2d, given)
    if len(first) != len(second):
        raise UnsupportedOptionError(
            f"{len(first)} and {len(second)} embeddings are no pairs.\nPass as many of each, or call similarity()."
        )
    found = np.array([similarity(name, x, y)[0, 0] for x, y in zip(first, second, strict=True)])
    return found.reshape(()) if single else found


BUCKETS = {"int8": (-128, np.int8), "uint8": (0, np.uint8)}  # precision -> its smallest number, and its type
BITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "binary": lambda packed: (packed.astype(np.int16) - 128).astype(np.int8),
    "ubinary": lambda packed: packed,
}
PRECISIONS = ("float32", *BUCKETS, *BITS)


def quantize_embeddings(
    embeddings: Any, precision: str, ranges: Any = None, calibration_embeddings: Any = None
) -> np.ndarray | list[np.ndarray]:
    """Embeddings in another precision, bit for bit as `quantize_embeddings` of sentence-transformers.

    Args:
        embeddings: vectors [n, dim], or one [dim], as an array, a torch tensor, or a list of vectors; or a list of
            arrays [tokens, dim], which share their ranges.
        precision: "float32", "int8", "uint8", "binary" or "ubinary".
        ranges: of int8 and uint8, the smallest and the largest value of each dimension, [2, dim]; default: those of
            `calibration_embeddings`.
        calibration_embeddings: vectors [n, dim] to take the ranges from; default: the embeddings themselves.

    Returns:
        An array [n, dim] of the precision's type, of bits [n, dim / 8]; a list of them for a list of [tokens, dim].

    Raises:
        UnsupportedOptionError: for an unknown precision, vectors that are no floats or of several lengths, ranges of
            another shape, or ranges that would have to come from a single vector.
    """
    if precision not in PRECISIONS:
        raise UnsupportedOptionError(
            f"precision {precision!r} is not known (have: {', '.join(PRECISIONS)})\nChoose one of these."
        )
    is_list = isinstance(embeddings, (list, tuple))
    parts = [array_of(part) for part in embeddings] if is_list else []
    if is_list and not parts:
        return []
    several = is_list and parts[0].ndim == 2
    if several and len(shapes := {part.shape[1:] for part in parts}) > 1:
        raise UnsupportedOptionError(f"vectors of the sizes {sorted(shapes)}.\nPass embeddings of one model.")
    vectors = floats(np.concatenate(parts) if several else array_of(parts or embeddings))
    if vectors.ndim not in (1, 2):
        raise UnsupportedOptionError(f"an array of {vectors.ndim} axes (have: [dim], [n, dim]).\nPass embeddings.")
    if precision in BUCKETS and vectors.size:
        found = _ranges(vectors, precision, ranges, calibration_embeddings)
        quantized = _bucketed(vectors, found, precision)
    elif precision in BUCKETS:
        quantized = np.zeros(vectors.shape, BUCKETS[precision][1])
    else:
        quantized = vectors.astype(np.float32, copy=False) if precision == "float32" else _packed(vectors, precision)
    if not several:
        return quantized
    return np.split(quantized, np.cumsum([len(part) for part in parts])[:-1])


def array_of(values: Any) -> np.ndarray:
    """Vectors as an array; of a torch tensor too, wherever it is.

    Raises:
        UnsupportedOptionError: if they are no numbers, or of several lengths.
    """
    if isinstance(values, (list, tuple)):
        try:
            several = bool(values) and np.ndim(values[0])
            return numbers(np.stack([array_of(value) for value in values]) if several else values)
        except ValueError as error:
            raise UnsupportedOptionError(
                f"embeddings of several shapes are no matrix: {error}.\nPass vectors of one length."
            ) from error
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.to_dense() if values.is_sparse else values
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    return numbers(values)


def floats(vectors: np.ndarray) -> np.ndarray:
    """The same; UnsupportedOptionError for whole numbers, which have been quantized already."""
    if vectors.dtype.kind != "f":
        raise UnsupportedOptionError(
            f"embeddings to quantize are floats, and these are {vectors.dtype}.\nPass them as encode() gives them."
        )
    return vectors


def _ranges(vectors: np.ndarray, precision: str, ranges: Any, calibration: Any) -> np.ndarray:
    """The smallest and the largest value of each dimension, float32 [2, dim]."""
    if ranges is None:
        known = vectors if calibration is None else array_of(calibration)
        if calibration is None and (known.ndim == 1 or len(known) < 2):
            raise UnsupportedOptionError(
                f"precision {precision} takes its ranges from the embeddings; one text gives none.\n"
                "Encode more texts, or give quantize_embeddings ranges= or calibration_embeddings=."
            )
        ranges = np.vstack((known.min(axis=0), known.max(axis=0)))
    found = array_of(ranges).astype(np.float32)
    if found.shape != (2, vectors.shape[-1]):
        raise UnsupportedOptionError(
            f"ranges of the shape {list(found.shape)} (have: {[2, vectors.shape[-1]]}, the smallest and the largest "
            "value of each dimension).\nPass ranges of the same embeddings."
        )
    return found


def _bucketed(vectors: np.ndarray, ranges: np.ndarray, precision: str) -> np.ndarray:
    """255 steps between each dimension's smallest and largest value."""
    steps = (ranges[1] - ranges[0]) / 255
    found = np.clip(np.floor((vectors - ranges[0]) / np.where(steps == 0, 1, steps)), 0, 255)
    lowest, dtype = BUCKETS[precision]
    return np.asarray((found + lowest).astype(dtype))


def _packed(vectors: np.ndarray, precision: str) -> np.ndarray:
    return BITS[precision](np.packbits(vectors > 0, axis=-1))
