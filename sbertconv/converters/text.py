"""A model that takes texts: its tokenizer as tables, proven in the graph that will run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sbertconv.artifact.text_input import problems
from sbertconv.plan.planning import Plan
from sbertconv.plan.preprocessing import InputDescription
from sbertconv.text import GraphTokenizer, TokenizerSettings, compile_tokenizer, prove
from sbertconv.text.components import refuse
from sbertconv.text.proof import Tokenize

Build = Callable[[GraphTokenizer], tuple[Tokenize, Mapping[str, Any]]]  # what runs the tables, and what to say of it


@dataclass(frozen=True)
class TextTables:
    """A route's tokenizer as tables.

    Attributes:
        tables: what runs in a graph.
        described: what the manifest says of them.
    """

    tables: GraphTokenizer
    described: Mapping[str, Any]

    @classmethod
    def of(cls, described: InputDescription, pair: bool, build: Build) -> TextTables:
        """Compile and prove, for single texts or for pairs.

        Raises:
            UnsupportedOptionError: naming every component of the tokenizer that is not known.
            TokenizationError: if one token differs.
        """
        settings = TokenizerSettings.of(described.section, pair)
        refused = problems(described.section)
        if described.section["kind"] != "fast":
            refuse(refused)
        tokenizer_json = described.files[described.section["file"]]
        tables = compile_tokenizer(tokenizer_json, settings, refused)
        run, size = build(tables)
        return cls(tables, {**prove(run, tokenizer_json, settings, tables).to_json(), **size})

    def section(self, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What a graph's entry in the manifest says instead, given the inputs without the tokenizer."""
        settings = self.tables.framing.settings
        kept = [entry for entry in inputs if entry["name"] not in settings.tensors]
        integers = next(entry["dtype"] for entry in inputs if entry["name"] in settings.tensors)
        own = [
            {"name": name, "dtype": "string" if dtype == "string" else integers, "shape": ["batch"]}
            for name, dtype in settings.inputs.items()
        ]
        return {"inputs": [*own, *kept], "text": dict(self.described)}


def text_tables(plan: Plan, wanted: bool, pair: bool, build: Build) -> dict[str, TextTables]:
    """Route -> its tokenizer as tables, for every route for texts if they are wanted; `pair`: of two texts each."""
    if not wanted:
        return {}
    return {
        route.name: TextTables.of(route.input, pair, build)
        for route in plan.routes
        if route.input and route.modality == "text"
    }
