"""LSTM: ONNX's own LSTM operator, which takes the length of every sequence as PyTorch's packing does.

Operator and gate order (i, o, f, c): https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbertconv.converters import Context, Features, Step


def convert_lstm(module: torch.nn.Module, context: Context) -> Step:
    """One ONNX LSTM node per layer; dropout between layers is inactive at inference."""
    return LSTMStep(module.encoder)


def onnx_gates(weight: Tensor) -> Tensor:
    """PyTorch stacks the gates as i, f, g, o; ONNX as i, o, f, g."""
    i, f, g, o = weight.chunk(4, dim=0)
    return torch.cat([i, o, f, g], dim=0)


class LSTMStep(torch.nn.Module):
    """Token embeddings [batch, sequence, dim] -> [batch, sequence, directions * hidden], zero after each text."""

    def __init__(self, lstm: torch.nn.LSTM) -> None:
        super().__init__()
        self.hidden_size = lstm.hidden_size
        self.layers = lstm.num_layers
        self.directions = ("", "_reverse") if lstm.bidirectional else ("",)
        for layer in range(lstm.num_layers):
            for kind in ("weight_ih", "weight_hh"):
                self._stack(lstm, f"{kind}_l{layer}", [(kind,)])
            self._stack(lstm, f"bias_l{layer}", [("bias_ih", "bias_hh")])

    def _stack(self, lstm: torch.nn.LSTM, name: str, kinds: list[tuple[str, ...]]) -> None:
        """Both directions of one weight as a buffer [directions, ...]; the two biases lie side by side."""
        layer = name.rsplit("_", 1)[1]
        rows = [
            torch.cat([onnx_gates(getattr(lstm, f"{kind}_{layer}{direction}")) for kind in kinds[0]])
            for direction in self.directions
        ]
        self.register_buffer(name, torch.stack(rows).detach().contiguous())

    def forward(self, features: Features) -> Features:
        hidden = features["token_embeddings"]
        lengths = torch.clamp(features["sentence_lengths"], min=1).to(torch.int32)
        batch, sequence = hidden.shape[0], hidden.shape[1]
        for layer in range(self.layers):
            output = torch.onnx.ops.symbolic(
                "LSTM",
                (
                    hidden.transpose(0, 1),
                    getattr(self, f"weight_ih_l{layer}"),
                    getattr(self, f"weight_hh_l{layer}"),
                    getattr(self, f"bias_l{layer}"),
                    lengths,
                ),
                attrs={
                    "hidden_size": self.hidden_size,
                    "direction": "bidirectional" if len(self.directions) == 2 else "forward",
                },
                dtype=hidden.dtype,
                shape=(sequence, len(self.directions), batch, self.hidden_size),
                version=14,
            )
            hidden = output.permute(2, 0, 1, 3).flatten(2)
        return {**features, "token_embeddings": hidden}
