"""The layer that runs a traced PyTorch module: stock Keras layers where the module had layers, `keras.ops` between."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from sbertconv.layers.aten import OPERATIONS, dtype_of, is_tensor


@keras.saving.register_keras_serializable("sbertconv")
class TracedModule(keras.layers.Layer):
    """A traced module as one layer.

    Args:
        graph: the traced operations as plain JSON:
            `inputs`, the names of the tensors it takes;
            `weights`, path -> {shape, dtype, trainable} for parameters and buffers that no sublayer holds;
            `nodes`, in order: {name, op or layer, args, options}, where an argument is a number, a string, a
            list, {"node": name}, {"weight": path} or {"layer": path};
            `outputs`, name -> {value, shape, dtype}; a list for several tensors under one name.
        sublayers: path of the PyTorch module -> built Keras layer, or its serialised form.

    Input: a dict with at least the tensors of `graph["inputs"]`. Output: a dict of tensors under their
    sentence-transformers names, floating ones in the layer's compute dtype.
    """

    def __init__(
        self,
        graph: Mapping[str, Any],
        sublayers: Mapping[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.graph = dict(graph)
        self.sublayers = {
            path: layer if isinstance(layer, keras.layers.Layer) else keras.saving.deserialize_keras_object(layer)
            for path, layer in sublayers.items()
        }
        self.own: dict[str, Any] = {}

    def build(self, input_shape: Any = None) -> None:
        for path, weight in self.graph["weights"].items():
            floating = weight["dtype"].startswith(("float", "bfloat"))
            self.own[path] = self.add_weight(
                shape=weight["shape"],
                initializer="zeros",
                dtype=self.variable_dtype if floating else weight["dtype"],
                trainable=weight["trainable"],
                autocast=floating,
                name=path.replace(".", "_"),  # torch, as a backend, has no dots in names
            )
        self.built = True

    @property
    def layers(self) -> list[Any]:
        """The sublayers under their paths, which `model.summary(expand_nested=True)` shows."""
        return [Listed(path, layer) for path, layer in self.sublayers.items()]

    def __dir__(self) -> list[str]:
        """Without `layers`: Keras saves what is listed here, and would save the sublayers under a second name."""
        return [name for name in super().__dir__() if name != "layers"]

    def at(self, path: str) -> keras.layers.Layer:
        """The Keras layer that stands for the PyTorch module at this path, e.g. "encoder.layer.0.output.dense".

        Raises:
            KeyError: if there is none, with the paths most like it.
        """
        if path not in self.sublayers:
            close = difflib.get_close_matches(path, self.sublayers, n=4, cutoff=0.3)
            raise KeyError(f"{self.name} has no layer at {path!r} (close: {', '.join(close) or 'none'})")
        return self.sublayers[path]

    def state(self) -> Iterator[tuple[str, keras.layers.Layer | Any]]:
        """Path and sublayer, or path and variable for the layer's own weights."""
        yield from self.sublayers.items()
        yield from self.own.items()

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        known: dict[str, Any] = {name: inputs[name] for name in self.graph["inputs"]}

        def value(found: Any) -> Any:
            if isinstance(found, list):
                return [value(item) for item in found]
            if not isinstance(found, dict):
                return found
            ((kind, name),) = found.items()
            return REFERENCES[kind](self, known, name, training)

        for node in self.graph["nodes"]:
            args = [value(item) for item in node.get("args", ())]
            options = {key: value(item) for key, item in node.get("options", {}).items()}
            function = self._layer(node["layer"], training) if "layer" in node else OPERATIONS[node["op"]]
            known[node["name"]] = function(*args, **options)
        return {name: self._output(output, value) for name, output in self.graph["outputs"].items()}

    def _layer(self, path: str, training: bool | None) -> Callable[..., Any]:
        layer = self.sublayers[path]
        if isinstance(layer, keras.layers.Dropout):
            return lambda x: layer(x, training=training)
        call: Callable[..., Any] = layer
        return call

    def _output(self, output: Any, value: Callable[[Any], Any]) -> Any:
        if isinstance(output, list):
            return [self._output(item, value) for item in output]
        found = value(output["value"])
        floating = is_tensor(found) and dtype_of(found).startswith(("float", "bfloat"))
        return keras.ops.cast(found, self.compute_dtype) if floating else found

    def compute_output_spec(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Known from the trace, so that sizes need not be symbolic while a model is put together."""

        def spec(output: Any) -> Any:
            if isinstance(output, list):
                return [spec(item) for item in output]
            floating = output["dtype"].startswith(("float", "bfloat"))
            return keras.KerasTensor(output["shape"], dtype=self.compute_dtype if floating else output["dtype"])

        return {name: spec(output) for name, output in self.graph["outputs"].items()}

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "graph": self.graph,
            "sublayers": {path: serialize(layer) for path, layer in self.sublayers.items()},
        }


class Listed:
    """A layer as a summary shows it: its name is its path."""

    def __init__(self, path: str, layer: keras.layers.Layer) -> None:
        self.name = path
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._layer)


REFERENCES: dict[str, Callable[..., Any]] = {
    "node": lambda layer, known, name, training: known[name],
    "weight": lambda layer, known, path, training: layer.own[path],
    "layer": lambda layer, known, path, training: layer._layer(path, training),
    "float": lambda layer, known, text, training: float(text),  # JSON has no infinity
}


@keras.saving.register_keras_serializable("sbertconv")
class Embedding(keras.layers.Embedding):
    """A stock Embedding whose padding row gets no gradient, as in PyTorch.

    Args:
        padding_idx: that row, or None.
    """

    def __init__(self, *args: Any, padding_idx: int | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.padding_idx = padding_idx

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        found = super().call(inputs)
        if not training or self.padding_idx is None:
            return found
        is_padding = keras.ops.expand_dims(keras.ops.equal(inputs, self.padding_idx), -1)
        return keras.ops.where(is_padding, keras.ops.stop_gradient(found), found)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding_idx": self.padding_idx}
