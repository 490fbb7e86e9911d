"""The Keras layers that a converted model needs at load time. Imports keras, never torch or transformers.

import keras
import sbertconv.layers

model = keras.saving.load_model("keras/model.keras")
"""

from __future__ import annotations

from sbertconv.layers.images import ImageTokens
from sbertconv.layers.late_interaction import MultiVectorMask, maxsim
from sbertconv.layers.named import NamedModel
from sbertconv.layers.output import SentenceEmbedding
from sbertconv.layers.policy import set_dtype_policy
from sbertconv.layers.pooling import Pooling
from sbertconv.layers.sequence import CNN, LSTM, LSTMCell
from sbertconv.layers.sparse import SparseAutoEncoder, SparseStaticEmbedding, SpladePooling
from sbertconv.layers.text import TextInput
from sbertconv.layers.traced import Embedding, TracedModule
from sbertconv.layers.words import BoW, StaticEmbedding, WeightedLayerPooling, WordWeights

__all__ = [
    "CNN",
    "LSTM",
    "BoW",
    "Embedding",
    "ImageTokens",
    "LSTMCell",
    "MultiVectorMask",
    "NamedModel",
    "Pooling",
    "SentenceEmbedding",
    "SparseAutoEncoder",
    "SparseStaticEmbedding",
    "SpladePooling",
    "StaticEmbedding",
    "TextInput",
    "TracedModule",
    "WeightedLayerPooling",
    "WordWeights",
    "maxsim",
    "set_dtype_policy",
]
