"""A converted folder -> the object that runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sbertconv.artifact.folder import KERAS_SUFFIX, Artifact, read_artifact, unpacked
from sbertconv.runtime.embedding import Embedder
from sbertconv.runtime.engines import AUTO
from sbertconv.runtime.late_interaction import MultiVectorEmbedder
from sbertconv.runtime.model import ConvertedModel
from sbertconv.runtime.predicting import Reranker, TextClassifier
from sbertconv.runtime.sparse import SparseEmbedder

RUNTIMES: dict[str, type[ConvertedModel]] = {
    "SentenceTransformer": Embedder,
    "SparseEncoder": SparseEmbedder,
    "CrossEncoder": Reranker,
    "TextClassifier": TextClassifier,
    "MultiVectorEncoder": MultiVectorEmbedder,
}


def load(
    folder: str | Path,
    *,
    format: str | None = None,
    engine: str = AUTO,
    parallel: int = 1,
    verify: bool = False,
    beyond_proof: bool = False,
) -> Any:
    """Open a converted folder: an `Embedder`, `SparseEmbedder`, `MultiVectorEmbedder`, `Reranker` or `TextClassifier`,
    as the model is.

    Args:
        folder: what `sbertconv to-onnx`, `to-tf` or `to-torch` wrote, or a .keras file that began as one.
        format: "onnx", "openvino", "keras", "saved_model", "litert", "torch" or "tensorrt"; default the first that the
            folder holds.
        engine: "onnxruntime", "openvino", "keras", "tensorflow", "litert", "torch" or "tensorrt"; "auto": the first of
            those installed that the folder was proven on, see `Embedder.engine`. It never changes the precision.
        parallel: how many batches run at once, each on its share of the cores. More than 1 embeds many texts faster
            and one text slower; for "onnxruntime" and "openvino".
        verify: compare every file with its sha256 first.
        beyond_proof: whether texts longer than the manifest's `proven_length` are answered as they are, up to the
            model's own limit. Otherwise they are cut there, with a warning: no longer text was compared with encode().

    Raises:
        ArtifactError: if the folder is missing, foreign, truncated, from a newer version or tampered with.
        UnsupportedOptionError: if the folder does not hold that format, or the engine does not run it.
    """
    packed = Path(folder) if Path(folder).suffix == KERAS_SUFFIX and not Path(folder).is_dir() else None
    artifact = replace(read_artifact(unpacked(packed) if packed else folder), packed=packed)
    if verify:
        artifact.verify_hashes()
    return open_model(artifact, format, engine, parallel, beyond_proof)


def open_model(
    artifact: Artifact, form: str | None = None, engine: str = AUTO, parallel: int = 1, beyond_proof: bool = False
) -> Any:
    """The object that runs an artifact, as its class has it."""
    return RUNTIMES[artifact.manifest["model_class"]](artifact, form, engine, parallel, beyond_proof)
