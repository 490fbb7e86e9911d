"""The converted folder: it appears whole or not at all, and a folder that cannot be trusted is refused."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS, run_python, snapshot

import sbertconv
from sbertconv import ArtifactError
from sbertconv.artifact.folder import MANIFEST, link_or_copy, read_artifact
from sbertconv.artifact.publishing import Staging, stage
from sbertconv.artifact.scratch import make_scratch
from sbertconv.console.options import flags_of, in_command_words
from sbertconv.conversion import default_directory
from sbertconv.parity.comparison import Reference
from sbertconv.runtime.graph import Graph
from sbertconv.runtime.images import SETTINGS

PIXELS = dict.fromkeys(SETTINGS)
TENSOR = {"name": "pixel_values", "dtype": "float32", "shape": ["batch", 3, 8, 8]}
SMALLEST = {
    "sbertconv": "0",
    "model_class": "SentenceTransformer",
    "backend": "onnx",
    "source": {"name": "model", "revision": None},
    "architecture": None,
    "chain": [],
    "notes": [],
    "max_seq_length": None,
    "padding_side": None,
    "do_lower_case": False,
    "prompts": {},
    "default_prompt_name": None,
    "embedding_dimension": 8,
    "similarity_fn_name": "cosine",
    "precision": "fp32",
    "sees_padding": False,
    "engines": {"onnx": ["onnxruntime"]},
    "graphs": [
        {
            "name": "image",
            "formats": {"onnx": "onnx/model.onnx"},
            "modality": "image",
            "tasks": [],
            "inputs": [TENSOR],
            "outputs": [TENSOR],
            "tokenizer": None,
            "image": PIXELS,
        }
    ],
    "versions": {},
}
STAGES = ["loading libraries", "loading the model", "planning", "converting", "comparing with encode()", "publishing"]


def write_artifact(target: Path, content: str = "graph", *, overwrite: bool = False) -> None:
    """A folder with a manifest, without converting anything."""
    with stage(target, overwrite=overwrite) as staging:
        fill(staging, content)
        staging.publish()


def fill(staging: Staging, content: str = "graph") -> None:
    staging.write("onnx/model.onnx", content)
    staging.manifest(SMALLEST)


# Publishing


def test_an_existing_target_is_refused_before_any_work(
    static_folder: Path, static_artifact: Path, copy_of: Any
) -> None:
    target = copy_of(static_artifact)
    before = snapshot(target.parent)
    seen: list[str] = []
    with pytest.raises(ArtifactError, match=r"exists already.*\n.*overwrite=True"):
        sbertconv.to_onnx(static_folder, target, on_stage=seen.append)
    with pytest.raises(ArtifactError, match="exists already"), stage(target):
        pytest.fail("the target exists")
    assert snapshot(target.parent) == before
    assert "loading the model" not in seen


def test_of_two_conversions_in_one_process_the_second_waits(static_folder: Path, tmp_path: Path) -> None:
    expected = sbertconv.load(sbertconv.to_onnx(static_folder, tmp_path / "alone").folder).encode(TEXTS)
    with ThreadPoolExecutor(2) as threads:
        made = threads.map(lambda name: sbertconv.to_onnx(static_folder, tmp_path / name), ("one", "two"))
    for artifact in made:
        np.testing.assert_array_equal(sbertconv.load(artifact.folder).encode(TEXTS), expected)


def test_overwrite_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_artifact(target, "old")
    write_artifact(target, "new", overwrite=True)
    assert set(snapshot(tmp_path)) == {"model", "model/onnx", "model/onnx/model.onnx", f"model/{MANIFEST}"}
    assert (target / "onnx/model.onnx").read_text() == "new"


def test_overwrite_never_deletes_files_of_somebody_else(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_artifact(target, "old")
    (target / "my notes.txt").write_text("notes")
    before = snapshot(tmp_path)
    with pytest.raises(ArtifactError, match=r"did not write.*my notes\.txt"):
        write_artifact(target, "new", overwrite=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("make", "overwrite", "words"),
    [
        (lambda target: (target / "thesis").mkdir(parents=True), True, "was not written by sbertconv"),
        (lambda target: (target / "thesis").mkdir(parents=True), False, "exists already"),
        (lambda target: target.write_text("thesis"), True, "is not a folder"),
        (lambda target: target.write_text("thesis"), False, "exists already"),
        (lambda target: target.mkdir(), False, "exists already"),
    ],
    ids=["foreign folder, overwrite", "foreign folder", "file, overwrite", "file", "empty folder"],
)
def test_what_sbertconv_did_not_write_is_never_replaced(
    make: Callable[[Path], Any], overwrite: bool, words: str, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    make(target)
    before = snapshot(tmp_path)
    with pytest.raises(ArtifactError, match=words), stage(target, overwrite=overwrite):
        pytest.fail("the target may not be replaced")
    assert snapshot(tmp_path) == before


def test_a_name_that_is_no_text_is_told_as_far_as_it_is(static_folder: Path, tmp_path: Path) -> None:
    written = sbertconv.to_torch(static_folder, tmp_path / "out", revision="caf\udce9").folder
    assert read_artifact(written).manifest["options"]["revision"] == "caf?"
    assert len(sbertconv.load(written, format="torch").encode(TEXTS)) == len(TEXTS)


def test_an_empty_folder_is_replaced_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_artifact(tmp_path / "model", overwrite=True)
    read_artifact(tmp_path / "model").verify_hashes()


def test_parents_of_the_target_are_made_and_the_home_folder_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_artifact(Path("~/models/new/model"))
    assert read_artifact("~/models/new/model").folder == tmp_path / "models/new/model"


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with stage(tmp_path / "model") as staging:
        fill(staging)
        (tmp_path / "model").mkdir()
        with pytest.raises(ArtifactError, match="exists already"):
            staging.publish()
    assert snapshot(tmp_path) == {"model": "dir"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match="cannot be written"), stage(tmp_path / "model"):
            pytest.fail("the parent cannot be written")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("parent", ["a file", "/proc/sbertconv"])
def test_a_parent_that_cannot_hold_folders(parent: str, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"), stage(tmp_path / parent / "model"):
        pytest.fail("the parent is no folder")
    assert set(snapshot(tmp_path)) == {"a file"}


# Failing


def failing_at(wanted: str, error: BaseException) -> Callable[[str], None]:
    def on_stage(name: str) -> None:
        if name == wanted:
            raise error

    return on_stage


@pytest.mark.parametrize("stage_name", STAGES)
def test_a_failure_at_any_stage_leaves_the_old_folder_alone(
    stage_name: str, static_folder: Path, static_artifact: Path, copy_of: Any
) -> None:
    target = copy_of(static_artifact)
    before = snapshot(target.parent)
    error = RuntimeError("injected")
    with pytest.raises(RuntimeError, match="injected"):
        sbertconv.to_onnx(static_folder, target, overwrite=True, on_stage=failing_at(stage_name, error))
    assert snapshot(target.parent) == before


@pytest.mark.parametrize("stage_name", STAGES[1:])
def test_a_full_disk_at_any_stage_is_one_clear_error(
    stage_name: str, static_folder: Path, static_artifact: Path, copy_of: Any
) -> None:
    target = copy_of(static_artifact)
    before = snapshot(target.parent)
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ArtifactError, match=r"No space left on device[\s\S]*Nothing was changed"):
        sbertconv.to_onnx(static_folder, target, overwrite=True, on_stage=failing_at(stage_name, error))
    assert snapshot(target.parent) == before


def test_a_graph_that_does_not_fit_on_the_disk(static_folder: Path, static_artifact: Path, copy_of: Any) -> None:
    """The operating system itself refuses to write more than a few KB into one file."""
    target = copy_of(static_artifact)
    before = snapshot(target.parent)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_stage(name: str) -> None:
        if name == "converting":
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(ArtifactError, match=r"writing failed[\s\S]*Nothing was changed"):
            sbertconv.to_onnx(static_folder, target, overwrite=True, on_stage=on_stage)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert snapshot(target.parent) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PermissionError(errno.EACCES, "denied")], ids=["^C", "rename"])
@pytest.mark.parametrize("exchange", [True, False], ids=["one system call", "two renames"])
def test_a_failing_rename_brings_the_old_folder_back(
    error: BaseException, exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    write_artifact(target, "old")
    before = snapshot(tmp_path)
    rename = os.rename

    def failing(source: Any, destination: Any) -> None:
        if Path(destination) == target and "-old" not in str(source):
            raise error
        rename(source, destination)

    def no_exchange(one: Path, other: Path) -> bool:
        if exchange:
            raise error
        return False

    monkeypatch.setattr(os, "rename", failing)
    monkeypatch.setattr("sbertconv.artifact.publishing._exchange", no_exchange)
    with stage(target, overwrite=True) as staging:
        fill(staging, "new")
        with pytest.raises((ArtifactError, KeyboardInterrupt)):
            staging.publish()
    assert snapshot(tmp_path) == before


def test_two_renames_replace_a_folder_where_there_is_no_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sbertconv.artifact.publishing._exchange", lambda one, other: False)
    write_artifact(tmp_path / "model", "old")
    write_artifact(tmp_path / "model", "new", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model/onnx/model.onnx").read_text() == "new"


# Killed

# Works once per stage in a child that kills itself there; the parent has imported everything only once.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import torch, sentence_transformers, onnxscript, onnxruntime
import sbertconv, sbertconv.converters.onnx.writer
from sbertconv.artifact import publishing as artifact
torch.set_num_threads(1)
model, converted, base, stages = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:]

def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def convert(name, target):
    sbertconv.to_onnx(model, target, overwrite=True, on_stage=lambda stage: stage == name and die())

def publish(name, target):
    with artifact.stage(target, overwrite=True) as staging:
        shutil.copytree(converted, staging.folder, dirs_exist_ok=True)
        if name == "exchanged":
            shutil.rmtree = die
        else:
            rename = os.rename
            os.rename = lambda one, other: rename(one, other) or die()
            artifact._exchange = lambda one, other: False
        staging.publish()

for name in stages:
    child = os.fork()
    if not child:
        (publish if name in ("exchanged", "stepped aside") else convert)(name, base / name / "model")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, name
"""


def test_kill_9_at_any_stage_leaves_a_whole_folder_and_the_next_run_tidies_up(
    static_folder: Path, static_artifact: Path, tmp_path: Path
) -> None:
    names = [*STAGES[1:], "exchanged", "stepped aside"]
    for name in names:
        manifest = shutil.copytree(static_artifact, tmp_path / name / "model") / "sbertconv.json"
        manifest.write_text(manifest.read_text() + "\n")  # a new conversion is equal in every byte
    old = snapshot(tmp_path / names[0] / "model")
    ran = run_python(KILLED, static_folder, static_artifact, tmp_path, *names)
    assert ran.code == 0, ran.err
    expected = sbertconv.load(static_artifact).encode(TEXTS)
    for name in names:
        target = tmp_path / name / "model"
        assert [path.name for path in target.parent.iterdir()] != ["model"], name  # what a kill leaves behind
        if name == "stepped aside":  # the only moment without the folder, on systems without an exchange
            assert not target.exists()
        elif name == "exchanged":
            assert snapshot(target) == snapshot(static_artifact)
        else:
            assert snapshot(target) == old, name
        if target.exists():
            assert np.allclose(sbertconv.load(target, verify=True).encode(TEXTS), expected, atol=1e-6)
        with pytest.raises(ZeroDivisionError), stage(target, overwrite=True):
            raise ZeroDivisionError  # the next run, which fails for a reason of its own
        assert [path.name for path in target.parent.iterdir()] == ["model"], name
        assert np.allclose(sbertconv.load(target, verify=True).encode(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["model", "model[v1]", "a*b", ".hidden", "mo del"])
def test_leftovers_are_found_whatever_the_target_is_called(name: str, tmp_path: Path) -> None:
    dead = 2**22 + 1  # larger than any process id
    (tmp_path / f".{name}.sbertconv-{dead}" / "onnx").mkdir(parents=True)
    (tmp_path / f".{name}2.sbertconv-{dead}").mkdir()
    (tmp_path / f".{name}.sbertconv-{os.getppid()}").mkdir()
    write_artifact(tmp_path / name)
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {name, f".{name}2.sbertconv-{dead}", f".{name}.sbertconv-{os.getppid()}"}


# Reading


def edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}), encoding="utf-8")


def rename_in_manifest(folder: Path, name: str) -> None:
    """Let the manifest call the graph by another name."""
    path = folder / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace("onnx/model.onnx", name), encoding="utf-8")


def drop(folder: Path, *keys: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps({k: v for k, v in manifest.items() if k not in keys}), encoding="utf-8")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "foreign folder": (lambda folder: (folder / MANIFEST).unlink(), "did not write it"),
    "manifest is not JSON": (lambda folder: (folder / MANIFEST).write_text("{'a': "), "not readable as JSON"),
    "manifest is empty": (lambda folder: (folder / MANIFEST).write_text(""), "not readable as JSON"),
    "manifest is binary": (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00" * 9), "not readable as JSON"),
    "manifest is a list": (lambda folder: (folder / MANIFEST).write_text("[1, 2]"), "holds a list, not an object"),
    "a format of no version": (lambda folder: edit(folder, format_version="1"), "format version '1'.*\n.*overwrite"),
    "newer format": (lambda folder: edit(folder, format_version=2), "format version 2.*\n.*Update sbertconv"),
    "no version": (lambda folder: drop(folder, "format_version"), "format version None"),
    "no graphs": (lambda folder: drop(folder, "graphs", "files"), "graphs is missing\n  files is missing"),
    "graphs of another shape": (lambda folder: edit(folder, graphs=[{}]), "manifest|missing"),
    "graphs without order": (lambda folder: edit(folder, graphs="model.onnx"), "manifest|missing"),
    "files of another shape": (lambda folder: edit(folder, files=["onnx/model.onnx"]), "manifest|missing"),
    "files without hashes": (lambda folder: edit(folder, files={"onnx/model.onnx": {}}), "manifest|missing"),
    "absolute path": (lambda folder: rename_in_manifest(folder, "/etc/passwd"), "leaves the folder"),
    "path upwards": (lambda folder: rename_in_manifest(folder, "onnx/../../model.onnx"), "leaves the folder"),
    "path upwards, as Windows writes it": (lambda f: rename_in_manifest(f, r"..\\model.onnx"), "leaves the folder"),
    "graph missing": (lambda folder: (folder / "onnx/model.onnx").unlink(), "model.onnx: .*missing"),
    "graph truncated": (lambda folder: os.truncate(folder / "onnx/model.onnx", 1000), "1,000 bytes instead of"),
    "graph empty": (lambda folder: os.truncate(folder / "onnx/model.onnx", 0), "0 bytes instead of"),
    "tokenizer missing": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: .*missing"),
    "tokenizer truncated": (lambda folder: os.truncate(folder / "tokenizer.json", 99), "99 bytes instead of"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_folder_is_one_clear_error(how: str, static_artifact: Path, copy_of: Any, cli: Any) -> None:
    folder = copy_of(static_artifact)
    break_it, words = BROKEN[how]
    break_it(folder)
    with pytest.raises(ArtifactError, match=words) as raised:
        sbertconv.load(folder).encode("a text")
    assert str(folder) in str(raised.value).splitlines()[0]
    assert len(str(raised.value).splitlines()) > 1  # the last line says what to do
    ran = cli("encode", folder, "a text")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"{in_command_words(str(raised.value), flags_of(None))}\n"


def flip(path: Path) -> None:
    """One bit in the middle; the size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "modules.json"])
def test_hashes_are_verified_on_request(name: str, static_artifact: Path, copy_of: Any) -> None:
    folder = copy_of(static_artifact)
    sbertconv.load(folder, verify=True)
    flip(folder / name)
    with pytest.raises(ArtifactError, match=f"{name}: its sha256"):
        sbertconv.load(folder, verify=True)
    with pytest.raises(ArtifactError, match=f"{name}: its sha256"):
        sbertconv.verify(folder, folder)


def with_settings(folder: Path, changes: Mapping[str, Any]) -> Path:
    """The folder, whose manifest has other values at these places: "graphs.0.tokenizer.pad_id"."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for place, value in changes.items():
        *way, last = [int(key) if key.isdecimal() else key for key in place.split(".")]
        section: Any = manifest
        for key in way:
            section = section[key]
        section[last] = value
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("similarity_fn_name", "dot"),
        ("default_prompt_name", None),
        ("prompts", {"query": "query: ", "document": "another: "}),
        ("truncate_dim", 8),
        ("max_seq_length", 7),
        ("padding_side", "left"),
        ("do_lower_case", True),
        ("architecture", "bert"),
        ("chain", ["StaticEmbedding"]),
        ("graphs.0.name", "other"),
        ("graphs.0.tasks", ["query"]),
        ("graphs.0.tokenizer.pad_id", 7),
        ("graphs.0.tokenizer.pad_type_id", 1),
        ("graphs.0.tokenizer.special_ids", [1, 2]),
        ("graphs.0.tokenizer.truncation_side", "left"),
    ],
)
def test_verify_compares_what_a_manifest_says_of_its_model(
    place: str, value: Any, static_folder: Path, static_artifact: Path, copy_of: Any
) -> None:
    folder = with_settings(copy_of(static_artifact), {place: value})
    report = sbertconv.verify(static_folder, folder)
    (check,) = [check for check in report.checks if check.name == "settings"]
    assert (check.passed, report.passed) == (False, False)
    assert f"{place.replace('graphs.0', 'graphs[0]')}: {value!r}, and the model's is " in check.problem


def test_verify_says_that_a_gate_is_lower_than_usual(static_folder: Path, static_artifact: Path, copy_of: Any) -> None:
    gate = {"min_cosine": -1.0, "min_spearman": 0.5, "min_top10": 0.9}
    folder = with_settings(copy_of(static_artifact), {"precision": "int8", "gate": gate})
    (note,) = [note for note in sbertconv.verify(static_folder, folder).notes if "gate" in note]
    assert note.endswith("lower than that of int8: min_cosine -1 (usual: 0.99), min_spearman 0.5 (usual: 0.99).")


def test_a_pooling_that_was_not_chosen_is_named(static_folder: Path, static_artifact: Path, copy_of: Any) -> None:
    folder = with_settings(copy_of(static_artifact), {"pooling": "max"})
    with pytest.raises(sbertconv.SourceError, match="has its own pooling, the folder 'max'"):
        sbertconv.verify(static_folder, folder)


def test_no_place_for_temporary_files_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(ArtifactError, match=r"no temporary folder can be made: No usable .*\n.*set TMPDIR"):
        make_scratch()


def test_verify_finds_a_graph_that_reads_padding(
    bert_folder: Path, bert_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Graph.run

    def unmasked(graph: Graph, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return run(graph, {**tensors, "attention_mask": np.ones_like(tensors["attention_mask"])})

    monkeypatch.setattr(Graph, "run", unmasked)
    checks = {check.name: check.passed for check in sbertconv.verify(bert_folder, bert_artifact).checks}
    assert (checks["each text alone"], checks["padded batch"]) == (True, False)


def test_verify_knows_whether_batches_must_be_the_library_s(
    static_folder: Path, static_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reference, "sees_padding", property(lambda reference: True))
    report = sbertconv.verify(static_folder, static_artifact)
    assert not report.passed
    assert "sees_padding: False" in report.worst.problem


def test_every_file_that_differs_is_named(static_artifact: Path, copy_of: Any) -> None:
    folder = copy_of(static_artifact)
    flip(folder / "onnx/model.onnx")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"model.onnx: its sha256[\s\S]*tokenizer.json: missing"):
        read_artifact(folder).verify_hashes()


@pytest.mark.parametrize("content", [b"", b"not a protobuf", b"\x08\x08" * 500], ids=["empty", "text", "noise"])
def test_a_graph_that_onnxruntime_cannot_load(content: bytes, static_artifact: Path, copy_of: Any) -> None:
    """The manifest agrees with the file, so only ONNX Runtime can tell."""
    folder = copy_of(static_artifact)
    (folder / "onnx/model.onnx").write_bytes(content)
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    files["onnx/model.onnx"]["size"] = len(content)
    edit(folder, files=files)
    with pytest.raises(ArtifactError, match=r"model.onnx: onnxruntime \S+ cannot load it"):
        sbertconv.load(folder).encode("a text")


def test_the_manifest_lists_every_file_and_says_where_it_came_from(static_artifact: Path, static_folder: Path) -> None:
    manifest = read_artifact(static_artifact).manifest
    on_disk = {name for name, kind in snapshot(static_artifact).items() if kind != "dir"}
    assert set(manifest["files"]) == on_disk - {MANIFEST}
    assert manifest["format_version"] == 1
    assert (manifest["source"]["name"], manifest["source"]["revision"]) == (str(static_folder), None)
    assert manifest["similarity_fn_name"] == "euclidean"
    assert manifest["default_prompt_name"] == "document"
    assert manifest["prompts"]["query"] == "query: "
    assert manifest["embedding_dimension"] == 32
    assert manifest["parity"]["passed"]
    assert manifest["versions"]["torch"]
    assert manifest["sbertconv"] == sbertconv.__version__
    (graph,) = manifest["graphs"]
    ids = graph["inputs"][0]
    assert ids == {"name": "input_ids", "dtype": "int64", "shape": ["batch", "sequence"], "below": ids["below"]}
    assert graph["outputs"] == [{"name": "sentence_embedding", "dtype": "float32", "shape": ["batch", 32]}]


def test_a_conversion_leaves_only_its_folder(static_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    artifact = sbertconv.to_onnx(static_folder)
    assert artifact.folder == tmp_path / f"{static_folder.name}-onnx"
    assert [path.name for path in tmp_path.iterdir()] == [artifact.folder.name]
    artifact.verify_hashes()


def test_relative_paths_are_those_of_the_call(
    static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process moves to another folder while a conversion waits for the one before it."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "model").symlink_to(static_folder)

    @contextlib.contextmanager
    def waited() -> Iterator[None]:
        monkeypatch.chdir(there)
        yield

    monkeypatch.setattr("sbertconv.conversion.settled_heap", waited)
    monkeypatch.chdir(here)
    assert sbertconv.to_torch("model", "converted").folder == here / "converted"
    assert list(there.iterdir()) == []


def test_the_default_folder_is_named_after_the_link_that_was_given(
    static_folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").symlink_to(static_folder)
    assert default_directory("my-model", "onnx") == tmp_path / "my-model-onnx"
    assert default_directory("./my-model/", "onnx") == tmp_path / "my-model-onnx"
    assert default_directory(".", "onnx") == tmp_path / f"{tmp_path.name}-onnx"


def test_a_link_as_target_stays_a_link(
    static_folder: Path, static_artifact: Path, copy_of: Any, tmp_path: Path
) -> None:
    real = copy_of(static_artifact)
    link = tmp_path / "link"
    link.symlink_to(real)
    artifact = sbertconv.to_onnx(static_folder, link, overwrite=True)
    assert link.is_symlink()
    assert artifact.folder.samefile(real)
    assert [path for path in (*tmp_path.iterdir(), *real.parent.iterdir()) if path.name.startswith(".")] == []


def test_a_file_in_a_second_place_replaces_what_lies_there(tmp_path: Path) -> None:
    """What lies there may have other places, whose bytes stay."""
    outside, file, target = (tmp_path / name for name in ("outside", "file", "folder/target"))
    outside.write_text("outside")
    file.write_text("file")
    link_or_copy(outside, target)
    link_or_copy(file, target)
    assert (outside.read_text(), target.read_text()) == ("outside", "file")


def test_a_file_that_goes_while_it_is_verified_is_a_problem(
    static_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: Path) -> str:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    artifact = read_artifact(static_artifact)
    monkeypatch.setattr("sbertconv.artifact.folder.sha256", gone)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: No such file"):
        artifact.verify_hashes()
