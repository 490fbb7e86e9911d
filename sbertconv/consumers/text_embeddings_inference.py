"""text-embeddings-inference: sentence_embedding of onnx/model.onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import SENTENCE, Consumer
from sbertconv.consumers.reading import file_tokenizer, from_json, run
from sbertconv.consumers.refusals import (
    all_of,
    has_activation,
    has_config,
    has_limit,
    has_output,
    no_default_prompt,
    one_label,
    only_float32,
)
from sbertconv.errors import UnsupportedOptionError

SERVER_KEYS = ("architectures", "model_type", "hidden_size", "num_hidden_layers", "max_position_embeddings")


def inference_server_layout(artifact: Artifact, staging: Staging) -> None:
    """The files are read as they are; what it cannot start without must be there.

    Raises:
        UnsupportedOptionError: if config.json has no position table or no other field that it requires.
    """
    config = from_json(staging.folder / "config.json")
    if missing := [key for key in SERVER_KEYS if config.get(key) is None]:
        raise UnsupportedOptionError(
            f"{artifact.folder}: text-embeddings-inference requires {', '.join(missing)} in config.json, which this "
            "architecture has not.\nLeave the consumer out."
        )


def read_inference_server(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """sentence_embedding as it is."""
    return run(folder / "onnx/model.onnx", tokenizer_of(folder).encode_batch(list(texts)), SENTENCE)


def read_reranker(folder: Path, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """The sigmoid of the one logit."""
    from sbertconv.runtime.predicting import sigmoid

    logits = run(folder / "onnx/model.onnx", tokenizer_of(folder).encode_batch(list(pairs)), "logits")
    return sigmoid(logits)[:, 0]


def tokenizer_of(folder: Path) -> Any:
    """The limit of sentence_bert_config.json, padding by its own hand."""
    tokenizer, settings = file_tokenizer(folder), from_json(folder / "sentence_bert_config.json")
    config = from_json(folder / "config.json")
    tokenizer.enable_truncation(min(settings["max_seq_length"], config["max_position_embeddings"]))
    pad = config.get("pad_token_id") or 0
    tokenizer.enable_padding(direction=from_json(folder / "tokenizer_config.json")["padding_side"], pad_id=pad)
    return tokenizer


ROWS = (
    Consumer(
        "text-embeddings-inference",
        f"onnx/model.onnx, its output {SENTENCE}",
        all_of(no_default_prompt, has_config, has_limit, only_float32, has_output(SENTENCE)),
        inference_server_layout,
        read_inference_server,
    ),
    Consumer(
        "text-embeddings-inference",
        "onnx/model.onnx, its output logits, as a reranker",
        all_of(has_config, has_limit, only_float32, one_label, has_activation("sigmoid"), has_output("logits")),
        inference_server_layout,
        read_reranker,
        outputs=("logits",),
        model_class="CrossEncoder",
    ),
)
