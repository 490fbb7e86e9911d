"""What a model is given with every image alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable("sbertconv")
class ImageTokens(keras.layers.Layer):
    """The tensors that are the same for every image, such as the ids of an instruction.

    Args:
        rows: name of a tensor -> its numbers for one image.

    Input: "pixel_values" [batch, ...]. Output: a dict of them, int32 [batch, numbers].
    """

    def __init__(self, rows: Mapping[str, Sequence[int]], **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.rows = {name: list(numbers) for name, numbers in rows.items()}

    def call(self, inputs: Tensor) -> dict[str, Tensor]:
        batch = ops.shape(inputs)[0]
        return {
            name: ops.broadcast_to(ops.convert_to_tensor([numbers], "int32"), (batch, len(numbers)))
            for name, numbers in self.rows.items()
        }

    def compute_output_spec(self, inputs: Tensor) -> dict[str, Tensor]:
        return {
            name: keras.KerasTensor((inputs.shape[0], len(numbers)), dtype="int32")
            for name, numbers in self.rows.items()
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rows": self.rows}
