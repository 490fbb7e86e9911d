"""What torch.export takes for granted of the sizes of its inputs, and the lengths at which that ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sbertconv.converters.branches import SIDES
from sbertconv.errors import WAYS_OUT, UnsupportedModuleError
from sbertconv.frameworks import private

if TYPE_CHECKING:
    import torch

FACTS = "facts"  # in the meta of a graph of ONNX: those of its trace
CHOOSES = "chooses_tokens"  # of the manifest's entry of a graph
GUARDS = "_guards_code"  # of an ExportedProgram: expressions of Python on the tensors of `L`
ROWS, LENGTH = 3, 37  # of a batch, where the other of the two varies
MOST_ROWS = 64
SWEPT = 8192  # tokens, where texts have no limit
MOST_SWEPT = 1 << 17  # tokens, far beyond what is compared, where a limit is any number of a file


def guards_of(program: torch.export.ExportedProgram) -> list[str]:
    """The conditions on sizes under which a program does what the module does.

    Raises:
        MissingDependencyError: if this version of PyTorch keeps them elsewhere.
    """
    return [str(guard) for guard in private(program, GUARDS, "torch")]


def chooses_tokens(program: torch.export.ExportedProgram) -> bool:
    """Whether it takes the best of as many as there are tokens: which of equally good ones may then be decided by the
    padding of the batch, in the library too.
    """
    import torch

    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.topk.default):
        values, _, *more = node.args
        axis = more[0] if more else node.kwargs.get("dim", -1)
        if not isinstance(values.meta["val"].shape[axis], int):
            return True
    return False


@dataclass(frozen=True)
class TraceFacts:
    """What a trace takes for granted.

    Attributes:
        guards: conditions on sizes, see `guards_of`.
        chooses: whether it takes the best of the tokens, see `chooses_tokens`.
        sides: the lines of the model's code with a branch on data, of which it has one side.
    """

    guards: tuple[str, ...] = ()
    chooses: bool = False
    sides: tuple[str, ...] = ()

    @classmethod
    def of(cls, program: torch.export.ExportedProgram) -> TraceFacts:
        """Of a traced program, as `sbertconv.converters.exporting.exported` gives it."""
        sides = program.graph_module.meta.get(SIDES, ())
        return cls(tuple(guards_of(program)), chooses_tokens(program), sides)

    @classmethod
    def together(cls, facts: Iterable[TraceFacts]) -> TraceFacts:
        """Of several traces that make one graph."""
        every = list(facts)
        guards = [guard for one in every for guard in one.guards]
        sides = [side for one in every for side in one.sides]
        return cls(tuple(guards), any(one.chooses for one in every), tuple(dict.fromkeys(sides)))

    def section(self, limits: Mapping[str, Any] | None) -> dict[str, Any]:
        """The manifest's keys of a graph, where there is anything to say.

        Args:
            limits: see `guarded_lengths`, whose errors it raises.
        """
        keys = {"guarded": guarded_lengths(self.guards, limits), CHOOSES: self.chooses, SIDES: list(self.sides)}
        return {key: value for key, value in keys.items() if value}


def forget_guards(program: torch.export.ExportedProgram) -> None:
    """Hold a program to no guard: those on sizes of 0 or 1 are wrong, and the lengths of the others are compared."""
    guards_of(program)
    setattr(program, GUARDS, [])


class _Sized:
    """Every input of a program: tensors [rows, length], however they are named and nested."""

    def __init__(self, rows: int, length: int) -> None:
        self.sizes = (rows, length)

    def __getitem__(self, key: Any) -> _Sized:
        return self

    def size(self) -> tuple[int, int]:
        return self.sizes


def guarded_lengths(guards: Iterable[str], limits: Mapping[str, Any] | None) -> list[int]:
    """The lengths between which the truth of a guard changes, ascending: beyond them the program may be another.

    Args:
        guards: of `guards_of`.
        limits: the manifest's `tokenizer` entry; None for images, whose size is fixed.

    Raises:
        UnsupportedModuleError: for a guard that cannot be read, or on how many texts there are.
    """
    if limits is None:
        return []
    named = [limits["max_length"], *limits["task_max_length"].values()]
    most = min(max((int(limit) for limit in named if limit is not None), default=SWEPT), MOST_SWEPT)
    found: set[int] = set()
    for guard in guards:
        if len(set(_truths(guard, ((rows, LENGTH) for rows in range(2, MOST_ROWS + 1))))) > 1:
            raise UnsupportedModuleError(f"The trace holds for some numbers of texts only: {guard}\n{WAYS_OUT}")
        truths = list(_truths(guard, ((ROWS, length) for length in range(1, most + 1))))
        found |= {length + step for length in range(1, most) for step in (0, 1) if truths[length - 1] != truths[length]}
    return sorted(found)


def _truths(guard: str, sizes: Iterable[tuple[int, int]]) -> Iterator[bool]:
    """Whether a guard holds for tensors of each size."""
    try:
        code = compile(guard, "<guard>", "eval")
        for rows, length in sizes:
            names = {"__builtins__": {"min": min, "max": max, "abs": abs}, "math": math, "L": _Sized(rows, length)}
            try:
                yield bool(eval(code, names))
            except ZeroDivisionError:  # a size that divides is 0 there, and the guard does not hold
                yield False
    except Exception as error:
        raise UnsupportedModuleError(
            f"The trace holds under a condition that cannot be read: {guard}\n{WAYS_OUT}"
        ) from error
