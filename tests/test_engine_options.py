"""Threads, devices and what engines are told: given once, checked at once, the same in every process."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS, run_python

import sbertconv
from sbertconv import MissingDependencyError, UnsupportedOptionError
from sbertconv.runtime import engines
from sbertconv.runtime.batches import usable_cores
from sbertconv.runtime.options import EngineOptions

MEMORY = """
import sys
import numpy as np, psutil
import sbertconv
model = sbertconv.load(sys.argv[1], engine=sys.argv[2], threads=1)
graph = model.graphs[0]
shapes = [(batch, length) for batch in range(1, 33) for length in range(2, 24)]
np.random.default_rng(0).shuffle(shapes)
def run(batch, length):
    graph.run({name: np.ones((batch, length), np.int64) for name in graph.inputs})
run(32, 24)
for shape in shapes[:100]:
    run(*shape)
before = psutil.Process().memory_info().rss
for shape in shapes[100:]:
    run(*shape)
print((psutil.Process().memory_info().rss - before) / (1 << 20))
"""
GROWTH = 20  # MiB over 600 shapes


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_memory_does_not_grow_with_the_shapes_that_come(engine: str, bert_artifact: Path) -> None:
    pytest.importorskip(engine)
    pytest.importorskip("psutil")
    ran = run_python(MEMORY, bert_artifact, engine)
    assert ran.code == 0, ran.err
    assert float(ran.out) < GROWTH


TEXTS_OF_ALL_LENGTHS = """
import sys
import psutil
import sbertconv
model = sbertconv.load(sys.argv[1], format=sys.argv[2], engine=sys.argv[3])
def texts(count, longest, step=7):
    return ["word " * (1 + number * step % longest) for number in range(count)]
def held():
    return psutil.Process().memory_info().rss
for call in range(100):
    model.encode(texts(8, 40, call + 1))
before = held()
model.encode(texts(3000, 40))
model.encode([*texts(50, 5), "word " * 20_000])
for call in range(200):
    model.encode(texts(8, 40, call + 101))
print(held() / before, (held() - before) / (1 << 20))
"""
EVERY_ENGINE = {
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
    "keras": ("keras",),
    "saved_model": ("tensorflow",),
    "litert": ("litert",),
    "torch": ("torch",),
}


@pytest.mark.parametrize(("form", "engine"), [(form, one) for form, names in EVERY_ENGINE.items() for one in names])
def test_memory_stays_bounded_on_every_engine(
    form: str, engine: str, built_once: Any, bert_folder: Path, request: Any
) -> None:
    pytest.importorskip(engines.ENGINES[engine].package)
    pytest.importorskip("psutil")
    fixtures = {"onnx": "bert_artifact", "keras": "bert_keras", "saved_model": "bert_keras", "litert": "bert_keras"}
    build = {
        "torch": lambda folder: sbertconv.to_torch(bert_folder, folder),
        "openvino": lambda folder: sbertconv.to_openvino(bert_folder, folder),
    }
    made = form in build
    folder = built_once(f"memory-{form}", build[form]) if made else request.getfixturevalue(fixtures[form])
    ran = run_python(TEXTS_OF_ALL_LENGTHS, folder, form, engine, env={"OMP_NUM_THREADS": "1"})
    assert ran.code == 0, ran.err
    ratio, growth = map(float, ran.out.split())
    assert ratio < 1.3
    assert growth < 4 * GROWTH


@pytest.mark.parametrize(
    ("said", "threads"), [("3", 3), ("2,1", 2), ("", None), ("many", None), ("0", None), ("9" * 5000, 4096)]
)
def test_the_default_threads_are_those_of_the_environment_or_the_usable_cores(
    said: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert EngineOptions().cores == (threads or usable_cores())
    assert EngineOptions(threads=5).cores == 5


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_options_reach_the_engine_here_and_where_the_model_travels(engine: str, bert_artifact: Path) -> None:
    pytest.importorskip(engine)
    model = sbertconv.load(bert_artifact, engine=engine, threads=1, device="cpu")
    other = pickle.loads(pickle.dumps(model))
    assert other.options == model.options == EngineOptions(threads=1, device="cpu")
    assert np.array_equal(other.encode(TEXTS), model.encode(TEXTS))


def test_onnx_runtime_gets_its_session_options(bert_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made: list[Any] = []
    session = onnxruntime.InferenceSession

    def open_session(path: str, options: Any, providers: Any) -> Any:
        made.append((options, providers))
        return session(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    told = {"enable_cpu_mem_arena": False, "session.intra_op.allow_spinning": "0"}
    providers = [("CPUExecutionProvider", {})]
    sbertconv.load(
        bert_artifact, engine="onnxruntime", threads=2, parallel=2, session_options=told, providers=providers
    ).open()
    (options, given), *_ = made
    assert (options.intra_op_num_threads, options.enable_cpu_mem_arena, options.enable_mem_pattern) == (1, False, False)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert given == providers


def test_a_session_with_its_tensors_on_the_device_gives_the_same(bert_artifact: Path) -> None:
    """What runs on a GPU, with the CPU in its place."""
    pytest.importorskip("onnxruntime")
    graph = sbertconv.load(bert_artifact, engine="onnxruntime", threads=1).graphs[0]
    session = onnx_session(bert_artifact)
    for shape in ((2, 5), (3, 9)):
        feeds = {name: np.ones(shape, np.int64) for name in graph.inputs}
        names = [output.name for output in session.get_outputs()]
        found, due = engines.run_bound(session, feeds, names, EngineOptions()), graph.run(feeds)
        assert all(np.array_equal(found[name], due[name]) for name in names)


def onnx_session(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "onnx" / "model.onnx"), options)


def test_a_gpu_computes_in_float32() -> None:
    ((name, told), other) = engines.onnx_providers(EngineOptions(device="cuda:1"))
    assert (name, told, other) == (engines.CUDA_PROVIDER, {"device_id": 1, "use_tf32": 0}, "CPUExecutionProvider")


REFUSED = {
    "a GPU that ONNX Runtime was built without": (
        {"engine": "onnxruntime", "device": "cuda"}, MissingDependencyError, "onnxruntime-gpu",
    ),
    "a GPU that OpenVINO does not see": ({"engine": "openvino", "device": "npu"}, MissingDependencyError, "driver"),
    "a device of another engine": (
        {"engine": "openvino", "device": "cuda"}, UnsupportedOptionError, "have: cpu, gpu, npu",
    ),
    "no device at all": ({"device": "cuda:first"}, UnsupportedOptionError, "is no device"),
    "no thread": ({"threads": 0}, UnsupportedOptionError, "threads=0"),
    "more threads than a machine starts": ({"threads": 100_000}, UnsupportedOptionError, "threads=100000"),
    "options that are no dict": ({"session_options": 5}, UnsupportedOptionError, "session_options=5"),
    "options without names": ({"session_options": {1: 2}}, UnsupportedOptionError, "session_options=.1: 2"),
    "providers that are no names": ({"providers": [5]}, UnsupportedOptionError, "a list of names or of pairs"),
    "a provider's options that are no dict": (
        {"providers": [("CPUExecutionProvider", 5)]}, UnsupportedOptionError, "a list of names or of pairs",
    ),
    "providers that are no list": ({"providers": "CPU"}, UnsupportedOptionError, "providers='CPU'"),
    "a provider of another engine": (
        {"engine": "openvino", "providers": ["CPUExecutionProvider"]}, UnsupportedOptionError, "have: onnxruntime",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_there_is_refused_when_the_model_is_loaded(case: str, bert_artifact: Path) -> None:
    options, error, message = REFUSED[case]
    if "engine" in options:
        pytest.importorskip(options["engine"])
    with pytest.raises(error, match=message):
        sbertconv.load(bert_artifact, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"providers": ["NoneExecutionProvider"]}, "has no NoneExecutionProvider"),
        ({"session_options": {"no_such_option": 1}}, "no option 'no_such_option'"),
        ({"session_options": {"intra_op_num_threads": "x"}}, "with session_options=.*\nGive session_options as"),
        ({"session_options": {"add_session_config_entry": 1}}, "with session_options=.*\nGive session_options as"),
        ({"session_options": {"session." * 1000: 1}}, "with session_options=.*\nGive session_options as"),
    ],
)
def test_what_onnx_runtime_does_not_know_is_refused_when_it_opens(
    options: dict[str, Any], message: str, bert_artifact: Path
) -> None:
    with pytest.raises(sbertconv.SbertconvError, match=message):
        sbertconv.load(bert_artifact, engine="onnxruntime", **options).open()


def test_a_provider_that_cannot_start_is_not_replaced_in_silence(
    bert_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime for GPUs lists CUDA on a machine that has none, and then computes on the CPU."""
    onnxruntime = pytest.importorskip("onnxruntime")
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, providers: session(path, providers=listed[1:])
    )
    with pytest.raises(MissingDependencyError, match="cannot start CUDAExecutionProvider"):
        sbertconv.load(bert_artifact, engine="onnxruntime", device="cuda").open()


def test_every_engine_says_what_its_devices_need() -> None:
    for name, engine in engines.ENGINES.items():
        assert engine.devices, name
        assert all(advice for kind, advice in engine.devices.items() if kind != "cpu"), name


def test_the_command_takes_threads_and_a_device(cli: Any, bert_artifact: Path) -> None:
    here = cli("encode", bert_artifact, "one", "--threads", 1, "--device", "cpu", "--engine", "onnxruntime")
    assert (here.code, here.out.count("\n")) == (0, 1)
    if os.environ.get("CUDA_VISIBLE_DEVICES") is None:
        there = cli("encode", bert_artifact, "one", "--device", "cuda", "--engine", "onnxruntime")
        assert (there.code, "onnxruntime-gpu" in there.err) == (1, True)
