"""Gives the inputs and outputs of a graph that is written already other names, and another order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbertconv.artifact.naming import in_graph, renamed
from sbertconv.frameworks import import_openvino

KEYS = ("inputs", "outputs")
Pairs = Sequence[tuple[str, str]]


def rename_graph(folder: Path, section: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Rename in every file of one graph.

    Args:
        folder: where the files are.
        section: the manifest's entry of the graph.
        names: see `sbertconv.artifact.naming.renamed`.

    Returns:
        The entry with the new names.

    Raises:
        UnsupportedOptionError: for names that do not fit.
    """
    after = renamed(section, names)
    if not any(names.values()):
        return after
    old = {key: {entry["name"]: in_graph(entry) for entry in section[key]} for key in KEYS}
    inputs, outputs = ([(old[key][entry["name"]], in_graph(entry)) for entry in after[key]] for key in KEYS)
    for form, file in section["formats"].items():
        RENAMERS[form](folder / file, inputs, outputs)
    return after


def rename_onnx(path: Path, inputs: Pairs, outputs: Pairs) -> None:
    """In an .onnx file, in the order given; weights beside it stay as they are."""
    import onnx

    proto = onnx.load(str(path), load_external_data=False)
    values = all_names(proto.graph)
    names = dict([*inputs, *outputs])
    for new in {*names.values()} & {*values} - {*names}:  # a value inside that has the name already
        fresh = f"{new}_inside"
        while fresh in values or fresh in names.values():
            fresh += "_"
        names[new] = fresh
    rename_values(proto.graph, names)
    for field, chosen in ((proto.graph.input, inputs), (proto.graph.output, outputs)):
        by_name = {value.name: value for value in field}
        kept = [by_name.pop(new) for _, new in chosen]
        kept += by_name.values()  # what the manifest does not know of
        copies = [type(value).FromString(value.SerializeToString()) for value in kept]
        del field[:]
        field.extend(copies)
    onnx.save(proto, str(path))


def all_names(graph: Any) -> set[str]:
    """Every name of a value in a graph and in the graphs inside it."""
    found = {name for node in graph.node for name in (*node.input, *node.output)}
    found |= {value.name for field in (graph.input, graph.output, graph.initializer) for value in field}
    for inner in inner_graphs(graph):
        found |= all_names(inner)
    return found


def inner_graphs(graph: Any) -> list[Any]:
    """The graphs of loops and branches."""
    return [
        inner
        for node in graph.node
        for attribute in node.attribute
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def rename_values(graph: Any, names: Mapping[str, str]) -> None:
    """Every value by the table, those that inner graphs take from around them too."""
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for field in (graph.input, graph.output, graph.initializer, graph.value_info):
        for value in field:
            value.name = names.get(value.name, value.name)
    for inner in inner_graphs(graph):
        rename_values(inner, names)


def rename_openvino(path: Path, inputs: Pairs, outputs: Pairs) -> None:
    """In OpenVINO's two files, which are written again and then exchanged."""
    openvino = import_openvino()

    model = openvino.Core().read_model(path)
    parameters = [model.input(old) for old, _ in inputs]
    results = [model.output(old) for old, _ in outputs]
    for port, (_, new) in zip([*parameters, *results], [*inputs, *outputs], strict=True):
        port.get_tensor().set_names({new})
        port.get_node().set_friendly_name(new)
    ordered = openvino.Model(
        [port.get_node() for port in results], [port.get_node() for port in parameters], model.get_friendly_name()
    )
    draft = path.with_name(f"{path.stem}.renamed.xml")
    openvino.save_model(ordered, draft, compress_to_fp16=False)
    del model, ordered, parameters, results, port
    for suffix in (".xml", ".bin"):
        draft.with_suffix(suffix).replace(path.with_suffix(suffix))


RENAMERS: dict[str, Callable[[Path, Pairs, Pairs], None]] = {"onnx": rename_onnx, "openvino": rename_openvino}
