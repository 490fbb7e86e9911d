"""Writes everything of a PyTorch artifact but its parity report into the staging folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from sbertconv.artifact.kinds import NOT_ZERO
from sbertconv.artifact.publishing import Staging
from sbertconv.converters.torch.backend import Pipeline, example_tensors, exported_program, save_program
from sbertconv.converters.writing import (
    Finish,
    graph_name,
    manifest_content,
    route_content,
    write_module_configs,
    write_tokenizer,
)
from sbertconv.options import TorchOptions
from sbertconv.plan.planning import Plan
from sbertconv.plan.routes import PlannedRoute
from sbertconv.runtime.tokenization import load_tokenizer
from sbertconv.source.opening import Source
from sbertconv.source.routes import open_axes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FORMAT = "torch"
FILE = "torch/{name}.pt2"
PACKAGES = ("torch", "sentence-transformers", "transformers", "tokenizers")


def write_torch(
    source: Source, model: SentenceTransformer, plan: Plan, options: TorchOptions, staging: Staging
) -> tuple[dict[str, Any], list[Finish]]:
    """Write tokenizers, configs and programs; returns the manifest's content, and what is left to do with it.

    The programs' weights are those of the model, so they are written while it is there.
    """
    graphs = [_write_route(route, index == 0, model, options, staging) for index, route in enumerate(plan.routes)]
    write_module_configs(model, staging)
    more = {"top_k": options.top_k} if options.top_k else {}
    content = manifest_content(source, model, plan, graphs, {FORMAT: (FORMAT,)}, PACKAGES, **more)
    return content, [lambda measured: {**content, **measured}]


def _write_route(
    route: PlannedRoute, is_default: bool, model: SentenceTransformer, options: TorchOptions, staging: Staging
) -> dict[str, Any]:
    """Write one route's tokenizer and program; returns the manifest's entry."""
    section = write_tokenizer(route, is_default, staging)
    tokenizer = None if section is None else load_tokenizer(section, staging.folder)
    pipeline = Pipeline(route, model, options.outputs).eval()
    example = example_tensors(route, pipeline.inputs, tokenizer)
    program, facts = exported_program(pipeline, route, example)
    file = FILE.format(name=graph_name(route.name, is_default))
    save_program(program, route, staging.folder / file)
    taken = zip(example, (node.meta["val"] for node in _user_inputs(program)), strict=True)
    given = zip(pipeline.outputs, (node.meta["val"] for node in program.graph.output_node().args[0]), strict=True)
    more = facts.section(section, route.places)
    return route_content(route, {FORMAT: file}, _described(taken), _described(given), section, **more)


def _user_inputs(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    """The nodes of a program's inputs, in order."""
    names = program.graph_signature.user_inputs
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]


def _described(tensors: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The manifest's entries: name, dtype, shape with names for what varies."""
    named = dict(tensors)
    return [
        {
            "name": name,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": [_axis(name, axis, size, named) for axis, size in enumerate(tensor.shape)],
        }
        for name, tensor in named.items()
    ]


def _axis(name: str, axis: int, size: Any, beside: Collection[str]) -> int | str:
    """A size, or the name of what varies."""
    if isinstance(size, int):
        return size
    return NOT_ZERO if free_unbacked_symbols(size) else open_axes(name, 2, beside)[axis]
