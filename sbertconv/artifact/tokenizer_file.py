"""A tokenizer.json as a tokenizer of the tokenizers library, with exactly the scores that are written in it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sbertconv.artifact.json_reading import parse_json
from sbertconv.errors import SbertconvError

COMPONENTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}
NO_TABLE = re.compile(r'"precompiled_charsmap"\s*:\s*(""|null)')
LARGE_NUMBER = re.compile(r":\s*\d{8}")
LARGEST_TOKEN_ID = 1 << 24  # the library makes room for every number below the largest when it describes itself
LONGEST_PIECE = 1000  # letters of a Unigram piece: the library walks along them in itself, until the process ends
LONG_PIECE = re.compile(rf'\[\s*"(?:[^"\\]|\\.){{{LONGEST_PIECE + 1}}}')
MOST_GROWTH, MOST_PIECES = 1000, 1000
# A prefix of later pieces; and letters of a key that are written as numbers, as no tool does
LOOKED_AT_WHOLE = re.compile(r'"continuing_subword_prefix"\s*:\s*"[^"]|\\u00[67][0-9a-fA-F]')
TOO_LONG = f"a piece of its vocabulary has more than {LONGEST_PIECE:,} letters"
PANIC = ("pyo3_runtime", "PanicException")  # a BaseException that has no place to be imported from


@contextlib.contextmanager
def rust_errors(
    where: object, error: type[SbertconvError], advice: str = "Get a complete copy of the model."
) -> Iterator[None]:
    """In here, whatever a library written in Rust raises is `error`: a panic, or an `Exception` of no class of its own.
    Everything else passes, an interrupt too.

    Raises:
        error: with `where` and the library's words.
    """
    try:
        yield
    except BaseException as problem:
        if (type(problem).__module__, type(problem).__name__) != PANIC and type(problem) is not Exception:
            raise
        raise error(f"{where}: the library that reads or runs it failed: {problem!s:.400}\n{advice}") from problem


def read_tokenizer(text: str) -> Any:
    """The tokenizer of this JSON.

    Raises:
        ValueError: for what the library would panic of.

    The library misreads the last bit of one score in seven, and of ways to cut "aaaa..." that have the same sum that
    bit decides. Transformers hands it the scores as numbers, so a model has those of the file.
    """
    from tokenizers import Tokenizer, models

    if NO_TABLE.search(text):
        raise ValueError("a Precompiled normalizer has no table")
    if LONG_PIECE.search(text):
        raise ValueError(TOO_LONG)
    if LOOKED_AT_WHOLE.search(text):
        described = parse_json(text, "tokenizer.json", dict)
        if found := list(_cut_letters(described.get("model") or {})):
            raise ValueError("; ".join(found))
    tokenizer = Tokenizer.from_str(text)
    if found := list(tokenizer_problems({name: part_of(tokenizer, name) for name in COMPONENTS})):
        raise ValueError("; ".join(found))
    if LARGE_NUMBER.search(text):
        refuse_holes(tokenizer)
    if isinstance(tokenizer.model, models.Unigram):
        model = parse_json(text, "tokenizer.json", dict)["model"]
        scored = [(token, float(score)) for token, score in model["vocab"]]
        tokenizer.model = models.Unigram(scored, model.get("unk_id"), model.get("byte_fallback", False))
    return tokenizer


def part_of(tokenizer: Any, name: str) -> Any:
    """The JSON of one of a tokenizer's `COMPONENTS`, or None: without that of its vocabulary, which may be long."""
    found = getattr(tokenizer, name)
    return None if found is None else parse_json(found.__getstate__(), name)


def parts(component: Any, key: str) -> Iterator[Mapping[str, Any]]:
    """The components of a sequence, at whatever depth; of another component itself."""
    if isinstance(component, Mapping) and component.get("type") == "Sequence":
        for part in component.get(key) or ():
            yield from parts(part, key)
    elif isinstance(component, Mapping):
        yield component


def tokenizer_problems(described: Mapping[str, Any]) -> Iterator[str]:
    """Settings that make the library panic, with a line on the error output that nobody can stop, in words.

    Args:
        described: the JSON of a tokenizer, or as much of it as there is.
    """
    for part in (part for name, key in COMPONENTS.items() for part in parts(described.get(name), key)):
        if part["type"] == "Precompiled" and not part.get("precompiled_charsmap"):
            yield "a Precompiled normalizer has no table"
        if part["type"] == "FixedLength" and not part.get("length"):
            yield "a FixedLength pre-tokenizer cuts pieces of length 0"
        if part["type"] == "TemplateProcessing":
            known = {name for name, one in part["special_tokens"].items() if len(one["ids"]) == len(one["tokens"]) > 0}
            used = {
                piece["SpecialToken"]["id"] for piece in (*part["single"], *part["pair"]) if "SpecialToken" in piece
            }
            yield from (f"the template has no id for {name!r}" for name in sorted(used - known))
        if part["type"] == "TemplateProcessing":
            pieces = (part["single"], part["pair"], *(one["ids"] for one in part["special_tokens"].values()))
            if max(map(len, pieces)) > MOST_PIECES:
                yield f"a template has {max(map(len, pieces)):,} pieces (have: up to {MOST_PIECES:,})"
    if (times := growth(described.get("normalizer"))) > MOST_GROWTH:
        yield f"its normalizers make a text {times:,.0f} times as long (have: up to {MOST_GROWTH:,})"
    vocabulary = (described.get("model") or {}).get("vocab")
    yield from _holes(vocabulary) if isinstance(vocabulary, Mapping) else ()
    listed = (entry[0] for entry in vocabulary if entry) if isinstance(vocabulary, list) else ()
    if any(isinstance(piece, str) and len(piece) > LONGEST_PIECE for piece in listed):
        yield TOO_LONG
    yield from _cut_letters(described.get("model") or {})


def _cut_letters(model: Mapping[str, Any]) -> Iterator[str]:
    """The first merge of BPE whose second part the library cuts inside a letter, or behind its end: it takes as many
    bytes off as the prefix has, whatever they are.
    """
    size = len((model.get("continuing_subword_prefix") or "").encode())
    for merge in (model.get("merges") or ()) if size else ():
        second = merge.split(" ")[-1] if isinstance(merge, str) else merge[1]
        bytes_of = second.encode("utf-8", "replace")
        if len(bytes_of) < size or (bytes_of[size:] and bytes_of[size] & 0xC0 == 0x80):
            yield f"the merge {merge!r:.60} does not begin with the prefix of its second part"
            return


def growth(normalizer: Any) -> float:
    """How much longer a text becomes at most where parts of it are replaced, one replacement after the other."""
    times = 1.0
    for part in parts(normalizer, COMPONENTS["normalizer"]):
        if part.get("type") == "Replace":
            least = len(part["pattern"]["String"]) if "String" in part["pattern"] else 1
            times *= max(1.0, len(part["content"]) / max(1, least))
    return times


def refuse_holes(tokenizer: Any) -> None:
    """Raise ValueError for a tokenizer with a number of a token that no vocabulary reaches."""
    if found := list(_holes(tokenizer.get_vocab(True))):
        raise ValueError(found[0])


def _holes(vocabulary: Mapping[str, int]) -> Iterator[str]:
    beyond = [token for token, number in vocabulary.items() if number >= LARGEST_TOKEN_ID]
    yield from (
        f"the token {token!r} has the number {vocabulary[token]:,} (have: up to {LARGEST_TOKEN_ID:,})"
        for token in beyond
    )
