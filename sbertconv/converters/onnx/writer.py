"""Writes everything of an ONNX artifact but its parity report into the staging folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sbertconv.artifact import Staging
from sbertconv.converters.onnx.backend import OnnxOptions, describe_tensors, exported_graph
from sbertconv.converters.onnx.fusion import count_attention
from sbertconv.converters.onnx.saving import save_graph
from sbertconv.converters.writing import (
    graph_name,
    manifest_content,
    route_content,
    write_module_configs,
    write_tokenizer,
)
from sbertconv.plan import Plan
from sbertconv.routes import Route
from sbertconv.source import Source
from sbertconv.tokenization import load_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

GRAPH = "onnx/{name}.onnx"
PACKAGES = ("torch", "sentence-transformers", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")


def write_onnx(
    source: Source, model: SentenceTransformer, plan: Plan, options: OnnxOptions, staging: Staging
) -> tuple[dict[str, Any], Callable[[], None]]:
    """Write graphs, tokenizers and configs; returns the manifest's content, and nothing to do after that."""
    graphs = [_write_route(route, index == 0, model, options, staging) for index, route in enumerate(plan.routes)]
    write_module_configs(model, staging)
    more = {"opset": options.opset, "optimized": options.optimize}
    content = manifest_content(source, model, plan, graphs, PACKAGES, **more)
    if options.optimize:
        content["notes"] += [note for graph in graphs if (note := _unfused(graph))]
    return content, lambda: None


def _unfused(graph: Mapping[str, Any]) -> str | None:
    """What to say of a graph with attentions that did not become one operator."""
    found, fused = graph["attention"]["found"], graph["attention"]["fused"]
    if fused == found:
        return None
    return f"{graph['formats']['onnx']}: {found - fused} of {found} attentions are not fused."


def _write_route(
    route: Route, is_default: bool, model: SentenceTransformer, options: OnnxOptions, staging: Staging
) -> dict[str, Any]:
    section = write_tokenizer(route, is_default, staging)
    tokenizer = None if section is None else load_tokenizer(section, staging.folder)
    name = GRAPH.format(name=graph_name(route.name, is_default))
    with exported_graph(route, options, tokenizer, model.truncate_dim) as (graph, tracer):
        data = save_graph(graph, staging.folder / name, options.external_data)
        attention = count_attention(graph)
        inputs, outputs = describe_tensors(graph.graph.inputs), describe_tensors(graph.graph.outputs)
    files = [path.relative_to(staging.folder).as_posix() for path in data]
    more = {"data": files, "tracer": tracer, "attention": attention}
    return route_content(route, {"onnx": name}, inputs, outputs, section, **more)
