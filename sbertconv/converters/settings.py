"""What a manifest says because of its model: a conversion writes it, and `verify` compares it with the model again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from sbertconv.artifact.folder import Artifact
from sbertconv.plan.outputs import OUTPUTS
from sbertconv.plan.planning import described
from sbertconv.plan.routes import DescribedRoute
from sbertconv.source.opening import Source
from sbertconv.source.routes import find_routes, live_modules

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ABSENT = object()  # of a key, where one of two sides has it


def model_settings(
    source: Source, model: SentenceTransformer, architecture: str, graphs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The manifest's keys that come from the model as a whole.

    Args:
        source: what was opened.
        model: the loaded model.
        architecture: of its default route.
        graphs: the manifest's entries, the default route first.
    """
    tokenizer = graphs[0]["tokenizer"] or {}
    return {
        "architecture": architecture,
        "chain": [type(module).__name__ for _, module in live_modules(model)],
        **({"pooling": source.pooling} if source.pooling else {}),
        "max_seq_length": tokenizer.get("max_length"),
        "padding_side": tokenizer.get("padding_side"),
        "do_lower_case": tokenizer.get("do_lower_case", False),
        "prompts": dict(model.prompts),
        "default_prompt_name": model.default_prompt_name,
        **OUTPUTS[source.model_class.name].content(model, graphs),
    }


def route_settings(route: DescribedRoute, tokenizer: Mapping[str, Any] | None) -> dict[str, Any]:
    """The keys of a graph's entry that come from the model, with the tokenizer's section as it was written."""
    return {
        "name": route.name,
        "modality": route.modality,
        "tasks": list(route.tasks),
        "tokenizer": tokenizer,
        "image": dict(route.input.section) if route.modality == "image" and route.input else None,
        **({route.input.entry: dict(route.input.section)} if route.modality == "audio" and route.input else {}),
    }


def other_settings(source: Source, model: SentenceTransformer, artifact: Artifact) -> list[str]:
    """Compare a manifest with what a conversion of the model would write now, as far as it comes from the model.

    Args:
        source: what was opened.
        model: the loaded model.
        artifact: the converted folder.

    Returns:
        A line for every key that differs.

    Raises:
        UnsupportedOptionError: if the model's input cannot be described.
    """
    routes, graphs = [described(route, model) for route in find_routes(model)], artifact.manifest["graphs"]
    found = []
    if len(routes) != len(graphs):
        found.append(f"graphs: {len(graphs)}, and the model has {len(routes)}")
    pairs = [(_entry(route, graph), graph) for route, graph in zip(routes, graphs, strict=False)]
    written = [{**entry, "outputs": graph["outputs"]} for entry, graph in pairs]
    expected = model_settings(source, model, routes[0].architecture, written)
    found += _differences("", expected, artifact.manifest)
    for index, (entry, graph) in enumerate(pairs):
        found += _differences(f"graphs[{index}].", entry, graph)
    return found


def _entry(route: DescribedRoute, graph: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a route, whose tokenizer lies where the manifest says."""
    section = None
    if route.modality == "text" and route.input is not None:
        section = {**route.input.section, "file": (graph["tokenizer"] or {}).get("file")}
    return route_settings(route, section)


def _differences(place: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """A line for every key of the model that a manifest has otherwise, or not at all."""
    for key, value in msgspec.to_builtins(ours, enc_hook=str).items():
        found: Any = theirs.get(key, ABSENT)
        if isinstance(value, dict) and isinstance(found, Mapping) and key != "prompts":
            yield from _differences(f"{place}{key}.", value, found)
        elif found is ABSENT:
            yield f"{place}{key}: missing, and the model's is {value!r:.100}"
        elif found != value:
            yield f"{place}{key}: {found!r:.100}, and the model's is {value!r:.100}"
