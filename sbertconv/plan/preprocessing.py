"""What an input module does to a text before the graph, written down for the run time.

`describe_input` turns the tokenizer that a model really uses into the manifest's `tokenizer` entry and the
files that `sbertconv.tokenization` reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sbertconv.artifact.json_reading import parse_json, read_json
from sbertconv.artifact.scoring import TASKS
from sbertconv.artifact.scratch import scratch_folder
from sbertconv.artifact.text_input import LARGEST_LIMIT
from sbertconv.artifact.tokenizer_file import read_tokenizer
from sbertconv.errors import UnsupportedOptionError, error_text
from sbertconv.plan.templates import adds_special_tokens, compiled_templates, framed_texts

NO_LIMIT = int(1e30)  # as transformers writes it, and its readers expect it
# What transformers writes into tokenizer_config.json of one call or of one loading: readers take it for a setting of
# the tokenizer, `max_length` even for a limit
NOT_SETTINGS = frozenset({
    "backend", "cache_dir", "force_download", "is_local", "local_files_only", "max_length", "pad_to_multiple_of",
    "padding", "padding_strategy", "return_tensors", "revision", "stride", "subfolder", "token", "tokenizer_file",
    "truncation", "truncation_strategy", "trust_remote_code",
})  # fmt: skip


@dataclass(frozen=True)
class InputDescription:
    """The manifest's `tokenizer`, `sound` or `wave` entry and the files it needs, by their name in the artifact."""

    section: Mapping[str, Any]
    files: Mapping[str, str]
    entry: str = "tokenizer"


def describe_input(module: torch.nn.Module) -> InputDescription:
    """Describe the tokenizer of the first module of a route.

    Raises:
        UnsupportedOptionError: if the tokenizer is of a kind that the run time cannot reproduce.
    """
    tokenizer = getattr(module, "tokenizer", None)
    for base in (*type(module).__mro__, *type(tokenizer).__mro__):
        if describe := DESCRIBERS.get(base.__name__):
            try:
                return describe(module, tokenizer)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
                raise UnsupportedOptionError(
                    f"tokenizer {type(tokenizer).__name__}: the library cannot save or describe it: {error_text(error)}"
                ) from error
    raise UnsupportedOptionError(
        f"tokenizer {type(tokenizer).__name__} is not supported (have: {', '.join(DESCRIBERS)})"
    )


def limit(length: Any) -> int | None:
    """A length limit in tokens, None for the libraries' ways to say "none".

    Raises:
        UnsupportedOptionError: for one that is no number, or leaves nothing of a text.
    """
    if length is None:
        return None
    try:
        fits = bool(length >= 1)  # NaN does not
    except TypeError:
        fits = False
    if not fits:
        raise UnsupportedOptionError(f"a limit of {length!r} tokens leaves nothing of a text")
    return None if length > LARGEST_LIMIT else int(length)


def token_limit(module: torch.nn.Module, tokenizer: Any) -> int | None:
    """The most tokens that encode() gives the model, where no task has a limit of its own."""
    options = text_options(module)
    if options.get("truncation", True) in UNCUT:
        return None
    length = options.get("max_length")
    return limit(tokenizer.model_max_length if length is None else length)


def text_options(module: torch.nn.Module) -> dict[str, Any]:
    """The keywords with which a module calls its tokenizer, those of `common` over those of `text`."""
    kwargs = getattr(module, "processing_kwargs", None) or {}
    return {**kwargs.get("text", {}), **kwargs.get("common", {})}


UNCUT = (False, "do_not_truncate")
# Keyword of a tokenizer's call -> the values that are honoured, all of them where there is None
HONOURED: dict[str, tuple[Any, ...] | None] = {
    "max_length": None,
    "truncation": (True, "longest_first", *UNCUT),
    "padding": (True, "longest"),
    "padding_side": ("right", "left"),
    "add_special_tokens": (True, False),
    "split_special_tokens": (True, False),
    "return_token_type_ids": (True, False, None),
    "return_attention_mask": (True, None),
    "return_tensors": ("pt",),
    "logits_to_keep": (1,),
    "verbose": None,
    **dict.fromkeys(
        ("is_split_into_words", "return_overflowing_tokens", "return_special_tokens_mask", "return_offsets_mapping",
         "return_length"),
        (False,),
    ),
    "stride": (0,),
    "pad_to_multiple_of": (None,),
}  # fmt: skip
OF_A_TEMPLATE = ("add_special_tokens", "split_special_tokens")  # which has its special tokens itself
OF_WIDTHS = {"truncation", "padding", "padding_side"}
ORDER = ("input_ids", "token_type_ids", "attention_mask")
RETURNED = {"return_token_type_ids": "token_type_ids", "return_attention_mask": "attention_mask"}


def called_with(module: torch.nn.Module, tokenizer: Any) -> dict[str, Any]:
    """The entries of a section that the processing_kwargs of a module make.

    Raises:
        UnsupportedOptionError: naming every keyword that the run time does not honour, and the values that it does.
    """
    options = text_options(module)
    widths = sorted(options.keys() & OF_WIDTHS)
    if widths and getattr(module, "query_expansion", None):
        raise UnsupportedOptionError(f"processing_kwargs: {', '.join(widths)} is not supported beside query_expansion")
    is_chat = "message" in getattr(module, "modality_config", ())
    honoured = {name: values for name, values in HONOURED.items() if not (is_chat and name in OF_A_TEMPLATE)}
    if unknown := [name for name in options if name not in honoured]:
        raise UnsupportedOptionError(
            f"processing_kwargs: {', '.join(unknown)} is not supported for {'messages' if is_chat else 'texts'} "
            f"(have: {', '.join(honoured)})"
        )
    names = [name for name in ("token_type_ids", "attention_mask") if name in tokenizer.model_input_names]
    for name, value in options.items():
        values = honoured[name]
        if values is not None and not any(type(value) is type(one) and value == one for one in values):
            raise UnsupportedOptionError(
                f"processing_kwargs: {name}={value!r} is not supported (have: {', '.join(map(repr, values))})"
            )
        if name in RETURNED and value and RETURNED[name] not in names:
            raise UnsupportedOptionError(f"processing_kwargs: {name}=True, and the tokenizer has none by itself")
    kept = {name: options[name] for name in (*OF_A_TEMPLATE, "padding_side") if name in options}
    left_out = [RETURNED[name] for name in RETURNED if options.get(name) is False]
    return {"tensors": ["input_ids", *(name for name in names if name not in left_out)], **kept}


SECTION: dict[str, Any] = {
    "tensors": ["input_ids", "attention_mask"],
    "max_length": None,
    "task_max_length": {},
    "cut": "truncate",
    "truncation_side": "right",
    "padding_side": "right",
    "pad_id": 0,
    "pad_type_id": 0,
    "special_ids": [],
    "add_special_tokens": True,
    "split_special_tokens": False,
    "do_lower_case": False,
    "query_expansion": None,
}


def describe_transformers(module: torch.nn.Module, tokenizer: Any, **more: Any) -> InputDescription:
    """A transformers tokenizer that is backed by the tokenizers library; `more` are entries that differ."""
    if not tokenizer.is_fast:
        raise UnsupportedOptionError(f"{type(tokenizer).__name__} is written in Python; it has no tokenizer.json")
    called = called_with(module, tokenizer)
    expansion = described_expansion(module, tokenizer)
    options = text_options(module)
    uncut = options.get("truncation", True) in UNCUT
    lengths = task_lengths(module, expansion, uncut or "max_length" in options)
    section = SECTION | {
        "kind": "fast",
        "file": "tokenizer.json",
        "max_length": token_limit(module, tokenizer),
        "task_max_length": lengths,
        "truncation_side": tokenizer.truncation_side,
        "padding_side": tokenizer.padding_side,
        "pad_id": tokenizer.pad_token_id or 0,
        "pad_type_id": tokenizer.pad_token_type_id,
        "special_ids": sorted(tokenizer.all_special_ids),
        "split_special_tokens": bool(tokenizer.split_special_tokens),
        "do_lower_case": bool(getattr(module, "do_lower_case", False)),
        **called,
        **more,
        "query_expansion": expansion,
    }
    if "message" in getattr(module, "modality_config", ()):
        restore = module.processing_kwargs.get("chat_template", {}).get("restore_suffix", True)
        templates = compiled_templates(module)
        section |= {"kind": "chat", "templates": templates, "restore_suffix": bool(restore)}
        section |= {"message_format": module.input_formatter.message_format}
        section |= {"add_special_tokens": adds_special_tokens(module, templates)}
    elif getattr(module, "transformer_task", None) == "retrieval":
        section |= {"kind": "chat", "templates": framed_texts(module), "restore_suffix": False}
    if section["kind"] == "chat" and module.processor is not tokenizer:  # which says itself what it returns
        given = module.preprocess([""])
        section |= {"tensors": [name for name in ORDER if name in given]}
    files = {
        "tokenizer.json": tokenizer_json(tokenizer.backend_tokenizer, section, tokenizer.pad_token),
        "tokenizer_config.json": tokenizer_config(tokenizer, section),
        "special_tokens_map.json": json.dumps(tokenizer.special_tokens_map, indent=2, ensure_ascii=False, default=str),
    }
    return InputDescription(section, files)


def described_expansion(module: torch.nn.Module, tokenizer: Any) -> dict[str, Any] | None:
    """The query expansion of a Transformer, its token as the id that the library takes, or None."""
    expansion: Any = getattr(module, "query_expansion", None)
    if expansion is None:
        return None
    token = expansion["token"] or tokenizer.mask_token or tokenizer.eos_token
    kept = {key: expansion[key] for key in ("strategy", "attend", "length")}
    return {**kept, "token_id": tokenizer.convert_tokens_to_ids(token)}


def task_lengths(module: torch.nn.Module, expansion: Mapping[str, Any] | None, is_set: bool) -> dict[str, int]:
    """Task -> its limit in tokens where that is not the model's, in the library's order of precedence: a fixed
    expansion, `max_length` of the processing_kwargs (`is_set`), the module's own lengths.
    """
    given = {} if is_set else {task: getattr(module, f"{task}_length", None) for task in TASKS}
    found = {task: int(length) for task, length in given.items() if length is not None}
    if expansion and (expansion["strategy"] == "fixed" or "query" in found):
        fixed = expansion["strategy"] == "fixed"
        found["query"] = expansion["length"] if fixed else max(found["query"], expansion["length"])
    return found


def tokenizer_json(backend: Any, section: Mapping[str, Any], pad_token: str | None) -> str:
    """The tokenizer with the model's own limit and padding switched on, so that a plain
    `Tokenizer.from_file(...).encode_batch(texts)` in any language gives the tensors of `encode()`.
    """
    description = parse_json(backend.to_str(), "tokenizer.json", dict)
    if not section["add_special_tokens"]:
        description["post_processor"] = None
    copy = read_tokenizer(json.dumps(description))
    copy.no_truncation()
    copy.no_padding()
    if section["max_length"] is not None and section["cut"] == "truncate":
        copy.enable_truncation(section["max_length"], direction=section["truncation_side"])
    if pad_token is not None:
        copy.enable_padding(
            direction=section["padding_side"],
            pad_id=section["pad_id"],
            pad_type_id=section["pad_type_id"],
            pad_token=pad_token,
        )
    return str(copy.to_str(pretty=True))


def tokenizer_config(tokenizer: Any, section: Mapping[str, Any]) -> str:
    """Transformers' own file, with the class name that every version of transformers knows, and the limit and the
    sides of tokenizer.json.
    """
    with scratch_folder() as folder:
        tokenizer.save_pretrained(folder)
        config = read_json(Path(folder) / "tokenizer_config.json", dict)
    kept = {key: value for key, value in config.items() if key not in NOT_SETTINGS}
    # Only this class takes tokenizer.json as it is; others add the special tokens of their architecture again
    if config.get("tokenizer_class") == "TokenizersBackend" or not section["add_special_tokens"]:
        kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    return to_text({**kept, **common_settings(section)})


def common_settings(section: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of tokenizer.json that tokenizer_config.json repeats. A limit that is not the tokenizer's own cut
    is left out: a reader that asks for one had better stop than cut elsewhere.
    """
    length = section["max_length"] if section["cut"] == "truncate" else None
    return {
        "model_max_length": NO_LIMIT if length is None else length,
        "truncation_side": section["truncation_side"],
        "padding_side": section["padding_side"],
    }


def to_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


def describe_tokenizers(module: torch.nn.Module, tokenizer: Any) -> InputDescription:
    """StaticEmbedding's bare tokenizer: no special tokens, no padding; the limit is that of its file, if any."""
    truncation = tokenizer.truncation or {}
    section = SECTION | {
        "kind": "fast",
        "file": "tokenizer.json",
        "add_special_tokens": False,
        "max_length": limit(truncation.get("max_length")),
        "truncation_side": truncation.get("direction", "right"),
    }
    padding = tokenizer.id_to_token(section["pad_id"])
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": section["tensors"],
        **common_settings(section),
        **({"pad_token": padding} if padding in special else {}),  # elsewhere a reader would take a word for special
    }
    files = {"tokenizer.json": tokenizer_json(tokenizer, section, padding), "tokenizer_config.json": to_text(config)}
    return InputDescription(section, files)


def describe_sparse_static(module: torch.nn.Module, tokenizer: Any) -> InputDescription:
    """SparseStaticEmbedding's transformers tokenizer: the text's own tokens alone, under the tokenizer's own limit."""
    return describe_transformers(torch.nn.Module(), tokenizer, tensors=SECTION["tensors"], add_special_tokens=False)


def describe_wrapper(module: torch.nn.Module, tokenizer: Any) -> InputDescription:
    """WordEmbeddings over a transformers tokenizer: its ids, cut at the end without regard to special tokens."""
    described = describe_transformers(torch.nn.Module(), tokenizer.tokenizer)
    section = {
        **described.section,
        "tensors": SECTION["tensors"],
        "max_length": limit(module.max_seq_length),
        "cut": "slice",
        "padding_side": "right",
        "pad_id": 0,
    }
    text = tokenizer_json(tokenizer.tokenizer.backend_tokenizer, section, tokenizer.tokenizer.pad_token)
    config = tokenizer_config(tokenizer.tokenizer, section)
    return InputDescription(section, {**described.files, "tokenizer.json": text, "tokenizer_config.json": config})


def describe_words(kind: str, file: str, *settings: str) -> Callable[[torch.nn.Module, Any], InputDescription]:
    """The word tokenizers, under the file names that sentence-transformers gives them."""

    def describe(module: torch.nn.Module, tokenizer: Any) -> InputDescription:
        section = SECTION | {
            "kind": kind,
            "file": file,
            "cut": "slice",
            "max_length": limit(getattr(module, "max_seq_length", None)),
            "do_lower_case": bool(tokenizer.do_lower_case),
        }
        config = {
            "vocab": list(tokenizer.word2idx),
            "stop_words": sorted(tokenizer.stop_words),
            "do_lower_case": tokenizer.do_lower_case,
            **{name: getattr(tokenizer, name) for name in settings},
        }
        return InputDescription(section, {file: json.dumps(config, ensure_ascii=False)})

    return describe


# Class of a module, or of its tokenizer -> what describes it.
DESCRIBERS: dict[str, Callable[[torch.nn.Module, Any], InputDescription]] = {
    "SparseStaticEmbedding": describe_sparse_static,
    "PreTrainedTokenizerBase": describe_transformers,
    "Tokenizer": describe_tokenizers,
    "TransformersTokenizerWrapper": describe_wrapper,
    "WhitespaceTokenizer": describe_words("whitespace", "whitespacetokenizer_config.json"),
    "PhraseTokenizer": describe_words("phrase", "phrasetokenizer_config.json", "ngram_separator", "max_ngram_length"),
}
