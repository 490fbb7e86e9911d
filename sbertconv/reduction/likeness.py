"""The gate of a smaller model that gives other vectors: do its similarities say what the original's say?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from sbertconv.corpus.texts import sentences
from sbertconv.errors import ParityError, SourceError, UnsupportedOptionError, error_text
from sbertconv.options import LikenessOptions
from sbertconv.parity.quality import BOUNDS, Gate, QualityReport, measure_quality
from sbertconv.reduction.reports import ANY, Likeness, Proof, proof

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sbertconv.source.opening import Source

FEWEST, MOST = 50, 4000  # texts: ten neighbours among fewer are no choice, and of more all pairs fill the memory
LEAST = Gate(
    ANY,
    0.3,
    0.2,
    "half of a model's layers, or its tokens alone, keep about 0.45 and 0.25 untrained, and random vectors 0 and 0.01: "
    "the bounds tell a weak model from a broken one; all vectors may turn together, which no similarity sees, so their "
    "own cosine is held to nothing",
)


def gate_texts(texts: Sequence[str]) -> list[str]:
    """The texts that the gate looks at: the user's, evenly chosen where there are many, or those of the corpus.

    Raises:
        UnsupportedOptionError: if there are too few.
    """
    found = list(dict.fromkeys(texts)) or list(sentences())
    if len(found) < FEWEST:
        raise UnsupportedOptionError(
            f"texts=: {len(found)} different texts (have: {FEWEST} and more).\nPass more, or leave the option out."
        )
    places = np.linspace(0, len(found) - 1, min(len(found), MOST)).astype(int)
    return [found[place] for place in places]


def embedded(
    model: SentenceTransformer, source: Source, texts: Sequence[str], smaller: bool = False
) -> tuple[np.ndarray, float]:
    """encode() of the texts, float32 [texts, dim], and the seconds that it took.

    Raises:
        SourceError: if the model cannot take them.
    """
    start = time.perf_counter()
    try:
        found = np.asarray(model.encode(list(texts), show_progress_bar=False), np.float32)
    except Exception as error:
        said = "made smaller, its encode() fails" if smaller else "its encode() fails"
        advice = "A module of its chain needs what was left out." if smaller else "Mend the model."
        raise SourceError(f"{source.name}: {said}: {error_text(error, 3)}\n{advice}") from error
    return found, time.perf_counter() - start


def held(
    texts: Sequence[str], original: np.ndarray, smaller: np.ndarray, asked: LikenessOptions, one_space: bool
) -> Proof:
    """Measure the smaller model's vectors against the original's.

    Args:
        texts: what both were asked.
        original: float32 [texts, dim].
        smaller: float32 [texts, dim].
        asked: the user's own bounds.
        one_space: whether the two vectors of one text can be compared.

    Raises:
        ParityError: if they stay below the bounds.
    """
    given = {name: getattr(asked, name) for name in BOUNDS}
    found = measure_quality(texts, list(original), list(smaller), {0: smaller[0]}, LEAST.changed(given))
    values = {one.name: getattr(found, one.name) for one in fields(QualityReport)}
    report = proof((), [Likeness(**values, one_space=one_space)], "the similarities of texts", "encode")
    if not report.passed:
        raise ParityError(
            f"{report.failure} Nothing was written.\nKeep more of the model, or lower the bound if that is good enough "
            "for you: docs/smaller.md",
            report,
        )
    return report
