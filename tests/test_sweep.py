"""The page of architectures: what it says holds for a few of them, and nothing on it is wrong. All: `make sweep`."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sweep

PAGE: dict[str, dict[str, Any]] = json.loads(sweep.RESULT.read_text(encoding="utf-8"))["architectures"]
SEED, FEW = 20, 5
ROUNDING = 5e-5  # a rule that is wrong is thousands of times as far


def rows(**wanted: str) -> list[tuple[str, str]]:
    return [(n, b) for n, found in PAGE.items() for b, row in found.items() if wanted.items() <= row.items()]


@pytest.mark.parametrize("status", ["wrong", "fails"])
def test_no_architecture_is_published_wrong_or_fails_in_another_way_than_it_should(status: str) -> None:
    assert not rows(status=status)


def test_no_graph_falls_back_to_one_that_is_not_fused() -> None:
    """But for rounding: a model may be as far as the tolerance from itself without fused operators too."""
    said = {
        name: row["fallback"] for name, found in PAGE.items() for backend, row in found.items() if "fallback" in row
    }
    apart = {name: re.search(r"max abs diff (\S+), cosine 1\.000000", reason) for name, reason in said.items()}
    assert not [name for name, found in apart.items() if found is None or float(found[1]) > ROUNDING]


def test_a_few_of_the_proven_ones_are_so_still(tmp_path: Path) -> None:
    proven = [name for name, backend in rows(status="proven") if backend == "onnx"]
    names = sorted(random.Random(SEED).sample(proven, FEW))
    command = [sys.executable, sweep.__file__, "--only", *names, "--backends", "onnx", "--folder", str(tmp_path)]
    subprocess.run([*command, "--jobs", str(os.cpu_count())], check=True, capture_output=True)
    found = sweep.read_ledger(tmp_path / "ledger.jsonl")
    assert {name: (row.status, row.attention) for (name, _), row in found.items()} == {
        name: ("proven", PAGE[name]["onnx"].get("attention", {})) for name in names
    }


def test_a_config_is_shrunk_and_keeps_a_layer_of_each_kind() -> None:
    kinds = ["a", "a", "b", "a", "a", "c"]
    config = {"num_hidden_layers": 6, "layer_types": kinds, "hidden_size": 768, "num_attention_heads": 12, "eps": 1e-5}
    found = sweep.shrunk(config | {"num_key_value_heads": 12, "nested": {"sliding_window": 512}}, {"eps": 1.0})
    assert found == {
        "num_hidden_layers": 3,
        "layer_types": ["a", "b", "c"],
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "eps": 1.0,
        "nested": {"sliding_window": 8},
    }
