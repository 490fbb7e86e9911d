"""An Arrow table -> the same table with its vectors: the callable that one process, a worker, Ray and Spark share."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.artifact.folder import MANIFEST, folder_hash, folder_name
from sbertconv.errors import UnreadableInputError, UnsupportedOptionError, error_text, require
from sbertconv.runtime.keywords import check_fields
from sbertconv.runtime.late_interaction import MultiVectorEmbedder
from sbertconv.runtime.opening import load
from sbertconv.runtime.similarity import BUCKETS, quantize_embeddings
from sbertconv.runtime.sparse import SparseEmbedder
from sbertconv.tables.reading import text_types

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 2048  # texts embedded together, here or by a worker; one that stands several times among them is embedded once
METADATA = b"sbertconv"  # the key of the schema's metadata
VECTORS = EMBEDDING, INDICES, VALUES = "embedding", "embedding_indices", "embedding_values"
PRECISIONS = ("float32", "float16", *BUCKETS, "binary", "ubinary")
OWN = ("output_value", "precision", "convert_to_numpy", "convert_to_tensor")  # options that change what a vector is

Ranges = tuple[tuple[float, ...], tuple[float, ...]]
Stamp = tuple[int, int, int]


@lru_cache(maxsize=4)
def opened(folder: str, options: bytes, stamp: Stamp | None) -> Any:
    """A model loaded with pickled options, once per process however often the callable arrives there: until another one
    lies there, by the stamp of its file.
    """
    return load(folder, **dict(pickle.loads(options)))


def stamp_of(folder: str) -> Stamp | None:
    """What changes where a folder, or a .keras file, is replaced; None where there is neither."""
    place = Path(folder)
    try:
        found = (place / MANIFEST if place.is_dir() else place).stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True, kw_only=True)
class EmbedTable:
    """Embed a column of Arrow tables with a converted folder. It is called with a `pyarrow.Table` or `RecordBatch` and
    gives a table. It is small to pickle: where it arrives, it opens the folder itself, once per process.

    Attributes:
        folder: a converted folder.
        column: of the texts, or of images, as paths or as the bytes of files; null gives null.
        keep: the columns that stay; None: all.
        precision: "float32", "float16", "int8", "uint8", "binary" or "ubinary" of dense vectors; of sparse ones
            "float32", of vectors of tokens also "float16".
        ranges: of int8 and uint8, each dimension's smallest and largest value, see `ranges_of`.
        encode: keywords of the model's `encode`, such as prompt_name, task, truncate_dim and normalize_embeddings.
        load: keywords of `sbertconv.load`, such as threads and device.
        name: of the model, in the schema's metadata; default: the folder's.
        errors: a column to add, with the reason where an image or a sound cannot be read, whose vectors are null then;
            None: that is an error.
    """

    folder: str
    column: str = "text"
    keep: tuple[str, ...] | None = None
    precision: str = "float32"
    ranges: Ranges | None = None
    encode: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    errors: str | None = None

    def __post_init__(self) -> None:
        """Raise UnsupportedOptionError for values of another type, and for a column of errors in the place of vectors;
        a path becomes text, which travels everywhere, and that of a folder that is here an absolute one: it is opened
        when the first table comes, and in other processes, which may have another working folder.
        """
        given: Any = self.folder
        if isinstance(given, Path):
            object.__setattr__(self, "folder", str(given))
        check_fields(self)
        with suppress(OSError, RuntimeError, ValueError):  # what it is instead is said where it is opened
            if (place := Path(self.folder).expanduser()).exists():
                object.__setattr__(self, "folder", str(place.absolute()))
        for name in ("encode", "load"):
            if not isinstance(given := getattr(self, name), Mapping) or not all(isinstance(key, str) for key in given):
                raise UnsupportedOptionError(f"{name}={given!r:.60} (have: a dict of keywords).\nPass one.")
        if self.errors in VECTORS:
            raise UnsupportedOptionError(f"errors={self.errors!r}: a column of the vectors.\nChoose another name.")

    def __getstate__(self) -> dict[str, Any]:
        """The options alone; what they lead to is found again."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @cached_property
    def model(self) -> Any:
        """The loaded model, of the folder as it is when this is first asked for."""
        try:
            options = pickle.dumps(sorted(self.load.items(), key=lambda item: item[0]))
        except Exception as error:  # of any kind, by what holds it
            raise UnsupportedOptionError(
                f"load=: cannot travel to another process: {error_text(error)}.\nPass plain values."
            ) from error
        return opened(str(self.folder), options, stamp_of(str(self.folder)))

    @cached_property
    def options(self) -> dict[str, Any]:
        """The keywords that are given to the model's `encode`.

        Raises:
            UnsupportedOptionError: for a model without embeddings, an option that it does not have, or a precision.
        """
        if not hasattr(self.model, "encode"):
            name = self.model.artifact.manifest["model_class"]
            raise UnsupportedOptionError(f"{self.folder}: a {name} gives no embeddings.\nUse sbertconv predict.")
        given = {name: value for name, value in self.encode.items() if value is not None and value is not False}
        function = self.model.rows if isinstance(self.model, SparseEmbedder) else self.model.encode
        known = inspect.signature(function).parameters
        if idle := [name for name in given if name not in known]:
            names, kind = ", ".join(f"{name}=" for name in idle), self.model.artifact.manifest["model_class"]
            raise UnsupportedOptionError(f"{names}: a {kind} has no such option.\nLeave it out.")
        if own := [name for name in given if name in OWN and given[name] != known[name].default]:
            raise UnsupportedOptionError(
                f"encode={{{own[0]!r}: ...}}: tables hold sentence embeddings as arrays.\n"
                "Leave it out; precision= is an option of the tables."
            )
        able = next((names for kind, names in NARROW if isinstance(self.model, kind)), PRECISIONS)
        if self.precision not in able:
            raise UnsupportedOptionError(
                f"precision {self.precision!r} (have: {', '.join(able)}).\nChoose one of these."
            )
        return {name: value for name, value in given.items() if value != known[name].default}

    def __call__(self, table: pa.Table | pa.RecordBatch) -> pa.Table:
        """The kept columns, and those of the vectors.

        Raises:
            UnsupportedOptionError: for a column that is not there or of another type, or a name that is taken; for what
                cannot be read, unless `errors` names a column.
        """
        require("tables", "pyarrow")
        import pyarrow as pa

        try:
            # A table stays as it is: Arrow's C interface gives its empty slices buffers that do not combine
            table = table if isinstance(table, pa.Table) else pa.table(table)
        except (TypeError, ValueError) as error:
            raise UnsupportedOptionError(f"{table!r:.60} is no table (have: pyarrow.Table).\nPass one.") from error
        texts = input_column(table, self.column)
        kept = table.select(kept_columns(table.column_names, self.keep))
        parts = [self.vectors(texts[start : start + BLOCK]) for start in range(0, max(len(texts), 1), BLOCK)]
        check_apart(kept.column_names, parts[0])
        for name in parts[0]:
            kept = kept.append_column(name, pa.chunked_array([part[name] for part in parts]))
        return kept.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: json.dumps(self.described())})

    def vectors(self, texts: Sequence[str | bytes | None]) -> dict[str, pa.Array]:
        """The columns of the vectors of some texts; a text that stands several times is embedded once."""
        import pyarrow as pa

        is_list = isinstance(texts, (Sequence, np.ndarray)) and not isinstance(texts, (str, bytes))
        if not is_list or not all(isinstance(text, (str, bytes, NoneType)) for text in texts):
            raise UnsupportedOptionError(f"{texts!r:.60} is no list of texts, bytes and None.\nPass one.")
        places: dict[str | bytes, int] = {}
        rows = [None if text is None else places.setdefault(text, len(places)) for text in texts]
        columns, reasons = self._of_readable(list(places), self._columns)
        said = [None if row is None else reasons.get(row) for row in rows]
        kept = (place for place in range(len(places)) if place not in reasons)
        moved = {place: number for number, place in enumerate(kept)}
        rows = [None if row is None else moved.get(row) for row in rows]
        more = {} if self.errors is None else {self.errors: pa.array(said, pa.string())}
        return {name: column.take(pa.array(rows, pa.int64())) for name, column in columns.items()} | more

    def _of_readable(self, inputs: list[Any], call: Callable[[list[Any]], Any]) -> tuple[Any, dict[int, str]]:
        """What a call gives for the inputs that can be read, and index -> why of the others, which are looked for only
        where the call meets one.
        """
        try:
            return call(inputs), {}
        except UnreadableInputError:
            if self.errors is None:
                raise
        reasons = self.model.unreadable(inputs, self.options.get("task"))
        return call([one for index, one in enumerate(inputs) if index not in reasons]), reasons

    def _columns(self, texts: list[str | bytes]) -> dict[str, pa.Array]:
        import pyarrow as pa

        options = self.options
        if isinstance(self.model, SparseEmbedder):
            rows = self.model.rows(texts, **options)
            ends = pa.array(np.cumsum([0, *(len(row.columns) for row in rows)], dtype=np.int32))
            columns = np.concatenate([np.zeros(0, np.int64), *(row.columns for row in rows)])
            values = np.concatenate([np.zeros(0, np.float32), *(row.values for row in rows)])
            return {
                INDICES: pa.ListArray.from_arrays(ends, pa.array(columns, pa.int32())),
                VALUES: pa.ListArray.from_arrays(ends, pa.array(values, pa.float32())),
            }
        width = self.width
        if isinstance(self.model, MultiVectorEmbedder):
            tokens = self.model.encode(texts, **options) if texts else []
            ends = pa.array(np.cumsum([0, *map(len, tokens)], dtype=np.int32))
            return {EMBEDDING: pa.ListArray.from_arrays(ends, fixed_lists(self._narrowed(stacked(tokens, width))))}
        vectors = self.model.encode(texts, **options) if texts else np.zeros((0, width), np.float32)
        return {EMBEDDING: fixed_lists(self._narrowed(vectors))}

    @property
    def width(self) -> int:
        """The length of a vector before it is narrowed."""
        return int(min(self.model.get_embedding_dimension(), self.encode.get("truncate_dim") or 2**31))

    def _narrowed(self, vectors: np.ndarray) -> np.ndarray:
        if self.precision in BUCKETS and self.ranges is None:
            raise UnsupportedOptionError(f"precision {self.precision} needs ranges.\nPass ranges=ranges_of(vectors).")
        if self.precision == "float16":
            return vectors.astype(np.float16)
        return np.asarray(quantize_embeddings(vectors, self.precision, self.ranges))

    def described(self) -> dict[str, Any]:
        """What the schema's metadata says of the vectors, as plain types."""
        manifest = self.model.artifact.manifest
        given = {name: value for name, value in self.options.items() if name not in ("prompt", "prompt_name")}
        said = {
            "model": self.name or folder_name(Path(self.folder)),
            "model_class": manifest["model_class"],
            "folder_sha256": folder_hash(manifest),
            "prompt": self.model._resolve_prompt(self.encode.get("prompt"), self.encode.get("prompt_name")) or "",
            "column": self.column,
            "dimension": self.width,
            "precision": self.precision,
            "similarity": self.model.similarity_fn_name,
            "options": given,
        }
        return said if self.ranges is None else {**said, "ranges": [list(side) for side in self.ranges]}

    def with_ranges(self, texts: Sequence[str | bytes]) -> EmbedTable:
        """The same with the ranges of a sample; as it is, where the precision needs none."""
        if self.precision not in BUCKETS:
            return self
        options = self.options  # which refuses first what cannot be
        found, _ = self._of_readable(list(texts), lambda inputs: self.model.encode(inputs, **options))
        return replace(self, ranges=ranges_of(found))


NARROW: tuple[tuple[type, tuple[str, ...]], ...] = (
    (SparseEmbedder, ("float32",)),
    (MultiVectorEmbedder, ("float32", "float16")),
)


def stacked(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate([np.zeros((0, width), np.float32), *rows])


def fixed_lists(vectors: np.ndarray) -> pa.Array:
    """An array [n, width] as lists of fixed size."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), vectors.shape[1])


def ranges_of(vectors: np.ndarray) -> Ranges:
    """The smallest and the largest value of each dimension.

    Raises:
        UnsupportedOptionError: for fewer than two vectors.
    """
    if len(vectors) < 2:
        raise UnsupportedOptionError(
            "int8 and uint8 take their ranges from a sample, of two texts at least.\nGive more."
        )
    return tuple(vectors.min(axis=0).tolist()), tuple(vectors.max(axis=0).tolist())


def kept_columns(names: Sequence[str], keep: Sequence[str] | None) -> list[str]:
    """The columns that stay, in the order of the table.

    Raises:
        UnsupportedOptionError: for one that is not there.
    """
    if missing := [name for name in keep or () if name not in names]:
        raise UnsupportedOptionError(
            f"keep={','.join(missing)!r}: no such column (have: {', '.join(names)}).\nChoose from these."
        )
    return [name for name in names if keep is None or name in keep]


def check_column(names: Sequence[str], column: str) -> None:
    """Raise UnsupportedOptionError if there is no such column, or several."""
    if names.count(column) != 1:
        raise UnsupportedOptionError(
            f"no one column {column!r} (have: {', '.join(names) or 'none'}).\nChoose one with column=."
        )


def check_apart(kept: Sequence[str], added: Iterable[str]) -> None:
    """Raise UnsupportedOptionError for a column that stays and has the name of one of the vectors."""
    if taken := [name for name in added if name in kept]:
        raise UnsupportedOptionError(f"The table has a column {taken[0]!r} already.\nLeave it out with keep=.")


def input_column(table: pa.Table, column: str) -> list[str | bytes | None]:
    """The texts of a table, or its images: the bytes of files, alone or as `bytes` beside a `path`, as Hugging Face's
    datasets hold them.

    Raises:
        UnsupportedOptionError: if there is no such column, several, or one of another type.
    """
    import pyarrow as pa

    check_column(table.column_names, column)
    found = table.column(column)
    kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    if pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}:
        rows = found.to_pylist()
        return [row and (row["path"] if row["bytes"] is None else row["bytes"]) for row in rows]
    is_input: tuple[Callable[[Any], bool], ...] = (
        *text_types(), pa.types.is_null, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
    )  # fmt: skip
    if not any(holds(kind) for holds in is_input):
        raise UnsupportedOptionError(
            f"the column {column!r} is {found.type} (have: text, bytes of images).\nChoose one with column=."
        )
    return list(found.to_pylist())
