"""Triton and KServe: a model repository, of a graph that takes token ids or strings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, link_or_copy
from sbertconv.artifact.naming import in_graph
from sbertconv.artifact.publishing import Staging
from sbertconv.artifact.text_input import TEXT
from sbertconv.consumers.consumer import SENTENCE, TOKEN_INPUTS, Consumer
from sbertconv.consumers.naming import server_name
from sbertconv.consumers.reading import file_tokenizer, run, run_texts
from sbertconv.consumers.refusals import all_of, has_output, no_default_prompt
from sbertconv.errors import ArtifactError

TRITON_TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32", "string": "TYPE_STRING"}
TRITON_INPUT = re.compile(r'name: "(\w+)"')
SCALAR = (
    "dims: [ 1 ] reshape: { shape: [ ] }"  # a string for each text, where every tensor has an axis beside the batch
)
KSERVE = """apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      protocolVersion: v2
      storageUri: pvc://models/model_repository
"""


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


def kserve_layout(artifact: Artifact, staging: Staging) -> None:
    """The same repository, and the service that Triton's run time of KServe makes of it."""
    triton_layout(artifact, staging)
    name = server_name(artifact).replace("_", "-").lower()
    staging.write("kserve/inference-service.yaml", KSERVE.format(name=name))


def tensors(entries: Sequence[Mapping[str, Any]]) -> str:
    """Entries of config.pbtxt; the batch is not among the sizes."""
    found = []
    for entry in entries:
        sizes = ", ".join(str(size) if isinstance(size, int) else "-1" for size in entry["shape"][1:])
        shape = f"dims: [ {sizes} ]" if sizes else SCALAR
        found.append(f"\n  {{ name: {json.dumps(in_graph(entry))} data_type: {TRITON_TYPES[entry['dtype']]} {shape} }}")
    return ",".join(found) + "\n"


def read_triton(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The one model of the repository, fed with what config.pbtxt names: strings, or tokens by a client with
    tokenizer.json.
    """
    (config,) = folder.glob("model_repository/*/config.pbtxt")
    inputs, outputs = config.read_text(encoding="utf-8").split("output [")
    asked, path = TRITON_INPUT.findall(inputs)[1:], config.parent / "1/model.onnx"
    if SENTENCE not in TRITON_INPUT.findall(outputs) or (asked != [TEXT] and not set(asked) <= set(TOKEN_INPUTS)):
        raise ArtifactError(f"{config}: other tensors than a client of texts has.\nLeave triton out.")
    if asked == [TEXT]:
        return run_texts(path, texts, SENTENCE)
    return run(path, file_tokenizer(folder).encode_batch(list(texts)), SENTENCE)


ROWS = tuple(
    Consumer(
        name,
        f"{files}, its output {SENTENCE}, from strings of a graph with text_input=True, else from a client's tokens",
        all_of(no_default_prompt, has_output(SENTENCE), text=None),
        layout,
        read_triton,
    )
    for name, files, layout in (
        ("triton", "model_repository", triton_layout),
        ("kserve", "kserve/inference-service.yaml and model_repository", kserve_layout),
    )
)
