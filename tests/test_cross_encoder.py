"""Rerankers and classifiers: CrossEncoder folders, live ones, bare checkpoints. About 30 s, most of it conversions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from class_cases import LABELS, PAIRS, YES_OR_NO, causal_reranker, cross_encoder, sentiment
from conftest import Ran
from sentence_transformers import CrossEncoder
from sentence_transformers.sentence_transformer import modules as st
from transformers import pipeline

import sbertconv
from sbertconv.artifact.folder import Artifact
from sbertconv.benchmark import QUICK, benchmark
from sbertconv.parity.quality import GATES, RANKED, QualityReport, measure_ranking
from sbertconv.runtime.engines import load_keras_model
from sbertconv.runtime.predicting import Reranker, TextClassifier

TEXTS = ["The quick brown fox jumps.", "", "Berlin " * 80]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[CrossEncoder, Path, Reranker]:
    """A saved CrossEncoder with a prompt, its folder, and what it was converted to."""
    here = tmp_path_factory.mktemp("bert")
    model = cross_encoder("bert", 1, prompts={"search": "query: "})
    model.save_pretrained(str(here / "saved"))
    artifact = sbertconv.to_onnx(here / "saved", here / "onnx")
    return model, here / "saved", sbertconv.load(artifact.folder)


def test_predict_has_the_keywords_and_values_of_cross_encoder(bert: tuple[CrossEncoder, Path, Reranker]) -> None:
    model, _, converted = bert
    for options in (
        {},
        {"batch_size": 2},
        {"activation_fn": torch.nn.Identity()},
        {"activation_fn": torch.nn.Tanh()},
        {"prompt_name": "search"},
        {"prompt": "a prompt "},
        {"apply_softmax": True},
    ):
        theirs, ours = model.predict(PAIRS, **options), converted.predict(PAIRS, **options)
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5, err_msg=str(options))
    named = converted.predict(PAIRS, activation_fn="identity")
    np.testing.assert_array_equal(named, converted.predict(PAIRS, activation_fn=lambda logits: logits))
    assert converted.predict(PAIRS[0]).shape == model.predict(PAIRS[0]).shape == ()
    assert converted.predict(list(PAIRS[0])) == converted.predict(PAIRS[0])
    np.testing.assert_allclose(converted.predict("one text"), model.predict("one text"), atol=1e-5)
    for array in (np.array(PAIRS[0]), np.array(PAIRS), np.array(PAIRS, dtype=object)):
        theirs, ours = model.predict(array), converted.predict(array)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(converted.logits("one text"), converted.logits(["one text"]))
    assert converted.predict([]).shape == (0,)
    tensors = converted.predict(PAIRS, convert_to_tensor=True), converted.predict(PAIRS, convert_to_numpy=False)
    assert torch.equal(tensors[0], torch.stack(tensors[1]))


def test_rank_gives_what_cross_encoder_gives(bert: tuple[CrossEncoder, Path, Reranker]) -> None:
    model, _, converted = bert
    documents = [document for _, document in PAIRS]
    for options in ({}, {"top_k": 2}, {"return_documents": True, "prompt_name": "search"}):
        theirs, ours = (one.rank("people in Berlin", documents, **options) for one in (model, converted))
        assert [set(row) for row in ours] == [set(row) for row in theirs]
        assert [(row["corpus_id"], row.get("text")) for row in ours] == [
            (row["corpus_id"], row.get("text")) for row in theirs
        ]
        np.testing.assert_allclose([row["score"] for row in ours], [row["score"] for row in theirs], atol=1e-5)


@pytest.mark.parametrize("made", [list, tuple, np.array, lambda texts: np.array(texts, object), lambda texts: []])
@pytest.mark.parametrize("top_k", [None, 0, 2, 100, -1])
def test_rank_has_the_types_of_cross_encoder(
    made: Callable[[list[str]], Any], top_k: int | None, bert: tuple[CrossEncoder, Path, Reranker]
) -> None:
    model, _, converted = bert
    documents = made(["Berlin", "a fox", "Berlin", "people"])  # of equal scores the first one comes first
    theirs, ours = (
        one.rank("a city", documents, top_k=top_k, return_documents=True, activation_fn=torch.nn.Identity())
        for one in (model, converted)
    )
    assert [[(name, type(value)) for name, value in row.items()] for row in ours] == [
        [(name, type(value)) for name, value in row.items()] for row in theirs
    ]
    assert [(row["corpus_id"], row["text"]) for row in ours] == [(row["corpus_id"], row["text"]) for row in theirs]


@pytest.mark.parametrize(
    "options", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}, {"apply_softmax": True}], ids=str
)
@pytest.mark.parametrize(
    "inputs", [PAIRS, PAIRS[0], list(PAIRS[0]), [], ("a", "b"), [["a", "b"]], "a"], ids=lambda one: repr(one)[:40]
)
def test_predict_has_the_types_of_cross_encoder(
    inputs: Any, options: dict[str, bool], bert: tuple[CrossEncoder, Path, Reranker]
) -> None:
    model, _, converted = bert
    theirs, ours = (one.predict(inputs, **options) for one in (model, converted))
    assert type(ours) is type(theirs)
    if isinstance(theirs, list):
        assert [(type(one), one.dtype, one.shape) for one in ours] == [
            (type(one), one.dtype, one.shape) for one in theirs
        ]
    elif hasattr(theirs, "shape"):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)


def test_the_parity_covers_pairs_texts_and_their_tokens(bert: tuple[CrossEncoder, Path, Reranker]) -> None:
    model, folder, converted = bert
    manifest = converted.artifact.manifest
    assert not manifest["sees_padding"]
    assert (manifest["model_class"], manifest["num_labels"], manifest["activation"]) == ("CrossEncoder", 1, "sigmoid")
    (graph,) = manifest["graphs"]
    assert graph["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 1]}]
    assert [tensor["name"] for tensor in graph["inputs"]] == ["input_ids", "token_type_ids", "attention_mask"]
    names = {check["name"] for check in manifest["parity"]["checks"]}
    assert {"pairs: tokens", "texts: tokens", "pairs over the limit", "pairs, prompt search"} <= names
    assert converted.tokenize([PAIRS[0]])["token_type_ids"].max() == 1
    assert converted.tokenize([PAIRS[3]])["input_ids"].shape[1] == model.max_seq_length
    report = sbertconv.verify(folder, converted.artifact.folder)
    assert report.passed
    assert report.method == "predict"


def test_what_cannot_be_asked_is_an_error(bert: tuple[CrossEncoder, Path, Reranker]) -> None:
    _, _, converted = bert
    for wrong, message in (
        (lambda: converted.predict(PAIRS, activation_fn="swish"), "'swish'.*have: identity, sigmoid"),
        (lambda: converted.predict([("a", 1)]), "Input 0"),
        (lambda: converted.predict(None), r"NoneType.*have: texts, pairs"),
        (lambda: converted.predict({"no text": "a"}), r"dict of 'no text' \(have: 'text' alone"),
        (lambda: converted.predict([("a", "b", "c")]), "Input 0"),
        (lambda: converted.predict(PAIRS, prompt_name="no"), "'no'.*have: search"),
        (lambda: converted.predict(PAIRS, device="cuda"), "'cuda'"),
        (lambda: converted.predict([("a", "b\ud800")]), "surrogate"),
    ):
        with pytest.raises(sbertconv.UnsupportedOptionError, match=message):
            wrong()


def test_what_is_not_converted_is_refused(bert: tuple[CrossEncoder, Path, Reranker], tmp_path: Path) -> None:
    _, folder, _ = bert
    for options, message in (
        ({"outputs": ["sentence_embedding"]}, r"outputs=.*: each of logits, scores"),
        ({"token_type_ids": False}, "token_type_ids=False"),
    ):
        with pytest.raises(sbertconv.UnsupportedOptionError, match=message):
            sbertconv.to_onnx(folder, tmp_path / "onnx", **options)
    settings = folder / "config_sentence_transformers.json"
    before = settings.read_text(encoding="utf-8")
    settings.write_text(before.replace('"CrossEncoder"', '"NoEncoder"'), encoding="utf-8")
    try:
        with pytest.raises(sbertconv.SourceError, match=r"NoEncoder.*have: SentenceTransformer, .*CrossEncoder"):
            sbertconv.inspect(folder)
    finally:
        settings.write_text(before, encoding="utf-8")
    assert not list(tmp_path.iterdir())


def test_several_labels(tmp_path: Path) -> None:
    model = cross_encoder("roberta", 3)
    converted = sbertconv.load(sbertconv.to_onnx(model, tmp_path / "onnx").folder)
    ours, theirs = (one.predict(PAIRS, apply_softmax=True) for one in (converted, model))
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    with pytest.raises(sbertconv.UnsupportedOptionError, match="3 labels"):
        converted.rank("a", ["b"])


@pytest.fixture(scope="module")
def log_sigmoid() -> CrossEncoder:
    """A modular head with an activation that numpy has no name for."""
    transformer = tiny.transformer("distilbert", n_layers=1)
    torch.manual_seed(3)
    dense = st.Dense(32, 2, activation_function=torch.nn.Identity(), module_output_name="scores")
    modules = [transformer, st.Pooling(32, "mean"), dense]
    return CrossEncoder(modules=modules, device="cpu", activation_fn=torch.nn.LogSigmoid())


@pytest.mark.parametrize("convert", [sbertconv.to_onnx, sbertconv.to_openvino, sbertconv.to_tf, sbertconv.to_torch])
def test_an_activation_as_an_output(
    convert: Callable[..., Artifact], log_sigmoid: CrossEncoder, tmp_path: Path
) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match=r"LogSigmoid is not known.*\n.*activation=True"):
        convert(log_sigmoid, tmp_path / "none")
    artifact = convert(log_sigmoid, tmp_path / "converted", activation=True)
    assert [output["name"] for output in artifact.manifest["graphs"][0]["outputs"]] == ["logits", "scores"]
    expected = log_sigmoid.predict(PAIRS)
    for form in artifact.formats:
        found = sbertconv.load(artifact.folder, format=form).predict(PAIRS)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("convert", [sbertconv.to_onnx, sbertconv.to_openvino, sbertconv.to_tf, sbertconv.to_torch])
def test_an_activation_that_gives_the_logits_back_is_an_output_too(
    convert: Callable[..., Artifact], log_sigmoid: CrossEncoder, tmp_path: Path
) -> None:
    model = CrossEncoder(modules=list(log_sigmoid), device="cpu", activation_fn=torch.nn.Identity())
    artifact = convert(model, tmp_path / "converted", activation=True)
    assert [output["name"] for output in artifact.manifest["graphs"][0]["outputs"]] == ["logits", "scores"]
    assert not any("fused" in note for note in artifact.manifest["notes"])
    found = sbertconv.load(artifact.folder, format=artifact.formats[0]).predict(PAIRS)
    np.testing.assert_allclose(found, model.predict(PAIRS), atol=1e-5, rtol=1e-5)


def test_a_classifier_goes_back_to_its_own_checkpoint(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    folder = sentiment("bert")
    ran = cli("to-tf", folder, tmp_path / "keras", "--format", "keras", "--activation")
    assert (ran.code, ran.said) == (0, "")
    model = load_keras_model(tmp_path / "keras/keras/model.keras")
    assert set(model.output_names) == {"logits", "scores"}
    ran = cli("to-st", tmp_path / "keras", tmp_path / "back")
    assert ran.code == 0
    assert f"transformers.pipeline('text-classification', '{tmp_path / 'back'}')" in ran.out
    assert not (tmp_path / "back/modules.json").exists()
    answers = [
        pipeline("text-classification", str(one), device="cpu")(TEXTS[:2]) for one in (folder, tmp_path / "back")
    ]
    for before, after in zip(*answers, strict=True):
        assert (before["label"], after["score"]) == (after["label"], pytest.approx(before["score"], abs=1e-6))
    assert sbertconv.inspect(tmp_path / "back")["model_class"] == "TextClassifier"
    with pytest.raises(sbertconv.ArtifactError, match="Open it with transformers"):
        sbertconv.load(tmp_path / "back")


def test_a_bare_classifier_labels_texts_as_the_pipeline_does(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    folder = sentiment("bert")
    ran = cli("to-onnx", folder, tmp_path / "onnx", "--activation")
    assert (ran.code, ran.said) == (0, "")
    assert "converted as a classifier of texts" in ran.out
    assert "Parity with predict()" in ran.out
    converted = sbertconv.load(tmp_path / "onnx")
    assert isinstance(converted, TextClassifier)
    assert converted.labels == list(LABELS.values())
    theirs = pipeline("text-classification", str(folder), device="cpu")
    for options in ({}, {"top_k": None}, {"function_to_apply": "sigmoid"}, {"function_to_apply": "none", "top_k": 2}):
        found = converted.predict(TEXTS, **options)
        expected = theirs(TEXTS, truncation=True, **options)
        ours, other = (one if "top_k" in options else [[row] for row in one] for one in (found, expected))
        assert [[row["label"] for row in rows] for rows in ours] == [[row["label"] for row in rows] for rows in other]
        scores = [[row["score"] for rows in one for row in rows] for one in (ours, other)]
        np.testing.assert_allclose(*scores, atol=1e-5)
    assert converted.predict(TEXTS[:1], function_to_apply="NONE") == converted.predict(
        TEXTS[:1], function_to_apply="none"
    )
    with pytest.raises(sbertconv.UnsupportedOptionError, match=r"dict of 'text', 'text_pair'"):
        converted.predict({"text": "a", "text_pair": "b"})  # not the labels of its keys
    pairs = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(converted.logits(PAIRS), pairs, atol=1e-5, rtol=1e-5)
    ran = cli("predict", tmp_path / "onnx", *TEXTS[:2])
    assert [json.loads(line) for line in ran.out.splitlines()] == converted.predict(TEXTS[:2])
    assert cli("encode", tmp_path / "onnx", "a text").code == 1


def test_the_command_line_scores_pairs(
    bert: tuple[CrossEncoder, Path, Reranker], tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    model, folder, converted = bert
    here = converted.artifact.folder
    expected = model.predict(PAIRS)
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"q": q, "d": d}) + "\n" for q, d in PAIRS), encoding="utf-8")
    ran = cli("predict", here, "--input", file, "--column", "q", "--column", "d")
    assert (ran.code, ran.err) == (0, "")
    np.testing.assert_allclose([json.loads(line) for line in ran.out.splitlines()], expected, atol=1e-5)
    ran = cli("predict", here, "--query", PAIRS[0][0], PAIRS[0][1], PAIRS[1][1])
    np.testing.assert_allclose([json.loads(line) for line in ran.out.splitlines()], expected[:2], atol=1e-5)
    described = json.loads(cli("inspect", folder, "--json").out)
    assert {described[key] for key in ("model_class", "num_labels", "activation")} == {"CrossEncoder", 1, "sigmoid"}
    assert not any(backend["problem"] for backend in described["modules"][0]["backends"].values())
    assert "num labels: 1" in cli("inspect", folder).out


def test_a_causal_reranker_multiplies_two_rows_of_its_head(tmp_path: Path) -> None:
    import onnx

    model = causal_reranker(chat_template=YES_OR_NO)
    artifact = sbertconv.to_onnx(model, tmp_path / "onnx")
    names = {check["name"] for check in artifact.manifest["parity"]["checks"]}
    assert {"pairs: tokens", "pairs, prompt web", "pairs over the limit"} <= names
    graph = onnx.load(artifact.folder / "onnx/model.onnx").graph
    size = len(model.tokenizer)
    assert [list(weight.dims) for weight in graph.initializer if size in weight.dims] == [[size, 32]]
    converted = sbertconv.load(artifact.folder)
    for options in ({}, {"prompt_name": "web"}, {"prompt": "Is it?"}):
        ours, theirs = converted.predict(PAIRS, **options), model.predict(PAIRS, **options)
        assert np.ptp(theirs) > 0.01
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_gate_of_a_smaller_reranker_is_about_ranked_lists(
    bert: tuple[CrossEncoder, Path, Reranker], tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    _, folder, _ = bert
    ran = cli("to-onnx", folder, tmp_path / "int8", "--precision", "int8")
    assert (ran.code, ran.said) == (0, "")
    assert "Quality on 1,150 inputs in ranked lists: passed" in ran.out
    (quality,) = sbertconv.load(tmp_path / "int8").artifact.manifest["parity"]["quality"]
    assert 0.99 < quality["min_cosine"] < 0.999999
    assert quality["of"] == "lists"


@pytest.mark.parametrize("documents", [5, None, 1.5, object()])
def test_documents_that_are_none_are_an_error_of_ours(documents: Any, bert: tuple[Any, Path, Reranker]) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match="is not supported"):
        bert[2].rank("a query", documents)


@pytest.mark.parametrize("activation", [5, [], b"sigmoid"])
def test_an_activation_that_is_no_function_is_an_error_of_ours(
    activation: Any, bert: tuple[Any, Path, Reranker]
) -> None:
    for call in (bert[2].predict, lambda pairs, **options: bert[2].rank(*pairs, **options)):
        with pytest.raises(sbertconv.UnsupportedOptionError, match="activation_fn="):
            call(("a query", "a document"), activation_fn=activation)


def test_bench_asks_a_reranker_pairs(bert: tuple[CrossEncoder, Path, Reranker]) -> None:
    _, folder, converted = bert
    report = benchmark(folder, [converted.artifact.folder], settings=QUICK, threads=1)
    figures = [figure for figure in report.figures if figure.quantity == "min_cosine"]
    assert [figure.contestant for figure in figures] == ["PyTorch", "ONNX Runtime fp32"]
    assert [figure.value for figure in figures] == pytest.approx([1, 1], abs=1e-6)
    lengths = {figure.length for figure in report.figures if figure.quantity == "latency_p50"}
    assert min(lengths) > min(QUICK.lengths)
    assert any("shorter ones are left out" in note for note in report.notes)


def test_the_order_of_logits_is_what_the_gate_sees() -> None:
    random = np.random.default_rng(0)
    inputs = [(f"query {place // RANKED}", f"document {place}") for place in range(10 * RANKED)]
    logits = random.normal(size=(len(inputs), 1)).astype(np.float32)

    def measured(converted: np.ndarray, items: Sequence[Any] = inputs) -> QualityReport:
        alone = {index: converted[index] for index in range(0, len(items), 8)}
        return measure_ranking(items, logits[: len(items)], converted, alone, GATES["int8"])

    same = measured(logits * 3 + 5)  # another scale ranks the same
    assert (same.passed, same.top1, same.top10) == (True, 1.0, 1.0)
    assert same.spearman == pytest.approx(1)
    noisy = measured(logits + random.normal(size=logits.shape).astype(np.float32) * 0.3)
    assert len(noisy.problems) == 3
    assert not measured(np.zeros_like(logits)).passed
    one_query = logits.copy()
    one_query[RANKED : 2 * RANKED] *= -1
    worst = measured(one_query)
    assert (worst.min_cosine, worst.worst_text) == (pytest.approx(-1), "query 1")
    logits[RANKED : 2 * RANKED] = 0.5  # nothing to rank
    assert measured(logits + random.normal(size=logits.shape).astype(np.float32) * 1e-6).passed
    texts = [document for _, document in inputs]
    assert measured(logits, texts).passed


def test_keras_and_back(bert: tuple[CrossEncoder, Path, Reranker], tmp_path: Path) -> None:
    model, folder, _ = bert
    artifact = sbertconv.to_tf(folder, tmp_path / "keras", formats=["keras", "saved_model"])
    expected = model.predict(PAIRS)
    for form in artifact.formats:
        found = sbertconv.load(artifact.folder, format=form).predict(PAIRS)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    assert sbertconv.to_st(artifact.folder, tmp_path / "back").passed
    back = CrossEncoder(str(tmp_path / "back"), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(back, expected, rtol=1e-6)


def test_torch_runs_a_reranker_too(bert: tuple[CrossEncoder, Path, Reranker], tmp_path: Path) -> None:
    model, folder, _ = bert
    artifact = sbertconv.to_torch(folder, tmp_path / "torch")
    found = sbertconv.load(artifact.folder, format="torch").predict(PAIRS)
    np.testing.assert_allclose(found, model.predict(PAIRS), atol=1e-6)
    pipe = sbertconv.pipeline(folder, outputs=["logits", "scores"])
    tensors = {name: value for name, value in model.preprocess(PAIRS).items() if name in pipe.inputs}
    with torch.no_grad():
        found = pipe(**tensors)
    np.testing.assert_allclose(found["scores"].numpy()[:, 0], model.predict(PAIRS), atol=1e-6)
