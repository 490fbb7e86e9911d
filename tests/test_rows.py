"""Row i of a file belongs to text i: a reader gives it, or stops with the file and the row."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbertconv import UnsupportedOptionError
from sbertconv.console.files import encode_texts, read_texts
from sbertconv.tables.reading import Reading, find_inputs, schema_of
from sbertconv.tables.stores import LocalStore
from sbertconv.tables.writing import write_part


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("in.txt", "one\n\nthree\n", ["one", "", "three"]),
        ("in.csv", "text\none\n\nthree\n", ["one", "", "three"]),
        ("in.csv", 'text\none\n""\nthree\n', ["one", "", "three"]),
        ("in.csv", "id,text\n1,one\n2,\n", ["one", ""]),
        ("in.csv", 'text\n"a ""quoted"" text,\non two lines"\ntwo\n', ['a "quoted" text,\non two lines', "two"]),
        ("in.csv", "id,text\n1,one\n\n", ["one"]),
        ("in.csv", "id,id,text\n1,2,one\n", ["one"]),
        ("in.jsonl", '{"text": "one"}\n{"text": ""}\n""\n', ["one", "", ""]),
        ("in.jsonl", '{"text": "one"}\n\n  \n', ["one"]),
    ],
)
def test_every_row_has_its_text(name: str, content: str, texts: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert list(read_texts(tmp_path / name)) == texts


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("in.csv", "id,text\n1,one\n\n3,three\n", "in.csv, row 3: empty, where a row is due"),
        (
            "in.csv",
            'id,text\n1,one\n2,"two\n3,three\n',
            "in.csv, row 3, which begins in line 3: unexpected end",
        ),
        ("in.csv", 'id,text\n1,"a\nb"\n2,"two" more\n', "in.csv, row 3, which begins in line 4"),
        ("in.csv", "text,text\none,two\n", "in.csv: 2 columns are called 'text'"),
        ("in.csv", "id,text\n1,one, with a comma\n", "in.csv, row 2: 3 cells, where 2 are due"),
        ("in.jsonl", '{"text": "one"}\n\n{"text": "three"}\n', "in.jsonl, line 2: blank, where a row is due"),
        ("in.jsonl", '{"text": "one", "text": "two"}\n', "in.jsonl, line 1: .*the key 'text' stands twice"),
    ],
)
def test_a_row_that_is_none_stops_the_reading(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UnsupportedOptionError, match=words):
        list(read_texts(tmp_path / name))


def test_two_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["one"]), pa.array(["two"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(UnsupportedOptionError, match=r"in.parquet: several columns are called 'text'"):
        list(read_texts(tmp_path / "in.parquet"))


@pytest.mark.parametrize("value", [["one"], {"a": "one"}])
def test_a_column_of_parquet_that_has_levels_is_an_error_with_its_row(value: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [value]}), tmp_path / "in.parquet")
    with pytest.raises(UnsupportedOptionError, match=r"in.parquet, row 0: 'text' is (list|dict), not text"):
        list(read_texts(tmp_path / "in.parquet"))


def test_an_input_that_is_closed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UnsupportedOptionError, match="The input is closed"):
        list(read_texts(Path("-")))


def test_a_table_keeps_a_mark_of_byte_order_that_is_no_first_character(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('\ufefftext\n\ufeffone\n"two\n\ufefftwo"\n', encoding="utf-8")
    (source,) = find_inputs([str(tmp_path / "in.csv")])
    (part,) = Reading("text", 10, False, schema_of(source, "text", None)).parts(source)
    assert part.table.column("text").to_pylist() == ["\ufeffone", "two\n\ufefftwo"]


def test_a_table_with_two_columns_of_a_name_is_one_error(tmp_path: Path) -> None:
    table = pa.table([pa.array(["one"])] * 3, names=["text", "a", "a"])
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as out:
        out.write_table(table)
    (source,) = find_inputs([str(tmp_path / "in.arrow")])
    with pytest.raises(UnsupportedOptionError, match=r"in\.arrow: cannot be read.*several columns are called 'a'"):
        schema_of(source, "text", None)
    assert schema_of(source, "text", ()).names == ["text"]


def test_a_column_that_a_format_does_not_have_is_one_error(tmp_path: Path) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    store = LocalStore(tmp_path)
    with (
        closing(store),
        pytest.raises(UnsupportedOptionError, match=r"a\.parquet: cannot be written.*\nLeave the column"),
    ):
        write_part(pa.table({"text": ["one"], "a": union}), store, "a.parquet", "parquet")
    assert [path for path in tmp_path.iterdir() if "a.parquet" in path.name] == []


def test_what_pyarrow_cannot_do_is_an_error_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "in.parquet")

    def refuse(*args: object, **options: object) -> None:
        raise pa.ArrowNotImplementedError("integers of 3 bits")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", refuse)
    with pytest.raises(UnsupportedOptionError, match=r"in.parquet: cannot be read: integers of 3 bits"):
        list(read_texts(tmp_path / "in.parquet"))


def test_a_vector_that_is_no_json_is_an_error_with_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.array([[1.0], [np.nan]], np.float32)

    with pytest.raises(UnsupportedOptionError, match="Row 1 has a value that is not finite"):
        encode_texts(Broken(), ["one", "two"], None)
    assert capsys.readouterr().out == "[1.0]\n"
