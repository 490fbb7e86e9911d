"""Router: the modules of the route that the task and the modality choose, one graph per route."""

from __future__ import annotations

import torch

from sbertconv.plan.context import Context, Features, Step
from sbertconv.source.st_compat import resolved_route


def convert_router(module: torch.nn.Module, context: Context) -> Step:
    """The steps of the route that the library itself resolves for the context's task and modality."""
    route = resolved_route(module, context.task, context.modality)
    return RouteStep(route, [context.convert(nested) for nested in module.sub_modules[route]])


class RouteStep(torch.nn.Module):
    """Steps one after the other."""

    def __init__(self, route: str, steps: list[Step]) -> None:
        super().__init__()
        self.route = route
        self.sub_modules = torch.nn.ModuleDict({route: torch.nn.ModuleList(steps)})

    def forward(self, features: Features) -> Features:
        for step in self.sub_modules[self.route]:
            features = step(features)
        return features
