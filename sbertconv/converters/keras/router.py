"""Router: the modules of the route that the task and the modality choose, one model per route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbertconv.plan.context import Context, Features
from sbertconv.source.st_compat import resolved_route

if TYPE_CHECKING:
    import torch

    from sbertconv.converters.keras.step import LayerStep


def convert_router(module: torch.nn.Module, context: Context) -> LayerStep:
    """The steps of the route that the library itself resolves for the context's task and modality."""
    from sbertconv.converters.keras.step import LayerStep

    route = resolved_route(module, context.task, context.modality)
    steps = [context.convert(nested) for nested in module.sub_modules[route]]

    def run(features: Features) -> Features:
        for step in steps:
            features = step(features)
        return features

    return LayerStep(run)
