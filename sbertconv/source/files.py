"""The files of a model folder: JSON that is read, and the files that a module cannot do without."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbertconv.artifact import json_reading
from sbertconv.artifact.folder import inside
from sbertconv.artifact.json_reading import Rule, objects_in
from sbertconv.artifact.kinds import COLBERT_VECS, LEXICAL_WEIGHTS
from sbertconv.artifact.manifest import LONGEST_PROMPT, MOST_PROMPTS, MOST_SPECTRUM
from sbertconv.artifact.tokenizer_file import LARGEST_TOKEN_ID, tokenizer_problems
from sbertconv.errors import ArtifactError, SourceError
from sbertconv.source.chain import ModuleSpec

NEEDS_WEIGHTS = {"Transformer", "MLMTransformer", "CLIPModel", "Dense", "LayerNorm", "LSTM", "CNN", "WordEmbeddings",
                 "WordWeights", "StaticEmbedding", "SparseAutoEncoder", "WeightedLayerPooling"}  # fmt: skip
NEEDS_TOKENIZER = {"Transformer", "MLMTransformer", "StaticEmbedding", "SparseStaticEmbedding"}
INDEX = ".index.json"  # of weights in several files
MOST_FILES = 100_000  # that are looked at; models have up to some hundred
WEIGHT_FILES = ("*.safetensors", "*.bin")
IMAGE_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
PROCESSORS = (*IMAGE_PROCESSORS, "video_preprocessor_config.json", "audio_tokenizer_config.json")
COPY = "Get a complete copy of the model."
HEAD_FILES = {LEXICAL_WEIGHTS: "sparse_linear.pt", COLBERT_VECS: "colbert_linear.pt"}  # output -> the file of its head
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER = "tokenizer.json"
WORDS = ("word_weights", "label2id", "prompts")  # objects whose keys are words, such as a setting's name too
# Weights of a model's top folder that the library reads, or that are the same in another framework's format
KNOWN_WEIGHTS = re.compile(
    r"(model|pytorch_model|adapter_model|consolidated)\b.*|(training_args|optimizer|scheduler|rng_state\w*)\.(pt|pth|bin)"
)
TOKENIZER_SOURCES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


def read_json(path: Path, kind: type = dict) -> Any:
    """The content of a JSON file of a model, an object or something else of `kind`; the keys of an object that are in
    `KEYS` hold what they should, those of `NESTED` at every depth.

    Raises:
        SourceError: if it cannot be read, is not JSON or of another kind, with the place of the fault.
    """
    content = json_reading.read_json(path, kind, SourceError, advice=COPY, unique=False)  # the library takes the last
    if isinstance(content, dict):
        json_reading.check_keys(content, KEYS, path, SourceError, advice=COPY)
        for part in objects_in(content, WORDS) if path.name != TOKENIZER else ():  # whose objects have tokens for keys
            json_reading.check_keys(part, {**_counts(part), **NESTED}, path, SourceError, advice=COPY)
    return content


def _counts(part: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules of an object's counts."""
    return {name: rule for name in part for names, rule in COUNTS.items() if names.fullmatch(name)}


def is_there(path: Path) -> bool:
    """Whether a file is there.

    Raises:
        SourceError: for what has its name and is no file, as a link that leads nowhere: without it the model would be
            another.
    """
    if os.path.lexists(path) and not path.is_file():
        raise SourceError(f"{path}: is no file, or a link that leads to none.\n{COPY}")
    return path.is_file()


def check_entries(folder: Path) -> None:
    """Look at the files of a model that the library opens by itself.

    Raises:
        SourceError: for pipes, devices and sockets, which it would wait for, for weights that an index has outside, and
            for a folder of so many files that it is no model's.
    """
    count = 0
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += len(names) + len(folders)
        if count > MOST_FILES:
            raise SourceError(f"{folder}: holds more than {MOST_FILES:,} files.\nGive the model a folder of its own.")
        for name in names:
            path = Path(here, name)
            if os.path.exists(path) and not path.is_file():
                raise SourceError(f"{path}: is a pipe, a socket or a device, no file.\nDo not use this model.")
            if name.endswith(INDEX):
                for file in read_json(path).get("weight_map", {}).values():
                    _stays(path, file)


def check_tokenizer(path: Path) -> None:
    """Raise SourceError for a tokenizer.json that makes the library panic, or fill the memory; what else is wrong with
    it, the library says itself.
    """
    described = read_json(path)
    try:
        problems = list(tokenizer_problems(described))
    except (TypeError, LookupError, AttributeError):
        return
    if problems:
        raise SourceError(f"{path}: cannot be used: {'; '.join(problems[:5])}.\n{COPY}")


def check_tokenizer_settings(path: Path) -> None:
    """Look at a tokenizer_config.json; of its sides the library takes any for the left one.

    Raises:
        SourceError: as `read_json`, and for numbers that a tokenizer of the library would make as many tokens of.
    """
    content = read_json(path)
    rule = f"a number up to {MOST_TOKENS:,}", lambda value: not is_number(value) or value <= MOST_TOKENS
    numbers = dict.fromkeys([name for name in content if LENGTH not in name], rule)
    json_reading.check_keys(content, numbers, path, SourceError, advice=COPY)


def check_vocabulary(path: Path) -> None:
    """Raise SourceError for a file of tokens and their numbers one of which the library would make a list for that
    fills the memory.
    """
    tokens = json_reading.read_json(path, dict, SourceError, advice=COPY, unique=False)  # their names are no settings'
    beyond = [token for token, number in tokens.items() if not is_count(number) or number >= LARGEST_TOKEN_ID]
    if beyond:
        raise SourceError(
            f"{path}: the number of {beyond[0]!r:.60} is none of a token (have: 0 to {LARGEST_TOKEN_ID - 1:,}).\n{COPY}"
        )


def read_adapter(path: Path) -> dict[str, Any]:
    """The settings of an adapter of PEFT.

    Raises:
        SourceError: as `read_json`, and for adapters that are other adapters from elsewhere.
    """
    content: dict[str, Any] = read_json(path)
    json_reading.check_keys(content, ADAPTERS, path, SourceError, advice=COPY)
    return content


def check_processor(path: Path) -> None:
    """Look at the settings of what the library makes of images and sounds.

    Raises:
        SourceError: for mel filters that would fill the memory, which the library makes while it opens them.
    """
    content = read_json(path)
    for part in objects_in(content):
        json_reading.check_keys(part, SPECTRA, path, SourceError, advice=COPY)
        numbers = {name: value for name, value in part.items() if is_number(value)}
        rows = max([numbers[name] for name in FILTERS if name in numbers], default=0)
        windows = [numbers[name] for name in WINDOWS if name in numbers]
        rate = numbers.get("sampling_rate", USUAL_RATE)
        windows += [numbers[name] * rate / 1000 for name in DURATIONS if name in numbers]
        if max(rows, USUAL_FILTERS) * max(windows, default=0) > MOST_SPECTRUM:
            raise SourceError(
                f"{path}: {max(rows, USUAL_FILTERS):,} mel filters of {max(windows):,.0f} samples are too many (have: "
                f"up to {MOST_SPECTRUM:,} numbers).\n{COPY}"
            )


def _stays(path: Path, file: str) -> None:
    try:
        inside(path.parent, file, path)
    except ArtifactError as error:
        raise SourceError(str(error)) from error


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def some_texts(value: Any) -> bool:
    return bool(value) and texts(value)


def each(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Every value of an object."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def either(*checks: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(check(value) for check in checks)


def one_of(*names: str) -> Rule:
    return ", ".join(names), lambda value: value in names


def or_null(due: str, check: Callable[[Any], bool]) -> Rule:
    return f"{due}, null", lambda value: value is None or check(value)


COUNT = or_null("a whole number that is not negative", is_count)
NUMBER = or_null("a number", is_number)
TEXT = or_null("text", is_text)
FLAG = or_null("true, false", lambda value: isinstance(value, bool))
SIDE = one_of("right", "left")
SIMILARITIES = ("cosine", "dot", "dot_product", "euclidean", "manhattan", "maxsim", "meanmaxsim")

CLASS_OF_TORCH = re.compile(r"torch\.nn\.(modules\.\w+\.)?[A-Z]\w*")
MOST_LAYERS = 1000


def is_activation(value: Any) -> bool:
    """The library calls whatever it finds under a name of torch; other names it leaves out aloud."""
    return is_text(value) and (not value.startswith("torch.") or bool(CLASS_OF_TORCH.fullmatch(value)))


def no_kernel(value: Any) -> bool:
    """A name of transformers: with a slash it is a place on the Hub, from where code would be loaded."""
    return (is_text(value) and "/" not in value) or (isinstance(value, dict) and all(map(no_kernel, value.values())))


OWN_TOKENIZER = re.compile(
    r"(?!sentence_transformers\.).*|.*\.((Whitespace|Phrase|Word)Tokenizer|TransformersTokenizerWrapper)"
)


def is_tokenizer(value: Any) -> bool:
    """The library calls `load` of whatever it finds under a name of its own."""
    return is_text(value) and bool(OWN_TOKENIZER.fullmatch(value))


ACTIVATION = or_null("a name; of torch's, a class of torch.nn", is_activation)
ATTENTION = or_null("a name of transformers, without a slash", no_kernel)
MOST_EXPERTS = 1 << 15


def total(value: Any) -> int:
    """The whole numbers of a setting together, in lists at whatever depth."""
    numbers, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif type(item) is int:
            numbers += abs(item)
    return numbers


def together(most: int) -> Rule:
    """Counts of what a model is made of; what is none, the library says itself."""
    return f"a number up to {most:,}, or numbers of that together", lambda value: total(value) <= most


LAYERS = or_null(
    f"a whole number up to {MOST_LAYERS:,}, or numbers of that together",
    lambda value: (is_count(value) or isinstance(value, list)) and total(value) <= MOST_LAYERS,
)
# Names of counts that models loop over: of layers and the like, each of which may have one for every stage, and experts
COUNTS = {
    re.compile(
        r"(\w+_)?(num|n)_(\w+_)?(layers|blocks|stages|levels|repeats|convs|flows|networks|quantizers|codebooks"
        r"|code_groups|functions|self_attends|upsamples)(_per_\w+)?"
        r"|(\w+_)?(depths?|repeats|[HL]_cycles|(encoder|decoder|predictor|prenet|postnet|[lrx])_layers)"
        r"|block_sizes|blocks_per_stage|stage_num\w*_layers|layers"
    ): together(MOST_LAYERS),
    re.compile(r"(\w+_)?(num|n)_(\w+_)?experts"): together(MOST_EXPERTS),
}

MOST_LABELS = 1_000_000  # transformers makes a name for each
LABELS = or_null(f"a number up to {MOST_LABELS:,}", lambda value: is_number(value) and abs(value) <= MOST_LABELS)
MOST_POSITIONS = 1 << 24  # models make a table of them, whatever their weights are
POSITIONS = or_null(
    f"a number up to {MOST_POSITIONS:,}",
    lambda value: (is_number(value) and abs(value) <= MOST_POSITIONS) or isinstance(value, (list, dict)),
)

# Keywords of from_pretrained() that unpickle, fetch code, or name places on this machine
FOREIGN = re.compile(
    r"weights_only|allow_all_kernels|use_kernels|kernel_config|gguf_file|offload_\w+|quantization_config|device_map"
    r"|adapter_kwargs|state_dict|config|code_revision|key_mapping|ignore_mismatched_sizes|distributed_config|tp_\w+"
    r"|proxies|auto_map|\w+_files?"
)
METHOD = re.compile(r"forward|get_\w+_features")  # of a model: others do more than compute


def is_modality(value: Any) -> bool:
    """How a Transformer asks its model for one kind of input."""
    return (
        isinstance(value, dict)
        and is_text(value.get("method"))
        and bool(METHOD.fullmatch(value["method"]))
        and "method_output_name" in value
        and (value["method_output_name"] is None or is_text(value["method_output_name"]))
        and (value.get("format") is None or is_text(value["format"]))
    )


def is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_count, value))


def replicates_few(value: Any) -> bool:
    """Ranges of layers that an adapter has its base repeat, each of which becomes a copy."""
    pairs = isinstance(value, list) and all(map(is_pair, value))
    return pairs and len(value) <= MOST_LAYERS and sum(max(0, end - start) for start, end in value) <= MOST_LAYERS


KEYWORDS = or_null(
    "an object without keywords that unpickle, fetch code or name places",
    lambda value: isinstance(value, dict) and not any(map(FOREIGN.fullmatch, value)),
)

# Settings of spectrograms under the names of the library's feature extractors: filters, and samples of a window
FILTERS = ("feature_size", "num_mel_bins", "num_mel_filters", "n_mels", "num_mels", "num_chroma")
WINDOWS = ("n_fft", "fft_window_size", "fft_length", "win_length", "window_size", "frame_length", "num_frequency_bins",
           "num_spectrogram_bins")  # fmt: skip
DURATIONS = ("frame_length_ms", "win_length")  # in ms; the second one is in either
USUAL_RATE, USUAL_FILTERS = 48_000, 128  # where a file leaves them out
MOST_FILTERS, LONGEST_WINDOW, HIGHEST_RATE = 1024, 1 << 16, 1_000_000  # as a manifest has them


def at_most(most: int) -> Rule:
    """A number in a range; what is none, the library says itself."""
    return f"a number from 0 to {most:,}", lambda value: not is_number(value) or 0 <= value <= most


MOST_TOKENS = 1_000_000  # that a tokenizer adds by its settings; models have up to some hundred
LENGTH = "max_len"  # of a text, under several names: often 1e30, and nothing is made of it

SPECTRA: dict[str, Rule] = {
    **dict.fromkeys(FILTERS, at_most(MOST_FILTERS)),
    **dict.fromkeys((*WINDOWS, *DURATIONS), at_most(LONGEST_WINDOW)),
    "sampling_rate": at_most(HIGHEST_RATE),
}

ADAPTERS: dict[str, Rule] = {
    "adapters": ("null: an adapter has its own weights", lambda value: value is None),
}

# What a config says at any depth: counts of what models loop over, and code of the Hub
NESTED: dict[str, Rule] = {
    **dict.fromkeys(("attn_implementation", "_attn_implementation", "_attn_implementation_internal"), ATTENTION),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers",
                     "num_encoder_layers", "num_decoder_layers", "num_hidden_groups", "inner_group_num", "num_blocks",
                     "n_blocks", "num_stages", "depth", "num_repeat_blocks"), LAYERS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len"), POSITIONS),
    "num_labels": LABELS,
    "backbone": or_null("a name without a slash: a model has its own parts", no_kernel),
    "audio_tokenizer_name_or_path": ("null: a model has its own parts", lambda value: value is None),
}  # fmt: skip

# What is read of a model's files before the library reads them, or read in silence by it: key -> what it holds
KEYS: dict[str, Rule] = {
    **dict.fromkeys(("model_type", "default_prompt_name", "transformer_task", "module_output_name"), TEXT),
    **dict.fromkeys(("activation_fn", "sbert_ce_default_activation_function"), ACTIVATION),
    **NESTED,
    **dict.fromkeys(("model_args", "model_kwargs", "processor_kwargs", "tokenizer_args", "config_args",
                     "config_kwargs"), KEYWORDS),
    "model_max_length": NUMBER,
    "tokenizer_name_or_path": ("null: a model has its own tokenizer", lambda value: value is None),
    "path": ("null: a module has its own weights", lambda value: value is None),
    "tokenizer_class": or_null("a name; of sentence-transformers, a tokenizer", is_tokenizer),
    "megatron_core": ("megatron.core, null", lambda value: value in (None, "megatron.core")),
    "out_features": or_null("a whole number that is not negative, a list of texts", either(is_count, some_texts)),
    **dict.fromkeys(("in_features", "hidden_dim", "out_channels", "embedding_dimension", "k",
                     "word_embedding_dimension", "sentence_embedding_dimension", "max_seq_length", "max_active_dims",
                     "truncate_dim"), COUNT),
    **dict.fromkeys(("bidirectional", "do_lower_case"), FLAG),
    **dict.fromkeys(("padding_side", "truncation_side"), SIDE),
    "activation_function": or_null("a name; of torch's, a class of torch.nn; an object", either(is_activation, each(
        lambda value: True))),
    "architectures": or_null("a list of texts", texts),
    "auto_map": or_null("an object", each(lambda value: True)),
    "id2label": or_null("an object of texts", each(is_text)),
    "layer_replication": or_null(f"pairs of numbers of layers, up to {MOST_LAYERS:,} together", replicates_few),
    "kernel_sizes": ("a list of whole numbers", lambda value: isinstance(value, list) and all(map(is_count, value))),
    "pooling_mode": or_null("text, a list of texts", either(is_text, texts)),
    "modality_config": or_null(
        "an object of objects, each with a method, forward or get_*_features, and a method_output_name",
        lambda value: isinstance(value, dict) and bool(value) and all(map(is_modality, value.values())),
    ),
    "processing_kwargs": or_null("an object of objects", each(lambda value: isinstance(value, dict))),
    "prompts": or_null(
        f"an object of up to {MOST_PROMPTS:,} texts of up to {LONGEST_PROMPT:,} characters",
        lambda value: each(lambda text: is_text(text) and len(text) <= LONGEST_PROMPT)(value)
        and len(value) <= MOST_PROMPTS,
    ),
    "sentence_transformers": or_null(
        "an object, with an activation_fn of torch.nn",
        lambda value: isinstance(value, dict) and is_activation(value.get("activation_fn") or ""),
    ),
    "similarity_fn_name": or_null(
        ", ".join(SIMILARITIES), lambda value: is_text(value) and value.lower() in SIMILARITIES
    ),
    "structure": ("an object of lists of texts", each(texts)),
    "text_config": or_null("an object", each(lambda value: True)),
    "weight_map": ("an object of texts", each(is_text)),
    "types": ("an object of texts", each(is_text)),
}  # fmt: skip


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


def unread_weights(folder: Path) -> list[str]:
    """Weights beside a model that neither a module of it nor a known head reads."""
    files = (file.name for ending in ("pt", "pth", "bin", "safetensors") for file in folder.glob(f"*.{ending}"))
    return sorted(name for name in files if not KNOWN_WEIGHTS.fullmatch(name) and name not in HEAD_FILES.values())


def heads_in(folder: Path) -> list[str]:
    """The outputs that heads beside a model can give."""
    return [output for output, file in HEAD_FILES.items() if is_there(folder / file)]


def _any(folder: Path, patterns: Sequence[str]) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def _unknown_architecture(folder: Path) -> list[str]:
    config_file = folder / "config.json"
    if not is_there(config_file):
        return [] if (folder / ADAPTER_CONFIG).is_file() else ["no config.json"]
    config = read_json(config_file)
    if "auto_map" in config:
        return []
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = config.get("model_type")
    if model_type in CONFIG_MAPPING:
        return []
    return [f"architecture {model_type!r} is not known to transformers {__version__}"]
