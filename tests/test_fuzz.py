"""A few seconds of the fuzzer, with seeds of its own and those that broke a rule once; the rest is `make fuzz`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import pytest
from fuzzing import ENDINGS, KINDS, known, run_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sbertconv
from sbertconv import SbertconvError
from sbertconv.console.files import read_texts

CASES = {"manifest": 25, "rows": 100, "tokenizer": 25, "words": 40, "onnx": 25, "static": 12, "weights": 8, "pt2": 8,
         "tables": 25, "ledger": 25, "shown": 8, "described": 6, "archive": 25}  # fmt: skip
FEW = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
LINES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_a_mutated_file_is_an_error_or_an_answer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "case"
    base.mkdir()
    broken = {seed: verdict for seed in range(CASES[name]) if (verdict := run_case(name, seed, base)) not in ENDINGS}
    assert not broken


@pytest.mark.filterwarnings("ignore")
def test_what_broke_a_rule_once_does_not_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "case"
    base.mkdir()
    found = {(name, seed): run_case(name, seed, base) for name, seed in known() if KINDS[name].quick}
    assert not {case: verdict for case, verdict in found.items() if verdict not in ENDINGS}


@FEW
@given(texts=st.lists(LINES, min_size=1, max_size=5), ending=st.sampled_from(["csv", "jsonl"]))
def test_every_text_comes_back_from_a_file_as_it_was_written(texts: list[str], ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"in.{ending}"
    with file.open("w", encoding="utf-8", newline="") as out:
        if ending == "jsonl":
            out.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        else:
            csv.writer(out).writerows([["id", "text"], *enumerate(texts)])
    assert list(read_texts(file)) == texts


@FEW
@given(
    content=st.binary(max_size=60) | LINES.map(str.encode), ending=st.sampled_from(["csv", "jsonl", "txt", "parquet"])
)
def test_any_bytes_are_rows_or_an_error(content: bytes, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"in.{ending}"
    file.write_bytes(b"text\n" + content if ending == "csv" else content)
    try:
        found = list(read_texts(file))
    except SbertconvError:
        return
    assert all(isinstance(text, str) for text in found)
    if ending == "csv":
        plain = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
        assert found == [cells[0] if cells else "" for cells in plain]


VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())
)
NAMES = ("prompt_name", "prompt", "batch_size", "show_progress_bar", "output_value", "precision", "convert_to_numpy",
         "device", "normalize_embeddings", "truncate_dim", "task")  # fmt: skip


@FEW
@given(
    options=st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=2),
    inputs=VALUES | st.lists(st.text(), max_size=3),
)
def test_any_options_are_an_answer_or_an_error(options: dict[str, Any], inputs: Any, static_artifact: Path) -> None:
    model = sbertconv.load(static_artifact)
    try:
        found = model.encode(inputs, **options)
    except SbertconvError:
        return
    assert len(found) == len(inputs) if isinstance(inputs, list) else np.ndim(found) >= 1 or isinstance(found, dict)


def test_the_fuzzer_tells_a_traceback_and_a_file_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "case"
    base.mkdir()

    def fail(folder: Path, file: Path) -> None:
        raise KeyError("a fault")

    def write(folder: Path, file: Path) -> None:
        (folder.parent / "outside").write_text("a")

    for ask, said in ((fail, "KeyError at"), (write, "wrote outside")):
        monkeypatch.setitem(fuzzing.KINDS, "bad", fuzzing.Kind("rows", ("in.txt",), fuzzing.mutated_bytes, ask))
        assert said in run_case("bad", 0, base)
