"""Unigram: of all ways to cut a word into tokens, that with the highest sum of scores (Viterbi in double precision).

Source: Kudo 2018, https://arxiv.org/abs/1804.10959; the order of additions and what wins a tie are the library's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbertconv.text.bytes import byte_at, byte_counts, byte_tokens
from sbertconv.text.characters import alphabet, numbered
from sbertconv.text.components import NotKnownError
from sbertconv.text.framing import TEXT_END
from sbertconv.text.operations import DOUBLE, END, INT, Operations, State, Tensor
from sbertconv.text.tables import PageTable, Trie, reachable

PENALTY = 10.0  # below the lowest score: that of a character which is no token
LARGEST = 20.0  # above it two unknown characters could win against a token of both
NEVER = -1e300
BLOCK = 8  # characters


@dataclass(frozen=True)
class Unigram:
    """Attributes:
    classes: code point -> its number in the trie.
    trie: the tokens.
    scores: id -> score, float64.
    unknown: the id of characters that are in no token; neighbours share one.
    bytes: byte -> id, for such characters instead; empty: not so.
    penalty: the score of such a character.
    pseudo: pseudo character -> its id.
    """

    classes: PageTable
    trie: Trie
    scores: np.ndarray
    unknown: int
    bytes: np.ndarray
    penalty: float
    pseudo: np.ndarray

    @classmethod
    def of(cls, model: Mapping[str, Any], added: np.ndarray) -> Unigram:
        tokens = {token: number for number, (token, _) in enumerate(model["vocab"]) if token}
        scores = np.array([score for _, score in model["vocab"]], np.float64)
        if model["unk_id"] is None or scores.min() >= LARGEST:
            raise NotKnownError("model Unigram: without unk_id, or without scores that are logarithms")
        numbers = alphabet(list(tokens))
        return cls(
            PageTable.of(numbered(numbers), [0] * (1 + len(added))),
            Trie.of((0, [numbers[c] for c in token], number) for token, number in tokens.items()),
            scores,
            model["unk_id"],
            byte_tokens(tokens) if model["byte_fallback"] else np.zeros(0, np.int32),
            float(scores.min() - PENALTY),
            np.array([TEXT_END, *added], np.int32),
        )

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> Tensor:
        """A word's characters have a slot each, behind one for its begin, whose score is 0. A slot has a cell for every
        length of a token that ends there, the longest first; there are as many lengths as the longest match has.
        """
        size = ops.size(codes)
        words = ops.cumsum(starts.number)
        slot = ops.range(size) + words  # of every character
        count = size + ops.maximum(words)
        roots = ops.fill(size, self.trie.root(0))
        begins, ends, values = self.trie.matches(ops, self.classes(ops, codes), roots, starts)
        width = ops.maximum(ends - begins, 1)
        last = slot[ends - 1]
        cells = last * width + (width - (ends - begins))
        ids = ops.fill(count * width, -1)
        ids = ops.scatter(ids, cells, values)
        scores = ops.fill(count * width, NEVER, DOUBLE)
        scores = ops.scatter(scores, cells, ops.constant(self.scores, DOUBLE)[values])
        single = slot * width + (width - 1)
        missing = ops.compress(single, ids[single] < 0)
        ids = ops.scatter(ids, missing, ops.fill(ops.size(missing), self.unknown))
        scores = ops.scatter(scores, missing, ops.fill(ops.size(missing), self.penalty, DOUBLE))
        lengths = self._best(ops, starts, slot, count, ops.reshape(scores, [-1, width]), width)
        places = ops.range(count)
        found = ids[places * width + ops.apply("min", [width - lengths, width - 1], INT)]
        return self._tokens(ops, codes, starts, slot, lengths, places, found)

    def _best(
        self, ops: Operations, starts: Tensor, slot: Tensor, count: Tensor, scores: Tensor, width: Tensor
    ) -> Tensor:
        """The length of the last token of the best way to each slot; one character of every word at a time.

        A word stays for a block of characters even if it is shorter, because a round costs its number of operations
        more than their sizes; between blocks, what has ended is left behind.
        """
        back = ops.range(width)
        first = ops.nonzero(starts)
        length = ops.concat([first[1:], ops.reshape(ops.size(starts), [1])]) - first
        final, last = count - 1, 0 - width

        def step(number: Tensor, rounds: Tensor, at: Tensor, best: Tensor) -> State:
            here = ops.apply("min", [at + number, final], INT)
            ways = ops.slice(best, last, None, axis=1) + scores[here]
            score = ops.reshape(ops.reduce("max", ways, axis=1), [-1, 1])
            return number + 1, rounds, at, ops.concat([best, score], axis=1)

        def block(at: Tensor, left: Tensor, window: Tensor, lengths: Tensor) -> State:
            here = ops.apply("min", [left, ops.constant(BLOCK)], INT)
            rounds = ops.maximum(here)
            begin = ops.constant(0), rounds, at, window
            *_, best = ops.loop(lambda number, rounds, *rest: number < rounds, step, begin)
            # Once more for all characters that there are, now for the lengths.
            owner, place = ops.repeat(here)
            own = at[owner] + place
            cells = ops.reshape(owner * (rounds + width) + place, [-1, 1]) + back
            before = ops.reshape(best, [-1])[ops.reshape(cells, [-1])]
            ways = ops.reshape(before, [-1, width]) + scores[own]
            lengths = ops.scatter(lengths, own, width - ops.argmax(ways))
            on = ops.nonzero(left > BLOCK)
            return at[on] + BLOCK, left[on] - BLOCK, ops.slice(best[on], last, None, axis=1), lengths

        window = ops.reshape(ops.fill(ops.size(first) * width, 0.0, DOUBLE), [-1, width])
        begin = (slot[first], length, window, ops.fill(count, 0))
        *_, lengths = ops.loop(lambda at, *rest: ops.size(at) > 0, block, begin)
        return lengths

    def _tokens(
        self,
        ops: Operations,
        codes: Tensor,
        starts: Tensor,
        slot: Tensor,
        lengths: Tensor,
        places: Tensor,
        found: Tensor,
    ) -> Tensor:
        """The ids of the best ways, followed from the ends of the words to their begins."""
        count = ops.size(lengths)
        to = places - lengths
        ends = ops.compress(slot, ops.next(starts, True))
        marks = ops.scatter(ops.fill(count, 0), ends, ops.fill(ops.size(ends), 1))
        tokens = reachable(ops, marks > 0, to) & (lengths > 0)
        pseudo = codes >= END
        special = ops.constant(self.pseudo)[ops.compress(codes, pseudo) - END]
        at = ops.compress(slot, pseudo)
        found = ops.scatter(found, at, special)
        unknown = tokens & (found == self.unknown)
        unknown = ops.scatter(unknown.number, at, ops.fill(ops.size(at), 0)) > 0
        if len(self.bytes):
            return self._bytes(ops, ops.scatter(ops.fill(count, 0), slot, codes), tokens, unknown, to, found)
        return ops.compress(found, tokens & ~(unknown & unknown[to]))

    def _bytes(
        self, ops: Operations, codes: Tensor, tokens: Tensor, unknown: Tensor, to: Tensor, found: Tensor
    ) -> Tensor:
        """The ids, with the bytes of every unknown character instead; but the unknown token's own text alone is that.

        Args:
            ops: the emitter.
            codes: of every slot, 0 in those for begins.
            tokens: whether a token ends there.
            unknown: whether it is the unknown one.
            to: where the token before it ends.
            found: its id.
        """
        ends = ops.nonzero(tokens)
        end = ends[ops.apply("min", [ops.cumsum(tokens.number) - tokens.number, ops.size(ends) - 1], INT)]
        places = ops.range(ops.size(codes))
        # Of the token that each slot belongs to: whether the one behind it is unknown too.
        shared = ops.scatter(ops.fill(ops.size(codes), 0), to[ends], unknown[ends].number) > 0
        own = unknown & (places - to > 1) & ~unknown[to] & ~shared
        spelled = (unknown & ~own)[end] & (places > to[end])
        counts = ops.where(spelled, byte_counts(ops, codes), tokens.number)
        owner, place = ops.repeat(counts)
        letters = ops.where(spelled, codes, 0)[owner]
        value = byte_at(ops, letters, byte_counts(ops, letters), ops.where(spelled[owner], place, 0))
        return ops.where(spelled[owner], ops.constant(self.bytes)[value], found[owner])
