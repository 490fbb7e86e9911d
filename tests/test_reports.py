"""What people report of converters and of what runs their files: each row is a small reproduction, and what is right.

Rows that have a home of their own are tested there: the limits of every file, consumers, SavedModel and TFSMLayer in
test_consumers.py, links of the Hub's cache in test_hostile.py, processes and pickles in test_travel.py, long texts in
test_lengths.py, rows of padding in test_padding.py, modular heads of rerankers in test_cross_encoder.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cases
import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from cases import st
from sentence_transformers import SentenceTransformer

import sbertconv
from sbertconv import SbertconvError

TEXTS = ["The quick brown fox", "a", "Berlin 2024: crêpes"]


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a table of 64 positions, on both engines."""
    folder = tmp_path_factory.mktemp("gpt2") / "model"
    sbertconv.to_onnx(tiny.architecture("gpt2"), folder, engines=["onnxruntime", "openvino"])
    return folder


def ones(length: int, rows: int = 1, mask: int | None = None) -> dict[str, np.ndarray[Any, Any]]:
    shape = (rows, length)
    return {"input_ids": np.full(shape, 7, np.int64), "attention_mask": np.ones((rows, mask or length), np.int64)}


WRONG_FEEDS = {
    "more tokens than positions": ones(74),
    "a mask shorter than the ids": ones(12, mask=9),
}


@pytest.mark.parametrize("feeds", WRONG_FEEDS.values(), ids=WRONG_FEEDS)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_refuses_tensors_that_the_model_cannot_take(
    engine: str, feeds: dict[str, np.ndarray[Any, Any]], gpt2_folder: Path
) -> None:
    (graph,) = sbertconv.load(gpt2_folder, engine=engine).graphs
    graph.run(ones(12))  # after a good call
    with pytest.raises(SbertconvError):
        graph.run(feeds)
    assert np.isfinite(graph.run(ones(12))["sentence_embedding"]).all()


CLASSES = ("BertTokenizer", "LlamaTokenizer", None)


@pytest.mark.parametrize("name", CLASSES)
def test_a_tokenizer_of_another_class_gives_the_tokens_of_encode(name: str | None, tmp_path: Path) -> None:
    """The library may make a tokenizer of its class and vocabulary and leave tokenizer.json aside."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny.transformer_folder("xlm-roberta"), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key != "tokenizer_class"}
    config |= {"tokenizer_class": name} if name else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        module = st.Transformer(str(folder))
        model = SentenceTransformer(modules=[module, cases.pooling()], device="cpu")
        expected = model.encode(TEXTS)
    except Exception as error:
        pytest.skip(f"the library itself cannot: {type(error).__name__}")
    converted = sbertconv.load(sbertconv.to_onnx(model, tmp_path / "model").folder)
    np.testing.assert_allclose(converted.encode(TEXTS), expected, atol=1e-5)


def test_token_types_are_taken_and_ignored_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = sbertconv.to_onnx(tiny.architecture("distilbert"), tmp_path / "model", token_type_ids=True).folder
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["input_ids", "token_type_ids", "attention_mask"]
    feeds = {**ones(9, rows=2), "token_type_ids": np.zeros((2, 9), np.int64)}
    (one,) = session.run(None, feeds)
    (other,) = session.run(None, {**feeds, "token_type_ids": np.ones((2, 9), np.int64)})
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("normalized", [True, False])
def test_a_vector_cut_by_its_config_is_as_long_as_the_library_leaves_it(normalized: bool, tmp_path: Path) -> None:
    modules = [cases.static_embedding(), *([st.Normalize()] if normalized else [])]
    model = cases.chain(*modules, truncate_dim=12, similarity_fn_name="dot")
    embedder = sbertconv.load(sbertconv.to_onnx(model, tmp_path / "model").folder)
    for options in (
        {},
        {"truncate_dim": 5},
        {"normalize_embeddings": True},
        {"truncate_dim": 5, "normalize_embeddings": True},
    ):
        found, expected = embedder.encode(TEXTS, **options), model.encode(TEXTS, **options)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(embedder.similarity(found, found), model.similarity(expected, expected), atol=1e-5)


def test_a_chain_of_denses_is_the_whole_answer_of_its_graph(tmp_path: Path) -> None:
    """Who pools token vectors by himself has no token vectors to pool."""
    model = cases.bert(cases.pooling(), cases.dense(16), cases.dense(8, in_features=16), st.Normalize())
    artifact = sbertconv.to_onnx(model, tmp_path / "model")
    session = onnxruntime.InferenceSession(artifact.folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape[1:]) for value in session.get_outputs()] == [("sentence_embedding", [8])]
    np.testing.assert_allclose(sbertconv.load(artifact.folder).encode(TEXTS), model.encode(TEXTS), atol=1e-5)


def test_every_length_and_one_long_among_short_ones_keep_the_vectors(bert_artifact: Path) -> None:
    embedder = sbertconv.load(bert_artifact)
    texts = [" ".join(["fox"] * count) for count in (*range(1, 40), 1, 2, 3)]
    together = embedder.encode(texts)
    np.testing.assert_allclose(together, np.stack([embedder.encode(text) for text in texts]), atol=1e-5)


def test_adapters_are_merged_or_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tiny.transformer_folder("bert")), "peft_type": "LORA"}),
        encoding="utf-8",
    )
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(sbertconv.SourceError):
        sbertconv.to_onnx(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()
