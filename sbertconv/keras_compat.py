"""Private names of Keras, each looked for before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sbertconv.frameworks import private


def layers_of(layer: Any) -> Iterator[Any]:
    """The layers that a layer or a model holds itself; its public `layers` leaves out those of a plain layer."""
    yield from private(layer, "_flatten_layers", "keras")(include_self=False, recursive=False)


def all_layers(model: Any) -> Iterator[Any]:
    """A model and every layer in it, at whatever depth."""
    yield from private(model, "_flatten_layers", "keras")()
