"""sbertconv: sentence-transformers models as ONNX graphs, Keras models and PyTorch programs, equal to `encode()`.

Importing this package imports no framework; the public names are loaded when first used.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from typing import Any

__version__ = "0.1.0"

if "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ:
    warnings.warn(
        "onnxruntime was imported before sbertconv and reports its use: import sbertconv first, or set "
        "ORT_DISABLE_TELEMETRY=1 (=0 to agree).",
        stacklevel=2,
    )
# Running a model is nobody's business: ONNX Runtime reads this when it is first imported, huggingface_hub likewise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_PUBLIC = {
    "to_onnx": "sbertconv.api",
    "to_openvino": "sbertconv.api",
    "build_plan": "sbertconv.api",
    "to_tf": "sbertconv.api",
    "to_keras": "sbertconv.api",
    "to_st": "sbertconv.api",
    "to_torch": "sbertconv.api",
    "trim": "sbertconv.api",
    "shorten": "sbertconv.api",
    "to_static": "sbertconv.api",
    "pipeline": "sbertconv.api",
    "pack": "sbertconv.consumers",
    "push": "sbertconv.artifact.hub",
    "verify": "sbertconv.api",
    "inspect": "sbertconv.api",
    "load": "sbertconv.runtime.opening",
    "Embedder": "sbertconv.runtime.embedding",
    "SparseEmbedder": "sbertconv.runtime.sparse",
    "MultiVectorEmbedder": "sbertconv.runtime.late_interaction",
    "HierarchicalTokenPooling": "sbertconv.runtime.token_pooling",
    "maxsim": "sbertconv.runtime.maxsim",
    "maxsim_pairwise": "sbertconv.runtime.maxsim",
    "quantize_embeddings": "sbertconv.runtime.similarity",
    "Reranker": "sbertconv.runtime.predicting",
    "TextClassifier": "sbertconv.runtime.predicting",
    "Artifact": "sbertconv.artifact.folder",
    "Registry": "sbertconv.plan.registry",
    "Context": "sbertconv.converters",
    "ParityReport": "sbertconv.parity.comparison",
    "SbertconvError": "sbertconv.errors",
    "SourceError": "sbertconv.errors",
    "UnsupportedModuleError": "sbertconv.errors",
    "UnsupportedOptionError": "sbertconv.errors",
    "UnreadableInputError": "sbertconv.errors",
    "MissingDependencyError": "sbertconv.errors",
    "DuplicateConverterError": "sbertconv.errors",
    "ParityError": "sbertconv.errors",
    "TokenizationError": "sbertconv.errors",
    "ArtifactError": "sbertconv.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sbertconv' has no attribute {name!r} (has: {', '.join(__all__)})")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def main() -> None:
    """Run the command line. An interrupt while it is imported, which takes a moment, ends it as quietly as later; what
    a job or a closed terminal ends it with leaves as little behind as an interrupt.
    """
    # PyTorch's threads wait for each other in a loop: with another process on a core that takes ten times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # and not ignored, as by nohup
            signal.signal(number, _end)
    try:
        importlib.import_module("sbertconv.cli").main()
    except KeyboardInterrupt:
        print("Interrupted. Nothing was written.", file=sys.stderr)
        sys.exit(130)


def _end(number: int, frame: Any) -> None:
    """Leave by way of everything that cleans up; asked a second time, at once."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def __dir__() -> list[str]:
    return __all__
