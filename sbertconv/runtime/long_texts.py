"""Texts far beyond the limit: how much of their begin, or end, has the same first, or last, tokens as the whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sbertconv.artifact.tokenizer_file import parts
from sbertconv.text.normalizers import RUNS
from sbertconv.text.words import EXPRESSIONS

LONG = 50_000  # characters; a shorter text is tokenized whole
FIRST = 10_000  # characters that are tried first
MARGIN = 16  # tokens that a post-processor may add; with a limit below them the library does not cut
# Behind such a letter every tokenizer that splits words ends one, and nothing that follows changes what is before it
BOUNDARY = re.compile(r"[A-Za-z](?= [A-Za-z])")
NORMALIZERS = {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "Precompiled",
               "Prepend", "Strip"}  # fmt: skip
SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
OTHERS = {"Punctuation", "Digits"}


def is_local(tokenizer: Mapping[str, Any]) -> bool:
    """Whether the tokens on each side of a `BOUNDARY` are the same whatever is on the other, by the tokenizer's JSON:
    each component looks no further than a word, and words are split at spaces.
    """
    added = any(re.search(r"\s", token["content"]) for token in tokenizer["added_tokens"])
    normalizers = all(map(_is_local_normalizer, parts(tokenizer["normalizer"], "normalizers")))
    found = list(parts(tokenizer["pre_tokenizer"], "pretokenizers"))
    known = all(part["type"] in OTHERS or part["type"] == "ByteLevel" or _splits(part) for part in found)
    return not added and normalizers and known and any(map(_splits, found))


def _is_local_normalizer(part: Mapping[str, Any]) -> bool:
    pattern = part.get("pattern") or {}
    return part["type"] in NORMALIZERS or (part["type"] == "Replace" and pattern.get("Regex") in RUNS)


def _splits(part: Mapping[str, Any]) -> bool:
    """Whether a pre-tokenizer begins a word at every single space between letters."""
    kind, pattern = part["type"], part.get("pattern") or {}
    return (
        kind in SPLITTERS
        or (kind == "ByteLevel" and part["use_regex"])
        or (kind == "Metaspace" and part["split"])
        or (kind == "Split" and pattern.get("Regex") in EXPRESSIONS and part["behavior"] != "MergedWithPrevious")
    )


def begin(text: str, size: int) -> tuple[str, str]:
    """The begin of a text up to the first boundary from so many characters on, or all of it; and the part of that whose
    tokens are those of the whole, which is all of it.
    """
    found = BOUNDARY.search(text, size)
    kept = text if found is None else text[: found.end()]
    return kept, kept


def end(text: str, size: int) -> tuple[str, str]:
    """The same of the end. Its first word is not sure: a tokenizer may put something before a text."""
    found = BOUNDARY.search(text, max(0, len(text) - size))
    sure = found and BOUNDARY.search(text, found.end())
    return (text[found.end() :], text[sure.end() :]) if found and sure else (text, text)


SIDES = {"right": begin, "left": end}  # the side where a text is cut -> what stays


def shortened(text: str, side: str, enough: Callable[[str], bool]) -> str:
    """As much of a long text as has enough tokens in its sure part; a text that is not long as it is."""
    size = FIRST
    while LONG < len(text) > size:
        kept, sure = SIDES[side](text, size)
        if enough(sure):
            return kept
        size *= 8
    return text
