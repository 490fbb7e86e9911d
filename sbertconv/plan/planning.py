"""Source + registry -> Plan: what converts each module, or why nothing does; every gap at once, before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from sbertconv.errors import WAYS_OUT, SbertconvError, SourceError, UnsupportedModuleError
from sbertconv.plan.context import Context
from sbertconv.plan.examples import asked
from sbertconv.plan.images import describe_image
from sbertconv.plan.preprocessing import InputDescription, describe_input
from sbertconv.plan.registry import Registry
from sbertconv.plan.routes import DescribedRoute, PlannedRoute
from sbertconv.plan.sounds import describe_audio
from sbertconv.source.chain import ModuleSpec
from sbertconv.source.opening import Source, module_settings
from sbertconv.source.routes import Route, find_routes, live_modules
from sbertconv.source.tasks import check_tasks

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TRACED = "its traced forward"


@dataclass(frozen=True)
class PlanStep:
    """One module for one backend: converted by `by`, or `problem` says why not."""

    label: str
    name: str
    settings: Mapping[str, Any]
    by: str
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """The conversion of one model to one backend.

    Attributes:
        source: the model's name.
        backend: the backend's name.
        steps: one entry per module, nested modules of a router included.
        routes: one per graph; empty for a plan made without weights, or with gaps.
    """

    source: str
    backend: str
    steps: tuple[PlanStep, ...]
    routes: tuple[PlannedRoute, ...] = field(default=(), repr=False)

    @property
    def gaps(self) -> tuple[PlanStep, ...]:
        return tuple(step for step in self.steps if step.problem)

    def check(self) -> None:
        """Raise UnsupportedModuleError with every gap, if there is one."""
        if not self.gaps:
            return
        lines = [f"  [{step.label}] {step.name}: {step.problem}" for step in self.gaps]
        count = len(self.steps)
        raise UnsupportedModuleError(
            f"Cannot convert {self.source!r} to {self.backend!r}: "
            f"{len(self.gaps)} of {count} module{'s' if count > 1 else ''} "
            f"{'are' if len(self.gaps) > 1 else 'is'} unsupported.\n" + "\n".join(lines) + "\n"
            f"{WAYS_OUT}"
        )


def plan_files(source: Source, backend: str, registry: Registry) -> Plan:
    """The plan as far as the model's files tell; a module without a converter is traced when converting."""
    return Plan(source.name, backend, tuple(_plan_spec(spec, source, backend, registry) for spec in source.modules))


def _plan_spec(spec: ModuleSpec, source: Source, backend: str, registry: Registry) -> PlanStep:
    try:
        converter = registry.find(backend, source.resolve(spec))
    except SourceError as error:
        return PlanStep(spec.label, spec.type, spec.settings, "", str(error))
    by = converter.__name__ if converter else f"{TRACED} (tried when converting)"
    return PlanStep(spec.label, spec.name, spec.settings, by)


def plan_model(model: SentenceTransformer, name: str, backend: str, registry: Registry) -> Plan:
    """The plan for a loaded model: every converter has run.

    A gap is a module that neither converts nor traces, a setting that its converter refuses, or a tokenizer
    that cannot be reproduced.

    Raises:
        UnsupportedOptionError: for a model of which a task would choose the weights.
    """
    check_tasks(model)
    problems: dict[str, str] = {}
    routes = tuple(_described(route, model, problems) for route in find_routes(model))
    contexts = [Context.of(route, model, backend, registry) for route in routes]
    for route, context in zip(routes, contexts, strict=True):
        _convert_all(route, context, problems)
    steps = []
    for label, module in live_modules(model):
        converter = registry.find(backend, module)
        by = converter.__name__ if converter else TRACED
        steps.append(PlanStep(label, type(module).__name__, module_settings(module), by, problems.get(label, "")))
    planned = tuple(
        _planned(route, context, model) for route, context in zip(routes, contexts, strict=True) if not problems
    )
    return Plan(name, backend, tuple(steps), planned)


def _fields(route: Route) -> dict[str, Any]:
    return {entry.name: getattr(route, entry.name) for entry in fields(route)}


# Modality -> what describes the input of a module, under a prompt
INPUTS: dict[str, Callable[[Any, str | None], InputDescription]] = {
    "text": lambda module, prompt: describe_input(module),
    "image": lambda module, prompt: InputDescription(describe_image(module, prompt), {}),
    "audio": lambda module, prompt: describe_audio(module),
}


def described(route: Route, model: SentenceTransformer) -> DescribedRoute:
    """The route of a model with the description of its input.

    Raises:
        UnsupportedOptionError: for an input that cannot be reproduced.
    """
    prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
    described_input = INPUTS[route.modality](route.modules[0][1], prompt)
    found = DescribedRoute(**_fields(route), input=described_input, takes_prompt_length=False)
    if found.modality != "text" or not found.leaves_prompt_out:
        return found
    return replace(found, takes_prompt_length="prompt_length" in asked(found, model, "a prompt "))


def _described(route: Route, model: SentenceTransformer, problems: dict[str, str]) -> DescribedRoute:
    """The same; what cannot be described is a problem of the route's first module."""
    label = route.modules[0][0]
    try:
        return described(route, model)
    except SbertconvError as error:
        problems.setdefault(label, str(error))
        return DescribedRoute(**_fields(route), input=None, takes_prompt_length=False)


def _planned(route: DescribedRoute, context: Context, model: SentenceTransformer) -> PlannedRoute:
    """The route with its steps, which exist already: every converter has run."""
    return PlannedRoute(
        **_fields(route),
        steps=tuple(context.convert(module) for module in model.children()),
        converted={id(module): context.convert(module) for _, module in route.modules},
    )


def _convert_all(route: DescribedRoute, context: Context, problems: dict[str, str]) -> None:
    """Run every converter of a route."""
    for label, module in route.modules:
        try:
            context.convert(module)
        except SbertconvError as error:
            known = context.registry.find(context.backend, module)
            problems.setdefault(label, str(error) if known else f"no converter, and tracing it failed: {error}")
