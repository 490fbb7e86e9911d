"""The rows of the table beyond one ONNX graph of token ids: other classes, other formats, strings in."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
import class_cases
import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from conftest import change_manifest, importable
from sentence_transformers.sentence_transformer import modules as st

import sbertconv
from sbertconv import consumers
from sbertconv.consumers import packing
from sbertconv.consumers.lookups import plain_lookups
from sbertconv.consumers.opening import opens
from sbertconv.parity import quality

TEXTS = [*tiny.LINES[:4], "one"]


@pytest.fixture(scope="module")
def torch_artifact(built_once: Any, bert_folder: Path) -> Path:
    """The BERT model as a program of PyTorch; do not write to it."""
    return Path(built_once("bert-torch", lambda folder: sbertconv.to_torch(bert_folder, folder)))


@pytest.fixture(scope="module")
def reranker_artifact(built_once: Any) -> Path:
    """A CrossEncoder with both outputs, scores first; do not write to it."""
    model = lambda: class_cases.cross_encoder("bert", 1)  # noqa: E731
    outputs = ["scores", "logits"]
    return Path(built_once("reranker-onnx", lambda folder: sbertconv.to_onnx(model(), folder, outputs=outputs)))


@pytest.fixture(scope="module")
def splade_artifact(built_once: Any) -> Path:
    """A SPLADE model; do not write to it."""
    return Path(built_once("splade-onnx", lambda folder: sbertconv.to_onnx(class_cases.splade("bert"), folder)))


@pytest.fixture(scope="module")
def colbert_artifact(built_once: Any) -> Path:
    """A model of late interaction with BERT's numbers; do not write to it."""
    return Path(built_once("colbert-onnx", lambda folder: sbertconv.to_onnx(class_cases.colbert(), folder)))


def packed_for(artifact: Path, target: Path, *names: str) -> sbertconv.Artifact:
    packed = sbertconv.pack(artifact, target, names)
    assert list(packed.manifest["consumers"]) == list(names)
    assert all(proof["max_abs_diff"] < 1e-5 for proof in packed.manifest["consumers"].values())
    return packed


def test_a_reranker_is_packed(reranker_artifact: Path, tmp_path: Path) -> None:
    packed = packed_for(reranker_artifact, tmp_path / "packed", "fastembed", "text-embeddings-inference")
    pairs = [("a", "b"), ("one text", "another")]
    expected = sbertconv.load(reranker_artifact).predict(pairs)
    np.testing.assert_array_equal(sbertconv.load(packed.folder).predict(pairs), expected)


def test_a_sparse_encoder_is_packed_as_logits_that_are_pooled_again(splade_artifact: Path, tmp_path: Path) -> None:
    packed = packed_for(splade_artifact, tmp_path / "packed", "fastembed", "vespa")
    for file in ("model.onnx", "vespa/splade.onnx"):
        (output,) = onnxruntime.InferenceSession(str(packed.folder / file)).get_outputs()
        assert output.shape[:2] == ["batch", 1]
    assert len(onnxruntime.InferenceSession(str(packed.folder / "vespa/splade.onnx")).get_inputs()) == 3
    assert 'type="splade-embedder"' in (packed.folder / "vespa/services.xml").read_text(encoding="utf-8")


def test_late_interaction_is_packed_for_both_that_know_its_markers(colbert_artifact: Path, tmp_path: Path) -> None:
    packed = packed_for(colbert_artifact, tmp_path / "packed", "fastembed", "vespa")
    (output,) = onnxruntime.InferenceSession(str(packed.folder / "fastembed/model.onnx")).get_outputs()
    assert output.name == "token_embeddings"
    said = (packed.folder / "vespa/services.xml").read_text(encoding="utf-8")
    assert 'type="colbert-embedder"' in said
    assert "<max-query-tokens>32</max-query-tokens>" in said
    expected = sbertconv.load(colbert_artifact).encode_query(TEXTS)
    for ours, theirs in zip(sbertconv.load(packed.folder).encode_query(TEXTS), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fastembed", "fills every query up to 32 tokens that are not attended to"),
        ("vespa", "fills queries up with tokens that are not attended to"),
    ],
)
def test_late_interaction_without_its_expansion_is_refused(
    name: str, expected: str, copy_of: Any, colbert_artifact: Path, tmp_path: Path
) -> None:
    folder = change_manifest(
        copy_of(colbert_artifact), lambda said: said["graphs"][0]["tokenizer"].update(query_expansion=None)
    )
    with pytest.raises(sbertconv.UnsupportedOptionError, match=expected):
        sbertconv.pack(folder, tmp_path / "packed", [name])


def test_other_markers_are_found_out(copy_of: Any, colbert_artifact: Path, tmp_path: Path) -> None:
    folder = change_manifest(copy_of(colbert_artifact), lambda said: said["prompts"].update(query="[unused1]"))
    with pytest.raises(sbertconv.ParityError, match="vespa does not give"):
        sbertconv.pack(folder, tmp_path / "packed", ["vespa"])
    assert not (tmp_path / "packed").exists()


def loose(folder: Path, precision: str, trained: bool = False) -> Path:
    """A model in a precision that so few and random weights would not pass the gate in."""
    model = cases.bert(cases.pooling(), st.Normalize(), config={"num_hidden_layers": 1})
    if trained:
        with torch.no_grad():
            for one in model.parameters():
                one.add_(torch.randn(one.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    bounds = {} if precision == "fp32" else {"min_cosine": 0.5, "min_spearman": 0.5, "min_top10": 0.1}
    return sbertconv.to_onnx(model, folder / precision, precision=precision, **bounds).folder


@pytest.fixture(scope="module")
def precisions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in two precisions; do not write to them."""
    folder = tmp_path_factory.mktemp("precisions")
    return {precision: loose(folder, precision) for precision in ("fp32", "int8")}


def test_several_precisions_lie_in_one_folder(precisions: dict[str, Path], cli: Any, tmp_path: Path) -> None:
    target = tmp_path / "packed"
    ran = cli("pack", precisions["fp32"], target, "--for", "transformers.js", "--with", precisions["int8"])
    assert ran.code == 0, ran.err
    assert "int8: onnx/model_quantized.onnx, cosine " in ran.out
    said = json.loads((target / "config.json").read_text(encoding="utf-8"))["transformers.js_config"]
    assert said == {"dtype": "fp32", "use_external_data_format": {"model.onnx": 0}}
    proof = sbertconv.load(target).artifact.manifest["consumers"]["transformers.js"]
    assert proof["over_limit"]
    assert proof["precisions"]["int8"]["max_abs_diff"] < 1e-5
    assert proof["precisions"]["int8"]["min_cosine"] > 0.5
    assert "| transformers.js | int8 | `onnx/model_quantized.onnx` |" in (target / "README.md").read_text("utf-8")
    for folder, file in ((precisions["fp32"], "model"), (precisions["int8"], "model_quantized")):
        session = onnxruntime.InferenceSession(str(target / f"onnx/{file}.onnx"))
        model = sbertconv.load(folder)
        # Its cut: the first tokens of a text, without the last special one.
        tokens = model.tokenize([" ".join(tiny.LINES) * 2])
        tokens["input_ids"][0, -1] = 7
        (found,) = session.run(
            ["last_hidden_state"], {value.name: tokens[value.name] for value in session.get_inputs()}
        )
        np.testing.assert_allclose(found[0, 5], model.encode(" ".join(tiny.LINES) * 2), atol=1e-5)


@pytest.mark.parametrize(
    ("others", "name", "expected"),
    [
        (["int8", "int8"], "transformers.js", "int8 is there already"),
        (["fp32"], "transformers.js", "fp32 is there already"),
        (["int8"], "triton", r"no consumer opens int8 beside another one \(have: none\)"),
    ],
)
def test_precisions_that_do_not_fit_are_refused(
    others: list[str], name: str, expected: str, precisions: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match=expected):
        sbertconv.pack(
            precisions["fp32"], tmp_path / "packed", [name], precisions=[precisions[other] for other in others]
        )


def test_a_precision_of_another_model_is_refused(
    precisions: dict[str, Path], bert_artifact: Path, tmp_path: Path
) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match="not the same model as"):
        sbertconv.pack(bert_artifact, tmp_path / "packed", ["transformers.js"], precisions=[precisions["int8"]])


def test_a_precision_of_other_weights_is_refused(precisions: dict[str, Path], tmp_path: Path) -> None:
    """Of a model that was trained on between the two conversions: name, settings and modules are the same."""
    other = loose(tmp_path, "int8", trained=True)
    with pytest.raises(sbertconv.UnsupportedOptionError, match="not the weights of") as caught:
        sbertconv.pack(precisions["fp32"], tmp_path / "packed", ["transformers.js"], precisions=[other])
    assert str(other) in str(caught.value)
    assert str(precisions["fp32"]) in str(caught.value)
    assert re.search(r"vectors of '.+' have the cosine -?0\.\d{4} \(have: 0\.\d{4} and more", str(caught.value))
    assert not (tmp_path / "packed").exists()


def test_a_precision_that_does_not_say_what_it_keeps_is_refused(
    precisions: dict[str, Path], copy_of: Any, tmp_path: Path
) -> None:
    silent = change_manifest(copy_of(precisions["int8"]), lambda said: said.pop("parity"))
    with pytest.raises(sbertconv.UnsupportedOptionError, match=r"what it keeps of the original \(parity.quality\)"):
        sbertconv.pack(precisions["fp32"], tmp_path / "packed", ["transformers.js"], precisions=[silent])


def test_a_conversion_for_a_consumer_writes_the_outputs_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, whole = [], consumers.default_consumers
    monkeypatch.setattr(consumers, "default_consumers", lambda: looked.append(1) or whole())
    model = cases.bert(cases.pooling(), st.Normalize(), config={"num_hidden_layers": 1})
    artifact = sbertconv.to_onnx(model, tmp_path / "model", consumers=["sentence-transformers", "fastembed"])
    (graph,) = artifact.manifest["graphs"]
    assert [entry["name"] for entry in graph["outputs"]] == ["sentence_embedding", "token_embeddings"]
    assert looked == [1]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_lookup_of_small_integers_in_common_operators_gives_the_same(bits: int) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (5, 48 * bits // 8), np.uint8)
    scales = rng.normal(size=(5, 3)).astype(np.float32)
    said = {"bits": bits, "block_size": 16, "gather_axis": 0, "quantize_axis": 1}
    node = helper.make_node(
        "GatherBlockQuantized", ["packed", "ids", "scales"], ["rows"], domain="com.microsoft", **said
    )
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "sequence", 48])
    weights = [numpy_helper.from_array(packed, "packed"), numpy_helper.from_array(scales, "scales")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(helper.make_graph([node], "lookup", [ids], [rows], weights), opset_imports=opsets)
    proto.ir_version = 10
    fed = {"ids": np.array([[0, 4, 2], [3, 3, 1]])}
    (before,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, fed)
    plain_lookups(proto)
    onnx.checker.check_model(proto)
    assert {one.domain for one in proto.graph.node} == {""}
    (after,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, fed)
    np.testing.assert_array_equal(after, before)


def test_a_model_server_is_given_tokens_or_strings(
    bert_artifact: Path, bert_text_artifact: Path, tmp_path: Path
) -> None:
    for artifact, asked in (
        (bert_artifact, "TYPE_INT64 dims: [ -1 ]"),
        (bert_text_artifact, "TYPE_STRING dims: [ 1 ]"),
    ):
        packed = packed_for(artifact, tmp_path / artifact.name, "triton", "kserve")
        (config,) = packed.folder.glob("model_repository/*/config.pbtxt")
        assert asked in config.read_text(encoding="utf-8")
        assert "protocolVersion: v2" in (packed.folder / "kserve/inference-service.yaml").read_text(encoding="utf-8")


def test_a_server_is_started_with_the_default_prompt(tmp_path: Path) -> None:
    model = cases.bert(cases.pooling(), st.Normalize(), config={"num_hidden_layers": 1})
    model.prompts, model.default_prompt_name = {"query": "query: ", "document": "passage: "}, "document"
    artifact = sbertconv.to_onnx(model, tmp_path / "model", consumers=["text-embeddings-inference"])
    command = (artifact.folder / "text-embeddings-inference.sh").read_text(encoding="utf-8")
    assert command.endswith(" --default-prompt-name document\n")
    assert artifact.manifest["consumers"]["text-embeddings-inference"]["max_abs_diff"] < 1e-5


def test_a_folder_says_how_it_is_opened(bert_artifact: Path, cli: Any, tmp_path: Path) -> None:
    ran = cli("pack", bert_artifact, tmp_path / "packed", "--for", "fastembed")
    assert "TextEmbedding.add_custom_model(" in ran.out
    text = (tmp_path / "packed/README.md").read_text(encoding="utf-8")
    assert "### fastembed\n\n```python\n" in text
    assert "    dim=16,\n" in text


def test_every_built_in_consumer_says_how_it_is_opened() -> None:
    for row in consumers.ROWS:
        assert opens(row.name, row.model_class), (row.name, row.model_class)


def test_software_that_pools_is_given_files_of_its_own(bert_artifact: Path, tmp_path: Path) -> None:
    packed = packed_for(bert_artifact, tmp_path / "packed", "langchain4j", "semantic-kernel", "opensearch")
    for name in ("langchain4j", "semantic-kernel"):
        (output,) = onnxruntime.InferenceSession(str(packed.folder / name / "model.onnx")).get_outputs()
        assert (output.name, len(output.shape)) == ("last_hidden_state", 3)
    session = onnxruntime.InferenceSession(str(packed.folder / "semantic-kernel/model.onnx"))
    assert {value.name for value in session.get_inputs()} == {"input_ids", "attention_mask", "token_type_ids"}


def test_a_graph_without_token_types_takes_them_where_they_are_always_given(tmp_path: Path) -> None:
    model = cases.bert(cases.pooling(), st.Normalize(), config={"num_hidden_layers": 1})
    model.max_seq_length = 256
    model[0].model.embeddings.position_embeddings = type(model[0].model.embeddings.position_embeddings)(300, 32)
    model[0].model.embeddings.position_ids = model[0].model.embeddings.position_ids.new_tensor([list(range(300))])
    model[0].model.embeddings.token_type_ids = model[0].model.embeddings.token_type_ids.new_zeros((1, 300))
    model[0].model.config.max_position_embeddings = 300
    artifact = sbertconv.to_onnx(model, tmp_path / "model", token_type_ids=False)
    packed = packed_for(artifact.folder, tmp_path / "packed", "chroma")
    names = {path.name for path in (packed.folder / "chroma/onnx").iterdir()}
    assert {"model.onnx", "tokenizer.json", "vocab.txt", "config.json"} <= names


def test_a_vocabulary_that_is_not_the_whole_tokenizer_is_refused(tmp_path: Path) -> None:
    model = cases.chain(tiny.transformer("roberta", num_hidden_layers=1), cases.pooling())
    artifact = sbertconv.to_onnx(model, tmp_path / "model")
    with pytest.raises(sbertconv.UnsupportedOptionError, match="has a tokenizer of its own, BERT's WordPiece"):
        sbertconv.pack(artifact.folder, tmp_path / "packed", ["semantic-kernel"])
    assert not (tmp_path / "packed").exists()


def test_torchscript_of_four_inputs(torch_artifact: Path, tmp_path: Path) -> None:
    import torch

    packed = packed_for(torch_artifact, tmp_path / "packed", "elasticsearch")
    config = json.loads((packed.folder / "elasticsearch/config.json").read_text(encoding="utf-8"))
    assert config["inference_config"]["text_embedding"]["embedding_size"] == 16
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        script = torch.jit.load(str(packed.folder / "elasticsearch/traced_pytorch_model.pt"))
    assert len(list(script.graph.inputs())) == 5  # and itself


def test_fixed_shapes(bert_keras: Path, tmp_path: Path) -> None:
    packed = sbertconv.pack(bert_keras, tmp_path / "packed", ["litert", "litert-int8"])
    names = [path.name for path in sorted((packed.folder / "litert").glob("model_*"))]
    assert names == ["model_1x48.tflite", "model_int8_1x48.tflite"]
    proven = packed.manifest["consumers"]
    assert proven["litert"]["max_abs_diff"] < 1e-5
    assert 1e-5 < proven["litert-int8"]["max_abs_diff"] < 0.1
    assert proven["litert-int8"]["min_cosine"] >= 0.99


def test_weights_of_8_bits_that_do_not_pass_the_gate_are_not_published(
    bert_keras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = {"int8": replace(quality.GATES["int8"], min_cosine=1.0)}
    monkeypatch.setattr("sbertconv.consumers.packing.GATES", strict)
    with pytest.raises(sbertconv.ParityError, match=r"cosine .* The gate of int8"):
        sbertconv.pack(bert_keras, tmp_path / "packed", ["litert-int8"])
    assert not (tmp_path / "packed").exists()


def test_a_reader_that_answers_zeros_is_no_reader_of_the_folder(bert_artifact: Path) -> None:
    model = sbertconv.load(bert_artifact)

    def zeros(texts: list[str]) -> np.ndarray:
        return np.zeros_like(model.encode(texts))

    found = packing.check("zeros", TEXTS, zeros, model.encode, "SentenceTransformer", model, packing.ROUNDED)
    assert (found.passed, found.min_cosine) == (False, 0.0)


def test_a_database_takes_one_file_with_strings(bert_text_artifact: Path, tmp_path: Path) -> None:
    names = ("oracle", "duckdb", "postgresql", "clickhouse")
    packed = packed_for(bert_text_artifact, tmp_path / "packed", *names)
    assert "LOAD_ONNX_MODEL" in (packed.folder / "oracle/load.sql").read_text(encoding="utf-8")
    assert "com.microsoft" in (packed.folder / "oracle/load.sql").read_text(encoding="utf-8")
    assert "FLOAT[16]" in (packed.folder / "duckdb/search.sql").read_text(encoding="utf-8")
    with importable(packed.folder / "clickhouse", "embed"):
        import embed

        expected = sbertconv.load(bert_text_artifact).encode(TEXTS)
        np.testing.assert_allclose(embed.embed(TEXTS), expected, atol=1e-6)
        assert sys.modules["embed"].__file__ == str(packed.folder / "clickhouse/embed.py")


def test_a_saved_model_of_strings(bert_folder: Path, tmp_path: Path) -> None:
    artifact = sbertconv.to_tf(bert_folder, tmp_path / "model", formats=["saved_model"], text_input=True)
    packed = packed_for(artifact.folder, tmp_path / "packed", "bigquery", "tensorflow-serving")
    assert "MODEL_TYPE = 'TENSORFLOW'" in (packed.folder / "bigquery/search.sql").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def openvino_artifact(built_once: Any, bert_folder: Path) -> Path:
    """The BERT model for OpenVINO; do not write to it."""
    pytest.importorskip("openvino")
    return Path(built_once("bert-openvino", lambda folder: sbertconv.to_openvino(bert_folder, folder)))


def test_token_vectors_for_the_backend_on_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = cases.bert(cases.pooling(), st.Normalize(), config={"num_hidden_layers": 1})
    artifact = sbertconv.to_openvino(model, tmp_path / "model", consumers=["sentence-transformers-openvino"])
    (graph,) = artifact.manifest["graphs"]
    assert [entry["name"] for entry in graph["outputs"]] == ["sentence_embedding", "last_hidden_state"]
    assert artifact.manifest["consumers"]["sentence-transformers-openvino"]["max_abs_diff"] < 1e-5


def test_openvino_with_a_tokenizer_of_its_own(openvino_artifact: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino_tokenizers", reason="make test-clients runs this with it")
    packed = packed_for(openvino_artifact, tmp_path / "packed", "openvino-genai", "openvino-model-server")
    assert (packed.folder / "openvino_model.bin").is_file()


def test_without_openvinos_tokenizers_the_extra_is_named(openvino_artifact: Path, tmp_path: Path) -> None:
    if "openvino_tokenizers" in sys.modules:
        pytest.skip("openvino_tokenizers is there")
    with pytest.raises(sbertconv.MissingDependencyError, match=r"sbertconv\[genai\]"):
        sbertconv.pack(openvino_artifact, tmp_path / "packed", ["openvino-genai"])


@pytest.mark.parametrize(
    ("artifact", "name", "expected"),
    [
        ("bert_artifact", "oracle", "gives strings; convert with text_input=True"),
        ("bert_artifact", "elasticsearch", "takes PyTorch programs alone; convert the model with to-torch"),
        ("bert_artifact", "chroma", "cuts every text at 256 tokens, and this model at 48"),
        ("reranker_artifact", "vespa", "vespa: does not open a CrossEncoder (have: SentenceTransformer, "),
        ("splade_artifact", "text-embeddings-inference", "does not open a SparseEncoder"),
    ],
)
def test_what_a_row_cannot_be_right_for_is_refused(
    artifact: str, name: str, expected: str, tmp_path: Path, request: Any
) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError) as caught:
        sbertconv.pack(request.getfixturevalue(artifact), tmp_path / "packed", [name])
    assert expected in str(caught.value)
