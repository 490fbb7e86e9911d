"""Operations broken up one by one give what a second trace of the program gives, and the same graphs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny
import torch

from sbertconv.artifact.publishing import stage
from sbertconv.converters import default_registry
from sbertconv.converters.decomposing import decomposed
from sbertconv.converters.onnx import backend
from sbertconv.converters.onnx.backend import GraphSettings
from sbertconv.converters.onnx.writer import _write_route
from sbertconv.converters.traced import quiet
from sbertconv.plan.planning import plan_model


class Several(torch.nn.Module):
    """A composite with two results, one of which is an output as it is."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        left, right = x.chunk(2, -1)
        return left, (right.masked_fill(right > 0, 1.0)).to(torch.float64)


class WritesIntoItsOwn(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x * 2
        total += 1
        return total


class WritesIntoAView(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x * 2
        total[:, 0].add_(1)
        return total


class WritesAndReadsBefore(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x * 2
        before = total.view(-1)
        total.mul_(3)
        return before


class WritesIntoItsInput(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone() + x.mul_(2)


class WritesIntoTheSame(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x * 2
        total.to(x.dtype).add_(1)
        return total


class WritesWithin(torch.nn.Module):
    """An operation whose decomposition writes into a tensor of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (8,), eps=1e-5)


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.softmax(-1) + 1, lambda x: x - 1, (x,))


MODULES = [
    Several, WritesIntoItsOwn, WritesIntoAView, WritesAndReadsBefore, WritesIntoItsInput, WritesIntoTheSame,
    WritesWithin, Branches,
]  # fmt: skip


def exported(module: torch.nn.Module) -> torch.export.ExportedProgram:
    dynamic = torch.export.Dim.DYNAMIC
    return torch.export.export(module, (torch.ones(3, 8),), dynamic_shapes=({0: dynamic},), strict=False)


def operations(program: torch.export.ExportedProgram) -> Counter[str]:
    return Counter(str(node.target) for node in program.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_program_gives_the_same_in_simpler_operations(module: Callable[[], torch.nn.Module]) -> None:
    with quiet():
        program = decomposed(
            exported(module()), dict(torch.export.default_decompositions().items()), lambda operation: False
        )
    x = torch.linspace(-2, 2, 40).reshape(5, 8)
    torch.testing.assert_close(program.module()(x.clone()), module()(x.clone()))


def test_simpler_operations_are_in_no_table() -> None:
    table = dict(torch.export.default_decompositions().items())
    left = operations(decomposed(exported(WritesIntoItsOwn()), {}, lambda operation: True))
    assert set(left) == {"aten.mul.Tensor", "aten.add.Tensor"}
    for decompositions in (table, dict(torch._decomp.decomposition_table)):
        left = operations(decomposed(exported(WritesWithin()), decompositions, lambda operation: False))
        assert not {"aten.add_.Scalar", "aten.copy_.default"} & set(left)
    left = operations(decomposed(exported(Several()), table, lambda operation: False))
    assert not set(left) & {str(operation) for operation in table}


def test_what_is_kept_stays_as_it_is() -> None:
    names = operations(decomposed(exported(Several()), {}, lambda operation: "chunk" in str(operation)))
    assert names["aten.chunk.default"] == 1
    assert names["aten.to.dtype"] == 0


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "qwen3", "deberta-v2"])
def test_the_shortcuts_give_the_same_graph(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.architecture(architecture)
    quick = graph_of(model, tmp_path / "quick")
    for shortcut in ("quick_exporter", "rules_by_anchor", "optimized_once"):
        monkeypatch.setattr(backend, shortcut, contextlib.nullcontext)
    assert quick == graph_of(model, tmp_path / "slow")


def graph_of(model: Any, place: Path) -> Counter[Any]:
    """Every operation of a model's graph with its attributes and the number of its results."""
    (route,) = plan_model(model, "model", "onnx", default_registry()).routes
    place.mkdir()
    with stage(place / "model", overwrite=False) as staging:
        written = _write_route(route, True, model, GraphSettings(), staging, place, {})
    assert written["tracer"] == "torch.export"
    graph = onnx.load(next(place.rglob("*.onnx"))).graph
    return Counter((n.op_type, str(sorted(map(str, n.attribute))), len(n.input), len(n.output)) for n in graph.node)


def test_pieces_that_hold_for_one_size_alone_are_refused() -> None:
    table = {torch.ops.aten.relu.default: lambda x: x * 2 if x.shape[0] == 3 else x}
    with pytest.raises(ValueError, match=r"relu.* holds for a size of 3 alone"):
        decomposed(exported(torch.nn.ReLU()), table, lambda operation: False)
