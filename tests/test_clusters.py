"""Ray and Spark on this machine: the vectors are those of one process, a worker is killed, the closure is made late."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COMMAND, TEXTS, run_process, run_python

import sbertconv
from sbertconv import SbertconvError, UnsupportedOptionError
from sbertconv.tables.embedding import EmbedTable
from sbertconv.tables.encoding import TableOptions, embed_tables
from sbertconv.tables.stores import LEDGER

HAS_RAY = importlib.util.find_spec("ray") is not None and importlib.util.find_spec("ray.data") is not None
HAS_SPARK = importlib.util.find_spec("pyspark") is not None and shutil.which("java") is not None
NEEDS_RAY = pytest.mark.skipif(not HAS_RAY, reason='Ray is not installed: pip install "sbertconv[ray]"')
NEEDS_SPARK = pytest.mark.skipif(
    not HAS_SPARK,
    reason='No Spark: pip install "sbertconv[spark]", and Java 17 (apt-get install openjdk-17-jre)',
)
COUNT = 20_000
ENGINE = "onnxruntime"
BATCH = 1000  # rows that Ray and Spark are told to hand over together: other batches have other last bits
pytestmark = pytest.mark.filterwarnings("default")  # theirs


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("cluster-rows")
    texts = [f"{TEXTS[number % len(TEXTS)]} {number}" for number in range(COUNT)]
    table = pa.table({"id": range(COUNT), "text": texts})
    for number in range(2):  # a file for each worker
        rows = table.slice(number * COUNT // 2, COUNT // 2)
        pq.write_table(rows, folder / f"rows-{number}.parquet", row_group_size=BATCH)
    return folder


@pytest.fixture(scope="module")
def due(rows: Path, static_artifact: Path) -> np.ndarray:
    """The vectors of one process, in order."""
    import pyarrow.parquet as pq

    model, texts = sbertconv.load(static_artifact, threads=1, engine=ENGINE), pq.read_table(rows).column("text")
    return np.concatenate([model.encode(texts[start : start + BATCH].to_pylist()) for start in range(0, COUNT, BATCH)])


def output(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != LEDGER}


def in_order(table: Any) -> np.ndarray:
    """The vectors of all rows, which are there once each."""
    table = table.sort_by("id")
    assert table.column("id").to_pylist() == list(range(COUNT))
    return np.array(table.column("embedding").to_pylist(), np.float32)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    import ray.data  # isort: skip

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@NEEDS_RAY
def test_ray_data_gives_the_vectors_of_one_process(
    ray: Any, rows: Path, due: np.ndarray, static_artifact: Path
) -> None:
    import pyarrow as pa

    from sbertconv.ray import Embed, ship

    dataset = ray.data.read_parquet(str(rows), override_num_blocks=2).map_batches(
        Embed,
        fn_constructor_kwargs={"folder": ship(static_artifact), "load": {"engine": ENGINE}},
        batch_format="pyarrow",
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
    )
    table = pa.concat_tables(ray.get(dataset.to_arrow_refs()))
    assert np.array_equal(in_order(table), due)


@NEEDS_RAY
def test_a_killed_actor_is_replaced(ray: Any, rows: Path, static_artifact: Path, tmp_path: Path) -> None:
    from functools import partial

    from sbertconv.ray import workers

    embed, options = (
        EmbedTable(folder=str(static_artifact), load={"threads": 1, "engine": ENGINE}),
        TableOptions(rows_per_file=1000),
    )
    embed_tables(embed, str(rows), tmp_path / "due", options)
    killed: list[Any] = []

    def opening(embed: EmbedTable, count: int) -> Any:
        open_worker, count = workers(embed, count)

        def opened() -> Any:
            worker = open_worker()
            killed.append(worker)
            return worker

        return opened, count

    def kill(summary: Any, part: Any) -> None:
        if summary.rows == 3000:
            ray.kill(killed[0].handle)

    embed_tables(embed, str(rows), tmp_path / "out", options, kill, cluster=partial(opening))
    assert len(killed) == 3
    assert output(tmp_path / "out") == output(tmp_path / "due")


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2,3]").appName("tests").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    session = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH)).getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@NEEDS_SPARK
def test_spark_gives_the_vectors_of_one_process(
    spark: Any, rows: Path, due: np.ndarray, static_artifact: Path, tmp_path: Path
) -> None:
    from sbertconv.spark import embed_table, embed_udf, ship

    frame = spark.read.parquet(str(rows))
    found = embed_table(frame, static_artifact, load={"engine": ENGINE}).toArrow()
    assert np.array_equal(in_order(found), due)
    spark.udf.register("embed", embed_udf(spark, ship(spark, static_artifact), load={"engine": ENGINE}))
    frame.createOrReplaceTempView("rows")
    found = spark.sql("select id, embed(text) as embedding from rows").toArrow()
    assert np.array_equal(in_order(found), due)


@NEEDS_SPARK
def test_a_model_that_has_answered_travels_in_a_closure_of_spark(
    spark: Any, rows: Path, due: np.ndarray, static_artifact: Path
) -> None:
    import pyarrow as pa

    model = sbertconv.load(static_artifact, threads=1, engine=ENGINE)
    model.encode("the first answer, before the closure is made")

    def batches(found: Any) -> Any:
        for batch in found:
            vectors = model.encode(batch.column("text").to_pylist())
            yield pa.record_batch({"id": batch.column("id"), "embedding": pa.array(list(vectors))})

    found = spark.read.parquet(str(rows)).mapInArrow(batches, "id long, embedding array<float>").toArrow()
    assert np.array_equal(in_order(found), due)


LOCAL_CLUSTER = """
import os, sys
os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
import numpy as np
from pyspark.sql import SparkSession
from sbertconv.spark import embed_table, ship
rows, folder, batch, found = sys.argv[1:]
settings = {
    "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
    "spark.executor.memory": "512m", "spark.executorEnv.PYTHONPATH": os.pathsep.join(sys.path),
    "spark.sql.execution.arrow.maxRecordsPerBatch": batch,
}
spark = SparkSession.builder.master("local-cluster[2,1,512]").config(map=settings).getOrCreate()
shipped = ship(spark, folder)
table = embed_table(spark.read.parquet(rows), shipped, load={"engine": "onnxruntime"}).toArrow().sort_by("id")
assert table.column("id").to_pylist() == list(range(len(table)))
np.save(found, np.array(table.column("embedding").to_pylist(), np.float32))
spark.stop()
"""


@NEEDS_SPARK
def test_executors_of_spark_in_processes_of_their_own_get_the_folder_as_an_archive(
    rows: Path, due: np.ndarray, static_artifact: Path, tmp_path: Path
) -> None:
    ran = run_python(LOCAL_CLUSTER, rows, static_artifact, BATCH, tmp_path / "found.npy")
    assert ran.code == 0, ran.err
    assert np.array_equal(np.load(tmp_path / "found.npy"), due)


@NEEDS_SPARK
def test_a_killed_python_worker_of_spark_is_replaced(
    spark: Any, rows: Path, due: np.ndarray, static_artifact: Path, tmp_path: Path
) -> None:
    from sbertconv.spark import Located, embedding

    located, mark = Located(embedding(spark, static_artifact, load={"engine": ENGINE})), str(tmp_path / "killed")

    def batches(found: Any) -> Any:
        for number, table in enumerate(located.batches(found)):
            if number == 3:
                try:
                    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            yield table

    frame = spark.read.parquet(str(rows))
    found = frame.mapInArrow(batches, "id long, text string, embedding array<float>").toArrow()
    assert Path(mark).exists()
    assert np.array_equal(in_order(found), due)


@NEEDS_SPARK
def test_tables_on_spark(spark: Any, rows: Path, static_artifact: Path, tmp_path: Path) -> None:
    from sbertconv.spark import workers

    embed, options = (
        EmbedTable(folder=str(static_artifact), load={"threads": 1, "engine": ENGINE}),
        TableOptions(rows_per_file=4000),
    )
    for name, cluster in {"due": None, "out": workers}.items():
        embed_tables(embed, str(rows), tmp_path / name, options, cluster=cluster)
    assert output(tmp_path / "out") == output(tmp_path / "due")
    asked = replace(embed, encode={"prompt_name": "nope"})
    with pytest.raises(SbertconvError, match="nope"):  # told by a worker, in its own words
        embed_tables(asked, str(rows), tmp_path / "none", options, cluster=workers)


@NEEDS_SPARK
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": ("nothing",)}, "keep='nothing'"),
        ({"column": "nothing"}, "no one column 'nothing'"),
        ({"column": "embedding"}, "has a column 'embedding' already"),
    ],
)
def test_spark_checks_columns_before_a_task_runs(
    options: dict[str, Any], said: str, spark: Any, static_artifact: Path
) -> None:
    from sbertconv.spark import embed_table

    frame = spark.createDataFrame([("a", "b")], ["text", "embedding"])
    with pytest.raises(UnsupportedOptionError, match=said):
        embed_table(frame, static_artifact, **options)


@pytest.mark.parametrize(
    "on", [pytest.param("ray", marks=NEEDS_RAY), pytest.param("spark:local[2]", marks=NEEDS_SPARK)]
)
def test_the_command_on_a_cluster_of_this_machine(on: str, rows: Path, static_artifact: Path, tmp_path: Path) -> None:
    """From a shell that knows of no environment: workers are this Python, and the bytes those of one process."""
    given = [COMMAND, "encode", static_artifact, "--input", rows, "--rows-per-file", 5000, "--engine", ENGINE]
    shell = {"PYSPARK_PYTHON": "", "PYSPARK_DRIVER_PYTHON": "", "RAY_USAGE_STATS_ENABLED": "0"}
    for name, more in {"due": (), "out": ("--on", on, "--workers", 2)}.items():
        ran = run_process(*given, "--output", f"{tmp_path / name}/", "--threads", 1, *more, env=shell)
        assert ran.code == 0, ran.err
    assert output(tmp_path / "out") == output(tmp_path / "due")
