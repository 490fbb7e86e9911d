"""What a tokenizer does to single characters, found out by asking it about every code point."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from sbertconv.text.components import NotKnownError, real
from sbertconv.text.operations import END, INT, LONG, Operations, State, Tensor
from sbertconv.text.tables import PAGE, PageTable, SparseTable, every

Function = Callable[[str], str]
SURROGATES = range(0xD800, 0xE000)  # halves of pairs, no characters
SAME = -1  # in a rule: the character itself
LOWEST, HIGHEST = "\u0334", "\u0345"  # combining classes 1 and 240


def pages() -> Iterator[str]:
    """All characters, a page at a time."""
    for start in range(0, END, PAGE):
        if start not in SURROGATES:
            yield "".join(map(chr, range(start, start + PAGE)))


def changes(function: Function) -> dict[int, str]:
    """What becomes of each character that does not stay as it is. Whole pages that do are asked about at once, and so
    are those whose characters all get the same around them.
    """
    found: dict[int, str] = {}
    for page in pages():
        made = function(page)
        if made == page:
            continue
        pattern = function(page[0])
        if page[0] in pattern and made == "".join(alike := [pattern.replace(page[0], c) for c in page]):
            found.update(zip(map(ord, page), alike, strict=True))
        else:
            found.update({ord(c): made for c in page if (made := function(c)) != c})
    return found


@dataclass(frozen=True)
class CharacterMap:
    """Every character becomes some characters, none or several, whatever stands around it.

    Attributes:
        rules: code point -> its rule; rule 0 leaves it as it is.
        starts, counts: rule -> where its characters are, int32 [rules].
        flat: the rules' characters, SAME for the own one.
    """

    rules: PageTable
    starts: np.ndarray
    counts: np.ndarray
    flat: np.ndarray

    @classmethod
    def of(cls, changes: Mapping[int, str], pseudo: int, further: Sequence[str] = ()) -> CharacterMap:
        """Of what becomes of the characters that change, and of pseudo characters behind those of the tokenizer."""
        numbers: dict[tuple[int, ...], int] = {(SAME,): 0}
        values = every()
        for code, made in changes.items():
            rule = tuple(SAME if ord(c) == code else ord(c) for c in made)
            values[code] = numbers.setdefault(rule, len(numbers))
        last = [numbers.setdefault(tuple(map(ord, made)), len(numbers)) for made in further]
        counts = np.array([len(rule) for rule in numbers], np.int32)
        flat = np.array([c for rule in numbers for c in rule], np.int32)
        return cls(
            PageTable.of(values, [*[0] * pseudo, *last]), (np.cumsum(counts) - counts).astype(np.int32), counts, flat
        )

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        rules = self.rules(ops, codes)
        starts, flat = ops.constant(self.starts), ops.constant(self.flat)
        if (self.counts == 1).all():
            made = flat[starts[rules]]
            return ops.where(made == SAME, codes, made)
        owner, place = ops.repeat(ops.constant(self.counts)[rules])
        made = flat[starts[rules[owner]] + place]
        return ops.where(made == SAME, codes[owner], made)


@cache
def combining_classes(decompose: Function) -> dict[int, int]:
    """The order of marks that stand on one character: code point -> 1, 2, ...; all others are starters.

    Read from what the normalizer swaps, because its version of Unicode is its own.
    """
    marks = []
    for page in pages():
        plain = page if decompose(page) == page else "".join(c for c in page if decompose(c) == c)
        behind, before = f"a{HIGHEST}".join(["", *plain]), f"{LOWEST}a".join([*plain, ""])
        if decompose(behind) != behind or decompose(before) != before:
            marks += [
                c
                for c in plain
                if decompose(f"{HIGHEST}{c}") != f"{HIGHEST}{c}" or decompose(f"{c}{LOWEST}") != f"{c}{LOWEST}"
            ]
    examples: dict[int, str] = {}
    for c in (*marks, LOWEST, HIGHEST):
        examples.setdefault(unicodedata.combining(c), c)
    total = len(examples) + 1
    ranks = {ord(c): total - sum(decompose(f"{e}{c}") != f"{e}{c}" for e in examples.values()) for c in marks}
    return {ord(LOWEST): total - len(examples) + 1, **ranks}


@dataclass(frozen=True)
class Reordering:
    """Marks on one character in the order of their combining classes.

    Source: https://www.unicode.org/versions/latest/ch03.pdf, section 3.11, canonical ordering.
    """

    classes: PageTable

    @classmethod
    def of(cls, decompose: Function, pseudo: int) -> Reordering:
        values = every()
        found = combining_classes(decompose)
        values[list(found)] = list(found.values())
        return cls(PageTable.of(values, [0] * pseudo))

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        classes = self.classes(ops, codes)
        marks = classes > 0
        where = ops.nonzero(marks)
        size = ops.cast(ops.size(codes), LONG)
        runs, ranks, places = (ops.cast(x, LONG) for x in (ops.cumsum((~marks).number)[where], classes[where], where))
        order = ops.sort((runs * PAGE + ranks) * size + places) % size
        return ops.scatter(codes, where, codes[ops.cast(order, INT)])


@dataclass(frozen=True)
class Composition:
    """Decomposed characters, in canonical order, composed again.

    Every first character of a pair looks at what follows it, one character a round: it takes in those that it has a
    composed form with, until a starter comes that it has none with. A mark behind another of the same class or a higher
    one is blocked.
    Source: https://www.unicode.org/versions/latest/ch03.pdf, section 3.11, canonical composition.

    Attributes:
        classes: the order of marks, 0 for starters.
        firsts, seconds: code point -> its row, its column in the table of pairs.
        pairs: (row, column) -> place.
        composed: place -> the composed character.
    """

    classes: PageTable
    firsts: PageTable
    seconds: PageTable
    pairs: SparseTable
    composed: np.ndarray

    @classmethod
    def of(cls, compose: Function, pseudo: int) -> Composition:
        """Read from what the normalizer composes."""
        decompose = real("normalizer", {"type": "NFD"}).normalize_str
        found = {}
        for code, parts in changes(decompose).items():
            if len(parts) > 1 and compose(parts) == chr(code) and len(first := compose(parts[:-1])) == 1:
                found[first, parts[-1]] = code
        firsts, seconds = (alphabet(["".join(pair[side] for pair in found)]) for side in (0, 1))
        if set(firsts) & set(seconds):
            raise NotKnownError(
                "normalizer: in this version of Unicode a character both takes in others and is taken in"
            )
        entries = np.array(sorted((firsts[a], seconds[b], code) for (a, b), code in found.items()), np.int64)
        pairs, places = SparseTable.of(entries[:, 0], entries[:, 1], len(firsts) + 1, len(seconds) + 1)
        composed = np.zeros(len(pairs.owner), np.int32)
        composed[places] = entries[:, 2]
        rows, columns = (PageTable.of(numbered(side), [0] * pseudo) for side in (firsts, seconds))
        return cls(Reordering.of(decompose, pseudo).classes, rows, columns, pairs, composed)

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        classes, seconds = self.classes(ops, codes), self.seconds(ops, codes)
        firsts, pseudo = self.firsts(ops, codes) > 0, codes >= END
        at = ops.nonzero(firsts & ((ops.next(classes, 0) > 0) | (ops.next(seconds, 0) > 0)))
        nothing = ops.fill(ops.size(codes), 0)

        def step(at: Tensor, next_: Tensor, last: Tensor, codes: Tensor, gone: Tensor) -> State:
            rank, code = classes[next_], codes[at]
            place, there = self.pairs(ops, self.firsts(ops, code), seconds[next_])
            taken = there & ((last < 1) | (last < rank)) & (seconds[next_] > 0)
            some = ops.nonzero(taken)
            codes = ops.scatter(codes, at[some], ops.constant(self.composed)[place[some]])
            gone = ops.scatter(gone, next_[some], ops.fill(ops.size(some), 1))
            last = ops.where(taken, last, rank)
            on = ops.nonzero((taken | (rank > 0)) & ~pseudo[next_])
            return at[on], next_[on] + 1, last[on], codes, gone

        begin = (at, at + 1, ops.fill(ops.size(at), 0), codes, nothing)
        *_, codes, gone = ops.loop(lambda at, *rest: ops.size(at) > 0, step, begin)
        return ops.compress(codes, gone < 1)


def numbered(numbers: Mapping[str, int]) -> np.ndarray:
    """Code point -> its number, 0 for others."""
    values = every()
    values[[ord(c) for c in numbers]] = list(numbers.values())
    return values


def classify(ask: Callable[[str], int], wholly: Callable[[str], int | None], default: int = 0) -> np.ndarray:
    """A class for every code point. `wholly(page)` may say that all characters of a page have one class."""
    values = every(default)
    for page in pages():
        same = wholly(page)
        first = ord(page[0])
        values[first : first + PAGE] = [ask(c) for c in page] if same is None else same
    return values


def alphabet(tokens: Sequence[str]) -> dict[str, int]:
    """The characters of a vocabulary, numbered from 1 on."""
    return {c: number for number, c in enumerate(sorted(set().union(*map(set, tokens))), 1)}
