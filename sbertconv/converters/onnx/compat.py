"""Private names of onnxscript and of PyTorch's exporter to ONNX. Each is looked for before it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from sbertconv.converters.decomposing import decomposed
from sbertconv.frameworks import private

NOTHING = {torch.ops.aten.dropout.default}  # outside training; ONNX's own hides from the fusions what follows it
REGISTRIES: dict[int, Any] = {}  # opset -> the exporter's translations; nothing of this package adds one
SIGNATURES: dict[tuple[str, str, int], Any] = {}  # domain, name and version of an operator -> what it takes and gives
TOLERANCES = ("_abs_tol", "_rel_tol")


@contextlib.contextmanager
def exact_constants() -> Iterator[None]:
    """Have onnxscript's optimizer drop + 0 and * 1 only, for as long as this lasts. Its patterns take 1e-8, which is an
    epsilon, for 0 and 1.00001 for 1, and have no option for that.

    Raises:
        RuntimeError: if this version of onnxscript has no such patterns.
    """
    with contextlib.ExitStack() as replaced:
        for constant in _constants():
            for name in TOLERANCES:
                replaced.enter_context(_replaced(constant, name, "onnxscript", 0.0))
        yield


@contextlib.contextmanager
def quick_exporter() -> Iterator[None]:
    """Have PyTorch's exporter do less again for the same graph, for as long as this lasts: it breaks up operations that
    it has no translation of one by one, reads its translations and the definition of each operator once, runs none of
    the operations in which no dtype can be promoted, whose results the trace knows, and notes at no node where it came
    from, which no graph is written with.

    Raises:
        MissingDependencyError: if this version of PyTorch does these things elsewhere.
    """
    from onnx_ir.schemas import OpSignature
    from torch.onnx._internal.exporter import _core, _fx_passes, _registration
    from torch.onnx._internal.fx.passes import type_promotion

    registry = private(_registration, "ONNXRegistry", "torch")
    interpreter = private(type_promotion, "_TypePromotionInterpreter", "torch")
    rule_of = private(type_promotion, "get_type_promotion_rule", "torch")
    run = private(interpreter, "run_node", "torch")
    read = private(registry, "from_torchlib", "torch")  # of the class, for an opset
    define = private(OpSignature, "from_op_schema", "onnx_ir")  # of the class, for an operator

    def translations(opset_version: int) -> Any:
        if opset_version not in REGISTRIES:
            REGISTRIES[opset_version] = read(opset_version)
        return REGISTRIES[opset_version]

    def signature(schema: Any) -> Any:
        named = (schema.domain, schema.name, schema.since_version)
        if named not in SIGNATURES:
            SIGNATURES[named] = define(schema)
        return SIGNATURES[named]

    def run_node(self: Any, node: Any) -> Any:
        runs = "val" not in node.meta or rule_of(node, self.type_promotion_table) is not None
        return run(self, node) if runs else node.meta["val"]

    with (
        _replaced(_fx_passes, "decompose_with_registry", "torch", _decompose),
        _replaced(registry, "from_torchlib", "torch", staticmethod(translations)),
        _replaced(OpSignature, "from_op_schema", "onnx_ir", staticmethod(signature)),
        _replaced(interpreter, "run_node", "torch", run_node),
        _replaced(_core, "_set_node_metadata", "torch", lambda traced, node: None),
    ):
        yield


def _decompose(program: Any, registry: Any) -> Any:
    from torch.onnx._internal.exporter import _decomp

    kept = set(private(_decomp, "get_onnx_implemented_overloads", "torch")(registry)) - NOTHING
    table = private(_decomp, "create_onnx_friendly_decomposition_table", "torch")(kept)
    return decomposed(program, table, kept.__contains__)


@contextlib.contextmanager
def rules_by_anchor() -> Iterator[None]:
    """Have onnxscript try a rule at nodes of the operator that its pattern ends with only, for as long as this lasts.

    Raises:
        MissingDependencyError: if its rules are tried elsewhere.
    """
    from onnxscript.rewriter import RewriteRule

    name = "try_rewrite"
    attempt = private(RewriteRule, name, "onnxscript")
    anchors: dict[Any, Any] = {}

    def try_rewrite(rule: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        if rule not in anchors:
            pattern = private(rule, "_target_pattern", "onnxscript")
            identifier = pattern.output_nodes[0].op_identifier()
            anchors[rule] = None if identifier is None else identifier[1]
        anchor = anchors[rule]
        return attempt(rule, model, graph, node, **options) if anchor in (None, node.op_type) else None

    with _replaced(RewriteRule, name, "onnxscript", try_rewrite):
        yield


@contextlib.contextmanager
def optimized_once() -> Iterator[None]:
    """Have onnxscript's fusions for ONNX Runtime start on a graph as it is, for as long as this lasts. They infer its
    shapes and optimize it twice before, which `fuse` has done.

    Raises:
        MissingDependencyError: if they prepare a graph elsewhere.
    """
    from onnxscript.rewriter.ort_fusions import _core

    with _replaced(_core, "_pre_optimize", "onnxscript", lambda model: model):
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, package: str, value: Any) -> Iterator[None]:
    """An attribute of a package replaced for a while."""
    private(owner, name, package)
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _constants() -> list[Any]:
    """The numbers in onnxscript's patterns of operations that change nothing."""
    from onnxscript.rewriter.pattern import Constant
    from onnxscript.rewriter.rules.common import _no_op

    patterns = [rule._target_pattern for rule in _no_op.rules]
    found = [value for pattern in patterns for node in pattern for value in node.inputs if isinstance(value, Constant)]
    if not found or not all(hasattr(value, name) for value in found for name in TOLERANCES):
        import onnxscript

        raise RuntimeError(
            f"onnxscript {onnxscript.__version__}: its patterns of + 0 and * 1 have no {' and '.join(TOLERANCES)}."
        )
    return found
