"""Layers that are the same are traced once, and the graph is the one of a trace of each."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from sbertconv.converters import exporting, repeated
from sbertconv.converters.exporting import exported

COUNT, WIDTH = 8, 4


class Layer(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) * mask + x


class ReadsItsNumber(Layer):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, mask) * self.number


class ReadsADefault(Layer):
    scale = 1.0

    def __init__(self, number: int) -> None:
        super().__init__(number)
        if number == COUNT - 1:
            self.scale = 3.0

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, mask) * self.scale


class HasAFunction(Layer):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.then = lambda x: x + number

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.then(super().forward(x, mask))


class HasAConstant(Layer):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.steps = torch.arange(WIDTH) * number

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, mask) + self.steps


class HasABuffer(Layer):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.register_buffer("steps", torch.arange(WIDTH) * number)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, mask) + self.steps


class Counts(Layer):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", self.number) + 1
        return super().forward(x, mask) * self.calls


class WritesIntoItsInput(Layer):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x += self.linear(x)
        return x


class WritesIntoItsOwn(Layer):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        found = self.linear(x)
        found += mask
        return found.tanh_()


class Casts(Layer):
    """A cast to the dtype that a tensor has gives the tensor itself, by another node."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, mask) + x.to(torch.float32) * 2 + x


class GivesBack(Layer):
    def forward(self, x: Tensor, mask: Tensor) -> Any:
        left, right = self.linear(x).chunk(2, -1)
        return {"x": torch.cat([right, left], -1) + mask, "mask": mask, "number": None}


class TakesItTwice(Layer):
    def forward(self, x: Tensor, mask: Tensor, again: Tensor | None = None) -> Tensor:
        return super().forward(x, mask) + (0 if again is None else again)


class Stack(nn.Module):
    def __init__(self, kind: type[Layer]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.ModuleList(kind(number) for number in range(COUNT))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        first = x = x * 1
        for number, layer in enumerate(self.layers):
            given = {"again": first if number % 2 else x} if isinstance(layer, TakesItTwice) else {}
            found = layer(x, mask, **given)
            x, mask = (found["x"], found["mask"]) if isinstance(found, dict) else (found, mask)
        return x


def program_of(module: nn.Module, given: tuple[Tensor, ...], shapes: Any, once: bool) -> tuple[Any, int]:
    """A module's program, and how many of its layers are copies."""
    copies = []
    with pytest.MonkeyPatch.context() as patch:
        own = repeated.Trace.copied
        patch.setattr(repeated.Trace, "copied", lambda *args: copies.append(own(*args)) or copies[-1])
        if not once:
            patch.setattr(exporting, "same_layers_once", contextlib.nullcontext)
        program = exported(module, given, shapes=shapes)
    return program, sum(found is not repeated.NONE for found in copies)


def lines(program: Any) -> list[str]:
    """The graph with its nodes numbered in order: sizes that only the tracer has asked for leave gaps."""
    names: dict[str, str] = {}
    for node in program.graph.nodes:
        names[node.name] = f"{re.sub(r'_[0-9]+$', '', node.name)}#{len(names)}"
    return [
        f"{names[node.name]} {node.op} {node.target} "
        + re.sub(r"\w+", lambda word: names.get(word[0], word[0]), f"{node.args} {node.kwargs}")
        + f" {getattr(node.meta.get('val'), 'shape', '')} {dict(node.meta.get('nn_module_stack') or {})}"
        for node in program.graph.nodes
    ]


@pytest.mark.parametrize(
    ("kind", "copies"),
    [
        (Layer, True),
        (HasABuffer, True),
        (WritesIntoItsOwn, True),
        (Casts, True),
        (GivesBack, True),
        (ReadsItsNumber, False),
        (ReadsADefault, True),
        (HasAFunction, False),
        (HasAConstant, False),
        (Counts, False),
        (WritesIntoItsInput, False),
        (TakesItTwice, True),
    ],
)
def test_what_stands_for_another_layer_gives_its_answer(kind: type[Layer], copies: bool) -> None:
    shapes = ({0: torch.export.Dim("rows")}, {0: torch.export.Dim("rows")})
    given = torch.randn(3, WIDTH), torch.rand(3, 1)
    attributes = {parent: dict(vars(parent)) for parent in kind.__mro__}
    module = Stack(kind)
    once, copied = program_of(module, given, shapes, once=True)
    each, _ = program_of(Stack(kind), given, shapes, once=False)
    assert bool(copied) == copies
    assert lines(once) == lines(each)
    assert {parent: dict(vars(parent)) for parent in kind.__mro__} == attributes
    assert not any("forward" in vars(part) for part in module.modules())
    other = torch.randn(7, WIDTH), torch.rand(7, 1)
    torch.testing.assert_close(once.module()(*(x.clone() for x in other)), Stack(kind)(*other))


@pytest.mark.parametrize("name", ["bert", "t5", "modernbert", "gpt2"])
def test_architectures_have_the_graph_of_a_trace_of_each_layer(name: str) -> None:
    layers = {"t5": "num_layers", "gpt2": "n_layer"}.get(name, "num_hidden_layers")
    model = tiny.transformer(name, **{layers: 7}).eval()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            return self.model(features)["token_embeddings"]

    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=48)},) * 2
    given = torch.randint(5, 40, (3, 9)), torch.ones(3, 9, dtype=torch.int64)
    with torch.no_grad():
        (once, copied), (each, _) = (program_of(Whole(), given, shapes, once) for once in (True, False))
    assert copied >= 2
    assert lines(once) == lines(each)
