"""CNN: convolutions of several widths over the token embeddings, channels concatenated."""

from __future__ import annotations

import torch

from sbertconv.plan.context import Context, Features, Step


def convert_cnn(module: torch.nn.Module, context: Context) -> Step:
    """The module's own convolutions; a mask that no longer fits the shorter sequence is replaced."""
    keeps_length = all(
        stride == 1 and kernel % 2 == 1 for kernel, stride in zip(module.kernel_sizes, module.stride_sizes, strict=True)
    )
    return module if keeps_length else ShorterStep(module)


class ShorterStep(torch.nn.Module):
    """Pooling ignores a mask whose length is not that of the token embeddings: every position counts.

    Only where the convolution happens to keep the length (a text of one token) does the mask still apply.
    The lengths are compared as tensors because both are dynamic.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.convs = module.convs
        self.convolve = module.forward

    def forward(self, features: Features) -> Features:
        mask = features["attention_mask"]
        features = self.convolve(features)
        ones = torch.ones_like(features["token_embeddings"][..., 0], dtype=mask.dtype)
        same_length = (mask[:1].new_ones(mask.shape).sum(1) == ones.sum(1)).unsqueeze(-1).to(mask.dtype)
        return {**features, "attention_mask": ones * (1 - same_length * (1 - mask[:, :1]))}
