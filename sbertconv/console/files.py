"""Texts from a file, embeddings to a file, a block at a time."""

from __future__ import annotations

import csv
import inspect
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.artifact.json_reading import parse_json
from sbertconv.artifact.scratch import is_running, scratch_folder
from sbertconv.errors import UnsupportedOptionError, require, visible
from sbertconv.tables.reading import FEWER, LONGEST_LINE, bounded_lines

if TYPE_CHECKING:
    from sbertconv.runtime.sparse import SparseEmbedder, SparseRow

BLOCK = 4096  # texts held at once: enough to sort by length, small beside a model
ENCODING = "utf-8-sig"  # UTF-8, with or without the byte order mark that spreadsheets and editors of Windows write
STDIN = Path("-")  # standard input, whose lines are texts
LARGEST_BLOCK = 1 << 27  # characters of the texts that are held at once


def blocks_of(texts: Iterable[Any]) -> Iterator[list[Any]]:
    """Texts, or pairs of them, in lists of `BLOCK`, or of fewer long ones."""
    block: list[Any] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text) if isinstance(text, (str, bytes)) else sum(map(len, text))
        if len(block) == BLOCK or size > LARGEST_BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _read_lines(path: Path, column: str) -> Iterator[str]:
    """Each line is a text, an empty one too."""
    if path == STDIN and sys.stdin is None:
        raise UnsupportedOptionError("The input is closed, so there is nothing to read.\nPass a file with --input.")
    place = sys.stdin.fileno() if path == STDIN else path
    with open(place, encoding=ENCODING, newline="\n", closefd=path != STDIN) as file:
        for line in bounded_lines(file):
            yield line.rstrip("\r\n")


def _read_jsonl(path: Path, column: str, alone: bool = True) -> Iterator[str]:
    """Each line is a row: an object or, where the column stands `alone`, a text. Blank lines end a file; one with a row
    behind it is no row, and all behind it would move up. A key that stands twice in an object is refused: JSON does not
    say which of them counts.
    """
    blank = None
    for number, line in enumerate(_read_lines(path, column), 1):
        if not line.strip():
            blank = blank or number
            continue
        if blank is not None:
            raise UnsupportedOptionError(
                f'{path}, line {blank}: blank, where a row is due.\nRemove the line, or write "" for an empty text.'
            )
        where = f"{path}, line {number}"
        row = parse_json(line, where, error=UnsupportedOptionError, advice="Mend the line.")
        if isinstance(row, str) and not alone:
            raise UnsupportedOptionError(f"{where}: a text, where an object with two texts is due.\nMend the line.")
        yield _cell(row, column, where)


def _read_csv(path: Path, column: str) -> Iterator[str]:
    """The first row has the names. With one column, an empty line is the empty text: so the csv module and
    spreadsheets write it. With more of them empty lines end a file, and one with a row behind it is refused, as are
    a row with more cells than there are names, a quote that is never closed or has text behind it, and the column's
    name if it stands twice.
    """
    csv.field_size_limit(LONGEST_LINE)
    with path.open(encoding=ENCODING, newline="") as file:
        rows = csv.reader(bounded_lines(file), strict=True)
        number, start, blank = 1, 1, None
        try:
            names = next(rows, [])
            while True:
                start = rows.line_num + 1
                cells = next(rows, None)
                if cells is None:
                    return
                number += 1
                where = f"{path}, row {number}"
                if not cells and len(names) != 1:
                    blank = blank or where
                    continue
                if blank is not None:
                    raise UnsupportedOptionError(f"{blank}: empty, where a row is due.\nRemove the line.")
                if names.count(column) > 1:
                    raise UnsupportedOptionError(
                        f"{path}: {names.count(column)} columns are called {column!r}.\nRename all but one."
                    )
                if len(cells) > len(names):
                    raise UnsupportedOptionError(
                        f"{where}: {len(cells)} cells, where {len(names)} are due.\nQuote the commas of a text."
                    )
                given = [*(cells or [""]), *[None] * (len(names) - max(len(cells), 1))]
                yield _cell(dict(zip(names, given, strict=True)), column, where)
        except csv.Error as error:
            raise UnsupportedOptionError(
                f'{path}, row {number + 1}, which begins in line {start}: {error}.\nClose its quotes, and write "" '
                "for one inside a quoted text."
            ) from error


def _read_parquet(path: Path, column: str) -> Iterator[str | bytes]:
    require("parquet", "pyarrow")
    import pyarrow

    try:
        yield from _rows_of_parquet(path, column)
    except pyarrow.ArrowException as error:  # some are a NotImplementedError or a MemoryError
        raise ValueError(error) from error


def _rows_of_parquet(path: Path, column: str) -> Iterator[str | bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if file.schema_arrow.names.count(column) > 1:
            raise UnsupportedOptionError(f"{path}: several columns are called {column!r}.\nRename all but one.")
        if column not in file.schema_arrow.names:
            _cell(dict.fromkeys(file.schema_arrow.names), column, str(path))
        packed = [column] if pa.types.is_string(file.schema_arrow.field(column).type) else []
    with pq.ParquetFile(path, read_dictionary=packed) as file:  # a text that comes often is in memory once
        batches = file.iter_batches(BLOCK, columns=[column])
        texts = (text.as_py() for batch in batches for text in _checked(batch).column(0))
        rows = 0
        for text in texts:
            yield text if isinstance(text, bytes) else _cell({column: text}, column, f"{path}, row {rows}")
            rows += 1
        if rows != file.metadata.num_rows:
            raise ValueError(FEWER.format(file.metadata.num_rows - rows))


def _checked(batch: Any) -> Any:
    """The same batch; ValueError for one of a broken file whose places lie outside of it."""
    batch.validate(full=True)
    return batch


def _cell(row: Any, column: str, where: str) -> str:
    if isinstance(row, str):
        return row
    if not isinstance(row, dict):
        raise UnsupportedOptionError(
            f"{where}: {type(row).__name__}, where text or an object with the key {column!r} is due.\nMend the line."
        )
    if column not in row:
        raise UnsupportedOptionError(
            f"{where}: no column {column!r} (have: {', '.join(map(str, row)) or 'none'}).\nChoose one with column=."
        )
    if not isinstance(row[column], str):
        raise UnsupportedOptionError(f"{where}: {column!r} is {type(row[column]).__name__}, not text.\nMend the row.")
    return str(row[column])


Reader = Callable[[Path, str], Iterator[str | bytes]]
READERS: dict[str, Reader] = {
    ".txt": _read_lines,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def read_texts(path: Path, column: str = "text", readers: Mapping[str, Reader] | None = None) -> Iterator[str]:
    """The texts of a file: the lines of .txt or of standard input ("-"), one column or key of .jsonl, .csv and
    .parquet. Text i is that of row i: a row without one stops the reading. `readers` may stand for `READERS`.

    Raises:
        UnsupportedOptionError: for an unknown ending, a missing or broken file, a missing column, or a row
            without text.
    """
    rows = _checked_rows(path, column, readers or READERS)
    return (
        row if isinstance(row, str) else _cell({column: row}, column, f"{path}, row {number}")
        for number, row in enumerate(rows)
    )


def _checked_rows(path: Path, column: str, readers: Mapping[str, Reader]) -> Iterator[str | bytes]:
    """The texts of a file, or the bytes of images in a column of Parquet."""
    if path != STDIN and path.suffix not in READERS:
        raise UnsupportedOptionError(f"{path}: cannot read {path.suffix!r} (have: {', '.join(READERS)}).\nConvert it.")
    if path != STDIN and not path.is_file():
        raise UnsupportedOptionError(f"{path}: no such file.\nCheck the path.")
    return _read(path, column, readers[".txt" if path == STDIN else path.suffix])


def _read(path: Path, column: str, reader: Reader) -> Iterator[str | bytes]:
    """What the reader of this ending gives; a broken file is one kind of error, whichever library tells of it."""
    try:
        yield from reader(path, column)
    except (OSError, ValueError, csv.Error) as error:  # ValueError: text that is not UTF-8, and pyarrow's ArrowInvalid
        raise UnsupportedOptionError(
            f"{path}: cannot be read: {error}\nCheck that the file is complete and, if it is text, saved as UTF-8."
        ) from error


def read_inputs(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """The texts of one column, or the bytes of its images, or the pairs of two columns.

    Raises:
        UnsupportedOptionError: for more columns, for two of a file that has none, and what `read_texts` raises.
    """
    if len(columns) == 1:
        return _checked_rows(path, columns[0], READERS)
    if len(columns) > 2 or path.suffix == ".txt" or path == STDIN:
        raise UnsupportedOptionError(
            f"{path}: {len(columns)} columns (have: one, or two of .jsonl, .csv and .parquet).\nPass --column so."
        )
    return _pairs(path, columns)


def _pairs(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The texts of two columns, row by row."""
    paired: dict[str, Reader] = {**READERS, ".jsonl": partial(_read_jsonl, alone=False)}
    try:
        yield from zip(*(read_texts(path, column, paired) for column in columns), strict=True)
    except ValueError as error:  # of a broken file
        raise UnsupportedOptionError(
            f"{path}: its columns {' and '.join(columns)} have other numbers of rows.\nCheck that the file is complete."
        ) from error


WriteRows = Callable[[Any], None]  # takes rows: an array, or what JSON has for each


@contextmanager
def _write_json_lines() -> Iterator[WriteRows]:
    """JSON lines on stdout, for as long as somebody reads them."""
    if sys.stdout is None:  # closed by who started this process
        raise UnsupportedOptionError("The output is closed, so there is nowhere to write.\nPass --output.")
    count = 0

    def write(block: Iterable[Any]) -> None:
        nonlocal count
        for row in block:
            content = row.tolist() if isinstance(row, (np.ndarray, np.generic)) else row
            try:
                line = json.dumps(content, ensure_ascii=False, allow_nan=False)
            except ValueError as error:  # NaN and infinity are no JSON
                raise UnsupportedOptionError(
                    f"Row {count} has a value that is not finite, which JSON cannot hold.\n"
                    "Check the model on this text, or write a file with --output."
                ) from error
            sys.stdout.write(visible(line) + "\n")
            count += 1

    try:
        yield write
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has enough
        discard_output()
    except KeyboardInterrupt as stop:
        said = (f"Interrupted. Of the rows {count} are printed, the others are not.",) if count else stop.args
        raise KeyboardInterrupt(*said) from stop


def discard_output() -> None:
    """What is still buffered for stdout goes nowhere, so that the process ends without a second error about it."""
    with suppress(OSError):  # not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _write_npy(path: Path) -> Iterator[WriteRows]:
    """One .npy array; the header is written again at the end, when the number of rows is known.

    numpy pads the header so that a growing first dimension always fits into it.
    """
    rows = 0
    dtype, width = np.dtype(np.float32), (0,)
    with path.open("wb") as file:

        def header() -> None:
            description = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (rows, *width),
            }
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, description)

        def write(block: Any) -> None:
            nonlocal rows, dtype, width
            if not isinstance(block, np.ndarray):
                raise UnsupportedOptionError(
                    ".npy: texts with a vector for each token are no single array (have: .parquet).\n"
                    "Choose that, or leave --output out for JSON lines."
                )
            if rows == 0:
                dtype, width = block.dtype, block.shape[1:]
                header()
            rows += len(block)
            file.write(np.ascontiguousarray(block).tobytes())

        yield write
        header()


@contextmanager
def _write_parquet(path: Path) -> Iterator[WriteRows]:
    require("parquet", "pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    writers: list[Any] = []

    def vectors(rows: np.ndarray) -> Any:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])

    def write(block: Any) -> None:
        if isinstance(block, np.ndarray):
            column = vectors(block)
        else:  # the vectors of each text's tokens
            ends = np.cumsum([0, *map(len, block)], dtype=np.int32)
            column = pa.ListArray.from_arrays(pa.array(ends), vectors(np.concatenate(block)))
        table = pa.table({"embedding": column})
        if not writers:
            writers.append(pq.ParquetWriter(path, table.schema))
        writers[0].write_table(table)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()


WRITERS: dict[str, Callable[[Path], AbstractContextManager[WriteRows]]] = {
    ".npy": _write_npy,
    ".parquet": _write_parquet,
}


@contextmanager
def _write_npz(path: Path, embedder: SparseEmbedder) -> Iterator[WriteRows]:
    """One matrix as scipy.sparse.load_npz reads it; it is in memory until all of it is there."""
    require("sparse", "scipy")
    from scipy.sparse import save_npz

    found: list[SparseRow] = []
    yield found.extend
    with path.open("wb") as file:
        save_npz(file, embedder.matrix(found))


def predict_texts(model: Any, inputs: Iterable[Any], **options: Any) -> None:
    """Score or label a stream of texts or pairs in blocks, as JSON lines on stdout.

    Args:
        model: a loaded artifact.
        inputs: any iterable; at most BLOCK of them are in memory.
        options: of its `predict_all`.

    Raises:
        UnsupportedOptionError: for an artifact that gives embeddings.
    """
    from sbertconv.runtime.predicting import Predictor

    if not isinstance(model, Predictor):
        raise UnsupportedOptionError(
            f"{model.artifact.folder}: a {model.artifact.manifest['model_class']} gives embeddings, no predictions.\n"
            "Use sbertconv encode."
        )
    with _write_json_lines() as write:
        for block in blocks_of(inputs):
            write(model.predict_all(block, **options))


def encode_texts(
    embedder: Any,
    texts: Iterable[str],
    output: Path | None,
    *,
    progress: bool = False,
    tokens: bool = False,
    **options: Any,
) -> int:
    """Embed a stream of texts in blocks; returns how many.

    Args:
        embedder: a loaded artifact with `encode`.
        texts: any iterable; at most BLOCK texts and their embeddings are in memory.
        output: a .npy or .parquet file, of sparse vectors an .npz file, which appears only when it is complete; None:
            JSON lines on stdout.
        progress: show a counter on stderr.
        tokens: of sparse vectors, tokens in place of columns; JSON lines alone.
        options: of its `encode`.

    Raises:
        UnsupportedOptionError: for an unknown ending, an option that its `encode` does not have, or an int8 precision,
            whose ranges need all embeddings.
    """
    if options.get("precision") in ("int8", "uint8"):
        raise UnsupportedOptionError(
            "precision int8 and uint8 take their ranges from all embeddings at once, a stream has none "
            "(have: float32, binary, ubinary).\nEncode in float32 and quantize the result."
        )
    if not hasattr(embedder, "encode"):
        name = embedder.artifact.manifest["model_class"]
        raise UnsupportedOptionError(
            f"{embedder.artifact.folder}: a {name} gives no embeddings.\nUse sbertconv predict."
        )
    encode, writers = _encoding(embedder, output is None, tokens)
    options = {key: value for key, value in options.items() if value not in (None, False, "float32")}
    if idle := [key for key in options if key not in inspect.signature(encode).parameters]:
        names = ", ".join(f"{name}=" for name in idle)
        raise UnsupportedOptionError(
            f"{names}: a {embedder.artifact.manifest['model_class']} has no such option.\nLeave it out."
        )
    if output is not None and output.suffix not in writers:
        raise UnsupportedOptionError(
            f"{output}: cannot write {output.suffix!r} (have: {', '.join(writers)}).\nChoose another ending."
        )
    with _writer(output, writers) as write, _counter(progress) as count_up:
        total = 0
        for block in blocks_of(texts):
            write(encode(block, **options))
            total += len(block)
            count_up(total)
        if output and not total:
            raise UnsupportedOptionError(f"No texts, so {output} was not written.\nCheck the input.")
    return total


def _encoding(embedder: Any, as_lines: bool, tokens: bool) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """What embeds a block of texts, and what writes it to a file, by its ending."""
    from sbertconv.runtime.sparse import SparseEmbedder

    if not isinstance(embedder, SparseEmbedder):
        if tokens:
            raise UnsupportedOptionError("--tokens: this model gives no weights of tokens.\nLeave the option out.")
        return embedder.encode, WRITERS
    if tokens and not as_lines:
        raise UnsupportedOptionError("--tokens: a matrix has columns.\nLeave it out, or --output.")
    writers = {".npz": partial(_write_npz, embedder=embedder)}
    if not as_lines:
        return embedder.rows, writers
    tell: Callable[[SparseRow], dict[Any, Any]] = embedder.tokens if tokens else _columns_and_values

    @wraps(embedder.rows)
    def lines(texts: Sequence[str], **options: Any) -> list[dict[Any, Any]]:
        return [tell(row) for row in embedder.rows(texts, **options)]

    return lines, writers


def _columns_and_values(row: SparseRow) -> dict[str, Any]:
    return {"indices": row.columns.tolist(), "values": row.values.tolist()}


def sweep_partial(output: Path) -> None:
    """Remove what killed runs left beside a file; those that run write on."""
    left = re.compile(rf"\.{re.escape(output.name)}\.(\d+)-[0-9a-f]+\.partial")
    with suppress(OSError):
        for path in output.parent.iterdir():
            if (found := left.fullmatch(path.name)) and not is_running(int(found[1])):
                path.unlink()


def check_outputs(outputs: Sequence[Path]) -> None:
    """What is said of outputs before the long run that they are for.

    Raises:
        UnsupportedOptionError: if nothing can be written to one, or two are one file.
    """
    taken: set[Path] = set()
    for output in outputs:
        with _said_of(output), _draft(output):
            place = Path(os.path.realpath(output.parent), output.name)
        if place in taken and not _is_stream(output):
            raise UnsupportedOptionError(
                f"{output}: named for two outputs, and only the last would be in it.\nName a file for each."
            )
        taken.add(place)


@contextmanager
def _said_of(output: Path) -> Iterator[None]:
    """Errors of the file system are those of an output."""
    try:
        yield
    except OSError as error:
        raise UnsupportedOptionError(
            f"{output}: cannot be written: {error.strerror or error}.\nChoose another place."
        ) from error


def _is_stream(output: Path) -> bool:
    """Whether an output is a pipe, a device of characters or what a standard stream of this process goes to, in whose
    place no file belongs.

    Raises:
        UnsupportedOptionError: for a name that no file has, and for a folder and whatever else is no file.
    """
    if output.name in ("", ".."):
        raise UnsupportedOptionError(f"{str(output)!r}: cannot be written: no name of a file.\nName one.")
    try:
        found = output.stat()
    except FileNotFoundError:  # or a link that leads nowhere
        return False
    if any(os.path.samestat(found, stream) for stream in _standard_streams().values()):
        return True
    if stat.S_ISDIR(found.st_mode):
        raise UnsupportedOptionError(f"{output}: cannot be written: it is a folder.\nName a file in it.")
    if stat.S_ISREG(found.st_mode):
        return False
    if stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode):
        return True
    raise UnsupportedOptionError(
        f"{output}: cannot be written: it is a socket or a disk (have: files, pipes, devices of characters).\n"
        "Name a file."
    )


def _standard_streams() -> dict[int, os.stat_result]:
    """The open ones of standard output and standard error, by their descriptors."""
    found = {}
    for descriptor in (1, 2):
        with suppress(OSError):  # closed by who started this process
            found[descriptor] = os.fstat(descriptor)
    return found


@contextmanager
def _draft(output: Path) -> Iterator[Path]:
    """A new file for what an output will hold, which goes at the end unless it is the output by then: beside it, or of
    a stream among the temporary files.
    """
    if _is_stream(output):
        with scratch_folder() as folder:
            yield folder / "draft"
        return
    sweep_partial(output)
    hidden = output.with_name(f".{output.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        hidden.open("xb").close()  # new: no link to somewhere else, and no other run's
        yield hidden
    finally:
        with suppress(OSError):  # a file where its folder should be: there is nothing to remove, and that is said above
            hidden.unlink()


def _publish(draft: Path, output: Path) -> None:
    """A whole draft becomes the output: a file is replaced, a stream is written into and stays."""
    if not _is_stream(output):  # asked again: it may be another thing by now
        draft.replace(output)
        return
    found = output.stat()
    own = (number for number, stream in _standard_streams().items() if os.path.samestat(found, stream))
    descriptor = next(own, None)
    if descriptor is not None and sys.stdout is not None:  # what was printed before stands before it
        sys.stdout.flush()
    place = output if descriptor is None else os.dup(descriptor)  # which knows how far it is
    with open(place, "wb") as stream, draft.open("rb") as file:
        shutil.copyfileobj(file, stream)


@contextmanager
def _writer(output: Path | None, writers: Mapping[str, Any]) -> Iterator[WriteRows]:
    """Writes a draft and publishes it at the end, so that a half-written result is never seen; None: stdout."""
    if output is None:
        with _write_json_lines() as write:
            yield write
        return
    with _said_of(output), _draft(output) as draft:
        with writers[output.suffix](draft) as write:
            yield write
        _publish(draft, output)


def write_file(output: Path, text: str) -> None:
    """Write a text, whole or not at all; what a link of this name leads to stays.

    Raises:
        UnsupportedOptionError: if it cannot be written.
    """
    with _writer(output, {output.suffix: _write_text}) as write:
        write(text)


@contextmanager
def _write_text(path: Path) -> Iterator[WriteRows]:
    def write(text: str) -> None:
        path.write_text(text, encoding="utf-8")

    yield write


@contextmanager
def _counter(progress: bool) -> Iterator[Callable[[int], None]]:
    if not progress:
        yield lambda count: None
        return
    from rich.console import Console

    with Console(stderr=True).status("encoding") as status:
        yield lambda count: status.update(f"encoded {count:,} texts")
