"""Files that nobody should trust: nothing is run, nothing is written outside, nobody is told."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TEXTS, run_python, snapshot
from PIL import Image

import sbertconv
from sbertconv import ArtifactError, SbertconvError, SourceError, UnsupportedOptionError
from sbertconv.artifact.folder import MANIFEST
from sbertconv.artifact.json_reading import read_json
from sbertconv.artifact.manifest import problems_of
from sbertconv.artifact.tokenizer_file import rust_errors
from sbertconv.runtime.images import pixel_values
from sbertconv.source.checkpoints import scores_pairs

PACKED_MANIFEST = f"/sbertconv/{MANIFEST}"


WATCHED = """
import builtins, os, sys
plain = builtins.__import__
def watched(name, *rest, **more):
    if name == "onnxruntime" and name not in sys.modules:
        print(os.environ.get("ORT_DISABLE_TELEMETRY"))
    return plain(name, *rest, **more)
builtins.__import__ = watched
import sbertconv
sbertconv.load(sys.argv[1], engine="onnxruntime").encode(["a text"])
"""


class Exploit:
    """An object whose unpickling makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def rewritten(file: Path, change: Callable[[str, bytes], bytes], added: Mapping[str, bytes] | None = None) -> None:
    """A zip file with each member's content changed, and others added."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**members, **(added or {})}.items():
            archive.writestr(name, change(name, content))


def edit_packed(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest inside a .keras file."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(PACKED_MANIFEST):
            return content
        manifest = json.loads(content)
        edit(manifest)
        return json.dumps(manifest).encode()

    rewritten(file, change)


@pytest.fixture(scope="session")
def torch_folder(built_once: Any, static_folder: Path) -> Path:
    return Path(built_once("static-torch", lambda folder: sbertconv.to_torch(static_folder, folder)))


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Exploit(mark))


def saved(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(((Exploit(mark),), {}), buffer)
    return buffer.getvalue()


def evaluating(content: bytes) -> bytes:
    program = json.loads(content)
    program["graph_module"]["graph"]["sym_int_values"]["hostile"] = {
        "as_expr": {"expr_str": "__import__('os').getcwd()", "hint": None}
    }
    return json.dumps(program).encode()


def calling(content: bytes, target: str = "torch.hub.load") -> bytes:
    program = json.loads(content)
    program["graph_module"]["graph"]["nodes"][0]["target"] = target
    return json.dumps(program).encode()


def guarding(content: bytes, mark: Path) -> bytes:
    return json.dumps({**json.loads(content), "guards_code": [f"open({str(mark)!r}, 'w')"]}).encode()


def laid_out(content: bytes, mark: Path, kind: str, context: Any) -> bytes:
    """The layout of the inputs, with a container that names a module: importing it makes the mark."""
    module = mark.parent / "sbertconv_hostile_module.py"
    module.write_text(f"open({str(mark)!r}, 'w')", encoding="utf-8")
    program = json.loads(content)
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    layout = json.loads(signature["in_spec"])
    layout[1]["children_spec"][1] |= {"type": kind, "context": context}
    signature["in_spec"] = json.dumps(layout)
    return json.dumps(program).encode()


def passing(content: bytes, **argument: str) -> bytes:
    program = json.loads(content)
    program["graph_module"]["graph"]["nodes"][0]["inputs"].append({"name": "a", "arg": argument, "kind": 1})
    return json.dumps(program).encode()


def sized(content: bytes, expression: str) -> bytes:
    program = json.loads(content)
    program["graph_module"]["graph"]["sym_int_values"]["x"] = {"as_expr": {"expr_str": expression, "hint": None}}
    return json.dumps(program).encode()


FACTORY = {"default_factory_module": "sbertconv_hostile_module", "default_factory_name": "x", "dict_context": []}
ENUM = json.dumps({"__enum__": True, "fqn": "sbertconv_hostile_module:X", "name": "a"})
PROGRAMS: dict[str, tuple[str, Callable[[bytes, Path], bytes], str]] = {
    "pickled example inputs": ("sample_inputs/model.pt", lambda content, mark: saved(mark), "more than tensors"),
    "pickled constants": (
        "model_constants_config.json",
        lambda content, mark: json.dumps({"config": {"a": {"path_name": "a", "use_pickle": True}}}).encode(),
        "a is pickled",
    ),
    "an expression of Python": ("models/model.json", lambda content, mark: evaluating(content), "evaluates __import__"),
    "a call outside ATen": ("models/model.json", lambda content, mark: calling(content), "calls torch.hub.load"),
    "a call that writes a file": (
        "models/model.json",
        lambda content, mark: calling(content, "torch.ops.aten.from_file.default"),
        "calls torch.ops.aten.from_file",
    ),
    "guards, which are Python": ("models/model.json", guarding, "runs the code"),
    "a module that is imported for a container": (
        "models/model.json",
        lambda content, mark: laid_out(content, mark, "collections.defaultdict", FACTORY),
        "imports",
    ),
    "a module that is imported for a key": (
        "models/model.json",
        lambda content, mark: laid_out(content, mark, "builtins.dict", ENUM),
        "imports",
    ),
    "an operator that is handed on": (
        "models/model.json",
        lambda content, mark: passing(content, as_operator="torch.os.system"),
        "calls torch.os.system",
    ),
    "a call of what is handed on": (
        "models/model.json",
        lambda content, mark: calling(content, "_operator.call"),
        "calls _operator.call",
    ),
    **{
        f"an expression that has no end: {text}": (
            "models/model.json",
            lambda content, mark, text=text: sized(content, text),
            "evaluates",
        )
        for text in ("9**9**9", "Pow(Integer(9), Pow(Integer(9), Integer(9)))", "factorial(Integer(9999))", "(" * 300)
    },
    "JSON that is none": ("models/model.json", lambda content, mark: b"[" * 100_000, "not a readable PyTorch program"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_is_refused_before_it_runs(
    name: str, torch_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)  # as the working folder is, for python -c and python -m
    member, change, said = PROGRAMS[name]
    folder, mark = copy_of(torch_folder), tmp_path / "mark"
    (program,) = folder.rglob("*.pt2")
    rewritten(program, lambda path, content: change(content, mark) if path.endswith(member) else content)
    reshown(folder, program, program.read_bytes())
    with pytest.raises(ArtifactError, match=said):
        sbertconv.load(folder, format="torch").encode(TEXTS)
    assert not mark.exists()


def reshown(folder: Path, program: Path, content: bytes) -> None:
    """Another program in the place of one, of the size that the manifest says."""
    program.write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"][program.relative_to(folder).as_posix()]["size"] = len(content)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def with_member_twice(program: bytes, mark: Path) -> bytes:
    """The hostile example inputs first, which torch reads; the honest ones last, which zipfile reads."""
    buffer = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(io.BytesIO(program)) as honest,
        zipfile.ZipFile(buffer, "w") as made,
    ):
        warnings.simplefilter("ignore")
        for name in honest.namelist():
            if name.endswith("sample_inputs/model.pt"):
                made.writestr(name, saved(mark))
            made.writestr(name, honest.read(name))
    return buffer.getvalue()


def with_two_directories(program: bytes, mark: Path) -> bytes:
    """A hostile archive in front of an honest one: zipfile counts from the end, torch's reader from the start."""

    def stored(change: bool) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(program)) as honest, zipfile.ZipFile(buffer, "w") as made:
            for name in honest.namelist():
                hostile = change and name.endswith("sample_inputs/model.pt")
                made.writestr(name, saved(mark) if hostile else honest.read(name))
        return buffer.getvalue()

    def end(archive: bytes) -> tuple[int, int, int]:
        """Where the end record lies, and the size and the place of the directory that it names."""
        at = archive.rfind(b"PK\5\6")
        return (at, *struct.unpack("<II", archive[at + 12 : at + 20]))

    hostile, honest = stored(change=True), stored(change=False)
    hostile_end, _, hostile_place = end(hostile)
    honest_end, size, _ = end(honest)
    room = bytes(8192)
    front = hostile[:hostile_place] + room + hostile[hostile_place:hostile_end]
    place = hostile_place + len(room)
    both = bytearray(front + honest)
    last = len(front) + honest_end
    struct.pack_into("<I", both, last + 16, place)
    entry = last - size
    while entry < last:
        name, extra, comment = struct.unpack("<HHH", both[entry + 28 : entry + 34])
        (header,) = struct.unpack("<I", both[entry + 42 : entry + 46])
        struct.pack_into("<I", both, entry + 42, header + len(front) - (last - size - place))
        entry += 46 + name + extra + comment
    return bytes(both)


@pytest.mark.parametrize("hide", [with_member_twice, with_two_directories])
def test_a_program_is_checked_as_torch_reads_it(
    hide: Callable[[bytes, Path], bytes], torch_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder, mark = copy_of(torch_folder), tmp_path / "mark"
    (program,) = folder.rglob("*.pt2")
    reshown(folder, program, hide(program.read_bytes(), mark))
    with pytest.raises(ArtifactError, match=r"opening it could run code|not a readable PyTorch program"):
        sbertconv.load(folder, format="torch").encode(TEXTS)
    assert not mark.exists()


def test_a_program_is_taken_unasked_only_where_there_is_nothing_else(
    static_artifact: Path, torch_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(static_artifact)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["engines"] = {"torch": ["torch"], **manifest["engines"]}
    manifest["graphs"][0]["formats"] = {"torch": "torch/model.pt2", **manifest["graphs"][0]["formats"]}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    assert sbertconv.load(folder).format == "onnx"
    with pytest.warns(UserWarning, match=rf"{torch_folder} holds a PyTorch program alone.*format='torch'") as said:
        assert sbertconv.load(torch_folder).format == "torch"
    assert said[0].filename == __file__
    assert sbertconv.load(torch_folder, format="torch").format == "torch"


def test_a_program_that_was_not_touched_opens(torch_folder: Path, static_artifact: Path) -> None:
    np.testing.assert_allclose(
        sbertconv.load(torch_folder, format="torch").encode(TEXTS),
        sbertconv.load(static_artifact).encode(TEXTS),
        atol=1e-6,
    )


@pytest.mark.parametrize("place", ["{outside}/stolen.safetensors", "../stolen.safetensors", "a/../../stolen"])
def test_the_way_back_writes_no_file_that_leaves_the_target(
    place: str, bert_keras: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    place = place.format(outside=tmp_path)

    def lead_out(manifest: dict[str, Any]) -> None:
        for origin in manifest["torch_weights"].values():
            origin["file"] = place

    edit_packed(file, lead_out)
    before = snapshot(tmp_path)
    with pytest.raises(ArtifactError, match="leaves the folder"):
        sbertconv.to_st(file, tmp_path / "st")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("place", ["a" * 300, "2_Dense"])
def test_the_way_back_says_where_no_weights_can_be_written(
    place: str, bert_keras: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"

    def lead_astray(manifest: dict[str, Any]) -> None:
        for origin in manifest["torch_weights"].values():
            origin["file"] = place

    edit_packed(file, lead_astray)
    with pytest.raises(ArtifactError, match=f"the weights '{place[:50]}.* cannot be read or written"):
        sbertconv.to_st(file, tmp_path / "st")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F4", "C64", "X"])
def test_the_way_back_says_which_weights_have_a_type_that_is_none(
    dtype: str, bert_keras: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    header = json.dumps({"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, 8]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(8)
    rewritten(file, lambda name, content: weights if name.endswith("model.safetensors") else content)
    with pytest.raises(ArtifactError, match=r"the weights 'model\.safetensors' cannot be read"):
        sbertconv.to_st(file, tmp_path / "st")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda manifest: manifest.pop("torch_weights"), "has no torch_weights"),
        (
            lambda manifest: manifest["torch_weights"].update(input_ids=manifest["torch_weights"]["dense"]),
            "input_ids: a layer InputLayer has no weights",
        ),
    ],
)
def test_the_way_back_says_where_no_weights_are(
    edit: Callable[[dict[str, Any]], Any], said: str, bert_keras: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    edit_packed(file, edit)
    with pytest.raises(ArtifactError, match=said):
        sbertconv.to_st(file, tmp_path / "st")


@pytest.mark.parametrize("layers", [[[0, 2]] * 100_000, [[0, 10**9]], [[0]], "x", [[-1, 2]]])
def test_an_adapter_repeats_no_thousands_of_layers(
    layers: Any, bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_folder)
    (folder / "adapter_config.json").write_text(json.dumps({"layer_replication": layers}), encoding="utf-8")
    with pytest.raises(SourceError, match=r"layer_replication: .* \(have: pairs"):
        sbertconv.inspect(folder)


def test_the_base_of_an_adapter_is_looked_at(
    bert_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sbertconv.source.description.missing_packages", lambda *names: [])
    folder, base = copy_of(bert_folder), tmp_path / "base"
    base.mkdir()
    for here, there in ((folder, base), (base, folder)):  # each the base of the other: a loop
        content = {"base_model_name_or_path": str(there), "peft_type": "LORA"}
        (here / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    sbertconv.inspect(folder)
    (base / "config.json").write_text(json.dumps({"num_labels": 20_000_000}), encoding="utf-8")
    with pytest.raises(SourceError, match=r"base/config\.json: .*\n  num_labels: 20000000"):
        sbertconv.inspect(folder)
    content = {"base_model_name_or_path": "nobody/nothing", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SourceError, match="its base 'nobody/nothing' is no folder, and the Hub does not give it"):
        sbertconv.inspect(folder)


@pytest.mark.parametrize("limit", [-math.inf, math.inf, math.nan, -1])
def test_a_limit_that_is_no_length_is_none(limit: float, bert_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert_folder)
    (folder / "sentence_bert_config.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": limit}), "utf-8")
    assert sbertconv.inspect(folder)["max_seq_length"] == 64  # its positions


def test_a_classifier_whose_labels_are_null_has_those_of_transformers() -> None:
    described = {"architectures": ["BertForSequenceClassification"], "num_labels": None}
    assert not scores_pairs(described)
    assert scores_pairs({**described, "num_labels": 1})


@pytest.mark.parametrize("length", [100, 10**9])
def test_a_model_that_does_not_take_what_its_limit_says_is_one_error(
    length: int, bert_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(bert_folder)
    for name, key in (("tokenizer_config.json", "model_max_length"), ("sentence_bert_config.json", "max_seq_length")):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps({**settings, key: length}), encoding="utf-8")
    with pytest.raises(SourceError, match=r"encode\(\) of the model itself fails: RuntimeError: The size of tensor"):
        sbertconv.to_onnx(folder, tmp_path / "onnx")


MODALITY = {"method": "forward", "method_output_name": "last_hidden_state"}
UNASKABLE: dict[str, tuple[dict[str, Any], str]] = {
    "planned": (
        {"modality_config": {"text": MODALITY, "message": {**MODALITY, "format": "flat"}}},
        r"\[0\] Transformer: .*chat_template is not set",
    ),
    "loaded": (
        {"transformer_task": "text-generation"},
        r"The model itself fails.*\n.*modality_config.*in sentence_bert_config\.json",
    ),
    "converted": ({"module_output_name": "x"}, r"Cannot convert .*token_embeddings"),
}


@pytest.mark.parametrize("when", UNASKABLE)
def test_a_model_that_its_settings_break_is_one_error(
    when: str, bert_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    settings, said = UNASKABLE[when]
    file = copy_of(bert_folder) / "sentence_bert_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **settings}), encoding="utf-8")
    with pytest.raises(SbertconvError, match=said):
        sbertconv.to_tf(file.parent, tmp_path / "tf")


@pytest.mark.parametrize("name", ["a/../../../stolen", "..\\stolen", "", "a\nb", 7])
def test_a_graph_has_a_name_that_is_safe_in_a_file_name(
    name: Any, bert_keras: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    edit_packed(file, lambda manifest: manifest["graphs"][0].update(name=name))
    before = snapshot(tmp_path)
    with pytest.raises(ArtifactError, match=r"is no name that a file can have|expected str"):
        sbertconv.to_onnx(file, tmp_path / "onnx")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"graphs": []}', b'{"graphs": 7}', b"[" * 100_000])
def test_a_broken_manifest_in_a_keras_file_is_one_error(
    content: bytes, bert_keras: Path, copy_of: Callable[[Path], Path]
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    rewritten(file, lambda name, packed: content if name.endswith(PACKED_MANIFEST) else packed)
    with pytest.raises(ArtifactError, match=r"not readable|holds a list"):
        sbertconv.load(file)


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_not_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"layer{PACKED_MANIFEST}", bytes(50 << 20))
    with pytest.raises(ArtifactError, match="no model compresses so well"):
        sbertconv.load(file)


def test_a_folder_of_links_opens_as_the_hub_caches_it(static_artifact: Path, tmp_path: Path) -> None:
    snapshots, blobs = tmp_path / "snapshots/main", tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(static_artifact.rglob("*"))):
        if path.is_file():
            shutil.copy(path, blobs / str(number))
            link = snapshots / path.relative_to(static_artifact)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    expected = sbertconv.load(static_artifact).encode(TEXTS)
    np.testing.assert_array_equal(sbertconv.load(snapshots, verify=True).encode(TEXTS), expected)


def test_a_cluster_gets_the_files_of_the_manifest_and_no_links(
    static_artifact: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    from sbertconv.artifact.folder import read_artifact
    from sbertconv.ray import pack_archive, unpack_archive

    folder = copy_of(static_artifact)
    (folder / "tokenizer.json").rename(tmp_path / "elsewhere")
    (folder / "tokenizer.json").symlink_to(tmp_path / "elsewhere")  # as in the Hub's cache
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (folder / "more").symlink_to(tmp_path / "secret")
    (tmp_path / "there").mkdir()
    unpack_archive(pack_archive(read_artifact(folder)), tmp_path / "there")
    assert sbertconv.load(tmp_path / "there", verify=True).encode(TEXTS).shape[0] == len(TEXTS)
    assert not (tmp_path / "there/more").exists()


def archive_of(*members: tuple[str, Mapping[str, Any]], mode: str = "w") -> bytes:
    """A tar file of files with one byte."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for name, said in members:
            member = tarfile.TarInfo(name)
            member.size = 1
            for key, value in said.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(b"a"))
    return packed.getvalue()


SPARSE = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "a", "GNU.sparse.size": f"{10**12}",
          "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,0"}  # fmt: skip
ARCHIVES = {
    "a path outside": archive_of(("../a", {})),
    "an absolute path": archive_of(("/a", {})),
    "a link": archive_of(("a", {"type": tarfile.SYMTYPE, "linkname": "b", "size": 0})),
    "a device": archive_of(("a", {"type": tarfile.CHRTYPE, "size": 0})),
    "a hole": archive_of(("a", {"size": 0, "pax_headers": SPARSE})),
    "a deep path": archive_of(("/".join("a" * 1500), {})),
    "packed": archive_of(("a", {}), mode="w:gz"),
    "many files": archive_of(*((f"{number}", {}) for number in range(10_001))),
    "a file twice": archive_of(("a", {}), ("a", {})),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_of_a_cluster_holds_plain_files_alone(name: str, tmp_path: Path) -> None:
    from sbertconv.ray import unpack_archive

    (tmp_path / "there").mkdir()
    with pytest.raises(ArtifactError, match=r"^The folder as it was sent"):
        unpack_archive(ARCHIVES[name], tmp_path / "there")
    assert {path.name for path in tmp_path.iterdir()} == {"there"}


def test_a_time_that_no_file_has_is_none_of_an_archive(tmp_path: Path) -> None:
    from sbertconv.ray import unpack_archive

    unpack_archive(archive_of(("b/a", {"pax_headers": {"mtime": "1e400"}})), tmp_path)
    assert (tmp_path / "b/a").read_bytes() == b"a"


def test_a_command_whose_errors_nobody_reads_does_its_work(
    static_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sbertconv.cli import main

    (tmp_path / "in.txt").write_text("a text\n", encoding="utf-8")
    given = ["sbertconv", "encode", str(static_artifact), "--input", f"{tmp_path}/in.txt"]
    monkeypatch.setattr("sys.argv", [*given, "--output", f"{tmp_path}/out.npy"])
    monkeypatch.setattr("sys.stderr", None)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert len(np.load(tmp_path / "out.npy")) == 1


def test_running_a_model_reports_to_nobody(static_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime reads the variable once, when it is imported."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")  # importing sbertconv in this process has set it
    ran = run_python(WATCHED, static_artifact)
    assert (ran.code, ran.out.split()) == (0, ["1"]), ran.err


FILE_READER = """
import sys, tensorflow as tf
class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, "input_ids")])
    def serve(self, input_ids):
        return {"sentence_embedding": tf.strings.length(tf.io.read_file(sys.argv[2]))[None]}
model = Model()
tf.saved_model.save(model, sys.argv[1], signatures={"serving_default": model.serve})
"""


def test_a_saved_model_that_reads_files_is_not_opened(tmp_path: Path) -> None:
    from sbertconv.runtime.saved_models import check_saved_model

    assert run_python(FILE_READER, tmp_path / "model", "/etc/hostname").code == 0
    with pytest.raises(ArtifactError, match="the operation ReadFile"):
        check_saved_model(tmp_path / "model" / "saved_model.pb")


def litert(file: Path, wrong: str) -> None:
    """A LiteRT model of one operation."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    def calls(number: int) -> Any:
        options = schema.CallOnceOptionsT()
        options.initSubgraphIndex = number
        return operation([], [], 1, schema.BuiltinOptions.CallOnceOptions, options)

    def operation(inputs: list[int], outputs: list[int], code: int = 0, kind: int = 0, options: Any = None) -> Any:
        found = schema.OperatorT()
        found.inputs, found.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        found.opcodeIndex, found.builtinOptionsType, found.builtinOptions = code, kind, options
        return found

    def graph(operations: list[Any], shape: Any = (2,)) -> Any:
        found = schema.SubGraphT()
        found.tensors = [schema.TensorT() for _ in range(2)]
        for tensor in found.tensors:
            tensor.shape, tensor.type = np.array(shape, np.int32), schema.TensorType.BOOL
        found.inputs, found.outputs = np.array([0], np.int32), np.array([1], np.int32)
        found.operators = operations
        return found

    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    for code in (schema.BuiltinOperator.LOGICAL_NOT, schema.BuiltinOperator.CALL_ONCE):
        model.operatorCodes.append(schema.OperatorCodeT())
        model.operatorCodes[-1].builtinCode = code
    model.subgraphs = {
        "": lambda: [graph([operation([0], [1]), calls(1)]), graph([])],
        "in a cycle": lambda: [graph([calls(1)]), graph([calls(2)]), graph([calls(1)])],
        "a graph that is not there": lambda: [graph([calls(7)])],
        "a tensor that nothing computes": lambda: [graph([operation([1], [1])])],
        "a tensor of the shape": lambda: [graph([operation([0], [1])], (2**30, 2**30))],
        "without what it computes with": lambda: [graph([operation([-1, 0], [1])])],
        "has its numbers already": lambda: [graph([operation([0], [1]), operation([0], [1])])],
    }[wrong]()
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(builder.Output())


@pytest.mark.parametrize(
    "wrong",
    ["in a cycle", "a graph that is not there", "a tensor that nothing computes", "a tensor of the shape",
     "without what it computes with", "has its numbers already"],
)  # fmt: skip
def test_a_litert_model_that_would_end_the_process_is_not_opened(wrong: str, tmp_path: Path) -> None:
    from sbertconv.runtime.saved_models import check_litert

    litert(tmp_path / "model.tflite", "")
    check_litert(tmp_path / "model.tflite")
    litert(tmp_path / "model.tflite", wrong)
    with pytest.raises(ArtifactError, match=f"not a readable LiteRT model: .*{wrong}"):
        check_litert(tmp_path / "model.tflite")


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(64)], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_litert_model_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    from sbertconv.runtime.saved_models import check_litert

    (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(ArtifactError, match="LiteRT"):
        check_litert(tmp_path / "model.tflite")


def saved_model(file: Path, calls: str = "", **more: Any) -> Path:
    """A SavedModel with the function that saves variables, and another one."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel(meta_graphs=[{"object_graph_def": {}, "graph_def": {"library": {"function": [
        {"signature": {"name": "__inference__traced_save_1"}, "node_def": [{"name": "a", "op": "SaveV2"}]},
        {"signature": {"name": "__inference_serve_2"}, "node_def": [{"name": "b", "op": "MatMul"}]},
    ]}}}])  # fmt: skip
    (meta,) = saved.meta_graphs
    node = meta.graph_def.library.function[1].node_def.add(name="c", op="PartitionedCall")
    if calls == "by its name":
        node.op = "__inference__traced_save_1"
    elif calls == "by an attribute":
        node.attr["f"].func.name = "__inference__traced_save_1"
    elif calls == "by an attribute of one":
        node.attr["f"].func.attr["g"].func.name = "__inference__traced_save_1"
    elif calls == "by an object":
        meta.object_graph_def.nodes.add().function.concrete_functions.append("__inference__traced_save_1")
    elif calls == "under a long name":
        meta.graph_def.library.function[0].signature.name += "1" * 300
    elif calls == "as one of many":
        for number in range(3):
            meta.graph_def.library.function.add().signature.name = f"__inference__traced_save_{number + 2}"
    elif calls == "by a graph that is run":
        meta.ClearField("object_graph_def")
    elif calls == "by a second graph":
        saved.meta_graphs.add().CopyFrom(meta)
    file.write_bytes(saved.SerializeToString())
    return file


@pytest.mark.parametrize("calls", ["by its name", "by an attribute", "by an attribute of one", "by an object",
                                   "under a long name",
                                   "as one of many", "by a graph that is run", "by a second graph"])  # fmt: skip
def test_nothing_calls_what_saves_the_variables_of_a_saved_model(calls: str, tmp_path: Path) -> None:
    """With a path of its own it would write anywhere."""
    from sbertconv.runtime.saved_models import check_saved_model

    check_saved_model(saved_model(tmp_path / "saved_model.pb"))
    with pytest.raises(ArtifactError, match=r"the operation SaveV2|a graph of TensorFlow 1"):
        check_saved_model(saved_model(tmp_path / "saved_model.pb", calls))


@pytest.mark.parametrize("name", ["fingerprint.pb", "variables/variables.index"])
def test_a_pipe_beside_a_saved_model_is_one_error(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from sbertconv.runtime.saved_models import check_saved_model

    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ArtifactError, match="which is no file and may never end"):
        check_saved_model(saved_model(tmp_path / "saved_model.pb"))


def test_a_fingerprint_that_tensorflow_cannot_read_is_one_error(tmp_path: Path) -> None:
    """It would go on, with a traceback in its log."""
    from sbertconv.runtime.saved_models import check_saved_model

    (tmp_path / "fingerprint.pb").write_bytes(b"\xff" * 9)
    with pytest.raises(ArtifactError, match=r"fingerprint\.pb: not a readable SavedModel"):
        check_saved_model(saved_model(tmp_path / "saved_model.pb"))


def test_the_saved_model_that_is_looked_at_is_the_one_that_is_opened(tmp_path: Path) -> None:
    """TensorFlow takes a folder, and the file in it that has its name."""
    from sbertconv.runtime.saved_models import check_saved_model

    with pytest.raises(ArtifactError, match=r"saved_model\.pb beside it"):
        check_saved_model(saved_model(tmp_path / "other.pb"))


@pytest.mark.parametrize(
    "name", ["./config.json", "/config.json", "a/../config.json", "CONFIG.json", "config.json.", "config.json\0"]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_config_that_is_looked_at_is_the_one_that_is_opened(
    name: str, bert_keras: Path, copy_of: Callable[[Path], Path]
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, b"{}")
    with pytest.raises(ArtifactError, match=r"leaves the folder|is not how a file is called|holds a file twice"):
        sbertconv.load(file)


@pytest.mark.parametrize("operation", ["ImmutableConst", "GenerateVocabRemapping", "DecodeProtoV2", "WriteFile",
                                       "CollectiveBcastSend", "RandomUniform", "NoSuchOperation"])  # fmt: skip
def test_a_saved_model_holds_operations_on_tensors_and_variables_alone(operation: str, tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    from sbertconv.runtime.saved_models import check_saved_model

    saved = saved_model_pb2.SavedModel()
    graph = saved.meta_graphs.add(object_graph_def={}).graph_def
    graph.node.add(name="a", op="MatMul")
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    check_saved_model(tmp_path / "saved_model.pb")
    graph.library.function.add().node_def.add(name="b", op=operation)
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(ArtifactError, match=operation):
        check_saved_model(tmp_path / "saved_model.pb")


def edit_config(file: Path, edit: Callable[[Any], Any]) -> None:
    """A .keras file with another config."""

    def change(name: str, content: bytes) -> bytes:
        if name != "config.json":
            return content
        config = json.loads(content)
        edit(config)
        return json.dumps(config).encode()

    rewritten(file, change)


def with_layer(file: Path, layer: dict[str, Any]) -> None:
    """A .keras file with a layer more."""
    edit_config(file, lambda config: config["config"]["layers"].append(layer))


STRANGERS = {
    "builtins.Lambda": {"class_name": "Lambda", "module": "builtins", "config": {}},
    "keras.layers.Lambda": {"class_name": "Lambda", "module": "keras.layers", "config": {}},
    "keras.layers.TorchModuleWrapper": {"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {}},
    "subprocess.Popen": {"class_name": "Popen", "module": "subprocess", "config": {"args": ["true"]}},
    "os.system": {"class_name": "system", "module": "os", "registered_name": "sbertconv>x", "config": {}},
    "keras_hub.layers.Any": {"class_name": "Any", "module": "keras_hub.layers", "config": {}},
    **{
        f"{module}.{name}": {
            "class_name": "Activation", "module": "keras.layers",
            "config": {"activation": {"class_name": "function", "module": module, "config": name}},
        }
        for module, name in (
            ("keras.config", "set_floatx"), ("keras.layers", "TFSMLayer"), ("keras.layers", "Dense"),
            ("keras.ops", "eye"), ("keras.losses", "deserialize"), ("builtins", "load_model"),
            ("sbertconv", "sbertconv>Pooling"),
        )
    },
    "keras.config.set_backend": {"class_name": "set_backend", "module": "keras.config", "config": {}},
    "keras.ops.eye": {"class_name": "eye", "module": "keras.ops", "config": {}},
    "keras.src.ops.core.WhileLoop": {"class_name": "WhileLoop", "module": "keras.src.ops.core", "config": {}},
    "keras.layers.RepeatVector, called with values": {
        "class_name": "RepeatVector", "module": "keras.layers", "config": {"n": 600_000_000},
        "inbound_nodes": [
            {"args": [{"class_name": "__tensor__", "config": {"value": [[1.0]], "dtype": "float32"}}], "kwargs": {}}
        ],
    },
    "None.Dense": {"class_name": "Dense", "module": None, "config": {}},
    "None.deserialize": {"class_name": "deserialize", "registered_name": "sbertconv>Pooling", "config": {}},
    "None.Dense\nImport": {"class_name": "Dense", "module": None, "registered_name": "sbertconv>Pooling", "config": {}},
    "sbertconv.layers.Dense": {
        "class_name": "Dense", "module": "sbertconv.layers", "registered_name": "sbertconv>Pooling", "config": {},
    },
    "keras.src.layers.convolutional.base_conv.BaseConv": {
        "class_name": "BaseConv", "module": "keras.src.layers.convolutional.base_conv",
        "config": {"rank": 50_000_000, "filters": 1, "kernel_size": 1},
    },
    "keras.__lambda__": {"class_name": "__lambda__", "module": "keras", "config": {}},
    r"keras.\['Dense'\]": {"class_name": ["Dense"], "module": "keras", "config": {}},
}  # fmt: skip


@pytest.mark.parametrize("said", STRANGERS)
def test_a_keras_file_with_layers_that_could_run_code_is_not_opened(
    said: str, bert_keras: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    with_layer(file, {"name": "a", "inbound_nodes": [], **STRANGERS[said]})
    for opened in (lambda: sbertconv.load(file).encode(TEXTS), lambda: sbertconv.to_onnx(file, tmp_path / "onnx")):
        with pytest.raises(ArtifactError, match=f"could run code:\n  {said}"):
            opened()


def last(config: Any, kind: str, **options: Any) -> None:
    """A layer of Keras in the place of the one before the last."""
    layer = config["config"]["layers"][-2]
    name = layer["name"]
    layer.update(module="keras.layers", class_name=kind, registered_name=None, config={"name": name, **options})


def last_called(config: Any, kind: str, **options: Any) -> None:
    """A metric of Keras among the values that the layer before the last is called with."""
    metric = {"module": "keras.metrics", "class_name": kind, "registered_name": None, "config": options}
    config["config"]["layers"][-2]["inbound_nodes"][0]["kwargs"]["training"] = metric


def reverse_chain(config: Any) -> None:
    """Many layers that each take what the one behind it gives."""
    layers = config["config"]["layers"]
    names = [layers[0]["name"], *(f"a{number}" for number in range(1000))]
    for taken, name in itertools.pairwise(names):
        history = {"shape": [None, None], "dtype": "int32", "keras_history": [taken, 0, 0]}
        call = {"args": [{"class_name": "__keras_tensor__", "config": history}], "kwargs": {}}
        layer = {"module": "keras.layers", "class_name": "Identity", "registered_name": None, "config": {"name": name}}
        layers.insert(0, {**layer, "name": name, "inbound_nodes": [call]})


CONFIGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no layers": (lambda config: config["config"].update(layers=[]), "cannot load it"),
    "another class": (lambda config: config.update(registered_name="sbertconv>Pooling"), "could run code"),
    "a name that is none": (lambda config: config["config"].update(name="a/b"), "cannot load it"),
    "an option that is none": (lambda config: last(config, "Dense", units=-1), "cannot load it"),
    "a file's path": (lambda config: last(config, "StringLookup", vocabulary=__file__), "cannot load it"),
    "rows without end": (lambda config: last(config, "RepeatVector", n=10**9), "ask for more than it holds"),
    "columns without end": (lambda config: last(config, "CategoryEncoding", num_tokens=10**9), "ask for more than"),
    "numbers without end": (
        lambda config: last(config, "IntegerLookup", vocabulary=[1], num_oov_indices=10**8), "ask for more than",
    ),
    "pairs without end": (lambda config: last(config, "TextVectorization", ngrams=10**7), "ask for more than"),
    "thresholds without end": (lambda config: last_called(config, "AUC", num_thresholds=10**7), "ask for more than"),
    "an order that is none": (reverse_chain, "its layers stand before those whose outputs they take"),
    "a table of sounds": (lambda config: last(config, "MelSpectrogram", fft_length=10**9), "could run code"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_keras_file_that_keras_cannot_load_is_one_error_that_names_it(
    name: str, bert_keras: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    edit, said = CONFIGS[name]
    file = copy_of(bert_keras) / "keras/model.keras"
    edit_config(file, edit)
    for opened in (lambda: sbertconv.load(file).encode(TEXTS), lambda: sbertconv.to_st(file, tmp_path / "st")):
        with pytest.raises(ArtifactError, match=f"^{file}: .*{said}"):
            opened()
    assert not (tmp_path / "st").exists()


def filled(weights: Any) -> None:
    """Numbers that are not in the file."""
    weights.create_dataset("layers/a/vars/0", (10**9,), "f4", chunks=(1000,))


def linked(weights: Any) -> None:
    import h5py

    del weights["layers"]
    weights["layers"] = h5py.ExternalLink(os.devnull, "/layers")


def linked_within(weights: Any) -> None:
    import h5py

    weights["layers/a"] = h5py.SoftLink("/layers")


def stored_outside(weights: Any) -> None:
    weights.create_dataset("layers/a/vars/0", (4,), "f4", external=[(os.devnull, 0, 16)])


def virtual(weights: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(os.devnull, "x", shape=(4,))
    weights.create_virtual_dataset("layers/a/vars/0", layout)


def texts(weights: Any) -> None:
    weights["layers/a/vars/0"] = ["a", "b"]


def emptied(weights: Any) -> None:
    """Variables start as zeros; that they stay so is an error."""
    del weights["layers"]


OUTSIDE = "its weights are not all in it"
WEIGHTS: list[tuple[Any, str]] = [
    (b"", "not readable as weights"), (filled, "more than it holds"), (linked, OUTSIDE), (linked_within, OUTSIDE),
    (stored_outside, OUTSIDE), (virtual, OUTSIDE), (texts, OUTSIDE), (emptied, "could not be loaded"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize(("content", "said"), WEIGHTS, ids=lambda given: getattr(given, "__name__", None))
def test_weights_of_keras_are_as_large_as_they_say(
    content: Any, said: str, bert_keras: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    import h5py

    def change(name: str, held: bytes) -> bytes:
        if name != "model.weights.h5" or not callable(content):
            return content if name == "model.weights.h5" else held
        buffer = io.BytesIO(held)
        with h5py.File(buffer, "r+") as weights:
            content(weights)
        return buffer.getvalue()

    file = copy_of(bert_keras) / "keras/model.keras"
    rewritten(file, change)
    with pytest.raises(ArtifactError, match=f"^{file}: .*{said}"):
        sbertconv.load(file).encode(TEXTS)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"keras/model.keras/a": b""}, "cannot be unpacked as keras/model.keras"),
        ({f"a{number}": b"" for number in range(1001)}, "holds 1,0[0-9]+ files"),
    ],
    ids=["in the place of the model", "many"],
)
def test_what_a_keras_file_unpacks_to_is_a_folder_of_a_model(
    added: dict[str, bytes], said: str, bert_keras: Path, copy_of: Callable[[Path], Path]
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    with zipfile.ZipFile(file) as archive:
        (place,) = (name for name in archive.namelist() if name.endswith(PACKED_MANIFEST))
    rewritten(
        file, lambda name, content: content, {place.replace(MANIFEST, name): held for name, held in added.items()}
    )
    with pytest.raises(ArtifactError, match=f"^{file}: {said}"):
        sbertconv.load(file)


def test_what_is_unpacked_is_not_written_into_the_keras_file(
    bert_keras: Path, copy_of: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is a file of the folder that it is unpacked to: here in the place of the manifest."""

    def change(name: str, held: bytes) -> bytes:
        return held.replace(b"keras/model.keras", MANIFEST.encode()) if name.endswith(PACKED_MANIFEST) else held

    file = copy_of(bert_keras) / "keras/model.keras"
    rewritten(file, change)
    before = file.read_bytes()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # files of one file system can be linked
    with pytest.raises(ArtifactError, match=r"sbertconv\.json: the file is missing"):
        sbertconv.load(file).encode(TEXTS)
    assert file.read_bytes() == before


def encrypted(content: bytearray) -> None:
    """The flag of a password in every entry of the directory."""
    at = -1
    while (at := content.find(b"PK\1\2", at + 1)) >= 0:
        content[at + 8] |= 1


def packed_oddly(content: bytearray) -> None:
    """A method of compression that nobody has."""
    at = -1
    while (at := content.find(b"PK\1\2", at + 1)) >= 0:
        content[at + 10] = 77


@pytest.mark.parametrize("change", [encrypted, packed_oddly])
def test_an_archive_that_cannot_be_unpacked_is_one_error(
    change: Callable[[bytearray], None], bert_keras: Path, copy_of: Callable[[Path], Path]
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.keras: not a readable archive"):
        sbertconv.load(file)


def test_a_bomb_is_not_unpacked_where_a_model_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.keras"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(50 << 20))
        archive.writestr(f"layer{PACKED_MANIFEST}", b"{}")
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *args, **options: pytest.fail("a member was read"))
    with pytest.raises(ArtifactError, match="no model compresses so well"):
        sbertconv.load(file)


@pytest.mark.parametrize("name", ["README.md", "1_Pooling/config.json", "2_Dense/model.safetensors", "vocab.txt"])
def test_a_pipe_in_a_model_is_one_error(
    name: str, bert_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(bert_folder)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(SourceError, match=f"{name}: is a pipe"):
        sbertconv.to_onnx(folder, tmp_path / "onnx")


def test_a_folder_of_too_many_files_is_no_model(
    bert_folder: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sbertconv.source.files.MOST_FILES", 3)  # an adapter may say that its base is "/"
    with pytest.raises(SourceError, match="holds more than 3 files"):
        sbertconv.inspect(copy_of(bert_folder))


@pytest.mark.parametrize("place", [".hidden", "linked"])
def test_a_pipe_is_found_wherever_a_module_lies(
    place: str, bert_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(bert_folder)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[-1]["path"] = place
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    there = folder / place if place == ".hidden" else tmp_path / "elsewhere"
    there.mkdir()
    if place == "linked":
        (folder / place).symlink_to(there)
    os.mkfifo(there / "model.safetensors")
    with pytest.raises(SourceError, match=f"{place}/model.safetensors: is a pipe"):
        sbertconv.inspect(folder)


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ArtifactError, match="it is a pipe or a device"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ArtifactError, match="no such file"):
        sbertconv.load((tmp_path / "a.json").rename(tmp_path / "a.keras"))


def test_weights_in_several_files_stay_in_their_folder(bert_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert_folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../stolen.safetensors"}}))
    with pytest.raises(SourceError, match=r"'\.\./stolen\.safetensors' leaves the folder"):
        sbertconv.inspect(folder)


@pytest.mark.parametrize("name", ["base.model.torch", "base.model.json", "util.http_get", "SentenceTransformer"])
def test_what_is_no_module_is_not_looked_for_a_way_to_load_it(
    name: str, bert_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(bert_folder)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[1]["type"] = f"sentence_transformers.{name}"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(SourceError, match="is no module"):
        sbertconv.to_onnx(folder, tmp_path / "onnx")


def test_a_table_without_columns_has_no_width(static_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    (file,) = copy_of(static_folder).glob("*.safetensors")
    header = json.dumps({"embedding.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert sbertconv.inspect(file.parent)["modules"]


@pytest.mark.parametrize("content", ["null", "1", "true", "{}", "[]", "[null]", '[{"type": "x"}]'])
def test_modules_that_are_no_list_of_modules_are_one_error(
    content: str, bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_folder)
    (folder / "modules.json").write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=r"modules\.json"):
        sbertconv.inspect(folder)


ROUTED: dict[str, dict[str, dict[str, Any]]] = {
    "a model has its own tokenizer": {"t/sentence_bert_config.json": {"tokenizer_name_or_path": "a/b"}},
    "text, a list of texts": {"t/config.json": {"pooling_mode": 1}},
    "a tokenizer": {"t/wordembedding_config.json": {"tokenizer_class": "sentence_transformers.SentenceTransformer"}},
    "an adapter has its own weights": {"t/adapter_config.json": {"peft_type": "XLORA", "adapters": {"a": "b/c"}}},
    "'u': in one of types and structure alone": {"router_config.json": {"types": {"t": "a.b", "u": "a.b"}}},
}


@pytest.mark.parametrize("decoy", ["sentence_x_config.json", "sentence_bert_config.json", "cnn_config.json"])
@pytest.mark.parametrize("said", ROUTED)
def test_every_file_is_looked_at_that_the_library_opens(
    said: str, decoy: str, bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_folder)
    router = {"type": "sentence_transformers.base.modules.router.Router", "name": "0", "path": "0_Router"}
    (folder / "modules.json").write_text(json.dumps([{**router, "idx": 0}]), encoding="utf-8")
    due = {"types": {"t": "sentence_transformers.base.modules.dense.Dense"}, "structure": {"query": ["t"]}}
    hidden: dict[str, Any] = {"router_config.json": {}, decoy: {}, f"t/{decoy}": {}, **ROUTED[said]}
    hidden["router_config.json"] = due | hidden["router_config.json"]
    for name, content in hidden.items():
        file = folder / "0_Router" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SourceError, match=said):
        sbertconv.inspect(folder)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_folder_fetches_nothing_unless_its_code_is_trusted(
    trusted: bool, bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentence_transformers
    from huggingface_hub import constants

    asked = []

    def loaded(*args: Any, **kwargs: Any) -> Any:
        asked.append(constants.HF_HUB_OFFLINE)
        raise ValueError("enough")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", loaded)
    with pytest.raises(SourceError, match="enough"):
        sbertconv.to_onnx(bert_folder, tmp_path / "onnx", trust_remote_code=trusted)
    assert asked == [not trusted]
    assert not constants.HF_HUB_OFFLINE


WEIGHTS = {
    "hold no numbers": {"dtype": "F32", "shape": [0, 32], "data_offsets": [0, 0]},
    "of a type that PyTorch cannot widen": {"dtype": "F4", "shape": [2, 32], "data_offsets": [0, 32]},
}


@pytest.mark.parametrize("said", WEIGHTS)
def test_weights_that_are_none_are_one_error(
    said: str, static_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    (file,) = copy_of(static_folder).glob("*.safetensors")
    header = json.dumps({"embedding.weight": WEIGHTS[said]}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(WEIGHTS[said]["data_offsets"][1]))
    with pytest.raises(SourceError, match=said):
        sbertconv.to_onnx(file.parent, tmp_path / "onnx")


CHARSMAP = {"type": "Precompiled", "precompiled_charsmap": ""}  # reading it panics
NO_CHUNK = {"type": "FixedLength", "length": 0}  # running it panics, as does the template
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "[NONE]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}
PANICS = {
    "on load": {"normalizer": CHARSMAP},
    "on load, in a sequence": {"normalizer": {"type": "Sequence", "normalizers": [CHARSMAP]}},
    "on a text": {"pre_tokenizer": NO_CHUNK},
    "in a template": {"post_processor": TEMPLATE},
}


def edited(file: Path, **values: Any) -> bytes:
    return json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}).encode()


def numbered(file: Path, number: int) -> bytes:
    """A vocabulary whose last token has this number: the library makes room for all below it."""
    model = json.loads(file.read_text(encoding="utf-8"))["model"]
    return edited(file, model={**model, "vocab": {**model["vocab"], "##zzz": number}})


@pytest.mark.parametrize("when", PANICS)
def test_a_tokenizer_that_would_panic_is_one_error_of_a_converted_folder(
    when: str, static_artifact: Path, copy_of: Callable[[Path], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(static_artifact)
    file = folder / "tokenizer.json"
    reshown(folder, file, edited(file, **PANICS[when]))
    with pytest.raises(
        ArtifactError, match=r"tokenizer\.json: not a readable tokenizer.json: .*(table|length 0|no id)"
    ):
        sbertconv.load(folder).encode(TEXTS)
    assert capfd.readouterr().err == ""  # the library tells of a panic by itself


@pytest.mark.parametrize("when", PANICS)
def test_a_tokenizer_that_would_panic_is_one_error_of_a_model(
    when: str, bert_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(bert_folder)
    (folder / "tokenizer.json").write_bytes(edited(folder / "tokenizer.json", **PANICS[when]))
    with pytest.raises(SourceError, match=r"tokenizer\.json: cannot be used: .*(table|length 0|no id)"):
        sbertconv.to_onnx(folder, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
    assert capfd.readouterr().err == ""


def test_a_vocabulary_with_a_hole_of_billions_is_one_error(
    static_artifact: Path, bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder, model = copy_of(static_artifact), copy_of(bert_folder)
    reshown(folder, folder / "tokenizer.json", numbered(folder / "tokenizer.json", 2**31))
    with pytest.raises(ArtifactError, match="'##zzz' has the number 2,147,483,648"):
        sbertconv.load(folder).encode(TEXTS)
    (model / "tokenizer.json").write_bytes(numbered(model / "tokenizer.json", 2**31))
    with pytest.raises(SourceError, match="'##zzz' has the number 2,147,483,648"):
        sbertconv.inspect(model)


def test_a_panic_is_one_error(bert_folder: Path) -> None:
    from tokenizers import Tokenizer

    text = edited(bert_folder / "tokenizer.json", normalizer=CHARSMAP).decode()
    with pytest.raises(SourceError, match="a: the library that reads or runs it failed"), rust_errors("a", SourceError):
        Tokenizer.from_str(text)


@pytest.mark.parametrize("passing", [KeyboardInterrupt, SystemExit, GeneratorExit, ValueError("a fault of ours")])
def test_what_is_no_panic_passes_the_border(passing: Any) -> None:
    with pytest.raises(passing if isinstance(passing, type) else type(passing)), rust_errors("a", SourceError):
        raise passing


@pytest.mark.parametrize(
    "file",
    ["modules.json", "config.json", "config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json",
     "sentence_bert_config.json", "1_Pooling/config.json", "2_Dense/config.json"],
)  # fmt: skip
@pytest.mark.parametrize("fault", ["brackets", "a loop of links"])
def test_a_file_that_nobody_can_read_is_one_error(
    file: str, fault: str, bert_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = copy_of(bert_folder) / file
    path.unlink()
    if fault == "brackets":
        path.write_bytes(b"[" * 100_000)
    else:
        path.symlink_to(path.name)
    with pytest.raises(SourceError, match=str(path.parents[len(Path(file).parts) - 1])):
        sbertconv.to_onnx(path.parents[len(Path(file).parts) - 1], tmp_path / "onnx")


def test_places_that_cannot_be_are_one_error(static_folder: Path, static_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for place in (tmp_path / "loop", tmp_path / "loop/inside", "a\0b", "n" * 300):
        with pytest.raises(ArtifactError):
            sbertconv.to_onnx(static_folder, place)
    for place in (tmp_path / "loop", "a\0b", "n" * 300, "~nobody-of-this-name/model"):
        with pytest.raises(SourceError):
            sbertconv.inspect(place)


@pytest.mark.skipif(sys.platform != "linux", reason="file systems elsewhere have no such names")
def test_a_path_that_is_no_text_is_said_where_an_engine_does_not_open_it(static_artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(static_artifact, tmp_path / "caf\udce9")
    with pytest.raises(ArtifactError, match=r"its path is not UTF-8 here\.\nRename the folder"):
        sbertconv.load(folder).encode(TEXTS)


LINES = "a\n---\n# owned\n\x1b[2J"


def test_what_a_manifest_says_stays_in_its_place_of_the_card(static_artifact: Path) -> None:
    import yaml

    from sbertconv.artifact.card import card

    manifest = json.loads((static_artifact / MANIFEST).read_text(encoding="utf-8"))
    plain = card(manifest)
    manifest |= {"architecture": LINES, "chain": [LINES], "notes": [LINES], "prompts": {LINES: f"`{LINES}"}}
    manifest["source"] |= {"name": f"{LINES}<script>", "license": f"mit\nextra: 1{LINES}", "revision": f"`{LINES}"}
    manifest["parity"] |= {"rule": LINES, "method": LINES}
    found = card(manifest)
    front = yaml.safe_load(found.split("\n---\n")[0])
    assert (front.keys(), front["license"]) == (
        {*yaml.safe_load(plain.split("\n---\n")[0]), "license"},
        f"mit\nextra: 1{LINES}",
    )
    assert [line for line in found.splitlines() if line.startswith("# ")] == [
        "# a --- # owned \\u001b[2J&lt;script>, converted"
    ]
    assert "\x1b" not in found


def test_names_of_a_graph_stay_in_their_place_of_what_is_written_for_others(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    import onnx

    from sbertconv.artifact.publishing import Staging
    from sbertconv.consumers.sql import foreign_operators
    from sbertconv.consumers.triton import tensors
    from sbertconv.consumers.vespa import SERVICES, write_services

    node = onnx.helper.make_node("A", [], [], domain="x\nDROP TABLE texts;\r\x85--")
    graph = onnx.helper.make_graph([node], "a", [], [])
    (name,) = foreign_operators(onnx.helper.make_model(graph))
    assert len(name.splitlines()) == 1
    said = tensors([{"name": 'a" } ] b [ { c: "', "dtype": "int64", "shape": ["batch", 1]}])
    assert said.replace('\\"', "").count('"') == 2
    staging = Staging(tmp_path / "out", overwrite=False)
    write_services(staging, "a", 'a"/><b c="', {})
    (graph_of, _) = ElementTree.parse(staging.folder / SERVICES).getroot()
    assert graph_of.attrib == {"path": 'a"/><b c="'}


def test_no_script_of_a_stranger_lies_beside_those_that_a_database_runs(
    bert_text_artifact: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    from sbertconv.artifact.folder import described

    folder = copy_of(bert_text_artifact)
    (folder / "clickhouse").mkdir()
    (folder / "clickhouse/json.py").write_text("print('hostile')", encoding="utf-8")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps({**manifest, "files": described(folder)}), encoding="utf-8")
    packed = sbertconv.pack(folder, tmp_path / "packed", ["clickhouse"]).folder
    assert {path.name for path in packed.rglob("*.py")} == {"embed.py", "embed_function.py"}


SETTINGS: dict[str, tuple[str, Any]] = {
    "modality_config": ("sentence_bert_config.json", {"text": {"method": "init_weights", "method_output_name": None}}),
    "prompts": ("config_sentence_transformers.json", {"query": "a" * 100_000}),
}


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_that_a_library_would_take_at_its_word_is_named(
    key: str, bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    name, value = SETTINGS[key]
    file = copy_of(bert_folder) / name
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
    with pytest.raises(SourceError, match=rf"{name}: not as it should be:\n  {key}: "):
        sbertconv.inspect(file.parent)


def test_a_server_that_answers_nonsense_is_one_error(static_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    from sbertconv.artifact.hub import push

    def answer(*args: Any, **options: Any) -> Any:
        raise KeyError("url")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", answer)
    with pytest.raises(ArtifactError, match=r"a/b: the server did not take the folder: KeyError: 'url'"):
        push(static_artifact, "a/b")


IMAGE = {
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 8},
    "resample": 3,
    "do_center_crop": False,
    "crop_size": None,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": {"height": 10**9, "width": 10**9}}, "size: expected int <= 4096"),
        ({"size": {"longest_edge": 8}}, "size has longest_edge (have: shortest_edge; height, width)"),
        ({"crop_size": {"shortest_edge": 8}}, "crop_size has shortest_edge (have: height, width)"),
        ({"resample": 99}, "resample: expected int <= 5"),
        ({"image_mean": [0.5, 0.5]}, "image_mean has 2 numbers (have: 3)"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std"),
        ({"image_std": 0.0}, "image_std"),
        ({"image_std": float("nan")}, "image_std"),
        ({"rescale_factor": float("nan")}, "rescale_factor"),
        ({"rescale_factor": 1e300}, "rescale_factor"),
    ],
)
def test_settings_of_images_that_no_model_has_are_refused(
    wrong: dict[str, Any], said: str, static_artifact: Path
) -> None:
    manifest = json.loads((static_artifact / MANIFEST).read_text(encoding="utf-8"))
    manifest["graphs"][0]["image"] = IMAGE
    assert not problems_of(manifest)
    manifest["graphs"][0]["image"] = {**IMAGE, **wrong}
    (problem,) = problems_of(manifest)
    assert problem.startswith(f"graphs[0].image.{said}")


def cut_off() -> Image.Image:
    """An image whose file ends early, as Pillow opens it."""
    whole = io.BytesIO()
    Image.effect_noise((90, 90), 50).save(whole, "PNG")
    return Image.open(io.BytesIO(whole.getvalue()[:300]))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (cut_off(), "mode L, cannot be used: "),
        (Image.new("RGB", (10_000_000, 1)), "would become one of 80,000,000 x 8"),
        (Image.new("RGB", (0, 5)), "an image without pixels"),
        (np.zeros((0, 5, 3), np.uint8), "an image without pixels"),
        (Image.new("La", (9, 9)), "mode La, cannot be used: "),
    ],
)
def test_an_image_that_cannot_be_used_is_one_error(image: Any, said: str) -> None:
    section: Any = IMAGE
    with pytest.raises(UnsupportedOptionError, match=said):
        pixel_values([Image.new("RGB", (9, 9)), image], section)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_an_image_that_nothing_converts_has_three_channels(mode: str) -> None:
    section: Any = {**IMAGE, "do_convert_rgb": False, "do_resize": False}
    with pytest.raises(UnsupportedOptionError, match=f"an image of mode {mode}"):
        pixel_values([Image.new(mode, (9, 9))], section)


def test_a_piece_of_a_million_letters_ends_no_process(copy_of: Callable[[Path], Path], tmp_path: Path) -> None:
    import tiny

    folder = copy_of(tiny.transformer_folder("xlm-roberta"))
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    described["model"]["vocab"].append(["a" * 1_000_000, -9.0])
    text = json.dumps(described)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    script = (
        "import sys, sbertconv\nfrom pathlib import Path\n"
        "from sbertconv.artifact.tokenizer_file import read_tokenizer\n"
        "for open_it in (lambda: sbertconv.inspect(sys.argv[1]),"
        " lambda: read_tokenizer(Path(sys.argv[1], 'tokenizer.json').read_text())):\n"
        "    try:\n        open_it()\n"
        "    except (sbertconv.SourceError, ValueError) as error:\n        print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.count("more than 1,000 letters")) == (0, 2)
