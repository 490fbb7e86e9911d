"""Routes as planning completes them: with the description of their input, and with their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sbertconv.artifact.graph_inputs import input_names
from sbertconv.artifact.scoring import IS_QUERY
from sbertconv.plan.context import Step
from sbertconv.plan.preprocessing import InputDescription
from sbertconv.plan.sounds import samples_of_rows
from sbertconv.source.routes import Route


@dataclass(frozen=True)
class Places:
    """The places of a sound of any length in a graph: its samples, or the rows of its spectrogram.

    Attributes:
        fewest: that the model takes.
        first: samples of a sound of one place.
        step: samples of each further one.
    """

    fewest: int
    first: int
    step: int

    def samples(self, places: int) -> int:
        """The samples of a sound of so many places."""
        return self.first + self.step * (places - 1)


@dataclass(frozen=True)
class DescribedRoute(Route):
    """A route and its input.

    Attributes:
        input: how a text, an image or a sound becomes tensors; None for what cannot be reproduced.
        takes_prompt_length: whether a pooling leaves out the tokens of a prompt, which the library counts for it.
    """

    input: InputDescription | None
    takes_prompt_length: bool

    @property
    def wave(self) -> Mapping[str, Any] | None:
        """How a sound becomes the samples that the route takes; None for a route of anything else."""
        return self.input.section if self.input is not None and self.input.entry == "wave" else None

    @property
    def places(self) -> Places | None:
        """The places of a sound of any length; None for a route of anything else."""
        section = {} if self.input is None else self.input.section
        shortest = (self.wave or section.get("rows") or {}).get("shortest")
        if shortest is None:
            return None
        first, step = samples_of_rows(section)
        return Places((shortest - first) // step + 1, first, step)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that the route's first module takes, in the tokenizer's order, then the numbers given once for
        each text: the length of its prompt, and whether it is a query.
        """
        section = {} if self.input is None else self.input.section
        names = tuple(section["tensors"]) if "tensors" in section else input_names(section)
        tells_queries = any(rule.tells_queries for rule in self.scoring_rules)
        return (
            *names,
            *(["prompt_length"] if self.takes_prompt_length else []),
            *([IS_QUERY] if tells_queries else []),
        )

    @property
    def tokens(self) -> Mapping[str, Sequence[int]]:
        """The tensors that the library gives the first module beside the pixels of every image, a row of each."""
        found: Mapping[str, Sequence[int]] = {} if self.input is None else self.input.section.get("tokens", {})
        return found


@dataclass(frozen=True)
class PlannedRoute(DescribedRoute):
    """A route of which every module has a step.

    Attributes:
        steps: the top-level steps, in order.
        converted: id of each module of the route -> its step.
    """

    steps: tuple[Step, ...]
    converted: Mapping[int, Step]
