"""Texts from files and embeddings to files, a block at a time, never half a file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import COMMAND, TEXTS, Ran, run_process, snapshot

import sbertconv
from sbertconv import Embedder, SbertconvError, UnsupportedOptionError
from sbertconv.console import files
from sbertconv.console.files import encode_texts, read_inputs, read_texts
from sbertconv.console.options import in_command_words

HARD = [*TEXTS, 'a "quoted" text, with commas', "tabs\tand\u2028separators\x85", " spaces ", "機械学習", "x" * 200_000]


@pytest.fixture(scope="module")
def embedder(static_artifact: Path) -> Embedder:
    return sbertconv.load(static_artifact)


class Counting:
    """Stands for an Embedder and notes the size of every block; the embedding of a text is its length, four times."""

    def __init__(self, dtype: Any = np.float32, fail_after: int | None = None) -> None:
        self.blocks: list[int] = []
        self.dtype = dtype
        self.fail_after = fail_after

    def encode(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        self.blocks.append(len(texts))
        if self.fail_after is not None and len(self.blocks) > self.fail_after:
            raise KeyboardInterrupt
        return np.array([[len(text)] * 4 for text in texts], self.dtype)


def write_txt(path: Path, texts: Sequence[str]) -> None:
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8", newline="\n")


def write_jsonl(path: Path, texts: Sequence[str]) -> None:
    rows = [json.dumps({"id": index, "text": text}) for index, text in enumerate(texts)]
    path.write_text("\n".join(rows) + "\n\n", encoding="utf-8")


def write_csv(path: Path, texts: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(texts))


def write_parquet(path: Path, texts: Sequence[str]) -> None:
    pq.write_table(pa.table({"id": range(len(texts)), "text": list(texts)}), path)


def read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def read_parquet(path: Path) -> np.ndarray:
    column = pq.read_table(path)["embedding"]
    return np.array(column.to_pylist(), column.type.value_type.to_pandas_dtype())


FORMATS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    ".txt": write_txt,
    ".jsonl": write_jsonl,
    ".csv": write_csv,
    ".parquet": write_parquet,
}
RESULTS: dict[str, Callable[[Path], np.ndarray]] = {".npy": read_npy, ".parquet": read_parquet}


@pytest.mark.parametrize("ending", FORMATS)
def test_every_text_comes_back_as_it_was(ending: str, tmp_path: Path) -> None:
    FORMATS[ending](tmp_path / f"in{ending}", HARD)
    assert list(read_texts(tmp_path / f"in{ending}")) == HARD


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("result", [*RESULTS, "lines"])
def test_a_file_gives_what_encode_gives(
    ending: str, result: str, embedder: Embedder, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    FORMATS[ending](tmp_path / f"in{ending}", HARD)
    target = tmp_path / f"out{result}"
    options = [] if result == "lines" else ["--output", target]
    ran = cli("encode", embedder.artifact.folder, "--input", tmp_path / f"in{ending}", *options)
    assert (ran.code, ran.err) == (0, "")
    if result == "lines":
        found = np.array([json.loads(line) for line in ran.out.splitlines()], np.float32)
    else:
        assert ran.out == ""
        found = RESULTS[result](target)
    assert found.dtype == np.float32
    assert found == pytest.approx(embedder.encode(HARD), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        (["--prompt-name", "query"], {"prompt_name": "query"}),
        (["--prompt", "x: ", "--batch-size", "2"], {"prompt": "x: ", "batch_size": 2}),
        (["--normalize", "--truncate-dim", "7"], {"normalize_embeddings": True, "truncate_dim": 7}),
        (["--embedding-precision", "ubinary"], {"precision": "ubinary"}),
        (["--task", "query"], {"task": "query"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_options_of_encode(
    options: list[str], keywords: dict[str, Any], embedder: Embedder, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    ran = cli("encode", embedder.artifact.folder, *TEXTS, "--output", tmp_path / "out.npy", *options)
    assert (ran.code, ran.err) == (0, "")
    expected = embedder.encode(TEXTS, **keywords)
    found = read_npy(tmp_path / "out.npy")
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found == pytest.approx(expected, abs=1e-6)


def test_another_column(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", TEXTS)
    write_csv(tmp_path / "in.csv", TEXTS)
    assert list(read_texts(tmp_path / "in.csv", column="id")) == [str(index) for index in range(len(TEXTS))]
    with pytest.raises(UnsupportedOptionError, match=r"in.jsonl, line 1: 'id' is int, not text"):
        list(read_texts(tmp_path / "in.jsonl", column="id"))


def test_strings_alone_are_rows_of_jsonl(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"one"\n{"text": "two"}\n', encoding="utf-8")
    assert list(read_texts(tmp_path / "in.jsonl")) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.txt", "one\r\ntwo\r\n"),
        ("in.jsonl", '{"text": "one"}\r\n{"text": "two"}\r\n'),
        ("in.csv", "text,id\r\none,1\r\ntwo,2\r\n"),
    ],
)
def test_files_as_windows_writes_them(name: str, text: str, tmp_path: Path) -> None:
    """A byte order mark first, from a spreadsheet's "CSV UTF-8" or an editor; lines end with a carriage return."""
    (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
    assert list(read_texts(tmp_path / name)) == ["one", "two"]


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("count", [1, 6, 7, 8, 23])
def test_a_stream_is_never_held_whole(result: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 7)
    counting, taken = Counting(), 0

    def stream() -> Iterator[str]:
        nonlocal taken
        for index in range(count):
            taken += 1
            assert taken <= sum(counting.blocks) + 7, "more texts were taken than a block holds"
            yield "x" * index

    written = encode_texts(counting, stream(), tmp_path / f"out{result}")  # type: ignore[arg-type]
    assert written == sum(counting.blocks) == count
    assert max(counting.blocks) <= 7
    assert (RESULTS[result](tmp_path / f"out{result}") == np.arange(count)[:, None].repeat(4, axis=1)).all()
    assert [path.name for path in tmp_path.iterdir()] == [f"out{result}"]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_reading_is_lazy(ending: str, tmp_path: Path) -> None:
    """The first text is there before the fault of a later one."""
    path = tmp_path / f"in{ending}"
    if ending == ".parquet":
        pq.write_table(pa.table({"text": ["one", None]}), path)
    else:
        path.write_text({".jsonl": '{"text": "one"}\n{"text": ', ".csv": "id,text\n1,one\n2\n"}[ending])
    stream = read_texts(path)
    assert next(stream) == "one"
    with pytest.raises(UnsupportedOptionError):
        next(stream)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("in.jsonl", '{"text": "a"}\n{"text": \n', "in.jsonl, line 2: not readable as JSON"),
        ("in.jsonl", '{"text": "a"}\n{"body": "b"}\n', r"in.jsonl, line 2: no column 'text' \(have: body\)"),
        ("in.jsonl", '{"text": "a"}\n{"text": null}\n', "in.jsonl, line 2: 'text' is NoneType, not text"),
        ("in.jsonl", "[1, 2]\n", "in.jsonl, line 1: list, where text or an object with the key 'text'"),
        ("in.csv", "id,body\n1,a\n", r"in.csv, row 2: no column 'text' \(have: id, body\)"),
        ("in.csv", "id,text\n1,a\n2\n", "in.csv, row 3: 'text' is NoneType, not text"),
        ("in.txt", b"good\nStra\xdfe\n", r"in.txt.*(UTF-8|utf-8)"),
        ("in.csv", b"text\ngood\nStra\xdfe\n", r"in.csv.*(UTF-8|utf-8)"),
        ("in.jsonl", b'{"text": "Stra\xdfe"}\n', r"in.jsonl.*(UTF-8|utf-8)"),
        ("in.parquet", b"PAR1 but nothing else", r"in.parquet"),
        ("in.parquet", "", r"in.parquet"),
        ("in.xlsx", "", r"cannot read '.xlsx' \(have: .txt, .jsonl, .csv, .parquet\)"),
        ("in", "", r"cannot read '' \(have"),
    ],
)
def test_a_bad_input_file_is_one_clear_error_and_leaves_nothing(
    name: str, content: str | bytes, words: str, embedder: Embedder, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SbertconvError, match=words) as raised:
        list(read_texts(tmp_path / name))
    ran = cli("encode", embedder.artifact.folder, "--input", tmp_path / name, "--output", tmp_path / "out.npy")
    message = in_command_words(str(raised.value), {"column": ("--column", "")})
    assert (ran.code, ran.out, ran.err) == (1, "", f"{message}\n")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"body": ["a"]}, r"in.parquet: no column 'text' \(have: body\)"),
        ({"text": ["a", None]}, r"in.parquet, row 1: 'text' is NoneType, not text"),
        ({"text": [1, 2]}, r"in.parquet, row 0: 'text' is int, not text"),
        ({"text": [*["a"] * 9, None]}, r"in.parquet, row 9: 'text' is NoneType"),
    ],
    ids=str,
)
def test_a_bad_parquet_table(
    table: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 4)
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    with pytest.raises(UnsupportedOptionError, match=words):
        list(read_texts(tmp_path / "in.parquet"))


@pytest.mark.parametrize("result", RESULTS)
def test_an_interrupted_run_leaves_the_old_result(result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 2)
    target = tmp_path / f"out{result}"
    encode_texts(Counting(), ["old"], target)  # type: ignore[arg-type]
    before = snapshot(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(Counting(fail_after=2), ["new"] * 9, target)  # type: ignore[arg-type]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_a_pipe_gets_the_whole_result_and_stays(ending: str, embedder: Embedder, tmp_path: Path) -> None:
    pipe = tmp_path / f"out{ending}"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        encode_texts(embedder, TEXTS, pipe)
        found = io.BytesIO(os.read(reader, 1 << 16))
    finally:
        os.close(reader)
    rows = np.load(found) if ending == ".npy" else pq.read_table(found)["embedding"].to_pylist()
    assert np.array_equal(rows, embedder.encode(TEXTS))
    assert pipe.is_fifo()


def test_a_folder_as_output_is_refused_before_the_model_is_opened(tmp_path: Path, cli: Callable[..., Ran]) -> None:
    (tmp_path / "out.npy").mkdir()
    ran = cli("encode", tmp_path / "no model", "a text", "--output", tmp_path / "out.npy")
    assert (ran.code, "cannot be written: it is a folder" in ran.err) == (1, True)


@pytest.mark.parametrize("ending", [*RESULTS])
@pytest.mark.parametrize("place", ["missing folder/out", "a file/out", "a folder"])
def test_a_result_that_cannot_be_written(ending: str, place: str, embedder: Embedder, tmp_path: Path, cli: Any) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / f"a folder{ending}").mkdir()
    before = snapshot(tmp_path)
    ran = cli("encode", embedder.artifact.folder, "a text", "--output", tmp_path / f"{place}{ending}")
    assert (ran.code, ran.out) == (1, "")
    assert f"{place}{ending}: cannot be written" in ran.err
    assert "Traceback" not in ran.err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("ending", RESULTS)
def test_no_texts_give_no_file(ending: str, embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match="No texts"):
        encode_texts(embedder, [], tmp_path / f"out{ending}")
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    ("output", "options", "words"),
    [
        ("out.csv", {}, r"cannot write '.csv' \(have: .npy, .parquet\)"),
        ("out", {}, r"cannot write ''"),
        ("out.npy", {"precision": "int8"}, "ranges from all embeddings"),
        ("out.npy", {"precision": "int4"}, "precision 'int4' is not known"),
        ("out.npy", {"prompt_name": "nonsense"}, "Prompt 'nonsense' is not known"),
    ],
)
def test_what_cannot_be_written_is_said(
    output: str, options: dict[str, Any], words: str, embedder: Embedder, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedOptionError, match=words):
        encode_texts(embedder, TEXTS, tmp_path / output, **options)
    assert snapshot(tmp_path) == {}


def test_a_reader_that_stops_early_is_no_error(static_artifact: Path, tmp_path: Path) -> None:
    """`sbertconv encode ... | head -n 1`: the pipe closes while there is more to write."""
    write_txt(tmp_path / "in.txt", TEXTS * 200)
    pipe = '"$0" encode "$1" --input "$2" | head -n 1'
    ran = run_process("sh", "-c", pipe, COMMAND, static_artifact, tmp_path / "in.txt")
    assert len(json.loads(ran.out)) == 32
    assert ran.err == ""


def test_a_text_is_no_pair(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"q": "one", "d": "two"}\n"three"\n', encoding="utf-8")
    with pytest.raises(UnsupportedOptionError, match="line 2: a text, where an object with two texts is due"):
        list(read_inputs(file, ["q", "d"]))


def test_a_parquet_file_with_fewer_rows_than_it_says_is_broken(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["one", "two"], "other": ["1", "2"]}), file)
    plain = pq.ParquetFile.iter_batches
    lacking = lambda self, *args, columns=None, **options: (  # noqa: E731
        batch.slice(columns == ["text"]) for batch in plain(self, *args, columns=columns, **options)
    )
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lacking)
    for columns in (["text"], ["other", "text"]):
        with pytest.raises(UnsupportedOptionError, match=r"has 1 rows fewer than it says|other numbers of rows"):
            list(read_inputs(file, columns))
