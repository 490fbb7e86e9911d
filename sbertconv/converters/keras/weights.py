"""Which PyTorch tensor is which Keras variable: the one place that knows, for the way there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbertconv.errors import ArtifactError

NAMES: dict[str, Mapping[str, str]] = {  # stock layer -> PyTorch's name of a weight -> Keras' name
    "Dense": {"weight": "kernel", "bias": "bias"},
    "Conv1D": {"weight": "kernel", "bias": "bias"},
    "Embedding": {"weight": "embeddings"},
    "LayerNormalization": {"weight": "gamma", "bias": "beta"},
    "Dropout": {},
}
REVERSED = "kernel"  # Keras keeps [..., in, out], PyTorch [out, in, ...]


@dataclass(frozen=True)
class Weight:
    """One weight under PyTorch's name.

    Attributes:
        name: its key in the state_dict.
        layer: the Keras layer that holds it.
        attribute: under this name; empty for a variable of a layer of our own.
        variable: the variable itself.
    """

    name: str
    layer: Any
    attribute: str
    variable: Any

    @property
    def shape(self) -> list[int]:
        """In PyTorch's layout."""
        shape = list(self.variable.shape)
        return shape[::-1] if self.attribute == REVERSED else shape

    def read(self) -> np.ndarray:
        """The value in PyTorch's layout; of a LoRA layer the sum of kernel and update.

        Raises:
            ArtifactError: if the layer is quantized.
        """
        import keras

        if str(self.variable.dtype).startswith(("int", "uint")) and getattr(self.layer, "quantization_mode", None):
            raise ArtifactError(
                f"{self.layer.name} is quantized ({self.layer.quantization_mode}); its float weights are gone.\n"
                "Convert back before quantizing."
            )
        merged = getattr(self.layer, self.attribute) if self.attribute else self.variable
        array: np.ndarray = keras.ops.convert_to_numpy(merged)
        return np.ascontiguousarray(array.T) if self.attribute == REVERSED else array

    def write(self, array: np.ndarray) -> None:
        """Set the value, given in PyTorch's layout."""
        self.variable.assign(array.T if self.attribute == REVERSED else array)


def has_weights(layer: Any) -> bool:
    """Whether `weights` knows the layer's class."""
    return hasattr(layer, "state") or type(layer).__name__ in NAMES


def weights(layer: Any, prefix: str = "") -> Iterator[Weight]:
    """Every weight of a layer under its PyTorch name: a stock layer by the table, one of our own by its `state()`."""
    if hasattr(layer, "state"):
        for path, part in layer.state():
            if hasattr(part, "call"):
                yield from weights(part, f"{prefix}{path}.")
            else:
                yield Weight(f"{prefix}{path}", layer, "", part)
        return
    for theirs, ours in NAMES[type(layer).__name__].items():
        variable = getattr(layer, f"_{ours}", None)  # the plain variable where LoRA makes a property of the name
        variable = getattr(layer, ours, None) if variable is None else variable
        if variable is not None:
            yield Weight(f"{prefix}{theirs}", layer, ours, variable)


def build(layer: Any, shape: Any, tensors: Mapping[str, Any]) -> None:
    """Build a stock layer with PyTorch's tensors as its first values.

    Built with other values first, it would need its memory twice: TensorFlow keeps what it frees.
    """
    names = {theirs: ours for theirs, ours in NAMES[type(layer).__name__].items() if theirs in tensors}
    before = {ours: getattr(layer, f"{ours}_initializer") for ours in names.values()}
    for theirs, ours in names.items():
        setattr(layer, f"{ours}_initializer", _value(tensors[theirs], reverse=ours == REVERSED))
    try:
        layer.build(shape)
    finally:
        for ours, initializer in before.items():
            setattr(layer, f"{ours}_initializer", initializer)


def _value(tensor: Any, *, reverse: bool) -> Callable[..., Any]:
    """An initializer that gives this tensor."""

    def initializer(shape: Any, dtype: Any = None) -> Any:
        import keras

        array = tensor.detach().numpy()
        return keras.ops.convert_to_tensor(array.T if reverse else array, dtype=dtype)

    return initializer


def assign(layer: Any, tensors: Mapping[str, Any], prefix: str = "") -> None:
    """Copy PyTorch tensors, by their name in the state_dict, into a built layer."""
    for weight in weights(layer, prefix):
        weight.write(tensors[weight.name].detach().numpy())
