"""What a reduction says of itself: sizes before and after, and how it was held to the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.folder import TO_ST
from sbertconv.parity.comparison import Check, ParityReport
from sbertconv.parity.quality import QualityReport

if TYPE_CHECKING:
    from sbertconv.source.opening import Source

NOT_MEASURED = ("batch_cosine", "batch_text")  # of a smaller model that is no other computation of the same one
OF_DIRECTION = ("min_cosine", "worst_text", "mean_cosine")  # of vectors in one space
ANY = -1.0  # the bound that every cosine keeps


@dataclass(frozen=True)
class Figure:
    """A number of the original, and the same of the smaller model; None where only one side has it."""

    name: str
    before: float | None
    after: float | None


class Proof(ParityReport):
    """The checks of a smaller model; encode() is compared in equal batches, so that it has no wobble."""

    def to_json(self) -> dict[str, Any]:
        """For machines: without what was not measured."""
        return {**super().to_json(), "wobble": None, "wobble_text": ""}


@dataclass(frozen=True)
class Likeness(QualityReport):
    """How alike the similarities of two models are, whose vectors may lie in different spaces.

    Attributes:
        one_space: whether the two vectors of a text can be compared with each other.
    """

    one_space: bool = True

    def to_json(self) -> dict[str, Any]:
        """For machines: without what was not measured."""
        content = super().to_json()
        without = NOT_MEASURED if self.one_space else (*NOT_MEASURED, *OF_DIRECTION)
        gate = {name: value for name, value in content["gate"].items() if name not in without and value != ANY}
        return {**{name: value for name, value in content.items() if name not in without}, "gate": gate}


@dataclass(frozen=True)
class Reduction:
    """What was written, and what became smaller.

    Attributes:
        folder: what SentenceTransformer loads.
        verb: "trim", "shorten" or "to_static".
        figures: in the order in which they are shown.
        parity: the proof, or the quality gate.
        notes: what to know of it.
        example: a text of the sample that changes its tokens; no file holds it.
    """

    folder: Path
    verb: str
    figures: tuple[Figure, ...]
    parity: ParityReport
    notes: tuple[str, ...] = ()
    example: str = ""

    def __getitem__(self, name: str) -> Figure:
        """A figure by its name."""
        return {figure.name: figure for figure in self.figures}[name]

    @property
    def plain(self) -> dict[str, Any]:
        """The verb and its figures as plain types."""
        return {
            "verb": self.verb,
            "figures": {one.name: {"before": one.before, "after": one.after} for one in self.figures},
        }

    def to_json(self) -> dict[str, Any]:
        """For machines: the same content as plain types."""
        return {"folder": str(self.folder), **self.plain, "notes": list(self.notes),
                "example": self.example, "parity": self.parity.to_json()}  # fmt: skip


def content_of(source: Source, made: Reduction, options: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of what was written, without its proof."""
    return {
        "backend": TO_ST,
        "model_class": source.model_class.name,
        "source": {"name": source.name, "revision": source.revision},
        "reduction": made.plain,
        "options": dict(options),
        "notes": list(made.notes),
    }


def proof(checks: Sequence[Check], quality: Sequence[QualityReport], rule: str, method: str) -> Proof:
    """The report of a comparison with the original."""
    return Proof(
        backend=TO_ST,
        rule=rule,
        checks=tuple(checks),
        wobble=0.0,
        wobble_text="",
        quality=tuple(quality),
        method=method,
    )
