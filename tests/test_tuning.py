"""The fastest way to run a folder on this machine: measured once, kept in the user's cache, taken by load()."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import sbertconv
from sbertconv import UnsupportedOptionError
from sbertconv.benchmark import tuning
from sbertconv.benchmark.tuning import tune
from sbertconv.runtime import cpus, opening, tuned
from sbertconv.runtime.batches import TOKENS_PER_CORE
from sbertconv.runtime.options import default_threads
from sbertconv.runtime.records import add_record, read_records, records_file
from sbertconv.runtime.tuned import RECORDS, Setting, Tuned, fastest, tuned_here

SECONDS = {("onnxruntime", 1): 3.0, ("onnxruntime", 2): 1.0, ("openvino", 1): 2.0, ("openvino", 2): 4.0}


class Runner:
    """A process that takes as long as the table says, and less for large batches."""

    def __init__(self, contestant: Any, threads: int) -> None:
        self.name, self.options = contestant.name, contestant.options

    def ask(self, command: str, texts: list[str], batch_size: int, calls: int) -> list[float]:
        seconds = SECONDS[self.options["engine"], self.options["parallel"] if len(texts) > 1 else 1]
        return [seconds / (self.options.get("batch_tokens") or TOKENS_PER_CORE)] * calls

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    return tmp_path / "cache"


@pytest.fixture
def both(bert_artifact: Path, tmp_path: Path) -> Path:
    """A folder that says it was proven on two engines."""
    pytest.importorskip("openvino")
    folder = shutil.copytree(bert_artifact, tmp_path / "both")
    manifest = json.loads((folder / "sbertconv.json").read_text(encoding="utf-8"))
    manifest["engines"] = {"onnx": ["onnxruntime", "openvino"]}
    (folder / "sbertconv.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture
def measured(both: Path, monkeypatch: pytest.MonkeyPatch) -> tuning.Tuning:
    monkeypatch.setattr(tuning, "Worker", Runner)
    return tune(both)


def test_the_fastest_settings_are_kept_and_taken(measured: tuning.Tuning, both: Path) -> None:
    assert measured.record.one.engine == "openvino"
    assert (measured.record.many.engine, measured.record.many.parallel) == ("onnxruntime", 2)
    assert measured.record.many.batch_tokens == 2 * TOKENS_PER_CORE
    assert measured.file == records_file(RECORDS)
    one, many = sbertconv.load(both), sbertconv.load(both, many=True)
    assert (one.engine, one.parallel) == ("openvino", 1)
    assert (many.engine, many.parallel, many.options.batch_tokens) == ("onnxruntime", 2, 2 * TOKENS_PER_CORE)
    assert many.because.startswith("the fastest of 6 settings on this machine, measured 20")


def test_what_is_asked_for_is_done(measured: tuning.Tuning, both: Path) -> None:
    assert sbertconv.load(both, engine="openvino", many=True).engine == "openvino"
    found = sbertconv.load(both, many=True, parallel=1)
    assert (found.engine, found.parallel) == ("onnxruntime", 1)
    assert sbertconv.load(both, many=True, threads=1).parallel == 1


WRONG: tuple[dict[str, int], ...] = (
    {"threads": -1}, {"threads": 0}, {"threads": 100_000}, {"parallel": 0}, {"parallel": 100_000}, {"batch_tokens": 0},
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"folder": "another"},
        {"format": "keras"},
        {"cpu": ("another",)},
        {"cores": 64},
        {"versions": {"onnxruntime": "0.1"}},
        {"one": Setting("litert"), "many": Setting("litert")},
        *({"one": Setting("onnxruntime", **wrong)} for wrong in WRONG),
    ],
)
def test_a_result_of_other_circumstances_does_not_count(
    changes: dict[str, Any], measured: tuning.Tuning, both: Path
) -> None:
    records_file(RECORDS).unlink()
    add_record(RECORDS, replace(measured.record, **changes))
    assert "tune measures this one" in sbertconv.load(both).because


def test_a_setting_that_its_engine_does_not_take_does_not_count(measured: tuning.Tuning, both: Path) -> None:
    add_record(RECORDS, replace(measured.record, one=Setting("keras", parallel=2)))
    found, _ = fastest(opening.artifact_at(both), "onnx", ["keras"])
    assert found == Setting("keras")


@pytest.mark.parametrize("content", [b"", b"{", b'[{"folder": 1}]', b"[" * 100_000, b"[" + b" " * (1 << 20) + b"]"])
def test_a_file_that_cannot_be_read_counts_as_none(content: bytes, bert_artifact: Path) -> None:
    file = records_file(RECORDS)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert read_records(RECORDS, Tuned) == []
    assert tuned_here(opening.artifact_at(bert_artifact), "onnx") is None


def test_a_pipe_in_the_cache_is_not_waited_for_and_stays(cache: Path) -> None:
    file = records_file(RECORDS)
    file.parent.mkdir(parents=True)
    os.mkfifo(file)
    setting = Setting("onnxruntime")
    assert read_records(RECORDS, Tuned) == []
    assert add_record(RECORDS, Tuned("a", "onnx", ("cpu",), 1, {}, setting, setting, 1, "2026-01-01")) is None
    assert file.is_fifo()


def test_records_are_the_latest_and_a_cache_that_cannot_be_written_is_none(cache: Path) -> None:
    setting = Setting("onnxruntime")
    record = Tuned("a", "onnx", ("cpu",), 1, {}, setting, setting, 1, "2026-01-01")
    for number in range(60):
        add_record(RECORDS, replace(record, cores=number))
    assert [one.cores for one in read_records(RECORDS, Tuned)] == list(range(10, 60))
    assert msgspec.json.decode(records_file(RECORDS).read_bytes())[0]["cores"] == 10
    records_file("other").mkdir()
    assert add_record("other", record) is None


def test_without_a_result_the_kind_of_cpu_decides(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for features, first in (({"avx2", "avx512_vnni"}, "openvino"), ({"avx2"}, "onnxruntime"), (set(), "openvino")):
        monkeypatch.setattr(cpus, "cpu_features", lambda found=features: frozenset(found))
        assert sbertconv.load(both).engine == first


def test_a_small_precision_that_does_not_pay_here_is_told(
    bert_artifact: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    artifact = opening.artifact_at(bert_artifact)
    small = replace(artifact, manifest={**artifact.manifest, "precision": "int8"})
    monkeypatch.setattr(cpus, "cpu_features", lambda: frozenset({"avx2"}))
    opening.tell_small(artifact)
    assert not recwarn
    with pytest.warns(UserWarning, match="int8 ran slower than float32 on CPUs with AVX2 and no VNNI"):
        opening.tell_small(small)


def test_every_kind_names_its_run_and_engines_that_exist() -> None:
    for kind in cpus.KINDS:
        assert bool(kind.engines) == bool(kind.source)
        assert all(
            name in opening.RUNTIMES or name in ("openvino", "onnxruntime")
            for row in kind.engines.values()
            for name in row
        )
        assert kind.needs <= set(cpus.FEATURES)


def test_no_time_is_no_measurement(bert_artifact: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match="seconds=0"):
        tune(bert_artifact, seconds=0)


def test_real_processes_are_measured(static_artifact: Path) -> None:
    found = tune(static_artifact, seconds=1)
    assert found.record.tried == len(found.many) >= 3
    assert all(setting.seconds > 0 for setting in (*found.one, *found.many))
    assert sbertconv.load(static_artifact).because.startswith("the fastest of")
    assert found.record.cores == default_threads() == 2
    assert tuned.this_cpu()[0] == cpus.cpu_name()
