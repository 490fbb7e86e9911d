"""sentence-transformers with its own ONNX and OpenVINO backends, optimum, and what stands on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import inside
from sbertconv.consumers.consumer import HIDDEN, SENTENCE, TOKENS, Consumer, as_it_is
from sbertconv.consumers.graphs import hidden_layout
from sbertconv.consumers.reading import compiled, file_tokenizer, from_json, pooled, run, tensors_of
from sbertconv.consumers.refusals import all_of, has_config, has_limit, has_output, pools_itself

OPENVINO = "openvino/openvino_model.xml"


def read_optimum(folder: Path, texts: Sequence[str], file: str = "onnx/model.onnx") -> np.ndarray:
    """last_hidden_state of the graph, then the modules of modules.json."""
    return read_modules(folder, texts, lambda encodings: run(folder / file, encodings, HIDDEN))


def read_optimum_intel(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The same of openvino/openvino_model.xml."""

    def answered(encodings: Sequence[Any]) -> np.ndarray:
        model = compiled(folder / OPENVINO)
        fed = tensors_of(encodings)
        found = model({name: fed[name] for value in model.inputs for name in value.get_names()})
        return np.asarray(next(array for output, array in found.items() if HIDDEN in output.get_names()))

    return read_modules(folder, texts, answered)


def read_modules(folder: Path, texts: Sequence[str], answered: Callable[[Sequence[Any]], np.ndarray]) -> np.ndarray:
    """Token vectors, then the modules of modules.json."""
    tokenizer, settings = file_tokenizer(folder), from_json(folder / "config_sentence_transformers.json")
    tokenizer.enable_truncation(
        from_json(folder / "sentence_bert_config.json")["max_seq_length"],
        direction=from_json(folder / "tokenizer_config.json")["truncation_side"],
    )
    prompt = settings["prompts"].get(settings["default_prompt_name"] or "", "")
    encodings = tokenizer.encode_batch([prompt + text for text in texts])
    tokens = answered(encodings)
    mask = np.array([encoding.attention_mask for encoding in encodings], np.float32)[:, :, None]
    found = tokens
    for module in from_json(folder / "modules.json"):
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            config = inside(folder, f"{module['path']}/config.json", folder / "modules.json")
            found = pooled(found, mask, from_json(config))
        if kind == "Normalize":
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found


ROWS = (
    Consumer(
        "sentence-transformers",
        f'onnx/model.onnx, its output {HIDDEN}, with backend="onnx", or optimum',
        all_of(has_config, has_limit, pools_itself, has_output(TOKENS)),
        hidden_layout,
        read_optimum,
        hidden="tokens",
        searched="model.onnx",
        outputs=(SENTENCE, TOKENS),
    ),
    Consumer(
        "sentence-transformers-openvino",
        f'{OPENVINO}, its output {HIDDEN}, with backend="openvino", or optimum-intel',
        all_of(has_config, has_limit, pools_itself, has_output(HIDDEN), form="openvino"),
        as_it_is,
        read_optimum_intel,
        form="openvino",
        outputs=(SENTENCE, HIDDEN),
    ),
)
