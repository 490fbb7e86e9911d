"""Files that ask for more than there is: memory, places outside of them, the files of somebody else."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sbertconv
from sbertconv import ArtifactError, SbertconvError, UnsupportedOptionError
from sbertconv import ray as on_ray
from sbertconv.artifact.folder import MANIFEST, described
from sbertconv.artifact.tokenizer_file import read_tokenizer, tokenizer_problems
from sbertconv.console import files
from sbertconv.console.files import encode_texts, read_texts
from sbertconv.frameworks import import_keras
from sbertconv.runtime import keras_files
from sbertconv.runtime.engines import load_keras_model
from sbertconv.runtime.saved_models import check_litert
from sbertconv.tables import reading
from sbertconv.tables.embedding import EmbedTable
from sbertconv.tables.encoding import TableOptions, embed_tables
from sbertconv.tables.stores import LEDGER


@pytest.mark.parametrize(("name", "head"), [("in.csv", "text\n"), ("in.txt", ""), ("in.jsonl", "")])
def test_a_line_as_long_as_a_disk_is_an_error(
    name: str, head: str, static_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 100)
    monkeypatch.setattr(reading, "LONGEST_LINE", 100)
    file = tmp_path / name
    file.write_text(f"{head}{json.dumps('a')}\n{json.dumps('a' * 200)}\n", encoding="utf-8")
    with pytest.raises(UnsupportedOptionError, match=r"line \d has more than 100 characters"):
        list(read_texts(file))
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    for source in (file, packed):
        with pytest.raises(UnsupportedOptionError, match=r"line \d has more than 100 bytes"):
            embed_tables(EmbedTable(folder=str(static_artifact)), str(source), tmp_path / "out", TableOptions())


class Counting:
    """A model that keeps how many texts came at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.sizes.append(len(texts))
        return np.zeros((len(texts), 2), np.float32)


def test_few_long_texts_are_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_BLOCK", 100)
    model = Counting()
    texts = ["a" * 60] * 3 + ["b"] * 10
    assert encode_texts(model, texts, tmp_path / "out.npy") == 13
    assert model.sizes == [2, 11]
    assert np.load(tmp_path / "out.npy").shape == (13, 2)


def test_a_text_that_stands_in_a_table_once_and_is_meant_often(
    static_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGEST_PART", 10_000)
    embed = EmbedTable(folder=str(static_artifact))
    for ending, write in (("parquet", pq.write_table), ("jsonl", write_lines)):
        source = tmp_path / f"in.{ending}"
        write(pa.table({"text": ["a" * 1000] * 30}), source)
        assert source.stat().st_size < 10_000 or ending == "jsonl"
        with pytest.raises(UnsupportedOptionError, match=r"more than 10,000 bytes.*take fewer rows_per_file"):
            embed_tables(embed, str(source), tmp_path / f"{ending}-out", TableOptions())
        done = embed_tables(embed, str(source), tmp_path / f"{ending}-parts", TableOptions(rows_per_file=10))
        assert done.rows == 30


def test_columns_that_no_line_has_are_counted(
    static_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_CELLS", 1000)
    source = tmp_path / "in.jsonl"
    wide = {"text": "a", **{f"key {number}": 1 for number in range(99)}}
    source.write_text(json.dumps(wide) + '\n{"text": "b"}' * 49 + "\n", encoding="utf-8")
    embed = EmbedTable(folder=str(static_artifact))
    with pytest.raises(UnsupportedOptionError, match=r"more than 1,000 cells.*take fewer rows_per_file"):
        embed_tables(embed, str(source), tmp_path / "out", TableOptions())
    assert embed_tables(embed, str(source), tmp_path / "parts", TableOptions(rows_per_file=10)).rows == 50


def test_texts_in_lists_are_counted_too(static_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST_PART", 10_000)
    (tmp_path / "in.jsonl").write_text('{"text": "a", "more": [{"b": "%s"}]}\n' % ("b" * 1000) * 30, encoding="utf-8")
    with pytest.raises(UnsupportedOptionError, match=r"more than 10,000 bytes"):
        embed_tables(
            EmbedTable(folder=str(static_artifact)), str(tmp_path / "in.jsonl"), tmp_path / "out", TableOptions()
        )


def write_lines(table: Any, file: Path) -> None:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()), encoding="utf-8")


def test_a_parquet_file_of_every_kind_of_column_is_read_as_it_is() -> None:
    texts = ["x", "yy", None, "", "a", "b", "c"]
    table = pa.table(
        {
            "text": texts,
            "lists": [["a"], [], None, ["b", "c"], ["d"], [], []],
            "once": pa.array(["x", "y"] * 3 + [None]).dictionary_encode(),
            "number": range(7),
            "large": pa.array(texts, pa.large_string()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=3)
    for start in range(7):
        buffer.seek(0)
        found = pa.concat_tables(reading.resized(reading.read_parquet(buffer, start, 2), 2)).combine_chunks()
        assert found.to_pydict() == table.slice(start).to_pydict()
        assert found.schema.types == table.schema.types


@pytest.mark.parametrize("name", [LEDGER, ".out.npy.partial"])
def test_an_output_goes_to_no_place_that_a_link_names(name: str, static_artifact: Path, tmp_path: Path) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    out.mkdir()
    victim.write_text("precious", encoding="utf-8")
    (out / name).symlink_to(victim)
    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    if name == LEDGER:
        with pytest.raises(UnsupportedOptionError, match="cannot be opened"):
            embed_tables(EmbedTable(folder=str(static_artifact)), str(tmp_path / "in.txt"), out, TableOptions())
    else:
        assert encode_texts(Counting(), ["a"], out / "out.npy") == 1
        assert not (out / "out.npy").is_symlink()
    assert victim.read_text(encoding="utf-8") == "precious"


def test_two_runs_write_the_same_file_one_after_the_other(tmp_path: Path) -> None:
    class Other(Counting):
        def encode(self, texts: list[str]) -> np.ndarray:
            if not self.sizes:
                encode_texts(Counting(), ["b"] * 5, tmp_path / "out.npy")
            return super().encode(texts)

    assert encode_texts(Other(), ["a"] * 3, tmp_path / "out.npy") == 3
    assert np.load(tmp_path / "out.npy").shape == (3, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]


BOMBS: dict[str, tuple[dict[str, Any], str]] = {
    "normalizers that double a text": (
        {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40}},
        "times as long",
    ),
    "a template of tokens": (
        {"post_processor": {"type": "TemplateProcessing", "pair": [],
                            "single": [{"SpecialToken": {"id": "a", "type_id": 0}}] * 2000,
                            "special_tokens": {"a": {"id": "a", "ids": [0], "tokens": ["a"]}}}},
        "2,000 pieces",
    ),
    "a merge that is cut inside a letter, which ends the process": (
        {"model": {"type": "BPE", "continuing_subword_prefix": "a", "vocab": {"x": 0, "é": 1, "xé": 2},
                   "merges": [["x", "é"]]}},
        "the prefix of its second part",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_tokenizer_that_makes_much_of_little_is_refused(name: str) -> None:
    change, said = BOMBS[name]
    assert any(said in problem for problem in tokenizer_problems(change))
    plain = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
             "decoder": None, "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}  # fmt: skip
    read_tokenizer(json.dumps(plain))
    with pytest.raises(ValueError, match=said):
        read_tokenizer(json.dumps({**plain, **change}))


def test_what_replaces_as_much_as_it_takes_is_no_bomb() -> None:
    replace = {"type": "Replace", "pattern": {"String": "``"}, "content": '"'}
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}
    assert not list(tokenizer_problems({"normalizer": {"type": "Sequence", "normalizers": [replace, spaces] * 50}}))


def test_a_litert_file_with_places_outside_of_it_is_not_opened(tmp_path: Path) -> None:
    """Bytes that made the interpreter end the process."""
    plain = (fuzzing.sample("litert") / "litert/model.tflite").read_bytes()
    file = tmp_path / "model.tflite"
    file.write_bytes(plain)
    check_litert(file)
    refused = []
    for seed in range(60):
        file.write_bytes(fuzzing.mutated_bytes(plain, random.Random(f"places {seed}")))
        try:
            check_litert(file)
        except ArtifactError as error:
            refused.append(str(error))
    assert len(refused) > 30


def litert(edit: Callable[[Any], None]) -> bytes:
    """The sample with an edited object, written again."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    content = (fuzzing.sample("litert") / "litert/model.tflite").read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    edit(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


EDITS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "operation": (lambda model: setattr(model.subgraphs[0].operators[0], "opcodeIndex", 10**6), "is not listed"),
    "input": (lambda model: setattr(model.subgraphs[0].operators[0], "inputs", [10**6]), "a tensor that is not there"),
    "output": (lambda model: setattr(model.subgraphs[0], "outputs", [-2]), "a tensor that is not there"),
    "buffer": (lambda model: setattr(model.subgraphs[0].tensors[0], "buffer", 10**6), "weights that are not there"),
    "shape": (lambda model: setattr(model.subgraphs[0].tensors[0], "shape", [-1, 2]), "a negative size"),
    "signature": (
        lambda model: setattr(model.signatureDefs[0].inputs[0], "tensorIndex", 10**6),
        "an input or output that is not there",
    ),
    "graph": (lambda model: setattr(model.signatureDefs[0], "subgraphIndex", 9), "not a readable LiteRT model"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_number_of_a_litert_file_leads_to_something(name: str, tmp_path: Path) -> None:
    edit, said = EDITS[name]
    file = tmp_path / "model.tflite"
    file.write_bytes(litert(lambda model: None))
    check_litert(file)
    file.write_bytes(litert(edit))
    with pytest.raises(ArtifactError, match=said):
        check_litert(file)


def test_a_layer_of_any_size_is_not_made(
    bert_keras: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = copy_of(bert_keras) / "keras/model.keras"
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
    monkeypatch.setattr(keras_files, "FREE", -keras_files.TIMES * size + 1000)
    with pytest.raises(
        ArtifactError, match=r"its layers ask for more than it holds: [\d,]+ bytes \(have: up to 1,000\)"
    ):
        sbertconv.load(file).encode(["a"])


def test_what_makes_first_values_is_not_asked_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keras = import_keras()
    layers = [keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="orthogonal"), keras.layers.Dropout(0.5)]
    model = keras.Sequential(layers)
    model.save(tmp_path / "model.keras")
    with monkeypatch.context() as patch:
        patch.setattr(keras.initializers.Orthogonal, "__call__", lambda *_, **__: pytest.fail("asked"))
        loaded = load_keras_model(tmp_path / "model.keras")
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        assert (ours.numpy() == theirs.numpy()).all()
    assert loaded.layers[-1].seed_generator.state.numpy().any()  # no file holds it


def test_a_layer_of_the_program_keeps_what_no_file_holds(tmp_path: Path) -> None:
    keras = import_keras()

    class Doubled(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def build(self, shape: Any) -> None:
            self.factor = self.add_weight(shape=(shape[-1],), initializer=keras.initializers.Constant(2.0))

        def save_own_variables(self, store: Any) -> None:
            """A constant, which is not written."""

        load_own_variables = save_own_variables

        def call(self, x: Any) -> Any:
            return x * self.factor

    Doubled.__module__ = "__main__"  # for which Keras writes null
    with keras.saving.custom_object_scope({"tests>Doubled": Doubled}):
        keras.saving.register_keras_serializable("tests")(Doubled)
        keras.Sequential([keras.Input((4,)), Doubled()]).save(tmp_path / "model.keras")
        loaded = load_keras_model(tmp_path / "model.keras")
    assert loaded(np.ones((1, 4), np.float32)).numpy().tolist() == [[2.0] * 4]


def test_room_for_more_tokens_than_a_file_has_is_no_size_of_it(tmp_path: Path) -> None:
    keras = import_keras()
    text = keras.Input((1,), dtype="string")
    known = keras.layers.StringLookup(max_tokens=10**8, vocabulary=["a", "b"])(text)
    model = keras.Model(text, [keras.layers.Hashing(num_bins=2**30)(text), known])
    model.save(tmp_path / "model.keras")
    loaded = load_keras_model(tmp_path / "model.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float64", 24), ("float32", 12), ("bfloat16", 6), ("int8", 3), ("bool", 3)],
)
def test_a_number_is_as_large_as_its_type(dtype: str, size: int) -> None:
    assert keras_files.size_of((None, 3), dtype) == size


@pytest.mark.parametrize("given", [None, 5, b"x", [], {}, True, ("a",), "a" * 300, "\0", "~nobody-there/x"], ids=repr)
def test_what_is_no_path_is_one_error(given: Any, static_artifact: Path, tmp_path: Path) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: sbertconv.load(given),
        lambda: sbertconv.pack(given, tmp_path / "x", ["fastembed"]),
        lambda: sbertconv.pack(static_artifact, tmp_path / "x", given),
        lambda: sbertconv.push(given, "a/b"),
        lambda: sbertconv.verify("x", given),
    ]
    for call in calls:
        with pytest.raises(SbertconvError):
            call()
    assert list(tmp_path.iterdir()) == []


def test_an_archive_of_a_cluster_stays_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../outside"))
    for content in (buffer.getvalue(), b"no archive"):
        with pytest.raises(ArtifactError, match="cannot be unpacked"):
            on_ray.unpack_archive(content, tmp_path / "in")
    assert not (tmp_path / "outside").exists()


def test_a_folder_that_somebody_else_put_there_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert on_ray.is_mine(folder)
    (tmp_path / "link").symlink_to(folder)
    assert not on_ray.is_mine(tmp_path / "link")
    assert not on_ray.is_mine(tmp_path / "missing")
    monkeypatch.setattr(os, "getuid", lambda: folder.lstat().st_uid + 1)
    assert not on_ray.is_mine(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("onnx/model.onnx", b"no graph"),
        ("tokenizer_config.json", b'{"model_max_length": null}'),
        ("tokenizer_config.json", b'{"model_max_length": 48, "truncation_side": 7}'),
    ],
)
def test_what_a_reader_of_a_packed_folder_says_is_one_error(
    name: str, content: bytes, bert_artifact: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(bert_artifact)
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps({**manifest, "files": described(folder)}), encoding="utf-8")
    with pytest.raises(SbertconvError):
        sbertconv.pack(folder, tmp_path / "out", ["fastembed"])
    assert not (tmp_path / "out").exists()
