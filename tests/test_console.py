"""The command line as people know it from others: short options, standard input, completion, and what was meant."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COMMAND, Ran, run_process, run_python, snapshot

import sbertconv
from sbertconv import SourceError
from sbertconv.console.hints import complete_converted, complete_engine, complete_model, with_suggestion
from sbertconv.source.naming import model_name

LIBRARIES = """
import sys
from sbertconv.cli import main
try:
    main()
except SystemExit as exit_:
    heavy = {"torch", "transformers", "sentence_transformers", "keras", "tensorflow", "onnx", "onnxruntime"}
    print(exit_.code, sorted(heavy & set(sys.modules)))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache with two models in it."""
    for name in ("models--acme--mini-encoder", "models--sentence-transformers--all-MiniLM-L6-v2", "datasets--acme--x"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


# Short options


@pytest.mark.parametrize(("short", "long"), [("-h", "--help"), ("-V", "--version")])
def test_short_options_are_the_long_ones(short: str, long: str, cli: Callable[..., Ran]) -> None:
    assert cli(short) == cli(long)
    assert cli(short).code == 0
    assert cli("to-onnx", "-h").out == cli("to-onnx", "--help").out


@pytest.mark.parametrize("place", ["before", "behind"])
def test_quiet_prints_nothing_and_verbose_the_stages(
    place: str, static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    command = ["to-onnx", static_folder, tmp_path / "out", "--overwrite"]
    ran = {option: cli(*([option, *command] if place == "before" else [*command, option])) for option in ("-q", "-v")}
    assert ran["-q"] == Ran(0, "", "")
    assert ran["-v"].code == 0
    assert [line.split()[1] for line in ran["-v"].err.splitlines()][:2] == ["loading", "loading"]
    assert all(line.startswith("done ") and line.endswith(" s") for line in ran["-v"].err.splitlines())
    assert "Written to" in cli(*command).out  # one run does not silence the next


def test_quiet_still_says_errors_and_results(static_artifact: Path, cli: Callable[..., Ran]) -> None:
    assert "no such folder" in cli("inspect", "./none", "-q").err
    assert len(cli("encode", static_artifact, "a text", "-q").out.splitlines()) == 1
    assert json.loads(cli("inspect", static_artifact, "-q", "--json").out)["formats"]
    assert cli("-q", "-v", "engines").code == 2


# Standard input and output


@pytest.mark.parametrize("arguments", [["-"], ["--input", "-"], ["--input", "-", "--output", "-"]])
def test_a_dash_is_standard_input_and_output(arguments: list[str], static_artifact: Path, tmp_path: Path) -> None:
    texts = "\ufeffThe first text.\r\n\nZweiter Text: ü\n"
    ran = subprocess.run(
        [COMMAND, "encode", static_artifact, *arguments],
        input=texts.encode(), capture_output=True, cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, b"")
    found = np.array([json.loads(line) for line in ran.stdout.splitlines()])
    expected = sbertconv.load(static_artifact).encode(["The first text.", "", "Zweiter Text: ü"])
    assert found == pytest.approx(expected, abs=1e-6)
    assert snapshot(tmp_path) == {}


def test_what_is_no_text_on_standard_input_is_said(static_artifact: Path) -> None:
    ran = subprocess.run(
        [COMMAND, "encode", static_artifact, "-"], input=b"\xff\xfe", capture_output=True, timeout=120, check=False
    )
    assert ran.returncode == 1
    assert b"-: cannot be read" in ran.stderr


# What was meant


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["to-onx", "x"], "to-onnx"),
        (["to-onnx", "x", "--presision", "int8"], "--precision"),
        (["to-onnx", "x", "--precision", "int9"], "int8"),
        (["to-onnx", "x", "--engine", "openvin"], "openvino"),
        (["to-tf", "x", "--format", "saved-model"], "saved_model"),
        (["encode", "{artifact}", "x", "--engine", "onnxruntim"], "onnxruntime"),
        (["encode", "{artifact}", "x", "--prompt-name", "qery"], "query"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(
    arguments: list[str], meant: str, static_artifact: Path, cli: Callable[..., Ran]
) -> None:
    ran = cli(*(argument.format(artifact=static_artifact) for argument in arguments))
    assert ran.code in (1, 2)
    assert meant in ran.err.replace("Did you", "did you").partition("did you mean")[2] or "Possible options" in ran.err


def test_nothing_is_suggested_where_nothing_is_like_it() -> None:
    for message in ("format 'x' is not there (have: onnx, keras).\nChoose.", "No list here.", "'a' is wrong"):
        assert with_suggestion(message) == message


@pytest.mark.parametrize("name", ["acme/mini-encodr", "all-MiniLM-L6-v3", "./bert-modle", "tuned.kera.keras"])
def test_a_misspelt_model_gets_a_suggestion(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert-model").mkdir()
    (tmp_path / "tuned.keras").write_bytes(b"")
    meant = {"acme": "acme/mini-encoder", "all-": "all-MiniLM-L6-v2", "./be": "./bert-model", "tune": "tuned.keras"}
    with pytest.raises(SourceError, match=f"Did you mean '{meant[name[:4]]}'"):
        sbertconv.inspect(name)


# Names of models


def test_an_address_of_the_hub_is_its_id(cli: Callable[..., Ran]) -> None:
    from huggingface_hub.constants import ENDPOINT

    for rest in ("", "/", "/tree/main", "?library=x"):
        assert model_name(f"{ENDPOINT}/acme/mini-encoder{rest}") == "acme/mini-encoder"
    with pytest.raises(SourceError, match="revision='v2'"):
        model_name(f"{ENDPOINT}/acme/mini-encoder/tree/v2")
    for other in ("https://example.org/acme/model", f"{ENDPOINT}/acme", "ftp://acme/model"):
        with pytest.raises(SourceError, match="not the address of a model"):
            model_name(other)


@pytest.mark.parametrize("command", ["to-onnx", "to-openvino", "to-tf", "to-torch", "to-st", "inspect"])
def test_a_path_that_is_not_there_is_refused_before_libraries_are_loaded(command: str, tmp_path: Path) -> None:
    ran = run_python(LIBRARIES, command, "./nope", cwd=tmp_path)
    assert ran.out == "1 []\n"
    assert ran.err.startswith("./nope: no such f")


# Completion


def test_completion_is_there(tmp_path: Path) -> None:
    ran = run_process(COMMAND, "--show-completion", "bash", env={"SHELL": "/bin/bash"})
    assert (ran.code, "complete" in ran.out) == (0, True)
    asked = {"_SBERTCONV_COMPLETE": "complete_bash", "COMP_WORDS": "sbertconv to-", "COMP_CWORD": "1"}
    assert {"to-onnx", "to-tf", "to-st"} <= set(run_process(COMMAND, env=asked).out.split())
    asked = {**asked, "COMP_WORDS": "sbertconv to-onnx x --precision ", "COMP_CWORD": "4"}
    assert "int8" in run_process(COMMAND, env=asked).out.split()


def test_models_folders_and_engines_are_completed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("made-onnx", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "made-onnx/sbertconv.json").write_text("{}")
    (tmp_path / "more.keras").write_bytes(b"")
    assert complete_model("m") == ["made-onnx/", "model/", "more.keras"]
    assert complete_model("acme/") == ["acme/mini-encoder"]
    assert complete_converted("m") == ["made-onnx", "more.keras"]
    assert complete_converted("./mo") == ["./more.keras"]
    assert complete_converted("h") == ["hub/"]
    assert complete_engine("open") == ["openvino"]


# Dry runs


@pytest.mark.parametrize(
    ("command", "kind"),
    [("to-onnx", "onnx"), ("to-openvino", "openvino"), ("to-tf", "keras"), ("to-torch", "torch")],
)
def test_a_dry_run_shows_the_plan_and_writes_nothing(
    command: str, kind: str, static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli(command, static_folder, "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert "StaticEmbedding" in ran.out
    assert f"Would write to {tmp_path / static_folder.name}-{kind}" in ran.out
    assert snapshot(tmp_path) == {}


def test_a_dry_run_says_what_would_be_refused(
    bert_folder: Path, bert_keras: Path, copy_of: Any, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    ran = cli("to-st", bert_keras, bert_keras, "--dry-run")
    assert (ran.code, "exists already, pass --overwrite" in ran.out) == (1, True)
    assert cli("to-st", bert_keras, tmp_path / "st", "--dry-run").code == 0
    folder = copy_of(bert_folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "acme.nn.Layer"
    (folder / "modules.json").write_text(json.dumps(modules))
    ran = cli("to-onnx", folder, tmp_path / "out", "--dry-run", "--json")
    assert ran.code == 1
    assert (json.loads(ran.out)["dry_run"], json.loads(ran.out)["folder"]) == (True, str(tmp_path / "out"))
