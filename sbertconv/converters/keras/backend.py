"""Assembles the steps of a route into one Keras model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from sbertconv.artifact.graph_inputs import PATCHED, PER_TEXT, PIXELS
from sbertconv.artifact.kinds import ACTIVATIONS, NORMALIZES, ModelClass
from sbertconv.converters.keras.formats import FORMATS
from sbertconv.converters.text import TextTables
from sbertconv.errors import UnsupportedOptionError
from sbertconv.frameworks import import_keras, import_tensorflow
from sbertconv.options import KerasOptions
from sbertconv.plan.examples import tensor_shape
from sbertconv.plan.outputs import OUTPUTS, activation_name
from sbertconv.plan.routes import PlannedRoute
from sbertconv.source.kinds import class_of
from sbertconv.source.routes import NUMBERS, open_axes

if TYPE_CHECKING:
    import keras
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True, kw_only=True)
class KerasSettings(KerasOptions):
    """The options of a Keras artifact, with what they leave open decided.

    Attributes:
        outputs: names of outputs that the model's class has.
    """

    outputs: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise an error for a format that the installed packages cannot write, or that takes no strings."""
        import_keras()
        if self.text_input:
            import_tensorflow(["text_input=True"])
            if without := [name for name in self.formats if not FORMATS[name].takes_text]:
                have = ", ".join(name for name, form in FORMATS.items() if form.takes_text)
                raise UnsupportedOptionError(
                    f"text_input=True: {', '.join(without)} has no operations on strings (have: {have}).\n"
                    "Leave that out of formats=; for ONNX, convert with sbertconv to-onnx --text-input."
                )
        if needing := [name for name in self.formats if FORMATS[name].needs_tensorflow]:
            import_tensorflow(needing)

    def of(self, model_class: ModelClass) -> KerasSettings:
        """The settings for a class of models, its outputs chosen.

        Raises:
            UnsupportedOptionError: for an option that does not fit the class.
        """
        if self.text_input:
            model_class.check_text_input()
        return replace(self, outputs=model_class.choose_outputs(None, self.activation))


def build_model(
    route: PlannedRoute, model: SentenceTransformer, outputs: Sequence[str], text: TextTables | None = None
) -> keras.Model:
    """The route as a functional model: a dict of named inputs -> an output of the model's class, float32 [batch, dim or
    labels], or where there are several a dict of them. With a tokenizer's tables, `text` takes the place of the tensors
    that these give.
    """
    keras = import_keras()
    from sbertconv.layers import ImageTokens, NamedModel, SentenceEmbedding

    inputs = {
        name: keras.Input(shape=shape[1:], batch_size=None, dtype=dtype, name=name)
        for name, dtype, shape in input_specs(route)
    }
    features: dict[str, Any] = dict(inputs)
    if text is not None:
        from sbertconv.layers import TextInput

        settings = text.tables.framing.settings
        taken = {
            name: keras.Input(shape=(), dtype="string" if dtype == "string" else "int32", name=name)
            for name, dtype in settings.inputs.items()
        }
        layer = TextInput(settings.tensors, text.tables, name="tokenizer")
        features |= layer(taken)
        inputs = taken | {name: tensor for name, tensor in inputs.items() if name not in settings.tensors}
    if route.tokens:
        features |= ImageTokens(route.tokens, name="image_tokens")(features[PIXELS])
    for step in route.steps:
        features = step(features)
    model_class = class_of(model)
    assert model_class is not None
    outputs_of = OUTPUTS[model_class.name].outputs
    first, *others = outputs
    feature = outputs_of[first].feature
    if feature not in features:
        raise UnsupportedOptionError(f"The chain gives no {feature} (has: {', '.join(features)}).\nAdd a Pooling.")
    cuts: dict[str, Any] = {cut: getattr(model, cut, None) for cut in ("truncate_dim", "max_active_dims")}
    cuts["normalized"] = getattr(model, NORMALIZES, False)
    found = {first: SentenceEmbedding(**cuts, name=first)(features[feature])}
    for name in others:
        other = features[outputs_of[name].feature]
        found[name] = activated(model, found[first]) if name == "scores" else keras.layers.Identity(name=name)(other)
    return NamedModel(inputs, found if len(found) > 1 else found[first], name=route.name)


def activated(model: Any, logits: Any) -> Any:
    """The model's activation of its logits, in float32: Keras' own of that name, or traced."""
    from keras import layers

    from sbertconv.converters.keras.tracing import traced_function

    name = activation_name(model.activation_fn)
    if name in ACTIVATIONS:
        known = "linear" if name == "identity" else name
        return layers.Activation(known, name="scores", dtype="float32")(logits)
    layer = traced_function(model.activation_fn, torch.zeros(3, model.num_labels), "scores")
    return layer({"x": logits})["y"]


def input_specs(route: PlannedRoute) -> list[tuple[str, str, tuple[Any, ...]]]:
    """Name, dtype and shape of each input; None for batch and sequence."""
    specs: list[tuple[str, str, tuple[Any, ...]]] = []
    for name in route.inputs:
        if name in NUMBERS:
            dtype = "int32" if name in PATCHED[1:] else "float32"
            specs.append((name, dtype, (None, *tensor_shape(route, name))))
        else:
            specs.append((name, "int32", (None,) if name in PER_TEXT else (None, None)))
    return specs


def describe_inputs(route: PlannedRoute) -> list[dict[str, Any]]:
    """The manifest's entries: name, dtype, shape with names for what varies."""
    return [
        {"name": name, "dtype": dtype, "shape": _named(name, shape, route.inputs)}
        for name, dtype, shape in input_specs(route)
    ]


def describe_outputs(model: keras.Model, name: str) -> list[dict[str, Any]]:
    """The same of what a model gives; `name` is that of a single output."""
    outputs = model.output if isinstance(model.output, dict) else {name: model.output}
    return [
        {"name": key, "dtype": tensor.dtype, "shape": _named(key, (None, *tensor.shape[1:]))}
        for key, tensor in outputs.items()
    ]


def _named(name: str, shape: Sequence[int | None], beside: Collection[str] = ()) -> list[int | str]:
    return [size or open_axes(name, 2, beside)[axis] for axis, size in enumerate(shape)]
