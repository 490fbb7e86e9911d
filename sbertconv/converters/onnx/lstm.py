"""LSTM: ONNX's own LSTM operator, one per layer and direction.

Operator and gate order (i, o, f, c): https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbertconv.plan.context import Context, Features, Step

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # PyTorch's names


def convert_lstm(module: torch.nn.Module, context: Context) -> Step:
    """Dropout between layers is inactive at inference."""
    return LSTMStep(module.encoder)


def onnx_gates(weight: Tensor) -> Tensor:
    """PyTorch stacks the gates as i, f, g, o; ONNX as i, o, f, g."""
    i, f, g, o = weight.chunk(4, dim=0)
    return torch.cat([i, o, f, g], dim=0)


class LSTMStep(torch.nn.Module):
    """Token embeddings [batch, sequence, dim] -> [batch, sequence, directions * hidden], zero after each text.

    The operator can be told the lengths and to go backwards, which OpenVINO gets wrong: it runs over the padding. So a
    text is turned around within its length instead, and what comes after it is cleared.
    """

    def __init__(self, lstm: torch.nn.LSTM) -> None:
        super().__init__()
        self.hidden_size = lstm.hidden_size
        self.layers = lstm.num_layers
        self.directions = ("", "_reverse") if lstm.bidirectional else ("",)
        for layer in range(lstm.num_layers):
            for direction in self.directions:
                place = f"l{layer}{direction}"
                weights = {kind: onnx_gates(getattr(lstm, f"{kind}_{place}").detach()) for kind in KINDS}
                self.register_buffer(f"weight_ih_{place}", weights["weight_ih"][None])
                self.register_buffer(f"weight_hh_{place}", weights["weight_hh"][None])
                self.register_buffer(f"bias_{place}", torch.cat([weights["bias_ih"], weights["bias_hh"]])[None])

    def forward(self, features: Features) -> Features:
        hidden = features["token_embeddings"].transpose(0, 1)  # [sequence, batch, dim], as the operator takes it
        lengths = torch.clamp(features["sentence_lengths"], min=1).to(torch.int64)
        within = (torch.arange(hidden.shape[0], device=hidden.device)[:, None] < lengths)[:, :, None]
        for layer in range(self.layers):
            found = [self._run(hidden, lengths, f"l{layer}{direction}") for direction in self.directions]
            hidden = torch.where(within, torch.cat(found, dim=-1), 0.0)
        return {**features, "token_embeddings": hidden.transpose(0, 1)}

    def _run(self, hidden: Tensor, lengths: Tensor, place: str) -> Tensor:
        """One layer in one direction: [sequence, batch, dim] -> [sequence, batch, hidden]."""
        backwards = place.endswith("_reverse")
        weights = [getattr(self, f"{kind}_{place}") for kind in ("weight_ih", "weight_hh", "bias")]
        output = torch.onnx.ops.symbolic(
            "LSTM",
            (turned(hidden, lengths) if backwards else hidden, *weights),
            attrs={"hidden_size": self.hidden_size},
            dtype=hidden.dtype,
            shape=(hidden.shape[0], 1, hidden.shape[1], self.hidden_size),
            version=14,
        ).squeeze(1)
        return turned(output, lengths) if backwards else output


def turned(hidden: Tensor, lengths: Tensor) -> Tensor:
    """[sequence, batch, dim] with each text's tokens in reverse order, the padding where it was.

    Operator: https://onnx.ai/onnx/operators/onnx__ReverseSequence.html
    """
    return torch.onnx.ops.symbolic(
        "ReverseSequence",
        (hidden, lengths),
        attrs={"time_axis": 0, "batch_axis": 1},
        dtype=hidden.dtype,
        shape=tuple(hidden.shape),
        version=10,
    )
