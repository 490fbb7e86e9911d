"""The layers that run along the token embeddings: CNN and LSTM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from sbertconv.layers.pooling import positions

Tensor = Any


@keras.saving.register_keras_serializable("sbertconv")
class CNN(keras.layers.Layer):
    """Convolutions of several widths over the token embeddings, channels concatenated.

    Input: a dict with "token_embeddings" [batch, sequence, dim] and "attention_mask". Output: the same two. A
    mask whose length the convolutions no longer keep does not count any more, as in sentence-transformers.
    """

    def __init__(
        self, channels: int, kernel_sizes: Sequence[int], strides: Sequence[int], dim: int, **options: Any
    ) -> None:
        super().__init__(**options)
        self.settings = {
            "channels": channels, "kernel_sizes": list(kernel_sizes), "strides": list(strides), "dim": dim,
        }  # fmt: skip
        self.dim = dim
        self.convs = [
            keras.layers.Conv1D(channels, size, stride, name=f"convs_{place}", dtype=self.dtype_policy)
            for place, (size, stride) in enumerate(zip(kernel_sizes, strides, strict=True))
        ]
        self.keeps_length = all(stride == 1 and size % 2 for size, stride in zip(kernel_sizes, strides, strict=True))

    def build(self, input_shape: Any = None) -> None:
        for conv in self.convs:
            conv.build((None, None, self.dim))

    def state(self) -> Iterator[tuple[str, Any]]:
        """PyTorch's path -> layer."""
        for place, conv in enumerate(self.convs):
            yield f"convs.{place}", conv

    def call(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        embeddings, mask = inputs["token_embeddings"], ops.cast(inputs["attention_mask"], "int32")
        found = []
        for conv in self.convs:
            width = (conv.kernel_size[0] - 1) // 2
            found.append(conv(ops.pad(embeddings, [(0, 0), (width, width), (0, 0)])))
        embeddings = ops.concatenate(found, axis=-1)
        if not self.keeps_length:
            # Only a text of one token can keep its length, so that its one column of the mask stands for all.
            ones = ops.ones_like(embeddings[..., 0], dtype="int32")
            same = ops.cast(ops.equal(ops.shape(mask)[1], ops.shape(ones)[1]), "int32")
            mask = ones * (1 - same * (1 - mask[:, :1]))
        return {"token_embeddings": embeddings, "attention_mask": mask}

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        batch, length, _ = inputs["token_embeddings"].shape
        length = length if self.keeps_length else None
        channels = sum(conv.filters for conv in self.convs)
        return {
            "token_embeddings": keras.KerasTensor((batch, length, channels), dtype=self.compute_dtype),
            "attention_mask": keras.KerasTensor((batch, length), dtype="int32"),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable("sbertconv")
class LSTMCell(keras.layers.Layer):
    """One step of PyTorch's LSTM: gates i, f, g, o and two biases, which train apart.

    Formulas: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
    """

    def __init__(self, hidden_size: int, **options: Any) -> None:
        super().__init__(**options)
        self.hidden_size = hidden_size
        self.state_size = [hidden_size, hidden_size]
        self.output_size = hidden_size

    def build(self, input_shape: Any) -> None:
        for name, shape in {
            "weight_ih": (4 * self.hidden_size, input_shape[-1]),
            "weight_hh": (4 * self.hidden_size, self.hidden_size),
            "bias_ih": (4 * self.hidden_size,),
            "bias_hh": (4 * self.hidden_size,),
        }.items():
            setattr(self, name, self.add_weight(shape=shape, initializer="zeros", name=name))
        self.built = True

    def call(self, inputs: Tensor, states: Sequence[Tensor], training: bool | None = None) -> tuple[Tensor, Any]:
        hidden, cell = states
        gates = (
            ops.matmul(inputs, ops.transpose(self.weight_ih)) + self.bias_ih
            + ops.matmul(hidden, ops.transpose(self.weight_hh)) + self.bias_hh
        )  # fmt: skip
        i, f, g, o = ops.split(gates, 4, axis=-1)
        cell = ops.sigmoid(f) * cell + ops.sigmoid(i) * ops.tanh(g)
        hidden = ops.sigmoid(o) * ops.tanh(cell)
        return hidden, [hidden, cell]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_size": self.hidden_size}


@keras.saving.register_keras_serializable("sbertconv")
class LSTM(keras.layers.Layer):
    """PyTorch's LSTM over packed sequences: layers, directions, zeros after each text.

    Input: a dict with "token_embeddings" [batch, sequence, dim] and "attention_mask". Output: token embeddings
    [batch, sequence, directions * hidden_size].
    """

    def __init__(
        self, dim: int, hidden_size: int, layers: int, bidirectional: bool, dropout: float = 0.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.settings = {
            "dim": dim, "hidden_size": hidden_size, "layers": layers, "bidirectional": bidirectional,
            "dropout": dropout,
        }  # fmt: skip
        self.directions = ("", "_reverse") if bidirectional else ("",)
        self.rnns = [
            [
                keras.layers.RNN(
                    LSTMCell(hidden_size, dtype=self.dtype_policy),
                    return_sequences=True, go_backwards=bool(direction), zero_output_for_mask=True,
                    name=f"l{layer}{direction}", dtype=self.dtype_policy,
                )
                for direction in self.directions
            ]
            for layer in range(layers)
        ]  # fmt: skip
        self.dropout = keras.layers.Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        size = self.settings["dim"]
        for layer in self.rnns:
            for rnn in layer:
                rnn.build((None, None, size))
            size = len(self.directions) * self.settings["hidden_size"]

    def state(self) -> Iterator[tuple[str, Any]]:
        """PyTorch's path -> variable."""
        for layer in self.rnns:
            for rnn in layer:
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    yield f"encoder.{kind}_{rnn.name}", getattr(rnn.cell, kind)

    def call(self, inputs: Mapping[str, Tensor], training: bool | None = None) -> Tensor:
        hidden, mask = inputs["token_embeddings"], ops.cast(inputs["attention_mask"], "int32")
        lengths = ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1)
        inside = ops.less(positions(mask), lengths)
        for place, layer in enumerate(self.rnns):
            hidden = self.dropout(hidden, training=training) if place else hidden
            found = [rnn(hidden, mask=inside, training=training) for rnn in layer]
            found[1:] = [ops.flip(backwards, axis=1) for backwards in found[1:]]
            hidden = ops.concatenate(found, axis=-1)
        return hidden

    def compute_output_spec(self, inputs: Mapping[str, Tensor], training: bool | None = None) -> Tensor:
        batch, length, _ = inputs["token_embeddings"].shape
        size = len(self.directions) * self.settings["hidden_size"]
        return keras.KerasTensor((batch, length, size), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}
