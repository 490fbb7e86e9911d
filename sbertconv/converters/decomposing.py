"""Breaks up the operations of a traced program that a backend has no line for, one by one.

`ExportedProgram.run_decompositions` traces the whole program again for the few of its operations that need it, which
takes as long as the first trace. Here each of these is traced alone, on the placeholders that the first trace left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from sbertconv.source.torch_compat import (
    Operator,
    is_composite,
    settled,
    storage_of,
    tree_flatten,
    tree_map,
    tree_unflatten,
    without_stack_traces,
    without_writing,
    writes,
)

ABOUT = ("nn_module_stack", "torch_fn")  # of a node: where it came from
ON_SIZES = ("_operator", "math", "torch")  # modules of functions

Decompositions = dict[Any, Callable[..., Any]]
Pieces = dict[Any, torch.fx.Graph]  # a node as `_told` -> its simpler operations, which layers that are the same share


@without_stack_traces()
def decomposed(
    program: torch.export.ExportedProgram, table: Decompositions, is_kept: Callable[[Any], bool]
) -> torch.export.ExportedProgram:
    """The program in other operations.

    Args:
        program: as torch.export traced it; it is changed, unless an operation in it holds a graph of its own or writes
            over a tensor that others see: then it is traced again.
        table: operation -> a function of the same arguments, in operations that are kept or stand in the table.
        is_kept: tells the operations that stay as they are. Others that PyTorch itself defines by simpler ones are
            broken up.
    """
    if not _is_flat(program.graph) or not _without_writes(program.graph):
        return _without_views(program.run_decompositions(table))
    graph, signature = program.graph, program.graph_signature
    pieces: Pieces = {}
    for node in list(graph.nodes):
        way = _way(node.target, table, is_kept) if node.op == "call_function" else None
        if way is not None:
            told = _told(node)
            if told not in pieces:
                pieces[told] = _traced(node, way, table)
            for old, new in _replaced(graph, node, pieces[told]):
                old.replace_all_uses_with(new)
                signature.replace_all_uses(old.name, new.name)
    _share_sizes(graph)
    _say_sizes(graph)
    _complete_users(graph)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _without_views(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without views of whole tensors, which PyTorch's decompositions leave."""
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.prims.view_of.default):
        node.replace_all_uses_with(node.args[0])
        program.graph_signature.replace_all_uses(node.name, node.args[0].name)
        program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _complete_users(graph: torch.fx.Graph) -> None:
    """Note every node with what it takes: torch.export forgets some slices that nothing reads, which then cannot be
    taken out.
    """
    for node in graph.nodes:
        for given in node.all_input_nodes:
            given.users.setdefault(node)


def _is_flat(graph: torch.fx.Graph) -> bool:
    """Whether every node is an input, an output, an operation on tensors, or one on sizes; and none gives a size that
    only the data tells, which would have another name in each trace.
    """
    return all(
        node.op in ("placeholder", "output")
        or isinstance(node.target, Operator)
        or getattr(node.target, "__module__", None) in ON_SIZES
        for node in graph.nodes
    ) and not any(node.meta.get("unbacked_bindings") for node in graph.nodes)


def _without_writes(graph: torch.fx.Graph) -> bool:
    """Replace operations that write into their first argument by those that do not, where nothing else sees it; whether
    all of them are gone.
    """
    seen: Counter[int] = Counter()  # tensors so far by where their numbers lie: views lie where their bases do
    for node in graph.nodes:
        if writes(node.target):
            into = node.args[0]
            way = without_writing(node.target)
            others = len(into.users) > 1 or seen[storage_of(into.meta["val"])] > 1
            if others or into.op == "placeholder" or way is None:
                return False
            node.target = way
        elif isinstance(value := node.meta.get("val"), torch.Tensor):
            seen[storage_of(value)] += 1
    return True


def _share_sizes(graph: torch.fx.Graph) -> None:
    """One node for each size, taken where it is known first: those of the inputs."""
    found: dict[Any, torch.fx.Node] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and found.setdefault(value.node.expr, node) is not node:
            node.replace_all_uses_with(found[value.node.expr])


def _say_sizes(graph: torch.fx.Graph) -> None:
    """The number in the place of a -1 in a new shape, where it does not vary: as PyTorch makes views of reshapes."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.reshape.default):
        tensor, sizes = node.args
        known = zip(sizes, node.meta["val"].shape, strict=True)
        node.args = (tensor, [size if given == -1 and isinstance(size, int) else given for given, size in known])


def _take_copies(graph: torch.fx.Graph) -> None:
    """Read new numbers from where they were computed and not from the tensor that they were copied over, as PyTorch's
    own decompositions do with theirs.
    """
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default):
        into, numbers = node.args[:2]
        place, like = storage_of(into.meta["val"]), ("shape", "dtype")
        seen = [one for one in graph.nodes if isinstance(one.meta.get("val"), torch.Tensor)]
        views = {one for one in seen if storage_of(one.meta["val"]) == place} - {into, node}
        same = all(getattr(into.meta["val"], name) == getattr(numbers.meta["val"], name) for name in like)
        if into.op != "placeholder" and not views and same:
            node.replace_all_uses_with(numbers)
            into.replace_all_uses_with(numbers, delete_user_cb=lambda user, node=node: user > node)
            graph.erase_node(node)


def _way(target: Any, table: Decompositions, is_kept: Callable[[Any], bool]) -> Callable[..., Any] | None:
    """The function that an operation is broken up with, if it is."""
    if not isinstance(target, Operator) or is_kept(target):
        return None
    return table.get(target) or (target if is_composite(target) else None)


@contextmanager
def _no_size_settled(node: torch.fx.Node, values: Sequence[Any]) -> Iterator[None]:
    """Refuse pieces of an operation that hold for one size alone, which a trace takes for granted where it cannot show
    that two sizes are equal.
    """
    sizes = [size for value in values for size in getattr(value, "shape", (value,)) if isinstance(size, torch.SymInt)]
    before = [settled(size) for size in sizes]
    yield
    if found := next((size for size, was in zip(sizes, before, strict=True) if settled(size) and not was), None):
        raise ValueError(f"{node.target} in simpler operations holds for a size of {int(found)} alone")


def _told(node: torch.fx.Node) -> Any:
    """A key of what a node computes: its operation, its numbers, and its tensors with those of them that share memory.
    Nodes with one key have the same simpler operations.
    """
    given, spec = tree_flatten((node.args, node.kwargs))
    values = [value.meta["val"] if isinstance(value, torch.fx.Node) else value for value in given]
    memory = [storage_of(value) if isinstance(value, torch.Tensor) else None for value in values]
    shared = [(given.index(one), memory.index(place)) for one, place in zip(given, memory, strict=True)]
    return node.target, spec, *map(_about, values), *shared


def _about(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, torch.Tensor):
        return type(value), repr(value)
    return value.dtype, value.device, str(value.shape), str(value.stride()), str(value.storage_offset())


def _traced(node: torch.fx.Node, way: Callable[..., Any], table: Decompositions) -> torch.fx.Graph:
    """The graph of a function on the inputs of a node, a placeholder for each."""
    given, spec = tree_flatten((node.args, node.kwargs))
    places = [place for place, value in enumerate(given) if isinstance(value, torch.fx.Node)]

    def on_tensors(*values: Any) -> Any:
        filled = dict(enumerate(given)) | dict(zip(places, values, strict=True))
        args, kwargs = tree_unflatten(list(filled.values()), spec)
        return way(*args, **kwargs)

    values = [given[place].meta["val"] for place in places]
    with _no_size_settled(node, values):
        inner = make_fx(on_tensors, decomposition_table=table)(*values).graph
    _take_copies(inner)
    _without_writes(inner)
    inner.eliminate_dead_code()
    return inner


def _replaced(
    graph: torch.fx.Graph, node: torch.fx.Node, inner: torch.fx.Graph
) -> list[tuple[torch.fx.Node, torch.fx.Node]]:
    """Put the nodes of a graph in front of a node: each node that is no more needed, with the one that takes its place.
    That is the node itself, or those that pick one of its several results.
    """
    given, _ = tree_flatten((node.args, node.kwargs))
    nodes = [value for value in given if isinstance(value, torch.fx.Node)]
    found: dict[Any, Any] = dict(zip(inner.find_nodes(op="placeholder"), nodes, strict=True))
    with graph.inserting_before(node):
        for made in inner.nodes:
            if made not in found and made.op != "output":
                found[made] = graph.node_copy(made, found.__getitem__)
                found[made].meta |= {name: node.meta[name] for name in ABOUT if name in node.meta}
    results = tree_map(lambda value: found.get(value, value), inner.output_node().args[0])
    if isinstance(results, torch.fx.Node):
        return [(node, results)]
    return [(user, results[user.args[1]]) for user in list(node.users)]
