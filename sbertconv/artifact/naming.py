"""Tensors whose name in a graph's file is another than the one that the run time knows them by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from sbertconv.artifact.manifest import GraphSection
from sbertconv.errors import UnsupportedOptionError

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
KEYWORDS = {"inputs": "input_names", "outputs": "output_names"}


def in_graph(entry: Mapping[str, Any]) -> str:
    """The name of an input or output in the graph's file."""
    return str(entry.get("in_graph", entry["name"]))


def section_in_graph(section: GraphSection) -> GraphSection:
    """A manifest's graph with the names that its file has."""
    named = {key: [{**entry, "name": in_graph(entry)} for entry in cast(Any, section)[key]] for key in KEYWORDS}
    return cast(GraphSection, {**section, **named})


def by_own_names(run: Run, section: GraphSection) -> Run:
    """A graph that is called with the names in its file, called by the run time's instead."""
    inputs, outputs = ({entry["name"]: in_graph(entry) for entry in cast(Any, section)[key]} for key in KEYWORDS)
    if all(own == name for names in (inputs, outputs) for own, name in names.items()):
        return run
    back = {name: own for own, name in outputs.items()}

    def called(feeds: Arrays) -> Arrays:
        found = run({inputs[name]: array for name, array in feeds.items()})
        return {back.get(name, name): array for name, array in found.items()}

    return called


def renamed(section: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A manifest's graph whose file gets other names: those that are named come first, in their order.

    Args:
        section: an entry of the manifest's graphs.
        names: "inputs" and "outputs" -> like "input_ids=ids"; "input_ids=input_ids" only says the place.

    Raises:
        UnsupportedOptionError: for a name that is not there, said twice, or would be there twice.
    """
    found = dict(section)
    for key, said in names.items():
        entries = {entry["name"]: dict(entry) for entry in section[key]}
        asked = dict(pairs(said, KEYWORDS[key], entries))
        ordered = [entries[name] for name in dict.fromkeys([*asked, *entries])]
        for entry in ordered:
            if (new := asked.get(entry["name"], in_graph(entry))) != entry["name"]:
                entry["in_graph"] = new
            else:
                entry.pop("in_graph", None)
        found[key] = ordered
    given = [in_graph(entry) for key in KEYWORDS for entry in found[key]]
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise UnsupportedOptionError(
            f"{', '.join(twice)}: would be the name of two tensors of {section['name']}.\nChoose another name."
        )
    return found


def pairs(said: Sequence[str], option: str, known: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Like "a=b" -> a, b."""
    seen: set[str] = set()
    for text in said:
        old, mark, new = text.partition("=")
        if not mark or not new or old not in known or old in seen:
            raise UnsupportedOptionError(
                f"{option}=[{text!r}]: not like old=new, each old name once (have: {', '.join(known)}).\n"
                f"Pass {option}=['{next(iter(known))}=new']."
            )
        seen.add(old)
        yield old, new
