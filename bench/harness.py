"""What every benchmark shares: pairs of runs, rows with targets, and the page they become."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbertconv.runtime import usable_cores

ROOT = Path(__file__).parent.parent
BUSY = 0.5  # load average per core before anything is measured
PACKAGES = (
    "sbertconv", "torch", "sentence-transformers", "transformers", "onnxruntime", "onnx", "onnxscript", "keras",
    "tensorflow-cpu",
)  # fmt: skip
METHOD = (
    "Both sides run alternately in the same run, and the order changes every round; absolute figures are medians of "
    "the rounds and the ratio is the median of the rounds' own ratios. Every section runs in processes of its own, "
    "with the same cores and the same number of threads on both sides."
)


@dataclass(frozen=True)
class Row:
    """One measured quantity, one value per round on each side.

    Attributes:
        theirs: of what it is compared with; empty: nothing.
        target: the ratio ours / theirs (or, with nothing beside it, the value) to reach, as "<= 1.50" or
            ">= 0.85"; empty: only reported.
    """

    section: str
    name: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    target: str = ""

    @property
    def ratio(self) -> float:
        """Of the pairs; the value itself where nothing stands beside it."""
        if not self.theirs:
            return statistics.median(self.ours)
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def met(self) -> bool | None:
        if not self.target:
            return None
        sign, limit = self.target.split()
        return self.ratio <= float(limit) if sign == "<=" else self.ratio >= float(limit)

    def cells(self) -> list[str]:
        """The row of a table, as text."""
        sides = (self.ours, self.theirs)
        ours, theirs = (f"{statistics.median(side):,.4g} {self.unit}" if side else "" for side in sides)
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        unit = "x" if self.theirs else f" {self.unit}"
        ratio = f"{self.ratio:.2f}x" if self.theirs else ""
        return [self.name, ours, theirs, ratio, f"{self.target}{unit}" if self.target else "", verdict]


HEADER = ["", "sbertconv", "beside it", "ratio", "target", ""]


@dataclass(frozen=True)
class Process:
    """A finished process: what it printed, seconds until it ended, its CPU seconds and its largest resident set."""

    stdout: str
    wall: float
    cpu: float
    peak_mib: float
    started: float

    @property
    def until_printed(self) -> float:
        """Seconds until the time it printed, without its end, in which PyTorch is unloaded."""
        return float(self.stdout.split()[-1]) - self.started


def run(command: Sequence[str]) -> Process:
    """Run a command to its end; its standard error is shown only if it fails."""
    started, clock = time.time(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
        stdout = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)  # the rusage of this child alone
        wall = time.perf_counter() - clock
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{errors.read()}\n{' '.join(command)} ended with exit code {process.returncode}.")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Process(stdout, wall, usage.ru_utime + usage.ru_stime, peak, started)


def python(*arguments: str) -> list[str]:
    """A fresh interpreter."""
    return [sys.executable, *arguments]


def worker(name: str, *arguments: object) -> list[str]:
    """A fresh interpreter that runs one of the workers, from the folder that holds this package."""
    return python("-m", "bench", "--worker", name, *map(str, arguments))


def hold_to(cores: int) -> None:
    """Keep this process, and PyTorch's threads, on so many cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import torch

    torch.set_num_threads(cores)


def alternate(rounds: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Iterator[tuple[Any, Any]]:
    """One pair of results per round; whoever runs second in one round runs first in the next."""
    for number in range(rounds):
        if number % 2:
            yield tuple(reversed((theirs(), ours())))  # type: ignore[misc]
        else:
            yield ours(), theirs()


def processes(
    section: str, rounds: int, ours: Sequence[str], theirs: Sequence[str], figures: Sequence[tuple[str, str, str, str]]
) -> Iterator[Row]:
    """Rows of (name, unit, field of Process, target) for two commands; the first round warms the disk's cache."""
    pairs = list(alternate(rounds + 1, lambda: run(ours), lambda: run(theirs)))[1:]
    for name, unit, field, target in figures:
        sides = ([getattr(pair[side], field) for pair in pairs] for side in (0, 1))
        yield Row(section, name, unit, *sides, target)


def mixed_texts(count: int) -> list[str]:
    """Texts of 3 to 260 words, most of them short, cut out of the prose of the Python manual (pydoc's topics)."""
    from pydoc_data.topics import topics

    paragraphs = (" ".join(text.split()) for topic in sorted(topics) for text in topics[topic].split("\n\n"))
    prose = (text for text in paragraphs if re.fullmatch(r"[A-Z][a-z]* [\w\s,;:.?!'\"()-]+[.?!]", text))
    words = " ".join(prose).split()
    chance = random.Random(0)
    lengths = [min(max(round(chance.lognormvariate(3.2, 0.9)), 3), 260) for _ in range(count)]
    starts = [chance.randrange(len(words) - length) for length in lengths]
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def describe(model: str, rounds: int) -> list[str]:
    """What the figures hold for: the machine, the versions and the run."""
    cpu, load = platform.processor() or platform.machine(), os.getloadavg()[0]
    with contextlib.suppress(OSError, AttributeError):
        cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()).group(1)  # type: ignore[union-attr]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
    lines = [
        f"{datetime.date.today().isoformat()} · {cpu}, {usable_cores()} cores, {memory:.0f} GiB",
        " · ".join(f"{name} {version}" for name, version in versions.items()),
        f"Model: {model} · rounds: {rounds}",
    ]
    if load > BUSY * (os.cpu_count() or 1):
        lines.append(
            f"The machine was busy (load {load:.1f} at the start): wall times on several cores mean little, "
            "CPU times somewhat more. Run it again when it is quiet."
        )
    return lines


def markdown(rows: Sequence[Row], description: Sequence[str]) -> str:
    """The page for the documentation."""
    parts = ["# Benchmarks", f"Written by `python -m bench --markdown`; not edited by hand. {METHOD}"]
    parts.append("\n".join(f"- {line}" for line in description))
    for section in dict.fromkeys(row.section for row in rows):
        lines = [HEADER, ["---", "---:", "---:", "---:", "---:", "---"]]
        lines += [row.cells() for row in rows if row.section == section]
        parts += [f"## {section}", "\n".join(f"| {' | '.join(cells)} |" for cells in lines)]
    return "\n\n".join(parts) + "\n"
