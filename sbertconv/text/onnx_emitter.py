"""The operations as ONNX nodes: ai.onnx, and for the characters ONNX Runtime's own Tokenizer and MurmurHash3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sbertconv.text.operations import BOOL, END, INT, LONG, Operations, State, Tensor

CONTRIB = "com.microsoft"
OPSET = 18
OPERATORS = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "mod": "Mod", "min": "Min", "max": "Max",
    "equal": "Equal", "less": "Less", "and": "And", "or": "Or", "not": "Not",
}  # fmt: skip
UINT = "uint32"
# A character's hash is a bijection of its bytes, for each number of bytes; so it can be undone. With this seed no two
# characters of up to three bytes have the same hash, and six of four bytes have that of a shorter one.
SEED, SECOND_SEED = 102, 1
UTF8 = {  # bytes -> pattern of the bits that tell it, and the bits and the weight of each byte
    1: (0x00000080, 0x00000000, ((0x7F, 1),)),
    2: (0x0000C0E0, 0x000080C0, ((0x1F, 1 << 6), (0x3F, 1))),
    3: (0x00C0C0F0, 0x008080E0, ((0x0F, 1 << 12), (0x3F, 1 << 6), (0x3F, 1))),
    4: (0xC0C0C0F8, 0x808080F0, ((0x07, 1 << 18), (0x3F, 1 << 12), (0x3F, 1 << 6), (0x3F, 1))),
}


class OnnxEmitter(Operations):
    """Makes a graph's nodes and constants.

    Attributes:
        nodes: of the graph, in order.
        initializers: its constants.
    """

    def __init__(self) -> None:
        import onnx

        self.onnx = onnx
        self.scopes: list[list[Any]] = [[]]
        self.initializers: list[Any] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._count = 0

    @property
    def nodes(self) -> list[Any]:
        return self.scopes[0]

    def _name(self) -> str:
        self._count += 1
        return f"text/{self._count}"

    def _node(self, operator: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        name = self._name()
        node = self.onnx.helper.make_node(operator, list(inputs), [name], name, domain=domain, **attributes)
        self.scopes[-1].append(node)
        return name

    def _constant(self, array: np.ndarray) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._name()
            self.initializers.append(self.onnx.numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def _tensor(self, name: str, dtype: str, rank: int = 1) -> Tensor:
        return Tensor(self, name, dtype, rank)

    def _cast(self, name: str, dtype: str) -> str:
        return self._node("Cast", [name], to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _shape(self, sizes: Sequence[Any]) -> str:
        """A shape of numbers and scalar tensors, as the int64 vector that operators want."""
        if all(isinstance(size, int) for size in sizes):
            return self._constant(np.array(sizes, np.int64))
        one = self._constant(np.array([1], np.int64))
        parts = [
            self._constant(np.array([size], np.int64))
            if isinstance(size, int)
            else self._node("Reshape", [self._cast(size.value, LONG), one])
            for size in sizes
        ]
        return parts[0] if len(parts) == 1 else self._node("Concat", parts, axis=0)

    def constant(self, array: Any, dtype: str = INT) -> Tensor:
        array = np.asarray(array, dtype)
        return self._tensor(self._constant(array), dtype, array.ndim)

    def apply(self, name: str, inputs: Sequence[Tensor], dtype: str) -> Tensor:
        rank = max(x.rank for x in inputs)
        return self._tensor(self._node(OPERATORS[name], [x.value for x in inputs]), dtype, rank)

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return self._tensor(self._cast(x.value, dtype), dtype, x.rank)

    def where(self, condition: Tensor, yes: Any, no: Any) -> Tensor:
        dtype = next((x.dtype for x in (yes, no) if isinstance(x, Tensor)), INT)
        yes, no = self.lift(yes, dtype), self.lift(no, dtype)
        inputs = [condition.value, yes.value, no.value]
        return self._tensor(self._node("Where", inputs), dtype, max(condition.rank, yes.rank, no.rank))

    def size(self, x: Tensor) -> Tensor:
        return self._tensor(self._cast(self._node("Size", [x.value]), INT), INT, 0)

    def range(self, count: Tensor) -> Tensor:
        zero, one = (self._constant(np.array(n, np.int32)) for n in (0, 1))
        return self._tensor(self._node("Range", [zero, count.value, one]), INT)

    def fill(self, count: Tensor, value: int | float | bool, dtype: str = INT) -> Tensor:
        number = self.onnx.numpy_helper.from_array(np.array([value], dtype))
        return self._tensor(self._node("ConstantOfShape", [self._shape([count])], value=number), dtype)

    def concat(self, parts: Sequence[Tensor], axis: int = 0) -> Tensor:
        found = self._node("Concat", [part.value for part in parts], axis=axis)
        return self._tensor(found, parts[0].dtype, parts[0].rank)

    def slice(self, x: Tensor, start: int | Tensor | None, stop: int | None, axis: int = 0) -> Tensor:
        bounds = (0 if start is None else start, np.iinfo(np.int64).max if stop is None else stop, axis)
        inputs = [x.value, *(self._shape([bound]) for bound in bounds)]
        return self._tensor(self._node("Slice", inputs), x.dtype, x.rank)

    def reshape(self, x: Tensor, shape: Sequence[Any]) -> Tensor:
        return self._tensor(self._node("Reshape", [x.value, self._shape(shape)]), x.dtype, len(shape))

    def gather(self, table: Tensor, index: Tensor) -> Tensor:
        operator = "GatherElements" if table.rank == index.rank == 1 else "Gather"  # the former is ten times as fast
        rank = table.rank + index.rank - 1
        return self._tensor(self._node(operator, [table.value, index.value], axis=0), table.dtype, rank)

    def compress(self, x: Tensor, mask: Tensor) -> Tensor:
        return self._tensor(self._node("Compress", [x.value, mask.value], axis=0), x.dtype, x.rank)

    def scatter(self, base: Tensor, index: Tensor, values: Tensor, reduction: str = "none") -> Tensor:
        inputs = [base.value, index.value, values.value]
        return self._tensor(self._node("ScatterElements", inputs, axis=0, reduction=reduction), base.dtype)

    def cumsum(self, x: Tensor) -> Tensor:
        return self._tensor(self._node("CumSum", [x.value, self._constant(np.array(0, np.int64))]), x.dtype)

    def reduce(self, name: str, x: Tensor, axis: int | None = None) -> Tensor:
        operator = {"max": "ReduceMax", "min": "ReduceMin", "sum": "ReduceSum"}[name]
        inputs = [x.value] if axis is None else [x.value, self._constant(np.array([axis], np.int64))]
        return self._tensor(self._node(operator, inputs, keepdims=0), x.dtype, 0 if axis is None else x.rank - 1)

    def argmax(self, x: Tensor) -> Tensor:
        return self._tensor(self._cast(self._node("ArgMax", [x.value], axis=-1, keepdims=0), INT), INT, x.rank - 1)

    def sort(self, x: Tensor) -> Tensor:
        values, indices = self._name(), self._name()
        inputs = [x.value, self._node("Shape", [x.value])]
        self.scopes[-1].append(self.onnx.helper.make_node("TopK", inputs, [values, indices], values, largest=0))
        return self._tensor(values, x.dtype)

    def loop(self, goes_on: Callable[..., Tensor], body: Callable[..., State], state: State) -> list[Tensor]:
        helper = self.onnx.helper

        def info(name: str, dtype: str, rank: int = 0) -> Any:  # sizes may change from round to round
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [None] * rank)

        first = goes_on(*state)
        held = [self._tensor(self._name(), x.dtype, x.rank) for x in state]
        counter, going = self._name(), self._name()
        self.scopes.append([])
        made = list(body(*held))
        again = goes_on(*made)
        results: list[str] = []
        for x in (again, *made):  # a result must be the body's own, and no other result
            own = x.value not in results and any(x.value in node.output for node in self.scopes[-1])
            results.append(x.value if own else self._node("Identity", [x.value]))
        graph = helper.make_graph(
            self.scopes.pop(),
            self._name(),
            [info(counter, LONG), info(going, BOOL), *(info(x.value, x.dtype, x.rank) for x in held)],
            [info(name, x.dtype, x.rank) for name, x in zip(results, (again, *made), strict=True)],
        )
        outputs = [self._name() for _ in state]
        inputs = ["", first.value, *(x.value for x in state)]
        self.scopes[-1].append(helper.make_node("Loop", inputs, outputs, self._name(), body=graph))
        return [self._tensor(name, x.dtype, x.rank) for name, x in zip(outputs, state, strict=True)]

    def integers(self, given: str) -> Tensor:
        return self.cast(self._tensor(given, LONG), INT)

    def characters(self, inputs: Sequence[str]) -> Tensor:
        """Every character is one string to ONNX Runtime's Tokenizer; its code point is read back from its hash."""
        empty = self._node(
            "Constant", [], value=self.onnx.helper.make_tensor("", self.onnx.TensorProto.STRING, [1], [b""])
        )
        rows = self._node("Concat", [empty, *inputs], axis=0)  # so that there is one text at least
        attributes = {"mark": 0, "mincharnum": 1, "pad_value": "", "separators": [""]}
        strings = self._node("Tokenizer", [rows], CONTRIB, **attributes)
        end = int(murmur_hash(0, 4, SEED))  # NUL has one byte, so no character's hash is that of four
        padding = int(murmur_hash(0, 0, SEED))
        column = self._node(
            "ConstantOfShape",
            [self._node("Concat", [self._node("Shape", [rows]), self._constant(np.array([1], np.int64))], axis=0)],
            value=self.onnx.numpy_helper.from_array(np.array([end], np.uint32)),
        )
        hashes = [self._node("MurmurHash3", [strings], CONTRIB, seed=seed, positive=1) for seed in (SEED, SECOND_SEED)]
        flat = [
            self._node(
                "Reshape",
                [self._node("Concat", [found, column], axis=1), self._constant(np.array([-1], np.int64))],
            )
            for found in hashes
        ]
        real = self._node("Not", [self._node("Equal", [flat[0], self._bits(padding)])])
        first, second = (self._node("Compress", [found, real], axis=0) for found in flat)
        codes = self._code_points(first, second)
        is_end = self._node("Equal", [first, self._bits(end)])
        return self.where(self._tensor(is_end, BOOL), END, codes)

    def _bits(self, number: int) -> str:
        return self._constant(np.array(number, np.uint32))

    def _shifted(self, x: str, count: int, direction: str = "RIGHT") -> str:
        return self._node("BitShift", [x, self._bits(count)], direction=direction)

    def _rotated(self, x: str, right: int) -> str:
        return self._node("BitwiseOr", [self._shifted(x, right), self._shifted(x, 32 - right, "LEFT")])

    def _times(self, x: str, factor: int) -> str:
        """Modulo 2^32; ONNX Runtime multiplies signed integers only."""
        number = self._constant(np.array(factor, np.uint32).astype(np.int32))
        return self._cast(self._node("Mul", [self._cast(x, INT), number]), UINT)

    def _code_points(self, first: str, second: str) -> Tensor:
        """Undo MurmurHash3 for each number of bytes; the bytes that are a character of that many say which it was."""
        x = first
        x = self._node("BitwiseXor", [x, self._shifted(x, 16)])
        x = self._times(x, inverse(MIX_4))
        x = self._node("BitwiseXor", [self._node("BitwiseXor", [x, self._shifted(x, 13)]), self._shifted(x, 26)])
        x = self._times(x, inverse(MIX_3))
        x = self._node("BitwiseXor", [x, self._shifted(x, 16)])
        found, codes = {}, {}
        for count in UTF8:
            k = self._node("BitwiseXor", [x, self._bits(count if count == 4 else count ^ SEED)])
            if count == 4:
                signed = self._node(
                    "Sub", [self._cast(k, INT), self._constant(np.array(ADDED, np.uint32).astype(np.int32))]
                )
                k = self._rotated(self._times(self._cast(signed, UINT), inverse(5)), 13)
                k = self._node("BitwiseXor", [k, self._bits(SEED)])
            k = self._times(self._rotated(self._times(k, inverse(MIX_2)), 15), inverse(MIX_1))
            mask, pattern, parts = UTF8[count]
            if count < 4:
                mask |= 0xFFFFFFFF << 8 * count & 0xFFFFFFFF  # no further bytes
            tested = self._node("BitwiseAnd", [k, self._bits(mask)])
            found[count] = self._tensor(self._node("Equal", [tested, self._bits(pattern)]), BOOL)
            sums = []
            for byte, (bits, weight) in enumerate(parts):
                part = self._shifted(k, 8 * byte) if byte else k
                part = self._cast(self._node("BitwiseAnd", [part, self._bits(bits)]), INT)
                sums.append(self._tensor(part, INT) * weight)
            codes[count] = sum(sums[1:], sums[0])
        doubtful = self.constant(ambiguous(), LONG)
        other = self._tensor(self._cast(second, LONG), LONG)
        other = self.reshape(other, [-1, 1])
        hit = self.reduce("max", self.cast(other == doubtful, INT), axis=1) > 0
        result = codes[4]
        for count in (3, 2, 1):
            result = self.where(found[count] & ~hit, codes[count], result)
        return result


MIX_1, MIX_2, MIX_3, MIX_4, ADDED = 0xCC9E2D51, 0x1B873593, 0x85EBCA6B, 0xC2B2AE35, 0xE6546B64


def inverse(factor: int) -> int:
    """What undoes a multiplication modulo 2^32."""
    return pow(factor, -1, 1 << 32)


def murmur_hash(data: Any, count: int, seed: int) -> Any:
    """MurmurHash3_x86_32 of at most four bytes, given as little-endian uint32 numbers.

    Source: https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp
    """
    mask = np.uint64(0xFFFFFFFF)
    k = np.asarray(data, np.uint64) * np.uint64(MIX_1) & mask
    k = (k << np.uint64(15) | k >> np.uint64(17)) & mask
    x = np.uint64(seed) ^ (k * np.uint64(MIX_2) & mask)
    if count == 4:
        x = (x << np.uint64(13) | x >> np.uint64(19)) & mask
        x = x * np.uint64(5) + np.uint64(ADDED) & mask
    x = x ^ np.uint64(count)
    for shift, factor in ((16, MIX_3), (13, MIX_4)):
        x = (x ^ x >> np.uint64(shift)) * np.uint64(factor) & mask
    return x ^ x >> np.uint64(16)


def encoded(count: int) -> np.ndarray:
    """All characters of so many bytes in UTF-8, as little-endian numbers."""
    starts = {1: 0, 2: 0x80, 3: 0x800, 4: 0x10000, 5: 0x110000}
    codes = np.arange(starts[count], starts[count + 1])
    text = "".join(map(chr, codes[(codes < 0xD800) | (codes > 0xDFFF)]))
    rows = np.frombuffer(text.encode(), np.uint8).reshape(-1, count).astype(np.uint64)
    found: np.ndarray = (rows << 8 * np.arange(count, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    return found


def ambiguous() -> np.ndarray:
    """The second hash of those characters of four bytes whose first hash a shorter one has too."""
    long = encoded(4)
    short = np.concatenate([murmur_hash(encoded(count), count, SEED) for count in (1, 2, 3)])
    same = np.isin(murmur_hash(long, 4, SEED), short)
    found: np.ndarray = murmur_hash(long[same], 4, SECOND_SEED).astype(np.int64)
    return found
