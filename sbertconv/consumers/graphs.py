"""Outputs that a consumer reads by another name, added to a graph that is written already."""

from __future__ import annotations

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import HIDDEN, SENTENCE, TOKENS


def hidden_layout(artifact: Artifact, staging: Staging) -> None:
    """The token vectors under their second name, at the end of the outputs."""
    import onnx

    path = staging.folder / artifact.manifest["graphs"][0]["formats"]["onnx"]
    proto = onnx.load(str(path), load_external_data=False)
    if HIDDEN in [value.name for value in proto.graph.output]:
        return
    tokens = next(value for value in proto.graph.output if value.name == TOKENS)
    proto.graph.node.append(onnx.helper.make_node("Identity", [TOKENS], [HIDDEN]))
    proto.graph.output.add().CopyFrom(tokens)
    proto.graph.output[-1].name = HIDDEN
    onnx.save(proto, str(path))


def spread_layout(artifact: Artifact, staging: Staging) -> None:
    """The sentence embedding at every token, as last_hidden_state: whatever a consumer takes from it, the first, the
    last or the mean under the mask, is the sentence embedding, of models with other modules after the pooling too.
    """
    import onnx

    graph = artifact.manifest["graphs"][0]
    path = staging.folder / graph["formats"]["onnx"]
    proto = onnx.load(str(path), load_external_data=False)
    if HIDDEN in [value.name for value in proto.graph.output]:
        return
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
    size = next(entry["shape"][-1] for entry in graph["outputs"] if entry["name"] == SENTENCE)
    value = onnx.helper.make_tensor_value_info(HIDDEN, onnx.TensorProto.FLOAT, ["batch", "sequence", size])
    proto.graph.output.append(value)
    onnx.save(proto, str(path))
