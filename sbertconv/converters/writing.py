"""What every artifact holds beside its graphs: tokenizer files, module configs, the manifest's content."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from sbertconv.artifact.card import license_in
from sbertconv.artifact.json_reading import read_json
from sbertconv.artifact.kinds import EXACT
from sbertconv.artifact.manifest import TokenizerSection
from sbertconv.artifact.publishing import Staging
from sbertconv.converters.settings import model_settings, route_settings
from sbertconv.frameworks import version_of
from sbertconv.plan.planning import Plan
from sbertconv.plan.preprocessing import token_limit
from sbertconv.plan.routes import PlannedRoute
from sbertconv.runtime.engines import ENGINES
from sbertconv.source.hearing import table_rows
from sbertconv.source.opening import Source, module_settings
from sbertconv.source.st_compat import model_config

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# What writes the rest of an artifact without the original: takes what the manifest gains once that has answered, and
# returns the whole of its content
Finish = Callable[[Mapping[str, Any]], dict[str, Any]]
OLD_TYPES = ("BoW", "CLIPModel", "CNN", "Dense", "Dropout", "LayerNorm", "LSTM", "Normalize", "Pooling", "Transformer",
             "WeightedLayerPooling", "WordEmbeddings", "WordWeights")  # fmt: skip
TRANSFORMER_CONFIG = "sentence_bert_config.json"
POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def manifest_content(
    source: Source,
    model: SentenceTransformer,
    plan: Plan,
    graphs: Sequence[Mapping[str, Any]],
    engines: Mapping[str, Sequence[str]],
    packages: Sequence[str],
    **more: Any,
) -> dict[str, Any]:
    """The manifest, apart from files and parity.

    Args:
        source: the model's name and where it came from.
        model: the loaded model.
        plan: how it was converted.
        graphs: the entries of `route_content`, the default route first.
        engines: format -> the engines that it will be proven on.
        packages: whose versions it says.
        more: what only this backend says.
    """
    left = {one for one in model.modalities if isinstance(one, str)} - {"message", *(r.modality for r in plan.routes)}
    return {
        "sbertconv": version_of("sbertconv"),
        "model_class": source.model_class.name,
        "backend": plan.backend,
        "source": {"name": source.name, "revision": source.revision, "license": license_in(source.folder)},
        "notes": list(dict.fromkeys([*source.notes, *source.heard])),
        **model_settings(source, model, plan.routes[0].architecture, graphs),
        "precision": EXACT,
        "sees_padding": True,  # until it was measured
        "engines": {form: list(names) for form, names in engines.items()},
        "proven_on": proven_on(name for names in engines.values() for name in names),
        **more,
        **({"not_converted": sorted(left)} if left else {}),
        "graphs": list(graphs),
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in packages}},
    }


def proven_on(engines: Iterable[str]) -> dict[str, str]:
    """Engine -> its version and processor here, where the comparison runs on CPUs alone."""
    versions = {name: version_of(ENGINES[name].package) for name in engines}
    return {name: f"{version} on CPU, {platform.machine()}" for name, version in versions.items() if version}


def route_content(
    route: PlannedRoute,
    formats: Mapping[str, str],
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    tokenizer: Mapping[str, Any] | None,
    **more: Any,
) -> dict[str, Any]:
    """The manifest's entry for one route's graph.

    Args:
        route: the route.
        formats: format -> the file it is written to.
        inputs: name, dtype and shape of each.
        outputs: the same of each.
        tokenizer: what `write_tokenizer` returned.
        more: what only this backend says.
    """
    return {
        "formats": dict(formats),
        **more,
        "inputs": [{**entry, **bound(route, entry["name"])} for entry in inputs],
        "outputs": list(outputs),
        **route_settings(route, tokenizer),
    }


def bound(route: PlannedRoute, name: str) -> dict[str, int]:
    """What the numbers of an input are smaller than, where that is known: engines read past a table without a word."""
    module: Any = route.modules[0][1]
    rows = {"input_ids": table_rows(module)}.get(name) if route.modality == "text" else None
    return {} if rows is None else {"below": rows}


def graph_name(route: str, is_default: bool) -> str:
    """The name that a route's files have in common."""
    return "model" if is_default else f"model_{route}"


def write_tokenizer(route: PlannedRoute, is_default: bool, staging: Staging) -> TokenizerSection | None:
    """The route's tokenizer files: at the top for the default route, in the route's folder where they differ."""
    if route.input is None or route.modality != "text":
        return None
    section, files = cast("TokenizerSection", dict(route.input.section)), route.input.files
    top = staging.folder / section["file"]
    shared = top.is_file() and top.read_text(encoding="utf-8") == files[section["file"]]
    if shared and not is_default:
        return section
    folder = "" if is_default else f"{route.name}/"
    for name, text in files.items():
        staging.write(f"{folder}{name}", text)
    return {**section, "file": f"{folder}{section['file']}"}


def write_module_configs(model: SentenceTransformer, staging: Staging) -> None:
    """config.json, modules.json and each module's config, under the names that older readers know."""
    entries = []
    for index, (name, module) in enumerate(model.named_children()):
        type_ = type(module).__name__
        path = "" if getattr(module, "save_in_root", False) else f"{index}_{type_}"
        family = "sentence_transformers.models" if type_ in OLD_TYPES else type(module).__module__
        entries.append({"idx": index, "name": name, "path": path, "type": f"{family}.{type_}"})
        config = dict(module_settings(module))
        file = getattr(module, "config_file_name", "config.json")
        if type_ == "Pooling":
            config |= old_pooling_flags(config)
        if file == TRANSFORMER_CONFIG:
            config |= old_transformer_settings(module)
        if config or path:
            staging.write(f"{path}/{file}".lstrip("/"), to_json(config))
        transformers_config: Any = getattr(module, "config", None)
        if hasattr(transformers_config, "to_json_string") and not path:
            staging.write("config.json", transformers_config.to_json_string())
    staging.write("modules.json", to_json(entries))
    staging.write("config_sentence_transformers.json", to_json(model_config(model)))


def cut_files(staging: Staging, graphs: Iterable[Mapping[str, Any]], length: int) -> None:
    """Lower the limit in every file that says one: readers of the folder go by those, and know no `proven_length`.

    Args:
        staging: the written folder.
        graphs: the manifest's entries; their own limits stay, for `beyond_proof`.
        length: the most tokens of a text.
    """
    sections = [graph["tokenizer"] for graph in graphs if graph["tokenizer"] is not None]
    for file in {section["file"] for section in sections if section["kind"] == "fast"}:
        described = read_json(staging.folder / file, dict)
        if described.get("truncation"):
            described["truncation"]["max_length"] = min(described["truncation"]["max_length"], length)
            staging.write(file, to_json(described))
    for name, key in {"tokenizer_config.json": "model_max_length", TRANSFORMER_CONFIG: "max_seq_length"}.items():
        for path in staging.folder.rglob(name):
            settings = read_json(path, dict)
            if settings.get(key) is not None:
                cut = {**settings, key: min(settings[key], length)}
                staging.write(path.relative_to(staging.folder).as_posix(), to_json(cut))


def old_pooling_flags(config: Mapping[str, Any]) -> dict[str, Any]:
    """What readers of the format before version 5 look for: a size and one flag per pooling mode."""
    modes = config["pooling_mode"]
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    return {
        "word_embedding_dimension": config["embedding_dimension"],
        **{flag: mode in modes for mode, flag in POOLING_FLAGS.items()},
    }


def old_transformer_settings(module: Any) -> dict[str, Any]:
    """What readers of the format before version 5 require: the limit in tokens and whether texts are lowered. Without
    a limit it is what the position table holds; None: neither is there, nor is any of a model of images alone.
    """
    length = None if module.tokenizer is None else token_limit(module, module.tokenizer)
    if length is None:
        table = getattr(module.config.get_text_config(), "max_position_embeddings", None)
        length = table if table and table > 0 else None  # XLNet says -1
    return {"max_seq_length": length, "do_lower_case": bool(getattr(module, "do_lower_case", False))}


def to_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
