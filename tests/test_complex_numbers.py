"""Complex numbers are traced as pairs of real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sweep
import torch
from sentence_transformers import SentenceTransformer

import sbertconv
from sbertconv.converters.complex_numbers import traceable_complex_numbers


class Turned(torch.nn.Module):
    """Tokens turned by angles, in every way that a model may write it."""

    def forward(self, tokens: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        turns = torch.polar(torch.ones_like(angles), angles) * 0.5
        pairs = torch.view_as_complex(tokens.reshape(*tokens.shape[:-1], -1, 2))
        turned = pairs * turns.unsqueeze(1).to(pairs.device) * angles[:, None]
        return torch.view_as_real(turned * turns[:, None, :] * turns[..., None, :, :]).flatten(3)


def test_pairs_are_the_complex_numbers() -> None:
    tokens, angles = torch.rand(2, 3, 5, 8), torch.rand(2, 5, 4)
    module = Turned()
    expected = module(tokens, angles)
    with traceable_complex_numbers(module):
        program = torch.export.export(module, (tokens, angles), strict=False)
    torch.testing.assert_close(program.module()(tokens, angles), expected)
    values = [node.meta.get("val") for node in program.graph.nodes]
    assert not any(value.is_complex() for value in values if isinstance(value, torch.Tensor))
    assert torch.view_as_complex(torch.ones(1, 2)).is_complex(), "as it was"


def test_a_model_that_turns_its_tokens_so_is_converted(tmp_path: Path) -> None:
    folder = sweep.tiny_folder("deepseek_v2", tmp_path / "checkpoint")
    artifact = sbertconv.to_onnx(folder, tmp_path / "model")
    expected = SentenceTransformer(str(folder), device="cpu").encode(sweep.texts())
    np.testing.assert_allclose(sbertconv.load(artifact.folder).encode(sweep.texts()), expected, atol=1e-5, rtol=1e-5)
