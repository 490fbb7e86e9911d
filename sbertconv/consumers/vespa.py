"""Vespa's embedders: hugging-face-embedder, splade-embedder, colbert-embedder."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.manifest import not_null
from sbertconv.artifact.publishing import Staging
from sbertconv.artifact.scoring import IS_QUERY
from sbertconv.consumers.consumer import HIDDEN, SENTENCE, TOKEN_INPUTS, TOKENS, Consumer, Manifest
from sbertconv.consumers.graphs import graph_proto, one_token_of_logits, spread_layout, token_variant, write_variant
from sbertconv.consumers.reading import file_tokenizer, opened, run
from sbertconv.consumers.refusals import all_of, has_limit, has_output, no_default_prompt
from sbertconv.errors import UnsupportedOptionError

SERVICES = "vespa/services.xml"
SPLADE, COLBERT = "vespa/splade.onnx", "vespa/colbert.onnx"
SETTING = re.compile(r"<([\w-]+)>([^<]*)</")
GRAPH = re.compile(r'<transformer-model path="([^"]*)"')
MARKERS = {"query": 1, "document": 2}
PUNCTUATION = {*range(999, 1014), *range(1024, 1037), *range(1063, 1067)}  # numbers of BERT's, which it leaves out
SPECIAL = re.compile(r"(\[(?:PAD|UNK|CLS|SEP|MASK)\])|[" + re.escape(string.punctuation) + "]")


def write_services(staging: Staging, kind: str, graph: str, settings: dict[str, Any]) -> None:
    """The component of services.xml."""
    lines = [f"  <{name}>{value}</{name}>\n" for name, value in settings.items()]
    staging.write(
        SERVICES,
        f'<component id="sbertconv" type="{kind}">\n'
        f"  <transformer-model path={quoteattr(graph)}/>\n"
        '  <tokenizer-model path="tokenizer.json"/>\n' + "".join(lines) + "</component>\n",
    )


def services(folder: Path) -> tuple[Path, dict[str, str]]:
    """The graph that services.xml names, and its settings."""
    text = (folder / SERVICES).read_text(encoding="utf-8")
    (graph,) = GRAPH.findall(text)
    return folder / graph, dict(SETTING.findall(text))


def unpadded(folder: Path, limit: int) -> Any:
    """The tokenizer, cut at a limit."""
    tokenizer = file_tokenizer(folder)
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit, direction=tokenizer.truncation["direction"])
    return tokenizer


def vespa_layout(artifact: Artifact, staging: Staging) -> None:
    """The component of services.xml, beside the graph with the output that it pools."""
    spread_layout(artifact, staging)
    settings = {
        "max-tokens": artifact.limit,
        "transformer-output": HIDDEN,
        "pooling-strategy": "cls",
        "normalize": "false",
    }
    graph = artifact.manifest["graphs"][0]["formats"]["onnx"]
    write_services(staging, "hugging-face-embedder", graph, settings)


def read_vespa(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The first token of the output, text by text."""
    graph, said = services(folder)
    tokenizer = unpadded(folder, int(said["max-tokens"]))
    rows = [run(graph, [tokenizer.encode(text)], said["transformer-output"]) for text in texts]
    return np.concatenate([row[:, 0] for row in rows])


def splade_layout(artifact: Artifact, staging: Staging) -> None:
    """A graph of the three inputs that it always feeds, and of logits that its pooling makes the vector of again."""
    proto = graph_proto(artifact, staging, weights=True)
    one_token_of_logits(proto, artifact)
    write_variant(proto, staging, SPLADE, ["token_logits"], TOKEN_INPUTS)
    settings = {"max-tokens": artifact.limit, "transformer-output": "token_logits"}
    write_services(staging, "splade-embedder", SPLADE, {**settings, "term-score-threshold": 0.0})


def read_splade(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """log(1 + x) of the largest logit over the tokens that is positive, text by text."""
    graph, said = services(folder)
    tokenizer = unpadded(folder, int(said["max-tokens"]))
    rows = [run(graph, [tokenizer.encode(text)], said["transformer-output"]) for text in texts]
    weights = np.log1p(np.maximum(np.concatenate([row.max(axis=1) for row in rows]), 0))
    return np.asarray(np.where(weights > float(said["term-score-threshold"]), weights, 0))


def colbert_layout(artifact: Artifact, staging: Staging) -> None:
    """A graph of token ids and mask with the vectors of tokens, and the numbers of special tokens.

    Raises:
        UnsupportedOptionError: if the tokenizer does not begin and end a text with a token each, or the numbers that
            Vespa leaves out are no punctuation.
    """
    tokenizer = file_tokenizer(staging.folder)
    left_out = {tokenizer.id_to_token(number) for number in PUNCTUATION} - {None, *string.punctuation}
    first, *middle, last = tokenizer.encode("a", add_special_tokens=True).ids or [0, 0]
    if left_out or middle != tokenizer.encode("a", add_special_tokens=False).ids:
        raise UnsupportedOptionError(
            f"{artifact.folder}: Vespa takes BERT's numbers and special tokens for granted, and this tokenizer has "
            f"others.\nLeave the consumer out."
        )
    token_variant(artifact, staging, COLBERT)
    section = not_null(artifact.manifest["graphs"][0]["tokenizer"])
    limits = {task: section["task_max_length"].get(task, section["max_length"]) for task in MARKERS}
    expansion = not_null(section["query_expansion"])
    settings = {
        "max-tokens": max(filter(None, limits.values())),
        "max-query-tokens": expansion["length"],
        "max-document-tokens": limits["document"],
        "transformer-start-sequence-token": first,
        "transformer-end-sequence-token": last,
        "transformer-mask-token": expansion["token_id"],
        "transformer-output": TOKENS,
    }
    write_services(staging, "colbert-embedder", COLBERT, settings)


def read_colbert(folder: Path, texts: Sequence[tuple[str, str]]) -> list[np.ndarray]:
    """A marker behind the first token, a query filled up, a document without punctuation and its last vector."""
    graph, said = services(folder)
    tokenizer = unpadded(folder, int(said["max-tokens"]))
    number = {name: int(value) for name, value in said.items() if value.isdigit()}
    start, end, mask = (number[f"transformer-{name}-token"] for name in ("start-sequence", "end-sequence", "mask"))
    rows = []
    for task, text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        limit = number[f"max-{task}-tokens"]
        ids = [one for one in ids if task == "query" or one not in PUNCTUATION][: limit - 3]
        ids = [start, MARKERS[task], *ids, end]
        filled = [*ids, *[mask] * (limit - len(ids))] if task == "query" else ids
        fed = {"input_ids": filled, "attention_mask": [1] * len(ids) + [0] * (len(filled) - len(ids))}
        (found,) = opened(graph).run(
            [said["transformer-output"]], {name: np.array([row], np.int64) for name, row in fed.items()}
        )
        rows.append(found[0] if task == "query" else found[0, :-1])
    return rows


def expected_colbert(model: Any, batch: list[tuple[str, str]]) -> list[np.ndarray]:
    """Queries as they are; a document without the punctuation that is left out before, and its last vector."""
    ids = {sign: model.tokenize([sign])["input_ids"][0, 1] for sign in "!."}
    without = set(ids.values()) <= PUNCTUATION
    cleaned = [(task, SPECIAL.sub(r"\1 ", text) if without else text) for task, text in batch]
    return [
        model.encode_query(text) if task == "query" else model.encode_document(clean)[:-1]
        for (task, text), (_, clean) in zip(batch, cleaned, strict=True)
    ]


def expands_unattended(manifest: Manifest) -> Iterable[str]:
    expansion = manifest["graphs"][0]["tokenizer"]["query_expansion"]
    if expansion is None or expansion["attend"]:
        yield "fills queries up with tokens that are not attended to, and this model does not; use sbertconv.load."


def keeps_all_tokens(manifest: Manifest) -> Iterable[str]:
    if manifest["token_pooling"]:
        yield "keeps a vector for every token, and this model pools them; use sbertconv.load."


ROWS = (
    Consumer(
        "vespa",
        f"{SERVICES}: the graph's output {HIDDEN}, the sentence embedding at every token",
        all_of(no_default_prompt, has_limit, has_output(SENTENCE)),
        vespa_layout,
        read_vespa,
        hidden="sentence",
    ),
    Consumer(
        "vespa",
        f"{SERVICES} and {SPLADE} for the splade-embedder",
        all_of(no_default_prompt, has_limit, has_output(SENTENCE)),
        splade_layout,
        read_splade,
        model_class="SparseEncoder",
    ),
    Consumer(
        "vespa",
        f"{SERVICES} and {COLBERT} for the colbert-embedder; documents without punctuation and the last vector",
        all_of(has_limit, expands_unattended, keeps_all_tokens, also=(IS_QUERY,)),
        colbert_layout,
        read_colbert,
        over_limit=False,
        model_class="MultiVectorEncoder",
        expected=expected_colbert,
    ),
)
