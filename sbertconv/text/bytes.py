"""Characters as the bytes of UTF-8, one symbol each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sbertconv.text.components import NotKnownError
from sbertconv.text.operations import END, Operations, Tensor

LIMITS = (0x80, 0x800, 0x10000)  # the first characters of two, three and four bytes
LEADS = np.array([0, 0, 0xC0, 0xE0, 0xF0], np.int32)  # bytes of the character -> what its first byte begins with
SIXES = np.array([1 << 6 * n for n in range(4)], np.int32)


def byte_counts(ops: Operations, codes: Tensor) -> Tensor:
    """How many bytes each character has; pseudo characters have one."""
    count = ops.fill(ops.size(codes), 1)
    for limit in LIMITS:
        count = count + (codes >= limit).number
    return ops.where(codes >= END, 1, count)


def byte_at(ops: Operations, codes: Tensor, counts: Tensor, place: Tensor) -> Tensor:
    """The byte at a place of each character, given its number of bytes."""
    rest = codes // ops.constant(SIXES)[counts - place - 1]
    return ops.where(place < 1, ops.constant(LEADS)[counts] + rest, rest % 64 + 0x80)


def byte_tokens(vocabulary: Mapping[str, int]) -> np.ndarray:
    """Byte -> the id of the token that stands for it."""
    found = [vocabulary.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
    if -1 in found:
        raise NotKnownError("model: byte_fallback without a token for every byte")
    return np.array(found, np.int32)


def byte_alphabet() -> list[str]:
    """The printable character that the byte-level alphabet has for each byte.

    Source: https://github.com/openai/gpt-2/blob/master/src/encoder.py, bytes_to_unicode.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


@dataclass(frozen=True)
class ByteLevel:
    """Every character becomes the characters that stand for its bytes.

    Attributes:
        alphabet: byte -> character, int32 [256].
    """

    alphabet: np.ndarray

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        counts = byte_counts(ops, codes)
        owner, place = ops.repeat(counts)
        codes, starts = codes[owner], starts[owner] & (place < 1)
        pseudo = codes >= END
        letters = ops.where(pseudo, 0, codes)
        value = byte_at(ops, letters, ops.where(pseudo, 1, counts[owner]), place)
        return ops.where(pseudo, codes, ops.constant(self.alphabet)[value]), starts


@dataclass(frozen=True)
class SpacePrefix:
    """A space before every piece that does not begin with one."""

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        lacking = starts & (codes < END) & ~(codes == ord(" "))
        owner, place = ops.repeat(lacking.number + 1)
        added = lacking[owner] & (place < 1)
        return ops.where(added, ord(" "), codes[owner]), starts[owner] & (place < 1)
