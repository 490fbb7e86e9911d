"""Texts far beyond the limit: how much of their begin has the same first tokens as the whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sbertconv.text.normalizers import RUNS
from sbertconv.text.words import EXPRESSIONS

LONG = 50_000  # characters; a shorter text is tokenized whole
PER_TOKEN = 16  # characters that are tried first, for each token of the limit
MARGIN = 16  # tokens that a post-processor may add; with a limit below them the library does not cut
# Behind such a letter every tokenizer that splits words ends one, and nothing that follows changes what is before it
BOUNDARY = re.compile(r"[A-Za-z](?= [A-Za-z])")
NORMALIZERS = {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "Precompiled",
               "Prepend", "Strip"}  # fmt: skip
SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
OTHERS = {"Punctuation", "Digits"}


def keeps_begins(tokenizer: Mapping[str, Any]) -> bool:
    """Whether the tokens up to a `BOUNDARY` are the same whatever is behind it, by the tokenizer's JSON: each component
    looks no further than a word, and words are split at spaces.
    """
    added = any(re.search(r"\s", token["content"]) for token in tokenizer["added_tokens"])
    normalizers = all(map(_is_local_normalizer, _flat(tokenizer["normalizer"], "normalizers")))
    found = list(_flat(tokenizer["pre_tokenizer"], "pretokenizers"))
    known = all(part["type"] in OTHERS or part["type"] == "ByteLevel" or _splits(part) for part in found)
    return not added and normalizers and known and any(map(_splits, found))


def _flat(component: Mapping[str, Any] | None, key: str) -> Iterator[Mapping[str, Any]]:
    if component is not None and component["type"] == "Sequence":
        for part in component[key]:
            yield from _flat(part, key)
    elif component is not None:
        yield component


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


def begin(text: str, size: int) -> str:
    """The begin of a text up to the first boundary from so many characters on, or all of it."""
    found = BOUNDARY.search(text, size)
    return text if found is None else text[: found.end()]
