"""Normalizers: how each becomes maps of characters and a few other stages."""

from __future__ import annotations

import json
from functools import cache

from sbertconv.text.characters import CharacterMap, Reordering, changes
from sbertconv.text.components import Component, Context, Json, Stages, real

NFD = {"type": "NFD"}


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


BOTH = (True, False)
NORMALIZERS = {
    "BertNormalizer": Component(
        bert,
        {"clean_text": BOTH, "handle_chinese_chars": BOTH, "strip_accents": (None, *BOTH), "lowercase": BOTH},
    ),
}
