"""What is asked of a tokenizer besides its own file, and what a graph with it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TEXT, TEXT_PAIR, MAX_LENGTH = "text", "text_pair", "max_length"  # the inputs of a graph
UNLIMITED = 2**31 - 1  # as a limit in tokens
LARGEST_LIMIT = 10**9  # beyond it is none: transformers says so with 1e30, sentence-transformers with inf
Text = str | tuple[str, str]


@dataclass(frozen=True)
class TokenizerSettings:
    """How token ids become tensors.

    Attributes:
        tensors: names of "input_ids", "token_type_ids", "attention_mask", in order.
        max_length: the limit in tokens, special ones included, or None.
        truncation_side, padding_side: "right" or "left".
        pad_id, pad_type_id: what fills up short texts.
        add_special_tokens: whether the post-processor's tokens are added.
        pair: whether two texts make one input.
        limits: the limits in tokens that there are for different tasks; if there are any, every text comes with its
            own.
    """

    tensors: tuple[str, ...] = ("input_ids", "attention_mask")
    max_length: int | None = None
    truncation_side: str = "right"
    padding_side: str = "right"
    pad_id: int = 0
    pad_type_id: int = 0
    add_special_tokens: bool = True
    pair: bool = False
    limits: tuple[int, ...] = ()

    @classmethod
    def of(cls, section: Mapping[str, Any], pair: bool = False) -> TokenizerSettings:
        """Of a manifest's `tokenizer` entry."""
        names = [name for name in cls.__dataclass_fields__ if name in section]
        limits = set(section.get("task_max_length", {}).values())
        if limits:
            limits.add(UNLIMITED if section["max_length"] is None else section["max_length"])
        found = {name: section[name] for name in names} | {"tensors": tuple(section["tensors"])}
        return cls(**found, pair=pair, limits=tuple(sorted(limits)))

    @property
    def inputs(self) -> dict[str, str]:
        """What a graph takes: name -> "string" or "int64", all of shape [batch]."""
        pair = {TEXT_PAIR: "string"} if self.pair else {}
        return {TEXT: "string"} | pair | ({MAX_LENGTH: "int64"} if self.limits else {})

    def feeds(self, batch: Sequence[Text], limit: int | None = None) -> dict[str, np.ndarray]:
        """A batch of texts, or of pairs of texts, as a graph takes it; `limit` is that of all of them."""
        import numpy as np

        columns = [[text[side] for text in batch] for side in (0, 1)] if self.pair else [batch]
        found = {name: np.array(column, object) for name, column in zip((TEXT, TEXT_PAIR), columns, strict=False)}
        limited = np.full(len(batch), UNLIMITED if limit is None else limit, np.int64)
        return found | ({MAX_LENGTH: limited} if self.limits else {})


def problems(section: Mapping[str, Any]) -> list[str]:
    """What text input does not have of the settings in a manifest's `tokenizer` entry, in words."""
    wanted = {"kind": "fast", "cut": "truncate", "split_special_tokens": False}
    return [
        f"setting {name}={section[name]!r} (have: {value!r})"
        for name, value in wanted.items()
        if section.get(name, value) != value
    ]
