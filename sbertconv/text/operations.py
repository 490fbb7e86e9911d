"""The few operations on vectors of integers that every tokenizer is written in, and what can be said in terms of them.

A tokenizer's algorithm is written once, against `Operations`. An emitter (`onnx_emitter.py`, `tf_emitter.py`) says what
each operation is in its own graph; there is nothing else that an emitter does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

INT, LONG, BOOL, DOUBLE = "int32", "int64", "bool", "float64"
END = 0x110000  # the pseudo character after every text, and before the first; those of added tokens follow it


class Tensor:
    """A value of a graph that is being made, with Python's operators.

    Args:
        ops: whose graph.
        value: the emitter's own handle.
        dtype: INT, LONG, BOOL or DOUBLE.
        rank: 0 or 1; 2 for the results.
    """

    __slots__ = ("dtype", "ops", "rank", "value")
    ops: Operations
    value: Any
    dtype: str
    rank: int

    def __init__(self, ops: Operations, value: Any, dtype: str, rank: int = 1) -> None:
        self.ops, self.value, self.dtype, self.rank = ops, value, dtype, rank

    def _with(self, name: str, other: Any, dtype: str | None = None, swap: bool = False) -> Tensor:
        pair = [self, self.ops.lift(other, self.dtype)]
        return self.ops.apply(name, pair[::-1] if swap else pair, dtype or self.dtype)

    def __add__(self, other: Any) -> Tensor:
        return self._with("add", other)

    def __sub__(self, other: Any) -> Tensor:
        return self._with("sub", other)

    def __rsub__(self, other: Any) -> Tensor:
        return self._with("sub", other, swap=True)

    def __mul__(self, other: Any) -> Tensor:
        return self._with("mul", other)

    def __floordiv__(self, other: Any) -> Tensor:
        """Of numbers that are not negative."""
        return self._with("div", other)

    def __mod__(self, other: Any) -> Tensor:
        """Of numbers that are not negative."""
        return self._with("mod", other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._with("equal", other, BOOL)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self.__eq__(other).__invert__()

    def __lt__(self, other: Any) -> Tensor:
        return self._with("less", other, BOOL)

    def __gt__(self, other: Any) -> Tensor:
        return self._with("less", other, BOOL, swap=True)

    def __ge__(self, other: Any) -> Tensor:
        return self.__lt__(other).__invert__()

    def __le__(self, other: Any) -> Tensor:
        return self.__gt__(other).__invert__()

    def __and__(self, other: Tensor) -> Tensor:
        return self._with("and", other)

    def __or__(self, other: Tensor) -> Tensor:
        return self._with("or", other)

    def __invert__(self) -> Tensor:
        return self.ops.apply("not", [self], BOOL)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, index: Any) -> Tensor:
        """A slice with whole bounds (negative ones from the end), the element at a position, or one at each index."""
        if isinstance(index, slice):
            return self.ops.slice(self, index.start, index.stop)
        if isinstance(index, int):
            return self.ops.reduce("max", self.ops.slice(self, index, index + 1 or None))
        return self.ops.gather(self, index)

    @property
    def number(self) -> Tensor:
        """As 32-bit integers."""
        return self if self.dtype == INT else self.ops.cast(self, INT)


State = Sequence[Tensor]


class Operations(ABC):
    """What an emitter provides. Vectors are int32 unless said otherwise; indices must be inside the vector."""

    @abstractmethod
    def constant(self, array: Any, dtype: str = INT) -> Tensor:
        """A constant scalar or vector; the same content becomes one constant."""

    @abstractmethod
    def characters(self, inputs: Sequence[Any]) -> Tensor:
        """Inputs of strings [n] -> the code points of all of them in one vector: END, text, END, text, END, ..."""

    @abstractmethod
    def integers(self, given: Any) -> Tensor:
        """An input of integers [n], int64 or int32."""

    @abstractmethod
    def apply(self, name: str, inputs: Sequence[Tensor], dtype: str) -> Tensor:
        """add, sub, mul, div, mod, min, max, equal, less, and, or, not; element by element, with broadcasting."""

    @abstractmethod
    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """Another type."""

    @abstractmethod
    def where(self, condition: Tensor, yes: Any, no: Any) -> Tensor:
        """Element by element; not of bools, which ONNX Runtime cannot choose between."""

    @abstractmethod
    def size(self, x: Tensor) -> Tensor:
        """How many elements, a scalar."""

    @abstractmethod
    def range(self, count: Tensor) -> Tensor:
        """0, 1, ..., count - 1."""

    @abstractmethod
    def fill(self, count: Tensor, value: int | float | bool, dtype: str = INT) -> Tensor:
        """The same value so many times."""

    @abstractmethod
    def concat(self, parts: Sequence[Tensor], axis: int = 0) -> Tensor:
        """One vector after the other; or matrices, one beside the other with axis 1."""

    @abstractmethod
    def slice(self, x: Tensor, start: int | Tensor | None, stop: int | None, axis: int = 0) -> Tensor:
        """Elements from start to before stop, columns with axis 1; negative ones count from the end."""

    @abstractmethod
    def reshape(self, x: Tensor, shape: Sequence[Any]) -> Tensor:
        """A vector as a matrix, or the other way around; -1 for what follows from the rest."""

    @abstractmethod
    def gather(self, table: Tensor, index: Tensor) -> Tensor:
        """table[index], element by element (rows of a matrix)."""

    @abstractmethod
    def compress(self, x: Tensor, mask: Tensor) -> Tensor:
        """The elements where the mask is true."""

    @abstractmethod
    def scatter(self, base: Tensor, index: Tensor, values: Tensor, reduction: str = "none") -> Tensor:
        """Base with base[index] = values; indices differ, unless the reduction is "min" or "max"."""

    @abstractmethod
    def cumsum(self, x: Tensor) -> Tensor:
        """Running sums, the own element included."""

    @abstractmethod
    def reduce(self, name: str, x: Tensor, axis: int | None = None) -> Tensor:
        """The "max" or "min" of all elements (there must be one), or their "sum", a scalar; or along the last axis of a
        matrix.
        """

    @abstractmethod
    def argmax(self, x: Tensor) -> Tensor:
        """The first largest element of each row of a matrix."""

    @abstractmethod
    def sort(self, x: Tensor) -> Tensor:
        """Ascending; int64, no two the same."""

    @abstractmethod
    def loop(self, goes_on: Callable[..., Tensor], body: Callable[..., State], state: State) -> list[Tensor]:
        """While `goes_on(*state)`, `state = body(*state)`; sizes may change, ranks may not."""

    def lift(self, value: Any, dtype: str = INT) -> Tensor:
        """A Python number as a constant."""
        return value if isinstance(value, Tensor) else self.constant(value, dtype)

    def any(self, mask: Tensor) -> Tensor:
        """Whether one is true, a scalar; of none it is false."""
        return self.reduce("max", self.concat([mask.number, self.constant([0])])) > 0

    def maximum(self, x: Tensor, least: int = 0) -> Tensor:
        """The largest element, or `least`, a scalar."""
        return self.reduce("max", self.concat([x, self.constant([least])]))

    def sum(self, x: Tensor) -> Tensor:
        """Of all elements, a scalar."""
        return self.reduce("sum", x)

    def nonzero(self, mask: Tensor) -> Tensor:
        """The indices where the mask is true."""
        return self.compress(self.range(self.size(mask)), mask)

    def next(self, x: Tensor, last: Any) -> Tensor:
        """Every element's right neighbour."""
        return self.concat([x[1:], self.constant([last], x.dtype)])

    def previous(self, x: Tensor, first: Any) -> Tensor:
        """Every element's left neighbour."""
        return self.concat([self.constant([first], x.dtype), x[:-1]])

    def repeat(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Which element each place belongs to if element i takes counts[i] places, and the how-manieth it is there."""
        ends = self.cumsum(counts)
        some = counts > 0
        kept, first = self.compress(self.range(self.size(counts)), some), self.compress(ends - counts, some)
        total = self.maximum(ends)
        marks = self.scatter(self.fill(total, 0), first, self.fill(self.size(first), 1))
        group = self.cumsum(marks) - 1
        return kept[group], self.range(total) - first[group]
