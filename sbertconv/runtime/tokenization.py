"""Text to tensors at run time, from an artifact's files, with numpy and tokenizers only.

A manifest names one of the kinds below for each graph. Every tokenizer turns texts into the padded int64
tensors [batch, sequence] that the graph takes.
"""

from __future__ import annotations

import copy
import functools
import itertools
import re
import string
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.json_reading import Rule, check_keys, read_bytes, read_json
from sbertconv.artifact.manifest import TokenizerSection
from sbertconv.artifact.tokenizer_file import COMPONENTS, part_of, read_tokenizer, rust_errors
from sbertconv.errors import CONVERT_AGAIN, ArtifactError, TokenizationError, UnsupportedOptionError, require
from sbertconv.runtime import long_texts
from sbertconv.runtime.long_texts import MARGIN, is_local, shortened

Text = str | tuple[str, str]  # one text, or two that make one input
SURROGATE = re.compile("[\ud800-\udfff]")
Tensors = dict[str, np.ndarray]
Tokens = tuple[list[int], list[int]]  # of one text: ids, and types (empty: all 0)
PROMPT = "prompt"
CUT = (
    "Texts are cut at {} tokens, because no longer ones were compared with encode() (the model's own limit: {}). "
    "beyond_proof=True lifts this; a conversion with a larger proof_budget= proves more."
)
SLOTS = (("text",), ("query", "document"))  # what a chat template calls a text, and the two of a pair


class Conversation(dict[str, str]):
    """Messages of a chat: slot of a template -> text."""


def refuse_surrogates(texts: Sequence[Text]) -> None:
    """Raise UnsupportedOptionError for a text, or one of a pair, that is not valid Unicode."""
    parts = ((index, part) for index, text in enumerate(texts) for part in _parts(text))
    for index, part in parts:
        if not part.isascii() and SURROGATE.search(part):
            raise UnsupportedOptionError(
                f"Text {index} of a batch holds half of a surrogate pair, which is no character: {part[:40]!r}\n"
                "Mend the text, e.g. text.encode('utf-8', 'replace').decode()."
            )


class TextTokenizer(ABC):
    """Common to all kinds: cutting at the length limit, padding, the length of a prompt.

    Args:
        section: the manifest's `tokenizer` entry of a graph.
        path: the tokenizer's file in the artifact.
    """

    def __init__(self, section: TokenizerSection, path: Path) -> None:
        self.section = section
        self.path = path
        self.padding_side: str = section["padding_side"]
        self.proven_length: int | None = None
        self._told = False

    @abstractmethod
    def ids(self, texts: Sequence[Any], max_length: int | None) -> list[Tokens]:
        """Token ids and type ids (empty: all 0) of each text or pair, not padded, at most `max_length` long: of a pair,
        the longer text is cut first.
        """

    def max_length(self, task: str | None) -> int | None:
        """The limit in tokens for this task, or None."""
        limits = (self.section["task_max_length"].get(task or "", self.section["max_length"]), self.proven_length)
        return min((int(limit) for limit in limits if limit is not None), default=None)

    def limited_ids(self, texts: Sequence[Any], task: str | None) -> list[Tokens]:
        """`ids` up to the limit for this task; the first text that is cut for the proof's sake is told of."""
        limit = self.max_length(task)
        rows = self.ids(texts, limit)
        if limit is not None and limit == self.proven_length and not self._told:
            full = [text for text, (ids, _) in zip(texts, rows, strict=True) if len(ids) >= limit]
            own = self.section["task_max_length"].get(task or "", self.section["max_length"])
            if own != limit and full and any(len(ids) > limit for ids, _ in self.ids(full, limit + 1)):
                self._told = True
                warnings.warn(CUT.format(limit, "none" if own is None else own), stacklevel=2)
        return rows

    def prompted(self, text: Text, prompt: str | None) -> Any:
        """A text or pair with its prompt, as `ids` takes it."""
        return prompted(text, prompt)

    @property
    def takes_single(self) -> bool:
        """Whether one text is an input, for a model of pairs."""
        return True

    def __call__(self, texts: Sequence[Text], task: str | None = None) -> Tensors:
        """The tensors that the manifest lists, padded to the longest text (at least one column)."""
        return self.padded(self.limited_ids(texts, task), task)

    def padded(self, rows: Sequence[Tokens], task: str | None = None) -> Tensors:
        """The same of texts that are token ids and type ids already."""
        expansion = self.section.get("query_expansion") if task == "query" else None
        floor = expansion["length"] if expansion and expansion["strategy"] == "fixed" else 1
        tensors = self._padded(rows, floor)
        return expanded(tensors, expansion) if expansion else tensors

    def _padded(self, rows: Sequence[Tokens], floor: int) -> Tensors:
        """At least `floor` columns."""
        shape = (len(rows), max([floor, *(len(ids) for ids, _ in rows)]))
        filled = {
            "input_ids": np.full(shape, self.section["pad_id"], np.int64),
            "token_type_ids": np.full(shape, self.section["pad_type_id"], np.int64),
            "attention_mask": np.zeros(shape, np.int64),
        }
        for row, (ids, type_ids) in enumerate(rows):
            count = len(ids)
            where = slice(0, count) if self.padding_side == "right" else slice(shape[1] - count, shape[1])
            filled["input_ids"][row, where] = ids
            if type_ids:
                filled["token_type_ids"][row, where] = type_ids
            filled["attention_mask"][row, where] = 1
        return {name: filled[name] for name in self.section["tensors"]}

    def prompt_length(self, prompt: str) -> int:
        """Tokens of the prompt alone, less one if it ends in a special token: the library's own rule, which knows no
        task, nor a limit of one.
        """
        ((ids, _),) = self.ids([prompt], self.max_length(None))
        return len(ids) - (bool(ids) and ids[-1] in self.section["special_ids"])


def expanded(tensors: Tensors, expansion: Mapping[str, Any]) -> Tensors:
    """Queries with the expansion token where they have padding, up to the length of the expansion, as
    `Transformer.preprocess` does it; only with `attend` does the attention mask cover them.
    """
    missing = max(0, expansion["length"] - tensors["input_ids"].shape[1])
    found = {name: np.pad(tensor, ((0, 0), (0, missing))) for name, tensor in tensors.items()}
    places = np.arange(found["input_ids"].shape[1]) < expansion["length"]
    added = (found["attention_mask"] == 0) & places
    found["input_ids"][added] = expansion["token_id"]
    if expansion["attend"]:
        found["attention_mask"][added] = 1
    return found


class FastTokenizer(TextTokenizer):
    """A `tokenizer.json`, read by the tokenizers library."""

    def __init__(self, section: TokenizerSection, path: Path) -> None:
        super().__init__(section, path)
        with rust_errors(path, ArtifactError, CONVERT_AGAIN):
            try:
                self.backend = read_tokenizer(read_bytes(path, advice=CONVERT_AGAIN).decode("utf-8"))
            except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
                raise ArtifactError(f"{path}: not a readable tokenizer.json: {error}\n{CONVERT_AGAIN}") from error
        self.backend.no_padding()
        self.backend.no_truncation()
        self.backend.encode_special_tokens = section["split_special_tokens"]
        self._cutting: dict[int | None, Any] = {}
        self._lock = threading.Lock()

    def _cut_at(self, limit: int | None) -> Any:
        """The tokenizer with this limit: one for each, because threads may ask for different ones at once."""
        with self._lock:
            if limit not in self._cutting:
                backend = copy.deepcopy(self.backend) if self._cutting else self.backend
                backend.encode_special_tokens = self.section["split_special_tokens"]  # a copy does not have it
                if limit is None:
                    backend.no_truncation()
                else:
                    backend.enable_truncation(limit, direction=self.section["truncation_side"])
                self._cutting[limit] = backend
            return self._cutting[limit]

    @functools.cached_property
    def _is_local(self) -> bool:
        described = {name: part_of(self.backend, name) for name in COMPONENTS}
        added = [{"content": token.content} for token in self.backend.get_added_tokens_decoder().values()]
        return is_local({**described, "added_tokens": added})

    def _encoded(self, texts: list[Text], max_length: int | None, cut_after: bool) -> list[Any]:
        """The encodings of texts. Of a very long one only as much of the begin or the end is looked at as has all the
        tokens that stay, where the tokenizer is known to have the same ones for the whole.
        """
        backend = self._cut_at(None if cut_after else max_length)
        special = self.section["add_special_tokens"]
        if max_length is not None and max_length > MARGIN and any(map(_is_long, texts)) and self._is_local:
            side = "right" if cut_after else self.section["truncation_side"]
            texts = [self._shortened(text, max_length, side) if _is_long(text) else text for text in texts]
        found: list[Any] = backend.encode_batch_fast(texts, add_special_tokens=special)
        return found

    def _shortened(self, text: Text, max_length: int, side: str) -> Text:
        """A text or a pair without what is cut away anyway. The library would also make every pair of pieces of two
        long texts, which no memory holds.
        """
        wanted = max_length + MARGIN
        if isinstance(text, str):
            return self._kept(text, wanted, side)
        first, second = text
        if _is_long(first) and _is_long(second):
            return self._both(first, second, max_length, side)
        counts = [0 if _is_long(part) else self._count(part) for part in text]  # the longer one is to stay the longer
        return self._kept(first, max(wanted, counts[1] + 1), side), self._kept(second, max(wanted, counts[0] + 1), side)

    def _both(self, first: str, second: str, max_length: int, side: str) -> Text:
        """Two long texts. Of an odd number of tokens the one that has more keeps one more, the second if they are
        equal: only then all of them are counted.
        """
        wanted = max_length + MARGIN
        odd = (max_length - self.backend.num_special_tokens_to_add(True) * self.section["add_special_tokens"]) % 2
        if odd and self._count(first) > self._count(second):
            kept = self._kept(second, wanted, side)
            return self._kept(first, max(wanted, self._count(kept) + 1), side), kept
        kept = self._kept(first, wanted, side)
        return kept, self._kept(second, max(wanted, self._count(kept)), side)

    def _kept(self, text: str, wanted: int, side: str) -> str:
        return shortened(text, side, lambda sure: self._count(sure) >= wanted)

    def _count(self, text: str) -> int:
        """The tokens of a text, without special ones."""
        return len(self._cut_at(None).encode_batch_fast([text], add_special_tokens=False)[0])

    def ids(self, texts: Sequence[Text], max_length: int | None) -> list[Tokens]:
        cut_after = self.section["cut"] == "slice"
        refuse_surrogates(texts)
        with rust_errors(self.path, TokenizationError, CONVERT_AGAIN):
            encodings = self._encoded(list(texts), max_length, cut_after)
        end = max_length if cut_after else None
        typed = "token_type_ids" in self.section["tensors"]  # reading them costs a list per text
        return [(encoding.ids[:end], encoding.type_ids[:end] if typed else []) for encoding in encodings]


class ChatTokenizer(FastTokenizer):
    """Texts in the literal pieces of a chat template, then as `FastTokenizer`.

    Of a text over the limit, the tokens that the template puts after the last text are written over the last ones
    that are left: what a causal model reads is at the end. So does Transformer of sentence-transformers.
    """

    def __init__(self, section: TokenizerSection, path: Path) -> None:
        super().__init__(section, path)
        self.templates = {frozenset(case["slots"]): case["pieces"] for case in section["templates"]}
        self._suffixes: dict[tuple[tuple[str, ...], str | None], list[int]] = {}

    @property
    def takes_single(self) -> bool:
        return frozenset(SLOTS[0]) in self.templates

    def prompted(self, text: Any, prompt: str | None) -> dict[str, str]:
        """Slot -> text, of a text, a pair or a `Conversation`.

        Raises:
            UnsupportedOptionError: if the template has no room for it.
        """
        if isinstance(text, Conversation):
            values = dict(text)
        else:
            parts = _parts(text)
            values = dict(zip(SLOTS[len(parts) - 1], parts, strict=True))
        if prompt and PROMPT in values:
            raise UnsupportedOptionError(
                "Messages that begin with one of the role system, and a prompt, which would be another.\n"
                'Leave one of them out; prompt="" is none.'
            )
        values |= {PROMPT: prompt} if prompt else {}
        if frozenset(values) not in self.templates:
            have = "; ".join(" and ".join(sorted(slots)) for slots in self.templates)
            raise UnsupportedOptionError(
                f"The model's chat template takes no {' and '.join(sorted(values))} (have: {have}).\nPass one of these."
            )
        return values

    def ids(self, texts: Sequence[Any], max_length: int | None) -> list[Tokens]:
        """See `TextTokenizer`; takes what `prompted` gives, too."""
        given = [text if isinstance(text, dict) else self.prompted(text, None) for text in texts]
        for values in given:
            refuse_surrogates(list(values.values()))
        rows = super().ids([self._rendered(values) for values in given], max_length)
        if self.section["restore_suffix"]:
            for values, (ids, _) in zip(given, rows, strict=True):
                if max_length is not None and len(ids) >= max_length:
                    suffix = self._suffix(tuple(values), values.get(PROMPT))[-len(ids) :]
                    ids[len(ids) - len(suffix) :] = suffix
        return rows

    def _rendered(self, values: Mapping[str, str]) -> str:
        return render(self.templates[frozenset(values)], values)

    def _suffix(self, slots: tuple[str, ...], prompt: str | None) -> list[int]:
        """What two inputs that differ in every text end with alike, unless they are alike altogether."""
        if (slots, prompt) not in self._suffixes:
            given = [dict.fromkeys(slots, filler) | ({PROMPT: prompt} if prompt else {}) for filler in ("0", "1 2 3 4")]
            (one, _), (other, _) = super().ids([self._rendered(values) for values in given], None)
            alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one[::-1], other[::-1], strict=False))
            count = len(list(alike))
            self._suffixes[slots, prompt] = one[len(one) - count :] if count < min(len(one), len(other)) else []
        return self._suffixes[slots, prompt]

    def prompt_length(self, prompt: str) -> int:
        """0: the library counts no tokens of a prompt that is a message."""
        return 0


def render(pieces: Sequence[Any], values: Mapping[str, str]) -> str:
    """A chat template's pieces with texts in the slots."""
    return "".join(piece if isinstance(piece, str) else values[piece["slot"]] for piece in pieces)


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def _is_long(text: Text) -> bool:
    return any(len(part) > long_texts.LONG for part in _parts(text))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


# What a word tokenizer's file must say, and what stands for a key that is missing: nothing that would fit
WORD_RULES: dict[str, Rule] = {
    "vocab": ("a list of texts", _is_texts),
    "stop_words": ("a list of texts", _is_texts),
    "do_lower_case": ("true, false", lambda value: isinstance(value, bool)),
    "ngram_separator": ("text, null", lambda value: value is None or (isinstance(value, str) and bool(value))),
    "max_ngram_length": ("a number, null", lambda value: value is None or type(value) is int),
}
WORD_DEFAULTS = {"vocab": None, "stop_words": None, "do_lower_case": None}


class WhitespaceTokenizer(TextTokenizer):
    """Words split at white space and looked up as they are, without punctuation, then in lower case."""

    def __init__(self, section: TokenizerSection, path: Path) -> None:
        super().__init__(section, path)
        config = {**WORD_DEFAULTS, **read_json(path, dict)}
        check_keys(config, WORD_RULES, path)
        self.stop_words = set(config["stop_words"])
        self.lower = bool(config["do_lower_case"])
        self.index = {word: row for row, word in enumerate(config["vocab"])}
        self.config = config

    spellings: tuple[Callable[[str], str], ...] = (str, lambda word: word.strip(string.punctuation), str.lower)

    def words(self, text: str) -> list[str]:
        return (text.lower() if self.lower else text).split()

    def lookup(self, word: str) -> list[int]:
        """The row of the first spelling that the vocabulary has; nothing for a stop word or an unknown one."""
        for spelling in self.spellings:
            word = spelling(word)
            if word in self.stop_words:
                return []
            if word in self.index:
                return [self.index[word]]
        return []

    def ids(self, texts: Sequence[str], max_length: int | None) -> list[Tokens]:
        found = [[row for word in self.words(text) for row in self.lookup(word)][:max_length] for text in texts]
        return [(ids, []) for ids in found]


class PhraseTokenizer(WhitespaceTokenizer):
    """NLTK's word_tokenize; neighbouring words that are a phrase of the vocabulary (New_York) are one token."""

    spellings = (str, str.lower, lambda word: word.strip(string.punctuation))

    def __init__(self, section: TokenizerSection, path: Path) -> None:
        require("phrases", "nltk")
        super().__init__(section, path)
        separator, longest = self.config.get("ngram_separator"), self.config.get("max_ngram_length") or 0
        self.separator = separator or ""
        self.phrases = {
            word
            for word in self.index
            if separator and separator in word and separator * 2 not in word and word.count(separator) + 1 <= longest
        }
        self.phrase_lengths = sorted({word.count(separator) + 1 for word in self.phrases}, reverse=True)

    def words(self, text: str) -> list[str]:
        from nltk import word_tokenize

        words: list[str] = word_tokenize(text, preserve_line=True)
        for length in self.phrase_lengths:
            start = 0
            while start <= len(words) - length:
                phrase = self.separator.join(words[start : start + length])
                for spelling in (phrase, phrase.lower()):
                    if spelling in self.phrases:
                        words[start : start + length] = [spelling]
                        break
                start += 1
        return words


KINDS: dict[str, type[TextTokenizer]] = {
    "fast": FastTokenizer,
    "chat": ChatTokenizer,
    "whitespace": WhitespaceTokenizer,
    "phrase": PhraseTokenizer,
}


def prompted(text: Text, prompt: str | None) -> Text:
    """A text behind a prompt; of a pair, the first one."""
    if not prompt:
        return text
    return f"{prompt}{text}" if isinstance(text, str) else (f"{prompt}{text[0]}", text[1])


def load_tokenizer(section: TokenizerSection, folder: Path) -> TextTokenizer:
    """The tokenizer that a manifest's `tokenizer` entry describes.

    Raises:
        ArtifactError: for a kind that this version does not know.
    """
    kind = section["kind"]
    if kind not in KINDS:
        raise ArtifactError(
            f"{folder}: tokenizer kind {kind!r} is not known (have: {', '.join(KINDS)})\nUpdate sbertconv."
        )
    return KINDS[kind](section, folder / section["file"])
