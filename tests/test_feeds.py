"""An answer belongs to its question: what a graph is fed with, and what it gives, is checked on every engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS

import sbertconv
from sbertconv import ArtifactError, SbertconvError, UnsupportedOptionError
from sbertconv.runtime.feeds import longest
from sbertconv.runtime.tokenization import Tensors

ENGINES = [("bert_artifact", "onnx", "onnxruntime"), ("bert_artifact", "onnx", "openvino")]
FORMATS = [("bert_keras", form, "auto") for form in ("keras", "saved_model", "litert", "onnx")]


@pytest.fixture
def one_core() -> Iterator[None]:
    """On one core OpenVINO leaves the last answer where it lies, in place of an error."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def every(change: Callable[[np.ndarray], Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: change(tensor) for name, tensor in tensors.items()}


def mask(change: Callable[[np.ndarray], Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, "attention_mask": change(tensors["attention_mask"])}


BAD: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "more tokens than the table": (every(lambda x: np.ones((2, 100), x.dtype)), r"100 tokens .have: up to 48"),
    "a shorter mask": (mask(lambda x: x[:, :-1]), r"attention_mask: int64 \[2, 5\], where sequence is 6"),
    "other rows": (mask(lambda x: x[:1]), r"attention_mask: int64 \[1, 6\], where batch is 2"),
    "no tokens": (every(lambda x: x[:, :0]), "no tokens"),
    "one text without its batch": (every(lambda x: x[0]), r"int64 \[6\] .have: \[batch, sequence\]"),
    "numbers that are not whole": (every(lambda x: x.astype(np.float32)), "input_ids: float32"),
    "a token below zero": (every(lambda x: x - 1), "-1 in it"),
    "a token without a row": (every(lambda x: x + 10**6), r"1\d{6} in it .have: numbers below \d+, which the table"),
    "nothing": (lambda tensors: {}, "input_ids, token_type_ids, attention_mask is missing .have: none"),
}


@pytest.mark.parametrize(("fixture", "form", "engine"), ENGINES)
def test_tensors_that_do_not_fit_are_an_error_that_names_what_is_due(
    fixture: str, form: str, engine: str, request: pytest.FixtureRequest, one_core: None
) -> None:
    model = sbertconv.load(request.getfixturevalue(fixture), format=form, engine=engine)
    tensors = model.tokenize(["the quick brown fox", "a"])
    before = model.graphs[0].run(tensors)
    for change, said in BAD.values():
        with pytest.raises(UnsupportedOptionError, match=said):
            model.graphs[0].run(change(tensors))
    after = model.graphs[0].run({**tensors, "another": np.zeros(3)})
    np.testing.assert_array_equal(before["sentence_embedding"], after["sentence_embedding"])


@pytest.mark.parametrize(("fixture", "form", "engine"), FORMATS)
def test_every_format_refuses_them(fixture: str, form: str, engine: str, request: pytest.FixtureRequest) -> None:
    model = sbertconv.load(request.getfixturevalue(fixture), format=form, engine=engine)
    tensors = model.tokenize(["the quick brown fox", "a"])
    assert model.graphs[0].run(tensors)["sentence_embedding"].shape == (2, 16)
    for name in ("more tokens than the table", "a shorter mask", "other rows"):
        with pytest.raises(UnsupportedOptionError, match=BAD[name][1].replace("int64", r"int\d\d")):
            model.graphs[0].run(BAD[name][0](tensors))


def test_an_answer_that_was_not_computed_is_an_error(
    bert_artifact: Path, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenVINO fails on one core: the call returns, and the last answer lies where the new one should."""
    import openvino

    model = sbertconv.load(bert_artifact, engine="openvino")
    model.encode(TEXTS)
    monkeypatch.setattr(openvino.InferRequest, "infer", lambda *args, **options: None)
    with pytest.raises(ArtifactError, match="it computed nothing"):
        model.encode(TEXTS)


@pytest.mark.parametrize(
    "answer",
    [{}, {"sentence_embedding": np.zeros((3, 16))}, {"sentence_embedding": np.zeros((2, 4))},
     {"sentence_embedding": np.zeros(16)}],
)  # fmt: skip
def test_an_answer_of_another_shape_is_an_error(answer: dict[str, np.ndarray], bert_artifact: Path) -> None:
    model = sbertconv.load(bert_artifact, engine="onnxruntime")
    graph = model.graphs[0]
    tensors = model.tokenize(["one", "two"])
    graph._run = lambda feeds: answer
    with pytest.raises(ArtifactError, match=r"as sentence_embedding, where \[2, 16\] is due"):
        graph.run(tensors)


def test_texts_for_a_graph_with_its_tokenizer_inside(bert_text_artifact: Path) -> None:
    graph = sbertconv.load(bert_text_artifact, engine="onnxruntime").graphs[0]
    assert len(graph.run({"text": np.array(["one", "two"], object)})["sentence_embedding"]) == 2
    for wrong in (np.array([[1, 2]]), np.array([["one"]], object)):
        with pytest.raises(SbertconvError, match="text"):
            graph.run({"text": wrong})


@pytest.mark.parametrize(
    ("section", "limit"),
    [
        (None, None),
        ({"max_length": None, "task_max_length": {"query": 8}}, None),
        ({"max_length": 20, "task_max_length": {"query": 32}}, 32),
        ({"max_length": 20, "task_max_length": {}, "query_expansion": {"length": 40}}, 40),
    ],
)
def test_the_longest_text_that_a_graph_was_proven_on(section: Any, limit: int | None) -> None:
    assert longest(section) == limit
