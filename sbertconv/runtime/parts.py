"""A Keras model that contains a converted one: the part that is ours, or the whole as a classifier of texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sbertconv.artifact.folder import MANIFEST, PACKED, opened_archive, scratch_for_life
from sbertconv.artifact.json_reading import parse_json
from sbertconv.artifact.kinds import class_named
from sbertconv.artifact.manifest import problems_of
from sbertconv.errors import ArtifactError, UnsupportedOptionError, error_text
from sbertconv.frameworks import import_keras
from sbertconv.keras_compat import all_layers
from sbertconv.runtime.engines import load_keras_model

ENCODER = "encoder"  # the one part that has a name: what to-tf made
LOGITS = "logits"
CLASSIFIER = "TextClassifier"
OF_THE_ENCODER = ("modules.json", "config_sentence_transformers.json", "sentence_transformers/")  # not of a classifier


def keras_file(file: Path, part: str | None = None, *, whole: bool = True) -> Path:
    """The .keras file to open for this one: itself, where its model is what to-tf made; else one that is written for
    as long as this process lives.

    Args:
        file: a .keras file; one without a manifest is for `unpacked` to refuse.
        part: "encoder": the converted model inside, alone; None: the whole.
        whole: whether a model around a converted one may be taken as a classifier of texts.

    Raises:
        UnsupportedOptionError: for another part.
        ArtifactError: if the model contains a converted one and cannot be taken so, naming its own layers.
    """
    if part not in (None, ENCODER):
        raise UnsupportedOptionError(f"part={part!r} is not known (have: {ENCODER}).\nChoose it, or leave it out.")
    described = _described(file)
    if described is None:
        return file
    config, manifest = described
    (graph,) = manifest["graphs"]
    if not (around := layers_around(file)):
        return file
    says = f"{file}: contains a converted model; its other layers are {', '.join(around)}"
    if part is None and not whole:
        raise ArtifactError(f"{says}.\nPass part={ENCODER!r} for the converted model alone.")
    model = _loaded(file, config["class_name"])
    found = _encoder(model, graph, says) if part else _classifier(model, manifest, says)
    folder = scratch_for_life()
    found.save(folder / file.name)
    return folder / file.name


def layers_around(file: Path) -> list[str]:
    """The layers of a .keras file that are not those of the converted model in it; none: it is what to-tf made. Of a
    model that is not functional the name of its class.
    """
    described = _described(file)
    if described is None:
        return []
    config, manifest = described
    (graph,) = manifest["graphs"]
    if sorted(_output_layers(config)) == sorted(tensor["name"] for tensor in graph["outputs"]):
        return []
    return _around(config, graph) or [config["class_name"]]


def _described(file: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The model's config and our manifest, read without Keras; None where one is missing or cannot be read.

    Raises:
        ArtifactError: for a model that contains several converted ones.
    """
    try:
        with opened_archive(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"{PACKED}{MANIFEST}")]
            several = len(names) > 1
            config, manifest = (parse_json(archive.read(name), file, dict) for name in ("config.json", names[0]))
    except (ArtifactError, LookupError):
        return None
    if not several and (problems_of({**manifest, "files": {}}) or len(manifest["graphs"]) > 1 or not _is_model(config)):
        return None
    if several:
        raise ArtifactError(f"{file}: contains {len(names)} converted models.\nSave the one that you mean.")
    return config, manifest


def _is_model(config: Mapping[str, Any]) -> bool:
    """Whether a config is that of a model, with layers that have names."""
    inner = config.get("config")
    layers = inner.get("layers", []) if isinstance(inner, dict) else None
    return (
        isinstance(config.get("class_name"), str)
        and isinstance(layers, list)
        and all(
            isinstance(layer, dict)
            and isinstance(layer.get("config"), dict)
            and isinstance(layer["config"].get("name"), str)
            for layer in layers
        )
    )


def _output_layers(config: Mapping[str, Any]) -> Iterator[str]:
    """The layers that a functional model's outputs come from; none of another model."""

    def names(part: Any) -> Iterator[str]:
        if isinstance(part, list) and len(part) == 3 and isinstance(part[0], str):
            yield part[0]
        elif isinstance(part, (list, dict)):
            for item in part.values() if isinstance(part, dict) else part:
                yield from names(item)

    yield from names(config["config"].get("output_layers"))


def _around(config: Mapping[str, Any], graph: Mapping[str, Any]) -> list[str]:
    """The names of the layers that are not the converted model's: those that no output of it is made of."""
    layers = {layer["config"]["name"]: layer for layer in config["config"].get("layers", ())}
    outputs = {tensor["name"] for tensor in graph["outputs"]}

    def makes(layer: Mapping[str, Any]) -> set[str]:
        return {name for name in layers if f'["{name}", ' in json.dumps(layer.get("inbound_nodes"))}

    own = {name for name in layers if name in outputs or "SentenceEmbedding" in json.dumps(layers[name])}
    while more := {name for layer in own for name in makes(layers[layer])} - own:
        own |= more
    return [name for name in layers if name not in own]


def _loaded(file: Path, kind: str) -> Any:
    try:
        return load_keras_model(file)
    except ArtifactError as error:
        reason = error_text(error.__cause__ or error)[:200]
        raise ArtifactError(
            f"{file}: a {kind} that contains a converted model, and cannot be opened: {reason}\n"
            "Save the converted model that it holds: model.save."
        ) from error


def _encoder(model: Any, graph: Mapping[str, Any], says: str) -> Any:
    """The converted model inside a model, at whatever depth, with its inputs and outputs.

    Raises:
        ArtifactError: if there are several, or it was taken apart.
    """
    keras = import_keras()
    from sbertconv.layers import NamedModel, SentenceEmbedding

    inner = [layer for layer in all_layers(model) if isinstance(layer, keras.Model)]
    holders = [one for one in inner if any(isinstance(layer, SentenceEmbedding) for layer in one.layers)]
    try:
        (holder,) = holders
        tensors = {tensor["name"]: holder.get_layer(tensor["name"]).output for tensor in graph["inputs"]}
        outputs = {tensor["name"]: holder.get_layer(tensor["name"]).output for tensor in graph["outputs"]}
        return NamedModel(tensors, outputs if len(outputs) > 1 else next(iter(outputs.values())), name=graph["name"])
    except (ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{says}; and the converted model was taken apart: {error_text(error)}\nSave the one that to-tf made."
        ) from error


def _classifier(model: Any, manifest: Mapping[str, Any], says: str) -> Any:
    """The whole model as one that gives logits of texts, its manifest changed to say so.

    Raises:
        ArtifactError: if it takes other inputs than the converted model, or gives something else than [batch, labels].
    """
    keras = import_keras()
    from sbertconv.layers import NamedModel, SentenceEmbedding

    (graph,) = manifest["graphs"]
    taken = {tensor.name: tensor for tensor in getattr(model, "inputs", None) or ()}
    names = [tensor["name"] for tensor in graph["inputs"]]
    outputs: list[Any] = list(getattr(model, "outputs", None) or ())
    sized = len(outputs) == 1 and len(outputs[0].shape) == 2 and outputs[0].shape[1] is not None
    if set(taken) != set(names) or not sized:
        raise ArtifactError(
            f"{says}. As a whole it is no classifier of texts, which takes {', '.join(names)} and gives one output "
            f"[batch, labels].\nPass part={ENCODER!r} for the converted model alone."
        )
    logits = outputs[0]
    if model.output_names != [LOGITS]:
        logits = keras.layers.Identity(name=LOGITS, dtype="float32")(logits)
    labels = [f"LABEL_{place}" for place in range(logits.shape[1])]
    kind = class_named(manifest["model_class"], says, ArtifactError)
    shown = {key: value for key, value in manifest.items() if key not in (*kind.keys, "torch_weights")}
    shown |= {
        "model_class": kind.name if kind.output == LOGITS else CLASSIFIER,
        "num_labels": len(labels),
        "labels": labels,
        "activation": "identity",
        "notes": [*manifest["notes"], says.partition(": ")[2]],
        "graphs": [{**graph, "outputs": [{"name": LOGITS, "dtype": "float32", "shape": ["batch", len(labels)]}]}],
    }
    holders = [layer for layer in all_layers(model) if isinstance(layer, SentenceEmbedding)]
    if not holders:
        raise ArtifactError(f"{says}; and nothing that it gives is made of the converted model.\nDo not use this file.")
    for layer in holders:
        kept = {name: data for name, data in layer.files.items() if not name.startswith(OF_THE_ENCODER)}
        layer.files = {**kept, MANIFEST: json.dumps(shown).encode()}
    return NamedModel({name: taken[name] for name in names}, logits, name=graph["name"])
