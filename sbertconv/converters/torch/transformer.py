"""Transformer and CLIPModel: the transformers model, through the module's own forward."""

from __future__ import annotations

import torch

from sbertconv.converters import Context, Features, Step
from sbertconv.converters.causal import FewLogits, entries_read
from sbertconv.converters.checks import check_transformer
from sbertconv.scoring import IS_QUERY


def convert_transformer(module: torch.nn.Module, context: Context) -> Step:
    """The transformers model under its module's own dispatch (method, output path, hidden states).

    Raises:
        UnsupportedOptionError: see `check_transformer`.
    """
    check_transformer(module, context)
    entries = entries_read(module, context)
    return FewLogits(module, entries) if entries else TransformerStep(module, context.modality)


class TransformerStep(torch.nn.Module):
    """Says which modality the tensors are, as `preprocess` does, and runs the module's forward."""

    def __init__(self, module: torch.nn.Module, modality: str) -> None:
        super().__init__()
        self.model = module.model
        self.dispatch = module.forward
        self.modality = modality

    def forward(self, features: Features) -> Features:
        taken = {name: tensor for name, tensor in features.items() if name != IS_QUERY}  # which is not the library's
        return {**features, **self.dispatch({**taken, "modality": self.modality})}
