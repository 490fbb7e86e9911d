"""Triton and KServe: a model repository."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, link_or_copy
from sbertconv.artifact.naming import in_graph
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import SENTENCE, TOKEN_INPUTS, Consumer
from sbertconv.consumers.naming import server_name
from sbertconv.consumers.reading import file_tokenizer, run
from sbertconv.consumers.refusals import all_of, has_output, no_default_prompt
from sbertconv.errors import ArtifactError

TRITON_TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32"}
TRITON_INPUT = re.compile(r'name: "(\w+)"')


def triton_layout(artifact: Artifact, staging: Staging) -> None:
    """A model repository beside the tokenizer's files. The tokens of a request are its client's."""
    graph = artifact.manifest["graphs"][0]
    name = server_name(artifact)
    folder = f"model_repository/{name}"
    for file in (graph["formats"]["onnx"], *graph["data"]):
        link_or_copy(staging.folder / file, staging.folder / folder / "1" / Path(file).name)
    inputs, outputs = (tensors(graph[key]) for key in ("inputs", "outputs"))
    staging.write(
        f"{folder}/config.pbtxt",
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 32\ninput [{inputs}]\noutput [{outputs}]\n'
        "dynamic_batching {}\n",
    )


def tensors(entries: Sequence[Mapping[str, Any]]) -> str:
    """Entries of config.pbtxt; the batch is not among the sizes."""
    found = []
    for entry in entries:
        sizes = ", ".join(str(size) if isinstance(size, int) else "-1" for size in entry["shape"][1:])
        found.append(f'\n  {{ name: "{in_graph(entry)}" data_type: {TRITON_TYPES[entry["dtype"]]} dims: [ {sizes} ] }}')
    return ",".join(found) + "\n"


def read_triton(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The one model of the repository, fed with what config.pbtxt names by a client with tokenizer.json."""
    (config,) = folder.glob("model_repository/*/config.pbtxt")
    inputs, outputs = config.read_text(encoding="utf-8").split("output [")
    encodings = file_tokenizer(folder).encode_batch(list(texts))
    if not set(TRITON_INPUT.findall(inputs)[1:]) <= set(TOKEN_INPUTS) or SENTENCE not in TRITON_INPUT.findall(outputs):
        raise ArtifactError(f"{config}: other tensors than a client of token ids has.\nLeave triton out.")
    return run(config.parent / "1/model.onnx", encodings, SENTENCE)


ROWS = (
    Consumer(
        "triton",
        f"model_repository, its output {SENTENCE}; the client has tokenizer.json",
        all_of(no_default_prompt, has_output(SENTENCE)),
        triton_layout,
        read_triton,
    ),
)
