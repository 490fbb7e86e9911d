"""What is done: lines in the output's folder, the arguments first, then one for each part."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sbertconv.artifact.json_reading import Rule, check_keys, parse_json
from sbertconv.errors import ArtifactError, UnsupportedOptionError
from sbertconv.runtime.tokenization import SURROGATE
from sbertconv.tables.reading import Input, Part, place_of
from sbertconv.tables.stores import store_of

LONGEST_NAME = 255  # bytes, in most file systems
NOTHING: Mapping[str, Any] = {"nothing": None}  # in the place of a key that is missing: what fits no rule


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode(errors="replace")) <= LONGEST_NAME


def mark_of(name: str, stamp: Sequence[Any]) -> str:
    """What a file keeps when its folder is moved."""
    return json.dumps([name.rpartition("/")[2], *stamp])


def is_range(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(number, (int, float)) for number in value)


# What the first line must say, and the others
HEADER: dict[str, Rule] = {
    "arguments": ("an object", lambda value: isinstance(value, dict) and value is not NOTHING),
    "schema": ("text", lambda value: isinstance(value, str)),
    "ranges": (
        "null, two lists of numbers",
        lambda value: value is None or (isinstance(value, list) and len(value) == 2 and all(map(is_range, value))),
    ),
}
PART: dict[str, Rule] = {
    "file": ("text", lambda value: isinstance(value, str)),
    "part": ("a count", is_count),
    "rows": ("a count", is_count),
    "last": ("true, false", lambda value: isinstance(value, bool)),
    "stamp": ("a size and a mark", lambda value: isinstance(value, list) and len(value) == 2 and is_count(value[0])),
    "output": ("the name of a file, null", lambda value: value is None or is_name(value)),
    "short": ("true or nothing", lambda value: value is True or value is NOTHING),
}


@dataclass
class Done:
    """The parts of a file that are done.

    Attributes:
        stamp: of the file as it was.
        parts: their numbers, from the first that is not in `front` on.
        front: so many from the first on.
        last: the number of the file's last part, once known.
        rows: of all its parts.
    """

    stamp: list[Any]
    parts: set[int] = field(default_factory=set)
    front: int = 0
    last: int | None = None
    rows: int = 0

    def add(self, number: int, last: bool, rows: int) -> None:
        """Count a part; one that stands twice counts once."""
        if number in self:
            return
        self.rows += rows
        self.parts.add(number)
        self.last = number if last else self.last
        while self.front in self.parts:
            self.parts.remove(self.front)
            self.front += 1

    @property
    def complete(self) -> bool:
        return self.last is not None and self.front > self.last

    def __contains__(self, number: int) -> bool:
        return number < self.front or number in self.parts


class Ledger:
    """The ledger of an output folder, held by one process at a time.

    Attributes:
        header: what the first run said: the arguments, the schema, the ranges.
    """

    def __init__(self, output: str | Path, arguments: Mapping[str, Any]) -> None:
        self.output = output
        self.files: dict[str, Done] = {}
        self.header: dict[str, Any] = {}
        if halves := [
            name for name, value in arguments.items() if SURROGATE.search(json.dumps(value, ensure_ascii=False))
        ]:
            raise UnsupportedOptionError(
                f"{halves[0]}=: holds half of a surrogate pair, which is no character.\nMend the text."
            )
        self.store = store_of(output)
        try:
            self._read()
            self._check(arguments)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let it go."""
        self.store.close()

    def _read(self) -> None:
        """The lines that are whole; what a killed run left behind is cut off, and its half-written files removed."""
        number = 0
        for line in self.store.lines():
            try:
                entry = parse_json(line, self.store.ledger)
            except ArtifactError:
                break
            number += 1
            self._check_entry(entry, HEADER if not self.header else PART)
            if not self.header:
                self.header = entry
            else:
                self._count(entry)
        self.store.cut(number)

    def _check_entry(self, entry: Any, rules: Mapping[str, Rule]) -> None:
        """Raise UnsupportedOptionError for a line that no run has written."""
        needed = dict.fromkeys(PART if rules is PART else ("arguments",), NOTHING)
        given = {**needed, **entry} if isinstance(entry, dict) else needed
        check_keys(given, rules, self.store.ledger, UnsupportedOptionError, advice="Choose another --output.")

    def _count(self, entry: Mapping[str, Any]) -> None:
        """Count a part whose file is there; that of another one was removed, and its rows are embedded again."""
        if entry["output"] is not None and not self.store.has(entry["output"]):
            return
        done = self.files.get(entry["file"])
        if done is None or done.stamp != entry["stamp"]:  # an older file of this name
            done = self.files[entry["file"]] = Done(entry["stamp"])
        if "short" not in entry:
            done.add(entry["part"], entry["last"], entry["rows"])

    @property
    def rows(self) -> int:
        """How many are there."""
        return sum(done.rows for done in self.files.values())

    def _check(self, arguments: Mapping[str, Any]) -> None:
        before = self.header.get("arguments")
        if before is None or before == json.loads(json.dumps(arguments)):
            return
        names = [name for name in {**before, **arguments} if before.get(name) != arguments.get(name)]
        differences = "; ".join(f"{name}: {before.get(name)!r} then, {arguments.get(name)!r} now" for name in names)
        raise UnsupportedOptionError(
            f"{self.output}: begun with other arguments: {differences}.\nUse those, or choose another folder."
        )

    def begin(self, header: Mapping[str, Any]) -> None:
        """Say what every later run goes by; the first run does."""
        self.header = dict(header)
        self._append(self.header)

    def named(self, sources: Sequence[Input]) -> list[Input]:
        """The files by the names that their first runs gave them, which spelt a path otherwise, or came through a link
        to a folder. Where such a name leads is found out now: a link may stand where a folder was moved from, or
        have been led elsewhere.

        Raises:
            UnsupportedOptionError: for a file that seems to have been moved: as a new one its rows would stand here
                twice.
        """
        names = {place_of(name): name for name in reversed(self.files)}
        gone = {
            mark_of(name, self.files[name].stamp): name
            for place, name in names.items()
            if self.files[name].rows and "://" not in place and not os.path.lexists(place)
        }
        found = [replace(source, path=names.get(place_of(source.path), source.path)) for source in sources]
        for source in found:
            before = gone.get(mark_of(source.path, [source.size, source.stamp]))
            if before is not None and source.path not in self.files:
                raise UnsupportedOptionError(
                    f"{source.path}: has the name, size and time of {before}, which is done and no longer there: if it "
                    f"is the same file, its rows would stand in {self.output} twice.\n"
                    "If its folder was moved, put a link to it in the old place; if it is another file, touch it."
                )
        return found

    def done(self, source: Input) -> Done:
        """The parts of a file that are done; of one that has changed since, none are, and their output goes."""
        stamp = [source.size, source.stamp]
        done = self.files.get(source.path)
        if done is None or done.stamp != stamp:
            if done:
                self.store.remove(f"*-{source.code}-*")
                # Its lines are no longer true, and its outputs' names are taken before the first new line is written
                self._append(self._line(source, output=None) | {"short": True})
            done = self.files[source.path] = Done(stamp)
        return done

    def add(self, part: Part, output: str | None) -> None:
        """A part is done: its file is there. A short one is done again by another run."""
        self._append(
            {
                **self._line(part.source, part=part.number, rows=part.rows, last=part.last, output=output),
                **({"bad": [[one.row, one.reason] for one in part.bad]} if part.bad else {}),
                **({"short": True} if part.short else {}),
            }
        )
        if not part.short:
            self.files[part.source.path].add(part.number, part.last, part.rows)

    def _line(
        self, source: Input, *, part: int = 0, rows: int = 0, last: bool = False, output: str | None
    ) -> dict[str, Any]:
        stamp = [source.size, source.stamp]
        return {"file": source.path, "part": part, "rows": rows, "last": last, "stamp": stamp, "output": output}

    def _append(self, entry: Mapping[str, Any]) -> None:
        self.store.append(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
