"""Transformer and CLIPModel: the transformers model is traced through the module's own forward."""

from __future__ import annotations

import torch

from sbertconv.converters import Context, Features, Step
from sbertconv.converters.checks import check_transformer
from sbertconv.converters.traced import convert_traced


def convert_transformer(module: torch.nn.Module, context: Context) -> Step:
    """The transformers model under its module's own dispatch (method, output path, hidden states).

    Raises:
        UnsupportedOptionError: see `check_transformer`.
    """
    check_transformer(module, context)
    return TransformerStep(module, context)


class TransformerStep(torch.nn.Module):
    """Says which modality the tensors are, as `preprocess` does, and calls the module."""

    def __init__(self, module: torch.nn.Module, context: Context) -> None:
        super().__init__()
        self.step = convert_traced(module, context)
        self.modality = context.modality

    def forward(self, features: Features) -> Features:
        return self.step({**features, "modality": self.modality})
