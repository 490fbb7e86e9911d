"""Tables of integers that a graph looks numbers up in, and how they are built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sbertconv.text.operations import END, Operations, State, Tensor

PAGE = 256
ROOM = 1.15  # places per entry of a sparse table
ATTEMPTS = 500  # to place rows, before the table gets more room


@dataclass(frozen=True)
class PageTable:
    """A number for every code point, equal pages stored once; those of added tokens and of the end come after.

    Attributes:
        pages: page of a code point -> its place, int32 [pages].
        values: int32 [distinct pages * PAGE].
    """

    pages: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, pseudo: Sequence[int] | int) -> PageTable:
        """Of a number for each code point, and those of the pseudo characters (one number: of each of a page)."""
        last = np.full(-(-(1 if isinstance(pseudo, int) else len(pseudo)) // PAGE) * PAGE, 0)
        last[: len(last) if isinstance(pseudo, int) else len(pseudo)] = pseudo
        rows = np.concatenate([values, last]).astype(np.int32).reshape(-1, PAGE)
        places: dict[bytes, int] = {}
        pages = [places.setdefault(row.tobytes(), len(places)) for row in rows]
        return cls(np.array(pages, np.int32) * PAGE, np.frombuffer(b"".join(places), np.int32))

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        page = codes // PAGE
        return ops.constant(self.values)[ops.constant(self.pages)[page] + (codes - page * PAGE)]


def every(value: int = 0) -> np.ndarray:
    """A number for every code point, the same at first."""
    return np.full(END, value, np.int64)


@dataclass(frozen=True)
class SparseTable:
    """(row, column) -> place of the entry, or none: rows are laid over each other so that no entries collide.

    A row's entries are as far from its begin as their columns, so the owner of a place says whether it is the one asked
    for.

    Attributes:
        base: where a row begins, int32 [rows].
        owner: the row of the entry at a place, or -1, int32 [places].
    """

    base: np.ndarray
    owner: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, columns: np.ndarray, count: int, width: int) -> tuple[SparseTable, np.ndarray]:
        """The table of these entries, sorted by row, with so many rows and columns; and the place of each entry."""
        size = int(len(rows) * ROOM) + 1
        while (placed := _place(rows, columns, count, size)) is None:
            size = int(size * 1.2)
        base, places = placed
        owner = np.full(int(base.max(initial=0)) + width, -1, np.int32)
        owner[places] = rows
        return cls(base.astype(np.int32), owner), places

    def __call__(self, ops: Operations, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The place, and whether there is such an entry."""
        place = ops.constant(self.base)[rows] + columns
        return place, ops.constant(self.owner)[place] == rows


def _place(rows: np.ndarray, columns: np.ndarray, count: int, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows with many entries first, at random; those with one fill what is left."""
    random = np.random.default_rng(0)
    base, places = np.zeros(count, np.int64), np.zeros(len(rows), np.int64)
    taken = np.zeros(size + int(columns.max(initial=0)), bool)
    found, first, lengths = np.unique(rows, return_index=True, return_counts=True)
    for length in sorted(set(lengths.tolist()) - {1}, reverse=True):
        chosen = lengths == length
        left, entries = found[chosen], first[chosen][:, None] + np.arange(length)
        for _ in range(ATTEMPTS):
            if not len(left):
                break
            tried = random.integers(0, size, len(left))
            wanted = tried[:, None] + columns[entries]
            ours = np.zeros_like(wanted, bool)
            ours.reshape(-1)[np.unique(wanted, return_index=True)[1]] = True  # of those that want a place, the first
            fits = (ours & ~taken[wanted]).all(axis=1)
            base[left[fits]], places[entries[fits]] = tried[fits], wanted[fits]
            taken[wanted[fits]] = True
            left, entries = left[~fits], entries[~fits]
        if len(left):
            return None
    single = np.flatnonzero(lengths == 1)
    single = single[np.argsort(-columns[first[single]], kind="stable")]
    free = np.flatnonzero(~taken)[::-1][: len(single)]
    if len(free) < len(single) or (free < columns[first[single]]).any():
        return None
    base[found[single]], places[first[single]] = free - columns[first[single]], free
    return base, places


@dataclass(frozen=True)
class Trie:
    """Words over an alphabet of classes, several roots; a state is the place of the entry that leads to it.

    Attributes:
        table: (state, class) -> the next state.
        values: state -> the word's value + 1, or 0, int32 [places].
    """

    table: SparseTable
    values: np.ndarray

    @classmethod
    def of(cls, words: Iterable[tuple[int, Sequence[int], int]], roots: int = 1) -> Trie:
        """Of (root, classes from 1 on, value from 0 on); no word is empty."""
        nodes: dict[tuple[int, int], int] = {}
        values: dict[int, int] = {}
        for root, classes, value in words:
            node = root
            for cls_ in classes:
                node = nodes.setdefault((node, cls_), roots + len(nodes))
            values[node] = value + 1
        edges = np.array(list(nodes), np.int64).reshape(-1, 2)
        order = np.lexsort((edges[:, 1], edges[:, 0]))
        width = int(edges[:, 1].max(initial=0)) + 1
        table, places = SparseTable.of(edges[order, 0], edges[order, 1], roots + len(edges), width)
        size = len(table.owner)
        state = np.concatenate([size + np.arange(roots), np.zeros(len(edges), np.int64)])
        state[roots + order] = places
        base = np.zeros(size + roots, np.int32)
        base[state] = table.base
        owner = np.where(table.owner >= 0, state[table.owner], -1).astype(np.int32)
        ends = np.zeros(size, np.int32)
        ends[state[list(values)]] = list(values.values())
        return cls(SparseTable(base, owner), ends)

    def root(self, number: int) -> int:
        """A root's state."""
        return len(self.table.owner) + number

    def longest(self, ops: Operations, classes: Tensor, roots: Tensor, breaks: Tensor) -> tuple[Tensor, Tensor]:
        """The longest word that begins at each place: its length (0: none) and its value (-1: none), [n] each.

        Args: see `matches`.
        """
        begins, ends, values = self.matches(ops, classes, roots, breaks)
        size, own = ops.size(classes), ends - begins
        lengths = ops.scatter(ops.fill(size, 0), begins, own, "max")
        best = lengths[begins] == own
        found = ops.scatter(ops.fill(size, -1), ops.compress(begins, best), ops.compress(values, best))
        return lengths, found

    def matches(self, ops: Operations, classes: Tensor, roots: Tensor, breaks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All words that begin anywhere: first place, place behind the last, value, [m] each.

        All places go on at once, a character a round, as long as one is still in the trie; what is a word is looked up
        at the end, because a round costs its number of operations more than their sizes.

        Args:
            ops: the emitter.
            classes: [n]; class 0 is in no word, and must be the last.
            roots: the state that each place begins in.
            breaks: where no word may go on from the left, bool [n].
        """
        inner = ops.where(breaks, 0, classes)

        def step(begin: Tensor, end: Tensor, state: Tensor, *passed: Tensor) -> State:
            place, there = self.table(ops, state, inner[end])
            now = ops.compress(begin, there), ops.compress(end, there) + 1, ops.compress(place, there)
            return [*now, *(ops.concat(pair) for pair in zip(passed, now, strict=True))]

        place, there = self.table(ops, roots, classes)
        begin = ops.nonzero(there)
        first = begin, begin + 1, ops.compress(place, there)
        begins, ends, states = ops.loop(lambda begin, *rest: ops.size(begin) > 0, step, (*first, *first))[3:]
        values = ops.constant(self.values)[states]
        words = values > 0
        return ops.compress(begins, words), ops.compress(ends, words), ops.compress(values, words) - 1


def reachable(ops: Operations, starts: Tensor, jump: Tensor) -> Tensor:
    """The places on the paths that begin at the starts: bool [n], the next place of each (its own: the path ends).

    Each round knows all that is twice as many jumps away.
    """

    def step(marks: Tensor, jump: Tensor, count: Tensor, before: Tensor) -> State:
        del before
        some = marks > 0
        marks = ops.scatter(marks, ops.compress(jump, some), ops.compress(marks, some), "max")
        return marks, jump[jump], ops.sum(marks), count

    first = starts.number
    marks, *_ = ops.loop(
        lambda marks, jump, count, before: before < count, step, (first, jump, ops.sum(first), ops.constant(-1))
    )
    return marks > 0
