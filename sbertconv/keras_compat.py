"""Private names of Keras, each looked for before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sbertconv.frameworks import private


def named(name: str, module: str, is_function: bool) -> Any:
    """Whatever Keras finds where a .keras file names something of its own.

    Raises:
        Exception: as Keras, if it finds nothing.
    """
    from keras.src.saving import serialization_lib

    find = private(serialization_lib, "_retrieve_class_or_fn", "keras")
    return find(name, None, module, "function" if is_function else "class", {}, {})


def layers_of(layer: Any) -> Iterator[Any]:
    """The layers that a layer or a model holds itself; its public `layers` leaves out those of a plain layer."""
    yield from private(layer, "_flatten_layers", "keras")(include_self=False, recursive=False)


def all_layers(model: Any) -> Iterator[Any]:
    """A model and every layer in it, at whatever depth."""
    yield from private(model, "_flatten_layers", "keras")()
