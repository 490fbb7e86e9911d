"""The converters of each backend, one file per module type.

A converter is a plain function `convert_<type>(module, context) -> step`; a step takes and returns
features, a dict of the backend's own tensors under sentence-transformers' names ("input_ids",
"token_embeddings", "sentence_embedding", ...).
"""

from __future__ import annotations

from sbertconv.plan.context import Context, Converter, Features, Step
from sbertconv.plan.registry import Registry, register_plugins

ENTRY_POINT_GROUP = "sbertconv.converters"

__all__ = ["Context", "Converter", "Features", "Step", "default_registry"]


def default_registry() -> Registry:
    """A new registry with the built-in converters and those of installed plugins.

    Plugins name a function `register(registry)` in the entry point group `sbertconv.converters`.

    Raises:
        SbertconvError: if a plugin cannot be imported or its `register` fails, with the plugin's name; of the
            same type as the plugin's own error if that is one.
    """
    from sbertconv.converters import keras, onnx, torch

    registry = Registry()
    for backend in (onnx, keras, torch):
        backend.register(registry)
    register_plugins(ENTRY_POINT_GROUP, "converter", registry)
    return registry
