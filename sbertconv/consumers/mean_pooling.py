"""Software that takes last_hidden_state and its mean under the mask, whatever the model does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sbertconv.consumers.consumer import HIDDEN, SENTENCE, Consumer
from sbertconv.consumers.graphs import spread_layout
from sbertconv.consumers.reading import file_tokenizer, run
from sbertconv.consumers.refusals import all_of, has_output, no_default_prompt


def read_spring(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """last_hidden_state, its mean under the mask, not normalised."""
    encodings = file_tokenizer(folder).encode_batch(list(texts))
    tokens = run(folder / "onnx/model.onnx", encodings, HIDDEN)
    mask = np.array([encoding.attention_mask for encoding in encodings], np.float32)[:, :, None]
    return np.asarray((tokens * mask).sum(1) / np.maximum(mask.sum(1), 1e-9))


ROWS = (
    Consumer(
        "spring-ai",
        f"onnx/model.onnx, its output {HIDDEN}, the sentence embedding at every token",
        all_of(no_default_prompt, has_output(SENTENCE)),
        spread_layout,
        read_spring,
        hidden="sentence",
    ),
)
