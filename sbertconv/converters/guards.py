"""What torch.export takes for granted of the sizes of its inputs, and the lengths at which that ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from sbertconv.converters.branches import SIDES
from sbertconv.errors import WAYS_OUT, UnsupportedModuleError
from sbertconv.frameworks import private

if TYPE_CHECKING:
    import torch

    from sbertconv.plan.routes import Places

FACTS = "facts"  # in the meta of a graph of ONNX: those of its trace
CHOOSES = "chooses_tokens"  # of the manifest's entry of a graph
GUARDS = "_guards_code"  # of an ExportedProgram: expressions of Python on the tensors of `L`
ROWS, LENGTH = 3, 37  # of a batch, where the other of the two varies
MOST_ROWS = 64
SWEPT = 8192  # tokens, where texts have no limit
MOST_SAMPLES = 1 << 24  # of a sound
DENSE = 1024  # samples or rows beyond the fewest, and the share of a length that two lengths beside it differ in
CHANGES = 6  # of a guard on a sound's length: one that tells odd numbers of frames from even ones changes with each
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


def longest_of(program: torch.export.ExportedProgram) -> int | None:
    """The most that the second size of its first input can be, as far as the trace has found out; None: any."""
    names = program.graph_signature.user_inputs
    first = next(node.meta["val"] for node in program.graph.find_nodes(op="placeholder") if node.name in names[:1])
    size = first.shape[1] if first.ndim > 1 else None
    bounds = None if isinstance(size, int | None) else program.range_constraints.get(size.node.expr)
    return int(bounds.upper) if bounds is not None and bounds.upper < MOST_SAMPLES else None


@dataclass(frozen=True)
class TraceFacts:
    """What a trace takes for granted.

    Attributes:
        guards: conditions on sizes, see `guards_of`.
        chooses: whether it takes the best of the tokens, see `chooses_tokens`.
        sides: the lines of the model's code with a branch on data, of which it has one side.
        longest: the most that the second size of the first input can be, None: any.
    """

    guards: tuple[str, ...] = ()
    chooses: bool = False
    sides: tuple[str, ...] = ()
    longest: int | None = None

    @classmethod
    def of(cls, program: torch.export.ExportedProgram) -> TraceFacts:
        """Of a traced program, as `sbertconv.converters.exporting.exported` gives it."""
        sides = program.graph_module.meta.get(SIDES, ())
        return cls(tuple(guards_of(program)), chooses_tokens(program), sides, longest_of(program))

    @classmethod
    def together(cls, facts: Iterable[TraceFacts]) -> TraceFacts:
        """Of several traces that make one graph."""
        every = list(facts)
        guards = [guard for one in every for guard in one.guards]
        sides = [side for one in every for side in one.sides]
        longest = min((one.longest for one in every if one.longest is not None), default=None)
        return cls(tuple(guards), any(one.chooses for one in every), tuple(dict.fromkeys(sides)), longest)

    def section(self, tokenizer: Mapping[str, Any] | None, places: Places | None = None) -> dict[str, Any]:
        """The manifest's keys of a graph, where there is anything to say; raises the errors of `guarded_lengths`.

        Args:
            tokenizer: the manifest's entry, or None.
            places: of sounds of any length.
        """
        if places is None:
            longest, guarded = None, guarded_lengths(self.guards, swept_lengths(tokenizer))
        else:
            most = MOST_SAMPLES // places.step if self.longest is None else self.longest
            longest = None if self.longest is None else places.samples(self.longest)
            changes = guarded_lengths(self.guards, swept_places(places.fewest, most), CHANGES)
            guarded = [places.samples(count) for count in changes]
        keys = {
            "guarded": guarded,
            "longest": longest,
            CHOOSES: self.chooses,
            SIDES: list(self.sides),
        }
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


def swept_lengths(tokenizer: Mapping[str, Any] | None) -> list[int]:
    """Every length in tokens up to the limit.

    Args:
        tokenizer: the manifest's entry; None for images, whose size is fixed.
    """
    if tokenizer is None:
        return []
    named = [tokenizer["max_length"], *tokenizer["task_max_length"].values()]
    most = min(max((int(limit) for limit in named if limit is not None), default=SWEPT), MOST_SWEPT)
    return list(range(1, most + 1))


def swept_places(shortest: int, longest: int) -> list[int]:
    """Lengths in samples or rows: each of the first ones, where a frame more may change everything, then ever fewer."""
    found = [shortest]
    while found[-1] < longest:
        found.append(min(found[-1] + max((found[-1] - shortest) // DENSE, 1), longest))
    return found


def guarded_lengths(guards: Iterable[str], lengths: Sequence[int], most: int | None = None) -> list[int]:
    """The lengths between which the truth of a guard changes, ascending: beyond them the program may be another.

    Args:
        guards: of `guards_of`.
        lengths: ascending, at which guards are asked; none for images, whose size is fixed.
        most: changes of each guard, the first ones; None: all.

    Raises:
        UnsupportedModuleError: for a guard that cannot be read, or on how many texts there are.
    """
    if not lengths:
        return []
    found: set[int] = set()
    row_length = max(LENGTH, lengths[0])
    for guard in guards:
        if len(set(_truths(guard, ((rows, row_length) for rows in range(2, MOST_ROWS + 1))))) > 1:
            raise UnsupportedModuleError(f"The trace holds for some numbers of texts only: {guard}\n{WAYS_OUT}")
        truths = list(_truths(guard, ((ROWS, length) for length in lengths)))
        changes = (pair for pair, (a, b) in zip(pairwise(lengths), pairwise(truths), strict=True) if a != b)
        found |= {length for pair in islice(changes, most) for length in pair}
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
