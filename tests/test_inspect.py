"""`inspect` of whatever it is given: a model, a converted folder, a .keras file, and without torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran, run_python

import sbertconv
from sbertconv import ArtifactError, MissingDependencyError, SourceError, UnsupportedOptionError
from sbertconv.artifact.folder import read_artifact

LIGHT = """
import sys
heavy = ("torch", "transformers", "sentence_transformers", "keras", "tensorflow", "onnx")
for name in heavy:
    sys.modules[name] = None
from sbertconv.cli import main
main()
"""


def test_a_converted_folder_shows_what_it_is(static_artifact: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("inspect", static_artifact)
    assert (ran.code, ran.said) == (0, "")
    manifest = read_artifact(static_artifact).manifest
    for words in ("onnx/model.onnx", "onnxruntime", "fp32", "sentence_embedding", "batch × sequence", "query: "):
        assert words in ran.out
    for line in ("embedding dimension: 32", "similarity fn name: euclidean", "default prompt name: document"):
        assert line in ran.out.splitlines()
    assert f"parity with encode(): {len(manifest['parity']['checks'])} checks" in ran.out


def test_a_folder_is_described_for_machines(bert_keras: Path, cli: Callable[..., Ran]) -> None:
    found = json.loads(cli("inspect", bert_keras, "--json").out)
    assert found == json.loads(json.dumps(sbertconv.inspect(bert_keras)))
    artifact = read_artifact(bert_keras)
    assert list(found["formats"]) == list(artifact.formats)
    assert found["formats"]["saved_model"]["engines"] == ["tensorflow"]
    files = artifact.manifest["files"]
    of_saved_model = sum(file["size"] for name, file in files.items() if name.startswith("saved_model/"))
    assert found["formats"]["saved_model"]["size"] == of_saved_model
    assert found["size"] == sum(file["size"] for file in files.values())
    (graph,) = found["graphs"]
    assert {tensor["name"]: tensor["shape"] for tensor in graph["inputs"]}["input_ids"] == ["batch", "sequence"]


def test_a_keras_file_and_a_model_around_it(bert_keras: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    import keras

    from sbertconv.runtime.engines import load_keras_model

    alone = Path(shutil.copy(bert_keras / "keras/model.keras", tmp_path / "tuned.keras"))
    found = sbertconv.inspect(alone)
    assert (found["around"], list(found["formats"]), found["size"]) == ([], ["keras"], alone.stat().st_size)
    model = load_keras_model(alone)
    keras.Model(model.inputs, keras.layers.Dense(2, name="head")(model.output)).save(tmp_path / "whole.keras")
    assert sbertconv.inspect(tmp_path / "whole.keras")["around"] == ["head"]
    assert "whose own layers are: head" in cli("inspect", tmp_path / "whole.keras").out


@pytest.mark.parametrize("what", ["folder", "file"])
def test_nothing_of_it_needs_torch(what: str, bert_keras: Path) -> None:
    path = bert_keras if what == "folder" else bert_keras / "keras/model.keras"
    ran = run_python(LIGHT, "inspect", path, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["model_class"] == "SentenceTransformer"


def test_a_model_without_torch_is_said_clearly(
    static_folder: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Ran]
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    with pytest.raises(MissingDependencyError, match=r'torch\.\n.*pip install "sbertconv\[onnx\]"'):
        sbertconv.inspect(static_folder)
    ran = cli("inspect", static_folder)
    assert ran.code == 1
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("options", [{"revision": "main"}, {"pooling": "mean"}, {"model_class": "CrossEncoder"}])
def test_options_of_a_model_do_not_apply_to_a_folder(options: dict[str, Any], static_artifact: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match="converted already"):
        sbertconv.inspect(static_artifact, **options)


def test_what_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "noise.keras").write_bytes(b"no zip")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/sbertconv.json").write_bytes(b"\xff{")
    for path, error in (("noise.keras", ArtifactError), ("broken", ArtifactError), ("none", SourceError)):
        with pytest.raises(error):
            sbertconv.inspect(tmp_path / path)


def test_a_folder_written_back_is_a_model(bert_keras: Path, tmp_path: Path) -> None:
    sbertconv.to_st(bert_keras, tmp_path / "back")
    assert sbertconv.inspect(tmp_path / "back")["modules"][0]["name"] == "Transformer"
