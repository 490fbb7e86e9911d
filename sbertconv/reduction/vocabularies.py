"""The vocabulary of a tokenizer.json, cut to some of its tokens: a row per kind of model, a function for each part.

Every kind cuts a text by choosing among the pieces that occur in it. A smaller vocabulary that still has each piece
that was chosen, and each that led there, makes the same choice: WordPiece takes the longest piece, Unigram the path of
the best score, BPE the pair of the best rank, and what is missing was none of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sbertconv.errors import UnsupportedModuleError
from sbertconv.reduction.scripts import is_within
from sbertconv.text.bytes import byte_alphabet

Model = Mapping[str, Any]  # the `model` of a tokenizer.json
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
SPACE = "▁"
BYTE_LEVEL = "ByteLevel"
LONGEST_CUT_PIECE = 256  # characters, that are looked for in a word


def table_pieces(model: Model) -> dict[str, int]:
    """The pieces of a table of token and number."""
    return dict(model["vocab"])


def listed_pieces(model: Model) -> dict[str, int]:
    """The pieces of a list of token and score."""
    return {piece: number for number, (piece, _) in enumerate(model["vocab"])}


def cut_table(model: Model, numbers: Mapping[int, int]) -> dict[str, Any]:
    """The model with those tokens that have a new number."""
    return {**model, "vocab": {piece: numbers[old] for piece, old in model["vocab"].items() if old in numbers}}


def cut_list(model: Model, numbers: Mapping[int, int]) -> dict[str, Any]:
    """The same of a list, whose places are the numbers."""
    kept = [entry for old, entry in enumerate(model["vocab"]) if old in numbers]
    unknown = model.get("unk_id")
    return {**model, "vocab": kept, "unk_id": None if unknown is None else numbers[unknown]}


def cut_merges(model: Model, numbers: Mapping[int, int]) -> dict[str, Any]:
    """The same of BPE: a merge stays if both of its parts and its result do."""
    cut = cut_table(model, numbers)
    vocabulary = cut["vocab"]
    joined = _joining(model)
    kept = [merge for merge in model["merges"] if {*_pair(merge), joined(*_pair(merge))} <= vocabulary.keys()]
    return {**cut, "merges": kept}


def nothing_more(model: Model, pieces: Iterable[str]) -> set[str]:
    """The further pieces of a kind that chooses each by itself."""
    return set()


def least_score(model: Model, pieces: Iterable[str]) -> set[str]:
    """The piece of the smallest score: an unknown character is scored below it."""
    return {min(model["vocab"], key=lambda entry: entry[1])[0]} if model["vocab"] else set()


def merged_on_the_way(model: Model, pieces: Iterable[str]) -> set[str]:
    """Every piece that merging makes before it has made these.

    Raises:
        UnsupportedModuleError: for a piece so long that this would take its square in steps.
    """
    ranks = {_pair(merge): rank for rank, merge in enumerate(model["merges"])}
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    joined, found = _joining(model), set()
    for piece in pieces:
        if len(piece) > LONGEST_CUT_PIECE:
            raise UnsupportedModuleError(
                f"{piece!r:.60}: a piece of {len(piece):,} letters (have: up to {LONGEST_CUT_PIECE}).\n"
                "Such a vocabulary cannot be cut: convert the model as it is."
            )
        inner = piece.removesuffix(suffix) if suffix else piece
        parts = [
            symbol if not place else f"{prefix}{symbol}" for place, symbol in enumerate(inner.removeprefix(prefix))
        ]
        if parts and inner != piece:
            parts[-1] += suffix
        if parts and prefix and piece.startswith(prefix):
            parts[0] = f"{prefix}{parts[0]}"
        found.update(parts)
        while known := [(ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in ranks]:
            at = min(known)[1]
            parts[at : at + 2] = [joined(*parts[at : at + 2])]
            found.add(parts[at])
    return found


def _pair(merge: Any) -> tuple[str, str]:
    """A merge of a file, which older ones write as one text."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _joining(model: Model) -> Callable[[str, str], str]:
    prefix = model.get("continuing_subword_prefix") or ""
    return lambda first, second: first + second.removeprefix(prefix)


@dataclass(frozen=True)
class Vocabulary:
    """How one kind of model is cut.

    Attributes:
        pieces: model -> token -> its number.
        cut: model, old number -> new one, in the same order -> the model.
        more: model, tokens that stay -> tokens without which those could not be chosen.
        joins: the keys of the marks that a piece has before or behind its text.
    """

    pieces: Callable[[Model], dict[str, int]]
    cut: Callable[[Model, Mapping[int, int]], dict[str, Any]]
    more: Callable[[Model, Iterable[str]], set[str]] = nothing_more
    joins: tuple[str, ...] = ()


VOCABULARIES = {
    "WordPiece": Vocabulary(table_pieces, cut_table, joins=("continuing_subword_prefix",)),
    "Unigram": Vocabulary(listed_pieces, cut_list, least_score),
    "BPE": Vocabulary(table_pieces, cut_merges, merged_on_the_way, ("continuing_subword_prefix", "end_of_word_suffix")),
    "WordLevel": Vocabulary(table_pieces, cut_table),
}


class Pieces:
    """The tokens of a tokenizer.json, and which of them a choice of tokens needs.

    Args:
        described: the tokenizer.json.
        where: whose it is, for messages.

    Raises:
        UnsupportedModuleError: for a kind of model without a row.
    """

    def __init__(self, described: Mapping[str, Any], where: object) -> None:
        self.described = described
        self.model: Model = described["model"]
        kind = self.model.get("type")
        if kind not in VOCABULARIES:
            raise UnsupportedModuleError(
                f"{where}: its tokenizer is a {kind} (have: {', '.join(VOCABULARIES)}).\n"
                "Its vocabulary cannot be cut: convert the model as it is."
            )
        self.kind = VOCABULARIES[kind]
        self.numbers = self.kind.pieces(self.model)
        self.names = {number: piece for piece, number in self.numbers.items()}
        self.added = {entry["id"]: entry["content"] for entry in described.get("added_tokens") or ()}
        parts = (described.get(name) for name in ("normalizer", "pre_tokenizer", "decoder"))
        self.bytes = BYTE_LEVEL in str([_types(part) for part in parts])
        self._byte_of = {symbol: byte for byte, symbol in enumerate(byte_alphabet())}
        self._marks = [mark for key in self.kind.joins if (mark := self.model.get(key))]

    def text_of(self, piece: str) -> str | None:
        """The characters that a piece stands for, without its marks; None for some bytes of a character."""
        if self.bytes:
            try:
                return bytes(self._byte_of[symbol] for symbol in piece).decode()
            except (KeyError, UnicodeDecodeError):
                return None
        for mark in self._marks:
            piece = piece.removeprefix(mark).removesuffix(mark)
        return piece.replace(SPACE, " ")

    def always(self) -> Iterator[int]:
        """The numbers that stay whatever the texts are: added and special tokens, the unknown one, single bytes."""
        yield from self.added
        yield from _numbers_in(self.described.get("post_processor"))
        unknown = self.model.get("unk_id")
        yield from [] if unknown is None else [unknown]
        named = self.model.get("unk_token")
        yield from (number for piece, number in self.numbers.items() if piece == named or self._is_byte(piece))

    def _is_byte(self, piece: str) -> bool:
        return bool(BYTE.fullmatch(piece)) or (self.bytes and piece in self._byte_of)

    def closed(self, kept: set[int]) -> set[int]:
        """The numbers with those without which the pieces could not be chosen, and single characters of theirs."""
        pieces = [self.names[number] for number in kept if number in self.names]
        letters = {letter for piece in pieces for letter in self.text_of(piece) or ""}
        single = [
            piece for piece in self.numbers
            if len(piece) <= 2 + sum(map(len, self._marks)) and (self.text_of(piece) or "").strip() in letters
        ]  # fmt: skip
        more = self.kind.more(self.model, [*pieces, *single])
        return kept | {self.numbers[piece] for piece in (*single, *more) if piece in self.numbers}

    def of_scripts(self, scripts: frozenset[str]) -> set[int]:
        """The numbers of the pieces of these scripts, and of those that have no letter."""
        texts = ((number, self.text_of(piece)) for piece, number in self.numbers.items())
        return {number for number, text in texts if text is not None and is_within(text, scripts)}

    def inside(self, words: Iterable[str]) -> set[int]:
        """The numbers of all pieces that occur in these words, which are normalised."""
        found: set[int] = set()
        longest = min(max(map(len, self.numbers), default=0), LONGEST_CUT_PIECE)
        around = [("", ""), *((mark, "") for mark in self._marks), *(("", mark) for mark in self._marks)]
        for word in set(words):
            for start in range(len(word)):
                for end in range(start + 1, min(len(word), start + longest) + 1):
                    names = (f"{before}{word[start:end]}{behind}" for before, behind in around)
                    found.update(self.numbers[name] for name in names if name in self.numbers)
        return found

    def cut(self, kept: Iterable[int]) -> tuple[dict[str, Any], dict[int, int]]:
        """The tokenizer.json of these tokens, and old number -> new one: the same order, without gaps."""
        new = {old: number for number, old in enumerate(sorted(kept))}
        added = [{**entry, "id": new[entry["id"]]} for entry in self.described.get("added_tokens") or ()]
        padding = self.described.get("padding")
        described = {
            **self.described,
            "added_tokens": added,
            "model": self.kind.cut(self.model, new),
            "post_processor": _renumbered(self.described.get("post_processor"), lambda old: new.get(old, old)),
            "padding": padding and {**padding, "pad_id": new.get(padding["pad_id"], 0)},
        }
        return described, new


def _types(part: Any) -> list[str]:
    """The types of a component and of those inside it."""
    if isinstance(part, Mapping):
        return [str(part.get("type")), *(name for value in part.values() for name in _types(value))]
    return [name for value in part for name in _types(value)] if isinstance(part, list) else []


def _numbers_in(part: Any) -> Iterator[int]:
    """The numbers of tokens in a post-processor."""
    found: list[int] = []

    def hear(number: int) -> int:
        found.append(number)
        return number

    _renumbered(part, hear)
    yield from found


def _renumbered(part: Any, new: Callable[[int], int]) -> Any:
    """A post-processor with new numbers: lists under `ids`, and pairs of a token and its number."""
    if isinstance(part, Mapping):
        return {
            key: [new(number) for number in value] if key == "ids"
            else [value[0], new(value[1])] if key in ("cls", "sep") and isinstance(value, list)
            else _renumbered(value, new)
            for key, value in part.items()
        }  # fmt: skip
    return [_renumbered(value, new) for value in part] if isinstance(part, list) else part
