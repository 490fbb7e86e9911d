"""Every row of every class passes its own conversion's check on every backend, and answers as the library does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from class_cases import BACKENDS, CLASSES

import sbertconv

ROWS = [(kind, name) for kind, found in CLASSES.items() for name in found.rows]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_row_converts_and_equals_the_library(kind: str, name: str, backend: str, tmp_path: Path) -> None:
    rows = CLASSES[kind]
    source = rows.rows[name]()
    expected = rows.theirs(source)
    artifact = BACKENDS[backend](source, tmp_path / "converted")
    report = artifact.manifest["parity"]
    assert report["passed"]
    assert artifact.manifest["model_class"] == kind
    assert artifact.manifest.get("optimized") is (True if backend == "onnx" else None), artifact.manifest["notes"]
    for check in rows.checks:
        assert any(found["name"].endswith(check) for found in report["checks"]), check
    found = rows.ours(sbertconv.load(artifact.folder, format=artifact.formats[0]))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):  # one by one: some classes give a ragged answer
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
