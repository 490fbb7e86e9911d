"""CPUs by their features, and which engine was the faster on those of a kind."""

from __future__ import annotations

import functools
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sbertconv.artifact.kinds import EXACT

INFO = Path("/proc/cpuinfo")
FEATURES = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm",
    "bf16", "sve",
)  # fmt: skip
BELOW = "below float32"  # the row of every precision that has no order of its own
QUANTIZED = ("int8", "int4")  # which a CPU without instructions for them computes slowly


@dataclass(frozen=True)
class CpuKind:
    """CPUs that have some features.

    Attributes:
        name: in a sentence.
        needs: features, one of which they have; empty: all CPUs.
        engines: precision, or `BELOW` -> engines, the fastest first; empty: nothing was measured.
        source: the run that this comes from.
        small_pays: whether int8 was faster than float32.
    """

    name: str
    needs: frozenset[str]
    engines: Mapping[str, tuple[str, ...]]
    source: str
    small_pays: bool = True


# The first that fits counts.
KINDS = (
    CpuKind(
        "with VNNI or AMX",
        frozenset({"avx512_vnni", "avx_vnni", "amx_int8"}),
        {EXACT: ("openvino", "onnxruntime"), BELOW: ("openvino", "onnxruntime")},
        "docs/benchmarks.md: a Xeon with AMX, 2 cores",
    ),
    CpuKind(
        "with AVX2 and no VNNI",
        frozenset({"avx2"}),
        {EXACT: ("onnxruntime", "openvino"), BELOW: ("openvino", "onnxruntime")},
        "300 mixed texts, MiniLM, 2 cores: float32 1.7 to 1.9 and 1.5 to 1.6 times encode(), int8 1.1 and 1.4 times",
        small_pays=False,
    ),
    CpuKind("that nothing was measured on", frozenset(), {}, ""),
)


@functools.cache
def cpu_features() -> frozenset[str]:
    """The features of this CPU that `FEATURES` names, as Linux tells them; none where it cannot be asked."""
    with suppress(OSError):
        found = re.search(r"^(?:flags|Features)\s*: (.+)$", INFO.read_text(encoding="utf-8"), re.MULTILINE)
        return frozenset(found[1].split()) & frozenset(FEATURES) if found else frozenset()
    return frozenset()


@functools.cache
def cpu_name() -> str:
    """What this CPU is called."""
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", INFO.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def cpu_kind() -> CpuKind:
    """The kind of this CPU."""
    return next(kind for kind in KINDS if not kind.needs or kind.needs & cpu_features())
