"""Small files in the user's cache that hold what was measured on this machine: the latest records of a kind."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from sbertconv.artifact.json_reading import read_bytes
from sbertconv.errors import SbertconvError

KEPT = 50  # records, the latest
LARGEST = 1 << 20  # bytes of a file; a larger one is not ours
Record = TypeVar("Record")


def records_file(name: str) -> Path:
    """Where records are: docs/privacy.md names the files."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "sbertconv", f"{name}.json")


def read_records(name: str, kind: type[Record]) -> list[Record]:
    """The records, the latest last; none where there is no file that can be read."""
    with suppress(RuntimeError, ValueError, SbertconvError, msgspec.MsgspecError):  # RuntimeError: there is no home
        content = read_bytes(records_file(name), most=LARGEST)
        return msgspec.json.decode(content, type=list[kind])  # type: ignore[valid-type]
    return []


def add_record(name: str, record: Record) -> Path | None:
    """Add a record; in one step, so that a process beside this one finds the whole file. Returns the file, None where
    nothing can be written.
    """
    with suppress(OSError, RuntimeError):
        content = msgspec.json.encode([*read_records(name, type(record)), record][-KEPT:])
        file = records_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_file():  # a pipe or a device of somebody's
            return None
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        partial.write_bytes(content)
        partial.replace(file)
        return file
    return None
