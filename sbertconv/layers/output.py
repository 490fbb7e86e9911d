"""The last layer of a converted model: its embedding, and what else the model is apart from its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from sbertconv.layers.sparse import largest

SHORTEST = 1e-12  # the length that a vector is divided by at least, as in PyTorch
FOLDER = "sbertconv"  # in the folder that Keras gives every layer for its files


@keras.saving.register_keras_serializable("sbertconv")
class SentenceEmbedding(keras.layers.Layer):
    """The embedding in float32, with as much of it as the model says; or logits, or the vectors of tokens.

    Args:
        truncate_dim: keep this many leading dimensions, or None.
        max_active_dims: keep this many values of each row, the largest by absolute value, or None.
        normalized: divide each row by its length then, as torch.nn.functional.normalize does.

    Attributes:
        files: name -> content of the manifest, the tokenizer files and the sentence-transformers configs. They
            travel inside the .keras file, so that it can be encoded with, exported and converted back alone.
    """

    def __init__(
        self,
        truncate_dim: int | None = None,
        max_active_dims: int | None = None,
        normalized: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.truncate_dim = truncate_dim
        self.max_active_dims = max_active_dims
        self.normalized = normalized
        self.files: Mapping[str, bytes] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "files":  # bytes, which Keras has no reason to track
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def call(self, inputs: Any) -> Any:
        embedding = keras.ops.cast(inputs[..., : self.truncate_dim], "float32")
        if self.normalized:
            length = keras.ops.sqrt(keras.ops.sum(embedding * embedding, axis=-1, keepdims=True))
            embedding = embedding / keras.ops.maximum(length, SHORTEST)
        return embedding if self.max_active_dims is None else largest(embedding, self.max_active_dims)

    def compute_output_spec(self, inputs: Any) -> Any:
        *others, dim = inputs.shape
        return keras.KerasTensor((*others, min(dim, self.truncate_dim or dim)), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("truncate_dim", "max_active_dims", "normalized")}
        return {**super().get_config(), **own}

    def save_assets(self, dir_path: str) -> None:
        for name, content in self.files.items():
            path = Path(dir_path) / FOLDER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def load_assets(self, dir_path: str) -> None:
        root = Path(dir_path) / FOLDER
        self.files = {
            path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
        }
