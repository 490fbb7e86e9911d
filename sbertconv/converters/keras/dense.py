"""Dense: a stock Dense, its activation mapped where Keras has the same one and traced where not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sbertconv.plan.context import Context, Features

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep

KERAS_ACTIVATIONS = {"Identity": "linear", "ReLU": "relu", "SiLU": "silu", "Sigmoid": "sigmoid", "Tanh": "tanh"}


def convert_dense(module: torch.nn.Module, context: Context) -> LayerStep:
    """Linear, activation and, with use_residual, the input (projected if the sizes differ) added at the end.

    Raises:
        UnsupportedModuleError: if an activation is neither mapped nor traceable.
    """
    from keras import layers

    from sbertconv.converters.keras.step import LayerStep

    name = context.name(module)
    activation = module.activation_function
    own = type(activation).__module__.startswith("torch.nn") and KERAS_ACTIVATIONS.get(type(activation).__name__)
    dense = _dense(module.linear, name, own or "linear")
    state = {"linear.": dense}
    traced = None if own else _traced(activation, module, name, context)
    if traced is not None:
        state["activation_function."] = traced
    if residual := getattr(module, "residual", None):
        state["residual."] = _dense(residual, f"{name}_residual", "linear")
    add = layers.Add(name=f"{name}_add") if module.use_residual else None

    def run(features: Features) -> Features:
        given = features[module.module_input_name]
        found = dense(given)
        if traced is not None:
            found = traced({"x": found})["y"]
        if add is not None:
            found = add([found, state["residual."](given) if "residual." in state else given])
        return {**features, module.module_output_name: found}

    return LayerStep(run, state)


def _dense(linear: torch.nn.Linear, name: str, activation: str) -> Any:
    from keras import layers

    from sbertconv.converters.keras.weights import build

    dense = layers.Dense(linear.out_features, activation, use_bias=linear.bias is not None, name=name)
    build(dense, (None, linear.in_features), linear.state_dict())
    return dense


def _traced(activation: Any, module: torch.nn.Module, name: str, context: Context) -> Any:
    """An activation that Keras does not have, as a layer on {"x": ...}."""
    import torch

    from sbertconv.converters.keras.tracing import traced_function

    with torch.no_grad():
        example = module.linear(context.walk.features(module)[module.module_input_name])
    return traced_function(activation, example, f"{name}_activation")
