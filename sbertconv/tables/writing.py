"""An Arrow table -> a file that is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.errors import UnsupportedOptionError, error_text
from sbertconv.tables.ledger import PARTIAL
from sbertconv.tables.reading import Part

if TYPE_CHECKING:
    import pyarrow as pa


def write_parquet(table: pa.Table, file: Any) -> None:
    """Parquet; vectors are stored as they are, which costs least: their bits repeat nothing."""
    import pyarrow.parquet as pq

    vectors = [name for name in table.column_names if name.startswith("embedding")]
    others = [name for name in table.column_names if name not in vectors]
    compression = {"compression": "zstd", "use_dictionary": others}
    pq.write_table(table, file, **compression)


def write_arrow(table: pa.Table, file: Any) -> None:
    """Arrow's IPC file format, which a reader maps into memory."""
    import pyarrow as pa

    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


WRITERS: Mapping[str, Callable[[Any, Any], None]] = {"parquet": write_parquet, "arrow": write_arrow}


def output_name(part: Part, form: str) -> str:
    """The name of a part's file: that of the input, what tells it from others of this name, and the part's number."""
    name = part.source.path.replace("\\", "/").rsplit("/", 1)[-1].lstrip("._")
    stem = name.partition(".")[0][:100] or "rows"
    return f"{stem}-{part.source.code}-{part.number:06d}.{form}"


def write_part(table: pa.Table, folder: Path, name: str, form: str) -> None:
    """Write beside the name, then rename; the file is on the disk before it has its name.

    Raises:
        UnsupportedOptionError: if the disk is full, the folder cannot be written, or the format has no such columns.
    """
    import pyarrow as pa

    partial = folder / f".{name}{PARTIAL}"
    try:
        partial.unlink(missing_ok=True)  # it may be a link to somewhere else
        with partial.open("xb") as file:
            WRITERS[form](table.combine_chunks(), file)  # the same bytes, however the rows were read
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / name)
    except pa.ArrowException as error:  # some are a NotImplementedError or a TypeError
        partial.unlink(missing_ok=True)
        raise UnsupportedOptionError(
            f"{folder / name}: cannot be written: {error_text(error)}\n"
            f"Leave the column out with keep=, or choose another output_format (have: {', '.join(WRITERS)})."
        ) from error
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UnsupportedOptionError(
            f"{folder / name}: cannot be written: {error.strerror or error}.\n"
            "Make room and give the same command again: what is done stays."
        ) from error
