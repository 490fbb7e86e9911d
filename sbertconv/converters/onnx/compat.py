"""Private names of onnxscript and of PyTorch's exporter to ONNX. Each is looked for before it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from sbertconv.converters.decomposing import decomposed
from sbertconv.frameworks import private

NOTHING = {torch.ops.aten.dropout.default}  # outside training; ONNX's own hides from the fusions what follows it
TOLERANCES = ("_abs_tol", "_rel_tol")


@contextlib.contextmanager
def exact_constants() -> Iterator[None]:
    """Have onnxscript's optimizer drop + 0 and * 1 only, for as long as this lasts. Its patterns take 1e-8, which is an
    epsilon, for 0 and 1.00001 for 1, and have no option for that.

    Raises:
        RuntimeError: if this version of onnxscript has no such patterns.
    """
    constants = _constants()
    before = [[getattr(constant, name) for name in TOLERANCES] for constant in constants]
    try:
        for constant in constants:
            for name in TOLERANCES:
                setattr(constant, name, 0.0)
        yield
    finally:
        for constant, values in zip(constants, before, strict=True):
            for name, value in zip(TOLERANCES, values, strict=True):
                setattr(constant, name, value)


@contextlib.contextmanager
def decomposing_by_node() -> Iterator[None]:
    """Have PyTorch's exporter break up operations that it has no translation of one by one, for as long as this lasts.

    Raises:
        MissingDependencyError: if this version of PyTorch does it elsewhere.
    """
    from torch.onnx._internal.exporter import _decomp, _fx_passes

    name = "decompose_with_registry"
    before = private(_fx_passes, name, "torch")
    translated, table_without = (
        private(_decomp, one, "torch")
        for one in ("get_onnx_implemented_overloads", "create_onnx_friendly_decomposition_table")
    )

    def decompose(program: Any, registry: Any) -> Any:
        kept = set(translated(registry)) - NOTHING
        return decomposed(program, table_without(kept), kept.__contains__)

    setattr(_fx_passes, name, decompose)
    try:
        yield
    finally:
        setattr(_fx_passes, name, before)


@contextlib.contextmanager
def rules_by_anchor() -> Iterator[None]:
    """Have onnxscript try a rule at nodes of the operator that its pattern ends with only, for as long as this lasts.

    Raises:
        MissingDependencyError: if its rules are tried elsewhere.
    """
    from onnxscript.rewriter import RewriteRule

    before = private(RewriteRule, "try_rewrite", "onnxscript")
    anchors: dict[Any, Any] = {}

    def try_rewrite(rule: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        if rule not in anchors:
            pattern = private(rule, "_target_pattern", "onnxscript")
            anchors[rule] = pattern.output_nodes[0].op_identifier()
        elsewhere = anchors[rule] is not None and anchors[rule] != node.op_identifier()
        return None if elsewhere else before(rule, model, graph, node, **options)

    RewriteRule.try_rewrite = try_rewrite
    try:
        yield
    finally:
        RewriteRule.try_rewrite = before


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
