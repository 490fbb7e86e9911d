"""What the libraries say while a model loads: its notes, and what makes it another model than its files describe."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.corpus.texts import CORPUS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LIBRARIES = ("transformers", "sentence_transformers")
REPORT = "LOAD REPORT"  # transformers' table of weights, which is listened to as numbers
NO_NEWS = (DeprecationWarning, FutureWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
# Warnings after which the model is another one: a setting was left out, or replaced by a default
CHANGES = re.compile(
    r"falling back to the default|fall back to its default|Ignoring (unrecognized|unknown)|silently ignored"
    r"|Could not parse"
)
LOGGED = ("level", "handlers", "filters", "propagate", "disabled")  # what says where a logger's messages go
LONGEST = 300  # characters of a warning
ADAPTED = (
    "weights of its adapter that the library makes up anew or leaves out instead of reading them, so that encode() is "
    "that of another model (mend its files, or merge it with PEFT: "
    "PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(another))"
)


@dataclass
class Heard:
    """What was said while a model loaded.

    Attributes:
        missing: (model, name) of every weight that was not found and made up.
        unexpected: (model, name) of every weight of the files that the model has no place for.
        warnings: what the libraries warned of.
        passed_over: weights of an adapter that its file and the model do not both have.
    """

    missing: list[tuple[Any, str]] = field(default_factory=list)
    unexpected: list[tuple[Any, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    @property
    def changes(self) -> list[str]:
        """What makes the loaded model another one than its files describe."""
        skipped = [key for model, key in self.unexpected if _belongs(model, key)]
        found = [text for text in self.warnings if CHANGES.search(text)]
        found += [f"weights that are left out: {listed(skipped)}"] if skipped else []
        return found + ([f"{ADAPTED}: {listed(self.passed_over)}"] if self.passed_over else [])

    @property
    def prefix(self) -> str:
        """What the files have before the names of most weights that were not found: "model.encoder."; or nothing."""
        kept = {key for _, key in self.unexpected}
        ends = Counter(name.removesuffix(key) for _, key in self.missing for name in kept if name.endswith(f".{key}"))
        prefix, count = next(iter(ends.most_common(1)), ("", 0))
        return prefix if count * 2 > len(self.missing) else ""

    @property
    def notes(self) -> list[str]:
        """What else was said."""
        unused = [key for model, key in self.unexpected if not _belongs(model, key)]
        found = [f"Said while loading: {text}" for text in self.warnings if not CHANGES.search(text)]
        return found + ([f"Weights of a head that the model does not have: {listed(unused)}."] if unused else [])


def _is_buffer(model: Any, key: str) -> bool:
    """Whether a name of the files is that of a buffer that the model computes by itself, as older versions saved it."""
    buffers = dict(model.named_buffers())
    prefix = f"{model.base_model_prefix}."
    return key in buffers or key.removeprefix(prefix) in buffers or f"{prefix}{key}" in buffers


def _belongs(model: Any, key: str) -> bool:
    """Whether a weight is of a part that the model has: one of a head that was left off is not."""
    place = key.removeprefix(f"{model.base_model_prefix}.").partition(".")
    return bool(place[1]) and place[0] in dict(model.named_children())


def listed(keys: list[str]) -> str:
    """The first names of many."""
    return f"{', '.join(keys[:4])}{f', ... ({len(keys)})' if len(keys) > 4 else ''}"


class _Ear(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if REPORT not in text:
            self.said.append(text)


@contextlib.contextmanager
def _all_said_to(ear: logging.Handler) -> Iterator[None]:
    """What the libraries log goes to one handler alone, whatever the process has silenced of it: a setting that was
    left out must be heard of where logging is off, too.
    """
    known = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    children = [logger for logger in known if logger.name.startswith(tuple(f"{name}." for name in LIBRARIES))]
    loggers = [*map(logging.getLogger, LIBRARIES), *children]
    before = [{name: getattr(logger, name) for name in LOGGED} for logger in loggers]
    silenced = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    for logger in loggers:
        is_child = logger in children
        logger.setLevel(logging.NOTSET if is_child else logging.WARNING)  # a child's is that of the library then
        logger.handlers, logger.filters = [] if is_child else [ear], []
        logger.propagate, logger.disabled = is_child, False
    try:
        yield
    finally:
        logging.disable(silenced)
        for logger, state in zip(loggers, before, strict=True):
            vars(logger).update(state)
            logger.setLevel(state["level"])  # which forgets what was enabled


@contextlib.contextmanager
def listening() -> Iterator[Heard]:
    """Collects what transformers and sentence-transformers say in here, in place of showing it; no progress bars.

    Weights that are missing are only logged, and from_pretrained's output_loading_info does not reach through
    SentenceTransformer, so its report function is listened to.
    """
    from transformers import modeling_utils
    from transformers.utils import logging as transformers_logging

    heard, said = Heard(), list[str]()
    report = modeling_utils.log_state_dict_report

    def listen(*args: Any, **kwargs: Any) -> Any:
        model, info = kwargs["model"], kwargs["loading_info"]
        heard.missing.extend((model, key) for key in sorted(info.missing_keys))
        heard.unexpected.extend((model, key) for key in sorted(info.unexpected_keys) if not _is_buffer(model, key))
        return report(*args, **kwargs)

    bars = transformers_logging.is_progress_bar_enabled()
    modeling_utils.log_state_dict_report = listen
    transformers_logging.disable_progress_bar()
    try:
        with _all_said_to(_Ear(said)), warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("default")
            yield heard
    finally:
        modeling_utils.log_state_dict_report = report
        if bars:
            transformers_logging.enable_progress_bar()
        said += [str(one.message) for one in raised if not issubclass(one.category, NO_NEWS)]
        heard.warnings += dict.fromkeys(" ".join(text.split())[:LONGEST] for text in said)


def table_rows(module: Any) -> int | None:
    """The rows of the embedding table of a chain's first module, where it has one."""
    find = getattr(getattr(module, "model", None), "get_input_embeddings", None)
    table: Any = getattr(module, "embedding", getattr(module, "emb_layer", None))
    with contextlib.suppress(NotImplementedError):  # a model of two towers has no single table
        table = find() if callable(find) else table
    rows = getattr(table, "num_embeddings", None)
    return rows if isinstance(rows, int) else None


def tokens_without_a_row(model: SentenceTransformer) -> Iterator[str]:
    """Tokenizers with tokens beyond the embedding table, in words: encode() fails on them, and a graph may not."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    for label, module in model.named_children():
        tokenizer: Any = getattr(module, "tokenizer", None)
        rows = table_rows(module)
        if isinstance(rows, int) and isinstance(tokenizer, PreTrainedTokenizerBase | Tokenizer):
            beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
            if beyond:
                names = listed([repr(token) for _, token in beyond])
                yield f"[{label}] The embedding table has {rows:,} rows, and none for the tokens {names}."


def tokens_of_another_file(tokenizer: Any, file: Path) -> str | None:
    """A tokenizer that the library made of its class and vocabulary and not of tokenizer.json, in words: whoever opens
    that file alone gets other tokens.

    Args:
        tokenizer: the library's own, of transformers.
        file: the model's tokenizer.json.
    """
    from tokenizers import Tokenizer

    mine: Any = getattr(tokenizer, "backend_tokenizer", None)
    if mine is None or not file.is_file():
        return None
    theirs, mine = Tokenizer.from_file(str(file)), Tokenizer.from_str(mine.to_str())
    for each in (theirs, mine):
        each.no_truncation()
        each.no_padding()
    other = [text for text in CORPUS if theirs.encode(text).ids != mine.encode(text).ids]
    if not other:
        return None
    return (
        f"{file.name} gives other tokens than encode() uses for {len(other)} of {len(CORPUS)} texts: "
        f"{type(tokenizer).__name__} was made without it. Converted as encode() does; the converted folder's own "
        f"{file.name} has those tokens, the model's file has not."
    )
