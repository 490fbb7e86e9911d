"""Files, folders, patterns and remote paths -> parts: so many rows of one file as an Arrow table, and its bad rows."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice, pairwise
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.json_reading import parse_json
from sbertconv.errors import SbertconvError, UnsupportedOptionError, error_text, require
from sbertconv.runtime.tokenization import SURROGATE
from sbertconv.tables.stores import LEDGER

if TYPE_CHECKING:
    import pyarrow as pa

ZSTD = ".zst"
COMPRESSED = (".gz", ".bz2", ".xz", ZSTD)
BOM = b"\xef\xbb\xbf"
NOT_UTF8 = "not UTF-8"
MAGIC = "*?["
# What file systems of fsspec say of a file that is another one for other bytes, the surest first
STAMPS = (
    "ETag", "etag", "mtime", "LastModified", "last_modified", "blob_id", "sha", "md5Hash", "CRC", "created", "modify",
    "modified", "modificationTime", "last_write_time", "updated",
)  # fmt: skip
LOCAL, CHAIN = "file://", "::"  # of fsspec's addresses
SHOWN = 3  # files that a warning names
SAMPLE = 1000  # rows of JSON lines that say the types of their columns
LONGEST_LINE = 1 << 26  # bytes or characters of a line or a cell; the csv module's own limit is 131,072
LARGEST_PART = 1 << 30  # bytes of the texts of a part
MOST_CELLS = 1 << 25  # of a part: a line of JSON that has no key still has its column
SPLIT = "its next rows hold more than {:,} {}, which is too much for one part; take fewer rows_per_file"
FEWER = "has {:,} rows fewer than it says"
MORE = "{!r} is none of the columns, which the first rows of the first file say; choose those that stay with keep="


@dataclass(frozen=True)
class Input:
    """A file: its path, as it was first given, and what changes with its content."""

    path: str
    size: int
    stamp: str

    @property
    def ending(self) -> str:
        return ending_of(self.path)

    @property
    def code(self) -> str:
        """What tells its output from that of another file of the same name."""
        return hashlib.sha256(self.path.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Bad:
    """A row, counted from 0, that is left out, and why."""

    row: int
    reason: str


@dataclass(frozen=True)
class Part:
    """So many rows of a file.

    Attributes:
        source: the file.
        number: of this part in its file, from 0.
        table: its rows.
        rows: how many there are with the bad ones.
        bad: rows that are not in the table.
        last: whether the file ends here.
        short: whether the file breaks off here, so that another run reads the part again.
        consumed: bytes of the file, about, that were read for it.
    """

    source: Input
    number: int
    table: pa.Table
    rows: int
    bad: tuple[Bad, ...] = field(default=())
    last: bool = False
    short: bool = False
    consumed: int = 0


def ending_of(path: str) -> str:
    """The ending that says the format, without that of a compression."""
    name = path.rsplit("/", 1)[-1].lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return "." + name.rsplit(".", 1)[-1] if "." in name else ""


def find_inputs(patterns: Sequence[str]) -> list[Input]:
    """The files of paths, folders and patterns, local or of any file system of fsspec, each once, in order.

    Raises:
        UnsupportedOptionError: for a pattern without files, or a file in a format that is not read.
    """
    require("tables", "pyarrow", "fsspec")
    import fsspec

    found: dict[str, Input] = {}
    for pattern in patterns:
        try:
            system, path = fsspec.core.url_to_fs(str(pattern))
            folder = system.isdir(path)
            if folder or (set(MAGIC) & set(path) and not system.isfile(path)):
                listed = _every_file(system, path) if folder else system.glob(path, detail=True)
            else:
                listed = {path: system.info(path)}
            tables = [name for name in sorted(listed) if not folder or ending_of(name) in FORMATS]
            passed = [name for name in tables if folder and is_passed_over(name, path)]
            infos = [(name, listed[name]) for name in tables if name not in set(passed)]
        except Exception as error:  # each file system has its own
            raise UnsupportedOptionError(f"{pattern}: cannot be read: {error}\nCheck the path.") from error
        files = [(name, info) for name, info in infos if info["type"] != "directory" and not system.isdir(name)]
        if strange := [name for name, info in files if info["type"] != "file" and not system.isfile(name)]:
            raise UnsupportedOptionError(
                f"{strange[0]}: is no file, or a link that leads to none.\nRemove it, or name the files that are meant."
            )
        _tell_passed_over(pattern, [name for name in passed if listed[name]["type"] == "file"])
        if not files:
            raise UnsupportedOptionError(f"{pattern}: no file (have: {', '.join(FORMATS)}).\nCheck the path.")
        for name, info in files:
            if SURROGATE.search(name):  # bytes that are no text: a ledger cannot name them
                raise UnsupportedOptionError(f"{name!r}: is not UTF-8.\nRename the file, or the folder that it is in.")
            if ending_of(name) not in FORMATS:
                raise UnsupportedOptionError(f"{name}: cannot be read (have: {', '.join(FORMATS)}).\nConvert it.")
            whole = address_of(system, name)
            if "://" in whole and CHAIN in whole:  # the address would be taken for several
                raise UnsupportedOptionError(f"{whole}: has {CHAIN!r} in its name, which chains addresses.\nRename it.")
            stamp = next((str(info[key]) for key in STAMPS if info.get(key)), "")
            found.setdefault(place_of(whole), Input(whole, int(info["size"] or 0), stamp))
    return list(found.values())


def address_of(system: Any, name: str) -> str:
    """What finds a file of a file system again: on this machine its path alone."""
    return name if is_local(system) else str(system.unstrip_protocol(name))


def is_local(system: Any) -> bool:
    """Whether a file system is that of this machine."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(system, LocalFileSystem)


def located(path: str) -> tuple[Any, str]:
    """The file system of an input and its name there. That of this machine takes every name as it is: fsspec would see
    several addresses in one with "::".
    """
    import fsspec

    path = path.removeprefix(LOCAL)
    system, name = fsspec.core.url_to_fs(path) if "://" in path else (fsspec.filesystem("file"), path)
    return system, name


def place_of(path: str) -> str:
    """Where an input is, however its path is spelt and whichever links lead to its folder; a link to a file is a file
    of its own. A store has one address for each.
    """
    path = path.removeprefix(LOCAL)
    folder, _, last = path.rpartition("/")
    try:
        return path if "://" in path else f"{os.path.realpath(folder or '/')}/{last}"
    except ValueError:  # a null, or half a character, in a ledger that no run wrote
        return path


def _every_file(system: Any, folder: str) -> dict[str, Any]:
    """The files of a folder and of those in it, by name.

    Raises:
        PermissionError: for a folder on this machine that may not be read, which fsspec takes for an empty one.
    """
    local = is_local(system)
    found: dict[str, Any] = system.find(folder, detail=True, withdirs=local)
    for name, info in found.items():
        if local and info["type"] == "directory" and not os.access(name, os.R_OK | os.X_OK):
            raise PermissionError(f"{name}: permission denied")
    return found


def is_passed_over(name: str, folder: str) -> bool:
    """Whether a file of a folder is none of its tables because of a name that begins with "." or "_", its own or that
    of a folder in between: so Spark and Hive call what they write beside their tables.
    """
    parts = name.removeprefix(folder).strip("/").split("/")
    return any(part.startswith(("_", ".")) for part in parts)


def _tell_passed_over(folder: str, names: Sequence[str]) -> None:
    """Warn of files that would be tables by their endings; a run's own ledger is known to be none."""
    left_out = [name for name in names if LEDGER not in name.split("/")]
    if left_out:
        shown = ", ".join(left_out[:SHOWN]) + (", ..." if len(left_out) > SHOWN else "")
        warnings.warn(
            f"{folder}: {len(left_out):,} file{'s' if len(left_out) > 1 else ''} left out, of a name that begins with "
            f"'.' or '_': {shown}. Name such a file itself, or by a pattern, to read it.",
            stacklevel=4,  # of whom embed_tables() is called by
        )


def lines_of(file: Any) -> Iterator[str]:
    """The lines of a file as text, with their ends. Bytes that are not UTF-8 become halves of surrogate pairs, which no
    UTF-8 gives, so that they cost their row alone.
    """
    from fsspec.spec import AbstractBufferedFile

    if isinstance(file, AbstractBufferedFile):  # of a store, whose own readline() knows no bound
        file = io.BufferedReader(file)
    for number, line in enumerate(bounded_lines(file)):
        if content := line if number else line.removeprefix(BOM):
            yield content.decode("utf-8", "surrogateescape")


def bounded_lines(file: Any) -> Iterator[Any]:
    """The lines of a file, bytes or text: one line of a stranger's file may be as long as a disk, above all of one that
    is packed.

    Raises:
        ValueError: for a line of more than `LONGEST_LINE`.
    """
    for number in count(1):
        line = file.readline(LONGEST_LINE + 1)
        if len(line) > LONGEST_LINE:
            unit = "bytes" if isinstance(line, bytes) else "characters"
            raise ValueError(f"line {number} has more than {LONGEST_LINE:,} {unit}")
        if not line:
            return
        yield line


def bounded_rows(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Rows in lists of so many, those before an error too.

    Raises:
        ValueError: for those whose texts are larger than `LARGEST_PART` together.
    """
    row: Any = None
    while True:
        found: list[Any] = []
        taken = 0
        while len(found) < size:
            row, broken = next_or_error(rows)
            if row is None:
                break
            found.append(row)
            taken += text_size(row)
            if taken > LARGEST_PART:
                raise ValueError(SPLIT.format(LARGEST_PART, "bytes"))
        if found:
            yield found
        if row is None:
            if broken:
                raise broken
            return


def sampled(rows: Iterator[Any]) -> Iterator[Any]:
    """The first rows, so many that they say what the columns are."""
    taken = 0
    names: set[str] = set()
    for number, row in enumerate(islice(rows, SAMPLE), 1):
        yield row
        taken += text_size(row)
        names.update(row if isinstance(row, dict) else ())
        if taken > LONGEST_LINE or number * len(names) > MOST_CELLS:
            return


def text_size(value: Any) -> int:
    """About the bytes of a value: of its texts, at whatever depth, and of a number for each other part."""
    if isinstance(value, (dict, list)):
        return sum(map(text_size, value.values() if isinstance(value, dict) else value))
    return len(value) if isinstance(value, str) else 8


def read_txt(file: Any, column: str) -> Iterator[Any]:
    """Each line is a row."""
    yield [column]
    for line in lines_of(file):
        yield NOT_UTF8 if SURROGATE.search(line) else {column: line.rstrip("\r\n")}


def read_jsonl(file: Any, column: str) -> Iterator[Any]:
    """Each line is an object, or a text alone; blank ones are no rows."""
    yield []
    for line in lines_of(file):
        if not line.strip():
            continue
        if SURROGATE.search(line):
            yield NOT_UTF8
            continue
        try:
            row = parse_json(line, "the line", error=UnsupportedOptionError)
        except UnsupportedOptionError as error:
            yield str(error).partition("\n")[0].replace("the line: not readable as JSON", "not JSON")
            continue
        row = {column: row} if isinstance(row, str) else row
        yield row if isinstance(row, dict) else f"{type(row).__name__}, where an object is due"


def read_csv(file: Any, column: str) -> Iterator[Any]:
    """The first row has the names. Every cell is text: a number keeps its zeros."""
    csv.field_size_limit(LONGEST_LINE)
    rows = csv.reader(lines_of(file), strict=True)
    names = next(rows, [])
    if len(set(names)) != len(names):
        raise ValueError("two columns have the same name")
    if any(map(SURROGATE.search, names)):
        raise ValueError(f"its first row is {NOT_UTF8}")
    yield names
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"not CSV: {error}"
            continue
        if not cells and len(names) != 1:
            continue  # an empty line
        cells = cells or [""]
        if len(cells) != len(names):
            yield f"{len(cells)} cells, where {len(names)} are due"
        else:
            yield NOT_UTF8 if any(map(SURROGATE.search, cells)) else dict(zip(names, cells, strict=True))


def read_parquet(file: Any, start: int, size: int) -> Iterator[pa.Table]:
    """The rows from one on, behind a table without any, which has the columns of every file; row groups before it are
    not read. A text that comes often is in memory once until it is known how large all of them are.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as plain:
        schema = plain.schema_arrow
    texts = [field.name for field in schema if pa.types.is_string(field.type) and schema.names.count(field.name) == 1]
    file.seek(0)
    with pq.ParquetFile(file, read_dictionary=texts) as parquet:
        group = 0
        while group < parquet.num_row_groups and parquet.metadata.row_group(group).num_rows <= start:
            start -= parquet.metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, parquet.num_row_groups))
        yield pa.Table.from_batches([], schema)
        due = sum(parquet.metadata.row_group(number).num_rows for number in groups)
        for batch in parquet.iter_batches(size, row_groups=groups) if groups else ():
            batch.validate(full=True)  # ValueError: places of a broken file that lie outside of it
            due -= batch.num_rows
            skipped = min(start, batch.num_rows)
            start -= skipped
            yield plain_texts(pa.table(batch), schema).slice(skipped)
        if due:
            raise ValueError(FEWER.format(due))


def plain_texts(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with columns of this schema, whose texts stand in it for each row.

    Raises:
        ValueError: if they are larger than `LARGEST_PART` then.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    was = [column for column, field in zip(table.columns, schema, strict=True) if pa.types.is_string(field.type)]
    texts = [chunk for column in was if pa.types.is_dictionary(column.type) for chunk in column.chunks]
    sizes = (pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0 for chunk in texts)
    if sum(sizes) > LARGEST_PART:
        raise ValueError(SPLIT.format(LARGEST_PART, "bytes"))
    return with_types(table, schema)


def read_arrow(file: Any, start: int, size: int) -> Iterator[pa.Table]:
    """The rows from one on, of the file format or the stream format, behind a table without any."""
    import pyarrow as pa

    try:
        opened = pa.ipc.open_file(file)
        batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
    except pa.ArrowInvalid:
        file.seek(0)
        opened = pa.ipc.open_stream(file)
        batches = iter(opened)
    yield pa.Table.from_batches([], opened.schema)
    for batch in batches:
        batch.validate(full=True)
        skipped = min(start, batch.num_rows)
        start -= skipped
        yield pa.table(batch).slice(skipped)


# Formats that are read row by row, so that a bad one is known, and formats of columns. First each says its columns: by
# the names of those that hold texts, or by a table without rows.
ROWS: Mapping[str, Callable[[Any, str], Iterator[Any]]] = {
    ".csv": read_csv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".txt": read_txt,
}
COLUMNS: Mapping[str, Callable[[Any, int, int], Iterator[Any]]] = {
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".ipc": read_arrow,
}
FORMATS = (*COLUMNS, *ROWS)


@dataclass(frozen=True)
class Reading:
    """How files are read: into parts of so many rows, with the same columns from all of them.

    Attributes:
        column: of the texts.
        size: rows of a part.
        nulls_are_bad: whether a row without text is a bad one.
        schema: of every part.
        whole: whether that has all columns, so that a row with another one is a bad row.
        to_break: whether the rows of a part that its file breaks off in are given.
    """

    column: str
    size: int
    nulls_are_bad: bool
    schema: pa.Schema
    whole: bool = False
    to_break: bool = False

    def parts(self, source: Input, start: int = 0) -> Iterator[Part]:
        """The parts of a file from one on.

        Raises:
            UnsupportedOptionError: if the file is broken or has other columns, behind the parts before that. Fewer rows
                than a part are a short one, or come with none.
        """
        import pyarrow as pa

        with opened(source) as file:
            if source.ending in ROWS:
                found = ROWS[source.ending](file, self.column)
                self._check(next(found))
                next(islice(found, start * self.size, start * self.size), None)
                chunks: Iterator[Any] = bounded_rows(found, self.size)
            else:
                chunks = resized(COLUMNS[source.ending](file, start * self.size, self.size), self.size)
            number, waiting, consumed = start, next(chunks, None), 0
            if waiting is None:
                nothing = pa.Table.from_batches([], self.schema)
                yield Part(source, number, nothing, 0, last=True)
            while waiting is not None:
                following, broken = next_or_error(chunks)
                last = following is None and broken is None
                short = broken is not None and len(waiting) < self.size
                if broken and short and not self.to_break:
                    raise broken
                place = source.size if last else min(position(file, source), source.size)
                part = self._part(source, number, waiting, last)
                yield replace(part, consumed=max(0, place - consumed), short=short)
                if broken:
                    raise broken
                number, waiting, consumed = number + 1, following, max(place, consumed)

    def _check(self, names: Sequence[str]) -> None:
        """Raise ValueError for a file with other columns than the first; no names are those of JSON lines."""
        counts = Counter(names)
        if names and (missing := [name for name in self.schema.names if counts[name] != 1]):
            raise ValueError(f"has no one column {', '.join(missing)} (have: {', '.join(names)})")
        if self.whole and (extra := counts.keys() - set(self.schema.names)):
            raise ValueError(MORE.format(min(extra)))

    def _part(self, source: Input, number: int, rows: Any, last: bool) -> Part:
        import pyarrow as pa

        bad: list[Bad] = []
        first = number * self.size
        places: Sequence[int] = range(first, first + len(rows))
        if isinstance(rows, list):
            if len(rows) * len(self.schema) > MOST_CELLS:
                raise ValueError(SPLIT.format(MOST_CELLS, "cells"))
            known = set(self.schema.names)
            rows = [self._checked(row, known) for row in rows]
            table, places = from_rows(rows, self.schema, bad, first)
        else:
            self._check(rows.column_names)
            table = with_types(rows.select(self.schema.names), self.schema)
        column = table.column(self.column)
        flat = pa.types.is_primitive(column.type) or pa.types.is_string(column.type) or pa.types.is_binary(column.type)
        if self.nulls_are_bad and (column.null_count or not flat):  # which counts those of flat columns alone
            from sbertconv.tables.embedding import input_column

            valid = [text is not None for text in input_column(table, self.column)]
            bad += [Bad(place, "null") for place, found in zip(places, valid, strict=True) if not found]
            table = chosen_rows(table, valid)
        return Part(source, number, table, len(rows), tuple(sorted(bad, key=lambda one: one.row)), last)

    def _checked(self, row: Any, known: set[str]) -> Any:
        """A row, or why it is none: it has no text at all, or a key more than the columns."""
        if not isinstance(row, dict):
            return row
        if self.column not in row:
            return f"no {self.column!r} (have: {', '.join(map(str, row)) or 'none'})"
        extra = row.keys() - known if self.whole else ()
        return MORE.format(min(extra)) if extra else row


def next_or_error(chunks: Iterator[Any]) -> tuple[Any, Exception | None]:
    """The next of an iterator, None behind the last, or the error that it ends with."""
    try:
        return next(chunks, None), None
    except Exception as error:
        return None, error


def position(file: Any, source: Input) -> int:
    """How far into a file its reader is, in bytes as it is stored."""
    raw = file if source.path.endswith(ending_of(source.path)) else getattr(file, "fileobj", None)
    return 0 if raw is None or raw.closed else int(raw.tell())


def resized(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of so many, those before an error too."""
    import pyarrow as pa

    held: list[Any] = []
    while True:
        table, broken = next_or_error(tables)
        if table is None:
            if sum(map(len, held)):
                yield pa.concat_tables(held)
            if broken:
                raise broken
            return
        held.append(table)
        while sum(map(len, held)) >= size:
            whole = pa.concat_tables(held)
            yield whole.slice(0, size)
            held = [whole.slice(size)] if len(whole) > size else []


def from_rows(rows: list[Any], schema: pa.Schema, bad: list[Bad], first: int) -> tuple[pa.Table, list[int]]:
    """The rows that are good as a table, with their places; the others join the bad ones."""
    import pyarrow as pa

    good, places = [], []
    narrow = [field for field in schema if is_narrow(field.type)]
    for place, row in enumerate(rows, first):
        why = row if isinstance(row, str) else next(filter(None, (loss(row.get(f.name), f.type) for f in narrow)), None)
        if why:
            bad.append(Bad(place, why))
        else:
            good.append(row)
            places.append(place)
    try:
        return pa.Table.from_pylist(good, schema), places
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # one of them: each alone says which
        fitting = []
        for place, row in zip(places, good, strict=True):
            try:
                pa.Table.from_pylist([row], schema)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                bad.append(Bad(place, error_text(error)))
            else:
                fitting.append((place, row))
        return pa.Table.from_pylist([row for _, row in fitting], schema), [place for place, _ in fitting]


def is_narrow(kind: pa.DataType) -> bool:
    """Whether Arrow takes values of JSON for others of this type in silence: a fraction, true, or fewer keys."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return is_narrow(kind.value_type)
    return any(holds(kind) for holds in (pa.types.is_integer, pa.types.is_floating, pa.types.is_struct))


def loss(value: Any, kind: pa.DataType) -> str | None:
    """Why a value of JSON is more than a narrow type holds, or None; values of other kinds Arrow refuses itself."""
    import pyarrow as pa

    if isinstance(value, list) and pa.types.is_list(kind):
        return next(filter(None, (loss(one, kind.value_type) for one in value)), None)
    if isinstance(value, dict) and pa.types.is_struct(kind):
        known = {field.name: field.type for field in kind}
        if extra := value.keys() - known.keys():
            return MORE.format(min(extra))
        return next(filter(None, (loss(value.get(name), known[name]) for name in known)), None)
    other = float if pa.types.is_integer(kind) else bool if pa.types.is_floating(kind) else ()
    return f"{value!r} in a column of {kind}, as in the first rows" if isinstance(value, other) else None


def chosen_rows(table: pa.Table, chosen: Sequence[bool]) -> pa.Table:
    """Some rows of a table. They are cut out of it, since Arrow's own filter has nothing for views and other types."""
    import pyarrow as pa

    if all(chosen):
        return table
    edges = [place for place in range(1, len(chosen)) if chosen[place] != chosen[place - 1]]
    runs = [(start, end) for start, end in pairwise([0, *edges, len(chosen)]) if chosen[start]]
    return pa.concat_tables([table.slice(0, 0), *(table.slice(start, end - start) for start, end in runs)])


def with_types(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the same columns in the types of a schema. A column that has its type is not touched: Arrow's cast
    gives rows cut out of a struct of nulls too few of them.

    Raises:
        ValueError: for nulls in a column that the schema says has none, and for values that its type cannot hold;
            pyarrow.ArrowException for other types.
    """
    import pyarrow as pa

    pairs = list(zip(table.columns, schema, strict=True))
    if nulls := [field.name for column, field in pairs if column.null_count and not field.nullable]:
        raise ValueError(f"the column {nulls[0]!r} has nulls, where the first file can have none")
    return pa.Table.from_arrays([with_type(column, field) for column, field in pairs], schema=schema)


def with_type(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """A column in the type of a field. Arrow's cast leaves out fields of a struct, the time of a date and more in
    silence, so the way back has to give the same; text says a value in many ways, and is read strictly.

    Raises:
        ValueError: for values that the type cannot hold.
    """
    import pyarrow as pa

    if column.type == field.type:
        return column
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = any(holds(kind) for holds in text_types())
    if is_text and pa.types.is_floating(field.type):  # which the way back tells apart from narrower numbers
        column, is_text = column.cast(pa.float64()), False
    made = column.cast(field.type)
    exact = kind == field.type or pa.types.is_null(kind) or is_text
    vanish = pa.types.is_null(field.type) and column.null_count < len(column)
    if vanish or (not exact and not same_values(made, column)):
        raise ValueError(
            f"the column {field.name!r} has values of {column.type} that {field.type} of the first file cannot hold"
        )
    return made


def text_types() -> tuple[Callable[[Any], bool], ...]:
    """What tells the types of text."""
    import pyarrow as pa

    return pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view


def same_values(made: pa.ChunkedArray, column: pa.ChunkedArray) -> bool:
    """Whether a cast column gives the column again."""
    import pyarrow as pa

    try:
        back = made.cast(column.type)
        return back.equals(column) or repr(back.to_pylist()) == repr(column.to_pylist())  # where NaN is NaN
    except (pa.ArrowException, ValueError, OverflowError):
        return False


class opened:  # noqa: N801  # a context manager
    """A file, unpacked where it is compressed; whatever breaks while it is read is one kind of error."""

    def __init__(self, source: Input) -> None:
        self.source = source

    def __enter__(self) -> Any:
        import fsspec

        if self.source.path.endswith(ZSTD) and fsspec.utils.infer_compression(self.source.path) is None:
            require("tables", "backports.zstd")  # without it fsspec reads the packed bytes as they are
        try:
            self.file = fsspec.core.OpenFile(*located(self.source.path), "rb", compression="infer").open()
        except Exception as error:
            if not self._is_the_files(error):
                raise
            raise self._broken(error) from error
        return self.file

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.file.close()
        finally:
            if self._is_the_files(error):
                raise self._broken(error) from error

    def _is_the_files(self, error: Any) -> bool:
        """Whether an error says that the file is broken, or that its store gives it no more."""
        import lzma
        import zlib

        import pyarrow as pa

        if "://" in self.source.path:  # each file system has its own errors
            return isinstance(error, Exception) and not isinstance(error, SbertconvError)
        broken = (OSError, ValueError, EOFError, KeyError, OverflowError, csv.Error, zlib.error, lzma.LZMAError)
        return isinstance(error, (*broken, pa.ArrowException)) or type(error).__name__ == "ZstdError"  # of two packages

    def _broken(self, error: BaseException) -> UnsupportedOptionError:
        return UnsupportedOptionError(
            f"{self.source.path}: cannot be read: {error_text(error)}\n"
            "Check that the file is complete, has the columns of the others and is UTF-8, or pass on_error='skip'."
        )


def columns_of(sources: Sequence[Input], column: str, keep: Sequence[str] | None, skip: bool = False) -> pa.Schema:
    """The columns that are read, with their types, as the first file says them that has a row or names its columns.

    Args:
        sources: the files.
        column: of the texts.
        keep: the columns that stay; None: all.
        skip: whether a file that cannot be read is passed over.

    Raises:
        UnsupportedOptionError: if that file is broken or has not the columns, or no file says any.
    """
    said: UnsupportedOptionError | None = None
    for source in sources:
        try:
            if (schema := schema_of(source, column, keep)) is not None:
                return schema
        except UnsupportedOptionError as error:
            if not skip:
                raise
            said = said or error
    if said:
        reason = str(said).partition("\n")[0]
        raise UnsupportedOptionError(f"{reason}\nNo file says what the columns are: mend this one.")
    raise UnsupportedOptionError(f"{sources[0].path}: no row, and nothing says the columns.\nGive a file with a row.")


def schema_of(source: Input, column: str, keep: Sequence[str] | None) -> pa.Schema | None:
    """The columns of one file; None, if nothing in it says them.

    Raises:
        UnsupportedOptionError: if it is broken, or has not the columns.
    """
    import pyarrow as pa

    from sbertconv.tables.embedding import input_column, kept_columns

    with opened(source) as file:
        if source.ending in COLUMNS:
            table = next(COLUMNS[source.ending](file, 0, 1))
            twice = [name for name, times in Counter(table.column_names).items() if times > 1 and name != column]
            if twice and (keep is None or set(twice) & set(keep)):
                raise ValueError(f"several columns are called {twice[0]!r}; choose those that stay with keep=")
        else:
            found = ROWS[source.ending](file, column)
            texts = dict.fromkeys(next(found), pa.string())
            first = list(sampled(found))
            rows = [row for row in first if isinstance(row, dict)]
            if first and not rows:
                raise UnsupportedOptionError(f"{source.path}, row 0: {first[0]}.\nMend it, or begin with another file.")
            names = dict.fromkeys([*texts, *(name for row in rows for name in row)])
            if not names:
                return None
            columns = {name: [row.get(name) for row in rows] for name in names}
            table = pa.table({name: pa.array(columns[name], texts.get(name), from_pandas=False) for name in names})
    try:
        input_column(table, column)
        kept = set(kept_columns(table.column_names, keep))
    except UnsupportedOptionError as error:
        raise UnsupportedOptionError(f"{source.path}: {error}") from error
    fields = [table.schema.field(name) for name in table.column_names if name in kept or name == column]
    texts_field = pa.field(column, pa.string())
    return pa.schema([texts_field if one.name == column and pa.types.is_null(one.type) else one for one in fields])
