"""The layers of sparse encoders: SpladePooling, SparseStaticEmbedding, SparseAutoEncoder, and the limit of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras import ops

from sbertconv.layers.pooling import positions
from sbertconv.layers.words import per_token

SMALLEST_DEVIATION = 1e-5  # the library's own guard
Tensor = Any


def largest(vectors: Tensor, count: int) -> Tensor:
    """All but the `count` largest values of each row, by absolute value, are 0: [batch, dim] -> [batch, dim]."""
    size = vectors.shape[-1]
    _, places = ops.top_k(ops.abs(vectors), min(count, size))
    return per_token(places, ops.take_along_axis(vectors, places, axis=-1), size)


@keras.saving.register_keras_serializable("sbertconv")
class SpladePooling(keras.layers.Layer):
    """Logits of a masked language model to a weight for every token of the vocabulary: log(1 + relu(x)) of each, and
    the largest or the sum of a token's. The activation never falls where x rises, so the largest logit is enough.

    Args:
        pools_first: whether the maximum is taken, and not the sum.
        logarithms: how often log(1 + x) is taken.

    Input: a dict with "token_embeddings" [batch, sequence, vocabulary] and "attention_mask" [batch, sequence].
    Output: float32 [batch, vocabulary]; zeros for an empty text.
    """

    def __init__(self, pools_first: bool, logarithms: int, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.pools_first = pools_first
        self.logarithms = logarithms

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        logits = inputs["token_embeddings"] * ops.cast(ops.expand_dims(inputs["attention_mask"], -1), "float32")
        if self.pools_first:
            return self._activate(ops.max(logits, axis=1))
        return ops.sum(self._activate(logits), axis=1)

    def _activate(self, logits: Tensor) -> Tensor:
        weights = ops.relu(logits)
        for _ in range(self.logarithms):
            weights = ops.log(1.0 + weights)  # tf2onnx translates no log1p
        return weights

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> Tensor:
        batch, _, size = inputs["token_embeddings"].shape
        return keras.KerasTensor((batch, size), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pools_first": self.pools_first, "logarithms": self.logarithms}


@keras.saving.register_keras_serializable("sbertconv")
class SparseStaticEmbedding(keras.layers.Layer):
    """The weight of every token of the vocabulary that a text has, times the embedding that is there already.

    The library writes each token's mask to its place, so that the last one stays: padding behind a text takes a
    padding token away that is written out in the text.

    Input: a dict with "input_ids" and "attention_mask" [batch, sequence] and perhaps "sentence_embedding"
    [batch, vocabulary]. Output: float32 [batch, vocabulary].
    """

    def __init__(self, vocabulary_size: int, frozen: bool = False, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.vocabulary_size = vocabulary_size
        self.frozen = frozen

    def build(self, input_shape: Any = None) -> None:
        self.weight = self.add_weight(
            shape=(self.vocabulary_size,), initializer="ones", trainable=not self.frozen, name="weight"
        )

    def state(self) -> Iterator[tuple[str, Any]]:
        """PyTorch's path -> variable."""
        yield "weight", self.weight

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        ids, mask = (ops.cast(inputs[name], "int32") for name in ("input_ids", "attention_mask"))
        places = positions(mask)
        behind = (1 - mask) * ops.cast(places > ops.max(places * mask, axis=1, keepdims=True), "int32")
        embedding = self._present(ids, mask) * (1 - self._present(ids, behind)) * self.weight
        return embedding * inputs.get("sentence_embedding", 1.0)

    def _present(self, ids: Tensor, mask: Tensor) -> Tensor:
        """1 for every token that is there where the mask is 1: [batch, vocabulary]."""
        return ops.minimum(per_token(ids, ops.cast(mask, "float32"), self.vocabulary_size), 1.0)

    def compute_output_spec(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return keras.KerasTensor((inputs["input_ids"].shape[0], self.vocabulary_size), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "frozen": self.frozen}


@keras.saving.register_keras_serializable("sbertconv")
class SparseAutoEncoder(keras.layers.Layer):
    """The k largest latents of an embedding, where they are positive.

    Args:
        input_dim: size of the embedding.
        hidden_dim: number of latents.
        k: how many stay.
        normalize: whether the embedding is first brought to mean 0 and deviation 1.

    Input: [batch, input_dim]. Output: float32 [batch, hidden_dim].
    """

    def __init__(self, input_dim: int, hidden_dim: int, k: int, normalize: bool = False, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.input_dim, self.hidden_dim, self.k, self.normalize = input_dim, hidden_dim, k, normalize
        self.encoder = keras.layers.Dense(hidden_dim, use_bias=False, name="encoder", dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        self.encoder.build((None, self.input_dim))
        self.pre_bias = self.add_weight(shape=(self.input_dim,), initializer="zeros", name="pre_bias")
        self.latent_bias = self.add_weight(shape=(self.hidden_dim,), initializer="zeros", name="latent_bias")

    def state(self) -> Iterator[tuple[str, Any]]:
        """PyTorch's path -> layer or variable."""
        yield "encoder", self.encoder
        yield "pre_bias", self.pre_bias
        yield "latent_bias", self.latent_bias

    def call(self, inputs: Tensor) -> Tensor:
        if self.normalize:
            inputs = inputs - ops.mean(inputs, axis=-1, keepdims=True)
            variance = ops.sum(ops.square(inputs), axis=-1, keepdims=True) / (self.input_dim - 1)
            inputs = inputs / (ops.sqrt(variance) + SMALLEST_DEVIATION)
        latents = self.encoder(inputs - self.pre_bias) + self.latent_bias
        values, places = ops.top_k(latents, self.k)
        return per_token(places, ops.relu(values), self.hidden_dim)

    def compute_output_spec(self, inputs: Tensor) -> Tensor:
        return keras.KerasTensor((inputs.shape[0], self.hidden_dim), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("input_dim", "hidden_dim", "k", "normalize")}
        return {**super().get_config(), **own}
