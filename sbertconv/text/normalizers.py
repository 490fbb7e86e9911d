"""Normalizers: how each becomes maps of characters and a few other stages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from sbertconv.text.added import AddedTokens
from sbertconv.text.characters import CharacterMap, Composition, Reordering, changes, classify
from sbertconv.text.charsmap import Charsmap
from sbertconv.text.components import ANY, Component, Json, NotKnownError, Stages, TokenizerContext, real, shown
from sbertconv.text.operations import END, INT, Operations, Tensor
from sbertconv.text.tables import PageTable, every
from sbertconv.text.words import matching

NFD, NFC = {"type": "NFD"}, {"type": "NFC"}
SPACE = " "
# expression -> the white space that runs of two and more are made of, and that which counts alone; None: all of it
RUNS: dict[str, tuple[str | None, str | None]] = {
    " {2,}": (SPACE, ""),
    r"\s{2,}": (None, ""),
    r"\s+": (None, None),
    r"\s{2,}|[\n\r\t]": (None, "\n\r\t"),
    r"[\n\r\t]": ("", "\n\r\t"),
    r"\n": ("", "\n"),
}


@cache
def _changes(components: str) -> dict[int, str]:
    return changes(real("normalizer", *json.loads(components)).normalize_str)


def character_map(context: TokenizerContext, *components: Json) -> CharacterMap:
    """What these normalizers, one after the other, do to each character."""
    return CharacterMap.of(_changes(json.dumps(components)), context.pseudo)


def reordering(context: TokenizerContext) -> Reordering:
    """The canonical order of marks, as NFD has it."""
    return Reordering.of(real("normalizer", NFD).normalize_str, context.pseudo)


def bert(component: Json, context: TokenizerContext) -> Stages:
    """Clean, space out ideographs, then decompose and drop marks, then lower case.

    Marks are put in order between the second step and the third; some of them are not dropped.
    """
    strip = component["lowercase"] if component["strip_accents"] is None else component["strip_accents"]
    first = {**component, "strip_accents": False, "lowercase": False}
    second = {**component, "strip_accents": strip, "clean_text": False, "handle_chinese_chars": False}
    if not strip:
        return [character_map(context, component)]
    return [character_map(context, first, NFD), reordering(context), character_map(context, second)]


def mapping(component: Json, context: TokenizerContext) -> Stages:
    """A normalizer that looks at one character at a time."""
    return [character_map(context, component)]


def decomposition(component: Json, context: TokenizerContext) -> Stages:
    """NFD, NFKD: decompose, then put marks in order."""
    return [character_map(context, component), reordering(context)]


def composition(component: Json, context: TokenizerContext) -> Stages:
    """NFC, NFKC: the same, then compose."""
    decomposed = {"type": component["type"].replace("C", "D")}
    return [*decomposition(decomposed, context), Composition.of(real("normalizer", NFC).normalize_str, context.pseudo)]


def replacement(component: Json, context: TokenizerContext) -> Stages:
    """Replace: of a text, or of runs of white space."""
    pattern, content = component["pattern"], component["content"]
    if "Regex" in pattern:
        if len(content) > 1:
            raise NotKnownError(f"normalizer Replace: {shown(pattern)} by {shown(content)} (have: one character)")
        return [SpaceRuns(PageTable.of(_runs(pattern["Regex"]), [0] * context.pseudo), tuple(map(ord, content)))]
    text = pattern["String"]
    if len(text) == 1:
        return [CharacterMap.of({ord(text): content}, context.pseudo)]
    # Found like an added token without flags, then a map of its pseudo character.
    number, flags = context.pseudo - 1, {"single_word": False, "lstrip": False, "rstrip": False}
    finder = AddedTokens.of({number: text}, [flags] * context.pseudo)
    return [finder, CharacterMap.of({}, context.pseudo, [content])]


def _runs(expression: str) -> np.ndarray:
    """Code point -> 0 if the expression does not match it, 1 if it does in runs, 2 if it does alone too."""
    values, white = every(), matching(r"\s")
    for number, characters in enumerate(RUNS[expression], 1):
        if characters is None:
            values[white > 0] = number
        else:
            values[[ord(c) for c in characters]] = number
    return values


@dataclass(frozen=True)
class SpaceRuns:
    """Runs of white space become another character, or none.

    Attributes:
        spaces: code point -> 1 in runs of two and more, 2 also alone.
        content: the one character, or none.
    """

    spaces: PageTable
    content: tuple[int, ...]

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        spaces = self.spaces(ops, codes)
        inside = (spaces > 0) & (ops.previous(spaces, 0) > 0)
        first = ((spaces > 1) | ((spaces > 0) & (ops.next(spaces, 0) > 0))) & ~inside
        if not self.content:
            return ops.compress(codes, ~(first | inside))
        codes = ops.where(first, self.content[0], codes)
        return ops.compress(codes, ~inside)


@dataclass(frozen=True)
class Prefix:
    """Characters before every piece of text that is not empty.

    Attributes:
        content: them.
    """

    content: np.ndarray

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        pseudo = codes >= END
        begins = ~pseudo & ops.previous(pseudo, True)
        count = len(self.content)
        owner, place = ops.repeat(begins.number * count + 1)
        ahead = begins[owner] & (place < count)
        text = ops.constant(self.content)[ops.apply("min", [place, ops.constant(count - 1)], INT)]
        return ops.where(ahead, text, codes[owner])


@dataclass(frozen=True)
class Stripping:
    """Without white space at the begin and the end of every piece of text.

    Attributes:
        spaces: code point -> whether it is.
        left, right: on which sides.
    """

    spaces: PageTable
    left: bool
    right: bool

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        solid = ~(self.spaces(ops, codes) > 0)
        number = ops.cumsum(solid.number)
        where = ops.nonzero(solid)  # the last is an END
        pseudo = codes >= END
        kept = codes >= 0
        before = where[ops.apply("max", [number - 1, ops.constant(0)], INT)]
        after = where[ops.apply("min", [number, ops.size(where) - 1], INT)]
        for wanted, neighbour in ((self.left, before), (self.right, after)):
            inside = ~pseudo[neighbour]
            kept = kept & (solid | inside) if wanted else kept
        return ops.compress(codes, kept)


def stripping(component: Json, context: TokenizerContext) -> Stages:
    """Strip."""
    function = real("normalizer", {"type": "Strip", "strip_left": True, "strip_right": True}).normalize_str
    spaces = classify(lambda c: int(function(f"a{c}") == "a"), lambda page: None)
    left, right = component["strip_left"], component["strip_right"]
    return [Stripping(PageTable.of(spaces, [0] * context.pseudo), left, right)] if left or right else []


def prefix(component: Json, context: TokenizerContext) -> Stages:
    """Prepend."""
    content = np.array([ord(c) for c in component["prepend"]], np.int32)
    return [Prefix(content)] if len(content) else []


def precompiled(component: Json, context: TokenizerContext) -> Stages:
    """Precompiled; an empty map does nothing."""
    encoded = component["precompiled_charsmap"]
    return [Charsmap.of(encoded, context.pseudo)] if encoded else []


class Patterns:
    """Texts, and the expressions for runs of white space."""

    def __contains__(self, pattern: object) -> bool:
        return isinstance(pattern, dict) and bool(pattern.get("String") or pattern.get("Regex") in RUNS)

    def __iter__(self) -> Iterator[Any]:
        return iter(({"String": "<any text>"}, *({"Regex": expression} for expression in RUNS)))


BOTH = (True, False)
FORMS = {"NFD": decomposition, "NFKD": decomposition, "NFC": composition, "NFKC": composition}
NORMALIZERS = {
    "BertNormalizer": Component(
        bert,
        {"clean_text": BOTH, "handle_chinese_chars": BOTH, "strip_accents": (None, *BOTH), "lowercase": BOTH},
    ),
    "Precompiled": Component(precompiled, {"precompiled_charsmap": ANY}),
    "Lowercase": Component(mapping),
    "StripAccents": Component(mapping),
    "Nmt": Component(mapping),
    "Replace": Component(replacement, {"pattern": Patterns(), "content": ANY}),
    "Prepend": Component(prefix, {"prepend": ANY}),
    "Strip": Component(stripping, {"strip_left": BOTH, "strip_right": BOTH}),
    **{name: Component(compile_) for name, compile_ in FORMS.items()},
}
