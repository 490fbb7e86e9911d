"""Writes everything of an ONNX artifact but its parity report into the staging folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir

from sbertconv.artifact.kinds import MODEL_CLASSES
from sbertconv.artifact.publishing import Staging
from sbertconv.artifact.text_input import TEXT
from sbertconv.converters.guards import FACTS, TraceFacts
from sbertconv.converters.onnx.backend import GraphSettings, describe_tensors, exported_graph
from sbertconv.converters.onnx.fusion.counting import count_attention
from sbertconv.converters.onnx.naming import rename_graph
from sbertconv.converters.onnx.precision import RECIPES, Recipe, largest_values
from sbertconv.converters.onnx.saving import EXTERNAL_DATA, save_graph
from sbertconv.converters.onnx.tensorrt import (
    SCRIPT,
    build_script,
    check_operators,
    largest_shape,
    refused_nodes,
    shape_profile,
)
from sbertconv.converters.text import TextTables, text_tables
from sbertconv.converters.writing import (
    Finish,
    graph_name,
    manifest_content,
    route_content,
    write_module_configs,
    write_tokenizer,
)
from sbertconv.corpus.texts import BATCH_SIZE, CORPUS, inputs_of, long_text, sentences
from sbertconv.errors import ArtifactError, UnsupportedOptionError, error_text
from sbertconv.frameworks import import_openvino
from sbertconv.plan.planning import Plan
from sbertconv.plan.routes import PlannedRoute
from sbertconv.runtime.graph import Graph
from sbertconv.runtime.model import ConvertedModel
from sbertconv.runtime.opening import open_model
from sbertconv.runtime.tokenization import load_tokenizer
from sbertconv.source.opening import Source
from sbertconv.text import GraphTokenizer
from sbertconv.text.onnx_graph import put_before, session_runner, tokenizer_graph
from sbertconv.text.proof import Tokenize

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

GRAPH = "onnx/{name}.onnx"
PROBED = 320  # sentences
PACKAGES = ("torch", "sentence-transformers", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")


def write_onnx(
    source: Source, model: SentenceTransformer, plan: Plan, options: GraphSettings, staging: Staging
) -> tuple[dict[str, Any], list[Finish]]:
    """Write tokenizers and configs, and graphs in float32 outside of the artifact; returns the manifest's content, and
    the ways to finish: one for each recipe of the precision.
    """
    drafts, recipes = staging.scratch(), RECIPES[options.precision]
    # A draft that recipes read is mapped; one that becomes the artifact itself is written as that will be.
    external_data = True if any(recipe.change for recipe in recipes) else options.external_data
    tables = text_tables(plan, options.text_input, source.model_class.text_pair, _tokenizer)
    refused: dict[str, list[str]] = {}
    graphs = [
        _write_route(route, index == 0, model, replace(options, external_data=external_data), staging, drafts, refused)
        for index, route in enumerate(plan.routes)
    ]
    write_module_configs(model, staging)
    if options.for_tensorrt:
        check_operators(source.name, refused)
        staging.write(SCRIPT, build_script(graphs))
    more = {"precision": options.precision, "opset": options.opset, "optimized": options.optimize}
    more |= {"text_input": True} if options.text_input else {}
    more |= {"top_k": options.top_k} if options.top_k else {}
    more |= {"target": options.target} if options.for_tensorrt else {}
    content = manifest_content(source, model, plan, graphs, {options.form: options.proven_on}, PACKAGES, **more)
    if options.optimize:
        content["notes"] += [note for graph in graphs if (note := _unfused(graph))]
    return content, [partial(_finish, recipe, content, drafts, options, tables, staging) for recipe in recipes]


def _tokenizer(tables: GraphTokenizer) -> tuple[Tokenize, dict[str, int]]:
    """A tokenizer's graph alone, in ONNX Runtime, and its size."""
    graph = tokenizer_graph(tables)
    written = graph.SerializeToString()
    return session_runner(written, tables.framing.settings), {"nodes": len(graph.graph.node), "bytes": len(written)}


def _unfused(graph: Mapping[str, Any]) -> str | None:
    """What to say of a graph with attentions that did not become one operator."""
    found, fused = graph["attention"]["found"], graph["attention"]["fused"]
    return f"{graph['name']}: {found - fused} of {found} attentions are not fused." if fused < found else None


def _finish(
    recipe: Recipe,
    content: Mapping[str, Any],
    drafts: Path,
    options: GraphSettings,
    tables: Mapping[str, TextTables],
    staging: Staging,
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Write every graph as a recipe makes it from its draft; returns the manifest's content with what was measured."""
    embedder = open_model(staging.manifest(content))
    graphs = []
    for index, graph in enumerate(embedder.graphs):
        draft = made = drafts / GRAPH.format(name=graph_name(graph.section["name"], index == 0))
        if recipe.change is not None:
            model = recipe.change(
                onnx_ir.load(draft), partial(largest_values, draft, _batches(embedder, graph, options.calibration))
            )
            made = drafts / recipe.name / draft.name
            save_graph(model, made, options.external_data)
        section = graph.section
        if text := tables.get(section["name"]):
            model = onnx_ir.load(made)
            section = {**section, **text.section(section["inputs"])}
            made = drafts / TEXT / draft.name
            save_graph(put_before(model, text.tables), made, options.external_data)
        target = staging.folder / graph.section["formats"][options.form]
        target.parent.mkdir(parents=True, exist_ok=True)
        data = FORMS[options.form].write(made, target)
        section = {**section, "data": [path.relative_to(staging.folder).as_posix() for path in data]}
        names = {"inputs": options.input_names, "outputs": options.output_names}
        graphs.append(rename_graph(staging.folder, section, names))
    return {**content, **measured, "graphs": graphs, "recipe": recipe.name, "block_size": recipe.block}


def _move(made: Path, target: Path) -> list[Path]:
    """The .onnx file and its external weights."""
    found = [path for path in (made, made.with_name(made.name + EXTERNAL_DATA)) if path.is_file()]
    return [path.rename(target.with_name(path.name)) for path in found][1:]


def _to_openvino(made: Path, target: Path) -> list[Path]:
    """OpenVINO's intermediate representation: the graph as .xml and the weights as .bin, as they are in the graph.

    Raises:
        ArtifactError: if OpenVINO does not know one of the graph's operators.
    """
    openvino = import_openvino()

    try:
        model = openvino.Core().read_model(made)  # convert_model would widen weights
    except Exception as error:
        raise ArtifactError(f"OpenVINO does not read the graph: {error_text(error, 3)}") from error
    openvino.save_model(model, target, compress_to_fp16=False)
    return [target.with_suffix(".bin")]


@dataclass(frozen=True)
class GraphFormat:
    """What a finished graph is written as.

    Attributes:
        file: its place in the artifact, with {name} for the route.
        write: (.onnx file, file to write) -> the files with weights beside that.
    """

    file: str
    write: Callable[[Path, Path], list[Path]]


FORMS = {"onnx": GraphFormat(GRAPH, _move), "openvino": GraphFormat("openvino/openvino_{name}.xml", _to_openvino)}


def _batches(embedder: ConvertedModel, graph: Graph, calibration: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    """The corpus, the longest text, some of the sentences and the user's texts, or random images, as a graph takes
    them.
    """
    if graph.section["modality"] != "text":
        yield from (tensors for _, tensors in graph.prepared(inputs_of(graph.section)))
        return
    many = [*sentences()[:PROBED], *calibration]
    chunks = (many[start : start + BATCH_SIZE] for start in range(0, len(many), BATCH_SIZE))
    row = MODEL_CLASSES[embedder.artifact.manifest["model_class"]]
    for texts in (CORPUS, [long_text(graph.tokenizer.max_length(graph.task))], *chunks):
        inputs = list(zip(texts, reversed(texts), strict=True)) if row.pairs else texts
        tensors = embedder.tokenize(inputs, graph.task)
        yield {name: tensors[name] for name in graph.inputs}


def _write_route(
    route: PlannedRoute,
    is_default: bool,
    model: SentenceTransformer,
    options: GraphSettings,
    staging: Staging,
    drafts: Path,
    refused: dict[str, list[str]],
) -> dict[str, Any]:
    """Write one route's tokenizer to the artifact and its draft to a folder; returns the manifest's entry, and adds
    what TensorRT refuses of the graph to `refused`.
    """
    if options.for_tensorrt and route.places is not None:
        raise UnsupportedOptionError(
            f"target='tensorrt': a plan has a largest shape, and the sounds of {route.architecture} have any length.\n"
            "Leave it out."
        )
    section = write_tokenizer(route, is_default, staging)
    tokenizer = None if section is None else load_tokenizer(section, staging.folder)
    name = graph_name(route.name, is_default)
    with exported_graph(route, options, tokenizer, model) as (graph, tracer):
        save_graph(graph, drafts / GRAPH.format(name=name), options.external_data)
        attention = count_attention(graph)
        inputs, outputs = describe_tensors(graph.graph.inputs), describe_tensors(graph.graph.outputs)
        refused[route.name] = refused_nodes(graph)
        facts = graph.meta.get(FACTS, TraceFacts()).section(section, route.places)
    more: dict[str, Any] = (
        {"profile": shape_profile(inputs, largest_shape(section, options.max_shape))} if options.for_tensorrt else {}
    )
    more |= facts
    formats = {options.form: FORMS[options.form].file.format(name=name)}
    return route_content(route, formats, inputs, outputs, section, tracer=tracer, attention=attention, **more)
