"""LSTM: layer by layer over padded sequences, which gives what packed ones give.

Equations and gate order (i, f, g, o): https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sbertconv.plan.context import Context, Features, Step
from sbertconv.source.torch_compat import scan


def convert_lstm(module: torch.nn.Module, context: Context) -> Step:
    """The module's own forward, and in a trace a scan over the tokens."""
    return LSTMStep(module)


class LSTMStep(torch.nn.Module):
    """Token embeddings [batch, sequence, dim] -> [batch, sequence, directions * hidden], zero after each text.

    Packing needs the lengths as numbers, and a trace of PyTorch's own operator is one copy of its cell per token. A
    scan is one copy, whatever the length, but slow to run outside of a trace.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = module.encoder
        self.packed = module.forward

    def forward(self, features: Features) -> Features:
        if not torch.compiler.is_exporting():
            result: Features = self.packed(features)
            return result
        hidden = features["token_embeddings"].transpose(0, 1)
        places = torch.arange(hidden.shape[0], device=hidden.device).unsqueeze(-1)
        counts = (places < features["sentence_lengths"].clamp(min=1)).unsqueeze(-1).to(hidden.dtype)
        directions = ("", "_reverse") if self.encoder.bidirectional else ("",)
        for layer in range(self.encoder.num_layers):
            both = [run_direction(self.encoder, f"l{layer}{direction}", hidden, counts) for direction in directions]
            hidden = torch.cat(both, dim=-1)
        return {**features, "token_embeddings": hidden.transpose(0, 1)}


def run_direction(lstm: torch.nn.LSTM, suffix: str, hidden: Tensor, counts: Tensor) -> Tensor:
    """One direction of one layer.

    Args:
        lstm: holds the weights.
        suffix: of their names: layer and direction.
        hidden: the layer's input, [sequence, batch, dim].
        counts: 1 for tokens, 0 for padding, which leaves the state as it is, [sequence, batch, 1].
    """
    recurrent = getattr(lstm, f"weight_hh_{suffix}").t()
    biases = [getattr(lstm, f"bias_{kind}_{suffix}") for kind in ("ih", "hh")] if lstm.bias else []
    inputs = torch.nn.functional.linear(hidden, getattr(lstm, f"weight_ih_{suffix}"), sum(biases) if biases else None)

    def cell(state: tuple[Tensor, Tensor], token: tuple[Tensor, Tensor]) -> Any:
        (output, memory), (given, count) = state, token
        i, f, g, o = (given + output @ recurrent).chunk(4, dim=-1)
        new_memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        new_output = torch.sigmoid(o) * torch.tanh(new_memory)
        kept = torch.where(count > 0, new_output, output), torch.where(count > 0, new_memory, memory)
        return kept, new_output * count

    start = hidden.new_zeros(hidden.shape[1], lstm.hidden_size)
    outputs: Tensor = scan(cell, (start, start.clone()), (inputs, counts), reverse=suffix.endswith("_reverse"))[1]
    return outputs
