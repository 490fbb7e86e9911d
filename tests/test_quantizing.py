"""`quantize_embeddings` beside the library's: the same bits, types and shapes for whatever it takes. About 1 s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util import quantize_embeddings as library

from sbertconv import UnsupportedOptionError, quantize_embeddings

VECTORS = np.random.default_rng(3).normal(size=(12, 20)).astype(np.float32)
VECTORS[:, 4] = 0.25  # a dimension without a range
RANGES = np.stack([np.full(20, -0.5), np.full(20, 0.75)])
OTHERS = VECTORS[3:9] * 2
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
DOCUMENTS = [VECTORS[:5], VECTORS[5:5], VECTORS[5:]]
FORMS: dict[str, Callable[[], Any]] = {
    "an array": lambda: VECTORS,
    "of float64": lambda: VECTORS.astype(np.float64),
    "of float16": lambda: VECTORS.astype(np.float16),
    "a tensor": lambda: torch.from_numpy(VECTORS),
    "a tensor of bfloat16": lambda: torch.from_numpy(VECTORS).bfloat16(),
    "a list of arrays": lambda: list(VECTORS),
    "a list of tensors": lambda: list(torch.from_numpy(VECTORS)),
    "a list of lists": VECTORS.tolist,
    "no vectors": lambda: VECTORS[:0],
    "an empty list": list,
    "a list of token arrays": lambda: DOCUMENTS,
    "a list of token tensors": lambda: [torch.from_numpy(part) for part in DOCUMENTS],
    "token arrays without tokens": lambda: [VECTORS[:0], VECTORS[:0]],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "options",
    [{}, {"ranges": RANGES}, {"calibration_embeddings": OTHERS}, {"ranges": RANGES, "calibration_embeddings": OTHERS}],
    ids=["own ranges", "ranges", "calibration", "both"],
)
def test_the_answer_is_the_librarys(form: str, precision: str, options: dict[str, Any]) -> None:
    theirs, ours = (one(FORMS[form](), precision, **options) for one in (library, quantize_embeddings))
    assert type(ours) is type(theirs)
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert (our.dtype, our.shape) == (their.dtype, their.shape)
        np.testing.assert_array_equal(our, their)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_vector_is_quantized_with_ranges(precision: str) -> None:
    theirs, ours = (one(VECTORS[0], precision, ranges=RANGES) for one in (library, quantize_embeddings))
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((VECTORS, "int4"), r"'int4' is not known \(have: float32, int8"),
        ((VECTORS[0], "int8"), "one text gives none"),
        ((VECTORS[:1], "uint8"), "one text gives none"),
        (([VECTORS[:1]], "int8"), "one text gives none"),
        ((VECTORS.astype(np.int8), "binary"), "floats, and these are int8"),
        (([[1, 2], [3, 4]], "binary"), "floats, and these are int64"),
        ((["a text"], "binary"), "no array of numbers"),
        (([[0.1, 0.2], [0.3]], "binary"), "several shapes"),
        ((VECTORS, "int8", RANGES[:, :5]), r"\[2, 5\] \(have: \[2, 20\]"),
    ],
)
def test_what_cannot_be_quantized_is_an_error(arguments: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=reason):
        quantize_embeddings(*arguments)
