"""Layers that are the same are traced once: nodes that one has left in the graph are copied for the others, with their
own weights and inputs.

A layer stands for another one of its list if both have parts of the same classes with weights of the same shapes, take
the same kinds of inputs, and if no attribute in which they differ was read while it was traced: the number of a layer
is not, the width of its attention is. Whatever cannot be told so is traced.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from sbertconv.source.torch_compat import (
    follow,
    is_call,
    is_size,
    like,
    memory,
    node_of,
    own_buffers,
    own_parameters,
    path_of,
    tracer_running,
    tree_flatten,
    tree_unflatten,
    written,
)

PLAIN = (bool, int, float, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size)
WEIGHTS = {"_parameters", "_buffers", "_modules"}  # their shapes are compared, and not their numbers
FEWEST = 3  # layers: the first computes sizes that the second takes, and the third is like the second
NONE = object()
Key = str | int  # the name of a weight of a layer, or the place of an input
Attributes = set[tuple[str, str]]  # the name of a part and of its attribute


@contextlib.contextmanager
def same_layers_once(module: torch.nn.Module) -> Iterator[None]:
    """While a module is traced in here, layers of a list that are the same are traced once."""
    with contextlib.ExitStack() as stack:
        for layers in layers_alike(module):
            known = Known({key for layer in layers for key in differences(layers[0], layer)})
            parts = dict(layers[0].named_modules(remove_duplicate=False))
            for kind, name in {(type(parts[part]), name) for part, name in known.watched}:
                stack.enter_context(watched(kind, name, known.reads))
            for layer in layers:
                layer.forward = functools.partial(known.answer, layer, layer.forward)
                stack.callback(vars(layer).pop, "forward")
        yield


def layers_alike(module: torch.nn.Module) -> Iterator[list[torch.nn.Module]]:
    """The layers of each list of modules that have the same parts, but for lists in such layers."""
    taken: set[torch.nn.Module] = set()
    for part in module.modules():
        if not isinstance(part, torch.nn.ModuleList) or part in taken:
            continue
        by_form: dict[Any, list[torch.nn.Module]] = {}
        for layer in dict.fromkeys(part):
            by_form.setdefault(form_of(layer), []).append(layer)
        for layers in by_form.values():
            if len(layers) >= FEWEST and not any("forward" in vars(layer) for layer in layers):
                taken.update(inner for layer in layers for inner in layer.modules())
                yield layers


def form_of(layer: torch.nn.Module) -> Any:
    """The classes of a layer's parts, and all of their weights but the numbers."""
    return tuple(
        (
            name,
            type(part),
            *((key, shape_of(value)) for key, value in {**own_parameters(part), **own_buffers(part)}.items()),
        )
        for name, part in layer.named_modules(remove_duplicate=False)
    )


def shape_of(value: Tensor | None) -> Any:
    return None if value is None else (value.shape, value.stride(), value.dtype, value.device, value.requires_grad)


def differences(one: torch.nn.Module, other: torch.nn.Module) -> Attributes:
    """The attributes in which two layers of one form differ."""
    others = dict(other.named_modules(remove_duplicate=False))
    return {
        (name, attribute)
        for name, part in one.named_modules(remove_duplicate=False)
        for attribute in (vars(part).keys() | vars(others[name]).keys()) - WEIGHTS
        if not same(vars(part).get(attribute, NONE), vars(others[name]).get(attribute, NONE))
    } - {("", "forward")}


def same(one: Any, other: Any) -> bool:
    """Whether two values are surely the same to whoever reads them."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, (*PLAIN, set, frozenset)) and bool(one == other)


class Watched:
    """An attribute whose reading is noticed; values stay where they are, in the instances or the class."""

    def __init__(self, name: str, default: Any, reads: set[tuple[int, str]]) -> None:
        self.name, self.default, self.reads = name, default, reads

    def __get__(self, instance: Any, owner: type) -> Any:
        found = NONE
        if instance is not None:
            self.reads.add((id(instance), self.name))
            found = vars(instance).get(self.name, NONE)
        if found is NONE:
            found = self.default.__get__(instance, owner) if hasattr(self.default, "__get__") else self.default
        if found is NONE:
            raise AttributeError(self.name)
        return found

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self.name] = value

    def __delete__(self, instance: Any) -> None:
        del vars(instance)[self.name]


@contextlib.contextmanager
def watched(kind: type, name: str, reads: set[tuple[int, str]]) -> Iterator[None]:
    """In here, the reading of an attribute of instances of a class is noted, with the id of the instance."""
    own = vars(kind).get(name, NONE)
    setattr(kind, name, Watched(name, inspect.getattr_static(kind, name, NONE), reads))
    try:
        yield
    finally:
        if own is NONE:
            delattr(kind, name)
        else:
            setattr(kind, name, own)


def kind_of(leaf: Any) -> Any:
    """An input of a layer as far as its trace depends on it; an object that equals nothing, if that cannot be told."""
    if isinstance(leaf, Tensor):
        layout = [size_of(size) for size in (*leaf.shape, *leaf.stride(), leaf.storage_offset())]
        return (leaf.dtype, leaf.device, leaf.requires_grad, *layout)
    if isinstance(leaf, torch.SymInt):
        return (torch.SymInt, size_of(leaf))
    return (type(leaf), leaf) if isinstance(leaf, PLAIN) else object()


def size_of(size: int | torch.SymInt) -> Any:
    """A size that can be compared with another one without a word to the tracer."""
    return size if isinstance(size, int) else size.node.expr


@dataclass(frozen=True)
class Trace:
    """One layer's nodes in a graph.

    Attributes:
        layer: the layer.
        path: of it, as the tracer says it.
        kinds: of its inputs.
        spec: how its inputs lie in its arguments.
        nodes: that it has left, in order.
        given: the node of each of its weights and inputs.
        left: the same behind it, where they are others now, as those of a tensor that is cast to its own dtype are.
        outputs: each leaf of its answer, with its node or the key of the input that it is; None: no tensor.
        form: how they lie in the answer.
        read: the attributes that were read, of those in which its list differs.
        settled: whether one was traced before it that is the same, and has computed the sizes that all take.
    """

    layer: torch.nn.Module
    path: str
    kinds: list[Any]
    spec: Any
    nodes: list[Node]
    given: dict[Key, Node]
    left: dict[Key, Node]
    outputs: list[tuple[Any, Node | Key | None]]
    form: Any
    read: Attributes
    settled: bool

    def copied(self, layer: torch.nn.Module, leaves: Sequence[Any], tracer: Any) -> Any:
        """The answer of another layer, its nodes copied into the graph; NONE, if its inputs are tied otherwise."""
        tensors = tensors_of(layer, leaves)
        places: dict[Node, Node] = {}
        for key, node in self.given.items():
            due = node_of(tensors[key], tracer)
            if due is None or places.setdefault(node, due) is not due:
                return NONE
        path = path_of(layer, tracer)
        for node in self.nodes:
            copy = places[node] = tracer.graph.node_copy(node, lambda given: places.get(given, given))
            copy.meta["nn_module_stack"] = {
                moved(key, self.path, path): (moved(name, self.path, path), kind)
                for key, (name, kind) in node.meta.get("nn_module_stack", {}).items()
            }
        for key, node in self.left.items():
            follow(tensors[key], places[node], tracer)

        def answer(leaf: Any, source: Node | Key | None) -> Any:
            if isinstance(source, Node):
                return follow(like(leaf), places[source], tracer)
            return leaf if source is None else tensors[source]

        return tree_unflatten([answer(*output) for output in self.outputs], self.form)


def moved(name: str, path: str, other: str) -> str:
    """A name below one path as that below another one."""
    head, found, tail = name.partition(path)
    return f"{head}{other}{tail}" if found and tail[:1] in ("", ".") else name


def tensors_of(layer: torch.nn.Module, leaves: Sequence[Any]) -> dict[Key, Tensor]:
    """A layer's parameters and buffers, each as often as it is named, and its inputs."""
    return {
        **dict(layer.named_parameters(remove_duplicate=False)),
        **dict(layer.named_buffers(remove_duplicate=False)),
        **{place: leaf for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)},
    }


@dataclass
class Known:
    """The traces of layers of one form, in one run of a tracer.

    Attributes:
        watched: the attributes in which the layers differ.
        reads: which of these were read, each with the id of the part.
        tracer: whose graph the traces lie in.
        traces: those that may stand for other layers.
    """

    watched: Attributes
    reads: set[tuple[int, str]] = field(default_factory=set)
    tracer: Any = None
    traces: list[Trace] = field(default_factory=list)

    def answer(self, layer: torch.nn.Module, forward: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """A layer's answer, from copies where another one stands for it."""
        tracer = tracer_running()
        if tracer is None:
            return forward(*args, **kwargs)
        if tracer is not self.tracer:
            self.tracer, self.traces = tracer, []
        leaves, spec = tree_flatten((args, kwargs))
        kinds = [kind_of(leaf) for leaf in leaves]
        alike = [trace for trace in self.traces if (trace.kinds, trace.spec) == (kinds, spec)]
        alike = [trace for trace in alike if differences(trace.layer, layer) <= self.watched - trace.read]
        for trace in alike:
            if trace.settled and (found := trace.copied(layer, leaves, tracer)) is not NONE:
                return found
        last, tensors = next(reversed(tracer.graph.nodes)), tensors_of(layer, leaves)
        given = {key: node_of(value, tracer) for key, value in tensors.items()}
        self.reads.clear()
        answer = forward(*args, **kwargs)
        names = {id(part): name for name, part in layer.named_modules()}
        read = {(names[part], name) for part, name in self.reads if part in names}
        keys = {id(value): key for key, value in tensors.items()}
        found, form = tree_flatten(answer)
        outputs = [(leaf, keys.get(id(leaf), node_of(leaf, tracer))) for leaf in found]
        nodes = nodes_behind(last, {source for _, source in outputs if isinstance(source, Node)})
        is_told = None not in given.values() and all(
            source is not None or isinstance(leaf, PLAIN) for leaf, source in outputs
        )
        if nodes and is_told:
            now = {key: node_of(value, tracer) for key, value in tensors.items()}
            left = {key: node for key, node in now.items() if node is not given[key]}
            path = path_of(layer, tracer)
            self.traces.append(
                Trace(layer, path, kinds, spec, nodes, given, left, outputs, form, read, settled=bool(alike))
            )
        return answer


def nodes_behind(last: Node, outputs: set[Node]) -> list[Node]:
    """The nodes behind one that a layer has left, without sizes that only the tracer has asked for; none, if these are
    not all that its outputs come from, or change tensors that are not theirs.
    """
    nodes, node = [], last.next
    while node.op != "root":
        nodes.append(node)
        node = node.next
    own = set(nodes)
    others = set(memory(*{given for node in nodes for given in node.all_input_nodes} - own))
    if not outputs <= own or not all(is_call(node) and others.isdisjoint(memory(*written(node))) for node in nodes):
        return []
    due = set(outputs)
    for node in reversed(nodes):
        if node in due or not is_size(node):
            due |= {node, *node.all_input_nodes}
    return [node for node in nodes if node in due]
