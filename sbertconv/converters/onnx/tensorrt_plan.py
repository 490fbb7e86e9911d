"""An ONNX graph -> a TensorRT plan for the GPU of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sbertconv.artifact.folder import Artifact, fresh
from sbertconv.artifact.manifest import ShapeRange
from sbertconv.errors import ArtifactError, UnsupportedModuleError
from sbertconv.runtime.tensorrt import log_of

FOLDER = "tensorrt"


def plan_names(artifact: Artifact) -> tuple[list[str], list[str]]:
    """The file of the plan of every graph, in order, and the files of the folder that stay beside them.

    Raises:
        ArtifactError: if one of these lies where a plan is due.
    """
    graphs = artifact.manifest["graphs"]
    old = {graph["formats"].get("tensorrt") for graph in graphs}
    plans = [f"{FOLDER}/{PurePosixPath(graph['formats']['onnx']).stem}.plan" for graph in graphs]
    kept = [name for name in artifact.manifest["files"] if name not in old]
    taken = {str(place) for name in kept for place in (PurePosixPath(name), *PurePosixPath(name).parents)}
    if twice := [plan for plan in plans if plan in taken or FOLDER in kept or plans.count(plan) > 1]:
        raise ArtifactError(
            f"{artifact.folder}: {twice[0]} would be the plan of a graph, and another file or plan is in its place.\n"
            "Convert the model again with overwrite=True."
        )
    return plans, kept


def write_plan(trt: Any, graph: Path, profile: Mapping[str, ShapeRange], plan: Path) -> None:
    """Build a graph's plan for the GPU of this machine.

    The network is strongly typed, so that it computes in the graph's own types; TF32 is off, because its ten bits of
    mantissa are far from float32.

    Args:
        trt: the package tensorrt.
        graph: the .onnx file.
        profile: name of an input -> its shapes: "min", "opt" and "max".
        plan: the file to write.

    Raises:
        UnsupportedModuleError: if TensorRT cannot parse the graph, with every node that it refuses, or build it.
    """
    log = log_of(trt)
    log.taken()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        lines = [f"  {error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors]
        raise UnsupportedModuleError(
            f"TensorRT {trt.__version__} cannot parse {graph.name}:\n" + "\n".join(lines) + "\n"
            "Update TensorRT, or run the graph with ONNX Runtime."
        )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    shapes = builder.create_optimization_profile()
    for name, sizes in profile.items():
        shapes.set_shape(name, *map(tuple, (sizes["min"], sizes["opt"], sizes["max"])))
    config.add_optimization_profile(shapes)
    built = builder.build_serialized_network(network, config)
    if built is None:
        largest = ", ".join(f"{name} {sizes['max']}" for name, sizes in profile.items())
        raise UnsupportedModuleError(
            f"TensorRT {trt.__version__} cannot build {graph.name} up to {largest}: {log.taken()}\n"
            "If memory was short, convert again with a smaller max_shape=."
        )
    fresh(plan).write_bytes(built)
