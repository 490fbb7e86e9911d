"""Which script a character belongs to, and which scripts a language is written in."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Sequence

from sbertconv.errors import UnsupportedOptionError

# Script -> the words that the Unicode names of its letters begin with.
SCRIPTS = {
    **{name.title(): (name,) for name in ("LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI",
        "GURMUKHI", "GUJARATI", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "ORIYA", "THAI", "LAO", "TIBETAN",
        "MYANMAR", "KHMER", "GEORGIAN", "ARMENIAN", "ETHIOPIC", "HIRAGANA", "KATAKANA", "HANGUL", "MONGOLIAN")},
    "Han": ("CJK",),
}  # fmt: skip
LATIN = "af az bs ca cs cy da de en es et eu fi fr ga gl hr hu id is it lt lv ms mt nl no pl pt ro sk sl sq sv sw tl "
LANGUAGES = {
    **dict.fromkeys(f"{LATIN}tr uz vi".split(), ("Latin",)),
    **dict.fromkeys(["be", "bg", "kk", "ky", "mk", "ru", "uk"], ("Cyrillic",)),
    **dict.fromkeys(["ar", "fa", "ur"], ("Arabic",)),
    **dict.fromkeys(["hi", "mr", "ne"], ("Devanagari",)),
    "sr": ("Cyrillic", "Latin"), "el": ("Greek",), "he": ("Hebrew",), "bn": ("Bengali",), "pa": ("Gurmukhi",),
    "gu": ("Gujarati",), "ta": ("Tamil",), "te": ("Telugu",), "kn": ("Kannada",), "ml": ("Malayalam",),
    "si": ("Sinhala",), "or": ("Oriya",), "th": ("Thai",), "lo": ("Lao",), "my": ("Myanmar",), "km": ("Khmer",),
    "ka": ("Georgian",), "hy": ("Armenian",), "am": ("Ethiopic",), "mn": ("Cyrillic", "Mongolian"), "zh": ("Han",),
    "ja": ("Han", "Hiragana", "Katakana"), "ko": ("Hangul", "Han"),
}  # fmt: skip


def scripts_of(names: Sequence[str]) -> frozenset[str]:
    """The scripts of languages (de, ru) and of scripts themselves (Latin, Cyrillic).

    Raises:
        UnsupportedOptionError: naming all that are not known.
    """
    if unknown := [name for name in names if name.lower() not in LANGUAGES and name.title() not in SCRIPTS]:
        raise UnsupportedOptionError(
            f"languages={unknown}: not known (have: {', '.join(SCRIPTS)}; {', '.join(sorted(LANGUAGES))}).\n"
            "Name a language's script, or its texts with keep=."
        )
    return frozenset(script for name in names for script in LANGUAGES.get(name.lower(), (name.title(),)))


@functools.cache
def script_of(character: str) -> str | None:
    """The script of a letter or a mark; "" for what all scripts share, None for letters of a script without a row."""
    first = unicodedata.name(character, "").split(" ")[0]
    found = next((script for script, words in SCRIPTS.items() if first in words), None)
    if found is not None and unicodedata.category(character)[0] in "LM":
        return found
    return None if unicodedata.category(character)[0] == "L" else ""


def is_within(text: Iterable[str], scripts: frozenset[str]) -> bool:
    """Whether every character belongs to one of the scripts, or to all: digits, punctuation, symbols."""
    return all(script_of(character) in scripts or script_of(character) == "" for character in text)
