"""What is known of a tokenizer.json: a table of types for each section, and what is not in them, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sbertconv.errors import UnsupportedOptionError

Json = Mapping[str, Any]


class Anything:
    """Any value of an option is known."""

    def __contains__(self, value: object) -> bool:
        return True


ANY = Anything()


class NotKnownError(Exception):
    """What is not known of a component, in words; raised while it is compiled."""


@dataclass(frozen=True)
class Component:
    """One type of component.

    Attributes:
        compile: (its JSON, context) -> what runs it.
        options: name -> the values that are known.
    """

    compile: Callable[[Json, TokenizerContext], Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def unknown(self, component: Json) -> Iterator[str]:
        """What of this component is not known, in words."""
        for name, value in component.items():
            if name == "type":
                continue
            if name not in self.options:
                yield f"option {name}={shown(value)}"
            elif value not in self.options[name]:
                yield f"option {name}={shown(value)} (have: {', '.join(map(shown, self.options[name]))})"


@dataclass(frozen=True)
class TokenizerContext:
    """What all components of one tokenizer share.

    Attributes:
        tokenizer: the whole tokenizer.json.
        pseudo: how many pseudo characters there are.
        pair: whether two texts make one input.
    """

    tokenizer: Json
    pseudo: int
    pair: bool


SEQUENCES = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}


def parts(section: str, tokenizer: Json) -> list[Json]:
    """The components of a section in order; sequences are taken apart."""

    def flat(component: Json | None) -> Iterator[Json]:
        if component is None:
            return
        if component["type"] == "Sequence":
            for part in component[SEQUENCES[section]]:
                yield from flat(part)
        else:
            yield component

    return list(flat(tokenizer[section]))


def problems(tokenizer: Json, tables: Mapping[str, Mapping[str, Component]]) -> Iterator[str]:
    """Every component and option that is not in the tables, in words."""
    for section, table in tables.items():
        for component in parts(section, tokenizer):
            label, known = f"{section} {component['type']}", table.get(component["type"])
            if known is None:
                yield f"{label} is not known (have: {', '.join(table)})"
            else:
                yield from (f"{label}: {problem}" for problem in known.unknown(component))


def refuse(found: Sequence[str]) -> None:
    """Raise UnsupportedOptionError with all of these, if there are any."""
    if found:
        raise UnsupportedOptionError(
            "Text input is not possible with this tokenizer:\n  " + "\n  ".join(found) + "\n"
            "Leave text_input=True out; the artifact's tokenizer.json works in every language that has the library."
        )


def unknown_id(model: Json) -> int:
    """The id of the token for what is unknown; where the vocabulary lacks it, the library fails on some texts."""
    found: int | None = model["vocab"].get(model["unk_token"])
    if found is None:
        raise NotKnownError(f"model {model['type']}: unk_token {shown(model['unk_token'])} is not in the vocabulary")
    return found


def shown(value: Any, width: int = 200) -> str:
    """A value of a tokenizer.json for a message, of expressions enough to tell them apart."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= width else f"{text[:width]}..."


@cache
def _real(section: str, component: str) -> Any:
    from tokenizers import Tokenizer

    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    model = {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}
    tokenizer = {"version": "1.0", **empty, "added_tokens": [], "model": model, section: json.loads(component)}
    return getattr(Tokenizer.from_str(json.dumps(tokenizer)), section)


def real(section: str, *components: Json) -> Any:
    """The library's own component, to be asked; several: one after the other."""
    found = components[0] if len(components) == 1 else {"type": "Sequence", SEQUENCES[section]: list(components)}
    return _real(section, json.dumps(found, sort_keys=True))


Stage = Callable[..., Any]
Stages = Sequence[Stage]
