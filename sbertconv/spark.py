"""Converted folders on Spark: a function for SQL and columns, tables by `mapInArrow`, and workers for `--on spark`."""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.folder import folder_hash, folder_name, read_artifact
from sbertconv.errors import SbertconvError, UnsupportedOptionError, error_text, require
from sbertconv.tables.embedding import EMBEDDING, EmbedTable, check_apart, check_column, kept_columns
from sbertconv.tables.workers import Worker, answer_to, reaching, table_in

if TYPE_CHECKING:
    import pyarrow as pa

ARCHIVE = "archive:"  # a folder that came with addArchive
SPARK_TYPES = {"float": "FloatType", "int8": "ByteType", "int32": "IntegerType"}  # Arrow's -> Spark's


def ship(spark: Any, folder: str | Path) -> str:
    """Send a converted folder to the executors with `addArchive`, for clusters without a shared disk.

    Args:
        spark: a SparkSession.
        folder: on this machine.

    Returns:
        The name that the functions of this module take for a folder.

    Raises:
        ArtifactError: if it is no converted folder.
    """
    artifact = read_artifact(folder)
    name = f"sbertconv-{folder_hash(artifact.manifest)[:16]}"
    packed = Path(tempfile.mkdtemp(prefix="sbertconv-")) / f"{name}.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for file, path in artifact.members():
            archive.write(path, file)
    spark.sparkContext.addArchive(f"{packed}#{name}")
    return ARCHIVE + name


@dataclass(frozen=True)
class Located:
    """What travels to the Python workers of Spark: each opens the folder once, however many batches come."""

    embed: EmbedTable

    @property
    def here(self) -> EmbedTable:
        if not self.embed.folder.startswith(ARCHIVE):
            return self.embed
        from pyspark import SparkFiles

        return replace(self.embed, folder=SparkFiles.get(self.embed.folder.removeprefix(ARCHIVE)))

    def column(self, texts: Any) -> Any:
        """A column of texts -> a column of vectors."""
        import pyarrow as pa

        found = self.here(pa.table({self.embed.column: texts})).column(EMBEDDING)
        return as_lists(found.combine_chunks())

    def batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Rows with their vectors, as `mapInArrow` takes and gives them."""
        import pyarrow as pa

        for batch in batches:
            table = self.here(batch).replace_schema_metadata(None)
            columns = [as_lists(column) for column in table.columns]
            yield from pa.table(columns, names=table.column_names).to_batches()

    def answer_to(self, table: bytes) -> tuple[bytes, bytes]:
        """A worker's answer to a part of a table in Arrow's stream format."""
        return answer_to(self.here, table)


def as_lists(column: Any) -> Any:
    """The same with lists where they have a fixed size, which Spark does not have."""
    return column.cast(listed(column.type))


def listed(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return pa.list_(listed(kind.value_type))
    return kind


def embedding(spark: Any, folder: str | Path, **options: Any) -> EmbedTable:
    """What the functions below send; its threads are `spark.task.cpus`."""
    require("spark", "pyspark", "pyarrow")
    threads = int(spark.sparkContext.getConf().get("spark.task.cpus", "1"))
    return EmbedTable(folder=str(folder), **{**options, "load": {"threads": threads, **options.get("load", {})}})


def embed_udf(spark: Any, folder: str | Path, **options: Any) -> Any:
    """A function of a column of texts, for DataFrames and, registered, for SQL: `spark.udf.register("embed", ...)`.

    Args:
        spark: a SparkSession.
        folder: that the executors see, or what `ship` gave.
        options: of `EmbedTable`, such as encode={"prompt_name": "query"}.

    Returns:
        A function that gives array<float>.

    Raises:
        MissingDependencyError: if pyspark is not installed.
        UnsupportedOptionError: for another precision than float32, and a model without one vector for each text.
    """
    embed = embedding(spark, folder, **options)
    if embed.precision != "float32":
        raise UnsupportedOptionError(f"precision {embed.precision!r} (have: float32).\nUse embed_table.")
    import pyarrow

    found = Located(embed).here.vectors([])
    if list(found) != [EMBEDDING] or not pyarrow.types.is_floating(found[EMBEDDING].type.value_type):
        raise UnsupportedOptionError(f"{folder}: gives no vectors of one length for each text.\nUse embed_table.")
    from pyspark.sql.functions import arrow_udf
    from pyspark.sql.types import ArrayType, FloatType

    located = Located(embed)

    def embed_texts(texts: pa.Array) -> pa.Array:
        return located.column(texts)

    embed_texts.__annotations__ = {"texts": pyarrow.Array, "return": pyarrow.Array}  # Spark reads them
    return arrow_udf(embed_texts, ArrayType(FloatType()))


def embed_table(frame: Any, folder: str | Path, **options: Any) -> Any:
    """A DataFrame with the columns of the vectors beside its own.

    Args:
        frame: a DataFrame with a column of texts.
        folder: that the executors see, or what `ship` gave.
        options: of `EmbedTable`.

    Raises:
        MissingDependencyError: if pyspark is not installed.
        UnsupportedOptionError: for a column that is not there or has the name of the vectors, and for a precision that
            Spark has no type for.
    """
    import pyarrow as pa
    from pyspark.sql.types import StructType

    located = Located(embedding(frame.sparkSession, folder, **options))
    embed = located.here
    check_column(frame.columns, embed.column)
    names, added = kept_columns(frame.columns, embed.keep), embed.vectors([])
    check_apart(names, added)
    kept = [field for field in frame.schema.fields if field.name in names]
    schema = StructType(kept)
    for name, array in added.items():
        schema = schema.add(name, spark_type(as_lists(array).type, pa))
    return frame.mapInArrow(located.batches, schema)


def spark_type(kind: Any, pa: Any) -> Any:
    """Spark's type for one of Arrow.

    Raises:
        UnsupportedOptionError: if it has none.
    """
    from pyspark.sql import types

    if pa.types.is_list(kind):
        return types.ArrayType(spark_type(kind.value_type, pa))
    if str(kind) not in SPARK_TYPES:
        have = ", ".join(SPARK_TYPES)
        raise UnsupportedOptionError(f"Spark has no type for {kind} (have: {have}).\nUse float32.")
    return getattr(types, SPARK_TYPES[str(kind)])()


def workers(embed: EmbedTable, count: int, address: str | None = None) -> tuple[Callable[[], Worker], int]:
    """Tasks on a cluster, which gets the folder through `addArchive`. Spark itself does a lost task again.

    Args:
        embed: what they do; its threads are `spark.task.cpus`.
        count: how many at once; 1: as many as the cluster has slots for.
        address: the master; None: that of the session which is there, or of Spark's own settings.

    Raises:
        MissingDependencyError: if pyspark is not installed.
        UnsupportedOptionError: if there is no cluster at the address.
    """
    require("spark", "pyspark")
    from pyspark.sql import SparkSession

    if (address or "local").startswith("local") and not os.environ.get("PYSPARK_PYTHON"):
        os.environ["PYSPARK_PYTHON"] = sys.executable  # Spark itself would take the first python3 of the PATH
    builder = SparkSession.builder.appName("sbertconv")
    with reaching("Spark", address):
        spark = (builder.master(address) if address else builder).getOrCreate()
    threads = int(spark.sparkContext.getConf().get("spark.task.cpus", "1"))
    name = embed.name or folder_name(Path(embed.folder))
    load = {**embed.load, "threads": threads}
    located = Located(replace(embed, folder=ship(spark, embed.folder), load=load, name=name))
    able = max(1, spark.sparkContext.defaultParallelism // threads)
    return lambda: Task(spark.sparkContext, located), able if count == 1 else count


class Task:
    """A job of one task for each part, as a worker of a pool."""

    def __init__(self, context: Any, located: Located) -> None:
        self.context = context
        self.run = partial(Located.answer_to, located)

    def __call__(self, table: bytes) -> bytes:
        """Embed one part.

        Raises:
            SbertconvError: of the model; or if Spark has lost the task for good, or is gone itself.
        """
        try:
            (answer,) = self.context.parallelize([table], 1).map(self.run).collect()
        except Exception as error:  # of Py4J, of Spark, or of the connection to it
            raise SbertconvError(f"Spark ended a task: {error_text(error, 3)}\nLook at its log.") from error
        return table_in(answer)

    def close(self) -> None:
        """Nothing to let go: the session is not this worker's."""
