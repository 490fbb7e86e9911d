"""What runs a written graph: one function per format, from the artifact's file to a callable on numpy arrays."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import queue
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, opened_archive
from sbertconv.artifact.manifest import GraphSection
from sbertconv.artifact.naming import Arrays, Run, by_own_names, section_in_graph
from sbertconv.artifact.scratch import scratch_folder
from sbertconv.errors import (
    CONVERT_AGAIN,
    ArtifactError,
    MissingDependencyError,
    SbertconvError,
    UnsupportedOptionError,
    error_text,
    require,
)
from sbertconv.frameworks import import_keras, import_openvino, import_tensorflow, version_of
from sbertconv.runtime.feeds import is_marked, marked
from sbertconv.runtime.keras_files import check_keras, check_weights, sizes_bounded
from sbertconv.runtime.openvino_compat import keep_bfloat16
from sbertconv.runtime.options import CPU, EngineOptions
from sbertconv.runtime.programs import check_program
from sbertconv.runtime.saved_models import check_litert, check_saved_model
from sbertconv.runtime.tokenization import SURROGATE

LONGEST_REASON = 400  # Keras prints whole models
CUDA_PROVIDER = "CUDAExecutionProvider"
# OpenVINO keeps a kernel, and oneDNN below it a primitive, for every pair of batch and length; few come again.
KERNELS = {"CPU_RUNTIME_CACHE_CAPACITY": 50}
PRIMITIVES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}


def graph_file(artifact: Artifact, section: GraphSection, form: str) -> Path:
    """A graph's file; it, and those with its weights, are there and as long as they were.

    Raises:
        ArtifactError: if one of them is not.
    """
    path = artifact.path(section["formats"][form])
    for name in section.get("data", ()):
        artifact.path(name)
    return path


def open_onnx(artifact: Artifact, section: GraphSection, options: EngineOptions) -> Run:
    """ONNX Runtime.

    Raises:
        UnsupportedOptionError: if it does not open the graph as it is told to.
        MissingDependencyError: what `onnx_session` raises.
    """
    require("onnx", "onnxruntime")
    import onnxruntime

    path = graph_file(artifact, section, "onnx")
    told = {name: given for name in ("session_options", "providers") if (given := getattr(options, name))}
    try:
        session = onnx_session(path, options)
    except SbertconvError:
        raise
    except Exception as error:
        if not told:
            raise
        raise UnsupportedOptionError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} does not open it with "
            f"{', '.join(f'{name}={given!r:.200}' for name, given in told.items())}: {error_text(error, 2)}\n"
            f"Give {' and '.join(told)} as ONNX Runtime's documentation has them, or leave them out."
        ) from error
    outputs = [tensor["name"] for tensor in section["outputs"]]
    if options.kind != CPU:
        return lambda feeds: run_bound(session, feeds, outputs, options)
    return lambda feeds: dict(zip(outputs, session.run(outputs, feeds), strict=True))


def onnx_session(path: Path, options: EngineOptions) -> Any:
    """A session of ONNX Runtime. A provider that cannot start is an error: ONNX Runtime itself would go on without it.
    Memory patterns are off: they are kept for every shape that comes. The arena stays: without it memory is more, not
    less.

    Raises:
        UnsupportedOptionError: for a session option that it does not have.
        MissingDependencyError: for a provider that is not there, or does not start.
    """
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = max(1, options.cores // options.parallel)
    session_options.log_severity_level = 4  # what it logs in colours it raises as well
    session_options.enable_mem_pattern = False
    for name, value in options.session_options.items():
        if "." in name:
            session_options.add_session_config_entry(name, str(value))
        elif hasattr(session_options, name):
            setattr(session_options, name, value)
        else:
            raise UnsupportedOptionError(f"session_options: ONNX Runtime has no option {name!r}.\nLeave it out.")
    providers = list(options.providers) or onnx_providers(options)
    asked = [name if isinstance(name, str) else name[0] for name in providers]
    if missing := [name for name in asked if name not in onnxruntime.get_available_providers()]:
        raise MissingDependencyError(
            f"ONNX Runtime {onnxruntime.__version__} has no {', '.join(missing)} "
            f"(have: {', '.join(onnxruntime.get_available_providers())}).\n{ENGINES['onnxruntime'].devices['cuda']}"
        )
    session = onnxruntime.InferenceSession(str(path), session_options, providers=providers)
    if silent := [name for name in asked if name not in session.get_providers()]:
        raise MissingDependencyError(
            f"ONNX Runtime {onnxruntime.__version__} cannot start {', '.join(silent)} here.\n"
            "Check the driver of the GPU and the CUDA libraries that this version of onnxruntime-gpu needs."
        )
    return session


def run_bound(session: Any, feeds: Arrays, outputs: list[str], options: EngineOptions) -> Arrays:
    """Run an ONNX Runtime session with its inputs and outputs in the memory of the device: each is copied once."""
    import onnxruntime

    binding = session.io_binding()
    for name, array in feeds.items():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array, options.kind, options.number)
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        binding.bind_output(name, options.kind, options.number)
    session.run_with_iobinding(binding)
    return dict(zip(outputs, binding.copy_outputs_to_cpu(), strict=True))


def onnx_providers(options: EngineOptions) -> list[Any]:
    """ONNX Runtime's providers for a device; operators that a GPU lacks run on the CPU. CUDA would round the factors of
    float32 products to 10 bits.
    """
    gpu = [(CUDA_PROVIDER, {"device_id": options.number, "use_tf32": 0})] if options.kind == "cuda" else []
    return [*gpu, "CPUExecutionProvider"]


def open_keras(artifact: Artifact, section: GraphSection, options: EngineOptions) -> Run:
    """Keras on its current backend; compiled with tf.function where that is TensorFlow."""
    keras = import_keras()
    set_keras_threads(keras.backend.backend(), options)
    place = keras.device(f"{'gpu' if options.kind == 'cuda' else CPU}:{options.number}") if options.device else None
    model = load_keras_model(artifact.path(section["formats"]["keras"]), artifact.packed)

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
        with place or contextlib.nullcontext():
            tensors = {name: keras.ops.convert_to_tensor(narrow(array)) for name, array in feeds.items()}
            return {name: keras.ops.convert_to_numpy(tensor) for name, tensor in call(**tensors).items()}

    return run


def set_keras_threads(backend: str, options: EngineOptions) -> None:
    """Say to the library below Keras how many threads to use, where a number was given.

    Raises:
        UnsupportedOptionError: for JAX, which takes none.
    """
    if options.threads is not None and backend not in THREADED:
        raise UnsupportedOptionError(
            f"threads={options.threads}: Keras on {backend} takes no number of threads (have: {', '.join(THREADED)}).\n"
            "Leave it out, or hold the process to some cores (taskset)."
        )
    if options.threads is not None:
        THREADED[backend](options.threads)


def set_torch_threads(threads: int | None) -> None:
    """PyTorch's threads are the process's own: they stay as they are unless a number was given."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def set_tensorflow_threads(threads: int | None) -> None:
    """TensorFlow takes its number of threads once, before it starts.

    Raises:
        UnsupportedOptionError: if it has started with another one.
    """
    if threads is None:
        return
    import tensorflow as tf

    try:
        if tf.config.threading.get_intra_op_parallelism_threads() != threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise UnsupportedOptionError(
            f"threads={threads}: TensorFlow has started in this process already, with its own number.\n"
            "Load the model before anything else uses TensorFlow, or leave it out."
        ) from error


THREADED: dict[str, Callable[[int | None], None]] = {
    "tensorflow": set_tensorflow_threads,
    "torch": set_torch_threads,
}


def named_outputs(model: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a Keras model by name, whether it gives one or a dict of them."""
    found = model(feeds, training=False)
    return dict(found) if isinstance(found, Mapping) else {model.output_names[0]: found}


def load_keras_model(path: Path, named: Path | None = None) -> Any:
    """A .keras file as a Keras model.

    Args:
        path: where it lies.
        named: the name that messages call it by, if that is another: the file that it was unpacked from.

    Raises:
        ArtifactError: if it is broken, holds what could run code or asks for more than it holds, or Keras cannot load
            it.
        UnsupportedOptionError: if Keras has run before this process was forked.
    """
    keras, named = import_keras(), named or path
    start_engine("keras")
    importlib.import_module("sbertconv.layers")  # registers them
    with scratch_folder() as folder:  # Keras would hold the whole file in memory beside the model
        with opened_archive(path, named) as archive:
            config = check_keras(archive, named)
            archive.extractall(folder)  # names that leave the folder lead into it
        check_weights(folder, named)
        try:
            with sizes_bounded(archive, config, named):
                return keras.saving.load_model(folder, compile=False)
        except SbertconvError:
            raise
        except Exception as error:
            raise cannot_load(named, "keras", error) from error


def cannot_load(place: Path, package: str, error: Exception) -> ArtifactError:
    """The error for a file that an engine does not take, or for a path that it may not know how to read."""
    if SURROGATE.search(str(place)):  # what Python makes of bytes that are no text in this locale
        return ArtifactError(
            f"{place}: {package} cannot load it, and its path is not UTF-8 here.\n"
            "Rename the folder, or set PYTHONUTF8=1 if its name is UTF-8."
        )
    version = getattr(sys.modules.get(package), "__version__", "")
    reason = error_text(error, 2)[:LONGEST_REASON]
    return ArtifactError(f"{place}: {package} {version} cannot load it: {reason}\n{CONVERT_AGAIN}")


def narrow(array: np.ndarray) -> np.ndarray:
    """Integers of 32 bits, which is what Keras models take."""
    return array.astype(np.int32) if array.dtype == np.int64 else array


def open_shape(tensor: Mapping[str, Any]) -> tuple[int | None, ...]:
    """A shape of the manifest with None for what varies."""
    return tuple(size if isinstance(size, int) else None for size in tensor["shape"])


def open_saved_model(artifact: Artifact, section: GraphSection, options: EngineOptions) -> Run:
    """TensorFlow alone."""
    tf = import_tensorflow(["saved_model"])
    set_tensorflow_threads(options.threads)
    file = artifact.path(section["formats"]["saved_model"])
    check_saved_model(file)
    loaded = tf.saved_model.load(str(file.parent))
    serve = loaded.signatures["serving_default"]

    def run(feeds: Arrays) -> Arrays:
        with tf.device(f"/GPU:{options.number}" if options.kind == "cuda" else None):
            found = serve(**{name: tf.constant(narrow(array)) for name, array in feeds.items()})
        return {name: value.numpy() for name, value in found.items()}

    run.loaded = loaded  # type: ignore[attr-defined]  # the signature holds its variables weakly
    return run


def open_litert(artifact: Artifact, section: GraphSection, options: EngineOptions) -> Run:
    """The LiteRT interpreter; buffers are sized again for every shape."""
    tf = import_tensorflow(["litert"])
    path = artifact.path(section["formats"]["litert"])
    check_litert(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this interpreter will move to a package of its own
        interpreter = tf.lite.Interpreter(str(path), num_threads=options.cores)
    runner = interpreter.get_signature_runner("serving_default")
    lock = threading.Lock()  # an interpreter has one set of buffers

    def run(feeds: Arrays) -> Arrays:
        with lock:
            return dict(runner(**{name: narrow(array) for name, array in feeds.items()}))

    return run


def open_openvino(artifact: Artifact, section: GraphSection, options: EngineOptions, *, form: str) -> Run:
    """OpenVINO, which reads ONNX graphs as well as its own. It computes in bfloat16 only for an artifact
    that was made and measured so; left alone, it would wherever the CPU can. Activations are rounded in blocks as long
    as those of the weights; its own are shorter, and a third slower.
    """
    require("openvino", "openvino")
    for name, value in PRIMITIVES.items():  # read once, when the first graph is compiled
        os.environ.setdefault(name, value)
    openvino = import_openvino()

    path = graph_file(artifact, section, form)
    block = artifact.manifest.get("block_size")
    core = openvino.Core()
    precision = "bf16" if artifact.manifest["precision"] == "bf16" else "f32"
    on_cores = {
        "INFERENCE_NUM_THREADS": options.cores,
        "ENABLE_CPU_PINNING": False,
        **KERNELS,
        **({"DYNAMIC_QUANTIZATION_GROUP_SIZE": block} if block else {}),
    }
    compiled = core.compile_model(
        keep_bfloat16(core.read_model(path)),
        openvino_device(options),
        {
            "NUM_STREAMS": options.parallel,
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            **(on_cores if options.kind == CPU else {}),
        },
    )
    outputs = [tensor["name"] for tensor in section["outputs"]]
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()  # a request holds one computation at a time
    for _ in range(options.parallel):
        idle.put(compiled.create_infer_request())

    def run(feeds: Arrays) -> Arrays:
        request = idle.get()
        try:
            marked(request.get_tensor(name).data for name in outputs)  # on one core, what fails there passes in silence
            request.infer(feeds, share_inputs=True)
            found = {name: request.get_tensor(name).data.copy() for name in outputs}
            if any(map(is_marked, found.values())):
                raise RuntimeError("it computed nothing")
            return found
        finally:
            idle.put(request)

    return run


def openvino_device(options: EngineOptions) -> str:
    """The name that OpenVINO has for a device: CPU, GPU, GPU.1, NPU."""
    return options.kind.upper() + (f".{options.number}" if options.number else "")


def open_torch(artifact: Artifact, section: GraphSection, options: EngineOptions) -> Run:
    """PyTorch alone; its threads are the process's own, see torch.set_num_threads."""
    require("torch", "torch")
    import torch

    set_torch_threads(options.threads)

    path = graph_file(artifact, section, "torch")
    check_program(path)
    program, device = torch.export.load(path), torch.device(options.kind, options.number)
    if device.type != CPU:
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module = program.module()

    def run(feeds: Arrays) -> Arrays:
        with torch.inference_mode():
            found = module(**{name: torch.from_numpy(array).to(device) for name, array in feeds.items()})
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    return run


def open_tensorrt(artifact: Artifact, section: GraphSection, options: EngineOptions) -> Run:
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
        forks: whether it starts again in a child of a process that has used it; others can wait for ever for
            threads that stayed in the parent, as OpenVINO (its TBB) does now and then.
        devices: what to do so that a kind of device is there; the first kind is the engine's own.
    """

    package: str
    extra: str
    opens: Mapping[str, Callable[..., Run]]
    needs: str = ""
    parallel: bool = False
    on_cores: bool = True
    forks: bool = True
    devices: Mapping[str, str] = field(default_factory=lambda: {CPU: ""})


INTEL = "Install Intel's driver for its {0}: without it OpenVINO does not see one."

# The order is that of preference where several are installed: the faster first.
ENGINES = {
    "openvino": Engine(
        "openvino",
        "openvino",
        {form: functools.partial(open_openvino, form=form) for form in ("onnx", "openvino")},
        parallel=True,
        forks=False,
        devices={CPU: "", "gpu": INTEL.format("GPU"), "npu": INTEL.format("NPU")},
    ),
    "onnxruntime": Engine(
        "onnxruntime",
        "",
        {"onnx": open_onnx},
        parallel=True,
        devices={CPU: "", "cuda": "Install its build for GPUs in place of it: pip install onnxruntime-gpu"},
    ),
    "keras": Engine(
        "keras",
        "tf",
        {"keras": open_keras},
        forks=False,
        devices={CPU: "", "cuda": 'Install a backend with CUDA, such as pip install "jax[cuda13]"; see KERAS_BACKEND.'},
    ),
    "tensorflow": Engine(
        "tensorflow",
        "tf",
        {"saved_model": open_saved_model},
        forks=False,
        devices={CPU: "", "cuda": 'Install TensorFlow with CUDA: pip install "tensorflow[and-cuda]"'},
    ),
    "litert": Engine("tensorflow", "tf", {"litert": open_litert}),
    "torch": Engine(
        "torch",
        "torch",
        {"torch": open_torch},
        forks=False,
        devices={CPU: "", "cuda": "Install PyTorch's build for CUDA: pip install torch, from PyTorch's own index."},
    ),
    "tensorrt": Engine(
        "tensorrt",
        "tensorrt",
        {"tensorrt": open_tensorrt},
        "an NVIDIA GPU",
        on_cores=False,
        forks=False,
        devices={"cuda": "Leave it out: it is the first GPU."},
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
    return proven_engines(artifact, form)[0]


def proven_engines(artifact: Artifact, form: str) -> list[str]:
    """The engines that a format of an artifact was proven on; of these, those that are installed, if any is.

    Raises:
        ArtifactError: if its manifest names none that opens the format.
    """
    able = [name for name, found in ENGINES.items() if form in found.opens]
    proven = [name for name in able if name in artifact.engines(form)]
    if not proven:
        raise ArtifactError(
            f"{artifact.folder}: its manifest has {form} proven on {', '.join(artifact.engines(form))}, and none of "
            f"these opens it (have: {', '.join(able)}).\n{CONVERT_AGAIN}"
        )
    return [name for name in proven if importlib.util.find_spec(ENGINES[name].package)] or proven


def start_engine(engine: str) -> None:
    """Remember that an engine works in this process, unless it can start again in a child.

    Raises:
        UnsupportedOptionError: for one whose library has worked before the process was forked.
    """
    if ENGINES[engine].forks:
        return
    library = import_keras().backend.backend() if engine == "keras" else engine
    if library in _INHERITED:
        raise UnsupportedOptionError(
            f"{library} has run before this process was forked, and does not run in a child "
            f"(have: {', '.join(name for name, found in ENGINES.items() if found.forks)}).\n"
            "Start processes with the method spawn or forkserver, or before the first conversion or answer."
        )
    _USED.add(library)


_USED: set[str] = set()  # libraries whose threads have started in this process
_INHERITED: set[str] = set()  # those of the processes that it was forked from
if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=lambda: _INHERITED.update(_USED))


def count_devices(engine: str, kind: str) -> int:
    """How many devices of a kind an engine finds on this machine; imports the engine."""
    if engine == "openvino":
        openvino = import_openvino()

        return sum(name.partition(".")[0].lower() == kind for name in openvino.Core().available_devices)
    if engine == "onnxruntime":  # how many there are it does not say
        import onnxruntime

        return sys.maxsize if CUDA_PROVIDER in onnxruntime.get_available_providers() else 0
    if engine == "torch":
        import torch

        return int(torch.cuda.device_count())
    if engine == "keras":
        import_keras()
        from keras import distribution

        return len(distribution.list_devices("gpu"))
    return len(import_tensorflow(["saved_model"]).config.list_physical_devices("GPU"))


def check_options(engine: str, options: EngineOptions) -> None:
    """Check that an engine has what it is asked for.

    Raises:
        UnsupportedOptionError: for a device that it never has, or options of ONNX Runtime for another engine.
        MissingDependencyError: for a device that is not there, with what to install.
    """
    check_parallel(engine, options.parallel)
    told = [name for name in ("providers", "session_options") if getattr(options, name)]
    if told and engine != "onnxruntime":
        raise UnsupportedOptionError(
            f"{', '.join(told)} with the engine {engine} (have: onnxruntime).\nPass engine='onnxruntime' with it."
        )
    if options.device is None:
        return
    devices = ENGINES[engine].devices
    if options.kind not in devices:
        raise UnsupportedOptionError(
            f"device {options.device!r} with the engine {engine} (have: {', '.join(devices)}).\nChoose one of these."
        )
    if options.kind == CPU or engine == "tensorrt":
        return
    count = count_devices(engine, options.kind)
    if count <= options.number:
        found = f"{engine} {version_of(ENGINES[engine].package) or ''} finds {count} of {options.kind} here"
        raise MissingDependencyError(f"device {options.device!r}: {found}.\n{devices[options.kind]}")


def check_parallel(engine: str, parallel: int) -> None:
    """Raise UnsupportedOptionError unless this engine runs so many batches at once."""
    able = [name for name, found in ENGINES.items() if found.parallel]
    if parallel < 1 or (parallel > 1 and engine not in able):
        raise UnsupportedOptionError(
            f"parallel={parallel} with the engine {engine} (have: 1; more with {', '.join(able)}).\nLeave it out."
        )


def open_graph(artifact: Artifact, section: GraphSection, form: str, engine: str, options: EngineOptions) -> Run:
    """A callable for one graph in one of its formats; as many of its calls as the options say may run at once.

    Raises:
        ArtifactError: if the file is missing or cannot be loaded.
        MissingDependencyError: if the engine, or its device, is not there.
    """
    package = ENGINES[engine].package
    start_engine(engine)
    try:
        if options.device is not None:
            check_options(engine, options)
        return by_own_names(ENGINES[engine].opens[form](artifact, section_in_graph(section), options), section)
    except SbertconvError:
        raise
    except Exception as error:
        raise cannot_load(artifact.packed or artifact.folder / section["formats"][form], package, error) from error
