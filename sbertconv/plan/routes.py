"""Routes as planning completes them: with the description of their input, and with their steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sbertconv.artifact.scoring import IS_QUERY
from sbertconv.plan.context import Step
from sbertconv.plan.preprocessing import InputDescription
from sbertconv.source.routes import Route


@dataclass(frozen=True)
class DescribedRoute(Route):
    """A route and its input.

    Attributes:
        input: how a text or a sound becomes tensors; None for images, and for what cannot be reproduced.
    """

    input: InputDescription | None

    @property
    def wave(self) -> Mapping[str, Any] | None:
        """How a sound becomes the samples that the route takes; None for a route of anything else."""
        return self.input.section if self.input is not None and self.input.entry == "wave" else None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that the route's first module takes, in the tokenizer's order, then the numbers given once for
        each text: the length of its prompt, and whether it is a query.
        """
        names = ("pixel_values",) if self.input is None else tuple(self.input.section["tensors"])
        tells_queries = any(rule.tells_queries for rule in self.scoring_rules)
        return (
            *names,
            *(["prompt_length"] if self.takes_prompt_length else []),
            *([IS_QUERY] if tells_queries else []),
        )


@dataclass(frozen=True)
class PlannedRoute(DescribedRoute):
    """A route of which every module has a step.

    Attributes:
        steps: the top-level steps, in order.
        converted: id of each module of the route -> its step.
    """

    steps: tuple[Step, ...]
    converted: Mapping[int, Step]
