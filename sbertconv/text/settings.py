"""What is asked of a tokenizer besides its own file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sbertconv.errors import UnsupportedOptionError


@dataclass(frozen=True)
class Settings:
    """How token ids become tensors.

    Attributes:
        tensors: names of "input_ids", "token_type_ids", "attention_mask", in order.
        max_length: the limit in tokens, special ones included, or None.
        truncation_side, padding_side: "right" or "left".
        pad_id, pad_type_id: what fills up short texts.
        add_special_tokens: whether the post-processor's tokens are added.
    """

    tensors: tuple[str, ...] = ("input_ids", "attention_mask")
    max_length: int | None = None
    truncation_side: str = "right"
    padding_side: str = "right"
    pad_id: int = 0
    pad_type_id: int = 0
    add_special_tokens: bool = True

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Settings:
        """Of a manifest's `tokenizer` entry.

        Raises:
            UnsupportedOptionError: naming every setting that text input does not have.
        """
        wanted = {"kind": "fast", "cut": "truncate", "split_special_tokens": False}
        problems = [
            f"{name} is {section[name]!r} (have: {value!r})"
            for name, value in wanted.items()
            if section.get(name, value) != value
        ]
        problems += [f"{task}_length is {limit}" for task, limit in section.get("task_max_length", {}).items()]
        if problems:
            raise UnsupportedOptionError(
                f"Text input is not possible with this model's tokenizer: {'; '.join(problems)}.\n"
                "Leave --text-input out."
            )
        names = [name for name in cls.__dataclass_fields__ if name in section]
        return cls(**{name: section[name] for name in names} | {"tensors": tuple(section["tensors"])})
