"""Several precisions of a model in one packed folder, each from the converted folder that its own gate let through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import Consumer
from sbertconv.corpus.texts import sentences
from sbertconv.errors import UnsupportedOptionError
from sbertconv.runtime.similarity import normalize

SAME = ("model_class", "source", "chain", "max_seq_length", "prompts", "default_prompt_name")  # keys of the manifest
ROUNDING = 0.01  # radians: what float32 and other engines add to an angle, and far below what training does
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


def refuse_strangers(found: Found, own: Artifact) -> None:
    """Two models that were saved to one path, one after the other, have folders that say the same of themselves. Their
    vectors tell them apart: those of one model lie no farther apart than both lie from that model's.

    Raises:
        UnsupportedOptionError: for a folder whose vectors are those of another model.
    """
    theirs, limit = _directions(own) if found else None, _angle_of(own)
    for other in found.values():
        apart = _angle(float((theirs * _directions(other)).sum(axis=-1).min()))
        if apart > limit + _angle_of(other) + ROUNDING:
            raise UnsupportedOptionError(
                f"{other.folder}: not the same model as {own.folder}: their vectors are {np.degrees(apart):.0f} "
                "degrees apart.\nConvert one model in several precisions."
            )


def _directions(artifact: Artifact) -> np.ndarray:
    """The vectors of the sentences that quality is measured on, in float64, so long that their products are cosines."""
    from sbertconv.runtime.opening import open_model

    return normalize(np.asarray(open_model(artifact).encode(list(sentences())), np.float64))


def _angle_of(artifact: Artifact) -> float:
    """How far the vectors of a folder lie at most from those of its model."""
    return _angle(min((one["min_cosine"] for one in artifact.manifest["parity"].get("quality") or ()), default=1.0))


def _angle(cosine: float) -> float:
    return float(np.arccos(np.clip(cosine, -1, 1)))


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
    quality = other.manifest["parity"].get("quality") or ()
    measured = {"min_cosine": min(one["min_cosine"] for one in quality)} if quality else {}
    return {"file": row.precisions[precision], "max_abs_diff": max_abs_diff, **measured}
