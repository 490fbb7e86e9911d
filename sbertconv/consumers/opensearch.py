"""OpenSearch ML: a zip and the body of the call that registers it."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, sha256
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import SENTENCE, Consumer
from sbertconv.consumers.reading import file_tokenizer, from_json, keeps, opened
from sbertconv.consumers.refusals import all_of, has_config, has_output, no_default_prompt
from sbertconv.errors import ArtifactError

OPENSEARCH_TYPES = ("bert", "albert")  # the model types that it feeds token types
TOKEN_AXES = ("input_ids", "attention_mask", "token_type_ids")  # the order in which OpenSearch feeds them


def opensearch_layout(artifact: Artifact, staging: Staging) -> None:
    """A zip of the graph and tokenizer.json, and the body of the call that registers it. It feeds its tensors in one
    order, and of its pooling modes "cls" takes the first row, of a vector the vector itself.
    """
    import onnx

    graph = artifact.manifest["graphs"][0]
    proto = onnx.load(str(staging.folder / graph["formats"]["onnx"]))
    inputs = sorted(proto.graph.input, key=lambda value: TOKEN_AXES.index(value.name))
    outputs = [value for value in proto.graph.output if value.name == SENTENCE]
    for values, kept in ((proto.graph.input, inputs), (proto.graph.output, outputs)):
        del values[:]
        values.extend(kept)
    path = staging.folder / "opensearch/model.zip"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", proto.SerializeToString())
        archive.write(staging.folder / "tokenizer.json", "tokenizer.json")
    typed = any(entry["name"] == "token_type_ids" for entry in graph["inputs"])
    body = {
        "name": Path(artifact.manifest["source"]["name"]).name,
        "version": "1.0.0",
        "model_format": "ONNX",
        "model_content_size_in_bytes": path.stat().st_size,
        "model_content_hash_value": sha256(path),
        "model_config": {
            "model_type": OPENSEARCH_TYPES[0] if typed else "roberta",
            "embedding_dimension": artifact.manifest["embedding_dimension"],
            "framework_type": "sentence_transformers",
            "pooling_mode": "cls",
            "normalize_result": False,
            "all_config": (staging.folder / "config.json").read_text(encoding="utf-8"),
        },
    }
    staging.write("opensearch/register.json", json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def read_opensearch(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The zip's graph, text by text, token types by the model type, the first row of output 0."""
    names, session, tokenizer = unzipped(folder / "opensearch")
    rows = []
    for encoding in map(tokenizer.encode, texts):
        fed = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        rows.append(session.run(None, {name: np.array([ids]) for name, ids in zip(names, fed, strict=False)})[0])
    return np.concatenate(rows)


@keeps(1)
def unzipped(folder: Path) -> tuple[list[str], Any, Any]:
    """The names in the order in which OpenSearch feeds them, the session and the tokenizer of its zip.

    Raises:
        ArtifactError: if the zip is not the one that register.json describes, or its graph takes other tensors.
    """
    body, path = from_json(folder / "register.json"), folder / "model.zip"
    if (path.stat().st_size, sha256(path)) != (body["model_content_size_in_bytes"], body["model_content_hash_value"]):
        raise ArtifactError(f"{path}: not the file that register.json describes.\nPack the folder again.")
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(path) as archive:
        archive.extractall(scratch)
        session, tokenizer = opened(Path(scratch, "model.onnx")), file_tokenizer(Path(scratch))
    typed = body["model_config"]["model_type"] in OPENSEARCH_TYPES
    names = [value.name for value in session.get_inputs()]
    if names != list(TOKEN_AXES[: 2 + typed]):
        raise ArtifactError(f"{path}: its graph takes {', '.join(names)}.\nPack the folder again.")
    return names, session, tokenizer


ROWS = (
    Consumer(
        "opensearch",
        "opensearch/model.zip, registered with opensearch/register.json",
        all_of(no_default_prompt, has_config, has_output(SENTENCE)),
        opensearch_layout,
        read_opensearch,
    ),
)
