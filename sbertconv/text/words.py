"""The regular expressions that cut texts into words for byte-level BPE, as lengths of runs of classes of characters.

Whatever matches at each place is computed for all places; from the begin of a piece one match leads to the next. Each
alternative of the expressions below takes whole runs, or a run and one character, so nothing has to be tried twice. No
match leaves the piece that it begins in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from sbertconv.text.characters import alphabet, classify, numbered
from sbertconv.text.components import real
from sbertconv.text.operations import INT, Operations, Tensor
from sbertconv.text.tables import PageTable, Trie, reachable

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}<digits>| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LITERALS = ("<|startoftext|>", "<|endoftext|>")
CLIP = (
    "".join(text.replace("|", r"\|") + "|" for text in LITERALS)
    + r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


@dataclass(frozen=True)
class Family:
    """What sets one expression apart from the others.

    Attributes:
        wide: any character but a newline may stand before letters, and newlines belong to what is before them.
        blank: a blank may stand before letters, numbers and others.
        digits: how many make a number; 0: all.
        literals: texts that are words before all else.
        removed: what matches are the words, and white space, which does not, goes.
    """

    wide: bool = False
    blank: bool = True
    digits: int = 0
    literals: tuple[str, ...] = ()
    removed: bool = False


EXPRESSIONS = {
    GPT_2: Family(),
    CL100K.replace("<digits>", ""): Family(wide=True, digits=1),
    CL100K.replace("<digits>", "{1,3}"): Family(wide=True, digits=3),
    CLIP: Family(blank=False, digits=1, literals=LITERALS, removed=True),
}
OTHER, LETTER, NUMBER, SPACE, PSEUDO = range(5)
PATTERNS = {LETTER: r"\p{L}", NUMBER: r"\p{N}", SPACE: r"\s"}
ENDINGS = ("s", "t", "m", "d"), ("re", "ve", "ll")  # after an apostrophe
APOSTROPHE, BLANK, NEWLINES = ord("'"), ord(" "), (ord("\r"), ord("\n"))


@cache
def matching(pattern: str) -> np.ndarray:
    """1 for every code point that the library's expression matches, else 0."""
    component = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": False}
    split = real("pre_tokenizer", component).pre_tokenize_str
    return classify(
        lambda c: int(not split(c)),
        lambda page: {(page,): 0, (): 1}.get(tuple(word for word, _ in split(page))),
    )


@dataclass(frozen=True)
class WordExpression:
    """Cuts pieces of text where an expression of the table does.

    Attributes:
        classes: code point -> OTHER, LETTER, NUMBER, SPACE or PSEUDO.
        endings: code point -> the letter of ENDINGS that it is, numbered from 1 on, or 0.
        letters: these letters.
        family: which expression.
        inside: code point -> its number in the trie.
        literals: the family's, or None.
    """

    classes: PageTable
    endings: PageTable
    letters: str
    family: Family
    inside: PageTable | None
    literals: Trie | None

    @classmethod
    def of(cls, expression: str, pseudo: int) -> WordExpression:
        family = EXPRESSIONS[expression]
        classes = sum(number * matching(pattern) for number, pattern in PATTERNS.items())
        letters = "".join(sorted(set("".join(sum(ENDINGS, ())))))
        same = [matching(f"(?i:{c})" if family.wide else c) for c in letters]
        endings = sum(number * found for number, found in enumerate(same, 1))
        numbers = alphabet(family.literals)
        literals = Trie.of((0, [numbers[c] for c in text], n) for n, text in enumerate(family.literals))
        return cls(
            PageTable.of(np.asarray(classes), [PSEUDO] * pseudo),
            PageTable.of(np.asarray(endings), [0] * pseudo),
            letters,
            family,
            PageTable.of(numbered(numbers), [0] * pseudo) if numbers else None,
            literals if numbers else None,
        )

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        classes = self.classes(ops, codes)
        size = ops.size(codes)
        places, last = ops.range(size), size - 1
        change = starts | (classes != ops.previous(classes, -1))
        ends = ops.concat([ops.nonzero(change)[1:], ops.reshape(size, [1])])[ops.cumsum(change.number) - 1]  # of runs
        following, ends_after = ops.where(ops.next(starts, True), PSEUDO, ops.next(classes, PSEUDO)), ops.next(ends, 0)
        blank, spaces = codes == BLANK, classes == SPACE
        # White space leaves its last character to what comes next, if anything does.
        closing = starts[ops.apply("min", [ends, last], INT)]
        short = ops.apply("max", [ends - 1, places + 1], INT)
        match = ops.where(spaces & ~closing, short, ends)
        if self.family.wide:
            newline = (codes == NEWLINES[0]) | (codes == NEWLINES[1])
            count = ops.cumsum(newline.number)[ends - 1]
            final = ops.concat([ops.constant([-1]), ops.nonzero(newline)])[count]  # the last newline of white space
            match = ops.where(spaces & (final >= places), final + 1, match)
            solid = ops.nonzero(~newline)
            number = ops.apply("min", [ops.cumsum((~newline).number), ops.size(solid) - 1], INT)
            behind = ops.apply("max", [solid[number][ends - 1], ends], INT)  # the run and the newlines after it
            match = ops.where(classes == OTHER, behind, match)
            match = ops.where(blank & (following == OTHER), ops.next(behind, 0), match)
            ahead = ((classes == OTHER) | spaces) & ~newline & (following == LETTER)
            match = ops.where(ahead, ends_after, match)
        elif self.family.blank:
            ahead = blank & ((following == LETTER) | (following == NUMBER) | (following == OTHER))
            match = ops.where(ahead, ends_after, match)
        if self.family.digits:
            some = ops.apply("min", [ends, places + self.family.digits], INT)
            match = ops.where(classes == NUMBER, some, match)
        first = ops.nonzero(starts)
        pieces = ops.concat([first[1:], ops.reshape(size, [1])])[ops.cumsum(starts.number) - 1]  # where each ends
        match = self._contracted(ops, codes, places, match, pieces)
        if self.literals is not None and self.inside is not None:
            roots = ops.fill(size, self.literals.root(0))
            lengths, _ = self.literals.longest(ops, self.inside(ops, codes), roots, starts)
            match = ops.where(lengths > 0, places + lengths, match)
        match = ops.apply("min", [match, pieces], INT)
        final_match = starts[ops.apply("min", [match, last], INT)]
        starts = reachable(ops, starts, ops.where(final_match | (classes == PSEUDO), places, match))
        if self.family.removed:
            kept = ~spaces
            return ops.compress(codes, kept), ops.compress(starts, kept)
        return codes, starts

    def _contracted(self, ops: Operations, codes: Tensor, places: Tensor, match: Tensor, pieces: Tensor) -> Tensor:
        """An apostrophe and its ending, in the same piece, win over everything else."""
        one = self.endings(ops, codes)
        first, second = ops.next(one, 0), ops.next(ops.next(one, 0), 0)
        mark = codes == APOSTROPHE
        for length, endings in enumerate(ENDINGS, 2):
            for ending in endings:
                numbers = [self.letters.index(c) + 1 for c in ending]
                hit = mark & (first == numbers[0])
                hit = hit & (second == numbers[1]) if length > 2 else hit
                match = ops.where(hit & (places + length <= pieces), places + length, match)
        return match
