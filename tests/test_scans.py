"""Recurrences over the tokens, whose loops a trace would freeze at the length of its example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sweep
import torch
from sentence_transformers import SentenceTransformer
from transformers.models.mamba import modeling_mamba
from transformers.models.recurrent_gemma import modeling_recurrent_gemma

import sbertconv
from sbertconv.converters.scans import FUNCTIONS, METHODS, recurrence, traceable_scans


def tensors(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(3)
    return [torch.rand(shape, generator=made) for shape in shapes]


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 8, 9])
def test_a_recurrence_is_that_of_the_loop(tokens: int) -> None:
    decay, added = tensors((2, tokens, 3), (2, tokens, 3))
    state, expected = torch.zeros(2, 3), []
    for place in range(tokens):
        state = decay[:, place] * state + added[:, place]
        expected.append(state)
    torch.testing.assert_close(recurrence(decay, added, 9), torch.stack(expected, dim=1))


def test_scans_are_those_of_the_library() -> None:
    inputs, dt, inwards, outwards, gate, bias = tensors((2, 6, 9), (2, 6, 9), (2, 4, 9), (2, 4, 9), (2, 6, 9), (6,))
    given = (inputs, dt, -tensors((6, 4))[0], inwards, outwards)
    options = {"D": bias, "z": gate, "delta_bias": bias, "delta_softplus": True, "return_last_state": True}
    found = FUNCTIONS["mamba_selective_scan"](*given, **options, most=9)
    for mine, theirs in zip(found, modeling_mamba.mamba_selective_scan(*given, **options), strict=True):
        torch.testing.assert_close(mine, theirs)
    decay, added = tensors((2, 9, 6), (2, 9, 6))
    reset = torch.arange(9).view(1, 9, 1) == 0
    griffin = modeling_recurrent_gemma.RecurrentGemmaRglru._rnn_scan
    found = METHODS["_rnn_scan"](None, added, decay, reset, None, most=9)
    for mine, theirs in zip(found, griffin(None, added, decay, reset, None), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("library", [modeling_mamba, modeling_recurrent_gemma.RecurrentGemmaRglru])
def test_they_stand_in_the_place_of_the_librarys_own_while_tracing(library: object) -> None:
    (name,) = {*FUNCTIONS, *METHODS} & set(vars(library))
    own = getattr(library, name)
    owner = library if isinstance(library, type) else modeling_mamba.MambaMixer
    with traceable_scans(_holder(owner)):
        assert getattr(library, name) is not own
    assert getattr(library, name) is own


def _holder(owner: type) -> torch.nn.Module:
    """A module of the class, without its weights."""
    holder = owner.__new__(owner)
    torch.nn.Module.__init__(holder)
    return holder


def test_a_state_space_model_is_right_at_every_length(tmp_path: Path) -> None:
    folder = sweep.tiny_folder("mamba", tmp_path / "checkpoint")
    artifact = sbertconv.to_onnx(folder, tmp_path / "model")
    assert artifact.manifest["graphs"][0]["tracer"] == "torch.export"
    expected = SentenceTransformer(str(folder), device="cpu").encode(sweep.texts())
    np.testing.assert_allclose(sbertconv.load(artifact.folder).encode(sweep.texts()), expected, atol=1e-5, rtol=1e-5)
