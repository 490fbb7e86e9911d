"""The files of a model folder: JSON that is read, and the files that a module cannot do without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sbertconv.errors import SourceError
from sbertconv.source.chain import ModuleSpec

NEEDS_WEIGHTS = {"Transformer", "MLMTransformer", "CLIPModel", "Dense", "LayerNorm", "LSTM", "CNN", "WordEmbeddings",
                 "WordWeights", "StaticEmbedding", "SparseAutoEncoder", "WeightedLayerPooling"}  # fmt: skip
NEEDS_TOKENIZER = {"Transformer", "MLMTransformer", "StaticEmbedding", "SparseStaticEmbedding"}
WEIGHT_FILES = ("*.safetensors", "*.bin")
IMAGE_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_SOURCES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


def read_json(path: Path, kind: type = dict) -> Any:
    """The content of a JSON file that holds an object, or anything of `kind`.

    Raises:
        SourceError: if it cannot be read, is not JSON or of another kind, with the place of the fault.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: not readable as JSON: {error}\nGet a complete copy of the model.") from error
    if not isinstance(content, kind):
        raise SourceError(
            f"{path}: holds a {type(content).__name__}, not a {kind.__name__}.\nGet a complete copy of the model."
        )
    return content


def missing_files(folder: Path, spec: ModuleSpec) -> list[str]:
    """What a known module type cannot do without."""
    here = folder / spec.path if spec.path not in ("", ".") else folder
    where = f"[{spec.label}] {spec.name} in {spec.path or '.'}"
    if spec.path and spec.name in NEEDS_WEIGHTS and not here.is_dir():
        return [f"{where}: the folder is missing"]
    found: list[str] = []
    if spec.name in NEEDS_WEIGHTS and not _any(here, WEIGHT_FILES):
        found.append(f"{where}: no weights (model.safetensors or pytorch_model.bin)")
    if spec.name in NEEDS_TOKENIZER and not _any(here, (*TOKENIZER_SOURCES, *IMAGE_PROCESSORS)):
        found.append(f"{where}: no tokenizer (tokenizer.json, vocab.txt or a SentencePiece model)")
    if spec.name in ("Transformer", "MLMTransformer"):
        found += [f"{where}: {problem}" for problem in _unknown_architecture(here)]
    return found


def _any(folder: Path, patterns: Sequence[str]) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def _unknown_architecture(folder: Path) -> list[str]:
    config_file = folder / "config.json"
    if not config_file.is_file():
        return [] if (folder / "adapter_config.json").is_file() else ["no config.json"]
    config = read_json(config_file)
    if "auto_map" in config:
        return []
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = config.get("model_type")
    if model_type in CONFIG_MAPPING:
        return []
    return [f"architecture {model_type!r} is not known to transformers {__version__}"]
