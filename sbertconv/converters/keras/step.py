"""What a converter of this backend returns: Keras layers, how features run through them, and what their weights
are called in the PyTorch module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sbertconv.plan.context import Features

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class LayerStep:
    """One module as Keras layers.

    Attributes:
        run: features -> features, on the backend's tensors.
        state: prefix of a layer's weights in the module's state_dict -> layer.
    """

    run: Callable[[Features], Features]
    state: Mapping[str, keras.layers.Layer] = field(default_factory=dict)

    def __call__(self, features: Features) -> Features:
        return self.run(features)


def layer_step(
    layer: keras.layers.Layer, takes: str, gives: str | None = None, **state: keras.layers.Layer
) -> LayerStep:
    """A layer on one feature; without that feature it does nothing, as in sentence-transformers."""

    def run(features: Features) -> Features:
        return {**features, gives or takes: layer(features[takes])} if takes in features else features

    return LayerStep(run, state)


def features_step(
    layer: keras.layers.Layer, takes: tuple[str, ...], gives: str = "", **state: keras.layers.Layer
) -> LayerStep:
    """A layer on a dict of those features that are there; its result is one feature, or a dict of them."""

    def run(features: Features) -> Features:
        found = layer({name: features[name] for name in takes if name in features})
        return {**features, **({gives: found} if gives else found)}

    return LayerStep(run, state)
