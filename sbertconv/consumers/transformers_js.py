"""transformers.js: the file of onnx/ that config.json names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import SENTENCE, Consumer
from sbertconv.consumers.reading import file_tokenizer, from_json, run
from sbertconv.consumers.refusals import all_of, has_config, has_limit, has_output, no_default_prompt


def transformers_js_layout(artifact: Artifact, staging: Staging) -> None:
    """Which file to take, so that the browser does not ask for a quantized one. "fp32" stands for no suffix."""
    config = from_json(staging.folder / "config.json")
    data = bool(artifact.manifest["graphs"][0]["data"])
    config["transformers.js_config"] = {"dtype": "fp32", "use_external_data_format": data}
    staging.write("config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def read_transformers_js(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Cut after the special tokens; the file of `transformers.js_config`, its sentence_embedding."""
    tokenizer, config = file_tokenizer(folder), from_json(folder / "tokenizer_config.json")
    tokenizer.no_truncation()
    suffix = {"fp32": ""}[from_json(folder / "config.json")["transformers.js_config"]["dtype"]]
    encodings = tokenizer.encode_batch(list(texts))
    for encoding in encodings:
        encoding.truncate(min(len(encoding), config["model_max_length"]))
    return run(folder / f"onnx/model{suffix}.onnx", encodings, SENTENCE)


ROWS = (
    Consumer(
        "transformers.js",
        f"onnx/model.onnx, its output {SENTENCE}, through AutoModel; texts up to the limit",
        all_of(no_default_prompt, has_config, has_limit, has_output(SENTENCE)),
        transformers_js_layout,
        read_transformers_js,
        over_limit=False,
    ),
)
