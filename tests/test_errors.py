"""A user's mistake or a broken model: one clear message, the right exit code, and nothing left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from conftest import COMMAND, TEXTS, Ran, importable, install_plugin, run_process, run_python, snapshot
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from transformers import CanineTokenizer

import sbertconv
from sbertconv import (
    MissingDependencyError,
    ParityError,
    SbertconvError,
    SourceError,
    UnsupportedModuleError,
    UnsupportedOptionError,
)
from sbertconv.console.options import flags_of, in_command_words
from sbertconv.errors import WAYS_OUT, engine_text, error_text
from sbertconv.source.opening import open_source


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(content) or content), encoding="utf-8")


def module_entry(folder: Path, index: int, **changes: Any) -> None:
    change_json(folder / "modules.json", lambda modules: modules[index].update(changes))


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


def delete_attention(weights: dict[str, torch.Tensor]) -> None:
    del weights["encoder.layer.1.attention.self.key.weight"]


def delete_weights(folder: Path, *places: str) -> None:
    for place in places:
        (folder / place / "model.safetensors").unlink()


def make_empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def make_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def remove_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


@dataclass(frozen=True)
class Bad:
    """How to break a saved BERT model, and what must be said about it."""

    how: Callable[[Path], Any]
    words: Sequence[str]
    error: type[SbertconvError] = SourceError
    options: dict[str, Any] = field(default_factory=dict)
    arguments: Sequence[str] = ()


def nothing(folder: Path) -> None:
    pass


BAD: dict[str, Bad] = {
    # where the model is
    "missing path": Bad(shutil.rmtree, ["no such folder", "Check the path"]),
    "a file": Bad(make_file, ["is a file, not a model folder"]),
    "empty folder": Bad(make_empty, ["not a model folder", "modules.json", "found: nothing"]),
    "some other folder": Bad(
        lambda folder: [(folder / name).unlink() for name in ("modules.json", "config.json")],
        ["not a model folder", "model.safetensors"],
    ),
    # modules.json and the configs
    "modules.json is cut": Bad(lambda f: os.truncate(f / "modules.json", 70), ["modules.json: not readable as JSON"]),
    "modules.json is binary": Bad(
        lambda f: (f / "modules.json").write_bytes(b"\xff\xfe\x00"), ["modules.json: not readable as JSON"]
    ),
    "modules.json is no list": Bad(lambda f: (f / "modules.json").write_text('{"a": 1}'), ["not a list of modules"]),
    "modules.json without types": Bad(lambda f: (f / "modules.json").write_text('[{"idx": 0}]'), ["type and path"]),
    "modules.json with a number as type": Bad(lambda f: module_entry(f, 1, type=3), ["modules.json"]),
    "modules.json with null as path": Bad(lambda f: module_entry(f, 1, path=None), ["modules.json"]),
    "path upwards": Bad(lambda f: module_entry(f, 1, path="../1_Pooling"), ["[1]", "'../1_Pooling'", "leaves"]),
    "absolute path": Bad(lambda f: module_entry(f, 1, path="/etc"), ["[1]", "'/etc'", "leaves the folder"]),
    "config of a module is cut": Bad(
        lambda f: os.truncate(f / "1_Pooling/config.json", 9), ["1_Pooling/config.json: not readable as JSON"]
    ),
    "config of a module is a list": Bad(lambda f: (f / "1_Pooling/config.json").write_text("[]"), ["1_Pooling"]),
    "transformers config is cut": Bad(lambda f: os.truncate(f / "config.json", 50), ["config.json: not readable"]),
    "transformers config is a list": Bad(lambda f: (f / "config.json").write_text("[]"), ["config.json"]),
    "settings are cut": Bad(
        lambda f: os.truncate(f / "config_sentence_transformers.json", 50), ["config_sentence_transformers.json: not"]
    ),
    "nothing left of an embedding": Bad(
        lambda f: change_json(f / "config_sentence_transformers.json", lambda config: config.update(truncate_dim=0)),
        ["truncate_dim is 0", "config_sentence_transformers.json"],
    ),
    # weights
    "weights missing": Bad(
        lambda f: delete_weights(f, "", "2_Dense"),
        ["[0] Transformer", "[2] Dense in 2_Dense", "no weights", "complete copy"],
    ),
    "a converted folder": Bad(
        lambda f: [delete_weights(f, ""), (f / "sbertconv.json").write_text("{}")],
        ["no weights", "sbertconv wrote it: pass the model that it was made from"],
    ),
    "folder of a module missing": Bad(lambda f: shutil.rmtree(f / "2_Dense"), ["[2] Dense in 2_Dense", "missing"]),
    "weights cut": Bad(lambda f: os.truncate(f / "model.safetensors", 9000), ["cannot be loaded", "complete"]),
    "weights empty": Bad(lambda f: os.truncate(f / "model.safetensors", 0), ["cannot be loaded"]),
    "weights are noise": Bad(
        lambda f: (f / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(20_000)), ["cannot be loaded"]
    ),
    "weights of the Dense cut": Bad(lambda f: os.truncate(f / "2_Dense/model.safetensors", 99), ["cannot be loaded"]),
    "one attention weight missing": Bad(
        lambda f: change_weights(f / "model.safetensors", delete_attention),
        ["1 weights are missing", "encoder.layer.1.attention.self.key.weight", "random"],
    ),
    "one Dense weight missing": Bad(
        lambda f: change_weights(f / "2_Dense/model.safetensors", lambda w: w.pop("linear.bias")), ["linear.bias"]
    ),
    "weights of another size": Bad(
        lambda f: change_json(f / "config.json", lambda config: config.update(intermediate_size=40)),
        ["cannot be loaded"],
    ),
    "NaN in the transformer": Bad(
        lambda f: change_weights(f / "model.safetensors", lambda w: w["embeddings.LayerNorm.bias"].fill_(np.nan)),
        ["1 weights hold NaN or infinity", "embeddings.LayerNorm.bias"],
    ),
    "infinity in the Dense": Bad(
        lambda f: change_weights(f / "2_Dense/model.safetensors", lambda w: w["linear.bias"].fill_(np.inf)),
        ["1 weights hold NaN or infinity", "linear.bias"],
    ),
    # modules and architectures
    "unknown module type": Bad(
        lambda f: module_entry(f, 1, type="sentence_transformers.models.Whitening"), ["Whitening"], SbertconvError
    ),
    "two unknown module types": Bad(
        lambda f: [module_entry(f, i, type=f"sentence_transformers.models.Unknown{i}") for i in (1, 2)],
        ["Unknown1", "Unknown2"],
        SbertconvError,
    ),
    "unknown architecture": Bad(
        lambda f: change_json(f / "config.json", lambda config: config.update(model_type="berd")),
        ["[0] Transformer", "architecture 'berd' is not known to transformers"],
    ),
    "no architecture": Bad(
        lambda f: change_json(f / "config.json", lambda config: config.pop("model_type") and None),
        ["[0] Transformer", "architecture"],
    ),
    "unknown pooling": Bad(
        lambda f: change_json(f / "1_Pooling/config.json", lambda config: config.update(pooling_mode="acme")),
        ["acme"],
        SbertconvError,
    ),
    "custom code that is not trusted": Bad(
        lambda f: module_entry(f, 1, type="own_modules.Pooling"), ["own_modules.Pooling", "trust"], SbertconvError
    ),
    # tokenizers
    "tokenizer missing": Bad(remove_tokenizer, ["[0] Transformer", "no tokenizer", "tokenizer.json"]),
    "tokenizer cut": Bad(lambda f: os.truncate(f / "tokenizer.json", 999), ["tokenizer.json: not readable as JSON"]),
    # options
    **{
        f"opset {opset}": Bad(
            nothing,
            [f"opset={opset} is not known", "18, 19, 20"],
            UnsupportedOptionError,
            {"opset": opset},
            ["--opset", str(opset)],
        )
        for opset in (0, 17, 23, 99)
    },
    "opset below what the graph needs, and everything at once": Bad(
        lambda f: delete_weights(f, "2_Dense"), ["opset=7"], UnsupportedOptionError, {"opset": 7}, ["--opset", "7"]
    ),
    "an output twice": Bad(
        nothing,
        ["at most once"],
        UnsupportedOptionError,
        {"outputs": ["token_embeddings", "token_embeddings"]},
        ["--output", "token_embeddings", "--output", "token_embeddings"],
    ),
    "revision of a folder that is none": Bad(
        shutil.rmtree, ["no such folder"], SourceError, {"revision": "main"}, ["--revision", "main"]
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error_and_leaves_nothing(
    name: str, bert_folder: Path, copy_of: Any, cli: Callable[..., Ran]
) -> None:
    bad, folder = BAD[name], copy_of(bert_folder)
    bad.how(folder)
    before = snapshot(folder.parent)
    target = folder.parent / "new" / "out"
    with pytest.raises(bad.error) as raised:
        sbertconv.to_onnx(folder, target, **bad.options)
    message = str(raised.value)
    assert all(word in message for word in bad.words), message
    assert 2 <= len(message.splitlines()) <= 12, message  # what and where, then what to do
    ran = cli("to-onnx", folder, target, *bad.arguments)
    assert (ran.code, ran.out, ran.said) == (1, "", f"{in_command_words(message, flags_of(None))}\n")
    after = snapshot(folder.parent)
    assert {path for path in set(after) - set(before) if path != "new"} == set()
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("name", ["unknown", "Sentence_Embedding", ""])
def test_an_output_that_does_not_exist(name: str, static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    with pytest.raises(UnsupportedOptionError, match="sentence_embedding, token_embeddings"):
        sbertconv.to_onnx(static_folder, tmp_path / "out", outputs=[name])
    ran = cli("to-onnx", static_folder, tmp_path / "out", "--output", name)
    assert ran.code == 2
    assert "sentence_embedding" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["openvino", "torch", "unknown"])
def test_a_format_that_is_not_of_this_command(form: str, cli: Callable[..., Ran]) -> None:
    ran = cli("to-tf", "any model", "--format", form)
    assert ran.code == 2
    assert f"'{form}' is not one of 'keras', 'saved_model', 'litert', 'onnx'" in " ".join(
        ran.err.replace("│", "").split()
    )


def test_an_output_that_the_chain_does_not_give(static_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"gives no token_embeddings \(has: sentence_embedding\)"):
        sbertconv.to_onnx(static_folder, tmp_path / "out", outputs=["token_embeddings"])
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("target", ["a file/model", "/proc/sbertconv/model", "a file"])
def test_a_target_that_cannot_be_written(
    target: str, static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    (tmp_path / "a file").write_text("")
    ran = cli("to-onnx", static_folder, tmp_path / target)
    assert ran.code == 1
    assert target in ran.err
    assert "Traceback" not in ran.err
    assert set(snapshot(tmp_path)) == {"a file"}


@pytest.mark.parametrize("command", ["to-onnx", "to-torch"])
def test_an_empty_target_is_not_the_current_folder(
    command: str, static_folder: Path, tmp_path: Path, cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli(command, static_folder, "")
    assert (ran.code, ran.said.splitlines()[0]) == (1, "The folder to write has an empty name.")
    assert snapshot(tmp_path) == {}


# Gaps: everything at once


class Untraceable(torch.nn.Module):
    """Computes in numpy."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        features["sentence_embedding"] = torch.from_numpy(features["sentence_embedding"].numpy(force=True) * 2)
        return features


class AlsoUntraceable(Untraceable):
    """Decides by a value."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        if float(features["sentence_embedding"].abs().max()) > 1:
            return super().forward(features)
        return features


def unknown_pooling() -> st.Pooling:
    """A mode that this version does not know, as a future one of the library may have."""
    pooling = cases.pooling("mean")
    pooling.pooling_mode = "acme"
    return pooling


def python_tokenizer() -> SentenceTransformer:
    model = cases.bert(cases.pooling())
    model[0].processor = CanineTokenizer()
    return model


GAPS: dict[str, tuple[Callable[[], SentenceTransformer], list[str]]] = {
    "two untraceable modules": (
        lambda: cases.chain(cases.static_embedding(), Untraceable(), cases.st.Normalize(), AlsoUntraceable()),
        ["2 of 4 modules are unsupported", "[1] Untraceable: no converter", "[3] AlsoUntraceable: no converter"],
    ),
    "a setting and an untraceable module": (
        lambda: cases.bert(unknown_pooling(), Untraceable()),
        ["2 of 3 modules are unsupported", "[1] Pooling: pooling_mode='acme' is not known", "[2] Untraceable"],
    ),
    "an unknown pooling": (
        lambda: cases.bert(unknown_pooling()),
        ["1 of 2 modules is unsupported", "[1] Pooling: pooling_mode='acme' is not known (have: cls, lasttoken, max"],
    ),
    "a tokenizer written in Python": (
        python_tokenizer,
        ["1 of 2 modules is unsupported", "[0] Transformer", "CanineTokenizer", "written in Python"],
    ),
    "a tokenizer and a pooling": (
        lambda: (lambda model: (model.append(unknown_pooling()), model)[1])(python_tokenizer()),
        ["2 of 3 modules are unsupported", "CanineTokenizer", "[2] Pooling: pooling_mode='acme'"],
    ),
}


@pytest.mark.parametrize(
    "convert", [sbertconv.to_onnx, sbertconv.to_tf, sbertconv.to_torch], ids=["to-onnx", "to-tf", "to-torch"]
)
@pytest.mark.parametrize("name", GAPS)
def test_every_gap_is_named_at_once(name: str, convert: Callable[..., Any], tmp_path: Path) -> None:
    build, words = GAPS[name]
    with pytest.raises(UnsupportedModuleError) as raised:
        convert(build(), tmp_path / "out")
    message = str(raised.value)
    assert message.startswith("Cannot convert "), message
    assert all(word in message for word in words), message
    assert message.splitlines()[-1] == WAYS_OUT
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    ("build", "place", "weight"),
    [
        (lambda: cases.router(default="document"), "document", "encoder.layer.0.attention.self.key.weight"),
        (lambda: cases.router(default="document"), "query", "encoder.layer.0.attention.self.key.weight"),
        (lambda: cases.router(default=None), "document", "encoder.layer.0.attention.self.key.weight"),
        (cases.clip, "", "text_model.encoder.layers.1.self_attn.k_proj.weight"),
        (cases.clip, "", "vision_model.encoder.layers.1.self_attn.k_proj.weight"),
    ],
    ids=["default route", "other route", "no default route", "text tower", "image tower"],
)
def test_a_missing_weight_is_found_wherever_it_is(build: Any, place: str, weight: str, tmp_path: Path) -> None:
    """encode() of a text without a task reaches one route or tower only, if any."""
    build().save_pretrained(str(tmp_path))
    (path,) = (path for path in tmp_path.rglob("model.safetensors") if place in str(path.parent.relative_to(tmp_path)))
    change_weights(path, lambda weights: weights.pop(weight))
    with pytest.raises(SourceError, match=rf"weights are missing[\s\S]*{weight}"), open_source(tmp_path).loaded():
        pass


def test_weights_that_nothing_depends_on_may_be_missing(bert_folder: Path, copy_of: Any) -> None:
    """Many checkpoints have no pooler; its output is not used."""
    folder = copy_of(bert_folder)
    change_weights(folder / "model.safetensors", lambda w: [w.pop(key) for key in list(w) if key.startswith("pooler")])
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode(TEXTS)
    with open_source(folder).loaded() as model:
        assert model.encode(TEXTS) == pytest.approx(expected, abs=1e-6)


# Missing extras


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("to-onnx", "torch", "onnx"),
        ("to-onnx", "sentence_transformers", "onnx"),
        ("to-onnx", "onnxscript", "onnx"),
        ("verify", "torch", "onnx"),
        ("inspect", "sentence_transformers", "onnx"),
        ("encode", "pyarrow", "parquet"),
    ],
)
def test_a_missing_extra_says_what_to_install(
    command: str,
    package: str,
    extra: str,
    static_folder: Path,
    static_artifact: Path,
    tmp_path: Path,
    cli: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = {
        "to-onnx": [static_folder, tmp_path / "out"],
        "verify": [static_folder, static_artifact],
        "inspect": [static_folder],
        "encode": [static_artifact, "a text", "--output", tmp_path / "out.parquet"],
    }
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    ran = cli(command, *arguments[command])
    assert ran.code == 1
    assert ran.said.splitlines()[0] == f"Missing package: {package}."
    assert ran.err.splitlines()[-1] == f'Install what is needed: pip install "sbertconv[{extra}]"'
    assert snapshot(tmp_path) == {}


def test_every_missing_package_is_named_at_once(static_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(MissingDependencyError, match=r"^Missing packages: torch, sentence_transformers, on") as raised:
        sbertconv.to_onnx(static_folder)
    assert isinstance(raised.value, ImportError)


def test_a_base_installation_says_what_to_install(static_folder: Path, tmp_path: Path) -> None:
    """A real process in which torch cannot be imported."""
    code = "import sys; sys.modules['torch'] = None\nfrom sbertconv.cli import main\nmain()"
    ran = run_python(code, "to-onnx", static_folder, tmp_path / "out")
    assert (ran.code, ran.out) == (1, "")
    assert ran.said == 'Missing package: torch.\nInstall what is needed: pip install "sbertconv[onnx]"\n'


# Parity

WRONG = '''
import torch


class Wrong(torch.nn.Module):
    """Normalize, a little off."""

    def forward(self, features):
        vectors = torch.nn.functional.normalize(features["sentence_embedding"], dim=-1)
        return {**features, "sentence_embedding": vectors + 1e-3}


def register(registry):
    from sentence_transformers.sentence_transformer.modules import Normalize

    registry.add("onnx", Normalize, lambda module, context: Wrong(), override=True)
'''


@pytest.fixture
def wrong_converter(tmp_path: Path) -> Any:
    """An installed plugin whose converter for Normalize adds 1e-3."""
    site = tmp_path / "site"
    site.mkdir()
    install_plugin(site, "acme-wrong", WRONG, {"wrong": "acme_wrong:register"})
    with importable(site, "acme_wrong"):
        yield


@pytest.mark.usefixtures("wrong_converter")
def test_a_failed_check_publishes_nothing(
    static_folder: Path, static_artifact: Path, copy_of: Any, tmp_path: Path
) -> None:
    target = copy_of(static_artifact)
    before = snapshot(tmp_path / target.name)
    with pytest.raises(ParityError, match=r"^Parity failed for 'onnx': max abs diff 1.0e-03, cosine ") as raised:
        sbertconv.to_onnx(static_folder, target, overwrite=True)
    assert "Nothing was written" in str(raised.value)
    assert snapshot(target) == before
    assert {path.name for path in tmp_path.iterdir()} == {"site", target.name}
    assert "apart at the answer (encode, 1.0e-03)" in str(raised.value)
    report = raised.value.report
    assert not report.passed
    assert report.worst.max_abs_diff == pytest.approx(1e-3, rel=0.01)
    assert report.worst.worst_text
    assert {check.name: check.passed for check in report.checks} == {
        check.name: check.name == "tokens" for check in report.checks
    }
    json.dumps(report.to_json())


@pytest.mark.usefixtures("wrong_converter")
def test_a_wider_tolerance_is_the_users_to_choose(static_folder: Path, tmp_path: Path) -> None:
    artifact = sbertconv.to_onnx(static_folder, tmp_path / "out", atol=2e-3)
    report = artifact.manifest["parity"]
    assert (report["passed"], report["rule"]) == (True, "|a - b| <= 2e-03 + 1e-05 |b|")
    with pytest.raises(ParityError, match=r"The rule is \|a - b\| <= 1e-04"):
        sbertconv.to_onnx(static_folder, tmp_path / "other", atol=1e-4, rtol=0, optimize=False)


@pytest.mark.usefixtures("wrong_converter")
def test_a_failed_check_has_exit_code_3_and_shows_the_table(
    static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    ran = cli("to-onnx", static_folder, tmp_path / "out", "--no-optimize")
    assert (ran.code, ran.out) == (3, "")
    assert "padded batch" in ran.err
    assert "FAILED" in ran.err
    *_, message, where, advice = ran.err.splitlines()
    assert message.startswith("Parity failed for 'onnx': max abs diff 1.0e-03, cosine ")
    assert "apart at the answer" in where
    assert advice.startswith("Allow more with --atol")
    assert not (tmp_path / "out").exists()


# Real processes


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["encode", "nowhere", "a text"], 1, "nowhere: no such folder"),
        (["encode", ".", "a text"], 1, "did not write it"),
        (["encode", "."], 2, "give either texts or --input"),
        (["encode", ".", "a", "--batch-size", "0"], 2, "--batch-size"),
        (["to-onnx"], 2, "Missing argument"),
        (["to-onnx", "a", "b", "c"], 2, "unexpected extra argument"),
        (["to-onnx", "model", "--opset", "new"], 2, "--opset"),
        (["to-onnx", "model", "--outputs", "x"], 2, "--outputs"),
        (["to-tensorflow", "model"], 2, "to-tensorflow"),
        (["to-onnx", "not/a/model"], 1, "not/a/model: no such folder, and not a Hub id"),
    ],
)
def test_no_traceback_reaches_the_user(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    ran = run_process(COMMAND, *arguments, cwd=tmp_path)
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    ("variable", "arguments"),
    [
        ("HF_HUB_ETAG_TIMEOUT=x", ["push", "FOLDER", "owner/model"]),
        ("HF_HUB_DOWNLOAD_TIMEOUT=x", ["inspect", "MODEL"]),
        ("TORCH_LOGS=x", ["inspect", "MODEL"]),
        ("TORCH_LOGS=help", ["to-onnx", "MODEL"]),
    ],
)
def test_a_variable_that_a_library_does_not_take_is_named(
    variable: str, arguments: list[str], static_folder: Path, static_artifact: Path, tmp_path: Path
) -> None:
    places = {"MODEL": str(static_folder), "FOLDER": str(static_artifact)}
    name, value = variable.split("=")
    ran = run_process(COMMAND, *(places.get(word, word) for word in arguments), cwd=tmp_path, env={name: value})
    assert ran.code == 1, ran.err
    assert f"cannot start with {name}={value!r} in the environment: ValueError: " in ran.err
    assert f"\nUnset {name}, or set what " in ran.err
    assert "Traceback" not in ran.err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    ran = run_process(COMMAND, "--debug", "encode", "nowhere", "a text", cwd=tmp_path)
    assert ran.code == 1
    assert "Traceback (most recent call last)" in ran.err
    assert "nowhere: no such folder" in ran.err


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("engines", ["openvino"]),
        ("min_cosine", 0.5),
        ("min_spearman", 0.5),
        ("min_top10", 0.5),
        ("texts", ["a text"]),
        ("calibration", ["a text"]),
        ("revision", "main"),
        ("trust_remote_code", True),
        ("registry", sbertconv.Registry()),
        ("opset", 20),
        ("model_class", "CrossEncoder"),
        ("optimize", False),
    ],
)
def test_an_option_without_a_use_for_a_keras_model_is_refused_by_name(keyword: str, value: Any, tmp_path: Path) -> None:
    model = tmp_path / "model.keras"
    model.write_bytes(b"")
    with pytest.raises(UnsupportedOptionError, match=f"^{keyword}=: .* is a Keras model: it has its inputs"):
        sbertconv.to_onnx(model, tmp_path / "onnx", **{keyword: value})


def test_a_message_is_as_long_as_somebody_reads() -> None:
    names = "', '".join(f"name {number}" for number in range(100_000))
    text = str(SbertconvError(f"a file: '{names}' differ\n" + "  a line\n" * 100_000 + "Mend it."))
    assert text.startswith("a file: 'name 0'")
    assert text.endswith("\nMend it.")
    assert len(text) < 10_000
    assert "lines more" in text


def test_the_reason_of_a_function_of_tensorflow_comes_before_its_lines() -> None:
    import tensorflow as tf

    @tf.function
    def fails(x: Any) -> Any:
        if tf.reduce_sum(x) > 0:
            raise ValueError("the reason,\nand more")
        return x

    with pytest.raises(ValueError, match="in user code") as raised:
        fails(tf.ones(2))
    assert error_text(raised.value) == "ValueError: the reason,"
    assert error_text(raised.value, 2) == "ValueError: the reason, and more"


def test_the_reason_of_an_engine_stands_without_the_places_before_it() -> None:
    import keras
    import tensorflow as tf

    layer = keras.layers.Reshape((3, 5))
    with pytest.raises(tf.errors.InvalidArgumentError, match="most recent call last") as raised:
        tf.function(layer, input_signature=[tf.TensorSpec([None, None])])(tf.ones([2, 7]))
    assert engine_text(raised.value).startswith("Input to reshape is a tensor with 14 values")
    openvino = "Exception from src/cpp/infer_request.cpp:224:\nException from src/node.cpp:794:\nthe reason\n\n"
    assert engine_text(RuntimeError(openvino)) == "the reason"
    assert engine_text(RuntimeError("one\ntwo")) == "one two"
