"""A PyTorch module, traced once with torch.export, as a Keras layer with the same weights.

The trace is functional and keeps linear, embedding, layer_norm, dropout and scaled_dot_product_attention whole.
It is taken in training mode, so that every dropout keeps its rate and its place, or as near to that as can be traced.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.export.graph_signature import InputKind, OutputKind

from sbertconv.converters.decomposing import decomposed
from sbertconv.converters.exporting import exported
from sbertconv.converters.guards import TraceFacts
from sbertconv.converters.places import place_of
from sbertconv.converters.traced import quiet, traceable, unchanged
from sbertconv.errors import UnsupportedModuleError, error_text
from sbertconv.source.routes import SOUNDS, open_axes
from sbertconv.source.torch_compat import Operator, tree_unflatten

if TYPE_CHECKING:
    from sbertconv.layers import TracedModule

DTYPES = {
    torch.bool: "bool", torch.uint8: "uint8", torch.int8: "int8", torch.int16: "int16", torch.int32: "int32",
    torch.int64: "int32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32",
    torch.float64: "float32", torch.complex64: "complex64",
}  # fmt: skip
WITHOUT_EFFECT = ("_assert", "sym_constrain_range", "aten._assert")
STORAGE = ("device", "layout", "memory_format", "pin_memory", "non_blocking", "copy")  # where, not what
VIEWS = ("aten.view.default", "aten._unsafe_view.default")
NEW_TENSORS = ("arange", "empty", "eye", "full", "linspace", "new_", "ones", "scalar_tensor", "zeros")
SIZE_AXES = {"input_ids": 2, "token_type_ids": 2, "attention_mask": 2, "token_embeddings": 2, "all_layer_embeddings": 2}


# What trains while a module is traced, best first. Some modules draw random numbers or update statistics of their own
# then: whoever leaves out whole layers at random holds a list of them.
TRAINING = "training"
MODES: dict[str, Callable[[torch.nn.Module], bool]] = {
    TRAINING: lambda part: True,
    "training, but for what holds a list of layers": lambda part: (
        not any(isinstance(child, torch.nn.ModuleList) for child in part.children())
    ),
    "training of dropout layers alone": lambda part: isinstance(part, torch.nn.Dropout),
    "evaluation": lambda part: False,
}


class NotTraceableError(Exception):
    """Why a module cannot become a layer."""


def traced_layer(
    module: torch.nn.Module, example: Mapping[str, Any], name: str, prefix: str, options: Mapping[str, Any]
) -> TracedModule:
    """Trace features -> features and build the layer.

    Args:
        module: takes and returns a dict of features.
        example: features to trace with; the sizes of batch and sequence in them stay open.
        name: the layer's name.
        prefix: what to leave away in front of the paths of its parameters.
        options: further features that are no tensors.

    Raises:
        UnsupportedModuleError: if it cannot be traced, or uses operations that the table does not have.
    """
    from sbertconv.layers.aten import OPERATIONS

    reasons = []
    for mode, train in MODES.items():
        try:
            program, facts = _export(module, example, options, train=train)
            lowering = Lowering(program, prefix, tensors_of(example))
            lowering.run()
        except Exception as error:
            reasons.append(f"tracing it failed: {error_text(error)}{place_of(error)}")
            continue
        missing = {op: where for op, where in lowering.operations.items() if op not in OPERATIONS}
        if not missing:
            layer = lowering.layer(name, mode)
            layer.facts = facts
            return layer
        lines = "\n".join(f"    {op} in {where}" for op, where in missing.items())
        reasons.append(
            f"{len(missing)} operation{'s' if len(missing) > 1 else ''} without a line in the table:\n{lines}\n"
            "    Add a line to sbertconv/layers/aten.py: docs/extending.md"
        )
    raise UnsupportedModuleError(reasons[-1])


def traced_function(function: Callable[..., Any], example: torch.Tensor, name: str) -> TracedModule:
    """A function of one tensor, perhaps with weights of its own, as a layer from {"x": tensor} to {"y": tensor}."""

    class OnX(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.function = function

        def forward(self, features: Mapping[str, Any]) -> dict[str, Any]:
            return {"y": self.function(features["x"])}

    return traced_layer(OnX(), {"x": example}, name, "module.function.", {})


def _export(
    module: torch.nn.Module,
    example: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    train: Callable[[torch.nn.Module], bool],
) -> tuple[torch.export.ExportedProgram, TraceFacts]:
    """The functional graph of a module, which is left in the mode it was in, and the facts of its trace."""
    traced = NewFeatures(module, tensors_of(example), options)
    modes = [(part, part.training) for part in module.modules()]
    counts = (
        len(open_axes(name, example[name].ndim, example)) if name in SOUNDS else SIZE_AXES.get(name, 1)
        for name in traced.names
    )
    shapes = tuple(dict.fromkeys(range(count), torch.export.Dim.DYNAMIC) for count in counts)
    try:
        for part in module.modules():
            part.training = train(part)
        with torch.no_grad(), quiet(), unchanged(module), traceable(module):
            program = exported(traced, tuple(example[name] for name in traced.names), shapes=(shapes,))
            facts = TraceFacts.of(program)
            return decomposed(program, _decompositions(), _has_a_line), facts
    finally:
        for part, mode in modes:
            part.training = mode


def _decompositions() -> dict[Any, Any]:
    """PyTorch's own ways to say in simpler operations what has no line in the table."""
    return {op: way for op, way in torch.export.default_decompositions().items() if not _has_a_line(op)}


def _has_a_line(operation: Any) -> bool:
    from sbertconv.layers.aten import OPERATIONS

    return str(operation) in OPERATIONS or str(operation) in SPECIAL


def tensors_of(features: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the features that are tensors."""
    return tuple(name for name, value in features.items() if torch.is_tensor(value))


class NewFeatures(torch.nn.Module):
    """A module on the tensors among its features, giving only the features that it adds or changes."""

    def __init__(self, module: torch.nn.Module, names: tuple[str, ...], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = module
        self.names = names
        self.options = dict(options)

    def forward(self, *tensors: torch.Tensor) -> dict[str, Any]:
        features = dict(zip(self.names, tensors, strict=True))
        result = self.module({**self.options, **features})
        return {
            name: value
            for name, value in result.items()
            if value is not features.get(name) and (torch.is_tensor(value) or isinstance(value, (list, tuple)))
        }


@dataclass
class Lowering:
    """One traced program on its way to a layer's graph.

    Attributes:
        nodes, weights, outputs: see `sbertconv.layers.TracedModule`.
        sublayers: path -> what makes the Keras layer, its input shape, and its PyTorch tensors.
        operations: every operation, and where it came from first.
        from_data: names of nodes whose size only the data tells -> what to say about it.
        rates: path of a dropout -> its rate.
    """

    program: torch.export.ExportedProgram
    prefix: str
    inputs: tuple[str, ...]
    nodes: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    sublayers: dict[str, tuple[Callable[..., Any], Any, dict[str, torch.Tensor]]] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, str] = field(default_factory=dict)
    from_data: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    found: dict[torch.fx.Node, Any] = field(default_factory=dict)
    tensors: dict[torch.fx.Node, tuple[str, torch.Tensor]] = field(default_factory=dict)

    def run(self) -> None:
        self._placeholders()
        for node in self.program.graph.nodes:
            if node.op == "call_function" and not _name(node.target).startswith(WITHOUT_EFFECT):
                self._call(node)
            elif node.op not in ("placeholder", "call_function", "output"):
                raise NotTraceableError(f"{node.op} {node.target}")
        self._outputs()
        self._drop_unused()
        for node in self.nodes:  # many are only asserted, and gone by now
            if node["name"] in self.from_data:
                raise NotTraceableError(self.from_data[node["name"]])

    def _path(self, name: str) -> str:
        return name.removeprefix(self.prefix)

    def _placeholders(self) -> None:
        """Inputs by their feature's name, parameters and buffers by their path; tied ones under one path."""
        signature = self.program.graph_signature
        placeholders = {node.name: node for node in self.program.graph.nodes if node.op == "placeholder"}
        first: dict[Any, str] = {}
        users = []
        for spec in signature.input_specs:
            node = placeholders[spec.arg.name]
            if spec.kind == InputKind.USER_INPUT:
                users.append(node)
                continue
            store = self.program.state_dict if spec.target in self.program.state_dict else self.program.constants
            tensor = store[spec.target]
            same = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else spec.target
            self.tensors[node] = (first.setdefault(same, self._path(spec.target)), tensor)
        for node, name in zip(users, self.inputs, strict=True):
            self.found[node] = {"node": name}

    def _value(self, value: Any) -> Any:
        """An argument as JSON."""
        if isinstance(value, torch.fx.Node):
            if value in self.tensors:
                path, tensor = self.tensors[value]
                self.weights[path] = tensor
                return {"weight": path}
            return self.found[value]
        if isinstance(value, (list, tuple)):
            return [self._value(item) for item in value]
        if isinstance(value, torch.dtype):
            return DTYPES[value]
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if isinstance(value, (torch.device, torch.layout, torch.memory_format)):
            return None
        return value

    def _call(self, node: torch.fx.Node) -> None:
        name = _name(node.target)
        special = SPECIAL.get(name)
        if special is not None and special(self, node):
            return
        if node.meta.get("unbacked_bindings") and name != "aten.slice.Tensor":  # a slice's sizes are arguments
            self.from_data[node.name] = f"{name} in {_where(node)} makes sizes depend on the data"
        self.operations.setdefault(name, _where(node))
        options = {key: self._value(value) for key, value in node.kwargs.items() if key not in STORAGE}
        if name.removeprefix("aten.").startswith(NEW_TENSORS) or "_like." in name:
            options["dtype"] = DTYPES[node.meta["val"].dtype]
        args = node.args
        if name in VIEWS:  # what a -1 stands for is known here, where TensorFlow may not know it
            sizes = zip(node.meta["val"].shape, args[1], strict=True)
            args = (args[0], [size if isinstance(size, int) else given for size, given in sizes])
        self._add(node, {"op": name}, args, options)

    def _add(self, node: torch.fx.Node, what: dict[str, str], args: Any, options: Mapping[str, Any]) -> None:
        entry = {"name": node.name, **what, "args": [self._value(value) for value in args]}
        self.nodes.append(entry | ({"options": dict(options)} if options else {}))
        self.found[node] = {"node": node.name}

    def _sublayer(self, node: torch.fx.Node, path: str, make: Any, shape: Any, tensors: Mapping[str, Any]) -> None:
        self.sublayers.setdefault(path, (make, shape, dict(tensors)))
        self._add(node, {"layer": path}, self._inputs_of_layer(node), {})

    @staticmethod
    def _inputs_of_layer(node: torch.fx.Node) -> tuple[Any, ...]:
        return (node.args[1],) if _name(node.target) == "aten.embedding.default" else (node.args[0],)

    def owner(self, node: torch.fx.Node, weights: Mapping[str, Any]) -> str | None:
        """The path of the module that these weights make up, if nothing else uses them in another way."""
        paths = {}
        for role, placeholder in weights.items():
            if placeholder is None:
                continue
            if placeholder not in self.tensors:
                return None
            owner, _, last = self.tensors[placeholder][0].rpartition(".")
            paths[role] = owner
            if last != role:
                return None
            for user in placeholder.users:  # the layer must do for all of them
                if _name(user.target) != _name(node.target) or not _same_weights(user, node):
                    return None
        (path,) = set(paths.values()) if len(set(paths.values())) == 1 else (None,)
        mine = {f"{path}.{role}" for role in paths}
        tied = [p for node, p in self.tensors.items() if p[0] in mine and node.users]
        return path if path and len(tied) == len(paths) else None

    def _outputs(self) -> None:
        signature = self.program.graph_signature
        changed = [spec for spec in signature.output_specs if spec.kind != OutputKind.USER_OUTPUT]
        if changed:
            raise NotTraceableError(f"it changes its own buffer {changed[0].target}")
        (values,) = self.program.graph.output_node().args
        described = [
            {
                "value": self._value(value),
                "shape": [size if isinstance(size, int) else None for size in value.meta["val"].shape],
                "dtype": DTYPES[value.meta["val"].dtype],
            }
            for value in values
        ]
        tree = tree_unflatten(described, self.program.call_spec.out_spec)
        self.outputs = {name: list(value) if isinstance(value, tuple) else value for name, value in tree.items()}

    def _drop_unused(self) -> None:
        """Only what leads to an output stays."""
        used = set(_references(list(self.outputs.values())))
        for node in reversed(self.nodes):
            if ("node", node["name"]) in used:
                used |= set(_references([node["args"], node.get("options", {})]))
                used |= {("layer", node["layer"])} if "layer" in node else set()
        self.nodes = [node for node in self.nodes if ("node", node["name"]) in used]
        self.sublayers = {path: made for path, made in self.sublayers.items() if ("layer", path) in used}
        self.weights = {path: tensor for path, tensor in self.weights.items() if ("weight", path) in used}
        self.inputs = tuple(name for name in self.inputs if ("node", name) in used)
        self.operations = {op: w for op, w in self.operations.items() if any(n.get("op") == op for n in self.nodes)}

    def layer(self, name: str, mode: str) -> TracedModule:
        """The built layer with the module's weights; `mode` is how it was traced."""
        from sbertconv.converters.keras.weights import build
        from sbertconv.layers import TracedModule

        graph = {
            "inputs": list(self.inputs),
            "weights": {
                path: {
                    "shape": list(tensor.shape),
                    "dtype": DTYPES[tensor.dtype],
                    "trainable": isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad,
                }
                for path, tensor in self.weights.items()
            },
            "nodes": self.nodes,
            "outputs": self.outputs,
            "mode": mode,
        }
        sublayers = {path: make(name=path.replace(".", "_")) for path, (make, _, _) in self.sublayers.items()}
        for path, (_, shape, tensors) in self.sublayers.items():
            build(sublayers[path], shape, tensors)
        layer = TracedModule(graph, sublayers, name=name)
        layer.build()
        for path, tensor in self.weights.items():
            layer.own[path].assign(tensor.detach().numpy())
        return layer


def _name(target: Any) -> str:
    """`aten.linear.default`, or the name of a Python function on sizes."""
    return str(target) if isinstance(target, Operator) else getattr(target, "__name__", str(target))


def _where(node: torch.fx.Node) -> str:
    """The path and class of the module that a node came from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return f"{path} ({kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__})" if stack else "the module"


def _same_weights(one: torch.fx.Node, other: torch.fx.Node) -> bool:
    """Whether two nodes of one operation differ in their input alone."""
    place = 1 if _name(one.target) == "aten.embedding.default" else 0
    rest = [[value for index, value in enumerate(node.args) if index != place] for node in (one, other)]
    return rest[0] == rest[1]


def _references(value: Any) -> Any:
    """The (kind, name) of everything that a JSON value refers to."""
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("node", "weight", "layer") and isinstance(item, str):
                yield key, item
            else:
                yield from _references(item)


def _linear(lowering: Lowering, node: torch.fx.Node) -> bool:
    import keras

    weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None
    path = lowering.owner(node, {"weight": weight, "bias": bias})
    if path is None:
        return False
    tensors = {role: lowering.tensors[p][1] for role, p in (("weight", weight), ("bias", bias)) if p is not None}
    units, size = tensors["weight"].shape

    def make(name: str) -> Any:
        return keras.layers.Dense(
            units, use_bias=bias is not None, kernel_initializer="zeros", name=name, trainable=_trainable(tensors)
        )

    lowering._sublayer(node, path, make, [None, size], tensors)
    return True


def _embedding(lowering: Lowering, node: torch.fx.Node) -> bool:
    from sbertconv.layers import Embedding

    path = lowering.owner(node, {"weight": node.args[0]})
    if path is None:
        return False
    tensors = {"weight": lowering.tensors[node.args[0]][1]}
    rows, size = tensors["weight"].shape
    padding_idx = node.args[2] if len(node.args) > 2 and node.args[2] >= 0 else None

    def make(name: str) -> Any:
        return Embedding(
            rows, size, padding_idx=padding_idx, embeddings_initializer="zeros", name=name,
            trainable=_trainable(tensors),
        )  # fmt: skip

    lowering._sublayer(node, path, make, [None], tensors)
    return True


def _layer_norm(lowering: Lowering, node: torch.fx.Node) -> bool:
    import keras

    given = dict(zip(("x", "shape", "weight", "bias", "eps"), node.args, strict=False))
    shape, weight, bias = given["shape"], given.get("weight"), given.get("bias")
    path = lowering.owner(node, {"weight": weight, "bias": bias}) if weight is not None else None
    if path is None or len(shape) != 1:
        return False
    tensors = {role: lowering.tensors[p][1] for role, p in (("weight", weight), ("bias", bias)) if p is not None}

    def make(name: str) -> Any:
        return keras.layers.LayerNormalization(
            epsilon=given.get("eps", 1e-5), center=bias is not None, name=name, trainable=_trainable(tensors)
        )

    lowering._sublayer(node, path, make, [None, *shape], tensors)
    return True


def _dropout_layer(rate: float) -> Callable[..., Any]:
    def make(name: str) -> Any:
        import keras

        return keras.layers.Dropout(rate, name=name)

    return make


def _dropout_path(lowering: Lowering, node: torch.fx.Node, rate: float) -> str:
    """The path of a dropout module; "dropout" in the module that calls a function, numbered where rates differ."""
    path = lowering._path(_where(node).partition(" ")[0])
    first = path if _where(node).endswith("(Dropout)") else f"{path}.dropout"
    names = itertools.chain([first], (f"{first}_{number}" for number in itertools.count(1)))
    return next(name for name in names if lowering.rates.setdefault(name, rate) == rate)


def _dropout(lowering: Lowering, node: torch.fx.Node) -> bool:
    rate, training = node.args[1], node.args[2]
    if rate == 0 or not training:
        lowering.found[node] = lowering._value(node.args[0])
        return True
    lowering._sublayer(node, _dropout_path(lowering, node, rate), _dropout_layer(rate), None, {})
    return True


def _first_of_dropout(lowering: Lowering, node: torch.fx.Node) -> bool:
    """native_dropout gives the result and the mask; only the result is a tensor here."""
    if _name(node.args[0].target) != "aten.native_dropout.default":
        return False
    lowering.found[node] = lowering.found[node.args[0]]
    return True


def _attention(lowering: Lowering, node: torch.fx.Node) -> bool:
    """scaled_dot_product_attention with its dropout as a layer."""
    rate = node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0)
    options = {key: lowering._value(value) for key, value in node.kwargs.items() if key != "dropout_p"}
    args = [value if place != 4 else 0.0 for place, value in enumerate(node.args)]
    if rate:
        path = _dropout_path(lowering, node, rate)
        lowering.sublayers.setdefault(path, (_dropout_layer(rate), None, {}))
        options["dropout"] = {"layer": path}
    lowering.operations.setdefault(_name(node.target), _where(node))
    lowering._add(node, {"op": _name(node.target)}, args, options)
    return True


def _size_in_tensor(lowering: Lowering, node: torch.fx.Node) -> bool:
    """The size itself where a size was put in a tensor, perhaps changed, and taken out again."""

    def is_size(value: Any) -> bool:
        if not isinstance(value, torch.fx.Node) or _name(value.target) == "aten.scalar_tensor.default":
            return True
        return _name(value.target) in SIZE_ARITHMETIC and len(value.args) == 2 and all(map(is_size, value.args))

    def size(value: Any) -> Any:
        if not isinstance(value, torch.fx.Node):
            return value
        if _name(value.target) == "aten.scalar_tensor.default":
            return lowering._value(value.args[0])
        operation, order = SIZE_ARITHMETIC[_name(value.target)]
        args = [size(item) for item in value.args[::order]]
        lowering.operations.setdefault(operation, _where(value))
        lowering.nodes.append({"name": f"{value.name}_size", "op": operation, "args": args})
        return {"node": f"{value.name}_size"}

    if not is_size(node.args[0]):
        return False
    lowering.found[node] = size(node.args[0])
    return True


def _trainable(tensors: Mapping[str, torch.Tensor]) -> bool:
    return any(tensor.requires_grad for tensor in tensors.values())


# Operations on a tensor that holds a size -> the same on sizes, and the order of the two arguments.
SIZE_ARITHMETIC = {
    f"aten.{name}.{kind}": (operation, order)
    for name, operation, order in (("add", "add", 1), ("sub", "sub", 1), ("rsub", "sub", -1), ("mul", "mul", 1))
    for kind in ("Scalar", "Tensor")
}
# What becomes a layer of its own: a function that says whether it did.
SPECIAL: dict[str, Callable[[Lowering, torch.fx.Node], bool]] = {
    "aten.linear.default": _linear,
    "aten.embedding.default": _embedding,
    "aten.layer_norm.default": _layer_norm,
    "aten.dropout.default": _dropout,
    "aten.native_dropout.default": _dropout,
    "getitem": _first_of_dropout,
    "aten.scaled_dot_product_attention.default": _attention,
    "aten.item.default": _size_in_tensor,
}
