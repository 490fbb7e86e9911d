"""`sbertconv bench`: a model's PyTorch encode() and its converted folders side by side.

`benchmark` runs it, `BenchReport` is what it returns, `page.html_page` draws that. Workers import this package too,
and their start is measured: the public names are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbertconv.benchmark.page import html_page
    from sbertconv.benchmark.report import BenchReport
    from sbertconv.benchmark.running import QUICK, Settings, benchmark

_PUBLIC = {
    "benchmark": "sbertconv.benchmark.running",
    "Settings": "sbertconv.benchmark.running",
    "QUICK": "sbertconv.benchmark.running",
    "BenchReport": "sbertconv.benchmark.report",
    "html_page": "sbertconv.benchmark.page",
}

__all__ = ["QUICK", "BenchReport", "Settings", "benchmark", "html_page"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r} (has: {', '.join(__all__)})")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
