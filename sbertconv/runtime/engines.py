"""What runs a written graph: one function per format, from the artifact's file to a callable on numpy arrays."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import queue
import shutil
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, refuse_bomb
from sbertconv.artifact.scratch import scratch_folder
from sbertconv.errors import ArtifactError, SbertconvError, UnsupportedOptionError, error_text, require
from sbertconv.frameworks import import_keras, import_tensorflow, version_of
from sbertconv.runtime.feeds import is_marked, marked
from sbertconv.runtime.programs import check_program

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
LONGEST_REASON = 400  # Keras prints whole models


def graph_file(artifact: Artifact, section: Mapping[str, Any], form: str) -> Path:
    """A graph's file; it, and those with its weights, are there and as long as they were.

    Raises:
        ArtifactError: if one of them is not.
    """
    path = artifact.path(section["formats"][form])
    for name in section.get("data", ()):
        artifact.path(name)
    return path


def open_onnx(artifact: Artifact, section: Mapping[str, Any], threads: int, parallel: int = 1) -> Run:
    """ONNX Runtime on the CPU."""
    require("onnx", "onnxruntime")
    import onnxruntime

    path = graph_file(artifact, section, "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it logs in colours it raises as well
    options.intra_op_num_threads = max(1, threads // parallel)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = [tensor["name"] for tensor in section["outputs"]]
    return lambda feeds: dict(zip(outputs, session.run(outputs, feeds), strict=True))


def open_keras(artifact: Artifact, section: Mapping[str, Any], threads: int) -> Run:
    """Keras on its current backend; compiled with tf.function where that is TensorFlow."""
    keras = import_keras()
    model = load_keras_model(artifact.path(section["formats"]["keras"]))

    def call(**feeds: Any) -> Any:
        return named_outputs(model, feeds)

    if keras.backend.backend() == "tensorflow":  # sizes stay open, so that nothing is compiled twice
        import tensorflow as tf

        call = tf.function(call).get_concrete_function(
            **{
                tensor["name"]: tf.TensorSpec(open_shape(tensor), tensor["dtype"], tensor["name"])
                for tensor in section["inputs"]
            }
        )

    def run(feeds: Arrays) -> Arrays:
        tensors = {name: keras.ops.convert_to_tensor(narrow(array)) for name, array in feeds.items()}
        return {name: keras.ops.convert_to_numpy(tensor) for name, tensor in call(**tensors).items()}

    return run


def named_outputs(model: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a Keras model by name, whether it gives one or a dict of them."""
    found = model(feeds, training=False)
    return dict(found) if isinstance(found, Mapping) else {model.output_names[0]: found}


def load_keras_model(path: Any) -> Any:
    """A .keras file as a Keras model."""
    keras = import_keras()
    importlib.import_module("sbertconv.layers")  # registers them
    with scratch_folder() as folder:  # Keras would hold the whole file in memory beside the model
        with zipfile.ZipFile(path) as archive:
            refuse_bomb(archive, Path(path))
        shutil.unpack_archive(path, folder, "zip")
        return keras.saving.load_model(folder, compile=False)


def narrow(array: np.ndarray) -> np.ndarray:
    """Integers of 32 bits, which is what Keras models take."""
    return array.astype(np.int32) if array.dtype == np.int64 else array


def open_shape(tensor: Mapping[str, Any]) -> tuple[int | None, ...]:
    """A shape of the manifest with None for what varies."""
    return tuple(size if isinstance(size, int) else None for size in tensor["shape"])


def open_saved_model(artifact: Artifact, section: Mapping[str, Any], threads: int) -> Run:
    """TensorFlow alone."""
    tf = import_tensorflow(["saved_model"])
    loaded = tf.saved_model.load(str(artifact.path(section["formats"]["saved_model"]).parent))
    serve = loaded.signatures["serving_default"]

    def run(feeds: Arrays) -> Arrays:
        found = serve(**{name: tf.constant(narrow(array)) for name, array in feeds.items()})
        return {name: value.numpy() for name, value in found.items()}

    run.loaded = loaded  # type: ignore[attr-defined]  # the signature holds its variables weakly
    return run


def open_litert(artifact: Artifact, section: Mapping[str, Any], threads: int) -> Run:
    """The LiteRT interpreter; buffers are sized again for every shape."""
    tf = import_tensorflow(["litert"])
    path = artifact.path(section["formats"]["litert"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this interpreter will move to a package of its own
        interpreter = tf.lite.Interpreter(str(path), num_threads=threads)
    runner = interpreter.get_signature_runner("serving_default")
    lock = threading.Lock()  # an interpreter has one set of buffers

    def run(feeds: Arrays) -> Arrays:
        with lock:
            return dict(runner(**{name: narrow(array) for name, array in feeds.items()}))

    return run


def open_openvino(artifact: Artifact, section: Mapping[str, Any], threads: int, parallel: int = 1, *, form: str) -> Run:
    """OpenVINO on the CPU, which reads ONNX graphs as well as its own. It computes in bfloat16 only for an artifact
    that was made and measured so; left alone, it would wherever the CPU can. Activations are rounded in blocks as long
    as those of the weights; its own are shorter, and a third slower.
    """
    require("openvino", "openvino")
    import openvino

    path = graph_file(artifact, section, form)
    block = artifact.manifest.get("block_size")
    core = openvino.Core()
    compiled = core.compile_model(
        keep_bfloat16(core.read_model(path)),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": parallel,
            "INFERENCE_PRECISION_HINT": "bf16" if artifact.manifest["precision"] == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
            **({"DYNAMIC_QUANTIZATION_GROUP_SIZE": block} if block else {}),
        },
    )
    outputs = [tensor["name"] for tensor in section["outputs"]]
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()  # a request holds one computation at a time
    for _ in range(parallel):
        idle.put(compiled.create_infer_request())

    def run(feeds: Arrays) -> Arrays:
        request = idle.get()
        try:
            marked(request.get_tensor(name).data for name in outputs)  # on one core, what fails there passes in silence
            request.infer(feeds, share_inputs=True)
            found = {name: request.get_tensor(name).data.copy() for name in outputs}
            if any(map(is_marked, found.values())):
                raise ArtifactError("it computed nothing.")
            return found
        finally:
            idle.put(request)

    return run


def keep_bfloat16(model: Any) -> Any:
    """The same openvino.Model; OpenVINO will not widen its bfloat16 weights to a copy in float32 beside them. It knows
    weights that are to stay as they are by the key that `ov::is_decompression` asks for.
    """
    for node in model.get_ops():
        source = node.input_value(0).get_node() if node.get_type_name() == "Convert" else None
        if source and source.get_type_name() == "Constant" and source.get_element_type().get_type_name() == "bf16":
            node.get_rt_info()["decompression_0"] = True
    return model


def open_torch(artifact: Artifact, section: Mapping[str, Any], threads: int) -> Run:
    """PyTorch alone, on the CPU; its threads are the process's own, see torch.set_num_threads."""
    require("torch", "torch")
    import torch

    path = graph_file(artifact, section, "torch")
    check_program(path)
    module = torch.export.load(path).module()

    def run(feeds: Arrays) -> Arrays:
        with torch.inference_mode():
            found = module(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}

    return run


def open_tensorrt(artifact: Artifact, section: Mapping[str, Any], threads: int) -> Run:
    """TensorRT on the first NVIDIA GPU."""
    from sbertconv.runtime.tensorrt import PlanRunner, import_tensorrt

    trt, cuda = import_tensorrt(artifact.folder)
    made = artifact.manifest["plan"]
    built_with = f"TensorRT {made['tensorrt']} on {made['gpu']}"
    return PlanRunner(trt, cuda, graph_file(artifact, section, "tensorrt"), section, built_with)


@dataclass(frozen=True)
class Engine:
    """What runs written graphs.

    Attributes:
        package: that it is.
        extra: of sbertconv, which installs it; empty: it comes with sbertconv.
        opens: how it opens each format that it can.
        needs: beside the package.
        parallel: whether it can share the cores among several batches.
        on_cores: whether the CPU's cores compute, whose caches then limit a batch.
        forks: whether it starts again in a child of a process that has used it; another one would wait for ever.
    """

    package: str
    extra: str
    opens: Mapping[str, Callable[..., Run]]
    needs: str = ""
    parallel: bool = False
    on_cores: bool = True
    forks: bool = True


# The order is that of preference where several are installed: the faster first.
ENGINES = {
    "openvino": Engine(
        "openvino",
        "openvino",
        {form: functools.partial(open_openvino, form=form) for form in ("onnx", "openvino")},
        parallel=True,
    ),
    "onnxruntime": Engine("onnxruntime", "", {"onnx": open_onnx}, parallel=True),
    "keras": Engine("keras", "tf", {"keras": open_keras}, forks=False),
    "tensorflow": Engine("tensorflow", "tf", {"saved_model": open_saved_model}, forks=False),
    "litert": Engine("tensorflow", "tf", {"litert": open_litert}),
    "torch": Engine("torch", "torch", {"torch": open_torch}, forks=False),
    "tensorrt": Engine(
        "tensorrt", "tensorrt", {"tensorrt": open_tensorrt}, "an NVIDIA GPU", on_cores=False, forks=False
    ),
}
AUTO = "auto"


def engine_states() -> list[dict[str, Any]]:
    """Every engine: its name, the formats that it runs, the version that is installed (None: it is not), the command
    that installs it, and what it needs beside that. Nothing is imported.
    """
    return [
        {
            "engine": name,
            "formats": list(engine.opens),
            "version": version_of(engine.package) if importlib.util.find_spec(engine.package) else None,
            "install": f'pip install "sbertconv[{engine.extra}]"' if engine.extra else "pip install sbertconv",
            "needs": engine.needs,
        }
        for name, engine in ENGINES.items()
    ]


def choose_engine(artifact: Artifact, form: str, engine: str = AUTO) -> str:
    """The name of what runs a format of an artifact.

    Args:
        artifact: says on which engines it was proven.
        form: one of its formats.
        engine: a name of `ENGINES`; "auto": the first of them that is installed and that the artifact was proven on.

    Raises:
        UnsupportedOptionError: if that engine is not known or does not open the format.
    """
    able = [name for name, found in ENGINES.items() if form in found.opens]
    if engine != AUTO:
        if engine not in able:
            raise UnsupportedOptionError(
                f"engine {engine!r} does not run {form} (have: {', '.join((AUTO, *able))}).\nChoose one of these."
            )
        return engine
    proven = [name for name in able if name in artifact.engines(form)]
    installed = [name for name in proven if importlib.util.find_spec(ENGINES[name].package)]
    return (installed or proven)[0]


def check_forked(engine: str) -> None:
    """Raise UnsupportedOptionError for an engine that a fork has brought here at work, unless it can start again."""
    if engine in _INHERITED and not ENGINES[engine].forks:
        raise UnsupportedOptionError(
            f"{engine} has run before this process was forked, and does not run in a child "
            f"(have: {', '.join(name for name, found in ENGINES.items() if found.forks)}).\n"
            "Start processes with the method spawn or forkserver, or before the first answer."
        )


_USED: set[str] = set()  # engines that have opened a graph in this process
_INHERITED: set[str] = set()  # those of the processes that it was forked from
if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=lambda: _INHERITED.update(_USED))


def check_parallel(engine: str, parallel: int) -> None:
    """Raise UnsupportedOptionError unless this engine runs so many batches at once."""
    able = [name for name, found in ENGINES.items() if found.parallel]
    if parallel < 1 or (parallel > 1 and engine not in able):
        raise UnsupportedOptionError(
            f"parallel={parallel} with the engine {engine} (have: 1; more with {', '.join(able)}).\nLeave it out."
        )


def open_graph(
    artifact: Artifact, section: Mapping[str, Any], form: str, engine: str, threads: int, parallel: int = 1
) -> Run:
    """A callable for one graph in one of its formats; `parallel` of its calls may run at once, on `threads` together.

    Raises:
        ArtifactError: if the file is missing or cannot be loaded.
        MissingDependencyError: if the engine is not installed.
    """
    package = ENGINES[engine].package
    check_forked(engine)
    _USED.add(engine)
    try:
        shared = {"parallel": parallel} if ENGINES[engine].parallel else {}
        return ENGINES[engine].opens[form](artifact, section, threads, **shared)
    except SbertconvError:
        raise
    except Exception as error:
        version = getattr(sys.modules.get(package), "__version__", "")
        reason = error_text(error, 2)[:LONGEST_REASON]
        raise ArtifactError(
            f"{artifact.folder / section['formats'][form]}: {package} {version} cannot load it: {reason}\n"
            "Convert the model again with --overwrite."
        ) from error
