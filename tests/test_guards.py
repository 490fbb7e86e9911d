"""What a trace takes for granted of sizes is read: it holds, or its end is a length to compare, or it is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sbertconv import MissingDependencyError, UnsupportedModuleError
from sbertconv.converters.exporting import exported as exported_program
from sbertconv.converters.guards import (
    TraceFacts,
    chooses_tokens,
    forget_guards,
    guarded_lengths,
    guards_of,
    swept_lengths,
    swept_places,
)
from sbertconv.converters.onnx.backend import _translate_scripted
from sbertconv.converters.places import place_of
from sbertconv.converters.sizes import traceable_sizes
from sbertconv.source.torch_compat import BranchOnData

LIMITS = {"max_length": 128, "task_max_length": {"query": 32}}


class Switch(torch.nn.Module):
    """Another result for texts of more than 20 tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[1] > 20 else x


class Best(torch.nn.Module):
    """The two best of each row, or of each column of two."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.topk(x[..., None].expand(-1, -1, 4), 2, self.axis).values.sum(-1)


def exported(module: torch.nn.Module | None = None) -> torch.export.ExportedProgram:
    dynamic = torch.export.Dim.DYNAMIC
    return torch.export.export(
        module or Switch(), (torch.ones(3, 11),), dynamic_shapes=(({0: dynamic, 1: dynamic}),), strict=False
    )


@pytest.mark.parametrize(("axis", "chooses"), [(1, True), (-2, True), (-1, False)])
def test_the_best_of_the_tokens_is_told_from_the_best_of_the_experts(axis: int, chooses: bool) -> None:
    assert chooses_tokens(exported(Best(axis))) is chooses


@pytest.mark.parametrize(
    ("guard", "lengths"),
    [
        ("L['ids'].size()[1] == L['mask'].size()[1]", []),
        ("L['mask'].size()[0] <= L['ids'].size()[0]", []),
        ("L['ids'].size()[1] <= 64", [64, 65]),
        ("L['ids'].size()[1] <= 512", []),  # beyond every text
        ("(-1)*L['tensors'][0].size()[1] > -100", [99, 100]),
        ("((2*L['ids'].size()[1] - 1) % L['ids'].size()[1]) != 0", [1, 2]),
        ("L['ids'].size()[0]*L['ids'].size()[1] != 96", [31, 32, 33]),
        ("(L['ids'].size()[0] % (L['ids'].size()[0]*((-8) + min(16, L['ids'].size()[1])))) != 0", [6, 7, 9, 10]),
    ],
)
def test_a_guard_is_compared_where_its_truth_changes(guard: str, lengths: list[int]) -> None:
    assert guarded_lengths([guard], swept_lengths(LIMITS)) == lengths


def test_guards_of_texts_without_a_limit_and_of_images() -> None:
    assert guarded_lengths(
        ["L['ids'].size()[1] <= 512"], swept_lengths({"max_length": None, "task_max_length": {}})
    ) == [512, 513]
    assert guarded_lengths(["L['pixels'].size()[0] <= 512"], swept_lengths(None)) == []


@pytest.mark.parametrize("guard", ["L['ids'].size()[0] <= 16", "L['ids'].data[0] > 3", "a guard", "__import__('os')"])
def test_a_guard_on_anything_else_is_refused_with_its_text(guard: str) -> None:
    with pytest.raises(UnsupportedModuleError) as error:
        guarded_lengths([guard], swept_lengths(LIMITS))
    assert guard in str(error.value)


def test_the_guards_of_a_branch_are_found_and_forgotten() -> None:
    program = exported()
    assert guarded_lengths(guards_of(program), swept_lengths(LIMITS)) == [20, 21]
    forget_guards(program)
    assert guards_of(program) == []


def test_a_traced_layer_of_keras_keeps_the_guards_of_its_trace() -> None:
    pytest.importorskip("keras")
    from sbertconv.converters.keras.tracing import traced_layer

    class Features(torch.nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"found": Switch()(features["input_ids"])}

    layer = traced_layer(Features(), {"input_ids": torch.ones(3, 11, dtype=torch.int64)}, "switch", "", {})
    assert guarded_lengths(layer.facts.guards, swept_lengths(LIMITS)) == [20, 21]


def test_a_program_without_guards_where_they_are_looked_for_is_an_error() -> None:
    without: Any = object()
    with pytest.raises(MissingDependencyError, match="has no _guards_code"):
        guards_of(without)


class Branch(torch.nn.Module):
    """Another way for texts of more than so many tokens; seen by TorchScript's tracer as a warning alone."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.pipeline: Any = SimpleNamespace(outputs=["y"])

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor]:
        if ids.shape[1] > self.most:
            return (ids * mask,)
        return (ids + mask,)


def scripted(most: int) -> Any:
    ids = torch.ones(3, 11, dtype=torch.int64)
    options: Any = SimpleNamespace(opset=18)
    chain: Any = Branch(most)
    return _translate_scripted(chain, {"input_ids": ids, "attention_mask": ids}, options)


@pytest.mark.filterwarnings("ignore")
def test_a_branch_that_a_shorter_text_does_not_take_is_refused_with_its_line() -> None:
    with pytest.raises(UnsupportedModuleError, match=r"test_guards\.py:\d+: if ids\.shape\[1\] > self\.most"):
        scripted(8)
    assert [node.op_type for node in scripted(20).graph] == ["Add"]


def test_the_line_of_an_error_is_the_last_one_of_the_models_code() -> None:
    def forward(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.view(7)

    with pytest.raises(RuntimeError) as raised:
        torch.nn.Sequential(torch.nn.Identity()).apply(lambda part: forward(torch.ones(3)))
    assert "test_guards.py" in place_of(raised.value)
    assert "return tokens.view(7)" in place_of(raised.value)
    assert place_of(ValueError()) == ""


def test_a_limit_of_billions_is_not_looked_through() -> None:
    guards = ["L['ids'].size()[1] <= 512"]
    assert guarded_lengths(guards, swept_lengths({"max_length": 10**9, "task_max_length": {"query": 10**12}})) == [
        512,
        513,
    ]


class Asking(torch.nn.Module):
    """Hides numbers where any is marked, as a mask of padding; and adds to those above a limit, which none is."""

    def forward(self, x: torch.Tensor, marked: torch.Tensor) -> torch.Tensor:
        if marked.any():
            x = x.masked_fill_(marked, 0)
        above = (x > 100).any().item()
        return x + 1 if above else x * 2


def test_a_branch_on_data_has_the_side_of_the_example_and_says_so() -> None:
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    example = torch.ones(3, 11), torch.ones(3, 11) > 2
    example[1][0, 7:] = True
    program = exported_program(Asking(), example, shapes=(dynamic, dynamic))
    given, marked = torch.rand(2, 5), torch.zeros(2, 5, dtype=torch.bool)
    before = given.clone()
    torch.testing.assert_close(program.module()(given, marked), before * 2)
    torch.testing.assert_close(given, before)  # nothing is written into an input
    sides = TraceFacts.of(program).section(LIMITS)["sides"]
    assert [side.partition(": ")[2] for side in sides] == ["if marked.any():", "above = (x > 100).any().item()"]


def test_an_answer_of_the_data_that_the_model_cannot_give_ends_the_trace() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_compiling():
                raise RuntimeError("weights that only stand in for others")
            return x * 2 if (x > 0).all() else x

    with pytest.raises(BranchOnData):
        exported_program(Broken(), (torch.ones(3),), shapes=None)


def test_strides_hold_for_other_sizes_and_orders_of_numbers() -> None:
    """Chunks that overlap by half of a tensor whose axes lie in another order, as in windowed attention."""

    class Chunks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.transpose(0, 1).reshape(x.shape[1], x.shape[0] // 4, 4)
            size, stride = list(x.shape), list(x.stride())
            return x.as_strided([size[0], size[1] * 2 - 1, 4], [stride[0], stride[1] // 2, stride[2]])

    dynamic = {0: 4 * torch.export.Dim("chunks", min=2), 1: torch.export.Dim.DYNAMIC}
    with traceable_sizes(Chunks()):
        program = exported_program(Chunks(), (torch.rand(12, 3),), shapes=(dynamic,))
    assert not program.graph.find_nodes(op="call_function", target=torch.ops.aten.as_strided.default)
    for shape in ((12, 3), (8, 2), (24, 1), (12, 5)):
        x = torch.rand(shape)
        torch.testing.assert_close(program.module()(x), Chunks()(x))


def test_what_is_cut_off_the_end_may_be_nothing() -> None:
    """A padding to whole windows, where the example has one."""

    class Windows(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            more = (4 - x.shape[1] % 4) % 4
            if more > 0:
                x = torch.nn.functional.pad(x, (0, more))
            x = (x.view(x.shape[0], -1, 4) * 2).view(x.shape)
            return x[:, :-more] if more > 0 else x

    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = exported_program(Windows(), (torch.rand(3, 11),), shapes=(dynamic,))
    forget_guards(program)
    for length in (11, 8, 5):
        x = torch.rand(2, length)
        torch.testing.assert_close(program.module()(x), x * 2)


def test_samples_are_swept_closely_at_first_and_a_guard_on_odd_frames_names_few_lengths() -> None:
    lengths = swept_places(400, 2**24)
    assert lengths[:1000] == list(range(400, 1400))
    assert lengths[-1] == 2**24
    assert len(lengths) < 2**14
    odd = "((L['x'].size()[1] - 80) // 320) % 2 == 1"
    assert guarded_lengths([odd], lengths, 2) == [719, 720, 1039, 1040]
    assert guarded_lengths(["L['x'].size()[1] >= 10"], lengths, 2) == []
