"""Converted folders inside of other libraries; of those that are not installed `make test-clients` runs the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import TEXTS

import sbertconv

REASON = "not installed; make test-clients runs it"
TEXTS = [text for text in TEXTS if text]  # some of these libraries leave an empty one out


def test_sentence_transformers_runs_a_folder(bert_artifact: Path) -> None:
    from sentence_transformers import util
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    from sbertconv.integrations.sentence_transformers import ConvertedModule, sentence_transformer

    own, model = sbertconv.load(bert_artifact), sentence_transformer(bert_artifact)
    np.testing.assert_allclose(model.encode(TEXTS), own.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(model.encode_query(TEXTS), own.encode_query(TEXTS), atol=1e-5)
    assert model.get_embedding_dimension() == own.get_embedding_dimension()
    assert model.max_seq_length == own.max_seq_length
    hits = util.semantic_search(model.encode_query(TEXTS[0], convert_to_tensor=True), model.encode_document(TEXTS))
    assert {hit["corpus_id"] for hit in hits[0]} == set(range(len(TEXTS)))
    found = EmbeddingSimilarityEvaluator(TEXTS, TEXTS[::-1], [0.1, 0.5, 0.7, 0.4, 0.2])(model)
    assert all(np.isfinite(value) for value in found.values())
    with pytest.raises(sbertconv.UnsupportedOptionError, match="is not saved again"):
        ConvertedModule(bert_artifact).save("anywhere")


def test_langchain(bert_artifact: Path) -> None:
    pytest.importorskip("langchain_core", reason=REASON)
    from sbertconv.integrations.langchain import SbertconvEmbeddings

    own, model = sbertconv.load(bert_artifact), SbertconvEmbeddings(bert_artifact)
    np.testing.assert_allclose(model.embed_documents(TEXTS), own.encode_document(TEXTS), atol=1e-6)
    np.testing.assert_allclose(model.embed_query(TEXTS[0]), own.encode_query(TEXTS[0]), atol=1e-6)


def test_llama_index(bert_artifact: Path) -> None:
    pytest.importorskip("llama_index.core", reason=REASON)
    from sbertconv.integrations.llama_index import SbertconvEmbedding

    own, model = sbertconv.load(bert_artifact), SbertconvEmbedding(bert_artifact)
    np.testing.assert_allclose(model.get_text_embedding_batch(TEXTS), own.encode_document(TEXTS), atol=1e-6)
    np.testing.assert_allclose(model.get_query_embedding(TEXTS[0]), own.encode_query(TEXTS[0]), atol=1e-6)


def test_haystack(bert_artifact: Path) -> None:
    pytest.importorskip("haystack", reason=REASON)
    from haystack import Document, Pipeline

    from sbertconv.integrations.haystack import SbertconvDocumentEmbedder, SbertconvTextEmbedder

    own, pipeline = sbertconv.load(bert_artifact), Pipeline()
    pipeline.add_component("documents", SbertconvDocumentEmbedder(str(bert_artifact)))
    found = pipeline.run({"documents": {"documents": [Document(content=text) for text in TEXTS]}})
    vectors = [document.embedding for document in found["documents"]["documents"]]
    np.testing.assert_allclose(vectors, own.encode_document(TEXTS), atol=1e-6)
    embedder = SbertconvTextEmbedder(str(bert_artifact))
    np.testing.assert_allclose(embedder.run(text=TEXTS[0])["embedding"], own.encode_query(TEXTS[0]), atol=1e-6)
    again = SbertconvTextEmbedder.from_dict(embedder.to_dict())
    assert again.run(text=TEXTS[0]) == embedder.run(text=TEXTS[0])
