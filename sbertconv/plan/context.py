"""The types that converters of every backend share: features, steps, and the context of a conversion."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from sbertconv.plan.examples import Walk
    from sbertconv.plan.registry import Registry
    from sbertconv.plan.routes import DescribedRoute


Features = dict[str, Any]
Step = Callable[[Features], Features]
Converter = Callable[["torch.nn.Module", "Context"], Step]


@dataclass(frozen=True)
class Context:
    """What a converter may need beside its module.

    Attributes:
        backend: the backend's name, e.g. "onnx".
        registry: where converters of nested modules are found.
        task: the task whose route is converted ("query", "document", ...), or None.
        modality: what the route takes: "text" or "image".
        walk: the route's modules, and the features that reach each of them.
    """

    backend: str
    registry: Registry
    task: str | None
    modality: str
    walk: Walk
    _steps: dict[int, Step] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, route: DescribedRoute, model: SentenceTransformer, backend: str, registry: Registry) -> Context:
        """The context of a route, under the first of its tasks."""
        from sbertconv.plan.examples import Walk

        return cls(backend, registry, route.tasks[0] if route.tasks else None, route.modality, Walk(route, model))

    def convert(self, module: torch.nn.Module) -> Step:
        """The step for a module, made once: its own converter's, or its traced forward."""
        if id(module) not in self._steps:
            converter = self.registry.find(self.backend, module) or self.registry.fallback(self.backend)
            self._steps[id(module)] = converter(module, self)
        return self._steps[id(module)]

    @property
    def modules(self) -> list[Any]:
        """The modules of the route, in order."""
        return [found for _, found in self.walk.route.modules]

    def around(self, module: torch.nn.Module) -> tuple[list[Any], list[Any]]:
        """The modules of the route before and behind one of them."""
        place = next(place for place, found in enumerate(self.modules) if found is module)
        return self.modules[:place], self.modules[place + 1 :]

    def name(self, module: torch.nn.Module) -> str:
        """The module's class in snake case, numbered from the second of its kind in the route."""
        kind = type(module).__name__
        before = [type(found).__name__ for found in self.around(module)[0]].count(kind)
        snake = re.sub(r"(?<=[A-Za-z0-9])(?=[A-Z][a-z])", "_", kind).lower()
        return f"{snake}_{before}" if before else snake
