"""The module at which two sides part is named: in the values inside both, on every format that shows them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran
from sentence_transformers import SentenceTransformer

import sbertconv
from sbertconv.errors import ArtifactError, UnsupportedOptionError
from sbertconv.parity.by_module import distance

CHANGED = "0.model.encoder.layer.1.output.dense"


@pytest.fixture(scope="module")
def other_bert(bert_folder: Path) -> SentenceTransformer:
    """The tiny BERT with other weights in one Linear of its second layer."""
    model = SentenceTransformer(str(bert_folder), device="cpu")
    with torch.no_grad():
        model.get_submodule(CHANGED).weight[0] += 0.05
    return model


@pytest.fixture(scope="module")
def external_artifact(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with its weights beside the graph."""
    target = tmp_path_factory.mktemp("external") / "out"
    return sbertconv.to_onnx(bert_folder, target, external_data=True).folder


@pytest.mark.parametrize("verb", [sbertconv.to_onnx, sbertconv.to_openvino, sbertconv.to_torch])
def test_the_first_module_that_differs_is_named(
    verb: Callable[..., Any], other_bert: SentenceTransformer, bert_folder: Path, tmp_path: Path
) -> None:
    artifact = verb(bert_folder, tmp_path / "out")
    (parting,) = sbertconv.verify(other_bert, artifact.folder, by_module=True).partings
    assert (parting.after.path, parting.after.type) == (CHANGED, "Linear")
    before = [module.path for module in parting.modules].index(parting.before.path)
    assert parting.modules[before].max_abs_diff < 1e-5
    (same,) = sbertconv.verify(bert_folder, artifact.folder, by_module=True).partings
    assert same.before == same.modules[-1]
    assert same.after is None


@pytest.mark.parametrize(
    ("name", "put"),
    [
        ("inside.onnx", lambda path, outside: path.symlink_to(outside)),
        ("i.onnx", lambda path, outside: path.symlink_to(outside)),
        ("i.folder", lambda path, outside: path.mkdir()),
        ("i.pipe", lambda path, outside: os.mkfifo(path)),
    ],
    ids=["link", "other link", "folder", "pipe"],
)
def test_what_lies_beside_a_graph_does_not_matter(
    name: str, put: Callable[[Path, Path], None], bert_artifact: Path, bert_folder: Path, copy_of: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And is not written into."""
    folder, outside = copy_of(bert_artifact), tmp_path / "outside"
    outside.write_bytes(b"precious")
    manifest = (folder / "sbertconv.json").read_text(encoding="utf-8")
    (folder / "sbertconv.json").write_text(manifest.replace('onnx/model.onnx"', 'onnx/i"'), encoding="utf-8")
    (folder / "onnx/model.onnx").rename(folder / "onnx/i")
    put(folder / "onnx" / name, outside)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # files of one file system can be linked
    (parting,) = sbertconv.verify(bert_folder, folder, by_module=True).partings
    assert parting.after is None
    assert outside.read_bytes() == b"precious"


def test_a_graph_and_its_weights_may_be_links(
    external_artifact: Path, bert_folder: Path, copy_of: Any, tmp_path: Path
) -> None:
    """As they are in the Hub's cache."""
    folder = copy_of(external_artifact)
    for name in ("model.onnx", "model.onnx_data"):
        (folder / "onnx" / name).rename(tmp_path / name)
        (folder / "onnx" / name).symlink_to(tmp_path / name)
    (parting,) = sbertconv.verify(bert_folder, folder, by_module=True).partings
    assert parting.after is None


def test_weights_that_the_manifest_does_not_name_are_one_error(
    external_artifact: Path, bert_folder: Path, copy_of: Any
) -> None:
    folder = copy_of(external_artifact)
    manifest = (folder / "sbertconv.json").read_text(encoding="utf-8")
    nothing = re.sub(r'"data": \[[^]]+\]', '"data": []', manifest)
    (folder / "sbertconv.json").write_text(nothing, encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"^{folder}: onnxruntime .* cannot load it: "):
        sbertconv.verify(bert_folder, folder, by_module=True)


def test_the_command_shows_the_modules_around_the_place(
    bert_artifact: Path, copy_of: Any, bert_folder: Path, cli: Callable[..., Ran]
) -> None:
    other = copy_of(bert_folder)
    model = SentenceTransformer(str(other), device="cpu")
    with torch.no_grad():
        model.get_submodule(CHANGED).weight[0] += 0.05
    model.save(str(other))
    ran = cli("verify", other, bert_artifact, "--by-module")
    assert ran.code == 3
    assert f"apart at {CHANGED} (Linear" in " ".join(ran.out.split())
    assert "0.model.encoder.layer.0 " not in ran.out


@pytest.mark.parametrize(
    ("ours", "theirs", "due"),
    [([1, 2], [1, 4], 2), ([np.nan, 1], [np.nan, 1], 0), ([np.inf], [np.inf], 0), ([np.nan], [1], None),
     ([np.inf], [-np.inf], None), ([], [], 0)],
)  # fmt: skip
def test_a_distance_is_a_number_where_both_sides_have_one(ours: Any, theirs: Any, due: float | None) -> None:
    assert distance(np.array(ours, np.float32), np.array(theirs, np.float32)) == due


def test_a_format_that_shows_no_values_is_said(static_folder: Path, tmp_path: Path) -> None:
    artifact = sbertconv.to_tf(static_folder, tmp_path / "out", formats=["keras"])
    with pytest.raises(UnsupportedOptionError, match=r"^by_module=: .* holds keras \(have: onnx, openvino, torch\)"):
        sbertconv.verify(static_folder, artifact.folder, by_module=True)
