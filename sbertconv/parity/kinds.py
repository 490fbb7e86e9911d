"""Comparing, for each class of models: the original's side, the questions, and the quality gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sbertconv.parity import quality, questions
from sbertconv.parity.quality import Gate, QualityReport, RankingGate
from sbertconv.parity.questions import Question

if TYPE_CHECKING:
    from sbertconv.runtime.graph import Graph
    from sbertconv.runtime.model import ConvertedModel


@dataclass(frozen=True)
class ClassParity:
    """How one class of models is compared with the library.

    Attributes:
        original: model -> the library's side of a comparison.
        questions: label, graph, original, converted model -> the questions that both sides are asked.
        quality_question: label, graph, converted model, the user's texts -> the question below float32.
        measure_quality: inputs, the two sides' answers, some answers of batch 1, gate -> the report.
        gate: the rule for a single answer below float32, from its numbers in the manifest.
        arrays: keywords with which the library's method gives arrays, or tensors that are as easily made into them.
    """

    original: type[questions.Original]
    questions: Callable[..., Iterator[Question]]
    quality_question: Callable[[str, Graph, ConvertedModel, Sequence[str]], Question]
    measure_quality: Callable[..., QualityReport]
    gate: type[Gate]
    arrays: Mapping[str, Any] = field(default_factory=dict)


EMBEDDINGS = ClassParity(
    questions.Original,
    questions.about_embeddings,
    questions.embedded_sentences,
    quality.measure_quality,
    Gate,
)
RANKINGS = ClassParity(
    questions.OriginalPredictions,
    questions.about_predictions,
    questions.ranked_pairs,
    quality.measure_ranking,
    RankingGate,
)
CLASS_PARITY = {
    "SentenceTransformer": EMBEDDINGS,
    "SparseEncoder": replace(
        EMBEDDINGS, questions=questions.about_sparse_embeddings, arrays={"convert_to_sparse_tensor": False}
    ),
    "CrossEncoder": RANKINGS,
    "TextClassifier": replace(RANKINGS, quality_question=questions.classified_sentences),
    "MultiVectorEncoder": replace(EMBEDDINGS, questions=questions.about_token_embeddings),
}
