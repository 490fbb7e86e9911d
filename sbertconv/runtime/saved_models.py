"""The gate before a SavedModel or a LiteRT model is opened: their graphs may hold operations that read files, write
files or call Python, which no conversion writes.

A SavedModel is `tensorflow.SavedModel` of tensorflow/core/protobuf/saved_model.proto, a LiteRT model the flatbuffer of
tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

import graphlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sbertconv.artifact.json_reading import read_bytes
from sbertconv.errors import CONVERT_AGAIN, ArtifactError

REFUSED = re.compile(  # by the names of their operations
    r".*(PyFunc|ReadFile|WriteFile|MatchingFiles|Reader|Dataset|Iterator|Summary|TextFile|Rpc|Send|Recv|Worker|Remote"
    r"|Print|Custom|Plugin|FileSystem|Debug|Generator|CSV|Database|Sqlite|BigQuery|Infeed|Outfeed"
    r"|ImmutableConst|VocabRemapping|RemapMatrix|Proto).*"
)
# Operations with a state, which TensorFlow says of all that touch the world but those above: what conversions write
STATEFUL = {"Assert", "AssignVariableOp", "Case", "DisableCopyOnRead", "HashTableV2", "If", "LookupTableFindV2",
            "LookupTableImportV2", "LookupTableSizeV2", "MutableHashTableV2", "PartitionedCall", "ReadVariableOp",
            "StatefulPartitionedCall", "VarHandleOp", "VarIsInitializedOp", "While"}  # fmt: skip
CHECKPOINTS = re.compile(r"Save(Slices|V2)?|Restore(Slice|V2)?|MergeV2Checkpoints|ShardedFilename|RestoreV2")
SAVING = re.compile(r"__inference__traced_(save|restore)_[0-9]{1,9}")  # functions with which variables are loaded
FINGERPRINT = "fingerprint.pb"
OPENED = "saved_model.pb"  # which TensorFlow opens, whatever file of its folder was looked at
# TensorType of LiteRT's schema -> bytes of a number: FLOAT32, FLOAT16, INT32, UINT8, INT64, BOOL, INT16, INT8, FLOAT64,
# UINT64, UINT32, UINT16
WIDTHS = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1, 10: 8, 12: 8, 15: 4, 16: 2}
LARGEST_GRAPH = 2**31 - 1  # of a protobuf message
LARGEST_MODEL = 2**36
LARGEST_TENSOR = 2**33  # bytes of what an operation computes: the interpreter writes where it got no memory
NEEDED = 2  # first inputs of an operation, which none of LiteRT's goes without
WITH_GATES = ("LSTM", "RNN", "SVDF")  # but these, which have gates that may be left out
SHAPE = "tensorflow.TensorShapeProto"
LARGEST_AXIS = 2**31 - 1  # of a shape; TensorFlow ends the process where a product of them overflows


def check_saved_model(file: Path) -> None:
    """Refuse a SavedModel with operations that no conversion writes, or one of TensorFlow 1, whose graph is run when it
    is opened.

    Raises:
        ArtifactError: naming every such operation.
    """
    from tensorflow.core.protobuf import fingerprint_pb2, saved_model_pb2

    saved = _parsed(saved_model_pb2.SavedModel, file)
    if (
        fingerprint := file.parent / FINGERPRINT
    ).is_file():  # TensorFlow goes on without one that it cannot read, loudly
        _parsed(fingerprint_pb2.FingerprintDef, fingerprint)
    problems = {f"the operation {name}" for meta in saved.meta_graphs for name in _operations(meta)}
    if file.name != OPENED:
        problems.add(f"{OPENED} beside it, which TensorFlow would open in its place")
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].HasField("object_graph_def"):
        problems.add("a graph of TensorFlow 1")
    problems.update(f"a shape of {list(shape)}" for shape in _shapes(saved) if _is_beyond(shape))
    inside = (path for path in sorted(file.parent.rglob("*")) if not path.is_file() and not path.is_dir())
    problems.update(f"{path.name}, which is no file and may never end" for path in inside)
    _refuse(file, sorted(problems))


def _parsed(kind: Any, file: Path) -> Any:
    """The message in a file.

    Raises:
        ArtifactError: if it is none of this kind.
    """
    try:
        return kind.FromString(read_bytes(file, most=LARGEST_GRAPH))
    except ArtifactError:
        raise
    except Exception as error:  # DecodeError of protobuf, whose place differs by version
        raise ArtifactError(f"{file}: not a readable SavedModel: {error}\n{CONVERT_AGAIN}") from error


def _shapes(message: Any) -> Iterator[tuple[int, ...]]:
    """The distinct shapes anywhere in a message; -1 is an axis of any size."""
    seen: set[tuple[int, ...]] = set()
    waiting = [message]
    while waiting:
        for field, value in waiting.pop().ListFields():
            if field.message_type is None:
                continue
            inner = value if field.is_repeated else [value]
            if field.message_type.GetOptions().map_entry:
                inner = [one for one in value.values() if hasattr(one, "ListFields")]
            if field.message_type.full_name == SHAPE:
                seen.update(tuple(axis.size for axis in shape.dim) for shape in inner)
            else:
                waiting += inner
    yield from sorted(seen)


def _is_beyond(shape: Sequence[int]) -> bool:
    """Whether no tensor of a conversion has this shape."""
    known = [axis for axis in shape if axis != -1]
    return any(not 0 <= axis <= LARGEST_AXIS for axis in known) or math.prod(known) > LARGEST_TENSOR


def _operations(meta: Any) -> Iterator[str]:
    """The refused operations of a graph and of its functions. Variables are saved and restored by two functions of
    their own, which nothing but the loader may call.
    """
    yield from (node.op for node in meta.graph_def.node if _touches(node.op) or CHECKPOINTS.fullmatch(node.op))
    functions = meta.graph_def.library.function
    names = {function.signature.name for function in functions}  # a node may have one in the place of an operation
    saving = [name for name in names if SAVING.fullmatch(name)]
    said = meta.graph_def.library.SerializeToString() + meta.object_graph_def.SerializeToString()
    uncalled = {name for name in saving if len(saving) <= 2 and said.count(as_field(name)) == 1}  # where it is defined
    for function in functions:
        saves = function.signature.name in uncalled
        for node in function.node_def:
            if not saves if CHECKPOINTS.fullmatch(node.op) else _touches(node.op) and node.op not in names:
                yield node.op


def as_field(name: str) -> bytes:
    """A short text as protobuf writes it, in whichever field."""
    return bytes([len(name)]) + name.encode()


def _touches(operation: str) -> bool:
    """Whether an operation could touch more than its tensors and variables, or is none that TensorFlow knows."""
    from tensorflow.python.framework import op_def_registry

    known = op_def_registry.get(operation)
    return known is None or bool(REFUSED.fullmatch(operation)) or (known.is_stateful and operation not in STATEFUL)


def check_litert(file: Path) -> None:
    """Refuse a LiteRT model with operations of TensorFlow or custom ones, or with places outside of it.

    Raises:
        ArtifactError: naming every such operation, or if the file cannot be read.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        content = read_bytes(file, most=LARGEST_MODEL)
        if not schema.Model.ModelBufferHasIdentifier(content, 0):
            raise ValueError("it does not begin as one")
        model = schema.ModelT.InitFromPackedBuf(content, 0)  # every place in it, which the interpreter does not look at
        custom = sorted(
            {f"the operation {code.customCode.decode()}" for code in model.operatorCodes if code.customCode}
        )
        if model.externalBufferGroups or model.externalBuffers:
            custom.append("weights in other files")
        if wrong := next(_wrong_places(model), None):
            raise ValueError(wrong)
    except ArtifactError:
        raise
    except Exception as error:  # struct.error, TypeError and others: the reader checks nothing
        raise ArtifactError(f"{file}: not a readable LiteRT model: {error}\n{CONVERT_AGAIN}") from error
    _refuse(file, custom)


def _wrong_places(model: Any) -> Iterator[str]:
    """Numbers of a LiteRT model that lead to nothing, and weights that are not as long as their shapes say: its
    interpreter takes them at their word, and the process with it.
    """
    buffers, codes = model.buffers or [], model.operatorCodes or []
    called = {number: set(_called(graph)) for number, graph in enumerate(model.subgraphs)}
    if set().union(*called.values()) - called.keys():
        yield "a graph that is not there"
    graphlib.TopologicalSorter(called).prepare()  # ValueError: graphs that call each other, without an end
    for graph in model.subgraphs:
        tensors = graph.tensors or []
        uses = [graph.inputs, graph.outputs]
        for operator in graph.operators or ():
            uses += [operator.inputs, operator.outputs, operator.intermediates]
            if not 0 <= operator.opcodeIndex < len(codes):
                yield "an operation that is not listed"
        if any(not -1 <= number < len(tensors) for numbers in uses if numbers is not None for number in numbers):
            yield "a tensor that is not there"
        for tensor in tensors:
            if not 0 <= tensor.buffer < len(buffers):
                yield "weights that are not there"
                return
            shape = _shape(tensor)
            data, width = buffers[tensor.buffer].data, WIDTHS.get(tensor.type)
            if any(size < 0 for size in shape):
                yield "a tensor of a negative size"
            if math.prod(shape) * (width or 1) > LARGEST_TENSOR:
                yield f"a tensor of the shape {shape}"
            if (
                data is not None
                and len(data)
                and width
                and not tensor.sparsity
                and math.prod(shape) * width != len(data)
            ):
                yield f"{len(data):,} bytes for a tensor of the shape {shape}"
        yield from _never_computed(graph, buffers)
        yield from _left_out(graph, [max(code.builtinCode, code.deprecatedBuiltinCode) for code in codes])
    for signature in model.signatureDefs or ():
        tensors = model.subgraphs[signature.subgraphIndex].tensors
        for named in (*(signature.inputs or ()), *(signature.outputs or ())):
            if named.name is None or not 0 <= named.tensorIndex < len(tensors):
                yield "an input or output that is not there"
    if any(not 0 <= entry.buffer < len(buffers) for entry in model.metadata or ()):
        yield "metadata that is not there"


def _called(graph: Any) -> Iterator[int]:
    """The numbers of the graphs that the operations of one run: bodies of loops, branches, and others."""
    for operator in graph.operators or ():
        for options in (operator.builtinOptions, operator.builtinOptions2):
            for name, value in vars(options).items() if options is not None else ():
                if "ubgraph" in name and value is not None:
                    yield from (int(number) for number in (value if hasattr(value, "__len__") else [value]))


def _never_computed(graph: Any, buffers: Sequence[Any]) -> Iterator[str]:
    """Tensors that an operation reads before anything has given them numbers."""
    tensors = graph.tensors or []

    def is_held(tensor: Any) -> bool:
        data = buffers[tensor.buffer].data
        return bool(tensor.isVariable) or (data is not None and len(data) > 0) or 0 in _shape(tensor)

    there = {number for number, tensor in enumerate(tensors) if is_held(tensor)} | {-1, *map(int, graph.inputs)}
    for operator in graph.operators or ():
        if any(int(number) not in there for number in (operator.inputs if operator.inputs is not None else ())):
            yield "a tensor that nothing computes"
            return
        given = [int(number) for number in (operator.outputs if operator.outputs is not None else ())]
        if any(number in there and 0 not in _shape(tensors[number]) for number in given):
            yield "a tensor that is computed and has its numbers already"
            return
        there |= set(given)


def _shape(tensor: Any) -> list[int]:
    return [] if tensor.shape is None else [int(size) for size in tensor.shape]


def _left_out(graph: Any, codes: Sequence[int]) -> Iterator[str]:
    """Tensors that an operation cannot do without: only its last ones, such as a bias, may be left out."""
    from tensorflow.lite.python import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    for operator in graph.operators or ():
        name = names.get(codes[operator.opcodeIndex], "")
        first = [] if operator.inputs is None else [int(number) for number in operator.inputs[:NEEDED]]
        if -1 in first and not name.endswith(WITH_GATES):
            yield f"the operation {name} without what it computes with"


def _refuse(file: Path, problems: list[str]) -> None:
    if problems:
        raise ArtifactError(
            f"{file}: holds what no conversion writes, and running it could read or write files:\n"
            + "\n".join(f"  {problem}" for problem in problems[:10])
            + "\nDo not use this folder."
        )
