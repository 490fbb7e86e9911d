"""Tables: every format in, every kind of vector out, and nothing lost whatever happens on the way."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import json
import lzma
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COMMAND, TEXTS, snapshot

import sbertconv
from sbertconv import ArtifactError, MissingDependencyError, SbertconvError, UnsupportedOptionError
from sbertconv.runtime.model import ConvertedModel

pa = pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
import fsspec  # noqa: E402
import pyarrow.dataset as pads  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from fsspec.spec import AbstractBufferedFile  # noqa: E402

from sbertconv.tables import reading  # noqa: E402
from sbertconv.tables.embedding import EmbedTable  # noqa: E402
from sbertconv.tables.encoding import TableOptions, embed_tables, ranges_in  # noqa: E402
from sbertconv.tables.ledger import Ledger  # noqa: E402
from sbertconv.tables.reading import Reading, columns_of, find_inputs, schema_of  # noqa: E402
from sbertconv.tables.stores import LEDGER  # noqa: E402
from sbertconv.tables.workers import Process, WorkerDiedError, pooled, reaching  # noqa: E402

ENGINE = "onnxruntime"
ROWS = [{"id": number, "text": text, "title": f"t{number}"} for number, text in enumerate(TEXTS)]
WRITERS: dict[str, Callable[[Path, Any], None]] = {
    "parquet": lambda path, table: pq.write_table(table, path, row_group_size=2),
    "arrow": lambda path, table: write_arrow(path, table, 2),
    "jsonl": lambda path, table: path.write_text(lines(table), encoding="utf-8"),
    "jsonl.gz": lambda path, table: path.write_bytes(gzip.compress(lines(table).encode())),
    "csv": lambda path, table: path.write_text(csv_of(table), encoding="utf-8"),
    "csv.gz": lambda path, table: path.write_bytes(gzip.compress(csv_of(table).encode())),
}


def write_arrow(path: Path, table: Any, size: int) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=size)


def lines(table: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())


def csv_of(table: Any) -> str:
    import csv
    import io

    file = io.StringIO()
    writer = csv.DictWriter(file, table.column_names)
    writer.writeheader()
    writer.writerows(table.to_pylist())
    return file.getvalue()


def numbered(count: int, first: int = 0) -> Any:
    """Rows whose texts differ in words and length."""
    texts = [
        f"{TEXTS[number % len(TEXTS)]} number {number} " * (1 + number % 3) for number in range(first, first + count)
    ]
    return pa.table({"id": range(first, first + count), "text": texts})


def read(folder: Path) -> Any:
    return pads.dataset(folder).to_table()


def vectors_of(table: Any) -> np.ndarray:
    return np.array(table.column("embedding").to_pylist())


def written(folder: Path) -> dict[str, str]:
    """The output's files and their hashes, without the ledger, whose lines may come in another order."""
    return {name: code for name, code in snapshot(folder).items() if name != LEDGER}


@pytest.fixture
def embed(static_artifact: Path) -> EmbedTable:
    return EmbedTable(folder=str(static_artifact), load={"engine": ENGINE})


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_gives_every_column_and_the_vectors_of_encode(
    form: str, embed: EmbedTable, tmp_path: Path
) -> None:
    source = tmp_path / f"rows.{form}"
    WRITERS[form](source, pa.Table.from_pylist(ROWS))
    summary = embed_tables(embed, str(source), tmp_path / "out", TableOptions(rows_per_file=4))
    assert (summary.rows, summary.there, len(list((tmp_path / "out").glob("*.parquet")))) == (6, 0, 2)
    table = read(tmp_path / "out")
    expected = [{**row, "id": str(row["id"])} for row in ROWS] if form.startswith("csv") else ROWS
    assert table.drop(["embedding"]).to_pylist() == expected
    assert np.array_equal(vectors_of(table), embed.model.encode(TEXTS))


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl.gz", "csv"])
@pytest.mark.parametrize("start", range(5))
def test_parts_are_the_same_from_wherever_reading_begins(start: int, form: str, tmp_path: Path) -> None:
    source, table = tmp_path / f"rows.{form}", numbered(1000)
    if form == "parquet":
        pq.write_table(table, source, row_group_size=333)  # the last one has a single row
    elif form == "arrow":
        write_arrow(source, table, 130)
    else:
        WRITERS[form](source, table)
    (file,) = find_inputs([str(source)])
    reading = Reading("text", 250, False, schema_of(file, "text", None))
    whole, rest = list(reading.parts(file)), list(reading.parts(file, start))
    assert [part.number for part in whole] == [0, 1, 2, 3]
    if start < 4:
        assert [(part.number, part.last, part.table) for part in rest] == [
            (part.number, part.last, part.table) for part in whole[start:]
        ]
    else:
        assert [(part.rows, part.last) for part in rest] == [(0, True)]


def test_folders_patterns_and_remote_paths(embed: EmbedTable, tmp_path: Path) -> None:
    import fsspec

    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name, text in {
        "b.txt": "two",
        "a.txt": "one",
        "deep/c.txt": "three",
        "_hidden.txt": "no",
        "x.md": "no",
    }.items():
        (tmp_path / "in" / name).write_text(f"{text}\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"/in: 1 file left out.*/_hidden\.txt\."):
        names = [Path(one.path).name for one in find_inputs([f"{tmp_path}/in"])]
    assert names == ["a.txt", "b.txt", "c.txt"]
    assert [Path(one.path).name for one in find_inputs([f"{tmp_path}/in/b.txt", f"{tmp_path}/in/?.txt"])] == [
        "b.txt",
        "a.txt",
    ]
    with fsspec.open("memory://tables/rows.txt", "wb") as file:
        file.write(b"one\ntwo\n")
    embed_tables(embed, "memory://tables/*.txt", tmp_path / "out")
    assert read(tmp_path / "out").column("text").to_pylist() == ["one", "two"]
    for wrong in (f"{tmp_path}/none/*.txt", f"{tmp_path}/in/x.md", "nosuch://place/rows.txt"):
        with pytest.raises(UnsupportedOptionError, match=wrong.rpartition("/")[2].replace("*", r"\*")):
            find_inputs([wrong])


def test_tables_that_a_folder_leaves_out_are_told(embed: EmbedTable, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = ("a.csv", "_b.csv", ".c/d.csv", "_old/e.jsonl.gz", "_f.txt", "_SUCCESS", "_sbertconv.jsonl", ".a.csv.crc")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text\none\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="left out") as heard:
        embed_tables(embed, folder, tmp_path / "out")
    (said,) = {str(warning.message) for warning in heard}
    assert "4 files left out" in said
    assert said.count(str(folder)) == 4
    assert ", ..." in said
    assert {warning.filename for warning in heard} == {__file__}
    (folder / "a.csv").unlink()
    with pytest.warns(UserWarning, match="left out"), pytest.raises(UnsupportedOptionError, match="no file"):
        find_inputs([str(folder)])
    assert [Path(one.path).name for one in find_inputs([f"{folder}/_b.csv", f"{folder}/.c/*.csv"])] == [
        "_b.csv",
        "d.csv",
    ]


@pytest.mark.parametrize(
    ("precision", "kind", "width"),
    [("float32", "float", 32), ("float16", "halffloat", 32), ("ubinary", "uint8", 4), ("binary", "int8", 4)],
)
def test_precisions_are_lists_of_fixed_size(precision: str, kind: str, width: int, static_artifact: Path) -> None:
    model = sbertconv.load(static_artifact)
    table = EmbedTable(folder=str(static_artifact), precision=precision)(pa.table({"text": TEXTS}))
    kept = table.schema.field("embedding").type
    assert (kept.list_size, str(kept.value_type)) == (width, kind)
    due = model.encode(TEXTS).astype(np.float16) if precision == "float16" else model.encode(TEXTS, precision=precision)
    assert np.array_equal(vectors_of(table), due)


def test_a_folder_that_is_replaced_gives_the_vectors_of_the_new_model(
    static_artifact: Path, bert_artifact: Path, tmp_path: Path
) -> None:
    folder, table = tmp_path / "model", pa.table({"text": TEXTS})
    for artifact in (static_artifact, bert_artifact, static_artifact):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(artifact, folder)
        found = EmbedTable(folder=str(folder), load={"engine": ENGINE})(table)["embedding"].to_pylist()
        np.testing.assert_array_equal(found, EmbedTable(folder=str(artifact))(table)["embedding"].to_pylist())


def test_int8_has_its_ranges_from_a_sample_and_tells_them(static_artifact: Path, tmp_path: Path) -> None:
    pq.write_table(numbered(300), tmp_path / "rows.parquet")
    embed = EmbedTable(folder=str(static_artifact), precision="int8")
    embed_tables(embed, str(tmp_path / "rows.parquet"), tmp_path / "out", TableOptions(rows_per_file=100))
    table = read(tmp_path / "out")
    low, high = (np.array(side, np.float32) for side in json.loads(table.schema.metadata[b"sbertconv"])["ranges"])
    back = (vectors_of(table) + 128.5) * ((high - low) / 255) + low
    due = sbertconv.load(static_artifact).encode(numbered(300).column("text").to_pylist())
    assert np.abs(back - due).max() <= ((high - low) / 255).max()
    (tmp_path / "one.txt").write_text("one\n")
    with pytest.raises(UnsupportedOptionError, match="two texts"):
        embed_tables(embed, str(tmp_path / "one.txt"), tmp_path / "other")


def test_the_schema_names_model_hash_and_prompt(static_artifact: Path) -> None:
    embed = EmbedTable(folder=str(static_artifact), encode={"prompt_name": "query", "truncate_dim": 8})
    table = embed(pa.table({"text": ["one"]}).replace_schema_metadata({"own": "stays"}))
    said = json.loads(table.schema.metadata[b"sbertconv"])
    assert table.schema.metadata[b"own"] == b"stays"
    assert (said["prompt"], said["dimension"], said["precision"]) == ("query: ", 8, "float32")
    assert (len(said["folder_sha256"]), said["model_class"]) == (64, "SentenceTransformer")
    assert table.schema.field("embedding").type.list_size == 8


def test_sparse_vectors_and_vectors_of_tokens(built_once: Any) -> None:
    import class_cases

    def build(case: Callable[[], Any]) -> Callable[[Path], Any]:
        return lambda folder: sbertconv.to_onnx(case(), folder)

    folder = built_once("travel-sparse", build(class_cases.inference_free))
    embed = EmbedTable(folder=str(folder), encode={"task": "document"})
    table = embed(pa.table({"text": [*TEXTS, None]}))
    rows = embed.model.rows(TEXTS, task="document")
    for name, attribute in {"embedding_indices": "columns", "embedding_values": "values"}.items():
        *found, last = table.column(name).to_pylist()
        assert last is None
        assert all(np.array_equal(one, getattr(row, attribute)) for one, row in zip(found, rows, strict=True))


def test_a_text_is_embedded_once_and_a_null_not_at_all(embed: EmbedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    run = ConvertedModel._run
    monkeypatch.setattr(
        ConvertedModel, "_run", lambda self, items, *rest: asked.extend(items) or run(self, items, *rest)
    )
    table = embed(pa.table({"text": ["a", None, "b", "a", "b", "a"]}))
    found = table.column("embedding").to_pylist()
    assert asked == ["a", "b"]
    assert found[1] is None
    assert found[0] == found[3] == found[5] != found[2] == found[4]


def test_tables_without_rows_have_the_columns(embed: EmbedTable) -> None:
    for texts in ([], [None, None]):
        table = embed(pa.table({"text": pa.array(texts, pa.string())}))
        assert (table.num_rows, table.schema.field("embedding").type.list_size) == (len(texts), 32)


zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

BAD = '{"id": 1, "text": "one"}\nnone\n{"id": 2, "text": null}\n{"id": "x", "text": "two"}\n{"id": 3, "text": 4}\n[]\n'


def test_a_table_of_nothing_but_a_bad_row_says_what_is_wrong_with_it(embed: EmbedTable, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("none\n", encoding="utf-8")
    with pytest.raises(UnsupportedOptionError, match=r"rows\.jsonl, row 0: not JSON"):
        embed_tables(embed, str(tmp_path / "rows.jsonl"), tmp_path / "out")


def test_bad_rows_are_told_with_file_and_row(embed: EmbedTable, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": 0, "text": "zero"}\n' * 1000 + BAD, encoding="utf-8")
    source, out = str(tmp_path / "rows.jsonl"), tmp_path / "out"
    with pytest.raises(UnsupportedOptionError, match=r"rows\.jsonl, row 1001: not JSON"):
        embed_tables(embed, source, out, TableOptions(nulls="error"))
    summary = embed_tables(embed, source, out, TableOptions(nulls="error", on_error="skip"))
    assert [bad.row for _, bad in summary.bad] == [1001, 1002, 1003, 1004, 1005]
    assert read(out).column("id").to_pylist() == [0] * 1000 + [1]
    kept = embed_tables(embed, source, tmp_path / "other", TableOptions(on_error="skip"))
    assert 1002 not in [bad.row for _, bad in kept.bad]
    assert read(tmp_path / "other").column("embedding").null_count == 1


def test_a_broken_file_in_the_middle_is_done_when_it_is_mended(embed: EmbedTable, tmp_path: Path) -> None:
    source, options = str(tmp_path / "in"), TableOptions(rows_per_file=500)
    (tmp_path / "in").mkdir()
    whole = gzip.compress(lines(numbered(4000)).encode())
    for name in ("a", "b", "c"):
        (tmp_path / "in" / f"{name}.jsonl.gz").write_bytes(whole)
    embed_tables(embed, source, tmp_path / "due", options)
    broken = tmp_path / "in" / "b.jsonl.gz"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsupportedOptionError, match=r"b\.jsonl\.gz: cannot be read"):
        embed_tables(embed, source, tmp_path / "out", options)
    summary = embed_tables(embed, source, tmp_path / "out", TableOptions(rows_per_file=500, on_error="skip"))
    readable = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(broken.read_bytes()).count(b"\n")
    assert list(summary.broken) == [str(broken)]
    assert summary.there == 4000 + readable // 500 * 500  # the first file, and the whole parts of the broken one
    assert summary.rows == 4000 + readable % 500
    assert len(read(tmp_path / "out")) == 8000 + readable
    broken.write_bytes(whole)
    summary = embed_tables(embed, source, tmp_path / "out", options)
    assert (summary.rows, summary.there) == (4000, 8000)
    assert written(tmp_path / "out") == written(tmp_path / "due")


def test_a_second_run_does_what_is_missing_and_refuses_other_arguments(embed: EmbedTable, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(numbered(1000), tmp_path / "in" / "a.parquet", row_group_size=300)
    options = TableOptions(rows_per_file=256)
    assert embed_tables(embed, str(tmp_path / "in"), tmp_path / "out", options).rows == 1000
    before = snapshot(tmp_path / "out")
    pq.write_table(numbered(10, 1000), tmp_path / "in" / "b.parquet")
    summary = embed_tables(embed, str(tmp_path / "in"), tmp_path / "out", options)
    assert (summary.rows, summary.there) == (10, 1000)
    after = snapshot(tmp_path / "out")
    assert {name: after[name] for name in before if name != LEDGER} == {
        name: code for name, code in before.items() if name != LEDGER
    }
    other = EmbedTable(folder=embed.folder, precision="float16")
    with pytest.raises(UnsupportedOptionError, match=r"(?s)precision: 'float32' then, 'float16' now.*another folder"):
        embed_tables(other, str(tmp_path / "in"), tmp_path / "out", options)
    with (
        Ledger(tmp_path / "out", json.loads((tmp_path / "out" / LEDGER).read_text().splitlines()[0])["arguments"]),
        pytest.raises(UnsupportedOptionError, match="another run writes"),
    ):
        embed_tables(embed, str(tmp_path / "in"), tmp_path / "out", options)


def command(folder: Path, source: Path, out: Path, *more: Any) -> list[str]:
    paths = [str(COMMAND), "encode", folder, "--input", f"{source}/*.parquet", "--output", f"{out}/"]
    return [str(part) for part in [*paths, "--rows-per-file", "500", "--threads", "1", "--engine", ENGINE, *more]]


@pytest.fixture
def many_rows(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for file in range(4):
        pq.write_table(numbered(5000, 5000 * file), folder / f"rows-{file}.parquet", row_group_size=1200)
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_nothing_is_lost(
    workers: int, bert_artifact: Path, many_rows: Path, tmp_path: Path
) -> None:
    """The main process; its workers then end by themselves."""
    embed = EmbedTable(folder=str(bert_artifact), load={"threads": 1, "engine": ENGINE})
    embed_tables(embed, f"{many_rows}/*.parquet", tmp_path / "due", TableOptions(rows_per_file=500))
    moments, out = random.Random(workers), tmp_path / "out"
    for _ in range(3):
        ledger = out / LEDGER
        size = ledger.stat().st_size if ledger.exists() else 0
        goal = size + moments.randrange(1, 2500)
        started = command(bert_artifact, many_rows, out, "--threads", workers, "--workers", workers)
        running = subprocess.Popen(started, stderr=subprocess.DEVNULL)
        while running.poll() is None and (not ledger.exists() or ledger.stat().st_size < goal):
            os.sched_yield()
        running.send_signal(signal.SIGKILL)
        running.wait()
    done = subprocess.run(command(bert_artifact, many_rows, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " were there" in done.stderr
    assert written(out) == written(tmp_path / "due")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of this kind")
def test_a_full_disk_is_told_and_the_next_run_goes_on(static_artifact: Path, many_rows: Path, tmp_path: Path) -> None:
    import resource

    embed = EmbedTable(folder=str(static_artifact), load={"engine": ENGINE})
    embed_tables(embed, f"{many_rows}/*.parquet", tmp_path / "due", TableOptions(rows_per_file=500))
    limit = 4000  # the ledger fits for a while, and no part

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    full = subprocess.run(
        command(static_artifact, many_rows, tmp_path / "out"),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small,
    )
    assert (full.returncode, "cannot be written: File too large" in full.stderr) == (1, True), full.stderr
    assert not [name for name in written(tmp_path / "out") if name.endswith(".partial")]
    assert (
        embed_tables(embed, f"{many_rows}/*.parquet", tmp_path / "out", TableOptions(rows_per_file=500)).rows == 20000
    )
    assert written(tmp_path / "out") == written(tmp_path / "due")


def test_a_killed_worker_is_replaced_and_its_part_done_again(
    bert_artifact: Path, many_rows: Path, tmp_path: Path
) -> None:
    psutil = pytest.importorskip("psutil")
    embed = EmbedTable(folder=str(bert_artifact), load={"threads": 2, "engine": ENGINE})
    alone = EmbedTable(folder=str(bert_artifact), load={"threads": 1, "engine": ENGINE})
    source = str(many_rows / "rows-0.parquet")
    embed_tables(alone, source, tmp_path / "due", TableOptions(rows_per_file=500))
    killed: list[int] = []

    def kill(summary: Any, part: Any) -> None:
        if len(killed) < 2:
            child = psutil.Process().children()[-1]
            killed.append(child.pid)
            child.kill()

    embed_tables(embed, source, tmp_path / "out", TableOptions(rows_per_file=500, workers=2), kill)
    assert len(killed) == 2
    assert written(tmp_path / "out") == written(tmp_path / "due")
    assert not [child for child in psutil.Process().children() if child.pid in killed]


def test_a_part_that_kills_every_worker_ends_the_run(embed: EmbedTable, many_rows: Path) -> None:
    class Dying(Process):
        def __call__(self, table: bytes) -> bytes:
            self.process.kill()
            return super().__call__(table)

    reading = Reading("text", 100, False, numbered(1).schema)
    parts = reading.parts(find_inputs([str(many_rows)])[0])
    with pytest.raises(WorkerDiedError, match="ended with -9"):
        list(pooled(parts, lambda: Dying(embed), 2))


def test_the_error_of_a_worker_is_that_of_the_run(static_artifact: Path, many_rows: Path, tmp_path: Path) -> None:
    embed = EmbedTable(folder=str(static_artifact), load={"threads": 2, "engine": ENGINE})
    (tmp_path / "other.parquet").write_bytes((many_rows / "rows-0.parquet").read_bytes())
    parts = Reading("text", 100, False, numbered(1).schema).parts(find_inputs([str(tmp_path / "other.parquet")])[0])
    wrong = EmbedTable(folder=embed.folder, column="body")
    with pytest.raises(UnsupportedOptionError, match="no one column 'body'"):
        list(pooled(parts, lambda: Process(wrong), 1))


def test_ten_million_rows_of_ten_thousand_files_go_through_the_ledger_in_little_memory(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    table = pa.table({"id": range(1000), "text": ["a"] * 1000})
    (tmp_path / "in").mkdir()
    with pa.ipc.new_file(str(tmp_path / "rows.arrow"), table.schema) as writer:
        writer.write_table(table)
    for number in range(10_000):
        os.link(tmp_path / "rows.arrow", tmp_path / "in" / f"{number:05d}.arrow")
    files = find_inputs([str(tmp_path / "in")])
    reading, process, rows, held = Reading("text", 8192, False, table.schema), psutil.Process(), 0, 0
    with Ledger(tmp_path / "out", {}) as ledger:
        ledger.begin({"arguments": {}})
        (tmp_path / "out/name").touch()
        for number, file in enumerate(files):
            ledger.done(file)
            for part in reading.parts(file):
                ledger.add(part, "name")
                rows += part.rows
            if number == 1000:
                held = process.memory_info().rss
    assert rows == 10_000_000
    assert process.memory_info().rss - held < 30 << 20
    with Ledger(tmp_path / "out", {}) as again:
        assert again.rows == rows
        assert all(again.done(file).complete for file in files)


def test_the_command_keeps_columns_and_tells_what_it_did(cli: Any, static_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "in" / "rows.parquet")
    given = ["encode", static_artifact, "--input", tmp_path / "in", "--output", f"{tmp_path}/out/", "--keep", "id"]
    first = cli(*given, "--output-format", "arrow", "--embedding-precision", "float16")
    assert (first.code, first.out) == (0, ""), first.err
    assert "6 rows of 1 files" in first.err
    table = pads.dataset(tmp_path / "out", format="ipc").to_table()
    assert table.column_names == ["id", "embedding"]
    again = cli(*given, "--output-format", "arrow", "--embedding-precision", "float16")
    assert "0 rows of 1 files" in again.err
    assert "6 were there" in again.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--input", "{in}"], "need a folder for their output"),
        (["--input", "{in}", "--output", "-"], "need a folder for their output"),
        (["--input", "{in}/*.parquet", "--output", "{in}/rows.npy"], "Name a folder"),
        (["--input", "{in}/rows.parquet", "--keep", "id"], "--keep: only tables have it"),
        (["--input", "{in}", "--output", "{out}/", "--keep", "nope"], "no such column"),
        (["--input", "{in}", "--output", "{out}/", "--column", "id"], "is int64 (have: text"),
        (["--input", "{in}", "--output", "{out}/", "--nulls", "maybe"], "have: null, error"),
        (["--input", "{in}", "--output", "{out}/", "--on", "moon"], "have: ray, spark"),
        (["--input", "{in}", "--output", "{out}/", "--embedding-precision", "int4"], "have: float32, float16"),
        (["--input", "{in}", "--output", "{out}/", "--max-active-dims", "3"], "has no such option"),
    ],
)
def test_what_cannot_be_is_said(
    given: list[str], message: str, cli: Any, static_artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "in" / "rows.parquet")
    places = {"in": tmp_path / "in", "out": tmp_path / "out"}
    ran = cli("encode", static_artifact, *(part.format(**places) for part in given))
    assert (ran.code, message in ran.err) == (1, True), ran.err


def test_a_part_whose_file_was_removed_is_done_again(static_artifact: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out"
    source.write_text("text\none\ntwo\nthree\n", encoding="utf-8")
    embed, options = EmbedTable(folder=str(static_artifact)), TableOptions(rows_per_file=1)
    embed_tables(embed, str(source), output, options)
    sorted(output.glob("*.parquet"))[1].unlink()
    assert embed_tables(embed, str(source), output, options).rows == 1
    assert len(list(output.glob("*.parquet"))) == 3


@pytest.mark.parametrize(
    "line",
    ["7", '{"file": 1}', '{"file": "a", "part": 0, "rows": null, "last": true, "stamp": [1, ""], "output": null}',
     '{"file": "a", "part": 0, "rows": 1, "last": true, "stamp": [1, ""], "output": "../a"}'],
)  # fmt: skip
def test_a_ledger_that_no_run_wrote_is_one_error(line: str, static_artifact: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out"
    source.write_text("text\none\n", encoding="utf-8")
    embed = EmbedTable(folder=str(static_artifact))
    embed_tables(embed, str(source), output, TableOptions())
    with (output / "_sbertconv.jsonl").open("a") as ledger:
        ledger.write(line + "\n")
    with pytest.raises(SbertconvError, match=r"_sbertconv\.jsonl: (not as it should be|the path)"):
        embed_tables(embed, str(source), output, TableOptions())


@pytest.mark.parametrize("place", ["out", ".", "x/../out"], ids=["below the inputs", "beside them", "spelt otherwise"])
def test_what_a_run_wrote_is_no_input_of_the_next(place: str, embed: EmbedTable, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    (tmp_path / "x").mkdir()
    for there in (0, 2, 2):
        summary = embed_tables(embed, str(tmp_path), tmp_path / place)
        assert (summary.files, summary.there, summary.rows + summary.there) == (1, there, 2)
    with pytest.raises(UnsupportedOptionError, match="every input is a part that an earlier run wrote"):
        embed_tables(embed, f"{tmp_path / place}/*.parquet", tmp_path / place)


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.txt", "deep/b.txt"):
        (tmp_path / name).write_text("one\n", encoding="utf-8")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("deep"))
    with pytest.raises(UnsupportedOptionError, match=r"cannot be read: .*deep: permission denied"):
        find_inputs([str(tmp_path)])


@pytest.mark.parametrize(
    "ranges",
    [[[], []], [[0.0]], [[1.0, 2.0], [3.0]], [[float("nan")], [1.0]], [[0.0], [float("inf")]], [[1.0], [0.0]], "ab",
     [[10**400], [10**401]], [["a"], ["b"]], {"a": 1}, 7],
)  # fmt: skip
def test_ranges_that_no_sample_gives_are_one_error(ranges: Any) -> None:
    with pytest.raises(UnsupportedOptionError, match="ranges"):
        ranges_in({"ranges": ranges}, "ledger")
    assert ranges_in({"ranges": [[-1.0, 0.0], [1, 0.0]]}, "ledger") == ((-1.0, 0.0), (1, 0.0))


def parts_of(folder: Path, size: int = 3, keep: Any = None) -> tuple[list[Any], dict[str, Any], str]:
    """The texts of a folder, the bad rows by file, and the reason of a break, all in order."""
    sources = find_inputs([str(folder)])
    reading = Reading("text", size, False, columns_of(sources, "text", keep, skip=True), keep is None)
    texts: list[Any] = []
    bad: dict[str, Any] = {}
    for source in sources:
        try:
            for part in reading.parts(source):
                texts += part.table.column("text").to_pylist()
                bad |= {Path(source.path).name: [one.row for one in part.bad]} if part.bad else {}
        except UnsupportedOptionError as error:
            return texts, bad, str(error)
    return texts, bad, ""


# What stands in a folder -> its texts, and its bad rows
ROWS_OF_FILES: dict[str, tuple[dict[str, bytes], list[str], dict[str, list[int]]]] = {
    "a line that is not UTF-8": ({"a.txt": b"b\ncaf\xe9\nd\n"}, ["b", "d"], {"a.txt": [1]}),
    "a cell that is not": ({"a.csv": b"id,text\n1,b\n2,caf\xe9\n3,d\n"}, ["b", "d"], {"a.csv": [1]}),
    "an object that is not": ({"a.jsonl": b'"b"\n"caf\xe9"\n"d"\n'}, ["b", "d"], {"a.jsonl": [1]}),
    "names alone": ({"a.csv": b"text\n", "b.csv": b"text\nb\n"}, ["b"], {}),
    "an empty file first": ({"a.jsonl": b"", "b.csv": b"text,id\nb,1\n"}, ["b"], {}),
    "a mark and no line": ({"a.txt": b"\xef\xbb\xbf", "b.txt": b"\xef\xbb\xbfb\n"}, ["b"], {}),
    "a broken file first": ({"a.parquet": b"none", "b.txt": b"b\n"}, [], {}),
    "two frames of zstd": ({"a.txt.zst": zstd.compress(b"b\n") + zstd.compress(b"d\n")}, ["b", "d"], {}),
}


@pytest.mark.parametrize("name", ROWS_OF_FILES)
def test_rows_are_read_whatever_stands_beside_them(name: str, tmp_path: Path) -> None:
    files, texts, bad = ROWS_OF_FILES[name]
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    found = parts_of(tmp_path)
    assert found[:2] == (texts, bad)
    assert bool(found[2]) == ("broken" in name)


@pytest.mark.parametrize("ending", ["txt.gz", "txt.zst", "parquet"])
def test_the_parts_before_a_break_are_whole(ending: str, tmp_path: Path) -> None:
    """Fewer rows than a part must not count as one: another run goes on behind it, and the file may be whole then."""
    random, rows = np.random.default_rng(0), 40_000
    lines = [f"row {number} {random.integers(1 << 60)}" for number in range(rows)]
    file = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"text": lines}), file, row_group_size=4_000, use_dictionary=False, compression=None)
        content = bytearray(file.read_bytes())
        middle = content.index(lines[rows // 2].encode())
        content[middle - 4 : middle + 1000] = bytes(1004)  # lengths of texts, so that they lie outside of it
    else:
        packed = {"gz": gzip, "zst": zstd}[ending[4:]].compress("".join(f"{line}\n" for line in lines).encode())
        content = bytearray(packed[: len(packed) // 2])
    file.write_bytes(content)
    texts, _, reason = parts_of(tmp_path, size=3_000)
    assert "cannot be read" in reason
    assert len(texts) > rows // 4
    assert len(texts) % 3_000 == 0
    assert texts == lines[: len(texts)]


def test_files_of_zstd_need_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.zst").write_bytes(zstd.compress(b"b\n"))
    monkeypatch.delitem(fsspec.utils.compressions, "zst")
    monkeypatch.setattr("sbertconv.errors.is_installed", lambda package: package != "backports.zstd")
    with pytest.raises(MissingDependencyError, match=r"backports\.zstd"):
        parts_of(tmp_path)


def test_columns_of_later_files_are_none_that_vanish(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [2], "text": ["b"], "more": [0]}), tmp_path / "b.parquet")
    texts, _, reason = parts_of(tmp_path)
    assert texts == ["a"]
    assert "'more' is none of the columns" in reason
    assert parts_of(tmp_path, keep=("id",))[::2] == (["a", "b"], "")


@pytest.mark.parametrize(
    ("late", "texts", "bad", "reason"),
    [
        ({"b.csv": b"id,Text\n2,b\n"}, ["a"], {}, "has no one column text"),
        ({"b.csv": b"2,b\n"}, ["a"], {}, "has no one column id, text"),
        ({"b.jsonl": b'{"id": "2", "Text": "b"}\n{"id": "3", "text": null}\n'}, ["a", None], {"b.jsonl": [0]}, ""),
    ],
    ids=["another name", "no names", "another key"],
)
def test_a_later_file_without_the_texts_gives_no_rows_without_text(
    late: dict[str, bytes], texts: list[Any], bad: dict[str, list[int]], reason: str, tmp_path: Path
) -> None:
    for name, content in {"a.csv": b"id,text\n1,a\n", **late}.items():
        (tmp_path / name).write_bytes(content)
    for keep in (None, ("id",)):
        found = parts_of(tmp_path, keep=keep)
        assert found[:2] == (texts, bad)
        assert reason in found[2]


def test_a_file_is_read_once_however_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one\n", encoding="utf-8")
    (tmp_path / "c.txt").symlink_to("a.txt")
    file = tmp_path / "a.txt"
    named = [str(file), f"file://{file}", f"{tmp_path}/x/../a.txt", f"{tmp_path}//a.txt", str(tmp_path)]
    assert [Path(one.path).name for one in find_inputs(named)] == ["a.txt", "b.txt", "c.txt"]


@pytest.mark.parametrize(
    "spelt",
    ["{at}/./in", "{at}//in", "{at}/in/../in", "{at}/link", "file://{at}/in", "simplecache::file://{at}/in/a.txt"],
)
def test_a_file_is_the_same_to_the_next_run_however_it_is_named(spelt: str, embed: EmbedTable, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("one\ntwo\n", encoding="utf-8")
    (tmp_path / "link").symlink_to("in")
    for first, then in ((f"{tmp_path}/in", spelt.format(at=tmp_path)), (spelt.format(at=tmp_path), f"{tmp_path}/in")):
        output = tmp_path / f"out{len(first)}"
        assert embed_tables(embed, first, output, TableOptions(rows_per_file=1)).rows == 2
        files = snapshot(output)
        min(output.glob("*.parquet")).unlink()
        assert embed_tables(embed, then, output, TableOptions(rows_per_file=1)).rows == 1
        assert written(output) == {name: code for name, code in files.items() if name != LEDGER}


def test_a_ledger_may_name_a_file_in_another_way(embed: EmbedTable, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    embed_tables(embed, f"{tmp_path}/a.txt", tmp_path / "out")
    ledger = tmp_path / "out" / LEDGER
    begun = ledger.read_text(encoding="utf-8")
    for name in (f"file://{tmp_path}/a.txt", f"{tmp_path}/x/..//a.txt"):
        ledger.write_text(begun.replace(f"{tmp_path}/a.txt", name), encoding="utf-8")
        assert embed_tables(embed, f"{tmp_path}/a.txt", tmp_path / "out").there == 2
    for wrong in ("\\u0000", "\\ud800", ""):
        ledger.write_text(begun.replace(f"{tmp_path}/a.txt", wrong), encoding="utf-8")
        assert embed_tables(embed, f"{tmp_path}/a.txt", tmp_path / "out").there == 0


def test_files_that_were_moved_are_not_embedded_again_in_silence(embed: EmbedTable, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a.txt").write_text("one\ntwo\n", encoding="utf-8")
    embed_tables(embed, f"{tmp_path}/old", tmp_path / "out")
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(UnsupportedOptionError, match=r"new/a\.txt: has the name, .* of .*old/a\.txt, .*twice"):
        embed_tables(embed, f"{tmp_path}/new", tmp_path / "out")
    (tmp_path / "old").symlink_to("new")
    for name in ("old", "new"):
        summary = embed_tables(embed, f"{tmp_path}/{name}", tmp_path / "out")
        assert (summary.there, summary.rows) == (2, 0)
    (tmp_path / "next").mkdir()
    (tmp_path / "next/a.txt").write_text("three\n", encoding="utf-8")
    (tmp_path / "old").unlink()
    (tmp_path / "old").symlink_to("next")  # as a link called "latest" is: what it led to before is no more in it
    assert embed_tables(embed, f"{tmp_path}/old", tmp_path / "out").rows == 1
    assert read(tmp_path / "out").column("text").to_pylist() == ["three"]


def test_a_name_that_chains_addresses_is_that_file(memory: Any, tmp_path: Path) -> None:
    for name in ("a.txt", "a.txt::b.txt"):
        (tmp_path / name).write_text(f"{name}\n", encoding="utf-8")
    assert parts_of(tmp_path) == (["a.txt", "a.txt::b.txt"], {}, "")
    memory.pipe_file("/in/a.txt::b.txt", b"one\n")
    with pytest.raises(UnsupportedOptionError, match=r"b\.txt: has '::' in its name"):
        find_inputs(["memory://in"])


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_break_that_passes_costs_no_row(
    on_error: str, embed: EmbedTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails once in the middle of a file, which is the same one afterwards."""
    source = tmp_path / "a.txt"
    source.write_text("".join(f"row {number}\n" for number in range(1000)), encoding="utf-8")
    plain, opened = reading.bounded_lines, count()

    def failing(file: Any) -> Any:
        fails = next(opened) > 0  # not while its columns are asked for
        for number, line in enumerate(plain(file)):
            if fails and number == 250:
                raise OSError("the connection was lost")
            yield line

    options, due = TableOptions(rows_per_file=100, on_error=on_error), [f"row {number}" for number in range(1000)]
    refused = pytest.raises(UnsupportedOptionError, match="the connection was lost")
    with monkeypatch.context() as patch:
        patch.setattr(reading, "bounded_lines", failing)
        with refused if on_error == "fail" else contextlib.nullcontext():
            embed_tables(embed, str(source), tmp_path / "out", options)
    before = 200 if on_error == "fail" else 250
    assert read(tmp_path / "out").column("text").to_pylist() == due[:before]
    summary = embed_tables(embed, str(source), tmp_path / "out", options)
    assert (summary.there, summary.rows) == (200, 800)
    assert read(tmp_path / "out").column("text").to_pylist() == due


# What a later file has in the column x, after the first one, and what is said of it
MORE_THAN_THE_FIRST: dict[str, tuple[pa.Array, pa.Array, str]] = {
    "a field of a struct": (pa.array([{"a": 1}]), pa.array([{"a": 1, "b": 2}]), "struct<a: int64> of the first"),
    "a wider number": (pa.array([1.5], pa.float32()), pa.array([1e300]), "double that float of the first"),
    "digits": (pa.array([1.5], pa.float32()), pa.array([[0.1]]).flatten(), "double that float of the first"),
    "a time": (pa.array([date(2020, 1, 1)]), pa.array([datetime(2020, 1, 1, 5)]), "that date32"),
    "a number": (pa.array([True]), pa.array([7]), "int64 that bool"),
    "text, and no type yet": (pa.nulls(1), pa.array(["late"]).dictionary_encode(), "that null of the first"),
    "digits of text": (pa.array([1.5], pa.float32()), pa.array(["16777217"]), "that float of the first"),
    "an inner list": (pa.array([[{"a": 1}]]), pa.array([[{"a": 1, "b": 2}]]), "of the first file cannot hold"),
}


@pytest.mark.parametrize("name", MORE_THAN_THE_FIRST)
def test_a_later_file_with_more_than_the_first_holds_is_a_broken_one(name: str, tmp_path: Path) -> None:
    first, second, said = MORE_THAN_THE_FIRST[name]
    for number, column in enumerate((first, second)):
        pq.write_table(pa.table({"text": ["b"], "x": column}), tmp_path / f"{number}.parquet")
    assert said in parts_of(tmp_path)[2]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([1.5]), pa.array([float("nan"), 0.5], pa.float32())),
        (pa.array([{"a": 1, "b": 2}]), pa.array([{"a": 1}])),
        (pa.array([1.5]), pa.array([1, None])),
        (pa.array(["1"]), pa.array(["1", "2"]).dictionary_encode()),
        (pa.array([1]), pa.array([None, None])),
        (pa.array([1.5], pa.float32()), pa.array(["0.5", "nan"])),
    ],
    ids=str,
)
def test_a_later_file_of_a_narrower_type_is_read(first: pa.Array, second: pa.Array, tmp_path: Path) -> None:
    for number, column in enumerate((first, second)):
        pq.write_table(pa.table({"text": ["b"] * len(column), "x": column}), tmp_path / f"{number}.parquet")
    texts, _, reason = parts_of(tmp_path)
    assert (len(texts), reason) == (1 + len(second), "")


def test_columns_of_one_name_may_be_left_out(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], ["a"], ["x"], ["y"]], names=["id", "text", "x", "x"]), tmp_path / "a.parquet")
    assert parts_of(tmp_path, keep=("id",)) == (["a"], {}, "")
    with pytest.raises(UnsupportedOptionError, match="several columns are called 'x'"):
        parts_of(tmp_path)


@pytest.mark.parametrize("nulls", [{"b": None}, [None], {"b": None, "c": 1}, [{"b": None}]])
def test_columns_that_hold_a_type_of_nulls_are_read_in_any_parts(nulls: Any, tmp_path: Path) -> None:
    table = pa.table({"text": [f"{row}" for row in range(20)], "nulls": [nulls] * 20})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    for size in (3, 7, 8, 20):
        assert parts_of(tmp_path, size) == (table.column("text").to_pylist(), {}, "")


def test_an_interrupt_at_the_terminal_is_not_for_the_workers(static_artifact: Path) -> None:
    worker = Process(EmbedTable(folder=str(static_artifact)))
    try:
        assert os.getpgid(worker.process.pid) != os.getpgrp()
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("first", "late", "said"),
    [
        ({}, {"late": 1}, "'late' is none of the columns"),
        ({"x": {"a": 1}}, {"x": {"a": 1, "late": 2}}, "'late' is none of the columns"),
        ({"x": [{"a": 1}]}, {"x": [{"late": 2}]}, "'late' is none of the columns"),
        ({"x": 2}, {"x": 2.5}, "2.5 in a column of int64"),
        ({"x": [1]}, {"x": [1, 1.9]}, "1.9 in a column of int64"),
        ({"x": 2.5}, {"x": True}, "True in a column of double"),
    ],
)
def test_a_line_of_json_that_the_columns_do_not_hold_is_a_bad_row(
    first: dict[str, Any], late: dict[str, Any], said: str, static_artifact: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    lines = [{"text": "one", **first}] * 1000 + [{"text": "two", **late}, {"text": "three"}]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    embed = EmbedTable(folder=str(static_artifact))
    with pytest.raises(UnsupportedOptionError, match=f"row 1000: {re.escape(said)}"):
        embed_tables(embed, str(source), tmp_path / "out", TableOptions())
    kept = EmbedTable(folder=str(static_artifact), keep=("text",))
    assert embed_tables(kept, str(source), tmp_path / "kept", TableOptions()).rows == 1002


@pytest.mark.parametrize("ending", ["arrow", "csv.xz", "csv.gz", "csv"])
def test_a_broken_file_is_one_error_whatever_breaks(ending: str, static_artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / f"in.{ending}"
    if ending == "arrow":  # the end of the second text lies outside of the buffer
        with pa.ipc.new_file(source, pa.schema([("text", pa.string())])) as out:
            out.write_table(pa.table({"text": ["one", "two"]}))
        ends, beyond = (np.array(places, np.int32).tobytes() for places in ([0, 3, 6], [0, 3, 2**20]))
        assert ends in source.read_bytes()
        source.write_bytes(source.read_bytes().replace(ends, beyond))
    else:
        packed = {"csv.xz": lzma.compress, "csv.gz": gzip.compress}.get(ending, bytes)
        content = bytearray(packed(b"text\n" + b"one\n" * 500) if ending != "csv" else b'"text\none\n')
        content[len(content) // 2] ^= 0xFF if ending != "csv" else 0
        source.write_bytes(content)
    with pytest.raises(UnsupportedOptionError, match=r"in\..*"):
        embed_tables(EmbedTable(folder=str(static_artifact)), str(source), tmp_path / "out", TableOptions())


ODD: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a name that is no text": ("{here}/caf\udce9.csv", "{here}/out", {}, "is not UTF-8"),
    "a file system that raises what it likes": ("data:text/csv,text", "{here}/out", {}, "cannot be read"),
    "one that lacks what it needs": ("reference://x.csv", "{here}/out", {}, "cannot be read"),
    "an output with a null": ("{here}/in.csv", "{here}/a\0b", {}, "cannot be opened"),
    "a store that is not there": ("{here}/in.csv", "ftp://127.0.0.1:9/x", {}, "cannot be opened"),
    "a store that writes nothing": ("{here}/in.csv", "data://x", {}, "cannot be"),
    "a store that wants more": ("{here}/in.csv", "reference://x", {}, "cannot be"),
    "half a character": ("{here}/in.csv", "{here}/out", {"prompt": "a\udc80"}, "half of a surrogate pair"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_inputs_and_outputs_are_one_error(name: str, static_artifact: Path, tmp_path: Path) -> None:
    source, output, encode, said = ODD[name]
    for file in ("in.csv", "caf\udce9.csv"):
        (tmp_path / file).write_text("text\na\n", encoding="utf-8")
    embed = EmbedTable(folder=str(static_artifact), encode=encode)
    with pytest.raises(UnsupportedOptionError, match=said):
        embed_tables(embed, source.format(here=tmp_path), output.format(here=tmp_path), TableOptions())
    assert not (tmp_path / "out").exists()


def test_a_file_that_has_the_name_of_a_pattern_is_that_file(static_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("text\na\n", encoding="utf-8")
    (tmp_path / "a1.csv").write_text("text\nb\nc\n", encoding="utf-8")
    embed = EmbedTable(folder=str(static_artifact))
    assert embed_tables(embed, str(tmp_path / "a[1].csv"), tmp_path / "out", TableOptions()).rows == 1


def test_links_are_the_files_that_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/a.csv").write_text("text\none\n", encoding="utf-8")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.csv").symlink_to(tmp_path / "far/a.csv")
    (folder / "loop").symlink_to(".")
    (found,) = find_inputs([str(folder)])
    assert (Path(found.path).name, found.size) == ("link.csv", 9)
    assert [Path(one.path).name for one in find_inputs([f"{folder}/*.csv"])] == ["link.csv"]


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_no_file_is_no_input_that_is_passed_over(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\none\n", encoding="utf-8")
    if kind == "pipe":
        os.mkfifo(tmp_path / "b.csv")
    else:
        (tmp_path / "b.csv").symlink_to("nowhere")
    with pytest.raises(UnsupportedOptionError, match=r"b\.csv: is no file"):
        find_inputs([str(tmp_path)])


@pytest.fixture
def memory() -> Any:
    """A store without appending, renaming and locks, as object stores are."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    return system


def stored(system: Any, root: str) -> dict[str, bytes]:
    return {path.removeprefix(f"{root}/"): system.cat_file(path) for path in system.find(root) if LEDGER not in path}


def test_a_store_gets_the_same_files_and_the_ledger_and_a_run_that_failed_goes_on(
    embed: EmbedTable, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(numbered(1000), tmp_path / "rows.parquet")
    source, options = str(tmp_path / "rows.parquet"), TableOptions(rows_per_file=100)
    embed_tables(embed, source, tmp_path / "due", options)
    written_now = 0

    def fail_at_five(file: Any, *_: Any) -> int:
        nonlocal written_now
        written_now += 1
        if written_now == 40:  # in the middle of a file
            raise OSError("the connection is gone")
        return plain(file, *_)

    kind = type(memory.open("/probe", "wb"))
    plain = kind.write
    with monkeypatch.context() as broken:
        broken.setattr(kind, "write", fail_at_five)
        with pytest.raises(UnsupportedOptionError, match=r"memory://out/.*cannot be written: the connection is gone"):
            embed_tables(embed, source, "memory://out/", options)
    before = stored(memory, "/out")
    assert 0 < len(before) < 10
    summary = embed_tables(embed, source, "memory://out", options)
    assert (summary.there, summary.rows) == (100 * len(before), 1000 - 100 * len(before))
    due = {path.name: path.read_bytes() for path in (tmp_path / "due").glob("*.parquet")}
    assert stored(memory, "/out") == due
    with pytest.raises(UnsupportedOptionError, match="memory://out: begun with other arguments: rows_per_file"):
        embed_tables(embed, source, "memory://out", TableOptions(rows_per_file=7))
    memory.rm_file(f"/out/{min(due)}")
    assert embed_tables(embed, source, "memory://out", options).rows == 100
    assert stored(memory, "/out") == due


class Fetched(AbstractBufferedFile):
    """A file that is fetched in ranges, as those of S3, Google's stores, http and the Hub are."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.jsonl.gz", "a.parquet"])
def test_files_that_are_fetched_in_ranges_are_read(
    name: str, embed: EmbedTable, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {
        "a.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
        "a.csv": b"text\none\ntwo\n",
        "a.txt": b"one\ntwo\n",
        "a.jsonl.gz": gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'),
    }
    if name == "a.parquet":
        with memory.open("/in/a.parquet", "wb") as file:
            pq.write_table(pa.table({"text": ["one", "two"]}), file)
    else:
        memory.pipe(f"/in/{name}", content[name])
    own = type(memory)._open

    def fetched(system: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        return Fetched(system, path, mode) if mode == "rb" else own(system, path, mode, **options)

    monkeypatch.setattr(type(memory), "_open", fetched)
    embed_tables(embed, f"memory://in/{name}", tmp_path / "out")
    assert read(tmp_path / "out").column("text").to_pylist() == ["one", "two"]


class Broken(io.BytesIO):
    """A file of a store whose connection breaks, which that store tells by an error of its own."""

    def read(self, *given: Any) -> bytes:
        raise RuntimeError("Server disconnected")

    readline = write = read  # type: ignore[assignment]

    def discard(self) -> None:
        """Nothing of it is there."""


@pytest.mark.parametrize(("mode", "said"), [("rb", "a.txt: cannot be read"), ("wb", "cannot be written")])
def test_a_store_that_breaks_is_one_error(
    mode: str, said: str, embed: EmbedTable, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/in/a.txt", b"one")
    own = type(memory)._open

    def breaking(*given: Any, **options: Any) -> Any:
        _, path, opened = *given, options.pop("mode", "rb")
        is_broken = opened == mode and path.endswith((".txt", ".parquet"))
        return Broken() if is_broken else own(*given, mode=opened, **options)

    monkeypatch.setattr(type(memory), "_open", breaking)
    with pytest.raises(UnsupportedOptionError, match=f"{said}.*Server disconnected"):
        embed_tables(embed, "memory://in/a.txt", "memory://out")


def test_an_input_of_the_same_size_is_another_one_in_a_store(embed: EmbedTable, memory: Any, tmp_path: Path) -> None:
    for text in ("one", "two"):
        memory.pipe("/in/a.txt", text.encode())
        embed_tables(embed, "memory://in/a.txt", tmp_path / "out")
        assert read(tmp_path / "out").column("text").to_pylist() == [text]


def test_rows_that_are_cut_and_rows_that_are_not_stand_in_no_table_together(embed: EmbedTable, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n", encoding="utf-8")
    embed_tables(embed, tmp_path / "a.txt", tmp_path / "out")
    with pytest.raises(UnsupportedOptionError, match="begun with other arguments: beyond_proof: None then, True now"):
        embed_tables(replace(embed, load={"beyond_proof": True}), tmp_path / "a.txt", tmp_path / "out")


def test_an_input_that_is_put_back_after_a_kill_is_done_again(embed: EmbedTable, tmp_path: Path) -> None:
    file, out = tmp_path / "a.txt", tmp_path / "out"
    file.write_text("one\n", encoding="utf-8")
    embed_tables(embed, file, out)
    kept = file.rename(tmp_path / "kept")

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    file.write_text("another\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as killed:
        killed.setattr(Ledger, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed_tables(embed, file, out)
    assert read(out).column("text").to_pylist() == ["another"]
    kept.replace(file)
    embed_tables(embed, file, out)
    assert read(out).column("text").to_pylist() == ["one"]


def test_a_changed_input_is_done_again_in_a_store(embed: EmbedTable, memory: Any) -> None:
    for texts in (b"one\ntwo\nthree\n", b"four\n"):
        memory.pipe_file("/in/rows.txt", texts)
        embed_tables(embed, "memory://in/*.txt", "memory://out", TableOptions(rows_per_file=2))
    (content,) = stored(memory, "/out").values()
    assert pq.read_table(pa.BufferReader(content)).column("text").to_pylist() == ["four"]


def test_a_store_on_the_command_line_and_one_that_is_not_there(
    cli: Any, static_artifact: Path, tmp_path: Path, memory: Any
) -> None:
    (tmp_path / "rows.txt").write_text("one\ntwo\n", encoding="utf-8")
    given = ["encode", static_artifact, "--input", tmp_path / "rows.txt", "--output"]
    assert cli(*given, "memory://place").code == 0
    assert len(stored(memory, "/place")) == 1
    assert cli(*given, (tmp_path / "here").as_uri()).code == 0
    assert (tmp_path / "here" / LEDGER).is_file()
    ran = cli(*given, "nosuch://place")
    assert (ran.code, "nosuch://place: cannot be opened" in ran.err) == (1, True), ran.err


def test_lance_is_one_dataset_that_holds_what_is_done(embed: EmbedTable, memory: Any, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    folder, options = tmp_path / "in", TableOptions(rows_per_file=100, output_format="lance")
    folder.mkdir()
    table = numbered(250).set_column(1, "text", pa.array([*numbered(249).column("text").to_pylist(), None]))
    pq.write_table(table, folder / "a.parquet")
    embed_tables(embed, str(folder), tmp_path / "due", TableOptions(rows_per_file=100))
    for _ in range(2):  # the second has nothing to do
        embed_tables(embed, str(folder), tmp_path / "out", options)
    dataset = lance.dataset(tmp_path / "out")
    assert dataset.to_table().equals(read(tmp_path / "due"))
    assert json.loads(dataset.schema.metadata[b"sbertconv"])["dimension"] == 32
    assert dataset.version == 1
    pq.write_table(numbered(5, 250), folder / "b.parquet")
    assert embed_tables(embed, str(folder), tmp_path / "out", options).rows == 5
    assert lance.dataset(tmp_path / "out").to_table().column("id").to_pylist() == list(range(255))
    with pytest.raises(UnsupportedOptionError, match="'lance' goes to a local or mounted folder"):
        embed_tables(embed, str(folder), "memory://out", options)


def test_lance_killed_before_the_dataset_knows_its_parts(embed: EmbedTable, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    pq.write_table(numbered(300), tmp_path / "rows.parquet")
    options = TableOptions(rows_per_file=100, output_format="lance")

    def stop(summary: Any, part: Any) -> None:
        if part.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_tables(embed, str(tmp_path / "rows.parquet"), tmp_path / "out", options, stop)
    (left,) = (tmp_path / "out").glob("*-000001.lance")
    left.unlink()  # as if it had been killed before its rename: its fragment stays, and no version has it
    assert embed_tables(embed, str(tmp_path / "rows.parquet"), tmp_path / "out", options).there == 100
    assert lance.dataset(tmp_path / "out").to_table().column("id").to_pylist() == list(range(300))


HOLLOW = pa.struct([])


@pytest.mark.parametrize(
    "kind", [HOLLOW, pa.struct([("more", HOLLOW)]), pa.list_(HOLLOW), pa.map_(pa.string(), HOLLOW)], ids=str
)
def test_lance_gets_no_struct_without_fields(kind: Any, embed: EmbedTable, tmp_path: Path) -> None:
    pytest.importorskip("lance")
    write_arrow(tmp_path / "rows.arrow", pa.table({"text": ["one"], "more": pa.array([None], kind)}), 1)
    with pytest.raises(UnsupportedOptionError, match=r"'more' has a struct without fields(?s:.*)keep="):
        embed_tables(embed, str(tmp_path / "rows.arrow"), tmp_path / "out", TableOptions(output_format="lance"))


@pytest.mark.parametrize("kind", ["string_view", "binary_view"])
def test_lance_keeps_views_of_a_file_that_is_read_as_it_lies(kind: str, embed: EmbedTable, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    values = pa.array([f"a value that is long {number}" for number in range(100)]).cast(getattr(pa, kind)())
    for name in ("a", "b" * 9):  # whose values lie 8 bytes apart
        table = pa.table({"text": [name, *"t" * 99], "more": values})
        write_arrow(tmp_path / f"{name}.arrow", table, 100)
        embed_tables(embed, f"{tmp_path}/{name}.arrow", tmp_path / name, TableOptions(output_format="lance"))
        assert lance.dataset(str(tmp_path / name)).to_table().column("more").to_pylist() == values.to_pylist()


@pytest.mark.parametrize("place", ["lance.fragment.write_fragments", "lance.LanceDataset.commit", "lance.LanceDataset"])
def test_a_panic_of_lance_is_one_error(
    place: str, embed: EmbedTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lance")
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def panics(*given: Any, **named: Any) -> None:
        raise panic("not aligned")

    options = TableOptions(output_format="lance")
    pq.write_table(numbered(2), tmp_path / "rows.parquet")
    if place == "lance.LanceDataset":
        embed_tables(embed, str(tmp_path / "rows.parquet"), tmp_path / "out", options)
    monkeypatch.setattr(place, panics)
    with pytest.raises(SbertconvError, match="not aligned"):
        embed_tables(embed, str(tmp_path / "rows.parquet"), tmp_path / "out", options)


@pytest.mark.parametrize("form", ["lance", "parquet"])
def test_a_folder_that_has_the_name_of_a_part_is_one_error(form: str, embed: EmbedTable, tmp_path: Path) -> None:
    if form == "lance":
        pytest.importorskip("lance")
    source, options = tmp_path / "rows.txt", TableOptions(output_format=form)
    source.write_text("one\n", encoding="utf-8")
    embed_tables(embed, str(source), tmp_path / "out", options)
    (part,) = (tmp_path / "out").glob(f"rows-*.{form}")
    part.with_name(part.name.replace("000000", "000001")).mkdir()
    if form == "parquet":  # which reads none of its parts again, but removes those of a file that has changed
        assert embed_tables(embed, str(source), tmp_path / "out", options).there == 1
        source.write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(SbertconvError, match=r"000001\.\w+: cannot be"):
        embed_tables(embed, str(source), tmp_path / "out", options)


def test_lance_forgets_an_input_that_became_empty_and_names_what_is_no_dataset(
    static_artifact: Path, tmp_path: Path
) -> None:
    lance = pytest.importorskip("lance")
    embed, source = EmbedTable(folder=str(static_artifact)), tmp_path / "in.txt"
    options = TableOptions(output_format="lance", on_error="skip")
    for content, rows in (("a\nb\n", 2), ("", 0), ("c\n", 1)):
        source.write_text(content)
        embed_tables(embed, str(source), tmp_path / "out", options)
        assert lance.dataset(str(tmp_path / "out")).count_rows() == rows
    (tmp_path / "other" / "_versions").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="no dataset of Lance"):
        embed_tables(embed, str(source), tmp_path / "other", options)


@pytest.mark.parametrize("address", ["nowhere.invalid:1", "ray://127.0.0.1:1", "spark://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_said_at_once(address: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"no cluster at {address}"), reaching("Ray", address):
        raise AssertionError("its library was asked")


def test_without_lance_its_format_says_what_to_install(
    embed: EmbedTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    (tmp_path / "rows.txt").write_text("one\n", encoding="utf-8")
    with pytest.raises(sbertconv.MissingDependencyError, match=r"lance.\n.*sbertconv\[lance\]"):
        embed_tables(embed, str(tmp_path / "rows.txt"), tmp_path / "out", TableOptions(output_format="lance"))
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("default")  # theirs
def test_a_dataset_of_the_library_is_embedded_by_map(embed: EmbedTable, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    dataset = datasets.Dataset.from_list(ROWS).with_format("arrow")
    table = dataset.map(embed, batched=True, batch_size=4, cache_file_name=str(tmp_path / "cache.arrow"))[:]
    assert table.drop(["embedding"]).to_pylist() == ROWS
    assert np.array(table.column("embedding").to_pylist()) == pytest.approx(embed.model.encode(TEXTS), abs=1e-6)


def test_a_reader_of_record_batches_is_embedded_batch_by_batch(embed: EmbedTable, tmp_path: Path) -> None:
    """Any source of Arrow tables: a dataset of pyarrow, and batches with another type of text."""
    pq.write_table(numbered(10), tmp_path / "rows.parquet")
    batches = pads.dataset(tmp_path).to_batches(batch_size=4)
    found = pa.concat_tables([embed(batch) for batch in batches])
    due = embed.model.encode(numbered(10).column("text").to_pylist())
    assert vectors_of(found) == pytest.approx(due, abs=1e-6)
    large = numbered(10).set_column(1, "text", numbered(10).column("text").cast(pa.large_string()))
    assert vectors_of(embed(large)) == pytest.approx(due, abs=1e-6)


def test_workers_share_one_part_and_its_rows_stay_in_order(
    embed: EmbedTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part is embedded by all of them at once: the last one would else keep a single worker busy."""
    from sbertconv.tables import workers

    monkeypatch.setattr(workers, "BLOCK", 100)
    taken: list[int] = []
    both = threading.Barrier(2)

    class Here:
        def __init__(self) -> None:
            self.first = True

        def __call__(self, table: bytes) -> bytes:
            if self.first:  # none goes on before the other has a block, too
                both.wait(60)
            self.first = False
            taken.append(id(self))
            return workers.table_in(workers.answer_to(embed, table))

        def close(self) -> None:
            pass

    pq.write_table(numbered(1050), tmp_path / "rows.parquet")
    reading = Reading("text", 5000, False, numbered(1).schema)
    ((part, table),) = pooled(reading.parts(find_inputs([str(tmp_path / "rows.parquet")])[0]), Here, 2)
    assert (part.rows, len(taken), len(set(taken))) == (1050, 11, 2)
    assert table.column("id").to_pylist() == list(range(1050))


@pytest.mark.parametrize("options", [{"rows_per_file": 10**19}, {"workers": 10**19}, {"rows_per_file": 0}])
def test_a_count_that_nothing_has_is_refused_before_a_file_is_read(options: dict[str, int]) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"\(have: 1 to "):
        TableOptions(**options)


KINDS: dict[str, Callable[[], Any]] = {
    "string_view": lambda: pa.array(["a", "b", "c"], pa.string_view()),
    "binary_view": lambda: pa.array([b"a" * 20, b"b", None], pa.binary_view()),
    "runs": lambda: pa.RunEndEncodedArray.from_arrays([2, 3], ["x", "y"]),
    "union": lambda: pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array("xyz")]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [["one", None, "three"], []])
def test_a_bad_row_beside_columns_of_any_type_is_left_out_alone(
    texts: list[str | None], kind: str, embed: EmbedTable, tmp_path: Path
) -> None:
    text = pa.array(texts, pa.string_view() if kind == "string_view" else pa.string())
    write_arrow(tmp_path / "rows.arrow", pa.table({"text": text, "more": KINDS[kind]()[: len(texts)]}), 2)
    options = TableOptions(nulls="error", on_error="skip", output_format="arrow")
    summary = embed_tables(replace(embed, keep=None), str(tmp_path / "rows.arrow"), tmp_path / "out", options)
    assert (summary.rows, [bad.row for _, bad in summary.bad], summary.broken) == (len(texts), [1] if texts else [], {})
    if texts:
        with pa.ipc.open_file(next((tmp_path / "out").glob("*.arrow"))) as file:
            assert file.read_all().column("more").to_pylist() == [KINDS[kind]()[place].as_py() for place in (0, 2)]


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_bad_row_of_a_later_part_is_left_out_alone(batch: int, embed: EmbedTable, tmp_path: Path) -> None:
    texts = ["a", "b", "c", "d", None, "e", "f"]
    write_arrow(tmp_path / "rows.arrow", pa.table({"text": texts, "id": range(7)}), batch)
    options = TableOptions(nulls="error", on_error="skip", rows_per_file=3)
    for due in (7, 3, 1):
        assert embed_tables(embed, str(tmp_path / "rows.arrow"), tmp_path / "out", options).rows == due
        assert read(tmp_path / "out").column("id").to_pylist() == [0, 1, 2, 3, 5, 6]
        sorted((tmp_path / "out").glob("*.parquet"))[1 if due == 7 else 2].unlink()


def test_a_first_file_without_rows_has_its_columns(embed: EmbedTable, tmp_path: Path) -> None:
    pq.write_table(numbered(1).slice(1), tmp_path / "a.parquet")
    pq.write_table(numbered(2), tmp_path / "b.parquet")
    assert embed_tables(embed, str(tmp_path / "*.parquet"), tmp_path / "out").rows == 2


def test_a_table_of_other_ranges_is_not_gone_on_with(static_artifact: Path, tmp_path: Path) -> None:
    pq.write_table(numbered(6), tmp_path / "rows.parquet")
    embed, rows = EmbedTable(folder=str(static_artifact), precision="int8"), str(tmp_path / "rows.parquet")
    size = sbertconv.load(static_artifact).encode("a").size
    given = replace(embed, ranges=((-1.0,) * size, (1.0,) * size))
    for same in (given, given, embed):  # said, said again, and left to the table
        embed_tables(same, rows, tmp_path / "out")
    with pytest.raises(UnsupportedOptionError, match="begun with other ranges"):
        embed_tables(replace(embed, ranges=((-2.0,) * size, (1.0,) * size)), rows, tmp_path / "out")


def test_the_ranges_of_int8_need_no_file_that_is_skipped(static_artifact: Path, tmp_path: Path) -> None:
    pq.write_table(numbered(3), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:100])
    embed, source = EmbedTable(folder=str(static_artifact), precision="int8"), str(tmp_path / "*.parquet")
    with pytest.raises(UnsupportedOptionError, match=r"b\.parquet: cannot be read"):
        embed_tables(embed, source, tmp_path / "other" / "out")
    assert not (tmp_path / "other").exists()
    summary = embed_tables(embed, source, tmp_path / "out", TableOptions(on_error="skip"))
    assert (summary.rows, list(summary.broken)) == (3, [str(tmp_path / "b.parquet")])


def test_a_run_that_ended_before_its_first_line_leaves_what_was_there(embed: EmbedTable, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("one\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").write_text("mine")
    with pytest.raises(UnsupportedOptionError, match="keep='nothing'"):
        embed_tables(replace(embed, keep=("nothing",)), str(tmp_path / "rows.txt"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes"]
    with Ledger(tmp_path / "out", {}), pytest.raises(UnsupportedOptionError, match="another run writes to it"):
        Ledger(tmp_path / "out", {})


@pytest.mark.parametrize("name", ["embedding", "embedding_indices", "embedding_values"])
def test_reasons_do_not_take_the_place_of_vectors(name: str) -> None:
    with pytest.raises(UnsupportedOptionError, match="a column of the vectors"):
        EmbedTable(folder="folder", errors=name)


# Values that EmbedTable gets -> what is said of them
WRONG: dict[str, tuple[Callable[[EmbedTable], Any], str]] = {
    "no table": (lambda embed: embed(5), "5 is no table"),
    "rows": (lambda embed: embed([{"text": "one"}]), "is no table"),
    "no texts": (lambda embed: embed.vectors(None), "None is no list of texts"),
    "lists": (lambda embed: embed.vectors([["one"]]), "is no list of texts"),
    "one text": (lambda embed: embed.vectors("one"), "'one' is no list of texts"),
    "a list of keywords": (lambda embed: replace(embed, encode=[1]), "encode=.* a dict of keywords"),
    "numbers for keywords": (lambda embed: replace(embed, load={1: 2}), "load=.* a dict of keywords"),
    "a file": (lambda embed: replace(embed, load={"providers": [sys.stdout]}).model, "load=: cannot travel"),
    "other vectors": (
        lambda embed: replace(embed, encode={"output_value": "token_embeddings"}).options,
        "output_value",
    ),
    "no dimension": (lambda embed: replace(embed, encode={"truncate_dim": 0}).vectors(["one"]), "truncate_dim"),
    "no inputs": (lambda embed: embed_tables(embed, None, "out"), "inputs=None"),
    "no output": (lambda embed: embed_tables(embed, "in", ""), "output=''"),
    "a dict of options": (lambda embed: embed_tables(embed, "in", "out", {"workers": 1}), "options=.* TableOptions"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_one_error(name: str, embed: EmbedTable) -> None:
    call, said = WRONG[name]
    with pytest.raises(UnsupportedOptionError, match=said):
        call(embed)


def test_options_of_an_engine_that_are_lists_and_dicts_open_the_folder_once(bert_artifact: Path) -> None:
    loaded = {"providers": ["CPUExecutionProvider"], "session_options": {"inter_op_num_threads": 1}}
    one, other = (EmbedTable(folder=str(bert_artifact), load=loaded | {"engine": ENGINE}) for _ in range(2))
    assert one.model is other.model
