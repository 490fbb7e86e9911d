"""SparseAutoEncoder: the k largest latents of an embedding."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from sbertconv.converters.checks import active_latents
from sbertconv.plan.context import Context, Features, Step

SMALLEST_DEVIATION = 1e-5  # the library's own guard


def convert_sparse_auto_encoder(module: torch.nn.Module, context: Context) -> Step:
    """The encoder alone: the decoder and the auxiliary latents belong to the loss."""
    return SparseAutoEncoderStep(module, active_latents(module, context))


class SparseAutoEncoderStep(torch.nn.Module):
    """sentence_embedding [batch, dim] -> sentence_embedding [batch, hidden], all but `k` of them 0."""

    def __init__(self, module: torch.nn.Module, k: int) -> None:
        super().__init__()
        self.encoder = module.encoder
        self.pre_bias = module.pre_bias
        self.latent_bias = module.latent_bias
        self.normalize = bool(module.normalize)
        self.k = k

    def forward(self, features: Features) -> Features:
        x = features["sentence_embedding"]
        if self.normalize:
            x = x - x.mean(dim=-1, keepdim=True)
            x = x / (x.std(dim=-1, keepdim=True) + SMALLEST_DEVIATION)
        latents = linear(x - self.pre_bias, self.encoder.weight, self.latent_bias)
        values, places = torch.topk(latents, self.k, dim=-1)
        kept = torch.zeros_like(latents).scatter(-1, places, torch.relu(values))
        return {**features, "sentence_embedding": kept}
