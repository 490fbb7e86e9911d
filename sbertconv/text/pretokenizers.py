"""Pre-tokenizers: where words begin, and what belongs to none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np

from sbertconv.text.characters import classify
from sbertconv.text.components import Component, Context, Json, Stages, real
from sbertconv.text.operations import Operations, Tensor
from sbertconv.text.tables import PageTable

LETTER, DROPPED, ALONE = 0, 1, 2


@dataclass(frozen=True)
class Splitting:
    """Words are runs of letters; a character that is alone is a word too, one that is dropped belongs to none."""

    classes: PageTable

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        classes = self.classes(ops, codes)
        breaks = classes > LETTER
        starts = starts | breaks | ops.previous(breaks, True)
        kept = ~(classes == DROPPED)
        return ops.compress(codes, kept), ops.compress(starts, kept)


@cache
def _classes(component: str) -> np.ndarray:
    split = real("pre_tokenizer", json.loads(component)).pre_tokenize_str

    def ask(c: str) -> int:
        words = [word for word, _ in split(f"a{c}a")]
        return {(f"a{c}a",): LETTER, ("a", "a"): DROPPED, ("a", c, "a"): ALONE}[tuple(words)]

    return classify(ask, lambda page: LETTER if len(split(page)) == 1 else None)


def splitting(component: Json, context: Context) -> Stages:
    """A pre-tokenizer that looks at one character at a time."""
    return [Splitting(PageTable.of(_classes(json.dumps(component)), [ALONE] * context.pseudo))]


PRE_TOKENIZERS = {"BertPreTokenizer": Component(splitting)}
