"""What runs a written graph: one function per format, from the artifact's file to a callable on numpy arrays."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbertconv.artifact import Artifact
from sbertconv.errors import ArtifactError, SbertconvError, error_text, require
from sbertconv.frameworks import import_keras, import_tensorflow

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
OUTPUT = "sentence_embedding"
LONGEST_REASON = 400  # Keras prints whole models


def open_onnx(artifact: Artifact, section: Mapping[str, Any], threads: int) -> Run:
    """ONNX Runtime on the CPU."""
    require("onnx", "onnxruntime")
    import onnxruntime

    path = artifact.path(section["formats"]["onnx"])
    for name in section.get("data", ()):
        artifact.path(name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = [tensor["name"] for tensor in section["outputs"]]
    return lambda feeds: dict(zip(outputs, session.run(outputs, feeds), strict=True))


def open_keras(artifact: Artifact, section: Mapping[str, Any], threads: int) -> Run:
    """Keras on its current backend; compiled with tf.function where that is TensorFlow."""
    keras = import_keras()
    model = load_keras_model(artifact.path(section["formats"]["keras"]))

    def call(**feeds: Any) -> Any:
        return model(feeds, training=False)

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
        return {OUTPUT: keras.ops.convert_to_numpy(call(**tensors))}

    return run


def load_keras_model(path: Any) -> Any:
    """A .keras file as a Keras model."""
    keras = import_keras()
    importlib.import_module("sbertconv.layers")  # registers them
    with tempfile.TemporaryDirectory() as folder:  # Keras would hold the whole file in memory beside the model
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
    return lambda feeds: dict(runner(**{name: narrow(array) for name, array in feeds.items()}))


@dataclass(frozen=True)
class Engine:
    """What runs a format: how to open it, and which package that is."""

    open: Callable[[Artifact, Mapping[str, Any], int], Run]
    package: str


ENGINES = {
    "onnx": Engine(open_onnx, "onnxruntime"),
    "keras": Engine(open_keras, "keras"),
    "saved_model": Engine(open_saved_model, "tensorflow"),
    "litert": Engine(open_litert, "tensorflow"),
}


def open_graph(artifact: Artifact, section: Mapping[str, Any], form: str, threads: int) -> Run:
    """A callable for one graph in one of its formats.

    Raises:
        ArtifactError: if the file is missing or cannot be loaded.
        MissingDependencyError: if what runs this format is not installed.
    """
    engine = ENGINES[form]
    try:
        return engine.open(artifact, section, threads)
    except SbertconvError:
        raise
    except Exception as error:
        version = getattr(sys.modules.get(engine.package), "__version__", "")
        reason = error_text(error, 2)[:LONGEST_REASON]
        raise ArtifactError(
            f"{artifact.folder / section['formats'][form]}: {engine.package} {version} cannot load it: {reason}\n"
            "Convert the model again with --overwrite."
        ) from error
