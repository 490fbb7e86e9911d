"""The graph given directly: rows of nothing but padding, masks with holes, padding on both sides.

Servers make such rows when they pad the batch. That the fused graph of every architecture gives what its module gives
is part of the parity table, see test_parity.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cases
import numpy as np
import onnx
import pytest
import tiny
import torch

import sbertconv

LENGTH = 12
MASKS = {
    "nothing but padding": [0] * LENGTH,
    "no padding": [1] * LENGTH,
    "padded on the right": [1] * 4 + [0] * 8,
    "padded on the left": [0] * 7 + [1] * 5,
    "padded on both sides": [0] * 3 + [1] * 6 + [0] * 3,
    "holes": [1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1],
}
IDS = 90  # of every tiny vocabulary


def feeds() -> dict[str, np.ndarray[Any, Any]]:
    mask = np.array(list(MASKS.values()), np.int64)
    ids = np.random.default_rng(0).integers(5, IDS, mask.shape)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}


def assert_equals_the_module(model: Any, folder: Path, engines: tuple[str, ...] = ("onnxruntime",)) -> None:
    """Every output of the folder's first graph is that of the model's modules, row by row."""
    given = feeds()
    for engine in engines:
        (graph, *_) = sbertconv.load(folder, engine=engine).graphs
        module = sbertconv.pipeline(model, outputs=graph.outputs)
        with torch.no_grad():
            expected = module(**{name: torch.from_numpy(given[name]) for name in module.inputs if name in given})
        found = graph.run({name: given[name] for name in graph.inputs})
        for name, theirs in expected.items():
            for row, what in enumerate(MASKS):
                np.testing.assert_allclose(
                    found[name][row], theirs[row].numpy(), atol=2e-5, rtol=2e-5, err_msg=f"{engine}, {name}, {what}"
                )


@pytest.mark.parametrize(("model_type", "optimize"), [("bert", False), ("modernbert", True), ("qwen3", True)])
def test_every_token_of_every_row_is_that_of_the_module(model_type: str, optimize: bool, tmp_path: Path) -> None:
    model = tiny.architecture(model_type)
    outputs = ["sentence_embedding", "token_embeddings"]
    sbertconv.to_onnx(model, tmp_path / "model", optimize=optimize, outputs=outputs)
    assert_equals_the_module(model, tmp_path / "model")


UNEVEN = ["fox", "a brown fox", "how many people live in berlin"]


def test_a_text_has_the_vector_of_a_padded_batch_where_the_library_drops_the_mask(tmp_path: Path) -> None:
    model = cases.aimv2()
    padded, alone = model.encode(UNEVEN), np.stack([model.encode(text) for text in UNEVEN])
    assert np.abs(padded - alone).max() > 0.01
    artifact = sbertconv.to_onnx(model, tmp_path / "model")
    (note,) = artifact.manifest["notes"]
    assert "leaves the causal mask out there" in note
    assert not artifact.manifest["sees_padding"]
    embedder = sbertconv.load(artifact.folder)
    for found in (embedder.encode(UNEVEN), np.stack([embedder.encode(text) for text in UNEVEN])):
        np.testing.assert_allclose(found, padded, atol=1e-5, rtol=1e-5)
    assert sbertconv.verify(model, artifact.folder).passed
    np.testing.assert_array_equal(model.encode(UNEVEN[0]), alone[0])  # the library is as it was


def test_eager_attention_needs_no_note(tmp_path: Path) -> None:
    model = cases.aimv2(model_kwargs={"attn_implementation": "eager"})
    artifact = sbertconv.to_onnx(model, tmp_path / "model")
    assert not artifact.manifest["notes"]
    alone = np.stack([model.encode(text) for text in UNEVEN])
    np.testing.assert_allclose(alone, cases.aimv2().encode(UNEVEN), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("mode", "factors"), [("cls", 1), ("mean", 0)])
def test_only_what_reads_padding_pays_for_it(mode: str, factors: int, tmp_path: Path) -> None:
    model = cases.bert(cases.pooling(mode))
    sbertconv.to_onnx(model, tmp_path / "model")
    nodes = onnx.load(tmp_path / "model" / "onnx" / "model.onnx").graph.node
    assert sum(node.op_type == "ReduceMax" for node in nodes) == factors
    assert_equals_the_module(model, tmp_path / "model")
