"""The operations in numpy, one after the other: to see what happens in between, to test the algorithms alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sbertconv.text.operations import END, INT, Operations, State, Tensor

FUNCTIONS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.floor_divide, "mod": np.mod,
    "min": np.minimum, "max": np.maximum, "equal": np.equal, "less": np.less,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
}  # fmt: skip


REDUCTIONS: dict[str, Callable[..., Any]] = {"max": np.max, "min": np.min, "sum": np.sum}


class NumpyEmitter(Operations):
    """Computes at once; `value` of its tensors is an array."""

    def _tensor(self, value: Any, dtype: str = INT) -> Tensor:
        array = np.asarray(value, dtype)
        return Tensor(self, array, dtype, array.ndim)

    def constant(self, array: Any, dtype: str = INT) -> Tensor:
        return self._tensor(array, dtype)

    def integers(self, given: Any) -> Tensor:
        return self._tensor(given)

    def characters(self, inputs: Sequence[Sequence[str]]) -> Tensor:
        return self._tensor([END, *(code for texts in inputs for text in texts for code in (*map(ord, text), END))])

    def apply(self, name: str, inputs: Sequence[Tensor], dtype: str) -> Tensor:
        return self._tensor(FUNCTIONS[name](*(x.value for x in inputs)), dtype)

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return self._tensor(x.value, dtype)

    def where(self, condition: Tensor, yes: Any, no: Any) -> Tensor:
        dtype = next((x.dtype for x in (yes, no) if isinstance(x, Tensor)), INT)
        return self._tensor(np.where(condition.value, self.lift(yes, dtype).value, self.lift(no, dtype).value), dtype)

    def size(self, x: Tensor) -> Tensor:
        return self._tensor(x.value.size)

    def range(self, count: Tensor) -> Tensor:
        return self._tensor(np.arange(count.value))

    def fill(self, count: Tensor, value: int | float | bool, dtype: str = INT) -> Tensor:
        return self._tensor(np.full(count.value, value), dtype)

    def concat(self, parts: Sequence[Tensor], axis: int = 0) -> Tensor:
        return self._tensor(np.concatenate([part.value for part in parts], axis), parts[0].dtype)

    def slice(self, x: Tensor, start: int | Tensor | None, stop: int | None, axis: int = 0) -> Tensor:
        start = int(start.value) if isinstance(start, Tensor) else start
        return self._tensor(x.value[:, start:stop] if axis else x.value[start:stop], x.dtype)

    def reshape(self, x: Tensor, shape: Sequence[Any]) -> Tensor:
        sizes = [int(size.value) if isinstance(size, Tensor) else size for size in shape]
        return self._tensor(x.value.reshape(sizes), x.dtype)

    def gather(self, table: Tensor, index: Tensor) -> Tensor:
        if (index.value < 0).any():
            raise IndexError("an index is negative")
        return self._tensor(table.value[index.value], table.dtype)

    def compress(self, x: Tensor, mask: Tensor) -> Tensor:
        return self._tensor(x.value[mask.value], x.dtype)

    def scatter(self, base: Tensor, index: Tensor, values: Tensor, reduction: str = "none") -> Tensor:
        found = base.value.copy()
        if reduction == "none":
            found[index.value] = values.value
        else:
            {"min": np.minimum, "max": np.maximum}[reduction].at(found, index.value, values.value)
        return self._tensor(found, base.dtype)

    def cumsum(self, x: Tensor) -> Tensor:
        return self._tensor(np.cumsum(x.value), x.dtype)

    def reduce(self, name: str, x: Tensor, axis: int | None = None) -> Tensor:
        return self._tensor(REDUCTIONS[name](x.value, axis=axis), x.dtype)

    def argmax(self, x: Tensor) -> Tensor:
        return self._tensor(np.argmax(x.value, axis=-1))

    def sort(self, x: Tensor) -> Tensor:
        return self._tensor(np.sort(x.value), x.dtype)

    def loop(self, goes_on: Callable[..., Tensor], body: Callable[..., State], state: State) -> list[Tensor]:
        while goes_on(*state).value:
            state = body(*state)
        return list(state)
