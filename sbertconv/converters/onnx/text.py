"""A graph that takes texts: the model's tokenizer, proven and put before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sbertconv.preprocessing import InputDescription
from sbertconv.text import Settings, TextTokenizer, compile_tokenizer, prove
from sbertconv.text.onnx_graph import TEXT, put_before, session_runner, tokenizer_graph

if TYPE_CHECKING:
    import onnx_ir


@dataclass(frozen=True)
class TextTables:
    """A route's tokenizer as tables.

    Attributes:
        tables: what runs in a graph.
        described: what the manifest says of them.
    """

    tables: TextTokenizer
    described: Mapping[str, Any]

    @classmethod
    def of(cls, described: InputDescription) -> TextTables:
        """Compile and prove.

        Raises:
            UnsupportedOptionError: naming every component of the tokenizer that is not known.
            TokenizationError: if one token differs.
        """
        settings = Settings.of(described.section)
        tokenizer_json = described.files[described.section["file"]]
        tables = compile_tokenizer(tokenizer_json, settings)
        graph = tokenizer_graph(tables)
        written = graph.SerializeToString()
        proof = prove(session_runner(written), tokenizer_json, settings, tables)
        return cls(tables, {**proof.to_json(), "nodes": len(graph.graph.node), "bytes": len(written)})

    def put_into(self, model: onnx_ir.Model, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Change the graph; returns what its entry in the manifest says instead."""
        put_before(model, self.tables)
        kept = [entry for entry in inputs if entry["name"] not in self.tables.framing.settings.tensors]
        text = {"name": TEXT, "dtype": "string", "shape": ["batch"]}
        return {"inputs": [text, *kept], "text": dict(self.described)}
