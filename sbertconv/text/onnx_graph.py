"""A tokenizer as an ONNX graph of its own, and in front of a model's."""

from __future__ import annotations

from typing import Any

from sbertconv.artifact.text_input import TokenizerSettings
from sbertconv.text.onnx_emitter import CONTRIB, OPSET, OnnxEmitter
from sbertconv.text.proof import Tokenize
from sbertconv.text.tokenizer import GraphTokenizer

IR_VERSION = 10


def tokenizer_graph(tables: GraphTokenizer) -> Any:
    """An onnx.ModelProto: the settings' inputs [batch] -> their tensors, int64 [batch, sequence]."""
    import onnx
    from onnx import helper

    emitter = OnnxEmitter()
    inputs = tables.framing.settings.inputs
    tensors = tables(emitter, {name: name for name in inputs})
    emitter.nodes.extend(helper.make_node("Identity", [x.value], [name]) for name, x in tensors.items())
    graph = helper.make_graph(
        emitter.nodes,
        "tokenizer",
        [
            helper.make_tensor_value_info(name, getattr(onnx.TensorProto, dtype.upper()), ["batch"])
            for name, dtype in inputs.items()
        ],
        [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "sequence"]) for name in tensors],
        emitter.initializers,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def put_before(model: Any, tables: GraphTokenizer) -> Any:
    """The model, an onnx_ir.Model, with the settings' inputs instead of the tensors that the tokenizer gives; changed
    in place.
    """
    import onnx_ir

    front = onnx_ir.from_proto(tokenizer_graph(tables))
    made = {value.name: value for value in front.graph.outputs}
    nodes, weights = list(front.graph), list(front.graph.initializers.values())
    inputs = list(front.graph.inputs)
    front.graph.outputs.clear()
    front.graph.inputs.clear()
    front.graph.remove(nodes)
    front.graph.initializers.clear()
    graph = model.graph
    for value in list(graph.inputs):
        if value.name in made:
            graph.inputs.remove(value)
            value.replace_all_uses_with(made[value.name])
    graph.inputs[:0] = inputs
    for value in weights:
        graph.register_initializer(value)
    graph.insert_before(graph[0], nodes)
    for domain, version in front.opset_imports.items():
        model.opset_imports.setdefault(domain, version)
    return model


def session_runner(model: bytes | str, settings: TokenizerSettings) -> Tokenize:
    """What `prove` asks: a tokenizer's graph in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda texts, limit: dict(zip(names, session.run(names, settings.feeds(texts, limit)), strict=True))
