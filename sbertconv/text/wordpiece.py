"""WordPiece: the longest token that begins a word, then the longest that goes on, and so on to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbertconv.text.characters import alphabet, numbered
from sbertconv.text.components import unknown_id
from sbertconv.text.framing import TEXT_END
from sbertconv.text.operations import END, INT, Operations, Tensor
from sbertconv.text.tables import PageTable, Trie, reachable


@dataclass(frozen=True)
class WordPiece:
    """Attributes:
    classes: code point -> its number in the trie.
    trie: two roots, for tokens that begin a word and those that go on.
    unknown: the id of a word that has no such tokens, or is too long.
    longest: the number of characters beyond which a word is.
    pseudo: pseudo character -> its id.
    """

    classes: PageTable
    trie: Trie
    unknown: int
    longest: int
    pseudo: np.ndarray

    @classmethod
    def of(cls, model: Mapping[str, Any], added: np.ndarray) -> WordPiece:
        prefix = model["continuing_subword_prefix"]
        vocabulary = model["vocab"]
        words = [(0, token, number) for token, number in vocabulary.items() if token]
        words += [
            (1, token[len(prefix) :], number)
            for token, number in vocabulary.items()
            if token.startswith(prefix) and token != prefix
        ]
        numbers = alphabet(list(vocabulary))
        trie = Trie.of(((root, [numbers[c] for c in text], number) for root, text, number in words), roots=2)
        return cls(
            PageTable.of(numbered(numbers), [0] * (1 + len(added))),
            trie,
            unknown_id(model),
            model["max_input_chars_per_word"],
            np.array([TEXT_END, *added], np.int32),
        )

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> Tensor:
        size = ops.size(codes)
        places = ops.range(size)
        roots = ops.where(starts, self.trie.root(0), self.trie.root(1))
        lengths, values = self.trie.longest(ops, self.classes(ops, codes), roots, starts)
        words = ops.cumsum(starts.number) - 1
        ends = ops.next(starts, True)
        to = places + lengths
        last = (lengths < 1) | ends[ops.apply("max", [to - 1, ops.constant(0)], INT)]
        tokens = reachable(ops, starts, ops.where(last, places, to))
        first = ops.nonzero(starts)
        length = ops.concat([first[1:], ops.reshape(size, [1])]) - first
        stuck = ops.compress(words, tokens & (lengths < 1))
        bad = ops.scatter((length > self.longest).number, stuck, ops.fill(ops.size(stuck), 1), "max") > 0
        bad_here = bad[words]
        ids = ops.where(bad_here, self.unknown, values)
        pseudo = codes >= END
        special = ops.constant(self.pseudo)[ops.apply("max", [codes - END, ops.constant(0)], INT)]
        ids = ops.where(pseudo, special, ids)
        return ops.compress(ids, (tokens & ~bad_here) | starts)
