"""Whitening as a sentence-transformers module, and how sbertconv converts it.

The module computes in double precision with numpy, which torch.export cannot trace. The converters say the same
arithmetic in torch operations for ONNX and PyTorch and as a stock Dense for Keras, and the parity check of every
conversion proves that they do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import Module

from sbertconv import Context, Registry
from sbertconv.converters.keras.step import LayerStep, layer_step

WEIGHTS = "whiten.npz"


class Whiten(Module):
    """(embedding - mean) @ matrix: removes the mean and the correlations between dimensions."""

    def __init__(self, mean: np.ndarray, matrix: np.ndarray) -> None:
        super().__init__()
        self.mean = np.asarray(mean, np.float64)
        self.matrix = np.asarray(matrix, np.float64)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Replace the sentence embedding [batch, dim] by the whitened one [batch, new dim]."""
        embedding = features["sentence_embedding"]
        whitened = (embedding.numpy(force=True).astype(np.float64) - self.mean) @ self.matrix
        features["sentence_embedding"] = torch.from_numpy(whitened).to(embedding)
        return features

    def get_embedding_dimension(self) -> int:
        """The number of columns that are kept."""
        return int(self.matrix.shape[1])

    def get_config_dict(self) -> dict[str, Any]:
        """The shape; the numbers are in whiten.npz."""
        return {"in_features": int(self.matrix.shape[0]), "out_features": int(self.matrix.shape[1])}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write config.json and whiten.npz."""
        folder = Path(output_path)
        (folder / self.config_file_name).write_text(json.dumps(self.get_config_dict(), indent=2), encoding="utf-8")
        np.savez(folder / WEIGHTS, mean=self.mean, matrix=self.matrix)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Whiten:
        """Read what `save` wrote, from a folder or the Hub."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        options = {name: kwargs[name] for name in names if name in kwargs}
        path = cls.load_file_path(model_name_or_path, filename=WEIGHTS, subfolder=subfolder, **options)
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["mean"], arrays["matrix"])


class WhitenStep(torch.nn.Module):
    """The same arithmetic in operations that can be traced."""

    def __init__(self, mean: np.ndarray, matrix: np.ndarray) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.from_numpy(mean), requires_grad=False)
        self.matrix = torch.nn.Parameter(torch.from_numpy(matrix), requires_grad=False)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Features in, features out, as every step."""
        embedding = features["sentence_embedding"]
        whitened = (embedding.to(self.mean.dtype) - self.mean) @ self.matrix
        return {**features, "sentence_embedding": whitened.to(embedding.dtype)}


def convert_whiten(module: Whiten, context: Context) -> WhitenStep:
    """A converter: the module and its context in, a step out."""
    return WhitenStep(module.mean, module.matrix)


def convert_whiten_to_keras(module: Whiten, context: Context) -> LayerStep:
    """The same for Keras. A stock layer, so that loading the written model needs nothing of this package."""
    from keras import layers

    size, kept = module.matrix.shape
    layer = layers.Dense(kept, name=context.name(module), trainable=False)
    layer.build((None, size))
    layer.set_weights([module.matrix, -module.mean @ module.matrix])
    return layer_step(layer, "sentence_embedding")


def register(registry: Registry) -> None:
    """What the entry point names."""
    registry.add("onnx", Whiten, convert_whiten)
    registry.add("torch", Whiten, convert_whiten)
    registry.add("keras", Whiten, convert_whiten_to_keras)
