"""The ONNX backend: PyTorch's steps, traced once with torch.export and translated to ONNX.

The support matrix is PyTorch's table with the rows below, for which ONNX has an operator of its own.
"""

from __future__ import annotations

from sbertconv.plan.registry import Registry


def register(registry: Registry) -> None:
    """Add the converters for every module type of sentence-transformers."""
    from sentence_transformers.sentence_transformer import modules as st

    from sbertconv.converters.onnx.lstm import convert_lstm
    from sbertconv.converters.torch import converters
    from sbertconv.converters.traced import convert_unknown

    table = {**converters(), st.LSTM: convert_lstm}
    for module_type, converter in table.items():
        registry.add("onnx", module_type, converter)
    registry.add_fallback("onnx", convert_unknown)
