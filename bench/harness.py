"""What every benchmark shares: pairs of runs, rows with targets, and the page they become."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sbertconv.benchmark import measuring
from sbertconv.benchmark.measuring import alternate

ROOT = Path(__file__).parent.parent
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # in /proc/cpuinfo; the last is Arm's
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
    measuring.hold_to(cores)
    import torch

    torch.set_num_threads(cores)


def computes_bfloat16() -> bool:
    """Whether this CPU says that it multiplies bfloat16 in hardware."""
    info = Path("/proc/cpuinfo")
    return info.exists() and bool(BFLOAT16 & set(info.read_text().split()))


def processes(
    section: str, rounds: int, ours: Sequence[str], theirs: Sequence[str], figures: Sequence[tuple[str, str, str, str]]
) -> Iterator[Row]:
    """Rows of (name, unit, field of Process, target) for two commands; the first round warms the disk's cache."""
    pairs = list(alternate(rounds + 1, lambda: run(ours), lambda: run(theirs)))[1:]
    for name, unit, field, target in figures:
        sides = ([getattr(pair[side], field) for pair in pairs] for side in (0, 1))
        yield Row(section, name, unit, *sides, target)


def describe(model: str, rounds: int) -> list[str]:
    """What the figures hold for: the machine, the versions and the run."""
    about, versions, *busy = measuring.described(measuring.machine())
    return [about, versions, f"Model: {model} · rounds: {rounds}", *busy]


def markdown(benchmark: str, rows: Sequence[Row], description: Sequence[str]) -> str:
    """A benchmark's page for the documentation."""
    command = f"python -m bench --only {benchmark} --markdown docs/benchmarks.md"
    parts = [f"# Benchmarks: {benchmark}", f"Written by `{command}`; not edited by hand. {METHOD}"]
    parts.append("\n".join(f"- {line}" for line in description))
    for section in dict.fromkeys(row.section for row in rows):
        lines = [HEADER, ["---", "---:", "---:", "---:", "---:", "---"]]
        lines += [row.cells() for row in rows if row.section == section]
        parts += [f"## {section}", "\n".join(f"| {' | '.join(cells)} |" for cells in lines)]
    return "\n\n".join(parts) + "\n"
