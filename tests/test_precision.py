"""Below float32: the recipes, the quality gate that guards them, and the engines that run them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from class_cases import splade
from conftest import TEXTS, Ran, snapshot

import sbertconv
from sbertconv import ParityError, UnsupportedOptionError
from sbertconv.benchmark.measuring import mixed_texts
from sbertconv.converters.onnx.precision import block_integers, block_scales
from sbertconv.corpus.texts import sentences
from sbertconv.parity import questions
from sbertconv.parity.quality import GATES, Gate, measure_quality

FEW = 150
# Precision -> bytes of the weights beside those in float32, at most; tiny matrices have many small weights beside them.
SIZES = {"bf16": 0.85, "fp16": 0.6, "int8": 0.75, "int4": 0.7}
ANY = {"min_cosine": 0.5, "min_spearman": 0.5, "min_top10": 0.1}  # tiny random models are no measure of quality
KINDS: dict[str, Callable[[], Any]] = {
    **{name: cases.CASES[name].build for name in ("t5", "modernbert", "router", "clip")},
    "sparse": lambda: splade("distilbert"),
}
OPEN_GATE = Gate(0.0, 0.0, 0.0, "everything passes")


@pytest.fixture
def few_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for the mechanism, without the wait for twelve hundred."""
    monkeypatch.setattr(questions, "sentences", lambda: sentences()[:FEW])


def graph_bytes(artifact: sbertconv.Artifact) -> int:
    return sum(file["size"] for name, file in artifact.manifest["files"].items() if name.startswith("onnx/"))


@pytest.mark.usefixtures("few_sentences")
@pytest.mark.parametrize("precision", SIZES)
def test_every_precision_is_smaller_and_says_how_good_it_is(
    precision: str, bert_folder: Path, bert_artifact: Path, tmp_path: Path
) -> None:
    artifact = sbertconv.to_onnx(bert_folder, tmp_path / "model", precision=precision, **ANY)
    exact = sbertconv.load(bert_artifact)
    assert graph_bytes(artifact) < SIZES[precision] * graph_bytes(exact.artifact)
    assert (artifact.manifest["precision"], artifact.manifest["gate"]["min_top10"]) == (precision, 0.1)
    quality = artifact.manifest["parity"]["quality"][0]
    assert quality["passed"]
    assert quality["texts"] == FEW
    assert 0.9 < quality["min_cosine"] <= quality["mean_cosine"] < 1
    vectors = sbertconv.load(artifact.folder, verify=True).encode(TEXTS)
    assert not np.array_equal(vectors, exact.encode(TEXTS))
    assert (vectors * exact.encode(TEXTS)).sum(axis=1).min() > 0.95


@pytest.mark.usefixtures("few_sentences")
@pytest.mark.parametrize("name", KINDS)
def test_int8_takes_every_kind_of_model(name: str, tmp_path: Path) -> None:
    artifact = sbertconv.to_onnx(KINDS[name](), tmp_path / "model", precision="int8", **ANY)
    texts = [graph for graph in artifact.manifest["graphs"] if graph["modality"] == "text"]
    found = artifact.manifest["parity"]["quality"]
    assert len(found) == len(texts)
    assert all(quality["min_cosine"] > 0.98 for quality in found)


@pytest.mark.usefixtures("few_sentences")
def test_a_weight_that_is_both_a_table_and_a_head_is_rounded_as_each(tmp_path: Path) -> None:
    artifact = sbertconv.to_onnx(splade("bert"), tmp_path / "model", precision="int4", **ANY)
    assert artifact.manifest["parity"]["quality"][0]["mean_cosine"] > 0.9


@pytest.mark.usefixtures("few_sentences")
def test_an_int8_vector_does_not_depend_on_its_batch(bert_folder: Path, tmp_path: Path) -> None:
    embedder = sbertconv.load(sbertconv.to_onnx(bert_folder, tmp_path / "model", precision="int8").folder)
    together = embedder.encode(TEXTS)
    alone = np.stack([embedder.encode(text) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.usefixtures("few_sentences")
def test_values_beyond_float16_stay_in_float32(tmp_path: Path) -> None:
    large = cases.dense(24, activation_function=torch.nn.Identity())
    with torch.no_grad():
        large.linear.weight *= 1e6
    model = cases.bert(cases.pooling(), large, cases.st.Normalize())
    artifact = sbertconv.to_onnx(model, tmp_path / "model", precision="fp16")
    assert artifact.manifest["parity"]["quality"][0]["min_cosine"] > GATES["fp16"].min_cosine
    assert np.isfinite(sbertconv.load(artifact.folder).encode(TEXTS)).all()


@pytest.mark.usefixtures("few_sentences")
def test_calibration_keeps_in_float32_what_only_your_texts_need(tmp_path: Path) -> None:
    rare = "模"  # a token that no text of sbertconv has
    embedding, large = cases.static_embedding(), cases.dense(24, activation_function=torch.nn.Identity(), bias=False)
    (token,) = {*embedding.tokenizer.encode(rare, add_special_tokens=False).ids}
    with torch.no_grad():
        embedding.embedding.weight[token] *= 1e3
        large.linear.weight *= 1e3
    model = cases.chain(embedding, large, cases.st.Normalize())
    without, calibrated = (
        graph_bytes(sbertconv.to_onnx(model, tmp_path / name, precision="fp16", calibration=texts, min_top10=0.0))
        for name, texts in (("without", []), ("with", [rare]))
    )
    assert calibrated > without + large.linear.weight.numel()  # two bytes more for each


@pytest.mark.usefixtures("few_sentences")
def test_a_failed_gate_publishes_nothing_and_says_what_to_try(static_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError) as raised:
        sbertconv.to_onnx(static_folder, tmp_path / "model", precision="int4", min_cosine=0.99999)
    message = str(raised.value)
    for words in ("cosine 0.9", "< 0.99999 (min_cosine=)", "precision= with more bits", "Nothing was written"):
        assert words in message
    assert snapshot(tmp_path) == {}


@pytest.mark.usefixtures("few_sentences")
def test_the_quality_on_each_engine_is_told_apart(static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    engines = ("--engine", "openvino", "--engine", "onnxruntime")
    ran = cli("to-onnx", static_folder, tmp_path / "model", "--precision", "int8", *engines)
    for engine in engines[1::2]:
        assert f"Quality on {FEW} sentences, {engine}: passed" in ran.out
    assert sbertconv.load(tmp_path / "model").artifact.manifest["block_size"] in (32, 64)  # OpenVINO rounds in these
    with pytest.raises(ParityError, match=r"^The quality is below the gate: openvino: cosine 0\.9"):
        sbertconv.to_onnx(static_folder, tmp_path / "no", precision="int4", min_cosine=0.99999, engines=engines[1::2])


@pytest.mark.usefixtures("few_sentences")
def test_your_own_texts_are_part_of_the_gate(bert_folder: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    (tmp_path / "own.txt").write_text("a text of mine\nanother one\n", encoding="utf-8")
    own = ("--eval", tmp_path / "own.txt", "--min-top10", "0.5")
    ran = cli("to-onnx", bert_folder, tmp_path / "model", "--precision", "int8", *own)
    assert ran.code == 0, ran.err
    assert f"Quality on {FEW + 2} sentences: passed" in ran.out
    assert "smallest cosine, alone and in a batch" in ran.out


@pytest.mark.parametrize("option", ["--eval", "--calibration"])
def test_a_file_without_texts_is_not_passed_over(
    option: str, static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    (tmp_path / "own.txt").touch()
    ran = cli("to-onnx", static_folder, tmp_path / "model", "--precision", "int8", option, tmp_path / "own.txt")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"{tmp_path / 'own.txt'}: no texts in it.\nCheck the file, or leave the option out.\n"
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int3"}, r"precision='int3' is not known \(have: fp32, bf16, fp16, int8, int4\)"),
        ({"min_cosine": 0.9, "texts": ["a"]}, "min_cosine=, texts=: fp32 is held to"),
        ({"precision": "int8", "atol": 1e-3}, "atol=: int8 is held to a quality gate"),
        ({"precision": "int8", "optimize": False}, "optimize=False: int8 weights need"),
        (
            {"precision": "int8", "outputs": ["token_embeddings"]},
            r"outputs=\['token_embeddings'\] alone: the quality of int8",
        ),
        ({"precision": "int8", "calibration": ["a"]}, r"calibration=: int8 looks at no values .* \(have: fp16\)"),
        ({"engines": ["tensorrt"]}, r"engines='tensorrt' is not known \(have: onnxruntime, openvino\)"),
        ({"engines": []}, r"engines=\[\]: each at most once, and not none \(have: onnxruntime, openvino\)"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, static_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedOptionError, match=message):
        sbertconv.to_onnx(static_folder, tmp_path / "model", **options)
    assert snapshot(tmp_path) == {}


# The measure


def vectors(count: int = 40, dim: int = 16) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)


def test_equal_vectors_have_every_quality() -> None:
    a = vectors()
    report = measure_quality([str(i) for i in range(len(a))], a, a * 3, {0: a[0]}, GATES["bf16"])
    found = (report.min_cosine, report.spearman, report.top1, report.top10, report.batch_cosine)
    np.testing.assert_allclose(found, 1, atol=1e-6)
    assert report.passed


def test_one_bad_text_is_found_and_named() -> None:
    a = vectors()
    b = a.copy()
    b[7] = -b[7]
    report = measure_quality([f"text {i}" for i in range(len(a))], a, b, {0: a[0]}, GATES["int8"])
    assert (report.worst_text, round(report.min_cosine, 3)) == ("text 7", -1)
    assert report.problems[0].startswith("cosine -1.0000 < 0.99 (min_cosine=)")


def test_a_vector_that_is_not_a_number_never_passes() -> None:
    a = vectors()
    b = a.copy()
    b[3, 2] = np.nan
    assert not measure_quality(["text"] * len(a), a, b, {0: a[0]}, OPEN_GATE).passed


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("columns", "block"), [(64, 32), (48, 32), (16, 16), (130, 64)])
def test_rounding_stays_within_half_a_step(bits: int, columns: int, block: int) -> None:
    rows = vectors(5, columns)
    rows[2] = 0
    packed, scales = block_integers(rows, bits, block), block_scales(rows, bits, block)
    integers = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(*scales.shape, block)
    restored = (integers.astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]
    error = np.abs(restored.reshape(5, -1)[:, :columns] - rows)
    step = np.repeat(np.abs(scales), block, axis=1)[:, :columns]
    assert (error <= step + 1e-6).all()  # the number farthest from zero on the other side may lack one step
    assert (error <= step / 2 + 1e-6).mean() > 0.9


# Engines


@pytest.fixture(scope="session")
def both_engines(built_once: Any, bert_folder: Path) -> Path:
    """The BERT model as an ONNX graph that was proven on both engines; do not write to it."""
    engines = ("onnxruntime", "openvino")
    return Path(built_once("bert-engines", lambda folder: sbertconv.to_onnx(bert_folder, folder, engines=engines)))


def test_one_graph_runs_on_both_engines(both_engines: Path) -> None:
    found = {name: sbertconv.load(both_engines, engine=name).encode(TEXTS) for name in ("onnxruntime", "openvino")}
    np.testing.assert_allclose(found["openvino"], found["onnxruntime"], atol=1e-5)
    checks = {check["name"] for check in sbertconv.load(both_engines).artifact.manifest["parity"]["checks"]}
    assert {"onnxruntime: padded batch", "openvino: padded batch", "tokens"} <= checks


def test_auto_takes_what_the_graph_was_proven_on(both_engines: Path, bert_artifact: Path) -> None:
    assert sbertconv.load(both_engines).engine == "openvino"
    assert sbertconv.load(bert_artifact).engine == "onnxruntime"


def test_an_engine_that_cannot_run_the_format_is_refused(bert_artifact: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"'keras' does not run onnx \(have: auto, openvino, onnxruntime"):
        sbertconv.load(bert_artifact, engine="keras")


def test_batches_side_by_side_give_the_same(both_engines: Path, bert_artifact: Path) -> None:
    texts = mixed_texts(100)
    for engine in ("onnxruntime", "openvino"):
        one, three = (sbertconv.load(both_engines, engine=engine, parallel=count) for count in (1, 3))
        np.testing.assert_allclose(three.encode(texts, batch_size=4), one.encode(texts, batch_size=4), atol=1e-6)
    with pytest.raises(UnsupportedOptionError, match=r"parallel=0 with the engine onnxruntime"):
        sbertconv.load(bert_artifact, engine="onnxruntime", parallel=0)


def test_openvinos_own_files(bert_folder: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    from sentence_transformers import SentenceTransformer

    ran = cli("to-openvino", bert_folder, tmp_path / "model")
    assert ran.code == 0, ran.err
    embedder = sbertconv.load(tmp_path / "model", verify=True)
    assert (embedder.format, embedder.engine) == ("openvino", "openvino")
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embedder.encode(TEXTS), expected, atol=1e-5)
    assert {"openvino/openvino_model.xml", "openvino/openvino_model.bin"} <= set(embedder.artifact.manifest["files"])
