"""The forms a Keras model is written in: one function per format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.scratch import scratch_folder
from sbertconv.converters.traced import quiet
from sbertconv.errors import UnsupportedOptionError, error_text, require
from sbertconv.frameworks import import_tensorflow
from sbertconv.runtime.engines import named_outputs, open_shape

if TYPE_CHECKING:
    import keras

OPSET = 18
INTEGERS = ("int32", "int64")  # of token ids: as Keras has them, and as tokenizers give them
SAVED_MODEL = "saved_model.pb"  # TensorFlow's own name for it
Inputs = Sequence[Mapping[str, Any]]  # the manifest's entries: name, dtype, shape


def write_keras(model: keras.Model, inputs: Inputs, path: Path) -> None:
    """Keras' own file: trainable, with everything else of the model in its last layer."""
    model.save(path)


def write_saved_model(model: keras.Model, inputs: Inputs, path: Path) -> None:
    """A SavedModel for plain TensorFlow. Keras' own export would write the weights twice.

    `serving_default` takes int32 and `serving_int64` int64, tensors by name; `serve`, for keras.layers.TFSMLayer, takes
    one dict of either.
    """
    tf = import_tensorflow(["saved_model"])
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.run = serving_function(model, inputs)
    run = module.run.get_concrete_function()

    def serve(named: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = run(
            **{entry["name"]: tf.cast(named[entry["name"]], entry["dtype"]) for entry in inputs}
        )
        return found

    def widened(**named: Any) -> dict[str, Any]:
        return serve(named)

    module.serve = tf.function(serve)
    signatures = {"serving_default": run}
    for integers in INTEGERS if any(entry["dtype"] == "int32" for entry in inputs) else INTEGERS[:1]:
        specs = {spec.name: spec for spec in input_specs(inputs, integers)}
        module.serve.get_concrete_function(specs)
        if integers != "int32":
            signatures[f"serving_{integers}"] = tf.function(widened).get_concrete_function(**specs)
    with quiet():
        tf.saved_model.save(module, str(path.parent), signatures=signatures)


def input_specs(inputs: Inputs, integers: str) -> list[Any]:
    """Batch and sequence open; token ids in the dtype `integers`."""
    tf = import_tensorflow(["saved_model"])
    return [
        tf.TensorSpec(open_shape(entry), integers if entry["dtype"] == "int32" else entry["dtype"], entry["name"])
        for entry in inputs
    ]


def serving_function(model: keras.Model, inputs: Inputs, integers: str = "int32") -> Any:
    """A tf.function from named tensors to named outputs, batch and sequence open.

    Args:
        model: the Keras model.
        inputs: its inputs.
        integers: the dtype that the function takes token ids in.
    """
    tf = import_tensorflow(["saved_model"])
    specs = input_specs(inputs, integers)

    def serve(*tensors: Any) -> dict[str, Any]:
        feeds = {
            spec.name: tf.cast(tensor, entry["dtype"])
            for spec, tensor, entry in zip(specs, tensors, inputs, strict=True)
        }
        return {name: tf.identity(tensor, name) for name, tensor in named_outputs(model, feeds).items()}

    return tf.function(serve, input_signature=specs)


def write_litert(model: keras.Model, inputs: Inputs, path: Path) -> None:
    """A .tflite file of LiteRT's own operators, with the same signature.

    Raises:
        UnsupportedOptionError: if the model needs an operation that LiteRT does not have.
    """
    tf = import_tensorflow(["litert"])
    with scratch_folder() as folder, quiet():
        write_saved_model(model, inputs, folder / SAVED_MODEL)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["serving_default"])
        try:
            path.write_bytes(converter.convert())
        except Exception as error:
            raise UnsupportedOptionError(
                f"LiteRT cannot hold this model: {error_text(error, 3)}\nLeave litert out of formats=."
            ) from error


def write_onnx(model: keras.Model, inputs: Inputs, path: Path) -> None:
    """An ONNX graph of ai.onnx operators; int64 ids, as its consumers pass them.

    Raises:
        UnsupportedOptionError: if the model needs an operation that tf2onnx does not translate.
    """
    import_tensorflow(["onnx"])
    require("tf", "tf2onnx")
    import onnx
    import tf2onnx

    function = serving_function(model, inputs, integers="int64")
    try:
        with quiet():
            proto, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=OPSET)
    except Exception as error:
        raise UnsupportedOptionError(
            f"tf2onnx cannot translate this model: {error_text(error, 2)}\n"
            "Convert the sentence-transformers model with sbertconv to-onnx."
        ) from error
    tidy_onnx(proto)
    onnx.save(proto, path)


def tidy_onnx(proto: Any) -> None:
    """Names for the axes that vary, and for who made the file."""
    from sbertconv import __version__

    for value in (*proto.graph.input, *proto.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = ("batch", "sequence")[axis]
    proto.producer_name, proto.producer_version = "sbertconv", __version__


@dataclass(frozen=True)
class KerasFormat:
    """One form of a written model.

    Attributes:
        file: its place in the artifact, with {name} for the route: "model", or "model_<route>".
        write: writes it.
        engines: what it is proven on.
        needs_tensorflow: whether only Keras on TensorFlow can write it.
        takes_text: whether it can hold a tokenizer.
    """

    file: str
    write: Callable[[Any, Inputs, Path], None]
    engines: tuple[str, ...]
    needs_tensorflow: bool
    takes_text: bool = False


FORMATS = {
    "keras": KerasFormat("keras/{name}.keras", write_keras, ("keras",), False, True),
    "saved_model": KerasFormat(f"saved_{{name}}/{SAVED_MODEL}", write_saved_model, ("tensorflow",), True, True),
    "litert": KerasFormat("litert/{name}.tflite", write_litert, ("litert",), True),
    "onnx": KerasFormat("onnx/{name}.onnx", write_onnx, ("onnxruntime",), True),
}


def write_format(form: str, model: keras.Model, inputs: Inputs, path: Path) -> None:
    """Write a model in a format of the table, and the folders above the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[form].write(model, inputs, path)
