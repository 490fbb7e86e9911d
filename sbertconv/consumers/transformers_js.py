"""transformers.js: the files of onnx/, in Node and in a browser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import HIDDEN, SENTENCE, Consumer
from sbertconv.consumers.graphs import graph_proto, mend_cut, save_staged, spread, write_variant
from sbertconv.consumers.lookups import plain_lookups
from sbertconv.consumers.reading import file_tokenizer, from_json, run
from sbertconv.consumers.refusals import all_of, cuts_right, has_config, has_limit, has_output, no_default_prompt

SUFFIXES = {"fp32": "", "fp16": "_fp16", "q8": "_quantized", "q4": "_q4"}  # what it calls a precision -> its file
NAMES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8", "int4": "q4"}  # our name of a precision -> its own
FILE = "onnx/model{}.onnx"


def transformers_js_layout(artifact: Artifact, staging: Staging) -> None:
    """The graph as its pipeline reads it, and which file to take, so that the browser does not ask for a quantized one.
    "fp32" stands for no suffix.
    """
    proto = graph_proto(artifact, staging)
    readable(proto, artifact, staging)
    save_staged(proto, artifact, staging)
    config = from_json(staging.folder / "config.json")
    data = int(bool(artifact.manifest["graphs"][0]["data"]))
    config["transformers.js_config"] = {
        "dtype": "fp32",
        "use_external_data_format": {FILE.format("").rpartition("/")[2]: data},
    }
    staging.write("config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def readable(proto: Any, artifact: Artifact, staging: Staging) -> None:
    """Without operators that its WebAssembly has not, its cut mended, and the sentence embedding at every token for its
    pooling "cls".
    """
    plain_lookups(proto)
    mend_cut(proto, artifact, unpadded(staging.folder))
    if HIDDEN not in [value.name for value in proto.graph.output]:
        spread(proto, artifact)


def unpadded(folder: Path) -> Any:
    """The tokenizer, which pads and cuts nothing."""
    tokenizer = file_tokenizer(folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def transformers_js_variant(other: Artifact, staging: Staging, file: str) -> None:
    """The graph in another precision, in one file."""
    import onnx

    proto = onnx.load(str(other.path(other.manifest["graphs"][0]["formats"]["onnx"])))
    readable(proto, other, staging)
    write_variant(proto, staging, file, [value.name for value in proto.graph.output])


def read_transformers_js(folder: Path, texts: Sequence[str], file: str = "") -> np.ndarray:
    """Cut after the special tokens; the file of `transformers.js_config`, or of another dtype; the first token of
    last_hidden_state.
    """
    tokenizer, config = file_tokenizer(folder), from_json(folder / "tokenizer_config.json")
    tokenizer.no_truncation()
    dtype = from_json(folder / "config.json")["transformers.js_config"]["dtype"]
    encodings = tokenizer.encode_batch(list(texts))
    longest = min(max(map(len, encodings)), config["model_max_length"])
    for encoding in encodings:
        encoding.truncate(longest)
    return run(folder / (file or FILE.format(SUFFIXES[dtype])), encodings, HIDDEN)[:, 0]


ROWS = (
    Consumer(
        "transformers.js",
        'onnx/model.onnx and, of other precisions, its suffixes: pipeline("feature-extraction") with pooling "cls", or '
        f"AutoModel and {SENTENCE}; in a browser other kernels compute int8 and int4",
        all_of(no_default_prompt, has_config, has_limit, cuts_right, has_output(SENTENCE)),
        transformers_js_layout,
        read_transformers_js,
        hidden="sentence",
        precisions={precision: FILE.format(SUFFIXES[name]) for precision, name in NAMES.items()},
        variant=transformers_js_variant,
    ),
)
