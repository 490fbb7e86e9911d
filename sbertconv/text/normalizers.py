"""Normalizers: how each becomes maps of characters and a few other stages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from sbertconv.errors import UnsupportedOptionError
from sbertconv.text.characters import CharacterMap, Composition, Reordering, changes, classify
from sbertconv.text.charsmap import Charsmap
from sbertconv.text.components import ANY, Component, Context, Json, Stages, real, shown
from sbertconv.text.operations import END, INT, Operations, Tensor
from sbertconv.text.tables import PageTable

NFD, NFC = {"type": "NFD"}, {"type": "NFC"}
SPACE = ord(" ")
SPACE_RUNS = {"Regex": " {2,}"}


@cache
def _changes(components: str) -> dict[int, str]:
    return changes(real("normalizer", *json.loads(components)).normalize_str)


def character_map(context: Context, *components: Json) -> CharacterMap:
    """What these normalizers, one after the other, do to each character."""
    return CharacterMap.of(_changes(json.dumps(components)), context.pseudo)


def reordering(context: Context) -> Reordering:
    """The canonical order of marks, as NFD has it."""
    return Reordering.of(real("normalizer", NFD).normalize_str, context.pseudo)


def bert(component: Json, context: Context) -> Stages:
    """Clean, space out ideographs, then decompose and drop marks, then lower case.

    Marks are put in order between the second step and the third; some of them are not dropped.
    """
    strip = component["lowercase"] if component["strip_accents"] is None else component["strip_accents"]
    first = {**component, "strip_accents": False, "lowercase": False}
    second = {**component, "strip_accents": strip, "clean_text": False, "handle_chinese_chars": False}
    if not strip:
        return [character_map(context, component)]
    return [character_map(context, first, NFD), reordering(context), character_map(context, second)]


def mapping(component: Json, context: Context) -> Stages:
    """A normalizer that looks at one character at a time."""
    return [character_map(context, component)]


def decomposition(component: Json, context: Context) -> Stages:
    """NFD, NFKD: decompose, then put marks in order."""
    return [character_map(context, component), reordering(context)]


def composition(component: Json, context: Context) -> Stages:
    """NFC, NFKC: the same, then compose."""
    decomposed = {"type": component["type"].replace("C", "D")}
    return [*decomposition(decomposed, context), Composition.of(real("normalizer", NFC).normalize_str, context.pseudo)]


def replacement(component: Json, context: Context) -> Stages:
    """Replace: of one character, or of runs of two spaces and more."""
    pattern, content = component["pattern"], component["content"]
    if pattern == SPACE_RUNS:
        if len(content) > 1:
            raise UnsupportedOptionError(
                f"Text input is not possible with normalizer Replace: {shown(pattern)} by {shown(content)} (have: one "
                "character).\nLeave --text-input out."
            )
        return [SpaceRuns(tuple(map(ord, content)))]
    return [CharacterMap.of({ord(pattern["String"]): content}, context.pseudo)]


@dataclass(frozen=True)
class SpaceRuns:
    """Two spaces and more become other characters.

    Attributes:
        content: the one character, or none.
    """

    content: tuple[int, ...]

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        space = codes == SPACE
        inside = space & ops.previous(space, False)
        first = space & ops.next(space, False) & ~inside
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


def stripping(component: Json, context: Context) -> Stages:
    """Strip."""
    function = real("normalizer", {"type": "Strip", "strip_left": True, "strip_right": True}).normalize_str
    spaces = classify(lambda c: int(function(f"a{c}") == "a"), lambda page: None)
    left, right = component["strip_left"], component["strip_right"]
    return [Stripping(PageTable.of(spaces, [0] * context.pseudo), left, right)] if left or right else []


def prefix(component: Json, context: Context) -> Stages:
    """Prepend."""
    content = np.array([ord(c) for c in component["prepend"]], np.int32)
    return [Prefix(content)] if len(content) else []


def precompiled(component: Json, context: Context) -> Stages:
    """Precompiled; an empty map does nothing."""
    encoded = component["precompiled_charsmap"]
    return [Charsmap.of(encoded, context.pseudo)] if encoded else []


class Characters:
    """Patterns that are one character, and the expression for runs of spaces."""

    def __contains__(self, pattern: object) -> bool:
        return pattern == SPACE_RUNS or (isinstance(pattern, dict) and len(pattern.get("String", "")) == 1)

    def __iter__(self) -> Iterator[Any]:
        return iter(({"String": "<one character>"}, SPACE_RUNS))


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
    "Replace": Component(replacement, {"pattern": Characters(), "content": ANY}),
    "Prepend": Component(prefix, {"prepend": ANY}),
    "Strip": Component(stripping, {"strip_left": BOTH, "strip_right": BOTH}),
    **{name: Component(compile_) for name, compile_ in FORMS.items()},
}
