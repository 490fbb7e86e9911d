"""A converted folder -> the object that runs it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sbertconv.artifact.folder import KERAS_SUFFIX, Artifact, given_path, read_artifact, read_packed
from sbertconv.errors import UnsupportedOptionError
from sbertconv.runtime.cpus import QUANTIZED, cpu_kind
from sbertconv.runtime.embedding import Embedder
from sbertconv.runtime.engines import AUTO, proven_engines
from sbertconv.runtime.keywords import checked
from sbertconv.runtime.late_interaction import MultiVectorEmbedder
from sbertconv.runtime.model import PROGRAM, ConvertedModel, taken_unasked
from sbertconv.runtime.options import EngineOptions, check_told
from sbertconv.runtime.parts import keras_file
from sbertconv.runtime.predicting import Reranker, TextClassifier
from sbertconv.runtime.sparse import SparseEmbedder
from sbertconv.runtime.tuned import completed, fastest

ALONE = "{} holds a PyTorch program alone, which PyTorch runs: format='torch' says that this is meant."
RUNTIMES: dict[str, type[ConvertedModel]] = {
    "SentenceTransformer": Embedder,
    "SparseEncoder": SparseEmbedder,
    "CrossEncoder": Reranker,
    "TextClassifier": TextClassifier,
    "MultiVectorEncoder": MultiVectorEmbedder,
}


@checked
def load(
    folder: str | Path,
    *,
    format: str | None = None,
    engine: str = AUTO,
    threads: int | None = None,
    parallel: int | None = None,
    many: bool = False,
    batch_tokens: int | None = None,
    device: str | None = None,
    providers: Sequence[str | tuple[str, Mapping[str, Any]]] = (),
    session_options: Mapping[str, Any] | None = None,
    verify: bool = False,
    beyond_proof: bool = False,
    part: str | None = None,
) -> Any:
    """Open a converted folder: an `Embedder`, `SparseEmbedder`, `MultiVectorEmbedder`, `Reranker` or `TextClassifier`,
    as the model is.

    Args:
        folder: what `sbertconv to-onnx`, `to-tf` or `to-torch` wrote, or a .keras file that began as one.
        format: "onnx", "openvino", "keras", "saved_model", "litert", "torch" or "tensorrt"; default the first that the
            folder holds; a PyTorch program only where there is nothing else, with a warning.
        engine: "onnxruntime", "openvino", "keras", "tensorflow", "litert", "torch" or "tensorrt"; "auto": of those
            installed that the folder was proven on, the fastest as `sbertconv tune` measured it on this machine, or
            as CPUs of this kind are; `Embedder.because` says which. It never changes the precision.
        threads: that compute; default OMP_NUM_THREADS where it is set, else every core that this process may use.
        parallel: how many batches run at once, each on its share of the threads; default 1. More than 1 embeds many
            texts faster and one text slower; for "onnxruntime" and "openvino".
        many: whether the model is to answer many texts rather than one: with "auto", as `sbertconv tune` measured
            that.
        batch_tokens: tokens of a batch, padding included, unless one text is longer; default: as many as the caches
            of the cores hold.
        device: "cpu", "cuda", "cuda:1", with OpenVINO "gpu" or "npu"; default "cpu", of TensorRT "cuda". Never another
            one than asked for.
        providers: of ONNX Runtime, in place of `device`: names, or pairs of a name and its options.
        session_options: of ONNX Runtime: attributes of its SessionOptions, and configuration entries by their key.
        verify: compare every file with its sha256 first.
        part: of a .keras file whose model contains a converted one, "encoder": the converted model inside; None: the
            whole, as a classifier of texts.
        beyond_proof: whether texts longer than the manifest's `proven_length` are answered as they are, up to the
            model's own limit. Otherwise they are cut there, with a warning: no longer text was compared with encode().

    Raises:
        ArtifactError: if the folder is missing, foreign, truncated, from a newer version or tampered with.
        UnsupportedOptionError: if the folder does not hold that format, or the engine does not run it or has no such
            option.
        MissingDependencyError: if the device is not there.
    """
    check_told({} if session_options is None else session_options, providers)
    options = EngineOptions(
        threads=threads,
        parallel=1 if parallel is None else parallel,
        device=None if device is None else str(device),
        batch_tokens=batch_tokens,
        providers=tuple(providers),
        session_options=dict(session_options or {}),
    )
    artifact = artifact_at(folder, part)
    if verify:
        artifact.verify_hashes()
    if format is None and taken_unasked(artifact) == PROGRAM:
        warnings.warn(ALONE.format(artifact.folder), stacklevel=3)  # of whom `checked` calls for
    because = ""
    form = taken_unasked(artifact) if format is None else format
    if engine == AUTO and device is None and not providers and form in artifact.formats:
        setting, because = fastest(artifact, form, proven_engines(artifact, form), many=many)
        given = {"threads": threads, "parallel": parallel, "batch_tokens": batch_tokens}
        engine, options = setting.engine, completed(options, setting, given)
        tell_small(artifact)
    model = open_model(artifact, format, engine, options, beyond_proof)
    model.because = because
    return model


def tell_small(artifact: Artifact) -> None:
    """Warn of a precision that does not pay on a CPU like this one."""
    precision, kind = artifact.manifest["precision"], cpu_kind()
    if precision in QUANTIZED and not kind.small_pays:
        warnings.warn(
            f"{artifact.folder}: {precision} ran slower than float32 on CPUs {kind.name}. sbertconv tune measures this "
            "one; a folder in float32 is faster, unless memory decides.",
            stacklevel=4,
        )


def artifact_at(folder: str | Path, part: str | None = None) -> Artifact:
    """A converted folder, or the one in a .keras file, as `load` reads it.

    Raises:
        ArtifactError: if it is none.
        UnsupportedOptionError: for a part of what has none.
    """
    path = given_path(folder)
    if path.suffix == KERAS_SUFFIX and not path.is_dir():
        return read_packed(keras_file(path, part))
    artifact = read_artifact(folder)
    if part is not None:
        raise UnsupportedOptionError(f"part={part!r}: {path} is no .keras file.\nLeave the option out.")
    return artifact


def open_model(
    artifact: Artifact,
    form: str | None = None,
    engine: str = AUTO,
    options: EngineOptions = EngineOptions(),  # noqa: B008  # frozen
    beyond_proof: bool = False,
) -> Any:
    """The object that runs an artifact, as its class has it."""
    return RUNTIMES[artifact.manifest["model_class"]](artifact, form, engine, options, beyond_proof)
