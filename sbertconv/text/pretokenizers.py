"""Pre-tokenizers: where words begin, and what belongs to none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np

from sbertconv.text.bytes import ByteLevel, SpacePrefix, byte_alphabet
from sbertconv.text.characters import classify
from sbertconv.text.components import ANY, Component, Json, NotKnownError, Stages, TokenizerContext, parts, real, shown
from sbertconv.text.operations import END, Operations, Tensor
from sbertconv.text.tables import PageTable
from sbertconv.text.words import EXPRESSIONS, GPT_2, WordExpression

LETTER, DROPPED, ALONE, OTHER = 0, 1, 2, 3


@dataclass(frozen=True)
class Splitting:
    """Words are runs of one class; a character that is alone is a word too, one that is dropped belongs to none.

    Attributes:
        classes: code point -> LETTER, DROPPED, ALONE or OTHER.
    """

    classes: PageTable

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        classes = self.classes(ops, codes)
        starts = starts | (classes == ALONE) | (classes != ops.previous(classes, ALONE))
        kept = classes != DROPPED
        return ops.compress(codes, kept), ops.compress(starts, kept)


@cache
def _classes(component: str) -> np.ndarray:
    split = real("pre_tokenizer", json.loads(component)).pre_tokenize_str

    def ask(c: str) -> int:
        words = tuple(word for word, _ in split(f"a{c}{c}a"))
        known = {(f"a{c}{c}a",): LETTER, ("a", "a"): DROPPED, ("a", c, c, "a"): ALONE, ("a", f"{c}{c}", "a"): OTHER}
        if words not in known:
            found = json.loads(component)
            raise NotKnownError(f"pre_tokenizer {shown(found)}: it makes {list(words)} of {f'a{c}{c}a'!r}")
        return known[words]

    return classify(ask, lambda page: LETTER if len(split(f"a{page}a")) == 1 else None)


def splitting(component: Json, context: TokenizerContext) -> Stages:
    """A pre-tokenizer that looks at one character at a time."""
    return [Splitting(PageTable.of(_classes(json.dumps(component)), [ALONE] * context.pseudo))]


@dataclass(frozen=True)
class Metaspace:
    """Spaces become a character that stands before each word.

    Attributes:
        sign: it.
        prefixed: whether words that do not begin with it get one: all of them, or those that begin a text.
        first: only the latter.
        split: whether each begins a word.
    """

    sign: int
    prefixed: bool
    first: bool
    split: bool

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        codes = ops.where(codes == ord(" "), self.sign, codes)
        if self.prefixed:
            lacking = starts & (codes < END) & (codes != self.sign)
            if self.first:
                lacking = lacking & (ops.previous(codes, END) == END)
            owner, place = ops.repeat(lacking.number + 1)
            added = lacking[owner] & (place < 1)
            codes, starts = ops.where(added, self.sign, codes[owner]), starts[owner] & (place < 1)
        return codes, starts | (codes == self.sign) if self.split else starts


def metaspace(component: Json, context: TokenizerContext) -> Stages:
    """Metaspace; to know what begins a text, nothing may have been dropped before."""
    scheme = component["prepend_scheme"]
    if scheme == "first" and (parts("normalizer", context.tokenizer) or parts("pre_tokenizer", context.tokenizer)[1:]):
        raise NotKnownError("pre_tokenizer Metaspace: prepend_scheme='first' beside other components")
    sign = ord(component["replacement"])
    return [Metaspace(sign, scheme != "never", scheme == "first", component["split"])]


def byte_level(component: Json, context: TokenizerContext) -> Stages:
    """ByteLevel: perhaps a space before each piece, perhaps words as GPT-2 has them, then bytes."""
    alphabet = np.array([ord(c) for c in byte_alphabet()], np.int32)
    prefix = [SpacePrefix()] if component["add_prefix_space"] else []
    words = [WordExpression.of(GPT_2, context.pseudo)] if component["use_regex"] else []
    return [*prefix, *words, ByteLevel(alphabet)]


@dataclass(frozen=True)
class AfterSpace:
    """A word begins behind every space."""

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        return codes, starts | ops.previous(codes == ord(" "), False)


def split(component: Json, context: TokenizerContext) -> Stages:
    """Split by one of the known expressions, or behind spaces."""
    expression = component["pattern"].get("Regex")
    removed = expression is not None and EXPRESSIONS[expression].removed
    how = component["behavior"], component["invert"]
    if expression is not None and how == (("Removed", True) if removed else ("Isolated", False)):
        return [WordExpression.of(expression, context.pseudo)]
    if expression is None and how == ("MergedWithPrevious", False):
        return [AfterSpace()]
    raise NotKnownError(f"pre_tokenizer {shown(component, 200)}")


BOTH = (True, False)
SPLITS = ({"String": " "}, *({"Regex": expression} for expression in EXPRESSIONS))
PRE_TOKENIZERS = {
    "BertPreTokenizer": Component(splitting),
    "WhitespaceSplit": Component(splitting),
    "Whitespace": Component(splitting),
    "Punctuation": Component(splitting, {"behavior": ("Isolated", "Removed", "Contiguous")}),
    "Digits": Component(splitting, {"individual_digits": BOTH}),
    "Split": Component(
        split, {"pattern": SPLITS, "behavior": ("Isolated", "MergedWithPrevious", "Removed"), "invert": BOTH}
    ),
    "ByteLevel": Component(byte_level, {"add_prefix_space": BOTH, "trim_offsets": BOTH, "use_regex": BOTH}),
    "Metaspace": Component(
        metaspace, {"replacement": ANY, "prepend_scheme": ("always", "first", "never"), "split": BOTH}
    ),
}
