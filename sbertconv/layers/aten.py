"""ATen operations in `keras.ops`: the one table that traced graphs are run with.

A row is the name of an operation (overloads that take the same arguments share it) and a function of the same
positional and keyword arguments. Arguments are tensors of the Keras backend, numbers, dtypes as strings, and
sizes, which are tensors where the backend does not know them beforehand. 64-bit types are 32-bit ones here.

Names and arguments: https://docs.pytorch.org/docs/stable/torch.compiler_ir.html and
`aten/src/ATen/native/native_functions.yaml` of PyTorch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from keras import activations, backend, ops

MOST_PARTS = 32  # groups of a convolution, each of which is an operation
HALF = ("float16", "bfloat16")
# Reduction of torch -> Keras' own, and what it leaves as it is
REDUCTIONS = {
    "sum": ("add", 0),
    "mean": ("add", 0),
    "prod": ("mul", 1),
    "amax": ("max", -math.inf),
    "amin": ("min", math.inf),
}
LARGEST = {"float16": 65504.0, "bfloat16": 3.38e38, "float32": 3.4028234663852886e38, "int32": 2**31 - 1}
Tensor = Any
Size = Any  # an int, or a scalar tensor where the backend does not know it beforehand


def dtype_of(x: Tensor) -> str:
    return str(backend.standardize_dtype(x.dtype))


def is_tensor(x: Any) -> bool:
    return hasattr(x, "dtype") and hasattr(x, "shape")


def axis_of(x: Tensor, dim: int) -> int:
    """A dimension counted from the front."""
    return dim % max(len(x.shape), 1)


def _filled(value: Any, dtype: str) -> Any:
    """A number that fits the dtype: float32's lowest value, which masks are filled with, is -inf in float16."""
    limit = LARGEST.get(dtype)
    if limit is None or isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return value
    return max(min(value, limit), -limit)


# Shapes


def view(x: Tensor, shape: Sequence[Size]) -> Tensor:
    return ops.reshape(x, tuple(shape))


def expand(x: Tensor, shape: Sequence[Size], implicit: bool = False) -> Tensor:
    """-1 keeps a size."""
    own = (1,) * (len(shape) - len(x.shape)) + tuple(ops.shape(x))
    return _broadcast(x, tuple(o if isinstance(s, int) and s == -1 else s for s, o in zip(shape, own, strict=True)))


def _broadcast(x: Tensor, shape: Sequence[Size]) -> Tensor:
    """X in a shape; a shape without numbers is made anew, since LiteRT broadcasts none."""
    if any(isinstance(size, int) and size == 0 for size in shape):
        return ops.zeros(tuple(shape), dtype_of(x))
    return ops.broadcast_to(x, shape)


def squeeze(x: Tensor, dims: int | Sequence[int] | None = None) -> Tensor:
    """Dimensions of another size than 1 stay."""
    every = range(len(x.shape)) if dims is None else [dims] if isinstance(dims, int) else dims
    axes = sorted((axis_of(x, dim) for dim in every), reverse=True)
    for axis in axes:
        if x.shape[axis] == 1:
            x = ops.squeeze(x, axis)
    return x


def transpose(x: Tensor, a: int, b: int) -> Tensor:
    return ops.swapaxes(x, a, b)


def permute(x: Tensor, dims: Sequence[int]) -> Tensor:
    return ops.transpose(x, [axis_of(x, dim) for dim in dims])


def slice_(x: Tensor, dim: int = 0, start: Size = None, end: Size = None, step: int = 1) -> Tensor:
    if isinstance(end, int) and end >= 2**31 - 1:  # "to the end", in torch
        end = None
    index = (slice(None),) * axis_of(x, dim) + (slice(start, end, step),)
    return x[index]


def select(x: Tensor, dim: int, index: Size) -> Tensor:
    return x[(slice(None),) * axis_of(x, dim) + (index,)]


def split(x: Tensor, sizes: int | Sequence[int], dim: int = 0) -> list[Tensor]:
    axis = axis_of(x, dim)
    if isinstance(sizes, int):
        sizes = [sizes] * math.ceil(x.shape[axis] / sizes)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [slice_(x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [select(x, dim, index) for index in range(x.shape[axis_of(x, dim)])]


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Torch skips tensors of shape [0], the start value of a cache."""
    kept = [x for x in tensors if tuple(x.shape) != (0,)] or tensors[:1]
    return ops.concatenate(kept, axis=axis_of(kept[0], dim))


def repeat(x: Tensor, repeats: Sequence[Size]) -> Tensor:
    return ops.tile(ops.reshape(x, (1,) * (len(repeats) - len(x.shape)) + tuple(ops.shape(x))), repeats)


def repeat_interleave(x: Tensor, repeats: int, dim: int | None = None, *, output_size: Size = None) -> Tensor:
    return ops.repeat(x, repeats, axis=dim)


def roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    return ops.roll(x, tuple(shifts), axis=tuple(dims)) if dims else ops.roll(x, shifts[0])


def constant_pad(x: Tensor, widths: Sequence[Size], value: float = 0) -> Tensor:
    """Torch counts pairs from the last dimension. Negative widths cut, which Keras leaves to slicing."""
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    full = [(0, 0)] * (len(x.shape) - len(pairs)) + pairs[::-1]
    for axis, pair in enumerate(full):
        before, after = (-width if isinstance(width, int) and width < 0 else 0 for width in pair)
        if before or after:
            x = slice_(x, axis, before, -after or None)
    kept = [[max(width, 0) if isinstance(width, int) else width for width in pair] for pair in full]
    return ops.pad(x, kept, constant_values=value)


def diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    return ops.diagonal(x, offset=offset, axis1=dim1, axis2=dim2)


def im2col(
    x: Tensor, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """[batch, channels, height, width] -> [batch, channels * kernel, places], which torch calls unfold."""
    x = constant_pad(x, (padding[1], padding[1], padding[0], padding[0]))
    sizes = ops.shape(x)
    rows, columns = ((sizes[i + 2] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1))
    parts = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            part = slice_(x, 2, top, top + (rows - 1) * stride[0] + 1, stride[0])
            parts.append(slice_(part, 3, left, left + (columns - 1) * stride[1] + 1, stride[1]))
    return ops.reshape(ops.stack(parts, axis=2), (sizes[0], x.shape[1] * len(parts), rows * columns))


def unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows of so many along a dimension, each as a row of a new last dimension."""
    axis = axis_of(x, dim)
    last = (ops.shape(x)[axis] - size) // step * step + 1
    return ops.stack([slice_(x, axis, begin, begin + last, step) for begin in range(size)], axis=-1)


# Lookups


def index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """x[i, j, ...]: index tensors, broadcast against each other; None takes a whole dimension."""
    places = [place for place, found in enumerate(indices) if found is not None]
    first, count = places[0], len(places)
    if places != list(range(first, first + count)):  # then the indexed dimensions come first in the result
        x = ops.transpose(x, (*places, *(axis for axis in range(len(x.shape)) if axis not in places)))
        indices, places, first = [indices[place] for place in places], list(range(count)), 0
    shape = tuple(ops.shape(x))
    flat: Tensor = 0
    for place in places:
        size = shape[place]
        here = ops.cast(indices[place], "int32")
        flat = flat * size + ops.where(here < 0, here + size, here)
    merged = ops.reshape(x, (*shape[:first], -1, *shape[first + count :])) if count > 1 else x
    return ops.take(merged, flat, axis=first)


def gather(x: Tensor, dim: int, index: Tensor, sparse_grad: bool = False) -> Tensor:
    """Torch lets the index be shorter than the tensor along the other dimensions."""
    axis = axis_of(x, dim)
    for other, (size, wanted) in enumerate(zip(x.shape, index.shape, strict=True)):
        if other != axis and size != wanted:
            x = slice_(x, other, 0, ops.shape(index)[other])
    return ops.take_along_axis(x, index, axis=axis)


def embedding(weight: Tensor, ids: Tensor, *unused: Any) -> Tensor:
    return ops.take(weight, ids, axis=0)


def scatter(x: Tensor, dim: int, index: Tensor, source: Any) -> Tensor:
    """X with source's values at index along a dimension, as a sum of one-hot rows."""
    axis, kind = axis_of(x, dim), dtype_of(x)
    places = ops.reshape(ops.arange(ops.shape(x)[axis], dtype="int32"), (-1, *(1,) * (len(x.shape) - axis)))
    hot = ops.equal(ops.expand_dims(ops.cast(index, "int32"), axis), places)
    found = ops.any(hot, axis=axis + 1)
    if not is_tensor(source):
        return masked_fill(x, found, source)
    picked = ops.where(hot, ops.expand_dims(ops.cast(source, kind), axis), ops.zeros((), dtype=kind))
    return ops.where(found, ops.cast(ops.sum(picked, axis=axis + 1), kind), x)


def scatter_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """X with what source's values at the same index along a dimension come to together."""
    axis, kind = axis_of(x, dim), dtype_of(x)
    places = ops.meshgrid(*(ops.arange(size, dtype="int32") for size in ops.shape(index)), indexing="ij")
    places = ops.stack([*places[:axis], ops.cast(index, "int32"), *places[axis + 1 :]], axis=-1)
    for other in range(len(x.shape)):  # the index may be shorter than the source
        source = slice_(source, other, 0, ops.shape(index)[other])
    source = ops.cast(source, kind)
    counts = ops.scatter_update(ops.zeros_like(x), places, ops.ones_like(source), "add")
    operation, neutral = REDUCTIONS[reduce]
    found = x if include_self else ops.where(counts > 0, ops.full_like(x, neutral), x)
    found = ops.scatter_update(found, places, source, operation)
    return found if reduce != "mean" else found / ops.maximum(counts + int(include_self), 1)


def index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """X with values at x[i, j, ...]: at index tensors of the first dimensions, or one value wherever a mask is."""
    given = [place for place in indices if place is not None]
    if len(given) < len(indices):
        raise NotImplementedError("values put at index tensors behind a whole dimension")
    if any(dtype_of(place) == "bool" for place in given):
        (mask,) = given
        return masked_fill(x, ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(x.shape) - len(mask.shape)))), values)
    sizes = ops.shape(x)
    found = [ops.cast(place, "int32") for place in given]
    found = [ops.where(place < 0, place + size, place) for place, size in zip(found, sizes, strict=False)]
    places = ops.stack([sum(found) * 0 + place for place in found], axis=-1)  # broadcast against each other
    shape = (*ops.shape(places)[:-1], *sizes[len(indices) :])
    values = _broadcast(ops.cast(values, dtype_of(x)), shape)
    return ops.scatter_update(x, places, values, "add" if accumulate else None)


def slice_scatter(
    x: Tensor, source: Tensor, dim: int = 0, start: Size = None, end: Size = None, step: int = 1
) -> Tensor:
    """X with source in place of x[start:end:step]."""
    axis = axis_of(x, dim)
    end = None if isinstance(end, int) and end >= 2**31 - 1 else end
    if source.shape[axis] == 0:  # LiteRT's kernels, which write into nothing, end the process
        return x
    if step == 1:
        parts = [] if start is None or (isinstance(start, int) and start == 0) else [slice_(x, axis, 0, start)]
        parts += [ops.cast(source, dtype_of(x))] + ([] if end is None else [slice_(x, axis, end)])
        return cat(parts, axis)
    taken = slice_(ops.arange(ops.shape(x)[axis], dtype="int32"), 0, start, end, step)
    rest = ops.moveaxis(x, axis, 0)
    rows = ops.moveaxis(ops.cast(source, dtype_of(x)), axis, 0)
    return ops.moveaxis(ops.scatter_update(rest, ops.expand_dims(taken, -1), rows), 0, axis)


def select_scatter(x: Tensor, source: Tensor, dim: int, index: int) -> Tensor:
    """X with source in place of x[index]."""
    return slice_scatter(x, ops.expand_dims(source, axis_of(x, dim)), dim, index, None if index == -1 else index + 1)


# Values


def full(shape: Sequence[Size], value: Any, dtype: str) -> Tensor:
    return ops.full(tuple(shape), _filled(value, dtype), dtype=dtype)


def arange(start: Size, end: Size, step: Size = 1, *, dtype: str) -> Tensor:
    step = int(step) if dtype.startswith("int") else step  # torch writes the step of an integer range as 2.0
    return ops.arange(start, end, step, dtype=dtype)


def where(condition: Tensor, x: Any, y: Any) -> Tensor:
    kind = next((dtype_of(value) for value in (x, y) if is_tensor(value)), None)
    x, y = (value if kind is None or is_tensor(value) else _filled(value, kind) for value in (x, y))
    return ops.where(ops.cast(condition, "bool"), x, y)


def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """In x's dtype, whatever the value's."""
    kind = dtype_of(x)
    return ops.where(ops.cast(mask, "bool"), ops.cast(value if is_tensor(value) else _filled(value, kind), kind), x)


def copy(x: Tensor, value: Any, *unused: Any) -> Tensor:
    """The value in x's shape and dtype."""
    return _broadcast(ops.cast(value, dtype_of(x)), ops.shape(x))


def tri(x: Tensor, diagonal: int, *, upper: bool) -> Tensor:
    rows, columns = ops.shape(x)[-2], ops.shape(x)[-1]
    distance = ops.expand_dims(ops.arange(columns), 0) - ops.expand_dims(ops.arange(rows), 1)
    kept = distance >= diagonal if upper else distance <= diagonal
    return ops.where(kept, x, ops.zeros_like(x))


# Arithmetic


def both_bool(x: Any, y: Any) -> bool:
    return all(dtype_of(v) == "bool" if is_tensor(v) else isinstance(v, bool) for v in (x, y))


def plus(x: Any, y: Any) -> Any:
    """The sum of two tensors, by the backend's own operator where Keras would take the second one for the bias of some
    channels: those it looks for at the end first, wherever the bias has them, and LiteRT cannot move them there.
    """
    if not (is_tensor(x) and is_tensor(y)) or len(y.shape) < 2:
        return ops.add(x, y)
    dtype = backend.result_type(dtype_of(x), dtype_of(y))
    return ops.cast(x, dtype) + ops.cast(y, dtype)


def add(x: Any, y: Any, alpha: float = 1) -> Any:
    return ops.logical_or(x, y) if both_bool(x, y) else plus(x, y if alpha == 1 else y * alpha)


def sub(x: Any, y: Any, alpha: float = 1) -> Any:
    return ops.subtract(x, y if alpha == 1 else y * alpha)


def mul(x: Any, y: Any) -> Any:
    return ops.logical_and(x, y) if both_bool(x, y) else ops.multiply(x, y)


def div(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return ops.floor_divide(x, y)
    if rounding_mode == "trunc":  # through floor_divide, which is exact for integers
        return ops.multiply(ops.floor_divide(ops.abs(x), ops.abs(y)), ops.multiply(ops.sign(x), ops.sign(y)))
    return ops.true_divide(x, y)


def fmod(x: Tensor, y: Any) -> Tensor:
    """The remainder with x's sign."""
    return ops.multiply(ops.mod(ops.abs(x), ops.abs(y)), ops.sign(x))


def clamp(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    x = x if low is None else ops.maximum(x, _filled(low, dtype_of(x)))
    return x if high is None else ops.minimum(x, _filled(high, dtype_of(x)))


def bitwise(logical: Callable[..., Tensor], bits: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Logical on booleans, bit by bit on integers."""
    return lambda x, *other: (logical if dtype_of(x) == "bool" else bits)(x, *other)


def reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Torch's (x, dim, keepdim) with dim None or [] for all dimensions."""

    def reduced(x: Tensor, dim: Any = None, keepdim: bool = False, dtype: str | None = None) -> Tensor:
        axes = None if dim is None or dim == [] else tuple(dim) if isinstance(dim, list) else dim
        return function(x if dtype is None else ops.cast(x, dtype), axis=axes, keepdims=keepdim)

    return reduced


def extreme(values: Callable[..., Tensor], places: Callable[..., Tensor]) -> Callable[..., Any]:
    """max.dim and min.dim: the values and where they are."""

    def found(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
        return values(x, axis=dim, keepdims=keepdim), ops.cast(places(x, axis=dim, keepdims=keepdim), "int32")

    return found


def place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The first of the largest or smallest; of all values where there is no dimension."""

    def found(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        x = ops.cast(x, "int32") if dtype_of(x) == "bool" else x
        return ops.cast(function(x, axis=dim, keepdims=keepdim), "int32")

    return found


def axes_of(x: Tensor, dim: Any) -> tuple[int, ...]:
    """Dimensions counted from the front; all of them for None and []."""
    dims = dim if isinstance(dim, (list, tuple)) else [] if dim is None else [dim]
    return tuple(axis_of(x, d) for d in dims) or tuple(range(len(x.shape)))


def variance(x: Tensor, dim: Any = None, correction: float | None = None, keepdim: bool = False) -> Tensor:
    axes = axes_of(x, dim)
    count = ops.cast(math.prod([ops.shape(x)[axis] for axis in axes]), dtype_of(x))
    return ops.var(x, axis=axes, keepdims=keepdim) * (count / (count - (1 if correction is None else correction)))


def norm(x: Tensor, p: float | None = 2, dim: Any = None, keepdim: bool = False, dtype: str | None = None) -> Tensor:
    """Of vectors, along one or several dimensions together."""
    how: dict[str, Any] = {"axis": axes_of(x, dim), "keepdims": keepdim}
    x = x if dtype is None else ops.cast(x, dtype)
    if p is None or p == 2:
        return ops.sqrt(ops.sum(ops.square(x), **how))
    if math.isinf(p):
        return (ops.max if p > 0 else ops.min)(ops.abs(x), **how)
    return ops.power(ops.sum(ops.power(ops.abs(x), p), **how), 1 / p)


def cumsum(x: Tensor, dim: int, dtype: str | None = None) -> Tensor:
    dtype = dtype or ("int32" if dtype_of(x) == "bool" else None)
    return ops.cumsum(x if dtype is None else ops.cast(x, dtype), axis=axis_of(x, dim))


def topk(x: Tensor, k: Size, dim: int = -1, largest: bool = True, *unused: Any) -> tuple[Tensor, Tensor]:
    """TensorFlow finds the largest along the last dimension alone."""
    x = ops.swapaxes(x if largest else -x, dim, -1)
    values, indices = (ops.swapaxes(found, dim, -1) for found in ops.top_k(x, k))
    return values if largest else -values, ops.cast(indices, "int32")


def sort(x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    indices = ops.argsort(-x if descending else x, axis=dim)
    return ops.take_along_axis(x, indices, axis=dim), ops.cast(indices, "int32")


def fft(x: Tensor, dims: Sequence[int], normalization: int, forward: bool) -> Tensor:
    """The Fourier transform as matrix products: Keras' own takes the last two dimensions only."""
    if normalization or not forward:
        raise NotImplementedError("a Fourier transform that is scaled or inverse")
    real, imaginary = ops.real(x), ops.imag(x)
    for dim in dims:
        axis = axis_of(x, dim)
        size = ops.shape(x)[axis]
        steps = ops.arange(size, dtype="int32")
        turns = ops.mod(ops.expand_dims(steps, 0) * ops.expand_dims(steps, 1), size)  # exact, unlike large angles
        angle = ops.cast(turns, "float32") * (2 * math.pi) / ops.cast(size, "float32")
        cos, sin = ops.cos(angle), ops.sin(angle)
        r, i = ops.swapaxes(real, axis, -1), ops.swapaxes(imaginary, axis, -1)
        real, imaginary = (ops.swapaxes(part, axis, -1) for part in (r @ cos + i @ sin, i @ cos - r @ sin))
    return ops.view_as_complex(ops.stack([real, imaginary], axis=-1))


def polar(length: Tensor, angle: Tensor) -> Tensor:
    return ops.view_as_complex(ops.stack([length * ops.cos(angle), length * ops.sin(angle)], axis=-1))


# Products


def in_lower(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the lower of their two precisions, as under torch.autocast."""
    kinds = {dtype_of(x), dtype_of(y)}
    half = next((kind for kind in kinds if kind in HALF), None)
    return (ops.cast(x, half), ops.cast(y, half)) if half and len(kinds) > 1 else (x, y)


def matmul(x: Tensor, y: Tensor) -> Tensor:
    return ops.matmul(*in_lower(x, y))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = matmul(x, ops.transpose(weight) if len(weight.shape) > 1 else weight)
    return product if bias is None else ops.add(product, bias)


def addmm(bias: Tensor, x: Tensor, y: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    product = matmul(x, y)
    return ops.add(product if alpha == 1 else product * alpha, bias if beta == 1 else bias * beta)


def einsum(equation: str, operands: Sequence[Tensor], path: Any = None) -> Tensor:
    return ops.einsum(equation, *operands)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Query, key, value [batch, heads, sequence, dim]. A query that may attend to nothing gives zeros."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = ops.repeat(key, groups, axis=-3), ops.repeat(value, groups, axis=-3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = matmul(query * scale, ops.swapaxes(key, -1, -2))
    allowed = None
    if is_causal:
        rows, columns = ops.shape(scores)[-2], ops.shape(scores)[-1]
        mask = ops.expand_dims(ops.arange(rows), 1) >= ops.expand_dims(ops.arange(columns), 0)
    elif mask is not None:
        allowed = mask if dtype_of(mask) == "bool" else mask > -math.inf
    if mask is not None:
        lowest = -LARGEST[dtype_of(scores)] / 2  # adding it to a score must not give -inf
        mask = ops.where(mask, 0.0, lowest) if dtype_of(mask) == "bool" else ops.maximum(mask, lowest)
        scores = ops.add(scores, mask)  # float32, where the mask is
    weights = softmax(scores, -1)
    if dropout is not None:
        weights = dropout(weights)
    result = matmul(weights, value)
    if allowed is not None:
        result = result * ops.cast(ops.any(allowed, axis=-1, keepdims=True), dtype_of(result))
    return result


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    """Channels last inside, because TensorFlow has no other kernel on a CPU; weight [out, in / groups, *kernel]."""
    spatial = len(x.shape) - 2
    first, last = (0, *range(2, spatial + 2), 1), (0, spatial + 1, *range(1, spatial + 1))
    stride, dilation = (tuple(v) if isinstance(v, list) else (v,) * spatial for v in (stride, dilation))
    stride = stride * spatial if len(stride) < spatial else stride
    dilation = dilation * spatial if len(dilation) < spatial else dilation
    x, weight = in_lower(ops.transpose(x, first), weight)
    how = padding if isinstance(padding, str) else "valid"
    if not isinstance(padding, str):
        widths = list(padding) if isinstance(padding, list) else [padding]
        widths = widths * spatial if len(widths) < spatial else widths
        if any(widths):
            x = ops.pad(x, [(0, 0), *((width, width) for width in widths), (0, 0)])
    kernel = ops.transpose(weight, (*range(2, spatial + 2), 1, 0))
    result = _convolved(x, kernel, groups, strides=stride, padding=how, dilation_rate=dilation)
    return ops.transpose(result if bias is None else ops.add(result, bias), last)


def _convolved(x: Tensor, kernel: Tensor, groups: int, **options: Any) -> Tensor:
    """Channels last; groups follow from the kernel's shape. TensorFlow has none on a CPU but in XLA, which no graph of
    ONNX can hold and which is slower: there each channel alone is an operation of its own, and few groups are parts.
    """
    channels_last = {**options, "data_format": "channels_last"}
    if groups == 1 or backend.backend() != "tensorflow":
        return ops.conv(x, kernel, **channels_last)
    *sizes, depth, channels = kernel.shape
    if depth == 1 and {*options["strides"], *options["dilation_rate"]} == {1}:
        return ops.depthwise_conv(x, ops.reshape(kernel, (*sizes, groups, channels // groups)), **channels_last)
    if groups > MOST_PARTS:
        return ops.conv(x, kernel, **channels_last)
    parts = zip(ops.split(x, groups, -1), ops.split(kernel, groups, -1), strict=True)
    return ops.concatenate([ops.conv(part, own, **channels_last) for part, own in parts], -1)


def avg_pool(
    x: Tensor, size: Sequence[int], stride: Sequence[int] = (), padding: int | Sequence[int] = 0, ceil: bool = False,
    counts_padding: bool = True, divisor: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of what lies under each place of a window; the padding is zeros that count."""
    spatial = len(x.shape) - 2
    widths = list(padding) if isinstance(padding, list) else [padding]
    widths = widths * spatial if len(widths) < spatial else widths
    if ceil or divisor is not None or (any(widths) and not counts_padding):
        raise NotImplementedError("an average over windows that reach beyond the input, or with a divisor of its own")
    x = ops.pad(ops.moveaxis(x, 1, -1), [(0, 0), *((width, width) for width in widths), (0, 0)])
    window = tuple(size) * (spatial if len(size) < spatial else 1)
    steps = tuple(stride or size) * (spatial if len(stride or size) < spatial else 1)
    return ops.moveaxis(ops.average_pool(x, window, steps, "valid", data_format="channels_last"), -1, 1)


# Normalisation and activations


def in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What loses too much in half precision, computed as torch.autocast does: in float32.

    The list of such operations: https://docs.pytorch.org/docs/stable/amp.html#cuda-ops-that-can-autocast-to-float32
    """

    def widened(x: Any, *args: Any, **options: Any) -> Tensor:
        return function(ops.cast(x, "float32") if is_tensor(x) and dtype_of(x) in HALF else x, *args, **options)

    return widened


def along(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Softmax and log_softmax: (x, dim), and a dtype for the input, or whether it is half precision."""

    def normalised(x: Tensor, dim: int, dtype: str | bool | None = None) -> Tensor:
        return in_float32(function)(ops.cast(x, dtype) if isinstance(dtype, str) else x, axis=dim)

    return normalised


softmax = along(ops.softmax)


def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    *unused: Any,
) -> Tensor:  # fmt: skip
    axes = tuple(range(-len(shape), 0))
    mean = ops.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    result = centred * ops.rsqrt(ops.mean(ops.square(centred), axis=axes, keepdims=True) + eps)
    result = result if weight is None else ops.multiply(result, weight)
    return result if bias is None else ops.add(result, bias)


def rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    result = x * ops.rsqrt(ops.mean(ops.square(x), axis=axes, keepdims=True) + (1.1920929e-07 if eps is None else eps))
    return result if weight is None else ops.multiply(result, weight)


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, training: bool, momentum: float,
    eps: float, *unused: Any,
) -> Tensor:  # fmt: skip
    shape = (1, -1) + (1,) * (len(x.shape) - 2)
    deviation = ops.rsqrt(ops.cast(ops.reshape(var, shape), dtype_of(x)) + eps)
    result = ops.subtract(x, ops.reshape(mean, shape)) * deviation
    result = result if weight is None else ops.multiply(result, ops.reshape(weight, shape))
    return result if bias is None else plus(result, ops.reshape(bias, shape))


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *unused: Any
) -> Tensor:
    """Each group of channels, which are dimension 1, over all places."""
    batch, *sizes = ops.shape(x)
    parts = layer_norm(ops.reshape(x, (batch, groups, -1)), (-1,), eps=eps)
    shape = (1, -1) + (1,) * (len(x.shape) - 2)
    result = ops.reshape(parts, (batch, *sizes))
    result = result if weight is None else ops.multiply(result, ops.reshape(weight, shape))
    return result if bias is None else plus(result, ops.reshape(bias, shape))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Exact GELU through erf: TensorFlow's own goes through erfc, which ONNX does not have."""
    if approximate == "tanh":
        return activations.gelu(x, approximate=True)
    return 0.5 * x * (1.0 + ops.erf(x * (1 / math.sqrt(2))))


def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    return ops.where(x * beta > threshold, x, ops.softplus(x * beta) / beta)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """One slope, or one for each channel, which is dimension 1."""
    slope = ops.reshape(slope, (-1,) + (1,) * (len(x.shape) - 2)) if len(x.shape) > 1 else slope
    return ops.where(x >= 0, x, ops.multiply(x, slope))


def elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    return ops.where(x > 0, x * scale, (ops.exp(ops.minimum(x, 0) * input_scale) - 1) * (alpha * scale))


def same(x: Any, *unused: Any, **options: Any) -> Any:
    return x


def to_dtype(x: Tensor, *, dtype: str | None = None) -> Tensor:
    return x if dtype is None or dtype == dtype_of(x) else ops.cast(x, dtype)


ROWS: dict[str, Callable[..., Any]] = {
    # shapes
    "view.default _unsafe_view.default reshape.default": view,
    "expand.default": expand,
    "squeeze.default squeeze.dim squeeze.dims": squeeze,
    "unsqueeze.default": ops.expand_dims,
    "transpose.int": transpose,
    "t.default": ops.transpose,
    "permute.default": permute,
    "slice.Tensor": slice_,
    "select.int": select,
    "split.Tensor split_with_sizes.default": split,
    "unbind.int": unbind,
    "cat.default": cat,
    "stack.default": lambda tensors, dim=0: ops.stack(tensors, axis=dim),
    "repeat.default": repeat,
    "repeat_interleave.self_int": repeat_interleave,
    "flip.default": lambda x, dims: ops.flip(x, axis=tuple(dims)),
    "roll.default": roll,
    "constant_pad_nd.default": constant_pad,
    "im2col.default": im2col,
    "unfold.default": unfold,
    "diagonal.default": diagonal,
    "sym_size.int": lambda x, dim: ops.shape(x)[axis_of(x, dim)],
    "sym_numel.default": lambda x: math.prod(ops.shape(x)),
    # lookups
    "index.Tensor": index,
    "index_select.default": lambda x, dim, places: ops.take(x, places, axis=dim),
    "gather.default": gather,
    "embedding.default": embedding,
    "scatter.src scatter.value": scatter,
    "index_put.default": index_put,
    "scatter_reduce.two": scatter_reduce,
    "slice_scatter.default": slice_scatter,
    "select_scatter.default": select_scatter,
    # values
    "arange.default": lambda end, dtype: arange(0, end, dtype=dtype),
    "arange.start arange.start_step": arange,
    "linspace.default": lambda start, end, steps, dtype: ops.linspace(start, end, steps, dtype=dtype),
    "eye.default": lambda n, dtype: ops.eye(n, dtype=dtype),
    "eye.m": lambda n, m, dtype: ops.eye(n, m, dtype=dtype),
    "full.default": full,
    "scalar_tensor.default": lambda value, dtype: full((), value, dtype),
    "zeros.default": lambda shape, dtype: ops.zeros(tuple(shape), dtype=dtype),
    "ones.default": lambda shape, dtype: ops.ones(tuple(shape), dtype=dtype),
    "empty.memory_format": lambda shape, dtype: ops.zeros(tuple(shape), dtype=dtype),
    "full_like.default": lambda x, value, dtype: full(ops.shape(x), value, dtype),
    "zeros_like.default": lambda x, dtype: ops.zeros_like(x, dtype=dtype),
    "ones_like.default": lambda x, dtype: ops.ones_like(x, dtype=dtype),
    "new_full.default": lambda x, shape, value, dtype: full(shape, value, dtype),
    "new_zeros.default": lambda x, shape, dtype: ops.zeros(tuple(shape), dtype=dtype),
    "new_ones.default": lambda x, shape, dtype: ops.ones(tuple(shape), dtype=dtype),
    "where.self where.ScalarOther where.ScalarSelf where.Scalar": where,
    "masked_fill.Scalar masked_fill.Tensor": masked_fill,
    "copy.default": copy,
    "tril.default": lambda x, diagonal=0: tri(x, diagonal, upper=False),
    "triu.default": lambda x, diagonal=0: tri(x, diagonal, upper=True),
    "_to_copy.default": to_dtype,
    "type_as.default": lambda x, y: ops.cast(x, dtype_of(y)),
    "clone.default alias.default lift_fresh_copy.default": same,
    "view_as_real.default": ops.view_as_real,
    "view_as_complex.default": ops.view_as_complex,
    "polar.default": polar,
    "detach.default": ops.stop_gradient,
    # arithmetic
    "add.Tensor add.Scalar": add,
    "sub.Tensor sub.Scalar": sub,
    "rsub.Scalar rsub.Tensor": lambda x, y, alpha=1: sub(y, x, alpha),
    "mul.Tensor mul.Scalar": mul,
    "div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode": div,
    "floor_divide.default": ops.floor_divide,
    "remainder.Scalar remainder.Tensor": ops.mod,
    "fmod.Scalar fmod.Tensor": fmod,
    "reciprocal.default": ops.reciprocal,
    "neg.default": ops.negative,
    "abs.default": ops.abs,
    "sign.default": ops.sign,
    "square.default": in_float32(ops.square),
    "sqrt.default": ops.sqrt,
    "rsqrt.default": in_float32(ops.rsqrt),
    "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar": in_float32(ops.power),
    "exp.default": in_float32(ops.exp),
    "expm1.default": in_float32(ops.expm1),
    "log.default": in_float32(ops.log),
    "log2.default": in_float32(ops.log2),
    "log10.default": in_float32(ops.log10),
    "log1p.default": in_float32(ops.log1p),
    "sin.default": ops.sin,
    "cos.default": ops.cos,
    "tan.default": ops.tan,
    "asin.default": ops.arcsin,
    "acos.default": ops.arccos,
    "atan.default": ops.arctan,
    "atan2.default": ops.arctan2,
    "sinh.default": ops.sinh,
    "cosh.default": ops.cosh,
    "erf.default": ops.erf,
    "erfinv.default": ops.erfinv,
    "ceil.default": ops.ceil,
    "floor.default": ops.floor,
    "round.default": ops.round,
    "trunc.default": ops.trunc,
    "clamp.default clamp.Tensor": clamp,
    "clamp_min.default clamp_min.Tensor": lambda x, low: clamp(x, low),
    "clamp_max.default clamp_max.Tensor": lambda x, high: clamp(x, None, high),
    "maximum.default max.other": ops.maximum,
    "minimum.default min.other": ops.minimum,
    # logic
    "eq.Tensor eq.Scalar": ops.equal,
    "ne.Tensor ne.Scalar": ops.not_equal,
    "lt.Tensor lt.Scalar": ops.less,
    "le.Tensor le.Scalar": ops.less_equal,
    "gt.Tensor gt.Scalar": ops.greater,
    "ge.Tensor ge.Scalar": ops.greater_equal,
    "__and__.Tensor bitwise_and.Tensor bitwise_and.Scalar": bitwise(ops.logical_and, ops.bitwise_and),
    "__or__.Tensor bitwise_or.Tensor bitwise_or.Scalar": bitwise(ops.logical_or, ops.bitwise_or),
    "__xor__.Tensor bitwise_xor.Tensor bitwise_xor.Scalar": bitwise(ops.logical_xor, ops.bitwise_xor),
    "bitwise_not.default": bitwise(ops.logical_not, ops.bitwise_not),
    "logical_and.default": ops.logical_and,
    "logical_or.default": ops.logical_or,
    "logical_xor.default": ops.logical_xor,
    "logical_not.default": ops.logical_not,
    "isnan.default": ops.isnan,
    "isinf.default": ops.isinf,
    # reductions
    "sum.default sum.dim_IntList": reduce(in_float32(ops.sum)),
    "mean.default mean.dim": reduce(in_float32(ops.mean)),
    "prod.default prod.dim_int": reduce(in_float32(ops.prod)),
    "amax.default": reduce(ops.max),
    "amin.default": reduce(ops.min),
    "max.dim": extreme(ops.max, ops.argmax),
    "min.dim": extreme(ops.min, ops.argmin),
    "any.default any.dim any.dims": reduce(ops.any),
    "all.default all.dim all.dims": reduce(ops.all),
    "argmax.default": place(ops.argmax),
    "argmin.default": place(ops.argmin),
    "var.correction": in_float32(variance),
    "linalg_vector_norm.default norm.ScalarOpt_dim": in_float32(norm),
    "logsumexp.default": reduce(in_float32(ops.logsumexp)),
    "var.dim": lambda x, dim=None, unbiased=True, keepdim=False: in_float32(variance)(x, dim, int(unbiased), keepdim),
    "cumsum.default": in_float32(cumsum),
    "topk.default": topk,
    "sort.default": sort,
    "_fft_c2c.default": fft,
    # products
    "matmul.default mm.default bmm.default": matmul,
    "linear.default": linear,
    "addmm.default": addmm,
    "baddbmm.default": addmm,
    "einsum.default": einsum,
    "outer.default": ops.outer,
    "scaled_dot_product_attention.default": scaled_dot_product_attention,
    "conv1d.default conv1d.padding conv2d.default conv2d.padding": conv,
    # normalisation and activations
    "softmax.int _softmax.default": softmax,
    "log_softmax.int _log_softmax.default": along(ops.log_softmax),
    "layer_norm.default": in_float32(layer_norm),
    "rms_norm.default": in_float32(rms_norm),
    "avg_pool1d.default": avg_pool,
    "avg_pool2d.default": avg_pool,
    "batch_norm.default": in_float32(batch_norm),
    "group_norm.default": in_float32(group_norm),
    "gelu.default": gelu,
    "relu.default": ops.relu,
    "relu6.default": ops.relu6,
    "silu.default": ops.silu,
    "tanh.default": ops.tanh,
    "sigmoid.default": ops.sigmoid,
    "log_sigmoid.default": ops.log_sigmoid,
    "softplus.default": softplus,
    "elu.default": elu,
    "selu.default": ops.selu,
    "celu.default": lambda x, alpha=1.0: elu(x, alpha, 1, 1 / alpha),
    "leaky_relu.default": lambda x, slope=0.01: ops.where(x >= 0, x, x * slope),
    "prelu.default": prelu,
    "hardtanh.default": lambda x, low=-1.0, high=1.0: clamp(x, low, high),
    "hardswish.default": lambda x: x * ops.relu6(x + 3) / 6,
    "hardsigmoid.default": lambda x: ops.relu6(x + 3) / 6,
    "mish.default": lambda x: x * ops.tanh(ops.softplus(x)),
}

ATEN: dict[str, Callable[..., Any]] = {f"aten.{name}": row for names, row in ROWS.items() for name in names.split()}
SIZES: dict[str, Callable[..., Any]] = {  # arithmetic of sizes, on ints or scalar tensors
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "neg": operator.neg,
    "pow": operator.pow,
    "truediv": lambda x, y: x / y if isinstance(x, int) and isinstance(y, int) else ops.true_divide(x, y),
    "getitem": lambda found, place: found[place],
    "sym_max": lambda x, y: max(x, y) if isinstance(x, int) and isinstance(y, int) else ops.maximum(x, y),
    "sym_min": lambda x, y: min(x, y) if isinstance(x, int) and isinstance(y, int) else ops.minimum(x, y),
    "sym_float": lambda x: float(x) if isinstance(x, int) else ops.cast(x, "float32"),
}
OPERATIONS = ATEN | SIZES
