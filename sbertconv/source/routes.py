"""The distinct ways through a chain: one for a plain model, one per route of a router, one per modality."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from sbertconv.artifact.graph_inputs import GRIDDED, PATCHED
from sbertconv.artifact.scoring import TASKS, ScoringRule
from sbertconv.errors import UnsupportedOptionError
from sbertconv.source.st_compat import resolved_route, skipped_ids

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


AnyRoute = TypeVar("AnyRoute", bound="Route")
MODALITIES = ("text", "image", "audio")
SOUNDS = ("input_features", "input_values")  # inputs of a graph: spectrograms or waves
NUMBERS = (*PATCHED, *SOUNDS)  # inputs of a graph that are no tokens
GROUPS, GRID = GRIDDED  # those of a graph that takes one image, of any number of tokens


MASK = "attention_mask"
# Input of a graph -> what its axes that vary are called, from the first on; of all others, the tokens'
AXES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(SOUNDS, ("batch", "samples")),
    **dict.fromkeys(PATCHED[1:], ("batch",)),
    GROUPS: ("groups",),
    GRID: (),
}
TOKENS = ("batch", "sequence")


def open_axes(name: str, axes: int, beside: Collection[str] = ()) -> dict[int, str]:
    """The axes of an input that vary, and what they are called: the batch, and the length of tokens and waves, which
    have two axes in all, or of the rows of a spectrogram, which have a mask.

    Args:
        name: of the input.
        axes: how many it has.
        beside: the names of all inputs of the graph.
    """
    if name in SOUNDS and MASK in beside:
        return dict(enumerate(TOKENS))
    names = AXES.get(name, TOKENS)
    return dict(enumerate(names[:1] if axes > len(names) else names[:axes]))


@dataclass(frozen=True)
class Route:
    """One way through the chain, which becomes one graph.

    Attributes:
        name: "text", "image", "audio", or the name of a router's route.
        modality: "text", "image" or "audio".
        tasks: the tasks that take this route; None stands for "no task given". Empty: every task.
        modules: label and module in order, the router replaced by the modules it chooses.
    """

    name: str
    modality: str
    tasks: tuple[str | None, ...]
    modules: tuple[tuple[str, Any], ...]

    @property
    def leaves_prompt_out(self) -> bool:
        """Whether a pooling leaves the prompt's tokens out, if the library counts them for it."""
        return not all(getattr(module, "include_prompt", True) for _, module in self.modules)

    @property
    def scoring_rules(self) -> tuple[ScoringRule, ...]:
        """The rule of each MultiVectorMask, in order."""
        modules = [module for _, module in self.modules]
        return tuple(
            ScoringRule.of(module, modules, skipped_ids(module))
            for module in modules
            if hasattr(module, "skiplist_tasks")
        )

    @property
    def architecture(self) -> str:
        """The transformers model type, or the input module's class."""
        module = self.modules[0][1]
        return str(getattr(getattr(module, "config", None), "model_type", type(module).__name__))


def live_modules(model: SentenceTransformer) -> Iterator[tuple[str, Any]]:
    """Label and module along the chain, routers followed by the modules of all their routes."""

    def walk(prefix: str, named: Any) -> Iterator[tuple[str, Any]]:
        for name, module in named:
            label = f"{prefix}{name}"
            yield label, module
            for route, nested in (getattr(module, "sub_modules", None) or {}).items():
                yield from walk(f"{label}.{route}.", nested.named_children())

    return walk("", model.named_children())


def modalities_of(model: SentenceTransformer) -> set[str]:
    """What a model takes, alone or together with something else, which the library lists as a tuple."""
    return {part for one in model.modalities for part in (one if isinstance(one, tuple) else (one,))}


def takes(module: Any, modality: str) -> bool:
    """Whether a module takes what the library has under a modality: a tokenizer beside a feature extractor stands for
    texts there, though the forward of the model names sounds or images and no ids.
    """
    entry = getattr(module, "modality_config", {}).get(modality)
    if modality != "text" or entry is None:
        return True
    names = inspect.signature(getattr(module.model, entry["method"])).parameters
    return "input_ids" in names or not any(name in names for name in NUMBERS)


def find_routes(model: SentenceTransformer) -> tuple[Route, ...]:
    """Every distinct way through the chain; the first one is what encode() takes by default.

    Raises:
        UnsupportedOptionError: if the model takes none of the modalities.
    """
    found: dict[tuple[str, tuple[str, ...]], Route] = {}
    routers = [module for _, module in live_modules(model) if hasattr(module, "sub_modules")]
    named = {name for router in routers for name in router.sub_modules}
    named |= {task for router in routers for task, _ in getattr(router, "route_mappings", ()) if task is not None}
    tasks = (None, *TASKS, *sorted(named - set(TASKS))) if named else (None,)
    for modality in MODALITIES:
        if modality not in model.modalities:
            continue
        for task in tasks:
            try:
                chosen, modules = _walk(model, task, modality)
            except ValueError:  # the router has no route for this task and modality
                continue
            if not takes(modules[0][1], modality):
                continue
            name = "_".join(chosen) or modality
            route = found.setdefault((modality, chosen), Route(name, modality, (), modules))
            if named:
                found[modality, chosen] = replace(route, tasks=(*route.tasks, task))
    if not found:
        raise UnsupportedOptionError(
            f"The model takes {', '.join(map(str, model.modalities))} (have: {', '.join(MODALITIES)}).\n"
            "Only models of texts, images and sounds are converted."
        )
    names = [route.name for route in found.values()]
    return tuple(
        route if names.count(route.name) == 1 else replace(route, name=f"{route.name}_{route.modality}")
        for route in found.values()
    )


def choose_route(routes: Sequence[AnyRoute], modality: str | None, task: str | None) -> AnyRoute:
    """The first route for this modality (None: any) and task.

    Raises:
        UnsupportedOptionError: if there is none.
    """
    for route in routes:
        if modality in (None, route.modality) and (not route.tasks or task in route.tasks):
            return route
    have = "; ".join(
        route.modality + (f" for the tasks {', '.join(map(str, route.tasks))}" if route.tasks else "")
        for route in routes
    )
    wanted = f"task {task!r}" if modality is None else f"modality {modality!r} and task {task!r}"
    raise UnsupportedOptionError(f"The model has no route for {wanted} (have: {have}).\nChoose one of these.")


def _walk(model: SentenceTransformer, task: str | None, modality: str) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The routers' choices and the modules along one route."""
    chosen: list[str] = []

    def along(prefix: str, named: Any) -> Iterator[tuple[str, Any]]:
        for name, module in named:
            label = f"{prefix}{name}"
            if hasattr(module, "sub_modules"):
                route = resolved_route(module, task, modality)
                chosen.append(route)
                yield from along(f"{label}.{route}.", module.sub_modules[route].named_children())
            else:
                yield label, module

    modules = tuple(along("", model.named_children()))
    return tuple(chosen), modules


def type_name(module_type: type | str) -> str:
    """The dotted name of a module class: `package.module.Class`."""
    return module_type if isinstance(module_type, str) else f"{module_type.__module__}.{module_type.__qualname__}"
