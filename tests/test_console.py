"""The command line as people know it from others: short options, standard input, completion, and what was meant."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COMMAND, ROOT, Ran, run_process, run_python, snapshot

import sbertconv
from sbertconv import SourceError
from sbertconv.console.estimates import FIXED, Estimate, Measured
from sbertconv.console.files import write_file
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
    assert all(re.fullmatch(r"done .* \d+\.\d s(, about .* left)?", line) for line in ran["-v"].err.splitlines())
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
    for message in (
        "format 'x' is not there (have: onnx, keras).\nChoose.",
        "No list here.",
        "'a' is wrong",
        "the column 'text' is int64 (have: text, bytes of images).\nChoose.",
    ):
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
    assert complete_model("~nobody-of-that-name/") == []


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


def test_a_dry_run_and_a_conversion_tell_what_the_one_before_took(
    bert_folder: Path, static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Ran]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    convert = ["to-onnx", static_folder, tmp_path / "out", "--overwrite"]
    assert "Estimate" not in cli(*convert, "--dry-run").out
    assert json.loads(cli(*convert, "--dry-run", "--json").out)["estimate"] is None
    first = cli(*convert)
    assert first.code == 0
    assert " left" not in first.err
    told = cli(*convert, "--dry-run").out
    assert re.search(r"Estimate, .*: about \d+ s, [\d.]+ [MG]iB of memory, a folder of [\d.]+ [KM]iB", told)
    found = json.loads(cli(*convert, "--dry-run", "--json").out)["estimate"]
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found["size"] == pytest.approx(written)
    assert found["memory"] > 2**26
    larger = json.loads(cli("to-onnx", bert_folder, tmp_path / "bert", "--dry-run", "--json").out)["estimate"]
    assert larger["seconds"] != found["seconds"]
    for other in (["--opset", "20"], ["--text-input"]):  # what takes another time is not guessed
        assert "Estimate" not in cli(*convert, *other, "--dry-run").out
    records = tmp_path / "cache/sbertconv/conversions.json"
    lasting = [{**json.loads(records.read_text())[0], "stages": [[name, 1000.0] for name in STAGES]}]
    records.write_text(json.dumps(lasting))
    lines = cli(*convert).err.splitlines()
    assert [line.partition(", ")[2] for line in lines[:2]] == ["about 1.9 h left", "about 1.7 h left"]
    assert "left" not in lines[-1]
    assert len(json.loads(records.read_text())) == 2


STAGES = (
    "loading libraries", "loading the model", "planning", "converting", "asking the original", "writing",
    "comparing with encode()", "publishing",
)  # fmt: skip


@pytest.mark.parametrize("content", [b"\xff", b"{", b"[1]", b'[{"command": 1}]', b" " * (2**20 + 1), None])
def test_a_file_of_estimates_that_is_no_use_is_no_error(
    content: bytes | None, static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Ran]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if content is None:
        (tmp_path / "sbertconv").write_bytes(b"a file in the place of the folder")
    else:
        (tmp_path / "sbertconv").mkdir()
        (tmp_path / "sbertconv/conversions.json").write_bytes(content)
    ran = cli("to-onnx", static_folder, tmp_path / "out", "--dry-run")
    assert (ran.code, ran.err, "Estimate" in ran.out) == (0, "", False)
    ran = cli("to-onnx", static_folder, tmp_path / "out")
    assert (ran.code, ran.said) == (0, "")
    if content is not None:
        assert len(json.loads((tmp_path / "sbertconv/conversions.json").read_text())) == 1


def test_time_that_remains_is_that_of_the_stages_to_come() -> None:
    measured = Measured("to_onnx", {}, 0, [("load", 10), ("convert", 20), ("compare", 30)], 2**30, 10)
    estimate = Estimate(measured, 0)
    assert estimate.seconds == 60
    assert estimate.left(["load"], 4) == 56
    assert estimate.left(["load"], 40) == 50  # a stage that takes longer than it did
    assert estimate.left(["load", "compare"], 10) == 20
    assert estimate.left(["load", "another", "convert"], 0) == 50
    twice = Estimate(measured, FIXED["seconds"])  # as much again as what every conversion costs
    assert (twice.seconds, twice.memory > measured.memory, twice.size > measured.size) == (120, True, True)


def test_a_line_for_each_stage_where_nobody_watches(
    static_folder: Path, static_artifact: Path, cli: Callable[..., Ran]
) -> None:
    ran = cli("verify", static_folder, static_artifact)
    assert ran.code == 0
    assert len(ran.err.splitlines()) > 2
    assert (ran.said, "\r" in ran.err, "\x1b" in ran.err) == ("", False, False)
    assert cli("verify", static_folder, static_artifact, "--json").err == ""
    assert cli("verify", static_folder, static_artifact, "--json", "-v").err


# Names


@pytest.mark.parametrize(
    ("arguments", "old", "new"),
    [
        (["encode", "{artifact}", "a text", "--precision", "int4"], "--precision", "--embedding-precision"),
        (["encode", "{artifact}", "a text", "--precision=int4"], "--precision", "--embedding-precision"),
        (["bench", "none", "--json", "report.json"], "--json", "--json-file"),
    ],
)
def test_an_old_name_is_taken_with_a_notice(
    arguments: list[str], old: str, new: str, static_artifact: Path, cli: Callable[..., Ran]
) -> None:
    ran = cli(*(argument.format(artifact=static_artifact) for argument in arguments))
    assert f"Note: {old} is {new} now" in ran.err
    assert "int4" in ran.err or "none: no such folder" in ran.err  # the value arrives


def test_names_of_sentence_transformers_are_taken(static_artifact: Path, cli: Callable[..., Ran]) -> None:
    ours, theirs = (
        cli("encode", static_artifact, "a text", name) for name in ("--normalize", "--normalize-embeddings")
    )
    assert (ours.code, ours) == (0, theirs)


def test_every_name_of_the_table_is_an_option() -> None:
    from typer.main import get_command

    from sbertconv.cli import app

    group: Any = get_command(app)
    options = [one for command in group.commands.values() for one in command.params]
    known = {name for one in options for name in (*one.opts, *one.secondary_opts)}
    table = (ROOT / "docs/names.md").read_text(encoding="utf-8")
    ours = {name for row in table.splitlines() for name in re.findall(r"`(--[\w-]+)", "|".join(row.split("|")[1:3]))}
    assert len(ours) > 10
    assert ours - known == set()


@pytest.mark.parametrize("value", ["\u202eabc", "a\x1b[31m"])
def test_a_value_of_the_command_line_is_said_without_what_a_terminal_obeys(
    value: str, static_artifact: Path, cli: Callable[..., Ran], tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a fox"}\n', encoding="utf-8")
    ran = cli("encode", static_artifact, "--input", tmp_path, "--output", tmp_path / "out/", "--keep", value)
    assert ran.code == 1
    assert "--keep" in ran.err
    assert value not in ran.err


def test_a_file_is_written_whole_and_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine", encoding="utf-8")
    (tmp_path / "page.html").symlink_to(tmp_path / "other")
    write_file(tmp_path / "page.html", "new")
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        "other": "mine",
        "page.html": "new",
    }
    with pytest.raises(sbertconv.UnsupportedOptionError, match=r"gone.page\.html: cannot be written: No such file"):
        write_file(tmp_path / "gone" / "page.html", "new")


def test_a_pipe_is_written_into_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "page.html")
    reader = os.open(tmp_path / "page.html", os.O_RDWR | os.O_NONBLOCK)
    try:
        write_file(tmp_path / "page.html", "new")
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert [path.name for path in tmp_path.iterdir() if path.is_fifo()] == ["page.html"]


def test_what_a_link_says_is_a_standard_stream_is_written_into_where_that_is(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/proc/self/fd/1")  # as /dev/stdout is one
    code = (
        "from pathlib import Path; from sbertconv.console.files import write_file\n"
        "print('before'); write_file(Path('out'), 'new '); print('after')"
    )
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before\nnew after\n"
    assert (tmp_path / "out").is_symlink()


def test_no_file_is_written_in_the_place_of_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("report")
        with pytest.raises(sbertconv.UnsupportedOptionError, match="report: cannot be written: it is a socket"):
            write_file(Path("report"), "new")
    assert Path("report").is_socket()
