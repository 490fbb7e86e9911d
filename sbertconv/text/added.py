"""Tokens that are found in the text before the model sees it: special ones, and those added to the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from sbertconv.text.characters import alphabet, classify, numbered
from sbertconv.text.operations import END, Operations, Tensor
from sbertconv.text.tables import PageTable, Trie, every, reachable

FLAGS = ("single_word", "lstrip", "rstrip")
MARK = "\U000f1234"  # a private character for probing


@dataclass(frozen=True)
class AddedTokens:
    """Replaces each token in the text by its pseudo character. The leftmost token wins, of those the longest.

    Attributes:
        classes: code point -> its number in the trie.
        trie: the tokens' contents; a value is the number of the token, whose pseudo character is END + 1 + number.
        flags: token -> whether it must be a word of its own, takes the spaces on its left, on its right; int32 [3, n].
        spaces, words: the code points for these flags.
    """

    classes: PageTable
    trie: Trie
    flags: np.ndarray
    spaces: PageTable
    words: PageTable

    @classmethod
    def of(cls, tokens: Mapping[int, str], described: Sequence[Mapping[str, Any]]) -> AddedTokens:
        """Of number -> content, for some of all the tokens."""
        numbers = alphabet(list(tokens.values()))
        pseudo = [0] * (1 + len(described))
        trie = Trie.of((0, [numbers[c] for c in text], number) for number, text in tokens.items())
        flags = np.array([[token[flag] for token in described] for flag in FLAGS], np.int32)
        used = [bool(row.any()) for row in flags[:, list(tokens)]]
        spaces = _touching("lstrip") if used[1] or used[2] else every()
        words = _touching("single_word") if used[0] else every()
        return cls(PageTable.of(numbered(numbers), pseudo), trie, flags,
                   PageTable.of(spaces, pseudo), PageTable.of(words, pseudo))  # fmt: skip

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        size = ops.size(codes)
        roots = ops.fill(size, self.trie.root(0))
        classes = self.classes(ops, codes)
        lengths, numbers = self.trie.longest(ops, classes, roots, ops.fill(size, 0, "bool"))
        at = ops.nonzero(lengths > 0)
        ends, numbers = at + lengths[at], numbers[at]
        # The next match that does not overlap with one, by its place among all; the last leads to itself.
        before = ops.cumsum((lengths > 0).number)
        count = ops.size(at)
        following = ops.apply("min", [before[ends - 1], count - 1], "int32")
        following = ops.where(before[ends - 1] < count, following, ops.range(count))
        chosen = reachable(ops, ops.range(count) < 1, following)
        at, ends, numbers = (ops.compress(x, chosen) for x in (at, ends, numbers))
        at, ends, numbers = self._flagged(ops, codes, at, ends, numbers)
        # What is inside of a token goes, but for its first place, which becomes its pseudo character.
        zeros = ops.fill(size + 1, 0)
        one = ops.fill(ops.size(at), 1)
        depth = ops.cumsum(ops.scatter(zeros, at, one) - ops.scatter(zeros, ends, one))[:-1]
        first = ops.scatter(zeros, at, one)[:-1] > 0
        codes = ops.scatter(codes, at, numbers + (END + 1))
        return ops.compress(codes, first | (depth < 1))

    def _flagged(
        self, ops: Operations, codes: Tensor, at: Tensor, ends: Tensor, numbers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Without tokens that are no words of their own, and with the spaces that belong to them."""
        single, left, right = (row.any() for row in self.flags)
        if single:
            words = self.words(ops, codes)
            inside = (words[at - 1] > 0) | (words[ends] > 0)
            kept = ~(inside & (ops.constant(self.flags[0])[numbers] > 0))
            at, ends, numbers = (ops.compress(x, kept) for x in (at, ends, numbers))
        if not (left or right):
            return at, ends, numbers
        spaces = self.spaces(ops, codes) > 0
        solid = ops.nonzero(~spaces)
        passed = ops.cumsum((~spaces).number)
        if right:
            # The first solid place from here on; END is one, so there always is.
            index = ops.where(spaces[ends], passed[ends], passed[ends] - 1)
            ends = ops.where(ops.constant(self.flags[2])[numbers] > 0, solid[index], ends)
        if left:
            start = solid[passed[at - 1] - 1] + 1
            previous = ops.concat([ops.constant([0]), ends])[:-1]
            start = ops.apply("max", [start, previous], "int32")
            at = ops.where(ops.constant(self.flags[1])[numbers] > 0, start, at)
        return at, ends, numbers


@cache
def _touching(flag: str) -> np.ndarray:
    """The code points that a token with this flag treats as space, or as part of a word."""
    from tokenizers import AddedToken, Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.add_tokens([AddedToken(MARK, **{flag: True})])
    # After the token, and what is there once if the character before it does not touch it.
    after, sign = {"lstrip": ("", "?"), "single_word": (" ", MARK)}[flag]

    def touched(text: str) -> int:
        return len(text) - int(tokenizer.encode("".join(f"{c}{MARK}{after}" for c in text)).tokens.count(sign))

    return classify(touched, lambda page: None if touched(page) else 0)
