"""JSON that comes from a file: one reader, bounded in size and depth, whose errors name the file and the key."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from sbertconv.errors import ArtifactError, SbertconvError

LARGEST = 1 << 26  # bytes, of which Python makes twenty times as many; the largest tokenizer files have half of that
DEEPEST = 100  # levels; the deepest file that is written or read has a fifth of that
COPY = "Get a complete copy of it."
KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
Rule = tuple[str, Callable[[Any], bool]]  # what is due, in words, and whether a value is that


def read_json(
    path: Path,
    kind: type = object,
    error: type[SbertconvError] = ArtifactError,
    *,
    advice: str = COPY,
    unique: bool = True,
    where: object = None,
) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        kind: what it must hold: dict, list, or object for anything.
        error: what is raised.
        advice: the last line of the message.
        unique: whether a key that stands twice in an object is refused; otherwise the last one counts.
        where: the name that messages call it by; default its path.

    Raises:
        error: if the file cannot be read, is too large or too deep, no JSON, or of another kind.
    """
    where = path if where is None else where
    return parse_json(
        read_bytes(path, error, advice=advice, where=where), where, kind, error, advice=advice, unique=unique
    )


def read_bytes(
    path: Path,
    error: type[SbertconvError] = ArtifactError,
    *,
    most: int | None = None,
    advice: str = COPY,
    where: object = None,
) -> bytes:
    """The content of a file that is one, and of no more than `most` bytes, `LARGEST` if that is None: not of a pipe or
    a device, which never end.

    Raises:
        error: if it is none, is larger, or cannot be read.
    """
    where, most = path if where is None else where, LARGEST if most is None else most
    try:
        # What is checked is what is read, whatever has that name a moment later; a pipe is not waited for
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise error(f"{where}: cannot be read: it is a pipe or a device, no file.\n{advice}")
            if found.st_size > most:
                raise error(f"{where}: {found.st_size:,} bytes (have: up to {most:,}).\n{advice}")
            return file.read(found.st_size)  # and not what grows on
    except (OSError, ValueError) as problem:  # ValueError: a name that no file can have
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{where}: cannot be read: {reason}\n{advice}") from problem


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(
    text: str | bytes,
    where: object,
    kind: type = object,
    error: type[SbertconvError] = ArtifactError,
    *,
    advice: str = COPY,
    unique: bool = True,
) -> Any:
    """The same of JSON that was read already; `where` is its place, for the message."""
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        content = json.loads(decoded, object_pairs_hook=_once if unique else None)
        if _is_deeper(content, DEEPEST):
            raise RecursionError
        if SURROGATE.search(decoded):  # an escape that stands for half a character, which nothing can print
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise error(f"{where}: not readable as JSON: more than {DEEPEST} levels deep.\n{advice}") from None
    except ValueError as problem:  # UnicodeDecodeError is one
        raise error(f"{where}: not readable as JSON: {problem}\n{advice}") from problem
    if not isinstance(content, kind):
        raise error(f"{where}: holds {_kind_of(content)}, not {KINDS[kind]}.\n{advice}")
    return content


def objects_in(content: Any, but: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """The objects in what a JSON file holds, at whatever depth, itself among them; none that lies under a key `but`."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += [value for key, value in item.items() if key not in but]
        elif isinstance(item, list):
            waiting += item


def check_keys(
    content: Mapping[str, Any],
    rules: Mapping[str, Rule],
    where: object,
    error: type[SbertconvError] = ArtifactError,
    *,
    advice: str = COPY,
) -> None:
    """Raise `error`, naming every key whose value is not what its rule says; keys without a rule may be anything."""
    problems = list(_wrong(content, rules))
    if problems:
        raise error(f"{where}: not as it should be:\n" + "\n".join(f"  {line}" for line in problems) + f"\n{advice}")


def _wrong(content: Mapping[str, Any], rules: Mapping[str, Rule]) -> Iterator[str]:
    for key, (due, fits) in rules.items():
        if key in content and not fits(content[key]):
            yield f"{key}: {json.dumps(content[key]):.60} (have: {due})"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _is_deeper(content: Any, levels: int) -> bool:
    """Whether lists and objects are nested deeper; looked at level by level, for nothing here may recurse."""
    level = [content]
    for _ in range(levels):
        level = [
            part
            for item in level
            for part in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
            if isinstance(part, (dict, list))
        ]
        if not level:
            return False
    return True


def _kind_of(content: Any) -> str:
    return "null" if content is None else KINDS[type(content)]
