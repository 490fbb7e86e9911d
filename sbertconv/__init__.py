"""sbertconv: sentence-transformers models as ONNX graphs, Keras models and PyTorch programs, equal to `encode()`.

Importing this package imports no framework; the public names are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "to_onnx": "sbertconv.api",
    "to_openvino": "sbertconv.api",
    "build_plan": "sbertconv.api",
    "to_tf": "sbertconv.api",
    "to_keras": "sbertconv.api",
    "to_st": "sbertconv.api",
    "to_torch": "sbertconv.api",
    "pipeline": "sbertconv.api",
    "pack": "sbertconv.consumers",
    "verify": "sbertconv.api",
    "inspect": "sbertconv.api",
    "load": "sbertconv.runtime",
    "Embedder": "sbertconv.runtime",
    "SparseEmbedder": "sbertconv.sparse",
    "MultiVectorEmbedder": "sbertconv.late_interaction",
    "HierarchicalTokenPooling": "sbertconv.token_pooling",
    "maxsim": "sbertconv.scores",
    "maxsim_pairwise": "sbertconv.scores",
    "Reranker": "sbertconv.predicting",
    "TextClassifier": "sbertconv.predicting",
    "Artifact": "sbertconv.artifact",
    "Registry": "sbertconv.registry",
    "Context": "sbertconv.converters",
    "ParityReport": "sbertconv.parity",
    "SbertconvError": "sbertconv.errors",
    "SourceError": "sbertconv.errors",
    "UnsupportedModuleError": "sbertconv.errors",
    "UnsupportedOptionError": "sbertconv.errors",
    "MissingDependencyError": "sbertconv.errors",
    "DuplicateConverterError": "sbertconv.errors",
    "ParityError": "sbertconv.errors",
    "ArtifactError": "sbertconv.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sbertconv' has no attribute {name!r} (has: {', '.join(__all__)})")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
