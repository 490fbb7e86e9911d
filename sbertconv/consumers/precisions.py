"""Several precisions of a model in one packed folder, each from the converted folder that its own gate let through."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.kinds import EXACT
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import Consumer
from sbertconv.corpus.texts import sentences
from sbertconv.errors import UnsupportedOptionError
from sbertconv.parity.comparison import cosine_of

COMPARED = 128  # sentences that tell whether two folders are of one model
SAME = ("model_class", "source", "chain", "max_seq_length", "prompts", "default_prompt_name")  # keys of the manifest
Found = Mapping[str, Artifact]


def by_precision(others: Sequence[Artifact], own: Artifact, rows: Sequence[Consumer]) -> dict[str, Artifact]:
    """Precision -> its folder.

    Raises:
        UnsupportedOptionError: for a folder of another model, a precision that is there already, one that no consumer
            opens, or a graph that one would get wrong.
    """
    able = [row for row in rows if row.precisions]
    known = list(dict.fromkeys(precision for row in able for precision in row.precisions))
    found: dict[str, Artifact] = {}
    for other in others:
        precision = other.manifest["precision"]
        if differing := [key for key in SAME if other.manifest.get(key) != own.manifest.get(key)]:
            raise UnsupportedOptionError(
                f"{other.folder}: not the same model as {own.folder}: {', '.join(differing)}.\n"
                "Convert one model in several precisions."
            )
        if precision in (own.manifest["precision"], *found):
            raise UnsupportedOptionError(f"{other.folder}: {precision} is there already.\nName each precision once.")
        if precision not in known:
            raise UnsupportedOptionError(
                f"{other.folder}: no consumer opens {precision} beside another one (have: "
                f"{', '.join(known) or 'none'}).\nLeave it out, or add --for transformers.js."
            )
        if reasons := [reason for row in able for reason in row.refuses(other.manifest)]:
            raise UnsupportedOptionError(f"{other.folder}: {reasons[0]}")
        found[precision] = other
    return found


def check_weights(own: Artifact, found: Found, answer: Callable[[Any, list[Any]], Any], margin: float) -> None:
    """Raise UnsupportedOptionError for a folder whose vectors are further from the other folder's than both folders'
    gates say that they are from one original: a model that was trained on keeps its name and its settings.

    Args:
        own: the folder that is packed.
        found: the folders beside it.
        answer: a model, some texts -> a vector of each.
        margin: how much below that a cosine may be, for the same weights on another processor.
    """
    from sbertconv.runtime.opening import open_model

    texts = list(sentences()[:COMPARED])
    theirs = answer(open_model(own, "onnx"), texts)
    for other in found.values():
        least = math.cos(min(math.pi, sum(math.acos(promised(one)) for one in (own, other)))) - margin
        cosines = [_cosine(a, b) for a, b in zip(answer(open_model(other, "onnx"), texts), theirs, strict=True)]
        worst = int(np.argmin(cosines))  # NaN is the smallest
        if not cosines[worst] >= least:
            raise UnsupportedOptionError(
                f"{other.folder}: not the weights of {own.folder}: their vectors of {texts[worst][:40]!r} have the "
                f"cosine {cosines[worst]:.4f} (have: {least:.4f} and more, by what the folders say of themselves).\n"
                "Convert one model in several precisions."
            )


def promised(artifact: Artifact) -> float:
    """The smallest cosine with the original's vectors that a folder's own gate has measured; 1 in float32.

    Raises:
        UnsupportedOptionError: for a folder below float32 that does not say.
    """
    quality = artifact.manifest.get("parity", {}).get("quality") or ()
    if not quality and artifact.manifest["precision"] != EXACT:
        raise UnsupportedOptionError(
            f"{artifact.folder}: its manifest does not say what it keeps of the original (parity.quality).\n"
            "Convert the model again."
        )
    return max(-1.0, min([1.0, *(one["min_cosine"] for one in quality)]))


def _cosine(a: Any, b: Any) -> float:
    """The cosine of two answers to one text; NaN of two shapes."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return cosine_of(a, b) if a.shape == b.shape else math.nan


def write_variants(row: Consumer, found: Found, staging: Staging) -> None:
    """Write the files of the other precisions that a consumer opens."""
    for precision, other in found.items():
        if row.variant is not None and precision in row.precisions:
            row.variant(other, staging, row.precisions[precision])


def readers(row: Consumer, found: Found) -> dict[str, Any]:
    """Precision -> the consumer's rule on its file."""
    return {
        precision: partial(row.read, file=row.precisions[precision])  # type: ignore[call-arg]
        for precision in found
        if precision in row.precisions
    }


def section_of(row: Consumer, other: Artifact, max_abs_diff: float) -> dict[str, Any]:
    """What the manifest says of one of them: its file, and what its own gate measured."""
    precision = other.manifest["precision"]
    measured = {} if precision == EXACT else {"min_cosine": promised(other)}
    return {"file": row.precisions[precision], "max_abs_diff": max_abs_diff, **measured}
