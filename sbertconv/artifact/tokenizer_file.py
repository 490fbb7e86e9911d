"""A tokenizer.json as a tokenizer of the tokenizers library, with exactly the scores that are written in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sbertconv.artifact.json_reading import parse_json
from sbertconv.errors import SbertconvError

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

    The library misreads the last bit of one score in seven, and of ways to cut "aaaa..." that have the same sum that
    bit decides. Transformers hands it the scores as numbers, so a model has those of the file.
    """
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer.from_str(text)
    if isinstance(tokenizer.model, models.Unigram):
        model = parse_json(text, "tokenizer.json", dict)["model"]
        scored = [(token, float(score)) for token, score in model["vocab"]]
        tokenizer.model = models.Unigram(scored, model.get("unk_id"), model.get("byte_fallback", False))
    return tokenizer
