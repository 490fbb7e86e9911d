"""From the ids of the tokens of all texts to the padded tensors: truncation, special tokens around, padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sbertconv.text.operations import INT, LONG, Operations, Tensor
from sbertconv.text.settings import Settings

TEXT_END = -1  # among the ids


@dataclass(frozen=True)
class Framing:
    """What the post-processor puts around a text.

    Attributes:
        before, after: (id, type id) of the special tokens.
        type_id: of the text's own tokens.
        settings: truncation, padding and the names of the tensors.
    """

    before: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]
    type_id: int
    settings: Settings

    def __call__(self, ops: Operations, ids: Tensor) -> dict[str, Tensor]:
        """The ids in a row, TEXT_END before the first text and after each -> int64 [texts, longest]."""
        settings = self.settings
        ends = ops.nonzero(ids == TEXT_END)
        first = ends[:-1] + 1
        counts = ends[1:] - first
        special = len(self.before) + len(self.after)
        kept = counts
        if settings.max_length is not None:
            room = ops.constant(settings.max_length - special)
            kept = ops.apply("min", [counts, room], INT)
        if settings.truncation_side == "left":
            first = first + (counts - kept)
        rows = ops.size(kept)
        lengths = kept + special
        width = ops.maximum(lengths, 1)
        begin = ops.range(rows) * width
        if settings.padding_side == "left":
            begin = begin + (width - lengths)
        row, place = ops.repeat(kept)
        to = begin[row] + (place + len(self.before))
        where, values, types = [to], [ids[first[row] + place]], [ops.fill(ops.size(to), self.type_id)]
        for offset, (number, type_id) in enumerate(self.before):
            where.append(begin + offset)
            values.append(ops.fill(rows, number))
            types.append(ops.fill(rows, type_id))
        for offset, (number, type_id) in enumerate(self.after):
            where.append(begin + (kept + (len(self.before) + offset)))
            values.append(ops.fill(rows, number))
            types.append(ops.fill(rows, type_id))
        size = rows * width
        at = ops.concat(where)

        def filled(padding: int, parts: list[Tensor]) -> Tensor:
            flat = ops.scatter(ops.fill(size, padding), at, ops.concat(parts))
            return ops.cast(ops.reshape(flat, [rows, width]), LONG)

        made: dict[str, Any] = {
            "input_ids": lambda: filled(settings.pad_id, values),
            "token_type_ids": lambda: filled(settings.pad_type_id, types),
            "attention_mask": lambda: filled(0, [ops.fill(ops.size(at), 1)]),
        }
        return {name: made[name]() for name in settings.tensors}
