"""Byte pair encoding: of all neighbours in a word, those whose pair was learned first are merged, again and again.

Source: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbertconv.text.bytes import byte_at, byte_counts, byte_tokens
from sbertconv.text.characters import alphabet, numbered
from sbertconv.text.components import NotKnownError, real, unknown_id
from sbertconv.text.framing import TEXT_END
from sbertconv.text.operations import END, Operations, State, Tensor
from sbertconv.text.tables import PageTable, SparseTable, Trie

NEVER = 2**31 - 1  # the rank of what is no pair
FORM = 1 << 21  # more than there are code points and pseudo characters
Pairs = Mapping[tuple[int, int], tuple[int, int]]  # two ids -> rank, id of both together


@dataclass(frozen=True)
class WholeWords:
    """Words that are a token although no merges make them; each becomes a pseudo character behind all others.

    Attributes:
        classes: code point -> its number in the trie.
        trie: the words, below the first of two roots; a value is the number of the word.
        first: the pseudo character of the first word.
    """

    classes: PageTable
    trie: Trie
    first: int

    @classmethod
    def of(cls, words: Sequence[str], pseudo: int) -> WholeWords:
        numbers = alphabet(words)
        trie = Trie.of(((0, [numbers[c] for c in word], n) for n, word in enumerate(words)), roots=2)
        return cls(PageTable.of(numbered(numbers), [0] * (pseudo + len(words))), trie, END + pseudo)

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        roots = ops.where(starts, self.trie.root(0), self.trie.root(1))
        begins, ends, values = self.trie.matches(ops, self.classes(ops, codes), roots, starts)
        wholly = starts[ends]
        begins, ends, values = (ops.compress(x, wholly) for x in (begins, ends, values))
        one, nothing = ops.fill(ops.size(begins), 1), ops.fill(ops.size(codes) + 1, 0)
        inside = ops.cumsum(ops.scatter(nothing, begins + 1, one) - ops.scatter(nothing, ends, one))[:-1] > 0
        codes = ops.scatter(codes, begins, values + self.first)
        return ops.compress(codes, ~inside), ops.compress(starts, ~inside)


@dataclass(frozen=True)
class BPE:
    """Symbols are token ids, and above them the pseudo characters.

    Attributes:
        size: how many token ids there are.
        whole: finds the words that need no merges, or None.
        symbols: form * FORM + code point -> its symbol + 1, or 0.
        forms: what the form of a character is the sum of: of one behind another in its word, and of a word's last.
        pairs: (symbol, symbol) -> place.
        ranks, merged: place -> when the pair was learned, and what it becomes.
        alone: place -> whether of such pairs only a word's first may be merged at once, because it may make way for a
            pair that was learned before; int32.
        borders: the (last symbol, first symbol) of all pairs; no merge crosses any other border.
        unknown: the id of a character that is no token, or -1: it goes.
        fused: whether neighbours share one.
        bytes: byte -> id, for characters that are no token; empty: not so.
        pseudo: pseudo character -> its id.
    """

    size: int
    whole: WholeWords | None
    symbols: PageTable
    forms: tuple[int, int]
    pairs: SparseTable
    ranks: np.ndarray
    merged: np.ndarray
    alone: np.ndarray
    borders: SparseTable
    unknown: int
    fused: bool
    bytes: np.ndarray
    pseudo: np.ndarray

    @classmethod
    def of(cls, model: Mapping[str, Any], added: np.ndarray) -> BPE:
        vocabulary: Mapping[str, int] = model["vocab"]
        prefix, suffix = model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
        size, pseudo = max(vocabulary.values()) + 1, np.array([TEXT_END, *added], np.int32)
        split = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
        learned = {
            (vocabulary[a], vocabulary[b]): (rank, vocabulary[a + b[len(prefix) :]])
            for rank, (a, b) in enumerate(split)
        }
        entries = np.array(sorted((a, b, rank, to) for (a, b), (rank, to) in learned.items()), np.int64).reshape(-1, 4)
        width = size + len(pseudo)
        pairs, places = SparseTable.of(entries[:, 0], entries[:, 1], width, width)
        earliest = np.full(size, NEVER)  # of the pairs that a token is in
        for side in (0, 1):
            np.minimum.at(earliest, entries[:, side], entries[:, 2])
        ranks, merged, alone = (np.zeros(int(places.max(initial=0)) + 1, np.int32) for _ in range(3))
        ranks[places], merged[places] = entries[:, 2], entries[:, 3]
        alone[places] = earliest[entries[:, 3]] <= entries[:, 2]
        border = np.array(sorted(_borders(learned, vocabulary, prefix)), np.int64).reshape(-1, 2)
        whole = _unmerged(model) if model["ignore_merges"] else []
        heads, tails = (list(dict.fromkeys(("", affix))) for affix in (prefix, suffix))
        forms = int(len(heads) > 1), len(heads) * (len(tails) > 1)
        last = [*(size + n for n in range(len(pseudo))), *(vocabulary[word] for word in whole)]
        values = np.concatenate([_form(vocabulary, head, tail, last) for tail in tails for head in heads])
        if model["byte_fallback"] and (prefix or suffix):
            raise NotKnownError("model BPE: byte_fallback with continuing_subword_prefix or end_of_word_suffix")
        return cls(
            size,
            WholeWords.of(whole, len(pseudo)) if whole else None,
            PageTable.of(values, []),
            forms,
            pairs,
            ranks,
            merged,
            alone,
            SparseTable.of(border[:, 0], border[:, 1], width, width)[0],
            -1 if model["unk_token"] is None else unknown_id(model),
            bool(model["fuse_unk"]),
            byte_tokens(vocabulary) if model["byte_fallback"] else np.zeros(0, np.int32),
            pseudo,
        )

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> Tensor:
        if self.whole is not None:
            codes, starts = self.whole(ops, codes, starts)
        symbols, starts = self._symbols(ops, codes, starts)
        _, inside = self.borders(ops, ops.previous(symbols, self.size), symbols)
        symbols = self._merge(ops, symbols, starts | ~inside)
        pseudo = symbols >= self.size
        return ops.where(pseudo, ops.constant(self.pseudo)[ops.where(pseudo, symbols - self.size, 0)], symbols)

    def _symbols(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """The symbol of every character, or those of its bytes, and where words begin."""
        formed, (inner, last) = codes, self.forms
        if inner:
            formed = ops.where(starts, formed, formed + inner * FORM)
        if last:
            formed = ops.where(ops.next(starts, True), formed + last * FORM, formed)
        symbols = self.symbols(ops, formed) - 1
        missing = symbols < 0
        if len(self.bytes):
            owner, place = ops.repeat(ops.where(missing, byte_counts(ops, codes), 1))
            letters = ops.where(missing, codes, 0)[owner]
            value = byte_at(ops, letters, byte_counts(ops, letters), place)
            symbols = ops.where(missing[owner], ops.constant(self.bytes)[value], symbols[owner])
            return symbols, starts[owner] & (place < 1)
        words = ops.cumsum(starts.number)
        if self.unknown < 0:
            kept = ops.nonzero(~missing)
        else:
            symbols = ops.where(missing, self.unknown, symbols)
            fused = missing & ops.previous(missing, False) & ~starts
            kept = ops.nonzero(~fused if self.fused else symbols >= 0)
        words = words[kept]
        return symbols[kept], words != ops.previous(words, 0)

    def _merge(self, ops: Operations, symbols: Tensor, starts: Tensor) -> Tensor:
        """One round merges a word's best pair wherever it is in the word; words that have none are done."""
        size = ops.size(symbols)

        def step(symbols: Tensor, starts: Tensor, home: Tensor, done: Tensor) -> State:
            count = ops.size(symbols)
            places, words = ops.range(count), ops.cumsum(starts.number)
            place, there = self.pairs(ops, symbols, ops.next(symbols, 0))
            there = there & ~ops.next(starts, True)
            place = ops.where(there, place, 0)
            ranks = ops.where(there, ops.constant(self.ranks)[place], NEVER)
            none = ops.fill(count + 1, NEVER)
            best = ops.scatter(none, words, ranks, "min")[words]
            chosen = there & (ranks == best)
            # Of neighbours that overlap, which are of one symbol, every second one.
            before = ops.concat([ops.constant([-1]), ops.nonzero(~chosen)])[ops.cumsum((~chosen).number)]
            chosen = chosen & ((places - before) % 2 > 0)
            if self.alone.any():
                first = ops.scatter(none, words, ops.where(chosen, places, NEVER), "min")[words]
                chosen = chosen & ((ops.constant(self.alone)[place] < 1) | (first == places))
            symbols = ops.where(chosen, ops.constant(self.merged)[place], symbols)
            kept = ~ops.previous(chosen, False)
            active = best < NEVER
            ready, still = kept & ~active, kept & active
            done = ops.scatter(done, ops.compress(home, ready), ops.compress(symbols, ready))
            return *(ops.compress(x, still) for x in (symbols, starts, home)), done

        begin = (symbols, starts, ops.range(size), ops.fill(size, -1))
        *_, done = ops.loop(lambda symbols, *rest: ops.size(symbols) > 0, step, begin)
        return ops.compress(done, done >= 0)


def _form(vocabulary: Mapping[str, int], head: str, tail: str, last: Sequence[int]) -> np.ndarray:
    """The symbol + 1 of every character between these texts, and of the pseudo characters; int64 [FORM]."""
    values = np.zeros(FORM, np.int64)
    length = len(head) + len(tail) + 1
    for token, number in vocabulary.items():
        if len(token) == length and token.startswith(head) and token.endswith(tail):
            values[ord(token[len(head)])] = number + 1
    values[END : END + len(last)] = np.array(last) + 1
    return values


def _unmerged(model: Mapping[str, Any]) -> list[str]:
    """The tokens that the library's merges do not make of their own characters."""
    merged = real("model", {**model, "ignore_merges": False})
    return [
        token
        for token, number in model["vocab"].items()
        if token and [t.id for t in merged.tokenize(token)] != [number]
    ]


def _borders(learned: Pairs, vocabulary: Mapping[str, int], prefix: str) -> set[tuple[int, int]]:
    """The last symbol of the left and the first of the right, as they were before any merge, of every pair."""
    lengths = {number: len(token.removeprefix(prefix)) for token, number in vocabulary.items()}
    first, last = ({number: number for number in lengths} for _ in range(2))
    for (a, b), (_, to) in sorted(learned.items(), key=lambda entry: lengths[entry[1][1]]):
        first[to], last[to] = first[a], last[b]
    return {(last[a], first[b]) for a, b in learned}
