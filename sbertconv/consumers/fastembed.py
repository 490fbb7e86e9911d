"""fastembed: the first output of onnx/model.onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sbertconv.consumers.consumer import SENTENCE, Consumer, as_it_is
from sbertconv.consumers.reading import file_tokenizer, from_json, run
from sbertconv.consumers.refusals import all_of, has_limit, has_output, no_default_prompt


def read_fastembed(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Cut at the smaller of two keys, special tokens added once more, output 0, no pooling, no normalization."""
    from tokenizers import AddedToken

    tokenizer, config = file_tokenizer(folder), from_json(folder / "tokenizer_config.json")
    limits = [config.get(key) for key in ("model_max_length", "max_length")]
    limits = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 2**63]
    tokenizer.enable_truncation(min(limits), direction=config.get("truncation_side") or "right")
    special = folder / "special_tokens_map.json"
    for value in from_json(special).values() if special.is_file() else ():
        for token in value if isinstance(value, list) else [value]:
            tokenizer.add_special_tokens([AddedToken(**token) if isinstance(token, dict) else token])
    padding = tokenizer.padding or {}
    tokenizer.enable_padding(
        direction=config.get("padding_side") or padding.get("direction", "right"),
        pad_id=padding["pad_id"],
        pad_type_id=padding.get("pad_type_id", 0),
        pad_token=padding["pad_token"],
        pad_to_multiple_of=padding.get("pad_to_multiple_of"),
    )
    return run(folder / "onnx/model.onnx", tokenizer.encode_batch(list(texts)), None, typed=False)


ROWS = (
    Consumer(
        "fastembed",
        "onnx/model.onnx, its first output, with PoolingType.DISABLED and normalization=False",
        all_of(no_default_prompt, has_limit, has_output(SENTENCE, first=True)),
        as_it_is,
        read_fastembed,
    ),
)
