"""Private names of onnxscript that the graph's optimizer depends on. Each is looked for before it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

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
