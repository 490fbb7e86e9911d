"""fastembed: the first output of onnx/model.onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import SENTENCE, Consumer, as_it_is
from sbertconv.consumers.graphs import graph_proto, one_token_of_logits, write_variant
from sbertconv.consumers.reading import file_tokenizer, from_json, run
from sbertconv.consumers.refusals import all_of, has_limit, has_output, no_default_prompt, one_label


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
)
