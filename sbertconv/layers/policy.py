"""Mixed precision for a model that was converted, and therefore built, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from sbertconv.errors import UnsupportedOptionError
from sbertconv.keras_compat import layers_of
from sbertconv.layers.output import SentenceEmbedding
from sbertconv.layers.pooling import Pooling
from sbertconv.layers.words import BoW, StaticEmbedding, WordWeights

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
# Sums over a sequence and lengths of vectors lose too much in half precision; inputs compute nothing.
IN_FLOAT32 = (
    Pooling, SentenceEmbedding, BoW, StaticEmbedding, WordWeights, keras.layers.UnitNormalization,
    keras.layers.InputLayer,
)  # fmt: skip


def set_dtype_policy(model: keras.Model, policy: str) -> None:
    """Let a converted model compute in half precision from now on; its weights and its embeddings stay float32.

    Call it before `compile`, which scales the loss of a "mixed_float16" model. Pooling, normalisation and tables of
    words stay in float32, and so does a quantized layer. The policy of every layer is saved with the model.

    Args:
        model: a converted model, or a model that holds one.
        policy: "mixed_bfloat16", "mixed_float16", or "float32" to go back.

    Raises:
        UnsupportedOptionError: for another policy: it would ask for other weights than the model has.
    """
    if policy not in POLICIES:
        raise UnsupportedOptionError(
            f"dtype policy {policy!r} is not supported (have: {', '.join(POLICIES)}).\nChoose one of these."
        )
    for layer in _computing(model):
        if getattr(layer, "quantization_mode", None) is None:
            layer.dtype_policy = policy
    model.train_function = model.test_function = model.predict_function = None  # compiled for the old policy


def _computing(layer: Any) -> Iterator[Any]:
    """A layer and every layer in it, without those that stay in float32."""
    if not isinstance(layer, IN_FLOAT32):
        yield layer
        for part in layers_of(layer):
            yield from _computing(part)
