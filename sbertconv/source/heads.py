"""Heads beside a model that make further answers of its token embeddings: those of BGE-M3.

The rules are those of the package FlagEmbedding, class `EncoderOnlyEmbedderM3ModelForInference`. Padding and special
tokens are left in here; the run time leaves them out (`runtime/heads.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sbertconv.artifact.folder import opened_archive
from sbertconv.artifact.kinds import COLBERT_VECS, LEXICAL_WEIGHTS
from sbertconv.errors import ArtifactError, SourceError
from sbertconv.source.files import COPY, HEAD_FILES
from sbertconv.source.hearing import listed

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class LexicalWeights(torch.nn.Module):
    """The weight of each token in its text: float32 [batch, sequence, hidden] -> [batch, sequence]."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(tokens).relu()[..., 0]


class ColbertVecs(torch.nn.Module):
    """A vector of length 1 for each token: float32 [batch, sequence, hidden] -> [batch, sequence, dim]."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.linear(tokens), dim=-1)


@dataclass(frozen=True)
class Head:
    """What an output is made with.

    Attributes:
        module: the linear layer -> the whole.
        fits: whether a layer of so many outputs is one.
        due: the number of outputs, in words.
    """

    module: Callable[[torch.nn.Linear], torch.nn.Module]
    fits: Callable[[int], bool]
    due: str


HEADS: Mapping[str, Head] = {
    LEXICAL_WEIGHTS: Head(LexicalWeights, lambda size: size == 1, "1"),
    COLBERT_VECS: Head(ColbertVecs, lambda size: size >= 1, "any number"),
}


def read_heads(folder: Path, outputs: Sequence[str], hidden: int) -> dict[str, torch.nn.Module]:
    """Output -> its head, in float32.

    Args:
        folder: a model's.
        outputs: names of `HEADS`, the files of which are there.
        hidden: the size of a token embedding.

    Raises:
        SourceError: for a file that holds anything else than one linear layer of this size.
    """
    return {
        name: HEADS[name].module(_linear(folder / HEAD_FILES[name], HEADS[name], hidden)).eval() for name in outputs
    }


def _linear(file: Path, head: Head, hidden: int) -> torch.nn.Linear:
    weights = _weights(file)
    shapes = {name: list(part.shape) for name, part in weights.items()}
    rows = shapes.get("bias", [0])[0] if shapes.get("bias") else 0
    due = {"weight": [rows, hidden], "bias": [rows]}
    if shapes != due or not head.fits(rows) or not all(part.isfinite().all() for part in weights.values()):
        told = listed([f"{name} {shape}" for name, shape in shapes.items()]) or "nothing"
        raise SourceError(
            f"{file}: no linear layer of {head.due} x {hidden} finite numbers, with a bias (found: {told}).\n{COPY}"
        )
    linear = torch.nn.Linear(hidden, rows)
    linear.load_state_dict({name: part.float() for name, part in weights.items()})
    return linear


def _is_plain(part: Any) -> bool:
    return (
        type(part) in (Tensor, torch.nn.Parameter)
        and part.layout is torch.strided
        and part.device.type == "cpu"
        and not part.is_nested
        and part.dtype in DTYPES
        and part.is_contiguous()
    )


def _weights(file: Path) -> dict[str, Any]:
    """The tensors of a file that torch.save wrote.

    Raises:
        SourceError: for a file that holds more than tensors by name, of plain numbers that lie in it one by one: a row
            that is said to stand there a million times is none.
    """
    try:
        with opened_archive(file):  # bounds of what it unpacks to
            found = torch.load(file, map_location="cpu", weights_only=True)
    except ArtifactError as error:
        raise SourceError(str(error)) from error
    except Exception as error:  # of many kinds, for a file that is none of PyTorch's
        raise SourceError(f"{file}: no weights that torch.save wrote: {type(error).__name__}.\n{COPY}") from error
    if not isinstance(found, dict) or not all(map(_is_plain, found.values())):
        raise SourceError(f"{file}: holds more than tensors by name, of {', '.join(map(str, DTYPES))}.\n{COPY}")
    return {str(name): part for name, part in found.items()}
