"""Names and order of a graph's inputs and outputs, and the outputs for software that pools token vectors itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cases
import class_cases
import numpy as np
import onnxruntime
import pytest
import tiny
from sentence_transformers.sentence_transformer import modules as st

import sbertconv
from sbertconv.converters.onnx.naming import rename_onnx

TEXTS = [*tiny.LINES[:3], "one"]


def names_of(path: Path) -> tuple[list[str], list[str]]:
    session = onnxruntime.InferenceSession(str(path))
    return [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]


def test_a_folder_is_packed_under_other_names(bert_artifact: Path, tmp_path: Path) -> None:
    packed = sbertconv.pack(
        bert_artifact,
        tmp_path / "packed",
        input_names=["attention_mask=mask", "input_ids=ids"],
        output_names=["token_embeddings=last_hidden_state"],
    )
    inputs, outputs = names_of(packed.folder / "onnx/model.onnx")
    assert inputs[:2] == ["mask", "ids"]
    assert outputs == ["last_hidden_state", "sentence_embedding"]
    entries = packed.manifest["graphs"][0]["inputs"]
    assert {entry["name"]: entry.get("in_graph") for entry in entries[:2]} == {
        "attention_mask": "mask",
        "input_ids": "ids",
    }
    before, after = (sbertconv.load(folder) for folder in (bert_artifact, packed.folder))
    np.testing.assert_array_equal(after.encode(TEXTS), before.encode(TEXTS))
    tokens = zip(*(model.encode(TEXTS, output_value="token_embeddings") for model in (before, after)), strict=True)
    for one, other in tokens:
        np.testing.assert_array_equal(one, other)


def test_names_can_be_given_back(bert_artifact: Path, tmp_path: Path) -> None:
    there = sbertconv.pack(bert_artifact, tmp_path / "there", output_names=["sentence_embedding=token_inside"])
    back = sbertconv.pack(
        there.folder, tmp_path / "back", ["fastembed"], output_names=["sentence_embedding=sentence_embedding"]
    )
    assert "in_graph" not in json.dumps(back.manifest["graphs"])
    assert names_of(back.folder / "onnx/model.onnx") == names_of(bert_artifact / "onnx/model.onnx")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"input_names": ["nothing=x"]}, r"input_names=\['nothing=x'\]: not like old=new"),
        ({"input_names": ["input_ids"]}, r"input_names=\['input_ids'\]: not like old=new"),
        ({"input_names": ["input_ids=a", "input_ids=b"]}, "each old name once"),
        ({"output_names": ["sentence_embedding=input_ids"]}, "input_ids: would be the name of two tensors"),
        ({"output_names": ["sentence_embedding=embedding"], "consumers": ["triton"]}, "triton: needs sentence_emb"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    names: dict[str, Any], expected: str, bert_artifact: Path, tmp_path: Path
) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match=expected):
        sbertconv.pack(bert_artifact, tmp_path / "packed", **names)
    assert not (tmp_path / "packed").exists()


def test_a_value_inside_that_has_the_name_already_gets_another(tmp_path: Path) -> None:
    import onnx

    made, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [made("Neg", ["x"], ["wanted"]), made("Neg", ["wanted"], ["y"])],
        "twice",
        [value("x", onnx.TensorProto.FLOAT, [2])],
        [value("y", onnx.TensorProto.FLOAT, [2])],
    )
    path = tmp_path / "twice.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8), str(path))
    rename_onnx(path, [("x", "y")], [("y", "wanted")])
    given = np.array([1, -2], np.float32)
    (found,) = onnxruntime.InferenceSession(str(path)).run(["wanted"], {"y": given})
    np.testing.assert_array_equal(found, given)


def test_openvino_files_get_other_names(bert_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    before = sbertconv.to_openvino(bert_folder, tmp_path / "model")
    packed = sbertconv.pack(
        before.folder,
        tmp_path / "packed",
        input_names=["attention_mask=mask"],
        output_names=["sentence_embedding=embedding"],
    )
    expected = sbertconv.load(before.folder).encode(TEXTS)
    np.testing.assert_allclose(sbertconv.load(packed.folder).encode(TEXTS), expected, atol=1e-6)
    assert 'names="embedding"' in (packed.folder / "openvino/openvino_model.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [16, 32], ids=["before a Dense", "alone"])
def test_last_hidden_state_is_the_transformers_own(size: int, tmp_path: Path) -> None:
    """Before a Dense on tokens, or the same as token_embeddings; compared with the library's in the conversion."""
    dense = st.Dense(32, 16, module_input_name="token_embeddings", module_output_name="token_embeddings")
    modules = [dense] if size == 16 else []
    model = cases.chain(tiny.transformer("bert", num_hidden_layers=1), *modules, st.Pooling(size))
    outputs = ("sentence_embedding", "token_embeddings", "last_hidden_state")
    artifact = sbertconv.to_onnx(model, tmp_path / "model", outputs=outputs)
    assert artifact.manifest["notes"] == []
    assert [output["name"] for output in artifact.manifest["graphs"][0]["outputs"]] == list(outputs)
    checks = [check["name"] for check in artifact.manifest["parity"]["checks"]]
    assert "last hidden state" in checks
    found = sbertconv.load(artifact.folder).encode(TEXTS, output_value="last_hidden_state")
    (expected,) = [model[0](model.preprocess([TEXTS[0]]))["token_embeddings"].detach().numpy()]
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)


def test_the_logits_of_a_sparse_encoder(tmp_path: Path) -> None:
    model = class_cases.splade("bert")
    artifact = sbertconv.to_onnx(model, tmp_path / "model", outputs=["sentence_embedding", "logits"])
    assert "logits" in [check["name"] for check in artifact.manifest["parity"]["checks"]]
    (entry,) = [entry for entry in artifact.manifest["graphs"][0]["outputs"] if entry["name"] == "logits"]
    assert entry["shape"][:2] == ["batch", "sequence"]
    with pytest.raises(sbertconv.UnsupportedOptionError, match="say nothing of the vectors"):
        sbertconv.to_onnx(model, tmp_path / "other", outputs=["logits"])


def test_a_conversion_gives_other_names_and_lays_the_folder_out(bert_folder: Path, tmp_path: Path, cli: Any) -> None:
    ran = cli(
        "to-onnx", bert_folder, tmp_path / "model", "--input-name", "attention_mask=mask",
        "--output-name", "sentence_embedding=embedding", "--for", "triton", "--output", "sentence_embedding",
    )  # fmt: skip
    assert ran.code == 1, ran.err
    assert "triton: cannot feed mask" in ran.err
    assert not (tmp_path / "model").exists()
    names = {"input_names": ["attention_mask=mask"], "output_names": ["sentence_embedding=embedding"]}
    renamed = sbertconv.to_onnx(bert_folder, tmp_path / "renamed", **names)
    assert names_of(renamed.folder / "onnx/model.onnx") == (
        ["mask", "input_ids", "token_type_ids"],
        ["embedding"],
    )
    for_triton = sbertconv.to_onnx(bert_folder, tmp_path / "triton", consumers=["triton"])
    assert list(for_triton.manifest["consumers"]) == ["triton"]
    np.testing.assert_array_equal(
        sbertconv.load(for_triton.folder).encode(TEXTS), sbertconv.load(renamed.folder).encode(TEXTS)
    )
    with pytest.raises(sbertconv.ArtifactError, match="exists already"):
        sbertconv.to_onnx(bert_folder, tmp_path / "triton", consumers=["triton"])
    with pytest.raises(sbertconv.UnsupportedOptionError, match="nobody: not known"):
        sbertconv.to_onnx(bert_folder, tmp_path / "other", consumers=["nobody"])


@pytest.mark.parametrize("kind", ["TextClassifier", "MultiVectorEncoder", "CrossEncoder", "SparseEncoder"])
def test_graphs_of_every_class_get_other_names(kind: str, tmp_path: Path) -> None:
    build = {
        "TextClassifier": lambda: class_cases.sentiment("bert"),
        "MultiVectorEncoder": lambda: class_cases.multi_vector_encoder("bert"),
        "CrossEncoder": lambda: class_cases.cross_encoder("bert", 1),
        "SparseEncoder": lambda: class_cases.splade("bert"),
    }[kind]
    artifact = sbertconv.to_onnx(build(), tmp_path / "model")
    assert artifact.manifest["model_class"] == kind
    first = artifact.manifest["graphs"][0]["outputs"][0]["name"]
    packed = sbertconv.pack(artifact.folder, tmp_path / "packed", output_names=[f"{first}=renamed"])
    assert "renamed" in names_of(packed.folder / "onnx/model.onnx")[1]
    sbertconv.load(packed.folder)


def test_values_inside_are_found_behind_other_names(bert_folder: Path, tmp_path: Path) -> None:
    from sbertconv.parity.by_module import _converted_values
    from sbertconv.parity.questions import Question

    artifact = sbertconv.to_onnx(bert_folder, tmp_path / "model", output_names=["sentence_embedding=embedding"])
    model = sbertconv.load(artifact.folder)
    values, whole = _converted_values(model, Question("a text", [TEXTS[0]], options={"batch_size": 1}))
    assert values
    np.testing.assert_array_equal(whole, model.encode(TEXTS[0]))
