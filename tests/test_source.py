"""Every kind of model that can be loaded: folders of sentence-transformers 2 to 6, live models, a model's own code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from conftest import COMMAND, TEXTS, run_process
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

import sbertconv
from sbertconv import SourceError
from sbertconv.source.opening import open_source


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


# Old layouts: each function changes a folder of version 6 into what an older version would have written.


def old_pooling_flags(folder: Path) -> None:
    """Version 2 to 5: one flag per mode; a reader that looks for pooling_mode alone takes the mean."""
    write(
        folder / "1_Pooling/config.json",
        {
            "word_embedding_dimension": 32,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )


def old_module_paths(folder: Path) -> None:
    """Version 2 to 5: every module under sentence_transformers.models."""
    modules = read(folder / "modules.json")
    for entry in modules:
        entry["type"] = "sentence_transformers.models." + entry["type"].rsplit(".", 1)[-1]
    write(folder / "modules.json", modules)


def old_transformer_folder(folder: Path) -> None:
    """Version 0 to 2: the transformer in 0_Transformer/, with its length limit beside it."""
    here = folder / "0_Transformer"
    here.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(here / name)
    (folder / "sentence_bert_config.json").unlink()
    write(here / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    modules = read(folder / "modules.json")
    modules[0]["path"] = "0_Transformer"
    write(folder / "modules.json", modules)


def old_weights(folder: Path) -> None:
    """pytorch_model.bin instead of safetensors."""
    for path in [*folder.rglob("model.safetensors")]:
        torch.save(load_file(path), path.with_name("pytorch_model.bin"))
        path.unlink()


def old_dense_config(folder: Path) -> None:
    """Version 2: the class of the activation under its old path, and nothing that came later."""
    config = {"in_features": 32, "out_features": 16, "bias": True}
    write(folder / "2_Dense/config.json", {**config, "activation_function": "torch.nn.modules.activation.Tanh"})


def old_settings(folder: Path) -> None:
    """Version 2: no prompts, no similarity function."""
    write(folder / "config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.0.0"}})


def no_settings(folder: Path) -> None:
    (folder / "config_sentence_transformers.json").unlink()


def normalize_without_config(folder: Path) -> None:
    """Version 2 to 5 wrote an empty folder, which git and the Hub drop."""
    shutil.rmtree(folder / "3_Normalize")


VERSION_2 = (
    old_pooling_flags, old_module_paths, old_weights, old_transformer_folder, old_dense_config, old_settings,
    normalize_without_config,
)  # fmt: skip
LAYOUTS: dict[str, tuple[Callable[[Path], None], ...]] = {
    "version 6": (),
    "version 2": (*VERSION_2[:2], old_transformer_folder, *VERSION_2[4:]),
    "version 2 with pytorch_model.bin": tuple(step for step in VERSION_2 if step is not old_transformer_folder),
    "version 3": (old_pooling_flags, old_module_paths, old_dense_config, normalize_without_config),
    "no settings": (no_settings,),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_embeddings(layout: str, bert_folder: Path, copy_of: Any) -> None:
    folder = copy_of(bert_folder)
    for change in LAYOUTS[layout]:
        change(folder)
    source = open_source(folder)
    assert [spec.name for spec in source.modules] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert source.notes == ()
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode(TEXTS)
    with source.loaded() as model:
        assert model.encode(TEXTS) == pytest.approx(expected, abs=1e-6)


def test_the_oldest_layout_converts(bert_folder: Path, copy_of: Any, tmp_path: Path) -> None:
    folder = copy_of(bert_folder)
    for change in LAYOUTS["version 2"]:
        change(folder)
    artifact = sbertconv.to_onnx(folder, tmp_path / "out")
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode(TEXTS)
    assert sbertconv.load(artifact.folder).encode(TEXTS) == pytest.approx(expected, abs=1e-5)
    flags = read(artifact.folder / "1_Pooling/config.json")
    assert flags["pooling_mode_cls_token"] is True  # older readers of the artifact look for these
    assert flags["pooling_mode_mean_tokens"] is False
    assert artifact.manifest["max_seq_length"] == 48


@pytest.mark.parametrize(
    ("architecture", "mode"), [("BertModel", "mean"), ("BertForMaskedLM", "mean"), ("BertForCausalLM", "lasttoken")]
)
def test_a_bare_checkpoint_says_which_pooling_is_assumed(architecture: str, mode: str, copy_of: Any) -> None:
    folder = copy_of(Path(cases.tiny.transformer_folder("bert")))
    write(folder / "config.json", {**read(folder / "config.json"), "architectures": [architecture]})
    source = open_source(folder)
    note, *others = source.notes
    assert "modules.json" in note
    assert f"{mode} pooling" in note
    assert ["SparseEncoder" in other for other in others] == ([True] if architecture.endswith("MaskedLM") else [])
    with source.loaded() as model:
        assert model[1].pooling_mode == mode


def test_the_note_about_pooling_reaches_the_user(cli: Any, tmp_path: Path) -> None:
    ran = cli("to-onnx", cases.tiny.transformer_folder("bert"), tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "Note: No modules.json" in ran.out
    assert "mean pooling" in ran.out
    assert sbertconv.load(tmp_path / "out").artifact.manifest["notes"]


# Half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_checkpoint_is_brought_to_float32(dtype: torch.dtype, bert_folder: Path, copy_of: Any) -> None:
    folder = copy_of(bert_folder)
    for path in [*folder.rglob("model.safetensors")]:
        save_file({name: weight.to(dtype) for name, weight in load_file(path).items()}, path, {"format": "pt"})
    write(folder / "config.json", {**read(folder / "config.json"), "dtype": str(dtype).removeprefix("torch.")})
    with open_source(folder).loaded() as model:
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        exact = model[0].get_parameter("model.embeddings.word_embeddings.weight")
        assert torch.equal(exact, exact.to(dtype).float())  # the checkpoint's own numbers, not those of a wider copy
        assert model.encode(TEXTS).dtype == np.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_folder_passes_parity(dtype: torch.dtype, tmp_path: Path) -> None:
    model = cases.chain(cases.static_embedding(), cases.dense(), st.Normalize()).to(dtype)
    model.save_pretrained(str(tmp_path / "model"))
    artifact = sbertconv.to_onnx(tmp_path / "model", tmp_path / "out")
    assert artifact.manifest["parity"]["passed"]
    expected = model.float().encode(TEXTS)
    assert sbertconv.load(artifact.folder).encode(TEXTS) == pytest.approx(expected, abs=1e-5)


# Live models


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_converting_a_live_model_does_not_change_it(dtype: torch.dtype, tmp_path: Path) -> None:
    model = cases.chain(cases.static_embedding(), cases.dense(), st.Dropout(0.5), prompts={"query": "query: "})
    model.to(dtype).train()
    for weight in model.parameters():
        weight.requires_grad_(True)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    objects = [id(weight) for weight in model.parameters()]
    artifact = sbertconv.to_onnx(model, tmp_path / "out")
    after = model.state_dict()
    assert [id(weight) for weight in model.parameters()] == objects
    assert {name: weight.dtype for name, weight in after.items()} == dict.fromkeys(before, dtype)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(weight.requires_grad for weight in model.parameters())
    assert model.prompts["query"] == artifact.manifest["prompts"]["query"] == "query: "
    assert model.training, "a model that is being trained must go on training"


def test_a_live_model_that_is_being_trained_is_converted_without_its_dropout(tmp_path: Path) -> None:
    model = cases.chain(cases.static_embedding(), st.Dropout(0.5))
    model.train()
    artifact = sbertconv.to_onnx(model, tmp_path / "out")
    model.eval()
    assert sbertconv.load(artifact.folder).encode(TEXTS) == pytest.approx(model.encode(TEXTS), abs=1e-5)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(SourceError, match=r"Linear is not a model.*SentenceTransformer"):
        open_source(torch.nn.Linear(2, 2))


# A model's own code

OWN_MODULE = '''
import torch
from sentence_transformers.sentence_transformer.modules import Module


class Shift(Module):
    """Adds a constant: {comment}."""

    config_keys = ["by"]

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, features):
        features["sentence_embedding"] = {expression}
        return features

    def save(self, output_path, *args, **kwargs):
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path, subfolder="", **kwargs):
        return cls(**cls.load_config(model_name_or_path, subfolder=subfolder))
'''
TRACEABLE = OWN_MODULE.format(comment="in torch", expression='features["sentence_embedding"] + self.by')
IN_NUMPY = OWN_MODULE.format(
    comment="in numpy, which cannot be traced",
    expression='torch.from_numpy(features["sentence_embedding"].numpy(force=True) + self.by).float()',
)


@pytest.fixture
def own_code(static_folder: Path, copy_of: Any) -> Callable[[str], Path]:
    """A model folder whose last module is a class in a file of the folder."""

    def make(code: str) -> Path:
        folder = Path(copy_of(static_folder))
        (folder / "own_modules.py").write_text(code, encoding="utf-8")
        (folder / "2_Shift").mkdir()
        write(folder / "2_Shift/config.json", {"by": 0.25})
        entry = {"idx": 2, "name": "2", "path": "2_Shift", "type": "own_modules.Shift"}
        write(folder / "modules.json", [*read(folder / "modules.json"), entry])
        return folder

    return make


def test_own_code_runs_only_when_it_is_trusted(own_code: Any, tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    folder = own_code(f"open({str(marker)!r}, 'w').close()\n{TRACEABLE}")
    with pytest.raises(SourceError, match=r"own_modules.Shift"):
        sbertconv.to_onnx(folder, tmp_path / "out")
    problem = sbertconv.inspect(folder)["modules"][2]["backends"]["onnx"]["problem"]
    assert "own_modules.Shift" in problem
    assert not marker.exists()
    assert not (tmp_path / "out").exists()
    artifact = sbertconv.to_onnx(folder, tmp_path / "out", trust_remote_code=True)
    assert marker.exists()
    expected = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu").encode(TEXTS)
    assert sbertconv.load(artifact.folder).encode(TEXTS) == pytest.approx(expected, abs=1e-5)


def test_own_code_that_cannot_be_traced_is_converted_by_its_name(own_code: Any, tmp_path: Path) -> None:
    from sbertconv.converters import default_registry

    class ShiftStep(torch.nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {**features, "sentence_embedding": features["sentence_embedding"] + self.by}

    folder = own_code(IN_NUMPY)
    registry = default_registry()
    with pytest.raises(sbertconv.UnsupportedModuleError, match=r"\[2\] Shift: no converter"):
        sbertconv.to_onnx(folder, tmp_path / "out", trust_remote_code=True, registry=registry)
    registry.add("onnx", "own_modules.Shift", lambda module, context: ShiftStep(module.by))
    artifact = sbertconv.to_onnx(folder, tmp_path / "out", trust_remote_code=True, registry=registry)
    assert artifact.manifest["parity"]["passed"]


@pytest.mark.parametrize("place", ["pytorch_model.bin", "2_Dense/pytorch_model.bin"])
def test_a_pickle_with_code_in_it_is_refused(place: str, bert_folder: Path, copy_of: Any, tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "it ran"),)

    folder = copy_of(bert_folder)
    path = folder / place
    torch.save({**load_file(path.with_name("model.safetensors")), "extra": Exploit()}, path)
    path.with_name("model.safetensors").unlink()
    with pytest.raises(SourceError, match="cannot be loaded"):
        sbertconv.to_onnx(folder, tmp_path / "out")
    assert not (tmp_path / "it ran").exists()
    assert not (tmp_path / "out").exists()
    with pytest.raises(pickle.UnpicklingError):  # the file is what it claims to be: torch refuses it, for its code
        torch.load(path, weights_only=True)


# The Hub, as far as it goes without one: what was downloaded earlier


def test_a_hub_id_with_a_revision_from_the_cache(static_folder: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub/models--acme--tiny"
    shutil.copytree(static_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/v1").write_text(commit)
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ran = run_process(COMMAND, "to-onnx", "acme/tiny", "--revision", "v1", "--json", cwd=tmp_path, env=env)
    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err
    described = json.loads(ran.out)
    assert (described["source"]["name"], described["source"]["revision"]) == ("acme/tiny", commit)
    assert Path(described["folder"]) == tmp_path / "tiny-onnx"
    found = sbertconv.load(tmp_path / "tiny-onnx").encode(TEXTS)
    assert found == pytest.approx(SentenceTransformer(str(static_folder), device="cpu").encode(TEXTS), abs=1e-5)


def test_a_hub_id_that_cannot_be_had_names_the_revision(static_folder: Path) -> None:
    with pytest.raises(SourceError, match=r"acme/tiny: no such folder[\s\S]*revision v7[\s\S]*connection"):
        open_source("acme/tiny", revision="v7")


def test_a_mistyped_hub_id_is_one_message_with_a_name_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hub/models--acme--tiny-model").mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(SourceError) as caught:
        open_source("acme/tiny-modle")
    assert "while HF_HUB_OFFLINE keeps it from asking for it. Did you mean 'acme/tiny-model'?" in str(caught.value)
    assert "LocalEntryNotFoundError" not in str(caught.value)


# Inspecting


def test_inspect_needs_no_weights(bert_folder: Path, copy_of: Any) -> None:
    folder = copy_of(bert_folder)
    for path in folder.rglob("model.safetensors"):
        path.write_bytes(b"")
    described = sbertconv.inspect(folder)
    modules = {module["label"]: module for module in described["modules"]}
    assert [module["name"] for module in modules.values()] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert modules["1"]["settings"]["pooling_mode"] == "cls"
    assert modules["2"]["settings"]["out_features"] == 16
    assert all(module["backends"]["onnx"]["by"] for module in modules.values())
    expected = {"architecture": "bert", "tokenizer": "WordPiece", "embedding_dimension": 16, "max_seq_length": 48,
                "similarity_fn_name": "cosine", "default_prompt_name": None, "truncate_dim": None}  # fmt: skip
    assert {key: described[key] for key in expected} == expected
    assert described["prompts"]["query"] == "query: "


@pytest.mark.parametrize(
    "name", ["router", "static embedding", "bag of words", "pooling all modes", "truncate_dim", "cnn"]
)
def test_inspect_agrees_with_the_live_model(name: str, tmp_path: Path) -> None:
    model = cases.CASES[name].build()
    model.save_pretrained(str(tmp_path / "model"))
    live, saved = sbertconv.inspect(model), sbertconv.inspect(tmp_path / "model")
    for key in ("embedding_dimension", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim"):
        assert saved[key] == live[key], key
    for key in ("label", "name", "backends"):
        assert [module[key] for module in saved["modules"]] == [module[key] for module in live["modules"]], key
