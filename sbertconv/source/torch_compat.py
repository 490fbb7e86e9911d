"""Private names of PyTorch. A version that has them no more ends at the import of this module, or at the first use."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from operator import getitem
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot, snapshot_fake, track_tensor_tree
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode as BranchOnData
from torch.fx.experimental.symbolic_shapes import free_symbols
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only, tree_unflatten

from sbertconv.frameworks import private

__all__ = [
    "BranchOnData",
    "FakeTensor",
    "TorchDispatchMode",
    "free_symbols",
    "tree_flatten",
    "tree_map",
    "tree_map_only",
    "tree_unflatten",
]

Operator = private(private(torch, "_ops", "torch"), "OpOverload", "torch")
SIZES = (torch.SymInt, torch.SymFloat, torch.SymBool)
CAST: Any = private(torch.ops.aten, "_to_copy", "torch").default  # of a tensor to another dtype or device


def wrapper(kind: type, like: torch.Tensor, dtype: torch.dtype) -> Any:
    """A tensor of a subclass with the shape and device of another one, and no memory of its own."""
    make = private(torch.Tensor, "_make_wrapper_subclass", "torch")
    return make(kind, like.shape, strides=like.stride(), dtype=dtype, device=like.device)


def writes(operator: Any) -> bool:
    """Whether this is an operator, and changes one of its inputs."""
    return isinstance(operator, Operator) and bool(private(operator, "_schema", "torch").is_mutable)


def allocates(operator: Any) -> bool:
    """Whether an operator gives tensors with memory of their own, neither views nor its inputs changed."""
    schema = private(operator, "_schema", "torch")
    return not schema.is_mutable and all(found.alias_info is None for found in schema.returns)


@functools.cache
def _takes_device(operator: Any) -> bool:
    return any(argument.name == "device" for argument in private(operator, "_schema", "torch").arguments)


def on_meta(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operator would give on the CPU, as tensors without memory; None where that cannot be told beforehand, or
    takes no memory there either.
    """
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    takes_device = _takes_device(operator)
    if any(tensor.is_meta for tensor in tensors) or str(kwargs.get("device")) == "meta":
        return None
    if not tensors and not takes_device:
        return None
    plain, more = tree_map_only(torch.Tensor, _without_memory, (tuple(args), dict(kwargs)))
    try:
        return operator(*plain, **{**more, **({"device": "meta"} if takes_device else {})})
    except Exception:  # the numbers tell the size, or no such kernel is there
        return None


def _without_memory(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def without_writing(operator: Any) -> Any:
    """The operator that gives what another one writes into its argument (add for add_), or None."""
    namespace, name, overload = str(operator).split(".")
    found = getattr(getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None), overload, None)
    return None if found is None or writes(found) else found


def is_composite(operator: Any) -> bool:
    """Whether PyTorch defines an operator by simpler ones, for every kind of tensor."""
    has_kernel = private(private(torch, "_C", "torch"), "_dispatch_has_kernel_for_dispatch_key", "torch")
    return bool(has_kernel(operator.name(), "CompositeImplicitAutograd"))


def storage_of(tensor: torch.Tensor) -> int:
    """Where the numbers of a tensor lie: the same for a tensor and its views."""
    return int(private(tensor.untyped_storage(), "_cdata", "torch"))


def own_parameters(module: torch.nn.Module) -> MutableMapping[str, Any]:
    """The table of a module's own parameters, in which one can be replaced by any tensor."""
    return cast(MutableMapping[str, Any], private(module, "_parameters", "torch"))


def own_buffers(module: torch.nn.Module) -> MutableMapping[str, Any]:
    """The table of a module's own buffers."""
    return cast(MutableMapping[str, Any], private(module, "_buffers", "torch"))


def is_from_data(size: Any) -> bool:
    """Whether only the data tells a size, as that of torch.nonzero."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return isinstance(size, torch.SymInt) and bool(free_unbacked_symbols(size))


def in_example(size: int | torch.SymInt) -> int | None:
    """The number that a size is in the example of a trace, or None where only the data tells it."""
    if not isinstance(size, torch.SymInt):
        return size
    return None if is_from_data(size) else int(private(size.node, "hint", "torch"))


def settled(size: torch.SymInt) -> bool:
    """Whether a trace takes a size, open at first, for one number."""
    return size.node.maybe_as_int() is not None


@contextlib.contextmanager
def without_stack_traces() -> Iterator[None]:
    """Have PyTorch note no lines of code at the nodes that it traces, which takes time and is read by nothing here. A
    version without this setting notes them.
    """
    from torch.fx import config

    name = "do_not_emit_stack_traces"
    before = getattr(config, name, False)
    setattr(config, name, True)
    try:
        yield
    finally:
        setattr(config, name, before)


@contextlib.contextmanager
def telling_numbers_of_sizes(tell: Callable[[], Any]) -> Iterator[None]:
    """Call a function wherever a trace takes an open size for the number that it is in the example."""
    from torch.fx.experimental.sym_node import SymNode

    number_of = private(SymNode, "int_", "torch")

    def int_(self: Any) -> int:
        if not self.is_constant() and self.expr.free_symbols:
            tell()
        return int(number_of(self))

    SymNode.int_ = int_
    try:
        yield
    finally:
        SymNode.int_ = number_of


def scan(*args: Any, **options: Any) -> Any:
    """A loop over the first axis that torch.export keeps as one, see `torch._higher_order_ops.scan`."""
    from torch._higher_order_ops.scan import scan as found

    return found(*args, **options)


def tracer_running() -> Any:
    """The tracer whose graph gets a node for every operation, or None."""
    mode = get_proxy_mode()
    return None if mode is None else mode.tracer


def node_of(value: Any, tracer: Any) -> Any:
    """The node of a tensor in a tracer's graph, or None."""
    if not isinstance(value, torch.Tensor):
        return None
    return get_proxy_slot(value, tracer, None, lambda found: found.proxy.node)


def path_of(module: torch.nn.Module, tracer: Any) -> str:
    """The name of a module below the root of a trace."""
    return str(tracer.path_of_module(module))


def like(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of a trace with the shape of another one."""
    found: Any = snapshot_fake(tensor)
    return found.requires_grad_(tensor.requires_grad) if tensor.requires_grad else found


def follow(tensor: torch.Tensor, node: torch.fx.Node, tracer: Any) -> torch.Tensor:
    """Say that a node gives a tensor of a trace from now on."""
    return track_tensor_tree(tensor, torch.fx.Proxy(node, tracer), constant=None, tracer=tracer)


def is_call(node: torch.fx.Node) -> bool:
    """Whether a node calls an operator, takes one of its answers or computes a size, and finds no size in data."""
    is_known = isinstance(node.target, Operator) or node.target is getitem or is_size(node)
    return is_known and "unbacked_bindings" not in node.meta


def is_size(node: torch.fx.Node) -> bool:
    """Whether a node computes a size, or says something of one."""
    return isinstance(node.meta.get("val"), SIZES)


def written(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The nodes whose tensors a call writes into."""
    if not writes(node.target):
        return []
    arguments = private(node.target, "_schema", "torch").arguments
    given = {**dict(zip((argument.name for argument in arguments), node.args, strict=False)), **node.kwargs}
    return [leaf for argument in arguments if argument.is_write for leaf in tree_flatten(given.get(argument.name))[0]]


def memory(*nodes: torch.fx.Node) -> list[int]:
    """Where the tensors of nodes of a trace lie."""
    values = tree_flatten([node.meta.get("val") for node in nodes])[0]
    return [storage_of(value) for value in values if isinstance(value, torch.Tensor)]
