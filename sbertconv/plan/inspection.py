"""`sbertconv inspect`: a model described from its files (or from a live object), without its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sbertconv.artifact.text_input import LARGEST_LIMIT
from sbertconv.plan.outputs import activation_name, label_names
from sbertconv.plan.planning import plan_files
from sbertconv.plan.registry import Registry
from sbertconv.runtime.maxsim import SIMILARITIES as MAXSIM
from sbertconv.source.description import OWN_TYPES
from sbertconv.source.files import read_json
from sbertconv.source.opening import Source


def describe(source: Source, registry: Registry) -> dict[str, Any]:
    """Everything `inspect` prints, as plain types."""
    plans = {backend: plan_files(source, backend, registry) for backend in registry.backends}
    transformers_config = _transformers_config(source)
    settings = source.settings
    live = source.live
    return {
        "name": source.name,
        "revision": source.revision,
        "modules": [
            {
                "label": spec.label,
                "name": spec.name,
                "type": spec.type,
                "settings": dict(spec.settings),
                "backends": {
                    backend: {"by": plan.steps[index].by, "problem": plan.steps[index].problem}
                    for backend, plan in plans.items()
                },
            }
            for index, spec in enumerate(source.modules)
        ],
        "architecture": transformers_config.get("model_type"),
        "tokenizer": _tokenizer_kind(source),
        "model_class": source.model_class.name,
        "max_seq_length": _max_seq_length(source, transformers_config),
        "prompts": dict(live.prompts if live else settings.get("prompts") or {}),
        "default_prompt_name": live.default_prompt_name if live else settings.get("default_prompt_name"),
        **DESCRIPTIONS[source.model_class.name](source),
        "notes": list(source.notes),
    }


def about_embeddings(source: Source) -> dict[str, Any]:
    """What only a SentenceTransformer has."""
    live, settings = source.live, source.settings
    return {
        "embedding_dimension": live.get_embedding_dimension() if live else _dimension(source),
        "similarity_fn_name": live.similarity_fn_name if live else settings.get("similarity_fn_name") or "cosine",
        "truncate_dim": live.truncate_dim if live else settings.get("truncate_dim"),
    }


def about_sparse_embeddings(source: Source) -> dict[str, Any]:
    """What only a SparseEncoder has."""
    live, settings = source.live, source.settings
    own = [spec.settings.get("k") for spec in source.modules if spec.name == "SparseAutoEncoder"]
    return {
        "embedding_dimension": (live and live.get_embedding_dimension()) or _dimension(source),
        "similarity_fn_name": live.similarity_fn_name if live else settings.get("similarity_fn_name") or "dot",
        "max_active_dims": live.max_active_dims if live else settings.get("max_active_dims", next(iter(own), None)),
    }


def about_token_embeddings(source: Source) -> dict[str, Any]:
    """What only a MultiVectorEncoder has."""
    live: Any = source.live
    name = live.similarity_fn_name if live else source.settings.get("similarity_fn_name")
    return {
        "embedding_dimension": live.get_embedding_dimension() if live else _dimension(source),
        "similarity_fn_name": name if name in MAXSIM else next(iter(MAXSIM)),  # files may have one of whole texts
    }


def about_predictions(source: Source) -> dict[str, Any]:
    """What only a CrossEncoder or a classifier has; the activation of a model on disk is known once it is loaded."""
    if source.live is not None:
        live: Any = source.live
        return {
            "num_labels": live.num_labels,
            "labels": label_names(live),
            "activation": activation_name(live.activation_fn),
        }
    heads = [spec.settings for spec in source.modules if spec.settings.get("module_output_name") == "scores"]
    dense = [settings["out_features"] for settings in heads if "out_features" in settings]
    dense += [1 for spec in source.modules if spec.name == "LogitScore"]
    names = _transformers_config(source).get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    labels = (
        [f"LABEL_{place}" for place in range(dense[-1])]
        if dense
        else [names.get(str(i), f"LABEL_{i}") for i in range(len(names))]
    )
    path = source.settings.get("activation_fn")
    return {"num_labels": len(labels), "labels": labels, "activation": path and path.rsplit(".", 1)[-1].lower()}


def _folders(source: Source) -> list[Path]:
    """The folders of the modules in order, or none for a live object."""
    return [source.folder / spec.path for spec in source.modules] if source.folder else []


def _transformers_config(source: Source) -> Mapping[str, Any]:
    if source.live is not None:
        config = getattr(source.live, "config", None)
        return config.to_dict() if config is not None else {}
    for folder in _folders(source):
        if (folder / "config.json").is_file():
            config = read_json(folder / "config.json")
            if isinstance(config, dict) and "model_type" in config:
                return config
    return {}


def _tokenizer_kind(source: Source) -> str | None:
    """The model inside tokenizer.json (WordPiece, BPE, Unigram, ...), or the file that stands for one."""
    if source.live is not None:
        tokenizer = getattr(source.live, "tokenizer", None)
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        return type(getattr(backend, "model", tokenizer)).__name__ if tokenizer is not None else None
    for folder in _folders(source):
        if (folder / "tokenizer.json").is_file():
            model = read_json(folder / "tokenizer.json").get("model")
            return str(model["type"]) if isinstance(model, dict) and "type" in model else None
        for name in ("vocab.txt", "whitespacetokenizer_config.json", "phrasetokenizer_config.json", "vocab.json"):
            if (folder / name).is_file():
                return name
        for file in folder.glob("*.model"):
            return file.name
    return None


def _dimension(source: Source) -> int | None:
    """What the last module that sets the dimension says, without its weights; None if only loading it can tell."""
    found = None
    for spec in reversed(source.modules):
        own = spec.type.startswith(OWN_TYPES)
        if not (own and spec.name in KEEP_DIMENSION):
            measure = DIMENSIONS.get(spec.name, STATED) if own else STATED
            found = measure(spec.settings, source.folder / spec.path.lstrip("/")) if source.folder else None
            break
    sizes = [size for size in (found, source.settings.get("truncate_dim")) if size is not None]
    return min(sizes, default=None)


Dimension = Callable[[Mapping[str, Any], Path], int | None]  # a module's settings and folder -> what it gives


def _setting(*names: str) -> Dimension:
    """The first of these settings that is a number."""
    return lambda settings, folder: next((settings[n] for n in names if isinstance(settings.get(n), int)), None)


def _size(names: set[str], axis: int) -> Dimension:
    """The size of a table of one of these names along an axis, from the header of the weights; None if it has none."""

    def found(settings: Mapping[str, Any], folder: Path) -> int | None:
        from safetensors import SafetensorError, safe_open

        with suppress(OSError, SafetensorError), safe_open(folder / "model.safetensors", "numpy") as weights:
            for name in names & set(weights.keys()):
                shape = weights.get_slice(name).get_shape()
                return int(shape[axis]) if axis < len(shape) else None
        return None

    return found


def _hidden_size(settings: Mapping[str, Any], folder: Path) -> int | None:
    """As the library chooses it: the projection if the transformer gives the embedding itself, the vocabulary if it
    gives logits, or the hidden size.
    """
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if settings.get("transformer_task") == "fill-mask":
        return _setting("vocab_size")(config, folder)
    projected = settings.get("module_output_name") == "sentence_embedding"
    names = ("projection_dim",) * projected + ("hidden_size", "dim", "d_model", "n_embd", "emb_dim")
    sizes = [_setting(*names)(part, folder) for part in (config, config.get("text_config") or {})]
    return next((size for size in sizes if size), None)


def _pooled(settings: Mapping[str, Any], folder: Path) -> int | None:
    """Every mode gives one vector; the pooling assumed for a bare checkpoint lies in the transformer's own folder."""
    dimension = _setting("embedding_dimension", "word_embedding_dimension")(settings, folder)
    dimension = dimension or _hidden_size(settings, folder)
    return dimension * _modes(settings) if dimension else None


def _modes(settings: Mapping[str, Any]) -> int:
    """How many pooling modes are concatenated, in the new form (a name or a list) or the old (flags)."""
    modes = settings.get("pooling_mode")
    if isinstance(modes, str):
        return 1
    if modes:
        return len(modes)
    return sum(bool(v) for k, v in settings.items() if k.startswith("pooling_mode_")) or 1


EMBEDDING_TABLES = {"embedding.weight", "embeddings", "emb_layer.weight"}
# the modules of a router stand behind it
KEEP_DIMENSION = {
    "Normalize", "Dropout", "WordWeights", "SpladePooling", "Router", "Asym", "MultiVectorMask",
    "HierarchicalTokenPooling",
}  # fmt: skip
STATED = _setting("out_features", "embedding_dimension", "sentence_embedding_dimension")
DIMENSIONS: Mapping[str, Dimension] = {
    "Transformer": _hidden_size,
    "CLIPModel": lambda settings, folder: _hidden_size({"module_output_name": "sentence_embedding"}, folder),
    "MLMTransformer": lambda settings, folder: _hidden_size({"transformer_task": "fill-mask"}, folder),
    "SparseStaticEmbedding": _size({"weight"}, 0),  # one for each token
    "SparseAutoEncoder": _setting("hidden_dim"),
    "StaticEmbedding": _size(EMBEDDING_TABLES, 1),
    "WordEmbeddings": _size(EMBEDDING_TABLES, 1),
    "WeightedLayerPooling": _setting("embedding_dimension", "word_embedding_dimension"),
    "BoW": lambda settings, folder: len(settings["vocab"]) if isinstance(settings.get("vocab"), list) else None,
    "LSTM": lambda settings, folder: (
        (settings.get("hidden_dim") or 0) * (2 if settings.get("bidirectional", True) else 1) or None
    ),
    "CNN": lambda settings, folder: (settings.get("out_channels") or 0) * len(settings.get("kernel_sizes", ())) or None,
    "Pooling": _pooled,
    "Dense": _setting("out_features"),
    "LayerNorm": _setting("dimension"),
}


def _max_seq_length(source: Source, config: Mapping[str, Any]) -> int | None:
    if source.live is not None:
        candidates = [source.live.max_seq_length]
    else:
        tokenizers = (folder / "tokenizer_config.json" for folder in _folders(source))
        candidates = [
            *(spec.settings.get("max_seq_length") for spec in source.modules),
            *(read_json(file).get("model_max_length") for file in tokenizers if file.is_file()),
            config.get("max_position_embeddings"),
        ]
    return next((int(c) for c in candidates if isinstance(c, (int, float)) and 0 <= c < LARGEST_LIMIT), None)


DESCRIPTIONS: Mapping[str, Callable[[Source], dict[str, Any]]] = {
    "SentenceTransformer": about_embeddings,
    "SparseEncoder": about_sparse_embeddings,
    "CrossEncoder": about_predictions,
    "TextClassifier": about_predictions,
    "MultiVectorEncoder": about_token_embeddings,
}
