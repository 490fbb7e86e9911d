"""Loading, for each class of models: recognising a checkpoint, building its chain, preparing the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sbertconv.artifact.kinds import MODEL_CLASSES, ModelClass
from sbertconv.source.bare import (
    Chain,
    bare_classifier,
    bare_embedder,
    bare_late_interaction,
    bare_reranker,
    bare_sparse_encoder,
)
from sbertconv.source.checkpoints import classifies, continues_texts, masks_words, scores_pairs, stanford_colbert

Config = Mapping[str, Any]


def _nothing(model: Any) -> None:
    return None


def _as_in_pipeline(model: Any) -> None:
    """The activation of transformers' text-classification pipeline, which knows no chat template either."""
    import torch

    model[0].modality_config.pop("message", None)
    kinds = {"regression": torch.nn.Identity(), "multi_label_classification": torch.nn.Sigmoid()}
    model.activation_fn = kinds.get(model.config.problem_type, torch.nn.Softmax(dim=-1))


@dataclass(frozen=True)
class ClassSource:
    """How one class of models is recognised and loaded.

    Attributes:
        claims: config.json -> whether a checkpoint without any file of sentence-transformers is one of these.
        takes: config.json -> whether such a checkpoint can be read as one of these.
        chain: config.json -> the modules that the library puts around a bare checkpoint, and notes.
        feature: the feature of the chain that the default output is made of.
        prepare: changes a loaded model before anything is asked of it.
    """

    claims: Callable[[Config], bool]
    takes: Callable[[Config], bool]
    chain: Callable[[Config], Chain]
    feature: str
    prepare: Callable[[Any], None] = _nothing


CLASS_SOURCES = {
    "SentenceTransformer": ClassSource(
        claims=lambda config: not (classifies(config) or stanford_colbert(config)),
        takes=lambda config: True,
        chain=bare_embedder,
        feature="sentence_embedding",
    ),
    "SparseEncoder": ClassSource(
        claims=lambda config: False,  # a head for masked words says nothing about SPLADE
        takes=masks_words,
        chain=bare_sparse_encoder,
        feature="sentence_embedding",
    ),
    "CrossEncoder": ClassSource(
        claims=scores_pairs,
        takes=lambda config: classifies(config) or continues_texts(config),
        chain=bare_reranker,
        feature="scores",
    ),
    "TextClassifier": ClassSource(
        claims=lambda config: classifies(config) and not scores_pairs(config),
        takes=classifies,
        chain=bare_classifier,
        feature="scores",
        prepare=_as_in_pipeline,
    ),
    "MultiVectorEncoder": ClassSource(
        claims=stanford_colbert,
        takes=stanford_colbert,
        chain=bare_late_interaction,
        feature="token_embeddings",
    ),
}


def class_of(model: Any) -> ModelClass | None:
    """The first row whose library class a live model is of, or None."""
    import sentence_transformers

    for row in MODEL_CLASSES.values():
        if isinstance(model, getattr(sentence_transformers, row.library)):
            return row
    return None
