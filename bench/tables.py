"""A table with vectors: one process beside workers, Ray and Spark on the same rows; the share that is no computing; and
rates by the length of the texts, with what a billion rows cost.

Every contestant is the command as a user gives it, from start to end: starting Python, Ray or Java, reading, writing
and the ledger count. All have two threads together.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import Row, hold_to, run, worker
from sbertconv.benchmark.measuring import alternate, words

ROWS = int(os.environ.get("BENCH_ROWS", 100_000))
SHORT = (3, 12)  # words of a text
LENGTHS = (16, 64, 256)  # tokens of the texts of the cost table
COST_TEXTS = 512  # of each length, for each round
THREADS = 2
COMMAND = Path(sysconfig.get_path("scripts")) / "sbertconv"
SIZES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "bits": 1 / 8}  # bytes of a number
BILLION = 1_000_000_000
CORES = 1000

# What the command is given beside the rows, and the packages that it needs.
CONTESTANTS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "one process, two threads": ((), ()),
    "two workers of one thread": (("--workers", "2"), ()),
    "Ray, two actors of one CPU": (("--workers", "2", "--on", "ray"), ("ray",)),
    "Spark, local[2]": (("--workers", "2", "--on", "spark:local[2]"), ("pyspark",)),
}
TARGETS = {"two workers of one thread": ">= 1.05"}


def sections(model: str, folder: Path, rounds: int) -> list[Iterator[Row]]:
    """What is measured, in order."""
    return [throughput(model, folder, rounds), share(model, folder, rounds), cost(model, folder, rounds)]


def converted(model: str, folder: Path) -> Path:
    """The model as an ONNX folder, once for all sections."""
    import sbertconv

    place = folder / "model"
    if not place.exists():
        sbertconv.to_onnx(model, place)
    return place


def short_texts(count: int) -> list[str]:
    """Texts of a few words, cut out of the prose; hardly one of them stands twice."""
    chance, prose = random.Random(0), words()
    lengths = [chance.randint(*SHORT) for _ in range(count)]
    starts = [chance.randrange(len(prose) - length) for length in lengths]
    return [" ".join(prose[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def rows_file(folder: Path) -> Path:
    """The rows as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = folder / "rows.parquet"
    if not place.exists():
        pq.write_table(pa.table({"id": range(ROWS), "text": short_texts(ROWS)}), place, row_group_size=10_000)
    return place


def throughput(model: str, folder: Path, rounds: int) -> Iterator[Row]:
    """Rows per second of every contestant beside one process; the first round warms the disk's cache."""
    base, *others = (name for name, (_, packages) in CONTESTANTS.items() if installed(packages))
    for name in CONTESTANTS.keys() - {base, *others}:
        print(f"tables: {name}: not measured, {', '.join(CONTESTANTS[name][1])} is not installed", file=sys.stderr)
    place, rows = converted(model, folder), rows_file(folder)

    def timed(name: str) -> Callable[[], float]:
        output = folder / "out"
        given = [place, "--input", rows, "--output", f"{output}/", "--threads", THREADS, *CONTESTANTS[name][0]]

        def once() -> float:
            shutil.rmtree(output, ignore_errors=True)
            return ROWS / run([str(part) for part in (COMMAND, "encode", *given)]).wall

        return once

    found = list(zip(*list(alternate(rounds + 1, *map(timed, (base, *others))))[1:], strict=True))
    section = f"{ROWS:,} texts of {SHORT[0]} to {SHORT[1]} words, start-up included"
    yield Row(section, base, "rows/s", found[0], [])
    for name, rates in zip(others, found[1:], strict=True):
        yield Row(section, name, "rows/s", rates, found[0], TARGETS.get(name, ""))


def installed(packages: Sequence[str]) -> bool:
    java = "pyspark" not in packages or shutil.which("java") is not None
    return java and all(importlib.util.find_spec(package) for package in packages)


def share(model: str, folder: Path, rounds: int) -> Iterator[Row]:
    """Of the time of one process from its first row to its last."""
    place, rows = converted(model, folder), rows_file(folder)
    found = [json.loads(run(worker("share", place, rows, folder / "shared")).stdout) for _ in range(rounds)]
    section = f"Reading, writing and the ledger, {ROWS:,} rows, Parquet to Parquet"
    yield Row(section, "of the time of one process", "%", found, [], "<= 3")


def measure_share(place: str, rows: str, output: str) -> float:
    """Percent of the time that is not spent in the callable that embeds a table."""
    from sbertconv.tables.embedding import EmbedTable
    from sbertconv.tables.encoding import embed_tables

    seconds = 0.0

    class Timed(EmbedTable):
        def __call__(self, table: Any) -> Any:
            nonlocal seconds
            begin = time.perf_counter()
            found = super().__call__(table)
            seconds += time.perf_counter() - begin
            return found

    hold_to(THREADS)
    embed = Timed(folder=place, load={"threads": THREADS})
    embed.model.open()
    shutil.rmtree(output, ignore_errors=True)
    whole = embed_tables(embed, rows, output).seconds
    return 100 * (1 - seconds / whole)


def cost(model: str, folder: Path, rounds: int) -> Iterator[Row]:
    """Rates by length, and what follows from them: a core has half of what two cores do."""
    found = json.loads(run(worker("cost", converted(model, folder), rounds)).stdout)
    section = f"What a billion rows cost, computed from the rates of {THREADS} threads in this run"
    for tokens in LENGTHS:
        rates = found[str(tokens)]
        yield Row(section, f"{tokens} tokens", "rows/s", rates, [])
        hourly = [rate / THREADS * 3600 for rate in rates]
        yield Row(section, f"{tokens} tokens, a core", "rows/h", hourly, [])
        hours = [BILLION / CORES / rate for rate in hourly]
        yield Row(section, f"{tokens} tokens, a billion rows on {CORES:,} cores", "h", hours, [])
    for name, size in SIZES.items():
        stored = BILLION * found["dimension"] * size / 1e9
        yield Row(section, f"a billion rows of {found['dimension']} dimensions as {name}", "GB", [stored], [])


def measure_cost(place: str, rounds: str) -> dict[str, Any]:
    """Texts per second for each length, and the dimension."""
    hold_to(THREADS)
    import sbertconv

    model = sbertconv.load(place, threads=THREADS)
    texts = {tokens: texts_of(model.graphs[0].tokenizer, tokens) for tokens in LENGTHS}

    def timed(tokens: int) -> Callable[[], float]:
        def once() -> float:
            begin = time.perf_counter()
            model.encode(texts[tokens])
            return COST_TEXTS / (time.perf_counter() - begin)

        return once

    found = list(zip(*list(alternate(int(rounds) + 1, *map(timed, LENGTHS)))[1:], strict=True))
    return {**dict(zip(map(str, LENGTHS), found, strict=True)), "dimension": model.get_embedding_dimension()}


def texts_of(tokenizer: Any, tokens: int) -> list[str]:
    """Texts out of the prose that have exactly so many tokens, or are cut there."""
    chance, prose, found = random.Random(tokens), words(), []
    while len(found) < COST_TEXTS:
        start = chance.randrange(len(prose) - tokens)
        size = tokens
        while size and len(tokenizer.ids([" ".join(prose[start : start + size])], None)[0][0]) > tokens:
            size -= 1
        found.append(" ".join(prose[start : start + size]))
    return found


WORKERS = {"share": measure_share, "cost": measure_cost}
