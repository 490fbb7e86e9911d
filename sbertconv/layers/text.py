"""The tokenizer as the first layer of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from sbertconv.artifact.text_input import TEXT
from sbertconv.errors import ArtifactError
from sbertconv.frameworks import import_tensorflow
from sbertconv.text.storage import dumps, loads
from sbertconv.text.tf_emitter import TensorFlowEmitter
from sbertconv.text.tokenizer import GraphTokenizer

FILE = "tokenizer.npz"


@keras.saving.register_keras_serializable("sbertconv")
class TextInput(keras.layers.Layer):
    """Strings [batch] -> a dict of the tokenizer's tensors, int32 [batch, sequence]; TensorFlow only.

    A tokenizer of pairs, or of texts with limits of their own, takes a dict of its inputs instead
    (`TokenizerSettings.inputs`), each [batch].

    Args:
        names: of the tensors.
        tables: the tokenizer; None where it is loaded with the layer's file.
    """

    def __init__(self, names: tuple[str, ...], tables: GraphTokenizer | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.names = tuple(names)
        self._tables = tables
        self.supports_jit = False  # XLA has no strings
        self.built = True

    def call(self, inputs: Any) -> dict[str, Any]:
        if self._tables is None:
            raise ArtifactError("The tokenizer's layer has no tables.\nLoad the model from its .keras file.")
        tf = import_tensorflow(["text input"])
        named = inputs if isinstance(inputs, Mapping) else {TEXT: inputs}
        tensors = self._tables(TensorFlowEmitter(tf), named)
        return {name: tf.cast(tensors[name].value, "int32") for name in self.names}

    def compute_output_spec(self, inputs: Any) -> dict[str, Any]:
        batch = (inputs[TEXT] if isinstance(inputs, Mapping) else inputs).shape[0]
        return {name: keras.KerasTensor((batch, None), dtype="int32") for name in self.names}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "names": list(self.names)}

    def save_assets(self, dir_path: str) -> None:
        if self._tables is not None:
            (Path(dir_path) / FILE).write_bytes(dumps(self._tables))

    def load_assets(self, dir_path: str) -> None:
        self._tables = loads((Path(dir_path) / FILE).read_bytes())
