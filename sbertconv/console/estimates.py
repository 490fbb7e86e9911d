"""How long a conversion takes, with how much memory and into how large a folder: as earlier ones did on this machine.

One small file in the user's cache holds the latest conversions: command, options, bytes of the checkpoint, seconds of
each stage, peak memory, bytes of what was written. It holds no name of a model and no text. An estimate is the record
of the same command and options whose checkpoint is nearest in size, and each of its figures grows with that size
beyond a fixed cost, see `FIXED`. Without such a record there is no estimate, and a file that cannot be read or written
counts as empty.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sbertconv.artifact.folder import MANIFEST
from sbertconv.options import fields_of, of_field, recorded
from sbertconv.runtime.records import add_record, read_records
from sbertconv.source.naming import path_is_there

MIB = 2**20
# What every conversion costs, as the bytes of a checkpoint that would cost as much again.
FIXED = {"seconds": 50 * MIB, "memory": 400 * MIB, "size": MIB}
RECORDS = "conversions"
MODEL_FILES = ("modules.json", "config.json", MANIFEST)


@dataclass(frozen=True)
class Measured:
    """One conversion that ended well.

    Attributes:
        command: the verb.
        options: those that differ from their default and are no free text.
        checkpoint: bytes of the model's files.
        stages: name and seconds of each, in order.
        memory: largest resident set of the process, in bytes; 0 where the system does not tell.
        size: bytes of the folder.
    """

    command: str
    options: dict[str, Any]
    checkpoint: int
    stages: list[tuple[str, float]]
    memory: int
    size: int


@dataclass(frozen=True)
class Estimate:
    """What a conversion will take, if it goes as a measured one did."""

    measured: Measured
    checkpoint: int

    def grown(self, value: float, figure: str) -> float:
        """A measured figure, for this checkpoint."""
        return value * (FIXED[figure] + self.checkpoint) / (FIXED[figure] + self.measured.checkpoint)

    @property
    def stages(self) -> list[tuple[str, float]]:
        return [(name, self.grown(seconds, "seconds")) for name, seconds in self.measured.stages]

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in self.stages)

    @property
    def memory(self) -> float:
        return self.grown(self.measured.memory, "memory")

    @property
    def size(self) -> float:
        return self.grown(self.measured.size, "size")

    def left(self, begun: Sequence[str], elapsed: float) -> float:
        """Seconds that remain, where the last of the stages that have begun runs for `elapsed` seconds."""
        stages, place, running = self.stages, 0, 0.0
        for name in begun:
            names = [name for name, _ in stages[place:]]
            running = 0.0
            if name in names:
                place += names.index(name) + 1
                running = stages[place - 1][1]
        return max(0.0, running - elapsed) + sum(seconds for _, seconds in stages[place:])


@dataclass
class Course:
    """A conversion as it goes: what it is expected to take, and what it takes."""

    command: str
    model: str
    options: Mapping[str, Any]
    begun: list[tuple[str, float]] = field(default_factory=list)

    @cached_property
    def kind(self) -> dict[str, Any]:
        """What tells conversions apart that take different times; free text, such as a revision, does not."""
        entries = fields_of(self.command)
        given = {name: value for name, value in self.options.items() if name in entries}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in recorded(self.command, given).items()
            if not isinstance(value, str) or of_field(entries[name][0]).choices
        }

    @cached_property
    def estimate(self) -> Estimate | None:
        """None where nothing like it was measured."""
        size = checkpoint_bytes(self.model, self.options.get("revision"))
        like = [
            one for one in read_records(RECORDS, Measured) if (one.command, one.options) == (self.command, self.kind)
        ]
        if not size or not like:
            return None
        return Estimate(min(reversed(like), key=lambda one: abs(one.checkpoint - size)), size)

    def heard(self, on_stage: Callable[[str], None]) -> Callable[[str], None]:
        """The same, with the stages written down."""

        def begin(name: str) -> None:
            self.begun.append((name, time.perf_counter()))
            on_stage(name)

        return begin

    def left(self) -> float | None:
        """Seconds that remain; None where nothing is known."""
        if self.estimate is None or not self.begun:
            return None
        return self.estimate.left([name for name, _ in self.begun], time.perf_counter() - self.begun[-1][1])

    def keep(self, folder: str | Path) -> None:
        """Write down what it took, at its end."""
        ends = [*(start for _, start in self.begun[1:]), time.perf_counter()]
        stages = [(name, end - start) for (name, start), end in zip(self.begun, ends, strict=True)]
        with suppress(OSError):
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            checkpoint = checkpoint_bytes(self.model, self.options.get("revision"))
            if checkpoint:
                add_record(RECORDS, Measured(self.command, self.kind, checkpoint, stages, peak_memory(), size))


def checkpoint_bytes(model: str, revision: str | None = None) -> int:
    """Bytes of what is loaded of a model, a folder or a .keras file; 0 where they are not on this machine."""
    from sbertconv.benchmark.contestants import checkpoint_size

    path = Path(model).expanduser() if path_is_there(model) else _in_cache(model, revision)
    if path is None or path.is_file():
        return path.stat().st_size if path else 0
    return checkpoint_size(path) if any((path / name).is_file() for name in MODEL_FILES) else 0


def _in_cache(name: str, revision: str | None) -> Path | None:
    """The folder of a Hub id, as far as it was downloaded."""
    with suppress(ImportError, OSError, ValueError):
        from huggingface_hub import snapshot_download

        owned = name if "/" in name else f"sentence-transformers/{name}"
        return Path(snapshot_download(owned, revision=revision, local_files_only=True))
    return None


def peak_memory() -> int:
    """The largest resident set of this process so far, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def about(seconds: float) -> str:
    """A time in words that promise no more than they can keep."""
    if seconds < 60:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
