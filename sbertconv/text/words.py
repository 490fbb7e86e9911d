"""The regular expressions that cut texts into words for byte-level BPE, as lengths of runs of classes of characters.

Whatever matches at each place is computed for all places; from the begin of a piece one match leads to the next. Each
alternative of the expressions below takes whole runs, or a run and one character, so nothing has to be tried twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from sbertconv.text.characters import classify
from sbertconv.text.components import real
from sbertconv.text.operations import INT, Operations, Tensor
from sbertconv.text.tables import PageTable, reachable

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}<digits>| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# expression -> whether it is of the second family, and how many digits make a number there
EXPRESSIONS = {
    GPT_2: (False, 0),
    CL100K.replace("<digits>", ""): (True, 1),
    CL100K.replace("<digits>", "{1,3}"): (True, 3),
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
        wide: whether any character but a newline may stand before letters, numbers are cut into `digits`, and newlines
            belong to what is before them.
        digits: see there.
    """

    classes: PageTable
    endings: PageTable
    letters: str
    wide: bool
    digits: int

    @classmethod
    def of(cls, expression: str, pseudo: int) -> WordExpression:
        wide, digits = EXPRESSIONS[expression]
        classes = sum(number * matching(pattern) for number, pattern in PATTERNS.items())
        letters = "".join(sorted(set("".join(sum(ENDINGS, ())))))
        same = [matching(f"(?i:{c})" if wide else c) for c in letters]
        endings = sum(number * found for number, found in enumerate(same, 1))
        return cls(
            PageTable.of(np.asarray(classes), [PSEUDO] * pseudo),
            PageTable.of(np.asarray(endings), [0] * pseudo),
            letters,
            wide,
            digits,
        )

    def __call__(self, ops: Operations, codes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        classes = self.classes(ops, codes)
        size = ops.size(codes)
        places, last = ops.range(size), size - 1
        change = classes != ops.previous(classes, -1)
        ends = ops.concat([ops.nonzero(change)[1:], ops.reshape(size, [1])])[ops.cumsum(change.number) - 1]  # of runs
        following, ends_after = ops.next(classes, PSEUDO), ops.next(ends, 0)
        blank, spaces = codes == BLANK, classes == SPACE
        # White space leaves its last character to what comes next, if anything does.
        closing = classes[ops.apply("min", [ends, last], INT)] == PSEUDO
        short = ops.apply("max", [ends - 1, places + 1], INT)
        match = ops.where(spaces & ~closing, short, ends)
        if self.wide:
            newline = (codes == NEWLINES[0]) | (codes == NEWLINES[1])
            count = ops.cumsum(newline.number)[ends - 1]
            final = ops.concat([ops.constant([-1]), ops.nonzero(newline)])[count]  # the last newline of white space
            match = ops.where(spaces & (final >= places), final + 1, match)
            solid = ops.nonzero(~newline)
            number = ops.apply("min", [ops.cumsum((~newline).number), ops.size(solid) - 1], INT)
            behind = ops.apply("max", [solid[number][ends - 1], ends], INT)  # the run and the newlines after it
            match = ops.where(classes == OTHER, behind, match)
            match = ops.where(blank & (following == OTHER), ops.next(behind, 0), match)
            match = ops.where(classes == NUMBER, ops.apply("min", [ends, places + self.digits], INT), match)
            ahead = ((classes == OTHER) | spaces) & ~newline & (following == LETTER)
        else:
            ahead = blank & ((following == LETTER) | (following == NUMBER) | (following == OTHER))
        match = self._contracted(ops, codes, places, ops.where(ahead, ends_after, match))
        final_match = classes[ops.apply("min", [match, last], INT)] == PSEUDO
        return codes, reachable(ops, starts, ops.where(final_match | (classes == PSEUDO), places, match))

    def _contracted(self, ops: Operations, codes: Tensor, places: Tensor, match: Tensor) -> Tensor:
        """An apostrophe and its ending win over everything else."""
        one = self.endings(ops, codes)
        first, second = ops.next(one, 0), ops.next(ops.next(one, 0), 0)
        mark = codes == APOSTROPHE
        for length, endings in enumerate(ENDINGS, 2):
            for ending in endings:
                numbers = [self.letters.index(c) + 1 for c in ending]
                hit = mark & (first == numbers[0])
                hit = hit & (second == numbers[1]) if length > 2 else hit
                match = ops.where(hit, places + length, match)
        return match
