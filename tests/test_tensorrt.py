"""Graphs, shapes and scripts for TensorRT, and what sbertconv asks of it; about 25 seconds of one core.

No machine of the suite has TensorRT or a GPU. Where both are, the last test builds and compares a real plan.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import fake_tensorrt
import numpy as np
import onnx_ir
import onnxruntime
import pytest
from conftest import MISSING, ROOT, TEXTS, Ran, change_manifest, put, run_process, snapshot

import sbertconv
from sbertconv.artifact.folder import MANIFEST, read_artifact
from sbertconv.converters.onnx.tensorrt import (
    check_operators,
    largest_shape,
    prepare,
    refused_nodes,
    shape_profile,
)
from sbertconv.converters.onnx.tensorrt_plan import write_plan
from sbertconv.errors import (
    ArtifactError,
    MissingDependencyError,
    ParityError,
    UnsupportedModuleError,
    UnsupportedOptionError,
)
from sbertconv.runtime.engines import ENGINES, engine_states
from sbertconv.runtime.tensorrt import import_tensorrt

PLAN = "tensorrt/model.plan"
PROFILE = {"input_ids": {"min": [1, 1], "opt": [1, 1], "max": [1, 1]}}
INSTALLED = importlib.util.find_spec("tensorrt") is not None


def has_gpu() -> bool:
    try:
        import_tensorrt(Path())
    except MissingDependencyError:
        return False
    return True


@pytest.fixture(scope="session")
def tensorrt_folder(built_once: Any, bert_folder: Path) -> Path:
    """The BERT model converted for TensorRT; do not write to it."""
    return Path(built_once("bert-tensorrt", lambda folder: sbertconv.to_onnx(bert_folder, folder, target="tensorrt")))


# The graph
def graph(text: str) -> onnx_ir.Model:
    return onnx_ir.from_onnx_text(text)


OTHERS = """
    <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
    g (int64[batch, sequence] x, float[batch, 4] y) => (int64[batch, sequence] z)
    {{ {} }}"""


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ("z = Add (x, x)", []),
        (
            "a = BitShift <direction = \"LEFT\"> (x, x) b = BitShift <direction = \"LEFT\"> (a, x) "
            "c = com.microsoft.FusedMatMul (y, y) z = Unique (b)",
            ["BitShift (2x)", "Unique (1x)", "com.microsoft.FusedMatMul (1x)"],
        ),
        ("e = EyeLike (x) z = Add (e, x)", ["EyeLike of a size that is not fixed (1x)"]),
        ("k = Constant <value_ints = [1]> () v, z = TopK <sorted = 0> (y, k)", ["TopK without sorting (1x)"]),
        ("n, m, i = LayerNormalization (y, y) z = Cast <to = 7> (m)", ["LayerNormalization with more than one output"]),
        ("z = ScatterND <reduction = \"add\"> (x, x, x)", ["ScatterND with a reduction (1x)"]),
    ],
)  # fmt: skip
def test_every_operator_that_tensorrt_lacks_is_found(nodes: str, found: list[str]) -> None:
    refused = refused_nodes(graph(OTHERS.format(nodes)))
    assert [name.removesuffix(" (1x)") for name in refused] == [name.removesuffix(" (1x)") for name in found]


def test_the_error_names_all_of_them() -> None:
    with pytest.raises(UnsupportedModuleError) as raised:
        check_operators("acme/model", {"query": ["Unique (1x)"], "text": [], "document": ["Det (2x)", "Col2Im (1x)"]})
    for words in ("'acme/model'", "query: Unique (1x)", "document: Det (2x), Col2Im (1x)", "without target='tensorrt'"):
        assert words in str(raised.value)


def test_a_fused_graph_would_be_refused(bert_artifact: Path) -> None:
    refused = refused_nodes(onnx_ir.load(bert_artifact / "onnx" / "model.onnx"))
    assert any(name.startswith("com.microsoft.") for name in refused)


def test_an_identity_matrix_of_open_size_is_compared_instead() -> None:
    model = graph(OTHERS.format("e = EyeLike (x) z = Add (e, x)"))
    prepare(model)
    assert refused_nodes(model) == []
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())
    for shape in ((3, 3), (2, 5), (5, 2)):
        x = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
        (found,) = session.run(None, {"x": x, "y": np.zeros((1, 4), np.float32)})
        np.testing.assert_array_equal(found, np.eye(*shape) + x)


@pytest.mark.parametrize(
    ("name", "max_shape"), [("deberta-v2", None), ("xlnet", None), ("router with a static route", (8, 64))]
)
def test_architectures_need_no_other_operators(
    name: str, max_shape: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with relative attention, one with an identity matrix of open size, one with two graphs; compared on two
    texts, because the comparison is that of every other graph.
    """
    monkeypatch.setattr("sbertconv.parity.questions.CORPUS", ("word", "two words"))
    artifact = sbertconv.to_onnx(cases.CASES[name].build(), tmp_path / "model", target="tensorrt", max_shape=max_shape)
    manifest = artifact.manifest
    assert (manifest["target"], manifest["opset"], manifest["optimized"]) == ("tensorrt", 18, False)
    for section in manifest["graphs"]:
        written = onnx_ir.load(artifact.path(section["formats"]["onnx"]))
        assert refused_nodes(written) == []
        assert written.opset_imports == {"": 18}
        assert set(section["profile"]) == {value.name for value in written.graph.inputs}


# The shapes
@pytest.mark.parametrize(
    ("limit", "tasks", "asked", "largest"),
    [
        (256, {}, None, (32, 256)),
        (512, {}, None, (32, 512)),
        (8192, {}, None, (2, 8192)),
        (32768, {}, None, (1, 32768)),
        (64, {"document": 300}, None, (32, 300)),
        (8192, {}, (16, 1024), (16, 1024)),
        (None, {}, (4, 100), (4, 100)),
    ],
)
def test_the_largest_shape_fits_the_model(limit: Any, tasks: Any, asked: Any, largest: tuple[int, int]) -> None:
    assert largest_shape({"max_length": limit, "task_max_length": tasks}, asked) == largest


def test_a_model_that_cuts_no_text_needs_a_largest_shape(static_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"cuts no text(.|\n)*max_shape=.32, 512., for example"):
        sbertconv.to_onnx(static_folder, tmp_path / "model", target="tensorrt")
    assert snapshot(tmp_path) == {}


def test_only_open_sizes_vary() -> None:
    inputs = [{"name": "pixel_values", "shape": ["batch", 3, 32, 48]}, {"name": "prompt_length", "shape": ["batch"]}]
    found = shape_profile(inputs, (4, 1))
    assert found["pixel_values"] == {"min": [1, 3, 32, 48], "opt": [4, 3, 32, 48], "max": [4, 3, 32, 48]}
    assert found["prompt_length"] == {"min": [1], "opt": [4], "max": [4]}


def test_the_graph_takes_every_shape_of_its_profile(tensorrt_folder: Path) -> None:
    embedder = sbertconv.load(tensorrt_folder)
    (found,) = embedder.graphs
    for kind in ("min", "opt", "max"):
        feeds = {name: np.ones(shapes[kind], np.int64) for name, shapes in found.section["profile"].items()}
        rows = found.section["profile"]["input_ids"][kind][0]
        assert found.run(feeds)["sentence_embedding"].shape == (rows, embedder.get_embedding_dimension())


# The script
RECORD = '#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done > "$RECORDED"\n'


@pytest.fixture
def trtexec(tmp_path: Path) -> dict[str, str]:
    """An environment whose trtexec writes its arguments down."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "trtexec").write_text(RECORD, encoding="utf-8")
    (tools / "trtexec").chmod(0o755)
    return {"PATH": f"{tools}:/usr/bin:/bin", "RECORDED": str(tmp_path / "recorded")}


def test_the_script_asks_for_the_shapes_of_the_manifest(
    tensorrt_folder: Path, tmp_path: Path, copy_of: Callable[[Path], Path], trtexec: dict[str, str]
) -> None:
    folder = copy_of(tensorrt_folder).rename(tmp_path / "with a space")
    ran = run_process("sh", folder / "build-plan.sh", tmp_path / "the plans", env=trtexec)
    assert (ran.code, ran.err) == (0, "")
    arguments = Path(trtexec["RECORDED"]).read_text(encoding="utf-8").splitlines()
    options = dict(argument.partition("=")[::2] for argument in arguments)
    assert Path(options.pop("--onnx")).samefile(folder / "onnx" / "model.onnx")
    assert Path(options.pop("--saveEngine")) == tmp_path / "the plans" / "model.plan"
    assert (tmp_path / "the plans").is_dir()
    profile = read_artifact(folder).manifest["graphs"][0]["profile"]
    for kind in ("min", "opt", "max"):
        shapes = dict(part.split(":") for part in options.pop(f"--{kind}Shapes").split(","))
        assert {name: [*map(int, sizes.split("x"))] for name, sizes in shapes.items()} == {
            name: sizes[kind] for name, sizes in profile.items()
        }
    assert options == {"--stronglyTyped": "", "--noTF32": "", "--skipInference": ""}


def test_without_trtexec_the_script_says_what_to_do(tensorrt_folder: Path, tmp_path: Path) -> None:
    ran = run_process("sh", tensorrt_folder / "build-plan.sh", tmp_path / "plans", env={"PATH": "/usr/bin:/bin"})
    assert ran.code == 1
    assert "trtexec is not on the PATH" in ran.err
    assert f"sbertconv build-plan {tensorrt_folder}" in ran.err
    assert not (tmp_path / "plans").exists()


# Options
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tensorflow"}, r"target='tensorflow' is not known \(have: onnxruntime, tensorrt\)"),
        ({"max_shape": (8, 64)}, r"max_shape=: only plans have one.\nAdd target='tensorrt'"),
        (
            {"target": "tensorrt", "opset": 20, "precision": "int8"},
            "with opset=, precision=: TensorRT is given opset",
        ),
        ({"target": "tensorrt", "precision": "bf16"}, "with precision=: .* in fp32 or fp16"),
        ({"target": "tensorrt", "text_input": True}, "neither strings nor other names.\nLeave text_input= out"),
        ({"target": "tensorrt", "max_shape": (0, 64)}, r"max_shape=\(0, 64\): not a batch and a sequence"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, static_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedOptionError, match=message):
        sbertconv.to_onnx(static_folder, tmp_path / "model", **options)
    assert snapshot(tmp_path) == {}


def test_on_the_command_line(static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    options = ("--target", "tensorrt", "--max-shape")
    ran = cli("to-onnx", static_folder, tmp_path / "model", *options, "8x")
    assert ran.code == 2
    assert "'8x': not texts x tokens, such as 32x256" in ran.err
    ran = cli("to-onnx", static_folder, tmp_path / "model", *options, "8x64")
    assert ran.code == 0
    assert f"build its plan:\n  sbertconv build-plan {tmp_path / 'model'}\n" in ran.out
    assert (tmp_path / "model" / "build-plan.sh").is_file()
    assert read_artifact(tmp_path / "model").manifest["graphs"][0]["profile"]["input_ids"]["max"] == [8, 64]


# Without TensorRT
@pytest.mark.skipif(INSTALLED, reason="TensorRT is installed")
def test_without_tensorrt_the_command_says_what_to_do(
    tensorrt_folder: Path, static_artifact: Path, cli: Callable[..., Ran]
) -> None:
    before = snapshot(tensorrt_folder)
    ran = cli("build-plan", tensorrt_folder)
    assert ran.code == 1
    for words in (
        "TensorRT is not installed here: tensorrt, cuda-python missing",
        f'pip install "sbertconv[tensorrt]", then sbertconv build-plan {tensorrt_folder}',
        f"sh {tensorrt_folder}/build-plan.sh",
    ):
        assert words in ran.err
    assert snapshot(tensorrt_folder) == before
    with pytest.raises(UnsupportedOptionError, match=r"\(have: onnx\).\n.*GPU: sbertconv build-plan"):
        sbertconv.load(tensorrt_folder, format="tensorrt")
    ran = cli("build-plan", static_artifact)
    assert "not written for TensorRT.\nConvert the model with to-onnx --target tensorrt" in ran.err


def test_engines_are_listed_with_their_state(cli: Callable[..., Ran]) -> None:
    states = {state["engine"]: state for state in engine_states()}
    assert list(states) == list(ENGINES)
    assert states["onnxruntime"]["version"] == onnxruntime.__version__
    assert (states["tensorrt"]["version"] is not None) == INSTALLED
    ran = cli("engines")
    assert re.search(r'tensorrt +│ tensorrt +│ (no: pip install "sbertconv\[tensorrt\]"|\d).*│ an NVIDIA GPU', ran.out)


def test_without_a_gpu_the_command_says_so(tensorrt_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch, gpus=0)
    with pytest.raises(MissingDependencyError, match="finds no NVIDIA GPU here: cudaErrorNoDevice"):
        sbertconv.build_plan(tensorrt_folder)


@pytest.mark.skipif(has_gpu(), reason="here is one")
def test_the_check_of_gpus_runs_where_there_is_none_and_says_so(static_folder: Path, tmp_path: Path) -> None:
    script = ROOT / "examples" / "gpu_check.py"
    ran = run_process(sys.executable, script, static_folder, "--only", "onnxruntime", "--rounds", 1)
    assert ran.code == 0, ran.out + ran.err
    for engine in ("sentence-transformers", "onnxruntime"):
        assert re.search(rf"{engine} +│ cpu +│ fp32 +│ ok ", ran.out)
    assert re.search(r"onnxruntime +│ cuda +│ fp32 +│ not here ", ran.out)
    assert re.search(r"onnxruntime, cuda, fp32: .*pip install onnxruntime-gpu", ran.out)
    assert "No row ran on a GPU" in ran.out


# What is asked of TensorRT, with a stand-in for it
@pytest.fixture
def planned(tensorrt_folder: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stand-in for a plan."""
    fake_tensorrt.install(monkeypatch)
    return sbertconv.build_plan(copy_of(tensorrt_folder)).folder


def test_a_plan_joins_the_folder(planned: Path, tensorrt_folder: Path) -> None:
    artifact = read_artifact(planned)
    artifact.verify_hashes()
    told = {"sbertconv.json", "README.md"}  # which formats there are
    before = {name: digest for name, digest in snapshot(tensorrt_folder).items() if name not in told}
    read_artifact(tensorrt_folder).verify_hashes()
    assert before.items() <= snapshot(planned).items()
    assert artifact.formats == ("onnx", "tensorrt")
    made = artifact.manifest["plan"]
    assert (made["tensorrt"], made["gpu"], made["parity"]["backend"]) == ("10.0 (fake)", "Fake GPU", "tensorrt")
    assert artifact.manifest["parity"]["backend"] == "onnx"
    plan = pickle.loads((planned / "tensorrt" / "model.plan").read_bytes())
    assert plan["flags"] == 1 << fake_tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert fake_tensorrt.BuilderFlag.TF32 not in plan["builder"]
    profile = artifact.manifest["graphs"][0]["profile"]
    assert plan["profile"] == {n: tuple(tuple(s[kind]) for kind in ("min", "opt", "max")) for n, s in profile.items()}
    again = sbertconv.build_plan(planned)  # replaces its own plan
    assert again.formats == ("onnx", "tensorrt")


def test_batches_go_through_device_memory_whole(planned: Path) -> None:
    """Also more texts than the plan takes at once, and other shapes afterwards."""
    onnx, plan = (sbertconv.load(planned, format=form) for form in ("onnx", "tensorrt"))
    assert (sbertconv.load(planned).format, plan.engine) == ("onnx", "tensorrt")
    for texts, batch_size in ((TEXTS, 32), (TEXTS[:1], 32), (TEXTS * 12, 72)):
        found = plan.encode(texts, batch_size=batch_size)
        np.testing.assert_allclose(found, onnx.encode(texts, batch_size=batch_size), atol=1e-6)
    tokens = {name: np.ones((1, 49), np.int64) for name in plan.graphs[0].inputs}
    with pytest.raises(ValueError, match=r"\[1, 49\]: the plan takes \[1, 1\] to \[32, 48\], see max_shape="):
        plan.graphs[0].opened(tokens)
    held = len(fake_tensorrt.memory)
    del plan
    assert len(fake_tensorrt.memory) < held


def test_a_plan_that_differs_changes_nothing(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(planned.parent)
    monkeypatch.setattr(fake_tensorrt.Context, "gain", 1.001)
    with pytest.raises(ParityError, match="Parity failed for 'tensorrt'"):
        sbertconv.build_plan(planned)
    assert snapshot(planned.parent) == before


def test_a_plan_of_another_machine_says_which(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_tensorrt.Runtime, "deserialize_cuda_engine", lambda self, serialized_engine: None)
    with pytest.raises(ArtifactError, match=r"built with TensorRT 10.0 \(fake\) on Fake GPU(.|\n)*build-plan"):
        sbertconv.load(planned, format="tensorrt").encode(TEXTS)


def test_nodes_that_the_parser_refuses_are_all_named(
    tensorrt_folder: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusal:
        def __init__(self, name: str) -> None:
            self.node_operator, self.node_name, self.desc = (lambda: name), (lambda: f"node_{name}"), (lambda: "no")

    fake_tensorrt.install(monkeypatch)
    monkeypatch.setattr(fake_tensorrt.OnnxParser, "parse_from_file", lambda self, model: False)
    monkeypatch.setattr(fake_tensorrt.OnnxParser, "num_errors", 2)
    monkeypatch.setattr(
        fake_tensorrt.OnnxParser, "get_error", lambda self, index: Refusal(("Det", "Unique")[index]), raising=False
    )
    with pytest.raises(UnsupportedModuleError, match=r"Det node_Det: no\n  Unique node_Unique: no"):
        sbertconv.build_plan(copy_of(tensorrt_folder))


def test_a_plan_is_written_into_no_file_outside(
    tensorrt_folder: Path, tmp_path: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the folder consists of links, as it does in the Hub's cache, and holds a file in the plan's place."""
    fake_tensorrt.install(monkeypatch)
    folder, outside = copy_of(tensorrt_folder), tmp_path / "outside"
    change_manifest(folder, lambda found: found["files"].update({PLAN: found["files"]["tokenizer.json"]}))
    (folder / "tensorrt").mkdir()
    shutil.copyfile(folder / "tokenizer.json", folder / PLAN)
    shutil.move(folder, outside)
    for path in (path for path in outside.rglob("*") if path.is_file()):
        link = folder / path.relative_to(outside)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    before = snapshot(outside)
    with pytest.raises(
        ArtifactError, match=r"model\.plan would be the plan of a graph, and another file or plan is in"
    ):
        sbertconv.build_plan(folder)
    assert snapshot(outside) == before
    (folder / PLAN).unlink()
    (folder / MANIFEST).unlink()
    shutil.copyfile(tensorrt_folder / MANIFEST, folder / MANIFEST)
    assert sbertconv.build_plan(folder).formats == ("onnx", "tensorrt")
    assert snapshot(outside) == before


def test_a_plan_takes_a_place_of_its_own(
    tmp_path: Path, copy_of: Callable[[Path], Path], tensorrt_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of a file which it would be written into."""
    fake_tensorrt.install(monkeypatch)
    graph, outside = tensorrt_folder / "onnx" / "model.onnx", tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / PLAN).parent.mkdir()
    os.link(outside, tmp_path / PLAN)
    write_plan(import_tensorrt(tmp_path)[0], graph, PROFILE, tmp_path / PLAN)
    assert outside.read_bytes() == b"precious"
    assert pickle.loads((tmp_path / PLAN).read_bytes())["graph"] == graph.read_bytes()


def renamed_to_the_plan(folder: Path, found: dict[str, Any]) -> None:
    (folder / "tensorrt").mkdir()
    (folder / "onnx" / "model.onnx").rename(folder / PLAN)
    found["files"][PLAN] = found["files"].pop("onnx/model.onnx")
    found["graphs"][0]["formats"]["onnx"] = PLAN


def two_of_one_stem(folder: Path, found: dict[str, Any]) -> None:
    shutil.copytree(folder / "onnx", folder / "onnx2")
    found["files"]["onnx2/model.onnx"] = found["files"]["onnx/model.onnx"]
    other = {"name": "query", "tasks": ["query"], "formats": {"onnx": "onnx2/model.onnx"}}
    found["graphs"].append({**found["graphs"][0], **other})


def file_for_its_folder(folder: Path, found: dict[str, Any]) -> None:
    shutil.copyfile(folder / "tokenizer.json", folder / "tensorrt")
    found["files"]["tensorrt"] = found["files"]["tokenizer.json"]


def folder_for_it(folder: Path, found: dict[str, Any]) -> None:
    (folder / PLAN).mkdir(parents=True)
    shutil.copyfile(folder / "tokenizer.json", folder / PLAN / "x")
    found["files"][f"{PLAN}/x"] = found["files"]["tokenizer.json"]


@pytest.mark.parametrize("change", [renamed_to_the_plan, two_of_one_stem, file_for_its_folder, folder_for_it])
def test_a_plan_with_the_name_of_another_file_is_refused(
    change: Callable[..., None], tensorrt_folder: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tensorrt.install(monkeypatch)
    folder = copy_of(tensorrt_folder)
    change_manifest(folder, lambda found: change(folder, found))
    before = snapshot(folder)
    with pytest.raises(ArtifactError, match=f"{PLAN} would be the plan of a graph, and another file or plan is in"):
        sbertconv.build_plan(folder)
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ((), MISSING, " is missing, and target is tensorrt"),
        ((), {}, r": nothing \(have: input_ids, token_type_ids, attention_mask\)"),
        (("zzz",), {"min": [1], "opt": [1], "max": [1]}, r": .*, zzz \(have: input_ids, "),
        (("input_ids", "max"), [], ".input_ids.max: expected array of length >= 1"),
        (("input_ids", "max"), [0, 0], r".input_ids.max\[0\]: expected int >= 1"),
        (("input_ids", "max"), [1], r".input_ids: \[1, 1\], \[\d+, \d+\], \[1\], and the input has 2 axes"),
        (("input_ids", "max"), [1, 1], r".input_ids: .*, \[1, 1\], of which each is due to be as large as the one bef"),
        (("attention_mask", "min"), [9999, 1], r".attention_mask: \[9999, 1\], .*, of which each is due to be as"),
    ],
)
def test_shapes_that_no_plan_has_are_named(
    keys: tuple[str, ...], value: Any, said: str, tensorrt_folder: Path, copy_of: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fake_tensorrt.install(monkeypatch)
    folder = change_manifest(copy_of(tensorrt_folder), lambda found: put(found["graphs"][0], ("profile", *keys), value))
    with pytest.raises(ArtifactError, match=rf"graphs\[0\].profile{said}"):
        sbertconv.build_plan(folder)


# The real thing
@pytest.mark.skipif(not has_gpu(), reason="needs TensorRT and a GPU")
def test_a_real_plan_equals_its_graph(minilm_folder: Path, tmp_path: Path) -> None:
    sbertconv.to_onnx(minilm_folder, tmp_path / "model", target="tensorrt")
    artifact = sbertconv.build_plan(tmp_path / "model")
    assert artifact.manifest["plan"]["parity"]["passed"]
    assert sbertconv.verify(minilm_folder, artifact.folder).passed
