"""The converters of each backend, one file per module type.

A converter is a plain function `convert_<type>(module, context) -> step`; a step takes and returns
features, a dict of the backend's own tensors under sentence-transformers' names ("input_ids",
"token_embeddings", "sentence_embedding", ...).
"""

from __future__ import annotations

from sbertconv.errors import SbertconvError
from sbertconv.plan.context import Context, Converter, Features, Step
from sbertconv.plan.registry import Registry

ENTRY_POINT_GROUP = "sbertconv.converters"

__all__ = ["Context", "Converter", "Features", "Step", "default_registry"]


def default_registry() -> Registry:
    """A new registry with the built-in converters and those of installed plugins.

    Plugins name a function `register(registry)` in the entry point group `sbertconv.converters`.

    Raises:
        SbertconvError: if a plugin cannot be imported or its `register` fails, with the plugin's name; of the
            same type as the plugin's own error if that is one.
    """
    from importlib.metadata import entry_points

    from sbertconv.converters import keras, onnx, torch

    registry = Registry()
    for backend in (onnx, keras, torch):
        backend.register(registry)
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry_point.load()(registry)
        except Exception as error:
            kind = type(error) if isinstance(error, SbertconvError) else SbertconvError
            raise kind(
                f"The converter plugin {entry_point.name!r} ({entry_point.value}) failed: {error}\n"
                "Fix or uninstall that package."
            ) from error
    return registry
