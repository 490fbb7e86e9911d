"""The layers of models that look words up: BoW, StaticEmbedding, WordWeights, and the mean over hidden layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras import ops

Tensor = Any


def per_token(ids: Tensor, values: Tensor, size: int) -> Tensor:
    """The sum of the values of each id, [batch, count] and [batch, count] -> [batch, size]."""
    ids = ops.cast(ids, "int32")
    batch = ops.shape(ids)[0]
    rows = ops.broadcast_to(ops.expand_dims(ops.arange(batch, dtype="int32"), -1), ops.shape(ids))
    places = ops.stack([ops.reshape(rows, (-1,)), ops.reshape(ids, (-1,))], axis=-1)
    return ops.scatter(places, ops.reshape(values, (-1,)), (batch, size))


@keras.saving.register_keras_serializable("sbertconv")
class BoW(keras.layers.Layer):
    """The weight of every word of the vocabulary that a text has, once or as often as it has it.

    Input: a dict with "input_ids" and "attention_mask" [batch, sequence]. Output: float32 [batch, vocabulary].
    """

    def __init__(self, vocabulary_size: int, cumulative: bool, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.vocabulary_size = vocabulary_size
        self.cumulative = cumulative

    def build(self, input_shape: Any = None) -> None:
        self.word_weights = self.add_weight(
            shape=(self.vocabulary_size,), initializer="ones", trainable=False, name="word_weights"
        )

    def state(self) -> Iterator[tuple[str, Any]]:
        """Nothing: in sentence-transformers the word weights are settings."""
        yield from ()

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        mask = ops.cast(inputs["attention_mask"], "float32")
        counts = per_token(inputs["input_ids"], mask, self.vocabulary_size)
        return (counts if self.cumulative else ops.minimum(counts, 1.0)) * self.word_weights

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return keras.KerasTensor((inputs["input_ids"].shape[0], self.vocabulary_size), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "cumulative": self.cumulative}


@keras.saving.register_keras_serializable("sbertconv")
class StaticEmbedding(keras.layers.Layer):
    """The mean of the token embeddings, zeros for an empty text.

    Input: a dict with "input_ids" and "attention_mask" [batch, sequence]. Output: [batch, dim].
    """

    def __init__(self, vocabulary_size: int, dim: int, **options: Any) -> None:
        super().__init__(**options)
        self.vocabulary_size, self.dim = vocabulary_size, dim
        self.embedding = keras.layers.Embedding(
            vocabulary_size, dim, embeddings_initializer="zeros", name="embedding", dtype=self.dtype_policy
        )

    def build(self, input_shape: Any = None) -> None:
        self.embedding.build(None)

    def state(self) -> Iterator[tuple[str, Any]]:
        """PyTorch's path -> layer."""
        yield "embedding", self.embedding

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        mask = ops.expand_dims(ops.cast(inputs["attention_mask"], self.compute_dtype), -1)
        summed = ops.sum(self.embedding(inputs["input_ids"]) * mask, axis=1)
        return summed / ops.maximum(ops.sum(mask, axis=1), 1)

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return keras.KerasTensor((inputs["input_ids"].shape[0], self.dim), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "dim": self.dim}


@keras.saving.register_keras_serializable("sbertconv")
class WordWeights(keras.layers.Layer):
    """Token embeddings times the weights of their words, which do not train: sentence-transformers saves trained
    ones but reads them from the settings again.

    Input: a dict with "input_ids", "attention_mask" [batch, sequence] and "token_embeddings"
    [batch, sequence, dim]. Output: a dict with "token_embeddings" and "token_weights_sum" [batch].
    """

    def __init__(self, vocabulary_size: int, **options: Any) -> None:
        super().__init__(**options)
        self.vocabulary_size = vocabulary_size
        self.emb_layer = keras.layers.Embedding(
            vocabulary_size, 1, embeddings_initializer="ones", name="emb_layer", dtype=self.dtype_policy
        )
        self.emb_layer.trainable = False

    def build(self, input_shape: Any = None) -> None:
        self.emb_layer.build(None)

    def state(self) -> Iterator[tuple[str, Any]]:
        """PyTorch's path -> layer."""
        yield "emb_layer", self.emb_layer

    def call(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        mask = ops.expand_dims(ops.cast(inputs["attention_mask"], self.compute_dtype), -1)
        weights = self.emb_layer(inputs["input_ids"]) * mask
        return {
            "token_embeddings": inputs["token_embeddings"] * weights,
            "token_weights_sum": ops.sum(ops.squeeze(weights, -1), axis=1),
        }

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shape = inputs["token_embeddings"].shape
        return {
            "token_embeddings": keras.KerasTensor(shape, dtype=self.compute_dtype),
            "token_weights_sum": keras.KerasTensor(shape[:1], dtype=self.compute_dtype),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size}


@keras.saving.register_keras_serializable("sbertconv")
class WeightedLayerPooling(keras.layers.Layer):
    """The weighted mean of the hidden states from `layer_start` on.

    Input: a list of `count` tensors [batch, sequence, dim]. Output: one such tensor.
    """

    def __init__(self, layer_start: int, count: int, **options: Any) -> None:
        super().__init__(**options)
        self.layer_start, self.count = layer_start, count

    def build(self, input_shape: Any = None) -> None:
        self.layer_weights = self.add_weight(
            shape=(self.count - self.layer_start,), initializer="ones", name="layer_weights"
        )

    def state(self) -> Iterator[tuple[str, Any]]:
        """PyTorch's path -> variable."""
        yield "layer_weights", self.layer_weights

    def call(self, inputs: list[Tensor]) -> Tensor:
        layers = ops.stack(inputs[self.layer_start :], axis=-1)
        return ops.sum(layers * self.layer_weights, axis=-1) / ops.sum(self.layer_weights)

    def compute_output_spec(self, inputs: list[Tensor]) -> Tensor:
        return keras.KerasTensor(inputs[0].shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer_start": self.layer_start, "count": self.count}
