"""A row of the table of consumers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.publishing import Staging

SENTENCE, TOKENS, HIDDEN = "sentence_embedding", "token_embeddings", "last_hidden_state"
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Manifest = Mapping[str, Any]
Check = Callable[[Manifest], list[str]]


@dataclass(frozen=True)
class Consumer:
    """One software.

    Attributes:
        name: what the user calls it.
        reads: its files and its output, in words.
        refuses: manifest -> why its answers would be wrong, each with the way out.
        layout: artifact, staging -> what is written besides the artifact's own files.
        read: packed folder, one batch of texts (pairs, for rerankers) -> the answers that it gives.
        over_limit: whether it cuts a text over the limit as encode() does; else only shorter ones are proven.
        hidden: the meaning of the output `last_hidden_state` that its layout writes into the graph, empty: it leaves
            the graph as it is. A folder has one.
        searched: the file name that it looks for in all of the folder, to take the first as the disk lists them: each
            must give the same; empty: it opens one path.
        form: the format that it opens.
        outputs: what a conversion for it writes first, in this order, unless outputs are asked for.
        precisions: precision -> its file, where it chooses among several in one folder; the folder's own is the first.
        variant: a folder in another precision, staging, file -> that is written for it too.
        gate: the precision whose quality gate its answers are held to, on some sentences; empty: they are equal.
        expected: model, one batch -> what it gives, where that is not what the folder gives; `reads` says so.
        model_class: the class of models that it opens in this way; a name has a row for each that it can.
    """

    name: str
    reads: str
    refuses: Callable[[Manifest], list[str]]
    layout: Callable[[Artifact, Staging], None]
    read: Callable[[Path, Sequence[Any]], Any]
    over_limit: bool = True
    hidden: str = ""
    searched: str = ""
    form: str = "onnx"
    model_class: str = "SentenceTransformer"
    outputs: tuple[str, ...] = ()
    precisions: Mapping[str, str] = field(default_factory=dict)
    variant: Callable[[Artifact, Staging, str], None] | None = None
    gate: str = ""
    expected: Callable[[Any, list[Any]], Sequence[Any]] | None = None


def as_it_is(artifact: Artifact, staging: Staging) -> None:
    """The artifact's own files are what is read."""
