"""An Arrow table -> a file of an output, in each of the formats."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.json_reading import parse_json
from sbertconv.artifact.tokenizer_file import rust_errors
from sbertconv.errors import ArtifactError, SbertconvError, UnsupportedOptionError, error_text
from sbertconv.tables.reading import Input, Part, address_of, place_of
from sbertconv.tables.stores import LocalStore, Store

if TYPE_CHECKING:
    import pyarrow as pa

OTHER_FOLDER = "Use another folder."
NOT_WRITTEN = "Make room, leave the column out with keep=, or choose another output_format."


def write_parquet(table: pa.Table, file: Any, store: Store) -> None:
    """Parquet; vectors are stored as they are, which costs least: their bits repeat nothing."""
    import pyarrow.parquet as pq

    vectors = [name for name in table.column_names if name.startswith("embedding")]
    others = [name for name in table.column_names if name not in vectors]
    compression = {"compression": "zstd", "use_dictionary": others}
    pq.write_table(table, file, **compression)


def write_arrow(table: pa.Table, file: Any, store: Store) -> None:
    """Arrow's IPC file format, which a reader maps into memory."""
    import pyarrow as pa

    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def write_lance(table: pa.Table, file: Any, store: Store) -> None:
    """A fragment of a Lance dataset in the output's folder; the file says which, for `finish_lance`.

    Raises:
        pyarrow.ArrowNotImplementedError: for a struct without fields, which Lance writes and does not read.
    """
    import pyarrow as pa
    from lance.fragment import write_fragments

    if hollow := [field.name for field in table.schema if is_hollow(field.type)]:
        raise pa.ArrowNotImplementedError(f"the column {hollow[0]!r} has a struct without fields, which Lance loses")
    mode = "create" if lance_dataset(store) is None else "append"  # one without rows is false
    # Copied: Lance needs views aligned, and those of an Arrow file lie where they lay in it
    copied = [[pa.concat_arrays([chunk]) for chunk in column.chunks] for column in table.columns]
    columns = [pa.chunked_array(chunks, field.type) for chunks, field in zip(copied, table.schema, strict=True)]
    table = pa.Table.from_arrays(columns, schema=table.schema)
    with lance_errors(UnsupportedOptionError, f"{lance_uri(store)}: cannot be written", NOT_WRITTEN):
        fragments = write_fragments(table, lance_uri(store), schema=table.schema, mode=mode)
    schema = base64.b64encode(table.schema.serialize().to_pybytes()).decode()
    said = {"schema": schema, "fragments": [json.dumps(fragment.to_json()) for fragment in fragments]}
    file.write(json.dumps(said).encode())


def is_hollow(kind: pa.DataType) -> bool:
    """Whether a type is a struct without fields, or has one in it."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return is_hollow(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return is_hollow(kind.value_type)
    inner = [kind.field(place).type for place in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not inner) or any(map(is_hollow, inner))


@contextmanager
def lance_errors(kind: type[SbertconvError], where: str, advice: str) -> Iterator[None]:
    """In here whatever Lance raises is one kind of error: it is of many, for what it does in Rust.

    Raises:
        kind: with Lance's words.
    """
    try:
        with rust_errors(where, kind, advice):
            yield
    except SbertconvError:
        raise
    except Exception as error:
        raise kind(f"{where}: {error_text(error)}\n{advice}") from error


def finish_lance(store: Store) -> None:
    """Make one version of the dataset of all fragments that are done, in the order of their names.

    Raises:
        SbertconvError: if one of their files is none of a run.
    """
    import pyarrow as pa
    from lance import LanceDataset, LanceOperation
    from lance.fragment import FragmentMetadata

    said = [parse_json(store.read(name), name, dict) for name in store.names("*.lance")]
    dataset = lance_dataset(store)
    if not said and dataset is None:
        return
    with lance_errors(ArtifactError, f"{lance_uri(store)}: a fragment cannot be read", OTHER_FOLDER):
        fragments = [FragmentMetadata.from_json(one) for part in said for one in part["fragments"]]
        there = [] if dataset is None else [one.metadata.files[0].path for one in dataset.get_fragments()]
        if there != [one.files[0].path for one in fragments]:
            own = pa.py_buffer(base64.b64decode(said[0]["schema"])) if said else None
            schema = dataset.schema if own is None else pa.ipc.read_schema(own)
            LanceDataset.commit(lance_uri(store), LanceOperation.Overwrite(schema, fragments))


def lance_uri(store: Store) -> str:
    """The dataset's place.

    Raises:
        UnsupportedOptionError: for a store of fsspec, which Lance does not write to.
    """
    if not isinstance(store, LocalStore):
        raise UnsupportedOptionError(
            "output_format='lance' goes to a local or mounted folder.\nChoose one, or parquet or arrow for a store."
        )
    return str(store.folder)


def lance_dataset(store: Store) -> Any:
    """The dataset; None: there is none yet.

    Raises:
        ArtifactError: if it cannot be read.
    """
    from lance import LanceDataset

    if not store.names("_versions"):
        return None
    with lance_errors(ArtifactError, f"{lance_uri(store)}: no dataset of Lance", OTHER_FOLDER):
        return LanceDataset(lance_uri(store))


@dataclass(frozen=True)
class TableFormat:
    """A format of outputs.

    Attributes:
        write: a table into an open file of a store.
        finish: what is done when all parts are written.
        needs: the extra and the package beside pyarrow.
        check: raises UnsupportedOptionError for a store that it does not go to.
    """

    write: Callable[[Any, Any, Store], None]
    finish: Callable[[Store], None] = lambda store: None
    check: Callable[[Store], Any] = lambda store: None
    needs: tuple[str, ...] = ()


FORMS: Mapping[str, TableFormat] = {
    "parquet": TableFormat(write_parquet),
    "arrow": TableFormat(write_arrow),
    "lance": TableFormat(write_lance, finish_lance, lance_uri, ("lance", "lance")),
}


def output_name(part: Part, form: str) -> str:
    """The name of a part's file: that of the input, what tells it from others of this name, and the part's number."""
    name = part.source.path.replace("\\", "/").rsplit("/", 1)[-1].lstrip("._")
    stem = name.partition(".")[0][:100] or "rows"
    return f"{stem}-{part.source.code}-{part.number:06d}.{form}"


PART = rf"[^/]+-[0-9a-f]{{12}}-\d{{6}}\.({'|'.join(FORMS)})"  # what `output_name` gives


def apart_from(files: Sequence[Input], output: str) -> list[Input]:
    """The inputs without the parts in the output's folder, which an earlier run wrote.

    Raises:
        UnsupportedOptionError: if none is left.
    """
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(output)
    except Exception:  # each file system has its own; the ledger, which is opened next, says why
        return list(files)
    part = re.compile(re.escape(place_of(f"{address_of(system, root).rstrip('/')}/")) + PART)
    found = [file for file in files if not part.fullmatch(place_of(file.path))]
    if not found:
        raise UnsupportedOptionError(
            f"{output}: every input is a part that an earlier run wrote to this folder.\n"
            "Choose another folder for the output."
        )
    return found


def write_part(table: pa.Table, store: Store, name: str, form: str) -> None:
    """Write a part's file, whole or not at all.

    Raises:
        UnsupportedOptionError: if the disk is full, the folder cannot be written, or the format has no such columns.
    """
    import pyarrow as pa

    try:
        whole = table.combine_chunks()  # the same bytes, however the rows were read
        store.write(name, lambda file: FORMS[form].write(whole, file, store))
    except pa.ArrowException as error:  # some are a NotImplementedError or a TypeError
        raise UnsupportedOptionError(
            f"{name}: cannot be written: {error_text(error)}\n"
            f"Leave the column out with keep=, or choose another output_format (have: {', '.join(FORMS)})."
        ) from error
