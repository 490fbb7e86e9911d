"""Writes an ONNX graph to one file or two, its weights streamed.

The libraries build the whole file in memory first, weights included, twice. Here the graph without its
weights is serialised by them, and the weights follow one at a time: in protobuf, repeated fields may come
in pieces and in any order, so a tensor is its header and then its bytes.
Format: https://protobuf.dev/programming-guides/encoding/ and onnx.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np

from sbertconv.converters.torch.backend import root_cause
from sbertconv.converters.traced import quiet
from sbertconv.errors import ArtifactError, SbertconvError, UnsupportedOptionError

if TYPE_CHECKING:
    import onnx_ir

PROTOBUF_LIMIT = 2**31 - 2**24  # a protobuf message ends at 2 GiB; some of it is the graph itself
EXTERNAL_DATA = "_data"  # the Hub's name for the weights beside model.onnx is model.onnx_data
Found = TypeVar("Found")
SMALL = 1024  # bytes; smaller weights stay in the graph
MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9  # field numbers of onnx.proto


def save_graph(model: onnx_ir.Model, path: Path, external_data: bool | None) -> list[Path]:
    """Write the graph; returns the files with external weights, if any.

    Args:
        model: the graph with its weights.
        path: the .onnx file.
        external_data: weights in a second file; None: only past 2 GB.

    Raises:
        UnsupportedOptionError: if one file was asked for and the weights do not fit.
        ArtifactError: if the graph is none that can be written.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = external_data or (external_data is None and size > PROTOBUF_LIMIT)
    if size > PROTOBUF_LIMIT and not beside:
        raise UnsupportedOptionError(
            f"{size / 2**30:.1f} GiB of weights do not fit into one .onnx file (the limit is 2 GiB).\n"
            "Leave external_data=False out."
        )
    try:
        return _saved(model, path) if beside else _written(model, path)
    except (OSError, MemoryError, SbertconvError):
        raise
    except Exception as error:  # of onnx_ir, on a node or a value that is none
        raise ArtifactError(f"The graph cannot be written: {root_cause(error)}\nPass optimize=False.") from error


def _saved(model: onnx_ir.Model, path: Path) -> list[Path]:
    """The graph and, beside it, its weights."""
    import onnx_ir

    data = path.with_name(path.name + EXTERNAL_DATA)
    onnx_ir.save(model, path, external_data=data.name)
    return [data]


def _written(model: onnx_ir.Model, path: Path) -> list[Path]:
    """The graph with its weights in it."""
    with path.open("wb") as file:
        _write(model, file)
    return []


def lazy(
    name: str,
    like: onnx_ir.Value | onnx_ir.TensorProtocol,
    compute: Callable[[], np.ndarray],
    shape: Sequence[int] | None = None,
    dtype: onnx_ir.DataType | None = None,
) -> onnx_ir.LazyTensor:
    """A weight that is computed when it is read, and not kept: all of them together are too many.

    Args:
        name: of the weight.
        like: what has its shape and dtype, unless these are given.
        compute: gives its numbers.
        shape: its own.
        dtype: its own.
    """
    import onnx_ir

    def computed() -> onnx_ir.TensorProtocol:
        return onnx_ir.tensor(np.ascontiguousarray(compute()), name=name)

    shape = onnx_ir.Shape(like.shape if shape is None else shape)
    return onnx_ir.LazyTensor(computed, like.dtype if dtype is None else dtype, shape, name=name)


def read(tensor: onnx_ir.TensorProtocol, change: Callable[[np.ndarray], Found]) -> Found:
    """What `change` makes of a weight's numbers; the pages of a file that it lies in count as memory while they are
    mapped, so they are not afterwards.
    """
    import onnx_ir

    found = change(tensor.numpy())
    if isinstance(tensor, onnx_ir.ExternalTensor):
        with suppress(BufferError):  # another weight is the same numbers, transposed, and still to be written
            tensor.release()
    return found


def _write(model: onnx_ir.Model, file: BinaryIO) -> None:
    import onnx
    import onnx_ir

    with _without_large_weights(model) as large, quiet():
        proto = onnx_ir.to_proto(model)
    # Whole tensors come from the stream below; what to_proto wrote for them is an empty shell.
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in large]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    headers = {
        name: onnx.TensorProto(name=name, dims=list(tensor.shape), data_type=int(tensor.dtype)).SerializeToString()
        + _field(TENSOR_RAW_DATA, tensor.nbytes)
        for name, tensor in large.items()
    }
    lengths = {name: len(headers[name]) + tensor.nbytes for name, tensor in large.items()}
    total = len(graph) + sum(len(_field(GRAPH_INITIALIZER, length)) + length for length in lengths.values())
    file.write(proto.SerializeToString() + _field(MODEL_GRAPH, total) + graph)
    for name, tensor in large.items():
        file.write(_field(GRAPH_INITIALIZER, lengths[name]) + headers[name])
        file.write(tensor.tobytes())


@contextmanager
def _without_large_weights(model: onnx_ir.Model) -> Iterator[dict[str, onnx_ir.TensorProtocol]]:
    """The large weights by name, and those that lie in another file, taken out of the graph for as long as the context
    lasts.
    """
    import onnx_ir

    large = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if isinstance(value.const_value, onnx_ir.ExternalTensor)
        or (value.const_value is not None and value.const_value.nbytes > SMALL)
    }
    for name in large:
        model.graph.initializers[name].const_value = None
    try:
        yield large
    finally:
        for name, tensor in large.items():
            model.graph.initializers[name].const_value = tensor


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first, the top bit set on all but the last."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _field(number: int, length: int) -> bytes:
    """The tag of a length-delimited field (wire type 2) and its length."""
    return _varint(number << 3 | 2) + _varint(length)
