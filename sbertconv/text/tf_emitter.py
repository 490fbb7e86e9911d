"""The operations in TensorFlow, which runs or traces them at once; stock operations only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.text.operations import END, INT, Operations, State, Tensor

if TYPE_CHECKING:
    from sbertconv.text.proof import Batch, Tokenize
    from sbertconv.text.tokenizer import GraphTokenizer


class TensorFlowEmitter(Operations):
    """Makes tensors; used inside a tf.function it makes a graph."""

    def __init__(self, tf: Any) -> None:
        self.tf = tf
        self._constants: dict[Any, Any] = {}
        math = tf.math
        self.functions = {
            "add": tf.add, "sub": tf.subtract, "mul": tf.multiply, "div": math.floordiv, "mod": math.floormod,
            "min": tf.minimum, "max": tf.maximum, "equal": tf.equal, "less": tf.less,
            "and": tf.logical_and, "or": tf.logical_or, "not": tf.logical_not,
        }  # fmt: skip

    def _tensor(self, value: Any, dtype: str = INT, rank: int = 1) -> Tensor:
        return Tensor(self, value, dtype, rank)

    def constant(self, array: Any, dtype: str = INT) -> Tensor:
        array = np.asarray(array, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        graph = None if self.tf.executing_eagerly() else self.tf.compat.v1.get_default_graph()
        outer = graph
        while outer is not None and (outer, key) not in self._constants:  # the body of a loop sees what is around it
            outer = getattr(outer, "outer_graph", None)
        found = self._constants.get((outer, key))
        if found is None:
            found = self._constants[graph, key] = self.tf.constant(array)
        return self._tensor(found, dtype, array.ndim)

    def integers(self, given: Any) -> Tensor:
        return self._tensor(self.tf.cast(given, INT))

    def characters(self, inputs: Sequence[Any]) -> Tensor:
        tf = self.tf
        rows = tf.strings.unicode_decode(tf.concat([[""], *inputs], axis=0), "UTF-8")
        ends = tf.fill(tf.stack([rows.nrows(), 1]), np.int32(END))
        return self._tensor(tf.concat([rows, ends], axis=1).flat_values)

    def apply(self, name: str, inputs: Sequence[Tensor], dtype: str) -> Tensor:
        found = self.functions[name](*(x.value for x in inputs))
        return self._tensor(found, dtype, max(x.rank for x in inputs))

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return self._tensor(self.tf.cast(x.value, dtype), dtype, x.rank)

    def where(self, condition: Tensor, yes: Any, no: Any) -> Tensor:
        dtype = next((x.dtype for x in (yes, no) if isinstance(x, Tensor)), INT)
        yes, no = self.lift(yes, dtype), self.lift(no, dtype)
        found = self.tf.where(condition.value, yes.value, no.value)
        return self._tensor(found, dtype, max(condition.rank, yes.rank, no.rank))

    def size(self, x: Tensor) -> Tensor:
        return self._tensor(self.tf.size(x.value), INT, 0)

    def range(self, count: Tensor) -> Tensor:
        return self._tensor(self.tf.range(count.value))

    def fill(self, count: Tensor, value: int | float | bool, dtype: str = INT) -> Tensor:
        return self._tensor(self.tf.fill(self.tf.reshape(count.value, [1]), np.array(value, dtype)), dtype)

    def concat(self, parts: Sequence[Tensor], axis: int = 0) -> Tensor:
        found = self.tf.concat([part.value for part in parts], axis=axis)
        return self._tensor(found, parts[0].dtype, parts[0].rank)

    def slice(self, x: Tensor, start: int | Tensor | None, stop: int | None, axis: int = 0) -> Tensor:
        start = start.value if isinstance(start, Tensor) else start
        found = x.value[:, start:stop] if axis else x.value[start:stop]
        return self._tensor(found, x.dtype, x.rank)

    def reshape(self, x: Tensor, shape: Sequence[Any]) -> Tensor:
        sizes = [size.value if isinstance(size, Tensor) else size for size in shape]
        return self._tensor(self.tf.reshape(x.value, sizes), x.dtype, len(shape))

    def gather(self, table: Tensor, index: Tensor) -> Tensor:
        return self._tensor(self.tf.gather(table.value, index.value), table.dtype, table.rank + index.rank - 1)

    def compress(self, x: Tensor, mask: Tensor) -> Tensor:
        return self._tensor(self.tf.boolean_mask(x.value, mask.value), x.dtype, x.rank)

    def scatter(self, base: Tensor, index: Tensor, values: Tensor, reduction: str = "none") -> Tensor:
        names = {"none": "tensor_scatter_nd_update", "min": "tensor_scatter_nd_min", "max": "tensor_scatter_nd_max"}
        found = getattr(self.tf, names[reduction])(base.value, index.value[:, None], values.value)
        return self._tensor(found, base.dtype)

    def cumsum(self, x: Tensor) -> Tensor:
        return self._tensor(self.tf.cumsum(x.value), x.dtype)

    def reduce(self, name: str, x: Tensor, axis: int | None = None) -> Tensor:
        function = {"max": self.tf.reduce_max, "min": self.tf.reduce_min, "sum": self.tf.reduce_sum}[name]
        return self._tensor(function(x.value, axis=axis), x.dtype, 0 if axis is None else x.rank - 1)

    def argmax(self, x: Tensor) -> Tensor:
        return self._tensor(self.tf.argmax(x.value, axis=-1, output_type=INT), INT, x.rank - 1)

    def sort(self, x: Tensor) -> Tensor:
        return self._tensor(self.tf.sort(x.value), x.dtype)

    def loop(self, goes_on: Callable[..., Tensor], body: Callable[..., State], state: State) -> list[Tensor]:
        tf = self.tf

        def tensors(values: Sequence[Any]) -> list[Tensor]:
            return [self._tensor(value, x.dtype, x.rank) for value, x in zip(values, state, strict=True)]

        found = tf.while_loop(
            lambda *values: goes_on(*tensors(values)).value,
            lambda *values: [x.value for x in body(*tensors(values))],
            [x.value for x in state],
            shape_invariants=[tf.TensorShape([None] * x.rank) for x in state],
        )
        return tensors(found)


def function_runner(tf: Any, tables: GraphTokenizer) -> tuple[Tokenize, dict[str, int]]:
    """What `prove` asks, a tokenizer as a tf.function; and the size of its graph."""
    settings = tables.framing.settings
    specs = {name: tf.TensorSpec([None], dtype) for name, dtype in settings.inputs.items()}

    def tokenize(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tensor.value for name, tensor in tables(TensorFlowEmitter(tf), inputs).items()}

    function = tf.function(tokenize, input_signature=[specs])

    def run(batch: Batch, limit: int | None) -> dict[str, np.ndarray]:
        feeds = {
            name: tf.constant(array.tolist(), specs[name].dtype, array.shape)
            for name, array in settings.feeds(batch, limit).items()
        }
        return {name: value.numpy() for name, value in function(feeds).items()}

    graph = function.get_concrete_function().graph.as_graph_def()
    return run, {"nodes": len(graph.node), "bytes": graph.ByteSize()}
