"""Which engine, how many batches at once and how large ones run a folder fastest on this machine."""

from __future__ import annotations

import contextlib
import datetime
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sbertconv.artifact.folder import Artifact, folder_hash
from sbertconv.benchmark.contestants import FIRST_TEXT, Contestant, Worker, contestants_of
from sbertconv.benchmark.measuring import OnStep, Steps, alternate, mixed_texts
from sbertconv.errors import UnsupportedOptionError
from sbertconv.frameworks import version_of
from sbertconv.runtime.batches import TOKENS_PER_CORE
from sbertconv.runtime.engines import ENGINES
from sbertconv.runtime.model import taken_unasked
from sbertconv.runtime.opening import artifact_at
from sbertconv.runtime.options import default_threads
from sbertconv.runtime.records import add_record
from sbertconv.runtime.tuned import RECORDS, Setting, Tuned, this_cpu

ROUNDS = 3
FIRST_TEXTS = 16  # from whose time the number of texts follows
MOST_TEXTS = 512
CALLS = 10  # of encode() on one text, in a turn
BATCH_SIZE = 32
SIZES = (TOKENS_PER_CORE // 2, 2 * TOKENS_PER_CORE)  # tokens of a batch for each core, beside the default
OPTIONS = ("engine", "parallel", "batch_tokens")  # of `load`, which settings differ in


@dataclass(frozen=True)
class Tuning:
    """What was measured: every setting for one text and for many, and what is kept of it.

    Attributes:
        one: for one short text, the fastest first.
        many: for many texts, the fastest first.
        texts: how many these are.
        record: the fastest ones.
        file: where it was written; None: nowhere, see the user's cache.
    """

    one: tuple[Setting, ...]
    many: tuple[Setting, ...]
    texts: int
    record: Tuned
    file: Path | None


def tune(folder: str | Path, *, seconds: float = 60.0, on_step: OnStep = lambda name, done, total: None) -> Tuning:
    """Measure the settings of a converted folder on this machine, and keep the fastest for `load`.

    Args:
        folder: a converted folder, or a .keras file. Its first format is measured, on the engines that it was proven
            on, each in a process of its own; no texts are longer than what it was proven for.
        seconds: that it may take, about.
        on_step: called as each turn starts.

    Raises:
        ArtifactError: if the folder is missing, or a process died.
        UnsupportedOptionError: for no time.
    """
    if seconds <= 0:
        raise UnsupportedOptionError(f"seconds={seconds} (have: more than 0).\nLeave it out for a minute.")
    artifact = artifact_at(folder)
    form, cores = taken_unasked(artifact), default_threads()
    contestants = [one for one in contestants_of([folder], cores) if one.format == form and not one.env]
    with contextlib.ExitStack() as stack:
        race = Race(cores, seconds, len(contestants), on_step, stack)
        race.enter(contestants)
        one = race.ask([FIRST_TEXT], CALLS)
        texts = mixed_texts(race.affordable(), BATCH_SIZE)
        many = race.ask(texts, 1)
        if not artifact.manifest["sees_padding"]:  # else batches are those of the library
            race.enter(sized(many[0][0], race.contestants[many[0][1]], cores))
            many = race.ask(texts, 1)
    settings = [tuple(setting for setting, _ in found) for found in (one, many)]
    record = kept(artifact, form, cores, settings)
    return Tuning(settings[0], settings[1], len(texts), record, add_record(RECORDS, record))


def sized(setting: Setting, contestant: Contestant, cores: int) -> list[Contestant]:
    """A contestant with smaller and larger batches."""
    share = max(1, cores // setting.parallel)
    return [
        replace(
            contestant,
            name=f"{contestant.name}, {size * share} tokens",
            options=dict(contestant.options) | {"batch_tokens": size * share},
        )
        for size in SIZES
    ]


def kept(artifact: Artifact, form: str, cores: int, settings: Sequence[Sequence[Setting]]) -> Tuned:
    """The record of the fastest settings."""
    one, many = settings
    packages = {ENGINES[setting.engine].package for setting in many}
    return Tuned(
        folder=folder_hash(artifact.manifest),
        format=form,
        cpu=this_cpu(),
        cores=cores,
        versions={name: version_of(name) for name in sorted(packages)},
        one=one[0],
        many=many[0],
        tried=len(many),
        date=datetime.date.today().isoformat(),
    )


class Race:
    """Processes that are alive together and take turns."""

    def __init__(self, cores: int, seconds: float, first: int, on_step: OnStep, stack: contextlib.ExitStack) -> None:
        self.cores = cores
        self.seconds = seconds
        self.step = Steps(on_step)
        self.stack = stack
        self.contestants: list[Contestant] = []
        self.workers: list[Worker] = []
        self.step.total = 3 * first + 2 * len(SIZES) + first

    def enter(self, contestants: Sequence[Contestant]) -> None:
        """Start the processes."""
        for contestant in contestants:
            self.step(f"{contestant.name}: loading", partial(self._start, contestant))

    def _start(self, contestant: Contestant) -> None:
        self.workers.append(self.stack.enter_context(Worker(contestant, self.cores)))
        self.contestants.append(contestant)

    def ask(self, texts: Sequence[str], calls: int) -> list[tuple[Setting, int]]:
        """Every one's setting with its seconds for one call, and its place; the fastest first."""
        keywords = {"texts": texts, "batch_size": BATCH_SIZE, "calls": calls}
        works = [partial(worker.ask, "encode", **keywords) for worker in self.workers]
        for worker, work in zip(self.workers, works, strict=True):
            self.step(f"{worker.name}: {len(texts)} texts", work)  # the warm-up
        rounds = list(alternate(ROUNDS, *works))
        found = []
        for place, contestant in enumerate(self.contestants):
            turns = [statistics.median(turn[place]) for turn in rounds]
            middle = statistics.median(turns)
            options: dict[str, Any] = {name: contestant.options.get(name) for name in OPTIONS}
            spread = (max(turns) - min(turns)) / middle
            found.append((Setting(**options, seconds=middle, spread=spread), place))
        return sorted(found, key=lambda one: one[0].seconds)

    def affordable(self) -> int:
        """How many texts of mixed lengths can be asked in the time that is left, by those of the first."""
        turns = (ROUNDS + 1) * (2 * len(self.workers) + len(SIZES))
        few = mixed_texts(FIRST_TEXTS, BATCH_SIZE)
        (took,) = self.workers[0].ask("encode", texts=few, batch_size=BATCH_SIZE, calls=1)
        return int(min(max(FIRST_TEXTS, FIRST_TEXTS * self.seconds / (turns * took)), MOST_TEXTS))
