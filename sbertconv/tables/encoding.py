"""Tables in, a folder of tables with vectors out: what is there stays, what is missing is done."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.artifact.folder import folder_hash
from sbertconv.errors import UnsupportedOptionError, error_text, require
from sbertconv.runtime.keywords import check_fields
from sbertconv.runtime.options import default_threads
from sbertconv.runtime.similarity import BUCKETS
from sbertconv.tables.embedding import EmbedTable, input_column
from sbertconv.tables.ledger import Ledger
from sbertconv.tables.reading import Bad, Input, Part, Reading, chosen_rows, columns_of, find_inputs
from sbertconv.tables.workers import Process, Worker, pooled
from sbertconv.tables.writing import FORMS, apart_from, output_name, write_part

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_FILE = 8192
SAMPLE = 4096  # texts whose vectors say the ranges of int8
NULLS, ON_ERROR = ("null", "error"), ("fail", "skip")

# The callable and how many workers there are to be, 1 if nothing was said -> what opens one, and their number.
Opened = tuple[Callable[[], Worker], int]
Cluster = Callable[[EmbedTable, int], Opened]


@dataclass(frozen=True)
class TableOptions:
    """How tables are read and written.

    Attributes:
        output_format: "parquet", "arrow" or "lance"; the last is one dataset in the folder.
        nulls: "null": a row without text has no vector; "error": it is a bad row.
        on_error: "fail" stops at a bad row or a broken file, "skip" leaves it out and reports it.
        rows_per_file: of the output; also what is done again after a crash, for each worker.
        workers: processes, each on its share of the threads.
    """

    output_format: str = "parquet"
    nulls: str = "null"
    on_error: str = "fail"
    rows_per_file: int = ROWS_PER_FILE
    workers: int = 1

    def __post_init__(self) -> None:
        """Raise UnsupportedOptionError for a value that is not one of an option's."""
        check_fields(self)
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                raise UnsupportedOptionError(
                    f"{name}={getattr(self, name)!r} (have: {', '.join(values)}).\nChoose one of these."
                )
        for name, most in MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise UnsupportedOptionError(f"{name}={getattr(self, name)} (have: 1 to {most:,}).\nPass a count.")


UNREADABLE = "_sbertconv_unreadable"  # a column, until a part is written
MOST = {"rows_per_file": 2**31 - 1, "workers": 2**16}
CHOICES: Mapping[str, Sequence[str]] = {"output_format": tuple(FORMS), "nulls": NULLS, "on_error": ON_ERROR}


@dataclass
class Summary:
    """What a run did.

    Attributes:
        files: of the input.
        rows: that were read and embedded now.
        there: rows that were there before.
        bad: file and row of each row that was left out now.
        broken: file -> why the rest of it was left out; another run tries again, from the last whole part on.
        seconds: that it took.
    """

    files: int = 0
    rows: int = 0
    there: int = 0
    bad: list[tuple[str, Bad]] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


OnPart = Callable[[Summary, Part], None]


def embed_tables(
    embed: EmbedTable,
    inputs: str | Sequence[str],
    output: str | Path,
    options: TableOptions = TableOptions(),  # frozen
    on_part: OnPart | None = None,
    on_start: Callable[[Sequence[Input], Ledger], None] | None = None,
    cluster: Cluster | None = None,
) -> Summary:
    """Embed tables into a folder of tables. Killed at any moment, the same call goes on where it was.

    Args:
        embed: the model, the column and the kind of vectors.
        inputs: files, folders, patterns and remote paths of Parquet, CSV, JSON lines, Arrow and text.
        output: a folder, also of a store that fsspec reaches; each of its files is whole, and holds rows of one file in
            their order.
        options: how tables are read and written.
        on_part: is told of each part when it is done.
        on_start: is told of the inputs and of what is done already.
        cluster: what opens workers elsewhere, such as `sbertconv.ray.workers`; None: this machine.

    Raises:
        UnsupportedOptionError: for no input, a bad row or a broken file unless skipped, other arguments than those of
            the run that began the folder, a full disk.
        MissingDependencyError: if pyarrow or fsspec is not installed, or lance for its format.
    """
    require("tables", "pyarrow", "fsspec")
    if not isinstance(options, TableOptions):
        raise UnsupportedOptionError(
            f"options={options!r:.60} (have: TableOptions).\nPass TableOptions(workers=2), say."
        )
    form = FORMS[options.output_format]
    if form.needs:
        require(*form.needs)
    start = time.perf_counter()
    patterns, place = patterns_of(inputs), place_of(output)
    files = apart_from(find_inputs(patterns), place)
    skip, embed = options.on_error == "skip", replace(embed, errors=UNREADABLE)
    with Ledger(output, arguments_of(embed, options)) as ledger:
        form.check(ledger.store)
        files = ledger.named(files)
        summary = Summary(files=len(files), there=sum(ledger.done(file).rows for file in files))
        header, where = ledger.header or header_of(embed, options, files), ledger.store.ledger
        ranges = ranges_in(header, where)
        if embed.ranges not in (None, ranges):
            raise UnsupportedOptionError(f"{output}: begun with other ranges.\nUse those, or choose another folder.")
        embed = replace(embed, ranges=ranges)
        schema, nulls_are_bad = schema_in(header, where), options.nulls == "error"
        opened = cluster(embed, options.workers) if cluster else None  # before a line is written: it may not be there
        if not ledger.header:
            ledger.begin(header)
        reading = Reading(embed.column, options.rows_per_file, nulls_are_bad, schema, embed.keep is None, skip)
        if on_start:
            on_start(files, ledger)
        parts = missing_parts(files, reading, ledger, skip, summary)
        for begun, answer in answers(embed, parts, options.workers, opened):
            part, table = _readable(begun, answer, options.rows_per_file, skip)
            name = output_name(part, options.output_format) if len(table) else None
            if name:
                write_part(table, ledger.store, name, options.output_format)
            ledger.add(part, name)
            summary.rows += part.rows
            summary.bad += [(part.source.path, bad) for bad in part.bad]
            if on_part:
                on_part(summary, part)
        form.finish(ledger.store)
    summary.bad.sort(key=lambda one: (one[0], one[1].row))  # workers give parts as they get done
    summary.seconds = time.perf_counter() - start
    return summary


def patterns_of(inputs: Any) -> list[str]:
    """The inputs as they are given, each as text.

    Raises:
        UnsupportedOptionError: for other than text and paths.
    """
    given = [inputs] if isinstance(inputs, (str, Path)) else inputs
    if not isinstance(given, Sequence) or not all(isinstance(one, (str, Path)) for one in given):
        raise UnsupportedOptionError(f"inputs={inputs!r:.60} (have: a path, a list of paths).\nPass one of these.")
    return [str(one) for one in given]


def place_of(output: Any) -> str:
    """The output's folder as text.

    Raises:
        UnsupportedOptionError: for none.
    """
    if not isinstance(output, (str, Path)) or not str(output):
        raise UnsupportedOptionError(f"output={output!r:.60} (have: the path of a folder).\nPass one.")
    return str(output)


def _readable(part: Part, table: pa.Table, size: int, skip: bool) -> tuple[Part, pa.Table]:
    """A part and its vectors without the rows whose image or sound cannot be read, which are among its bad ones then.

    Raises:
        UnsupportedOptionError: for such a row, unless these are skipped.
    """
    reasons = table.column(UNREADABLE)
    found = reasons.is_null().to_pylist()
    if reasons.null_count < len(reasons):
        left_out = {bad.row for bad in part.bad}
        first = part.number * size
        places = [row for row in range(first, first + part.rows) if row not in left_out]
        bad = [Bad(row, why) for row, why in zip(places, reasons.to_pylist(), strict=True) if why is not None]
        if not skip:
            raise _refused(part.source, bad[0])
        part = replace(part, bad=tuple(sorted((*part.bad, *bad), key=lambda one: one.row)))
    return part, chosen_rows(table, found).drop_columns([UNREADABLE])


def _refused(file: Input, bad: Bad) -> UnsupportedOptionError:
    return UnsupportedOptionError(f"{file.path}, row {bad.row}: {bad.reason}.\nMend it, or pass on_error='skip'.")


def answers(
    embed: EmbedTable, parts: Iterator[Part], workers: int, opened: Opened | None
) -> Iterator[tuple[Part, pa.Table]]:
    """Each part with its embedded table: from this process, from workers, or from those of a cluster."""
    if opened is None and workers == 1:
        for part in parts:
            yield part, embed(part.table)
    else:
        yield from pooled(parts, *(opened or processes(embed, workers)))


def processes(embed: EmbedTable, count: int) -> Opened:
    """Processes of this machine, each on its share of the threads."""
    share = max(1, (embed.load.get("threads") or default_threads()) // count)
    shared = replace(embed, load={**embed.load, "threads": share})
    return lambda: Process(shared), count


def missing_parts(
    files: Sequence[Input], reading: Reading, ledger: Ledger, skip: bool, summary: Summary
) -> Iterator[Part]:
    """The parts of all files that are not done, in order.

    Raises:
        UnsupportedOptionError: for a bad row or a broken file, unless these are skipped.
    """
    for file in files:
        done = ledger.done(file)
        if done.complete:
            continue
        try:
            for part in reading.parts(file, done.front):
                if part.bad and not skip:
                    raise _refused(file, part.bad[0])
                if part.number not in done:
                    yield part
        except UnsupportedOptionError as error:
            if not skip:
                raise
            summary.broken[file.path] = str(error).partition("\n")[0]


def arguments_of(embed: EmbedTable, options: TableOptions) -> dict[str, Any]:
    """What the rows of an output depend on, as plain types; who computes them and where is no part of it."""
    model = embed.model
    return {
        "folder": folder_hash(model.artifact.manifest),
        "format": model.format,
        "engine": model.engine,
        "column": embed.column,
        "keep": None if embed.keep is None else sorted(embed.keep),
        "precision": embed.precision,
        "encode": dict(sorted(embed.options.items())),
        "output_format": options.output_format,
        "nulls": options.nulls,
        "rows_per_file": options.rows_per_file,
        **{name: embed.load[name] for name in ("beyond_proof", "part") if embed.load.get(name)},
    }


def header_of(embed: EmbedTable, options: TableOptions, files: Sequence[Input]) -> dict[str, Any]:
    """What the first run says for all others: the arguments, the columns, and of int8 the ranges."""
    skip = options.on_error == "skip"
    schema = columns_of(files, embed.column, embed.keep, skip)
    if embed.ranges is None and embed.precision in BUCKETS:
        reading = Reading(embed.column, SAMPLE, True, schema, to_break=skip)
        embed = embed.with_ranges(sample(files, reading, skip))
    content = base64.b64encode(schema.serialize().to_pybytes()).decode()
    return {"arguments": arguments_of(embed, options), "schema": content, "ranges": embed.ranges}


def sample(files: Sequence[Input], reading: Reading, skip: bool) -> list[str | bytes]:
    """The first texts or images of all files together.

    Raises:
        UnsupportedOptionError: for a broken file, unless these are skipped.
    """
    found: list[str | bytes] = []
    for file in files:
        try:
            for part in reading.parts(file):
                found += (text for text in input_column(part.table, reading.column) if text is not None)
                if len(found) >= SAMPLE:
                    return found[:SAMPLE]
        except UnsupportedOptionError:  # it is told of when its rows are due
            if not skip:
                raise
    return found


def ranges_in(header: Mapping[str, Any], where: str) -> Any:
    """The ranges of a ledger's header, or None.

    Raises:
        UnsupportedOptionError: for other than a smallest and a largest number of every dimension.
    """
    ranges = header.get("ranges")
    if ranges is None:
        return None
    try:
        low, high = np.asarray(ranges, np.float64)
        sound = low.ndim == 1 and low.size and np.isfinite([low, high]).all() and (low <= high).all()
    except (ValueError, TypeError, OverflowError):
        sound = False
    if not sound:
        raise UnsupportedOptionError(f"{where}: ranges that are none of vectors.\nChoose another --output.")
    return tuple(tuple(side) for side in ranges)


def schema_in(header: Mapping[str, Any], where: str) -> pa.Schema:
    """The columns of a ledger's header."""
    import pyarrow as pa

    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(header.get("schema", ""), validate=True)))
    except (ValueError, OSError) as error:
        raise UnsupportedOptionError(f"{where}: no schema: {error_text(error)}.\nChoose another --output.") from error
