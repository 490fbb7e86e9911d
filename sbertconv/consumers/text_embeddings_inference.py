"""text-embeddings-inference: sentence_embedding of onnx/model.onnx."""

from __future__ import annotations

import shlex
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
    one_label,
    only_float32,
)
from sbertconv.errors import UnsupportedOptionError

COMMAND, PROMPT = "text-embeddings-inference.sh", "--default-prompt-name"
SERVER_KEYS = ("architectures", "model_type", "hidden_size", "num_hidden_layers", "max_position_embeddings")


def inference_server_layout(artifact: Artifact, staging: Staging) -> None:
    """The files are read as they are; what it cannot start without must be there. Beside them is its command.

    Raises:
        UnsupportedOptionError: if config.json has no position table or no other field that it requires.
    """
    config = from_json(staging.folder / "config.json")
    if missing := [key for key in SERVER_KEYS if config.get(key) is None]:
        raise UnsupportedOptionError(
            f"{artifact.folder}: text-embeddings-inference requires {', '.join(missing)} in config.json, which this "
            "architecture has not.\nLeave the consumer out."
        )
    prompt = artifact.manifest["default_prompt_name"]
    named = f" {PROMPT} {shlex.quote(prompt)}" if prompt and artifact.manifest["prompts"].get(prompt) else ""
    staging.write(COMMAND, f"text-embeddings-router --model-id . --dtype float32{named}\n")


def read_inference_server(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """sentence_embedding as it is; the prompt that the command names, of config_sentence_transformers.json."""
    words = shlex.split((folder / COMMAND).read_text(encoding="utf-8"))
    prompts = from_json(folder / "config_sentence_transformers.json")["prompts"]
    prompt = prompts[words[words.index(PROMPT) + 1]] if PROMPT in words else ""
    encodings = tokenizer_of(folder).encode_batch([prompt + text for text in texts])
    return run(folder / "onnx/model.onnx", encodings, SENTENCE)


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
        f"onnx/model.onnx, its output {SENTENCE}, started by {COMMAND}",
        all_of(has_config, has_limit, only_float32, has_output(SENTENCE)),
        inference_server_layout,
        read_inference_server,
    ),
    Consumer(
        "text-embeddings-inference",
        f"onnx/model.onnx, its output logits, as a reranker, started by {COMMAND}",
        all_of(has_config, has_limit, only_float32, one_label, has_activation("sigmoid"), has_output("logits")),
        inference_server_layout,
        read_reranker,
        outputs=("logits",),
        model_class="CrossEncoder",
    ),
)
