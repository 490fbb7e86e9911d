"""Sizes that stay open in a trace, and those that the code of a model takes for a number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sbertconv.converters.exporting import exported
from sbertconv.converters.traced import traceable

EXAMPLE = (3, 11)  # rows and tokens of what is traced


class Holder(torch.nn.Module):
    """A function of one tensor as a model whose code stands in this file."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def traced(function: Callable[[Tensor], Tensor]) -> torch.export.ExportedProgram:
    module, dynamic = Holder(function), torch.export.Dim.DYNAMIC
    with traceable(module):
        return exported(module, (torch.rand(EXAMPLE),), shapes=({0: dynamic, 1: dynamic},))


def largest_of_many(x: Tensor) -> Tensor:
    return x.topk(8).values if x.shape[1] > 8 else x.sort(descending=True).values


def largest_of_some(x: Tensor) -> Tensor:
    return torch.topk(x, min(8, x.shape[1]), dim=1).values


def last_token(x: Tensor) -> Tensor:
    """Of each text, squeezed without an axis."""
    return x.gather(1, torch.ones_like(x[:, :1], dtype=torch.int64)).squeeze() * 2


def in_halves(x: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(x, (0, x.shape[1]))
    return padded.view(x.shape[0], 2, torch.div(padded.shape[1], 2, rounding_mode="trunc")).sum(1)


def transformed(x: Tensor) -> Tensor:
    return torch.fft.fft(torch.fft.fft(x, axis=1), dim=0).real


EXPERTS = {"expert_0": torch.sin, "expert_1": torch.exp, "expert_2": torch.cos}


def by_expert(x: Tensor) -> Tensor:
    """Each number by the expert that takes it, of which the second takes none."""
    total, taken = torch.zeros_like(x), torch.nn.functional.one_hot(2 * (x > 0.5).long(), 3).permute(2, 0, 1)
    for number in (taken.sum((1, 2)) > 0).nonzero():
        rows, columns = torch.where(taken[number].squeeze(0))
        if rows.numel() == 0:
            continue
        total = total.index_put((rows, columns), EXPERTS[f"expert_{number[0]}"](x[rows, columns]))
    return total


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (by_expert, [(2, 5), (1, 8)]),
        (transformed, [(2, 5), (1, 8)]),
        (largest_of_many, [(2, 5), (2, 8), (2, 9), (2, 40)]),
        (largest_of_some, [(2, 5), (2, 8), (2, 9), (2, 40)]),
        (last_token, [(1, 5), (2, 5)]),
        (in_halves, [(2, 4), (3, 11), (5, 7)]),
    ],
)
def test_a_trace_holds_for_other_sizes(function: Callable[[Tensor], Tensor], shapes: list[tuple[int, int]]) -> None:
    program = traced(function)
    constants = [program.constants[spec.target] for spec in program.graph_signature.input_specs if spec.target]
    for shape in shapes:
        x = torch.rand(shape)
        (found,) = program.graph_module(*constants, x)
        expected = function(x).reshape(found.shape)  # PyTorch drops the batch of one text, and a graph must not
        torch.testing.assert_close(found, expected)
        assert len(found) == len(x)


def test_a_size_that_is_taken_for_a_number_is_named_with_its_line() -> None:
    def reversed_places(x: Tensor) -> Tensor:
        return x + torch.tensor(list(range(x.shape[1]))[::-1])

    with pytest.raises(Exception, match="Constraints violated") as raised:
        traced(reversed_places)
    assert "return x + torch.tensor(list(range(x.shape[1]))[::-1])" in str(raised.value.__notes__)


def test_what_a_model_calls_is_put_back() -> None:
    before = torch.topk
    with traceable(Holder(largest_of_some)):
        pass
    assert torch.topk is before
