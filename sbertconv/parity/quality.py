"""The quality gate below float32: do the smaller model's vectors find what the original's find?

Rounded weights move every value, so the rule of float32 cannot hold. What must hold is what embeddings are for: each
vector's direction, the order of all similarities, and the nearest neighbours. Of logits it is the order that they bring
inputs into: those of a list of inputs, less their mean, are a vector whose direction must stay (its cosine is Pearson's
correlation), and the nearest neighbours are the inputs ranked first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sbertconv.runtime.maxsim import maxsim

NEIGHBOURS = 10
ALONE_STEP = 8  # one in so many sentences is also embedded alone
RANKED = 50  # inputs in a list
LEAST_SPREAD = 1e-3  # of all logits; a list with less is in no order that the original would give it

BOUNDS = ("min_cosine", "min_spearman", "min_top10")  # of a gate


@dataclass(frozen=True)
class Gate:
    """The least that a precision must reach on the sentences, and why these numbers.

    Attributes:
        min_cosine: of every text's vector with the original's; of logits, of every list's.
        min_spearman: of all pairwise similarities; of all logits.
        min_top10: mean share of the ten nearest neighbours that stay; of the ten inputs ranked first.
    """

    min_cosine: float
    min_spearman: float
    min_top10: float
    reason: str

    def holds(self, diff: np.ndarray, theirs: np.ndarray, cosine: float) -> bool:
        """Whether one text's vector is near enough."""
        return cosine >= self.min_cosine

    def __str__(self) -> str:
        return f"cosine >= {self.min_cosine:g}"

    def changed(self, asked: Mapping[str, float | None]) -> Gate:
        """The same with the user's own numbers, where they are given."""
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        return replace(self, **given)


class RankingGate(Gate):
    """The same numbers for logits: single ones may move, the lists that they rank are measured as a whole."""

    def holds(self, diff: np.ndarray, theirs: np.ndarray, cosine: float) -> bool:
        """Whatever the number is, as long as it is one."""
        return True

    def __str__(self) -> str:
        return f"correlation of ranked lists >= {self.min_cosine:g}"


GATES = {
    "bf16": Gate(0.999, 0.999, 0.95, "8 bits of mantissa: 0.9999 where sums are kept in float32"),
    "fp16": Gate(0.999, 0.999, 0.97, "11 bits of mantissa: 0.99999 unless values leave its range"),
    "int8": Gate(0.99, 0.99, 0.90, "8 bits a weight in blocks reach 0.998; a tensor's one scale for all reaches 0.97"),
    "int4": Gate(0.90, 0.95, 0.70, "4 bits a weight: 0.95 on a small model, more on a larger one"),
}


@dataclass(frozen=True)
class QualityReport:
    """What a smaller model keeps of the original, over `texts` sentences, pairs or texts to classify.

    Attributes:
        of: "sentences" for vectors, "lists" for logits, where a text is below a list, called by its query or first
            text, and similarities are logits.
        gate: what had to be reached.
        texts: how many sentences.
        min_cosine, worst_text: the smallest cosine between the two vectors of one text, and that text.
        mean_cosine: over the texts.
        spearman: rank correlation of all pairwise similarities.
        top1, top10: share of texts whose nearest neighbour, and mean share of the ten nearest, stay the same.
        batch_cosine, batch_text: the smallest cosine between a text's vector alone and in a mixed batch, and the text.
        run: what the names of this run's checks begin with, such as "openvino: "; empty where there is one run.
    """

    gate: Gate
    texts: int
    min_cosine: float
    worst_text: str
    mean_cosine: float
    spearman: float
    top1: float
    top10: float
    batch_cosine: float
    batch_text: str
    of: str = "sentences"
    run: str = ""

    @property
    def problems(self) -> list[str]:
        """What stays below the gate, in words."""
        found = {"min_cosine": self.min_cosine, "min_spearman": self.spearman, "min_top10": self.top10}
        limits = asdict(self.gate)
        return [
            f"{self.run}{name.removeprefix('min_')} {value:.4f} < {limits[name]:g} ({name}=)"
            for name, value in found.items()
            if not value >= limits[name]  # not a number is a problem
        ]

    @property
    def passed(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """For machines: the same content as plain types."""
        return {**asdict(self), "passed": self.passed}


def measure_quality(
    texts: Sequence[str],
    original: Sequence[np.ndarray],
    converted: Sequence[np.ndarray],
    alone: Mapping[int, np.ndarray],
    gate: Gate,
) -> QualityReport:
    """Compare two sets of embeddings. Of a text with a vector for each token, the cosine is the mean of theirs, and
    similarities are MeanMaxSim.

    Args:
        texts: the sentences.
        original: the original's embedding of each, float32 [dim] or [tokens, dim].
        converted: the smaller model's, from mixed batches.
        alone: index of a text -> its embedding from the smaller model in a batch of one.
        gate: what must be reached.
    """
    a, b = ([_unit(np.atleast_2d(found)) for found in side] for side in (original, converted))
    cosines = np.array([_cosine(x, y) for x, y in zip(a, b, strict=True)])
    worst = int(np.argmin(cosines))
    one, other = _similarities(a), _similarities(b)
    batch = {index: _cosine(b[index], _unit(np.atleast_2d(found))) for index, found in alone.items()}
    batch_worst = min(batch, key=lambda index: batch[index])
    first, second = (_neighbours(similarities) for similarities in (one, other))
    same = [len(set(x) & set(y)) / len(x) for x, y in zip(first, second, strict=True)]
    upper = np.triu_indices(len(texts), 1)
    return QualityReport(
        gate=gate,
        texts=len(texts),
        min_cosine=float(cosines[worst]),
        worst_text=texts[worst],
        mean_cosine=float(cosines.mean()),
        spearman=_spearman(one[upper], other[upper]),
        top1=float((first[:, 0] == second[:, 0]).mean()),
        top10=float(np.mean(same)),
        batch_cosine=batch[batch_worst],
        batch_text=texts[batch_worst],
    )


def measure_ranking(
    inputs: Sequence[Any],
    theirs: Sequence[np.ndarray],
    ours: Sequence[np.ndarray],
    alone: Mapping[int, np.ndarray],
    gate: Gate,
) -> QualityReport:
    """Compare two sets of logits by how they rank lists of inputs, each label for itself.

    Args:
        inputs: texts, or pairs of which those with one query are one list.
        theirs: float32 [labels] for each, the original's logits.
        ours: the smaller model's, from mixed batches.
        alone: index of an input -> its logits [labels] from the smaller model in a batch of one.
        gate: what must be reached.
    """
    original, converted = np.stack(theirs), np.stack(ours)
    told_apart = np.ptp(original, axis=0) * LEAST_SPREAD
    lists = [
        (place, label)
        for place in ranked_lists(inputs)
        for label in range(original.shape[1])
        if len(place) > NEIGHBOURS and np.ptp(original[place, label]) > told_apart[label]
    ]
    lists = lists or [(list(range(len(inputs))), label) for label in range(original.shape[1])]
    pairs = [(original[place, label], converted[place, label]) for place, label in lists]
    cosines = np.array([_correlation(*pair) for pair in pairs])
    worst = int(np.argmin(cosines))
    ranked = [[np.argsort(-logits, kind="stable")[:NEIGHBOURS] for logits in pair] for pair in pairs]
    chosen = list(alone)
    single = np.stack([alone[index] for index in chosen])
    batch = np.abs(single - converted[chosen]).max(axis=1)
    return QualityReport(
        gate=gate,
        texts=len(inputs),
        min_cosine=float(cosines[worst]),
        worst_text=_first_text(inputs[lists[worst][0][0]]),
        mean_cosine=float(cosines.mean()),
        spearman=min(_spearman(*pair) for pair in zip(original.T, converted.T, strict=True)),
        top1=float(np.mean([one[0] == other[0] for one, other in ranked])),
        top10=float(np.mean([len(set(one) & set(other)) / NEIGHBOURS for one, other in ranked])),
        batch_cosine=min(_correlation(*pair) for pair in zip(single.T, converted[chosen].T, strict=True)),
        batch_text=_first_text(inputs[chosen[int(np.argmax(batch))]]),
        of="lists",
    )


def ranked_lists(inputs: Sequence[Any]) -> list[list[int]]:
    """The places of the inputs of each list: pairs by their query, texts in the order they come."""
    lists: dict[Any, list[int]] = {}
    for place, item in enumerate(inputs):
        lists.setdefault(place // RANKED if isinstance(item, str) else item[0], []).append(place)
    return list(lists.values())


def _first_text(item: Any) -> str:
    return item if isinstance(item, str) else str(item[0])


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of two lists of logits, each less its mean: Pearson's correlation."""
    a, b = (_unit((logits.astype(np.float64) - logits.mean())[None])[0] for logits in (one, other))
    return float(a @ b)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32: those of all sentences are as wide as a vocabulary where vectors are sparse."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit: np.ndarray = (vectors / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)
    return unit


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The mean over the tokens of two embeddings of one text."""
    if a.shape != b.shape or np.array_equal(a, b):  # also where both are nothing but zeros
        return float(a.shape == b.shape)
    return float((a.astype(np.float64) * b).sum(axis=1).mean())


def _similarities(units: Sequence[np.ndarray]) -> np.ndarray:
    """Of every text with every one: cosines, or MeanMaxSim where a text has several vectors."""
    if all(len(unit) == 1 for unit in units):
        vectors = np.concatenate(units)
        cosines: np.ndarray = vectors @ vectors.T
        return cosines
    return maxsim(units, units, length_normalize=True)


def _neighbours(similarities: np.ndarray) -> np.ndarray:
    """Indices of the nearest texts, nearest first, [texts, 10]; equal ones in the order of the texts."""
    others = similarities.copy()
    np.fill_diagonal(others, -np.inf)
    nearest: np.ndarray = np.argsort(-others, axis=1, kind="stable")
    return nearest[:, :NEIGHBOURS]


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks; ties, which floats rarely have, in the order they come."""
    x, y = (np.argsort(np.argsort(values)).astype(np.float64) for values in (a, b))
    return float(np.corrcoef(x, y)[0, 1])
