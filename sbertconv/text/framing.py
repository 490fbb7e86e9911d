"""From the ids of the tokens of all texts to the padded tensors: truncation, special tokens around, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sbertconv.artifact.text_input import UNLIMITED, TokenizerSettings
from sbertconv.text.operations import INT, LONG, Operations, Tensor

TEXT_END = -1  # among the ids
SPECIAL = -1  # instead of a text's number
Piece = tuple[int, int, int]  # a text's number and nothing, or SPECIAL and its id; type id


@dataclass(frozen=True)
class Framing:
    """What the post-processor makes of a text, or of two.

    Attributes:
        pieces: the texts and the special tokens in order.
        settings: truncation, padding and the names of the tensors.
    """

    pieces: tuple[Piece, ...]
    settings: TokenizerSettings

    def __call__(self, ops: Operations, ids: Tensor, limits: Tensor | None = None) -> dict[str, Tensor]:
        """Rows of padded tensors, int64 [batch, longest].

        Args:
            ops: the emitter.
            ids: in a row, TEXT_END before the first text and after each; of pairs, all second texts behind all first.
            limits: of each row in tokens, where the settings leave that open; [batch].
        """
        settings = self.settings
        ends = ops.nonzero(ids == TEXT_END)
        first = ends[:-1] + 1
        counts = ends[1:] - first
        firsts, counted = [first], [counts]
        if settings.pair:
            half = ops.size(counts) // 2
            places = [ops.range(half), ops.range(half) + half]
            firsts, counted = ([x[place] for place in places] for x in (first, counts))
        special = sum(number == SPECIAL for number, *_ in self.pieces)
        kept = counted
        if limits is None and settings.max_length is not None:
            limits = ops.constant(settings.max_length)
        if limits is not None:
            # The library does not cut at all where not even the special tokens have room.
            room = ops.where(limits < special, UNLIMITED, limits - special)
            kept = self._truncated(ops, counted, room)
        if settings.truncation_side == "left":
            firsts = [first + (count - left) for first, count, left in zip(firsts, counted, kept, strict=True)]
        rows = ops.size(kept[0])
        lengths = sum(kept[1:], kept[0]) + special
        width = ops.maximum(lengths, 1)
        cursor = ops.range(rows) * width
        if settings.padding_side == "left":
            cursor = cursor + (width - lengths)
        where, values, types = [], [], []
        for text, number, type_id in self.pieces:
            if text == SPECIAL:
                where.append(cursor)
                values.append(ops.fill(rows, number))
                cursor = cursor + 1
            else:
                row, place = ops.repeat(kept[text])
                where.append(cursor[row] + place)
                values.append(ids[firsts[text][row] + place])
                cursor = cursor + kept[text]
            types.append(ops.fill(ops.size(where[-1]), type_id))
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

    @staticmethod
    def _truncated(ops: Operations, counts: Sequence[Tensor], room: Tensor) -> list[Tensor]:
        """How many tokens of each text are left, of as many as there is room for in both together.

        Source: https://github.com/huggingface/tokenizers/blob/main/tokenizers/src/utils/truncation.rs, LongestFirst.
        """
        if len(counts) == 1:
            return [ops.apply("min", [counts[0], room], INT)]
        one, two = counts
        short = ops.apply("min", [one, two], INT)
        half = room // 2
        halved = short > half  # both are longer than half of the room
        shorter = ops.where(halved, half, short)
        longer = room - shorter
        least, most = ops.where(one > two, longer, shorter), ops.where(one > two, shorter, longer)
        cut = one + two > room
        found = [ops.where(cut, left, count) for left, count in ((least, one), (most, two))]
        return [ops.apply("min", [left, count], INT) for left, count in zip(found, counts, strict=True)]
