"""Every row of the parity table passes its own conversion's check, which compares both engines with encode()."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from cases import ARCHITECTURES, CASES
from test_padding import assert_equals_the_module

import sbertconv

USUAL_CHECKS = {"text": {"tokens", "each text alone", "padded batch"}, "image": {"images"}, "audio": {"sounds"}}
USUALLY = {"optimized": True, "tracer": "torch.export"}


def summary(artifact: sbertconv.Artifact) -> dict[str, Any]:
    """What a case may expect of its artifact: from the manifest, and from the graph that was really written."""
    first = artifact.manifest["graphs"][0]
    graph = onnx.load(artifact.path(first["formats"]["onnx"]), load_external_data=False)
    assert [value.name for value in graph.graph.input] == [tensor["name"] for tensor in first["inputs"]]
    assert [value.name for value in graph.graph.output] == [tensor["name"] for tensor in first["outputs"]]
    return {
        "inputs": [value.name for value in graph.graph.input],
        "outputs": [value.name for value in graph.graph.output],
        "graphs": [section["name"] for section in artifact.manifest["graphs"]],
        "optimized": artifact.manifest["optimized"],
        "tracer": first["tracer"],
        "attention": first["attention"],
        "dimension": artifact.manifest["embedding_dimension"],
        "data": first["data"],
        "domains": sorted({node.domain for node in graph.graph.node}),
        "opset": next(entry.version for entry in graph.opset_import if entry.domain == ""),
    }


@pytest.mark.parametrize("name", CASES)
def test_case_converts_and_equals_encode(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = case.build()
    artifact = sbertconv.to_onnx(model, tmp_path / "model", engines=case.engines, **case.options)
    report = artifact.manifest["parity"]
    assert report["passed"]
    usual = USUAL_CHECKS[artifact.manifest["graphs"][0]["modality"]]
    assert {check["name"].split(": ")[-1] for check in report["checks"]} >= usual | set(case.checks)
    found, expected = summary(artifact), USUALLY | case.expected
    assert {key: found[key] for key in expected} == expected
    if name in ARCHITECTURES:
        assert_equals_the_module(model, artifact.folder, case.engines)
