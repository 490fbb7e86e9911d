"""Outputs that a consumer reads by another name, and whole graphs of another shape, made of one that is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sbertconv.artifact.folder import Artifact, fresh
from sbertconv.artifact.manifest import not_null
from sbertconv.artifact.naming import in_graph
from sbertconv.artifact.publishing import Staging
from sbertconv.artifact.scoring import IS_QUERY
from sbertconv.consumers.consumer import HIDDEN, SENTENCE, TOKEN_INPUTS, TOKENS
from sbertconv.converters.onnx.naming import rename_values
from sbertconv.errors import UnsupportedOptionError

TYPES = TOKEN_INPUTS[2]
LARGEST = 2**31 - 2**20  # bytes of an .onnx file, which is one message of protobuf


def graph_proto(artifact: Artifact, staging: Staging, weights: bool = False) -> Any:
    """The graph as it is staged, with or without what lies beside it."""
    import onnx

    path = staging.folder / artifact.manifest["graphs"][0]["formats"]["onnx"]
    return onnx.load(str(path), load_external_data=weights)


def save_staged(proto: Any, artifact: Artifact, staging: Staging) -> None:
    """Write the staged graph again; its weights, if they lie beside it, stay."""
    import onnx

    onnx.save(proto, str(fresh(staging.folder / artifact.manifest["graphs"][0]["formats"]["onnx"])))


def hidden_layout(artifact: Artifact, staging: Staging) -> None:
    """The token vectors under their second name, at the end of the outputs."""
    import onnx

    proto = graph_proto(artifact, staging)
    if HIDDEN in [value.name for value in proto.graph.output]:
        return
    tokens = next(value for value in proto.graph.output if value.name == TOKENS)
    proto.graph.node.append(onnx.helper.make_node("Identity", [TOKENS], [HIDDEN]))
    proto.graph.output.add().CopyFrom(tokens)
    proto.graph.output[-1].name = HIDDEN
    save_staged(proto, artifact, staging)


def spread_layout(artifact: Artifact, staging: Staging) -> None:
    """The sentence embedding at every token, as last_hidden_state: whatever a consumer takes from it, the first, the
    last or the mean under the mask, is the sentence embedding, of models with other modules after the pooling too.
    """
    proto = graph_proto(artifact, staging)
    if HIDDEN not in [value.name for value in proto.graph.output]:
        spread(proto, artifact)
        save_staged(proto, artifact, staging)


def spread(proto: Any, artifact: Artifact) -> None:
    """Add the sentence embedding at every token to a graph."""
    import onnx

    made = onnx.helper.make_node
    proto.graph.initializer.append(onnx.helper.make_tensor("spread_axis", onnx.TensorProto.INT64, [1], [1]))
    proto.graph.node.extend(
        [
            made("Unsqueeze", [SENTENCE, "spread_axis"], ["spread_one"]),
            made("Shape", ["input_ids"], ["spread_places"]),
            made("Concat", ["spread_places", "spread_axis"], ["spread_shape"], axis=0),
            made("Expand", ["spread_one", "spread_shape"], [HIDDEN]),
        ]
    )
    add_output(proto, HIDDEN, ["batch", "sequence", size_of(artifact)])


def one_token_of_logits(proto: Any, artifact: Artifact) -> None:
    """Add the logits of one token, of which a SPLADE pooling, log(1 + relu(x)), makes the sparse vector again."""
    import onnx

    made = onnx.helper.make_node
    proto.graph.initializer.extend(
        [
            onnx.helper.make_tensor("unpool_axis", onnx.TensorProto.INT64, [1], [1]),
            onnx.helper.make_tensor("unpool_one", onnx.TensorProto.FLOAT, [], [1.0]),
        ]
    )
    proto.graph.node.extend(
        [
            made("Exp", [SENTENCE], ["unpool_exp"]),
            made("Sub", ["unpool_exp", "unpool_one"], ["unpool_logits"]),
            made("Unsqueeze", ["unpool_logits", "unpool_axis"], ["token_logits"]),
        ]
    )
    add_output(proto, "token_logits", ["batch", 1, size_of(artifact)])


def mend_cut(proto: Any, artifact: Artifact, tokenizer: Any) -> None:
    """Put the special tokens at the end of a text over the limit where a cut has lost them.

    Args:
        proto: a graph of input_ids and attention_mask, which changes.
        artifact: what the limit is of.
        tokenizer: what writes the special tokens.
    """
    import onnx

    limit, encoding = not_null(artifact.limit), tokenizer.encode("a")
    kept = [number for number, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if not special]
    end = encoding.ids[encoding.ids.index(kept[-1]) + 1 :] if kept else []
    if not end or any("cut_ids" in node.output for node in proto.graph.node):
        return
    rename_values(proto.graph, {"input_ids": "cut_ids"})
    next(value for value in proto.graph.input if value.name == "cut_ids").name = "input_ids"
    tensor, int64 = onnx.helper.make_tensor, onnx.TensorProto.INT64
    constants = {"zero": [0], "one": [1], "last": [len(end) - 1], "start": [limit - len(end)], "full": [limit]}
    proto.graph.initializer.extend(
        tensor(f"cut_{name}", int64, [] if name != "one" else [1], values) for name, values in constants.items()
    )
    proto.graph.initializer.extend([tensor("cut_step", int64, [], [1]), tensor("cut_end", int64, [len(end)], end)])
    steps = [
        ("Shape", ["input_ids"], "cut_shape", {"start": 1}),
        ("Squeeze", ["cut_shape"], "cut_length", {}),
        ("Range", ["cut_zero", "cut_length", "cut_step"], "cut_places", {}),
        ("Sub", ["cut_places", "cut_start"], "cut_ahead", {}),
        ("Clip", ["cut_ahead", "cut_zero", "cut_last"], "cut_index", {}),
        ("Gather", ["cut_end", "cut_index"], "cut_special", {}),
        ("GreaterOrEqual", ["cut_places", "cut_start"], "cut_at_end", {}),
        ("ReduceSum", ["attention_mask", "cut_one"], "cut_tokens", {"keepdims": 1}),
        ("GreaterOrEqual", ["cut_tokens", "cut_full"], "cut_is_full", {}),
        ("And", ["cut_at_end", "cut_is_full"], "cut_here", {}),
        ("Where", ["cut_here", "cut_special", "input_ids"], "cut_ids", {}),
    ]
    nodes = [onnx.helper.make_node(kind, given, [made], **more) for kind, given, made, more in steps]
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])


def token_variant(artifact: Artifact, staging: Staging, file: str) -> None:
    """A graph in one file from token ids and mask to the vectors of tokens; its other inputs are zeros, of which these
    take the shape at most.
    """
    import onnx

    proto, (ids, mask, types) = graph_proto(artifact, staging, weights=True), TOKEN_INPUTS
    made = onnx.helper.make_node
    zeros = {
        types: [made("Sub", [ids, ids], [types])],
        IS_QUERY: [
            made("Sub", [ids, ids], ["no_query"]),
            made("ReduceMax", ["no_query", "no_axis"], [IS_QUERY], keepdims=0),
        ],
    }
    given = [value.name for value in proto.graph.input]
    proto.graph.initializer.append(onnx.helper.make_tensor("no_axis", onnx.TensorProto.INT64, [1], [1]))
    nodes = [*(node for name, added in zeros.items() if name in given for node in added), *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    write_variant(proto, staging, file, [TOKENS], (ids, mask))


def size_of(artifact: Artifact) -> Any:
    """The length of a vector."""
    outputs = artifact.manifest["graphs"][0]["outputs"]
    return next(entry["shape"][-1] for entry in outputs if in_graph(entry) == SENTENCE)


def add_output(proto: Any, name: str, shape: Sequence[Any]) -> None:
    """Say that a value of float32 is an output."""
    import onnx

    proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape)))


def write_variant(proto: Any, staging: Staging, file: str, outputs: Sequence[str], inputs: Sequence[str] = ()) -> None:
    """Write a graph with its weights to one file of the staging folder.

    Args:
        proto: a graph with its weights, which changes.
        staging: the folder.
        file: where in it.
        outputs: the outputs that stay, in order.
        inputs: all inputs in order, if they are to be in another one; token types that the graph does not read become
            an input that it does not read.

    Raises:
        UnsupportedOptionError: if one file cannot hold it.
    """
    given = {value.name: value for value in proto.graph.input}
    for name in inputs:
        if name == TYPES and name not in given:
            given[name] = type(given["input_ids"]).FromString(given["input_ids"].SerializeToString())
            given[name].name = TYPES
    found = {value.name: value for value in proto.graph.output}
    for field, chosen in (
        (proto.graph.output, [found[name] for name in outputs]),
        (proto.graph.input, [given[name] for name in inputs] if inputs else list(proto.graph.input)),
    ):
        copies = [type(value).FromString(value.SerializeToString()) for value in chosen]
        del field[:]
        field.extend(copies)
    if proto.ByteSize() > LARGEST:
        raise UnsupportedOptionError(
            f"{file}: {proto.ByteSize():,} bytes, and one file holds {LARGEST:,}.\nLeave the consumer out."
        )
    fresh(staging.folder / file).write_bytes(proto.SerializeToString())


def spread_variant(artifact: Artifact, staging: Staging, file: str, inputs: Sequence[str] = ()) -> None:
    """A graph in one file whose only output is the sentence embedding at every token."""
    proto = graph_proto(artifact, staging, weights=True)
    if not any(HIDDEN in node.output and node.op_type == "Expand" for node in proto.graph.node):
        rename_values(proto.graph, {HIDDEN: f"{HIDDEN}_of_tokens"})  # its other meaning, of another consumer
        spread(proto, artifact)
    write_variant(proto, staging, file, [HIDDEN], inputs)
