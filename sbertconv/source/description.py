"""The description of a model folder: its small JSON files, each looked at before the library opens it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sbertconv.artifact.folder import given_path
from sbertconv.errors import SourceError, error_text, missing_packages
from sbertconv.source.chain import ModuleSpec
from sbertconv.source.files import (
    ADAPTER_CONFIG,
    PROCESSORS,
    TOKENIZER,
    check_entries,
    check_processor,
    check_tokenizer,
    check_tokenizer_settings,
    check_vocabulary,
    is_there,
    read_adapter,
    read_json,
)
from sbertconv.source.hub_answers import DESCRIPTION, looked_at

OWN_TYPES = "sentence_transformers."
CONFIG = "config.json"
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Class of the library -> the files of its settings, of which it takes the first that says something; the others have
# them in config.json
SETTINGS_FILES = {
    **dict.fromkeys(("Transformer", "MLMTransformer", "CLIPModel"), TRANSFORMER_SETTINGS),
    **dict.fromkeys(("Router", "Asym"), ("router_config.json", CONFIG)),
    "CNN": ("cnn_config.json",),
    "LSTM": ("lstm_config.json",),
    "WordEmbeddings": ("wordembedding_config.json",),
}
EVERY_SETTINGS = tuple(dict.fromkeys(file for files in SETTINGS_FILES.values() for file in files if file != CONFIG))
SAME_TYPES = {"pylate.models.Dense.Dense": "sentence_transformers.base.modules.dense.Dense"}  # as the library has it
TOKENIZER_CONFIG = "tokenizer_config.json"
VOCABULARIES = ("vocab.json", "added_tokens.json")  # token -> its number
DEEPEST_ROUTER = 4
MOST_MODULES = 100  # models have up to ten; each may be the same small file again


def read_modules(folder: Path) -> Iterator[ModuleSpec]:
    """The specs of modules.json, routers opened up."""
    entries = read_json(folder / "modules.json", object)
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise SourceError(
            f"{folder / 'modules.json'}: not a list of modules with type and path.\nGet a complete copy of the model."
        )
    for index, entry in enumerate(entries):
        type_ = SAME_TYPES.get(entry["type"], entry["type"])
        yield from _read_module(folder, str(entry.get("name", index)), type_, entry["path"])


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("type", "path"))


def read_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """The settings of modules in a folder, file by file: whichever of them the library opens, it has been looked at."""
    return {name: read_json(folder / name) for name in (*EVERY_SETTINGS, CONFIG) if is_there(folder / name)}


def check_preprocessing(folder: Path) -> None:
    """Look at the files of tokenizers, processors and adapters that the library opens by itself, and at those of the
    model that an adapter is for.

    Raises:
        SourceError: for what it would take for something else, or panic of; for a base that cannot be read.
    """
    seen: set[Path] = set()
    here: Path | None = folder
    while here is not None and here.resolve() not in seen:
        seen.add(here.resolve())
        _check_files(here)
        if (here := base_of(here)) is not None:
            check_entries(here)
            read_settings(here)


def base_name(folder: Path) -> str | None:
    """The name of the model that an adapter is for; None for no adapter, and where PEFT is not there to read it."""
    adapter = read_adapter(folder / ADAPTER_CONFIG) if is_there(folder / ADAPTER_CONFIG) else {}
    base = adapter.get("base_model_name_or_path")
    return base if isinstance(base, str) and base and not missing_packages("peft") else None


def base_of(folder: Path) -> Path | None:
    """The folder of the model that an adapter is for, or of its description on the Hub; None without an adapter."""
    base = base_name(folder)
    if base is None or given_path(base, SourceError).is_dir():
        return None if base is None else Path(base)
    try:
        return description_on_hub(base, None)  # whatever revision the adapter names, as the library has it
    except Exception as error:
        raise SourceError(
            f"{folder / ADAPTER_CONFIG}: its base {base!r} is no folder, and the Hub does not give it: "
            f"{error_text(error, 3)}\nGet the base, or merge the adapter into it and save that."
        ) from error


def _check_files(folder: Path) -> None:
    if is_there(folder / TOKENIZER_CONFIG):
        check_tokenizer_settings(folder / TOKENIZER_CONFIG)
    if is_there(folder / TOKENIZER):
        check_tokenizer(folder / TOKENIZER)
    for name in VOCABULARIES:
        if is_there(folder / name):
            check_vocabulary(folder / name)
    for name in PROCESSORS:
        if is_there(folder / name):
            check_processor(folder / name)


def _read_module(folder: Path, label: str, type_: str, path: str) -> Iterator[ModuleSpec]:
    if label.count(".") > 2 * DEEPEST_ROUTER:
        raise SourceError(f"{folder}: routers inside routers, more than {DEEPEST_ROUTER} deep.\nDo not use this model.")
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or not path.isprintable():
        raise SourceError(
            f"{folder / 'modules.json'}: module [{label}] has the path {path!r}, which leaves the folder.\n"
            "Do not use this model."
        )
    here = folder / path
    if path not in ("", ".") and here.is_dir():
        check_entries(here)  # those of a folder that is a link, or hidden, are not among those of the model's
    found = read_settings(here)
    of_others = (*EVERY_SETTINGS, CONFIG) if not type_.startswith(OWN_TYPES) else (CONFIG,)
    names = SETTINGS_FILES.get(type_.rsplit(".", 1)[-1], of_others)
    file, settings = next(((name, found[name]) for name in names if found.get(name)), ("", {}))
    check_preprocessing(here)
    yield ModuleSpec(label, type_, path, settings)
    types, structure = settings.get("types") or {}, settings.get("structure") or {}
    if loose := sorted(set(types) ^ {name for nested in structure.values() for name in nested}):
        raise SourceError(
            f"{here}: {file}: {', '.join(map(repr, loose[:5]))}: in one of types and structure alone.\n"
            "Get a complete copy of the model."
        )
    for route, nested in structure.items():
        for index, name in enumerate(nested):
            yield from _read_module(folder, f"{label}.{route}.{index}", types[name], f"{path}/{name}".lstrip("/"))


def description_on_hub(name: str, revision: str | None) -> Path:
    """The folder of a model's small files in the Hub's cache, fetched if it may be."""
    from huggingface_hub import snapshot_download

    return looked_at(name, lambda: snapshot_download(name, revision=revision, allow_patterns=DESCRIPTION))
