"""The fallback: a module's own forward, traced alone on the features that reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_unknown(module: torch.nn.Module, context: Context) -> LayerStep:
    """A module without a converter of its own.

    Raises:
        UnsupportedModuleError: if it cannot be traced, or uses operations that the table does not have.
    """
    return traced_step(module, context)


def traced_step(
    module: torch.nn.Module, context: Context, inside: str = "", by: torch.nn.Module | None = None
) -> LayerStep:
    """The module as one traced layer; `inside` is left away in front of the paths of its parameters, and another
    module's forward may be traced in the place of its own.
    """
    from sbertconv.converters.keras.step import features_step
    from sbertconv.converters.keras.tracing import tensors_of, traced_layer
    from sbertconv.converters.traced import TracedStep

    features = context.walk.features(module)
    tensors = {name: features[name] for name in tensors_of(features)}
    options = {name: value for name, value in features.items() if name not in tensors}
    layer = traced_layer(
        TracedStep(by or module, context), tensors, context.name(module), f"module.module.{inside}", options
    )
    return features_step(layer, tuple(layer.graph["inputs"]), **{"": layer})
