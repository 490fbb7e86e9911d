"""From Keras back: a .keras file, fine-tuned perhaps, as an ONNX graph or as a sentence-transformers folder.

A .keras file carries the rest of its model (tokenizer, configs, where each weight belongs) in its last layer, so
that it is enough alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import (
    KERAS_SUFFIX,
    MANIFEST,
    Artifact,
    inside,
    opened_archive,
    read_artifact,
    read_packed,
)
from sbertconv.artifact.publishing import Staging
from sbertconv.artifact.scratch import scratch_folder
from sbertconv.converters.keras.formats import FORMATS, write_format
from sbertconv.converters.keras.weights import has_weights, weights
from sbertconv.converters.keras.writer import SKELETON, WEIGHTS
from sbertconv.converters.writing import graph_name
from sbertconv.errors import ArtifactError, error_text
from sbertconv.runtime.engines import load_keras_model
from sbertconv.runtime.model import ConvertedModel
from sbertconv.runtime.opening import open_model
from sbertconv.runtime.parts import keras_file

HALF = b'"mixed_'  # how the name of a dtype policy of half precision begins in a .keras file's config


def keras_files(model: str | Path) -> list[Path]:
    """The .keras files, one per route, the default one first.

    Raises:
        ArtifactError: if there is none.
    """
    path = Path(model).expanduser()
    if not path.is_dir():
        return [path]
    artifact = read_artifact(path)
    if "keras" not in artifact.formats:
        raise ArtifactError(
            f"{path}: holds {', '.join(artifact.formats)} and no .keras file.\n"
            "Convert the model again with formats=['keras']."
        )
    return [path / graph["formats"]["keras"] for graph in artifact.manifest["graphs"]]


def open_files(files: Sequence[Path], part: str | None = None, *, whole: bool = True) -> ConvertedModel:
    """The Keras models as they are now but in float32, behind the tokenizer and the settings that they carry; `part`
    and `whole` of models that contain a converted one: see `keras_file`.
    """
    own = [keras_file(file, part, whole=whole) for file in files]
    embedders: list[ConvertedModel] = [open_model(_in_float32(read_packed(file)), beyond_proof=True) for file in own]
    embedders[0].graphs = [graph for embedder in embedders for graph in embedder.graphs]
    return embedders[0]


def _in_float32(artifact: Artifact) -> Artifact:
    """The same, where layers compute in half precision a copy that does not: weights are float32 in both, and it is
    these that the proof is about.
    """
    (graph,) = artifact.manifest["graphs"]
    path = artifact.path(graph["formats"]["keras"])
    with opened_archive(path, artifact.packed) as archive:
        if HALF not in archive.read("config.json"):
            return artifact
    from sbertconv.layers import set_dtype_policy

    model = load_keras_model(path, artifact.packed)
    set_dtype_policy(model, "float32")
    with scratch_folder() as folder:
        model.save(Path(folder, path.name))
        return read_packed(Path(folder, path.name))


def write_onnx_of(embedder: ConvertedModel, source: str, staging: Staging) -> dict[str, Any]:
    """Write every route as an ONNX graph with the files of the model; returns the manifest's content."""
    graphs = []
    for index, graph in enumerate(embedder.graphs):
        name = FORMATS["onnx"].file.format(name=graph_name(graph.section["name"], index == 0))
        write_format("onnx", _model(graph), graph.section["inputs"], staging.folder / name)
        inputs = [{**t, "dtype": t["dtype"].replace("int32", "int64")} for t in graph.section["inputs"]]
        graphs.append({**graph.section, "formats": {"onnx": name}, "inputs": inputs})
        for path in _carried(graph.artifact.folder):
            staging.write(path.relative_to(graph.artifact.folder).as_posix(), path.read_text(encoding="utf-8"))
    left_out = ("format_version", "files", "torch_weights")
    kept = {key: value for key, value in embedder.artifact.manifest.items() if key not in left_out}
    return {
        **kept,
        "backend": "onnx",
        "engines": {"onnx": FORMATS["onnx"].engines},
        "source": {"name": source, "revision": None},
        "graphs": graphs,
    }


def _carried(folder: Path) -> list[Path]:
    """The files of an unpacked model, without the model itself and without the way back."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name != MANIFEST
        and path.suffix != KERAS_SUFFIX
        and path.relative_to(folder).parts[0] != SKELETON
    ]


def _model(graph: Any) -> Any:
    return load_keras_model(graph.artifact.path(graph.section["formats"]["keras"]), graph.artifact.packed)


def _kept_weights(path: Path) -> dict[str, np.ndarray]:
    """The weights that no layer of Keras holds.

    Raises:
        SafetensorError: if there are none, or of a type that numpy does not have.
    """
    import safetensors.numpy

    try:
        return dict(safetensors.numpy.load_file(path))
    except (AttributeError, KeyError, TypeError) as error:  # a type that it knows the name of
        raise safetensors.SafetensorError(error_text(error)) from error


def write_sentence_transformers(embedder: ConvertedModel, name: str, staging: Staging) -> None:
    """Write a folder for SentenceTransformer: the configs as they were, the weights as they are now.

    Raises:
        ArtifactError: naming every layer or weight that is missing or has another shape, or weights that are none.
    """
    import safetensors.numpy

    files: dict[str, dict[str, np.ndarray]] = {}
    problems: list[str] = []
    for graph in embedder.graphs:
        _read_weights(_model(graph), _origins(graph.artifact, name), files, problems)
    targets = {place: inside(staging.folder, place, name) for place in files}
    if problems:
        raise ArtifactError(
            f"{name}: the weights do not fit the sentence-transformers model:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nOnly weights may change: keep the layers and their sizes as to-tf made them."
        )
    root = embedder.artifact.folder / SKELETON
    if not root.is_dir():
        raise ArtifactError(
            f"{name}: holds no sentence-transformers configs, because it is one route of a model with several, or the "
            "model could not be saved when it was converted.\nPass the folder that to-tf wrote."
        )
    try:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            place = path.relative_to(root).as_posix()
            if path.name == WEIGHTS:  # what no Keras layer holds
                targets[place] = staging.folder / place
                files[place] = _kept_weights(path) | files.get(place, {})
            else:
                target = staging.folder / place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        for place, tensors in files.items():
            target = targets[place]
            target.parent.mkdir(parents=True, exist_ok=True)
            safetensors.numpy.save_file(tensors, target, {"format": "pt"})
            target.chmod(0o644)  # safetensors leaves it to the owner alone
    except safetensors.SafetensorError as error:  # of weights that are none, or of a place that no file can have
        raise ArtifactError(
            f"{name}: the weights {place!r:.100} cannot be read or written: {error}\nDo not use this file."
        ) from error


def _origins(artifact: Artifact, name: str) -> Mapping[str, Any]:
    """Where the weights of each layer belong. Raises ArtifactError if the manifest does not say it."""
    origins: Mapping[str, Any] | None = artifact.manifest.get("torch_weights")
    if origins is None:
        raise ArtifactError(
            f"{name}: its {MANIFEST} has no torch_weights, the places of the weights in the model.\n"
            "Pass a file that to-tf wrote, or the Keras model saved of it."
        )
    return origins


def _read_weights(
    model: Any, origins: Mapping[str, Any], files: dict[str, dict[str, np.ndarray]], problems: list[str]
) -> None:
    """Add the weights of one route's model under their PyTorch names."""
    names = {layer.name for layer in model.layers}
    for layer_name, origin in origins.items():
        if layer_name not in names:
            problems.append(f"{layer_name}: the layer is missing")
            continue
        layer = model.get_layer(layer_name)
        if not has_weights(layer):
            problems.append(f"{layer_name}: a layer {type(layer).__name__} has no weights of the model")
            continue
        found = {weight.name: weight for weight in weights(layer, origin["prefix"])}
        held = files.setdefault(origin["file"], {})
        for name, shape in origin["shapes"].items():
            if name not in found:
                problems.append(f"{layer_name}: {name} is missing")
            elif found[name].shape != shape:
                problems.append(f"{layer_name}: {name} is {found[name].shape} instead of {shape}")
            elif name in held and not np.array_equal(held[name], found[name].read()):
                problems.append(f"{layer_name}: {name} has other values in another route, which shares it")
            else:
                held[name] = found[name].read()
