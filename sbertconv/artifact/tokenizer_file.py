"""A tokenizer.json as a tokenizer of the tokenizers library, with exactly the scores that are written in it."""

from __future__ import annotations

from typing import Any

from sbertconv.artifact.json_reading import parse_json


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
