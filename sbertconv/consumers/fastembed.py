"""fastembed: the first output of onnx/model.onnx."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, link_or_copy
from sbertconv.artifact.publishing import Staging
from sbertconv.artifact.scoring import IS_QUERY
from sbertconv.consumers.consumer import SENTENCE, Consumer, Manifest, as_it_is
from sbertconv.consumers.graphs import graph_proto, one_token_of_logits, token_variant, write_variant
from sbertconv.consumers.reading import file_tokenizer, from_json, opened, run
from sbertconv.consumers.refusals import all_of, has_limit, has_output, no_default_prompt, one_label
from sbertconv.errors import UnsupportedOptionError

LATE, MASK_TOKEN, QUERY_LENGTH = "fastembed", "[MASK]", 32
MARKERS = {"query": 1, "document": 2}  # of the class Colbert


def read_fastembed(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Output 0, no pooling, no normalization."""
    return run(folder / "onnx/model.onnx", tokenizer_of(folder).encode_batch(list(texts)), None, typed=False)


def read_scores(folder: Path, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """The first column of output 0."""
    found: np.ndarray = run(folder / "onnx/model.onnx", tokenizer_of(folder).encode_batch(list(pairs)), None)
    return found[:, 0]


def sparse_layout(artifact: Artifact, staging: Staging) -> None:
    """model.onnx in the root, where the class of its SPLADE models looks, with the logits that it pools."""
    proto = graph_proto(artifact, staging, weights=True)
    one_token_of_logits(proto, artifact)
    write_variant(proto, staging, "model.onnx", ["token_logits"])


def read_sparse(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The largest of log(1 + relu(x)) over the tokens."""
    encodings = tokenizer_of(folder).encode_batch(list(texts))
    mask = np.array([encoding.attention_mask for encoding in encodings])
    logits = run(folder / "model.onnx", encodings, None)
    weights: np.ndarray = (np.log1p(np.maximum(logits, 0)) * mask[:, :, None]).max(axis=1)
    return weights


def tokenizer_of(folder: Path) -> Any:
    """Cut at the smaller of two keys, special tokens added once more."""
    from tokenizers import AddedToken

    tokenizer, config = file_tokenizer(folder), from_json(folder / "tokenizer_config.json")
    limits = [config.get(key) for key in ("model_max_length", "max_length")]
    limits = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 2**63]
    tokenizer.enable_truncation(min(limits), direction=config.get("truncation_side") or "right")
    special = folder / "special_tokens_map.json"
    for value in from_json(special).values() if special.is_file() else ():
        for token in value if isinstance(value, list) else [value]:
            tokenizer.add_special_tokens([AddedToken(**token) if isinstance(token, dict) else token])
    padding = tokenizer.padding or {}
    tokenizer.enable_padding(
        direction=config.get("padding_side") or padding.get("direction", "right"),
        pad_id=padding["pad_id"],
        pad_type_id=padding.get("pad_type_id", 0),
        pad_token=padding["pad_token"],
        pad_to_multiple_of=padding.get("pad_to_multiple_of"),
    )
    return tokenizer


def late_layout(artifact: Artifact, staging: Staging) -> None:
    """A folder of its own for the class Colbert: token ids and mask in, token vectors out, the limit of documents.

    Raises:
        UnsupportedOptionError: if the tokenizer has no [MASK].
    """
    if file_tokenizer(staging.folder).token_to_id(MASK_TOKEN) is None:
        raise UnsupportedOptionError(
            f"{artifact.folder}: fastembed fills queries with {MASK_TOKEN}, which this tokenizer has not.\n"
            "Leave the consumer out."
        )
    token_variant(artifact, staging, f"{LATE}/model.onnx")
    for name in ("tokenizer.json", "special_tokens_map.json"):
        if (staging.folder / name).is_file():
            link_or_copy(staging.folder / name, staging.folder / LATE / name)
    config = from_json(staging.folder / "tokenizer_config.json")
    config["model_max_length"] = document_limit(artifact.manifest)
    staging.write(f"{LATE}/tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def document_limit(manifest: Manifest) -> int:
    """The limit of a document in tokens."""
    tokenizer = manifest["graphs"][0]["tokenizer"]
    return int(tokenizer["task_max_length"].get("document", tokenizer["max_length"]))


def read_late(folder: Path, texts: Sequence[tuple[str, str]]) -> list[np.ndarray]:
    """A marker behind the first token; a query filled up with [MASK], a document without punctuation, normalised."""
    tokenizer = tokenizer_of(folder / LATE)
    mask, pad = tokenizer.token_to_id(MASK_TOKEN), tokenizer.padding["pad_id"]
    skipped = {pad, *(tokenizer.encode(sign, add_special_tokens=False).ids[0] for sign in string.punctuation)}
    tokenizer.enable_truncation(from_json(folder / LATE / "tokenizer_config.json")["model_max_length"] - 1)
    tokenizer.no_padding()
    rows = []
    for task, text in texts:
        first, *ids = tokenizer.encode(text).ids
        ids = [first, MARKERS[task], *ids]
        filled = [*ids, *[mask] * (QUERY_LENGTH - len(ids))] if task == "query" else ids
        fed = {"input_ids": filled, "attention_mask": [1] * len(ids) + [0] * (len(filled) - len(ids))}
        session = opened(folder / LATE / "model.onnx")
        (vectors,) = session.run(None, {name: np.array([row], np.int64) for name, row in fed.items()})
        kept = [place for place, number in enumerate(filled) if task == "query" or number not in skipped]
        found = np.asarray(vectors)[0, kept]
        rows.append(
            found if task == "query" else found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        )
    return rows


def expands_as_colbert(manifest: Manifest) -> Iterable[str]:
    expansion = manifest["graphs"][0]["tokenizer"]["query_expansion"] or {}
    if (expansion.get("length"), expansion.get("attend")) != (QUERY_LENGTH, False):
        yield (
            f"fills every query up to {QUERY_LENGTH} tokens that are not attended to, and this model does not; use "
            "sbertconv.load."
        )


def pools_no_tokens(manifest: Manifest) -> Iterable[str]:
    if manifest["token_pooling"]:
        yield "keeps a vector for every token, and this model pools them; use sbertconv.load."


ROWS = (
    Consumer(
        "fastembed",
        "onnx/model.onnx, its first output, with PoolingType.DISABLED and normalization=False",
        all_of(no_default_prompt, has_limit, has_output(SENTENCE, first=True)),
        as_it_is,
        read_fastembed,
    ),
    Consumer(
        "fastembed",
        "onnx/model.onnx, its first output, as a custom cross encoder",
        all_of(has_limit, one_label, has_output("scores", first=True)),
        as_it_is,
        read_scores,
        outputs=("scores",),
        model_class="CrossEncoder",
    ),
    Consumer(
        "fastembed",
        'model.onnx, as SparseTextEmbedding("prithivida/Splade_PP_en_v1", specific_model_path=...)',
        all_of(no_default_prompt, has_limit, has_output(SENTENCE)),
        sparse_layout,
        read_sparse,
        model_class="SparseEncoder",
    ),
    Consumer(
        "fastembed",
        f'{LATE}, as LateInteractionTextEmbedding("colbert-ir/colbertv2.0", specific_model_path=...), which has no '
        "custom models; texts up to the limit",
        all_of(has_limit, expands_as_colbert, pools_no_tokens, also=(IS_QUERY,)),
        late_layout,
        read_late,
        over_limit=False,
        model_class="MultiVectorEncoder",
    ),
)
