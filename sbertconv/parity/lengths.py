"""The lengths that texts are asked at: a model may change what it does beyond any number that its config names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, cycle, islice
from typing import Any

from sbertconv.corpus.texts import sentences

LONGEST_BATCH = 1024  # tokens of the longest text that is put over the limit, in one batch with short ones
LONGEST_FORWARD = 4096  # tokens; beyond it a text is compared if a budget is given, as memory grows with its square
LONG = 512  # tokens, where nothing says how long a text may be
FILLER = "a"  # the word that is one token wherever any is
SHORT = 16  # tokens; up to it every length is asked
ALL_TOKENS = 16_384  # of all the texts together, which bounds the time of a large model


def whole_numbers(content: Any) -> Iterator[int]:
    """Every whole number anywhere in nested dicts and lists, whatever its key."""
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, (list, tuple, set)):
        for item in content:
            yield from whole_numbers(item)
    elif isinstance(content, int) and not isinstance(content, bool):
        yield content


def asked_limit(limit: int | None, numbers: Iterable[int]) -> int:
    """The limit in tokens; without one, a length that reaches every number of the config that a forward can."""
    return max([LONG, *(number for number in numbers if number <= LONGEST_FORWARD)]) if limit is None else limit


def lengths_to_ask(limit: int, numbers: Iterable[int], together: int | None = ALL_TOKENS) -> list[int]:
    """Lengths in tokens, ascending: 1 to 16, the limit and one less, every number of the config with the lengths beside
    it, and powers of two. The more telling ones are chosen first, until they have so many tokens together.

    Args:
        limit: the longest text that is asked.
        numbers: whole numbers of the model's config.
        together: tokens of all of them; None: as many as there are.
    """
    named = sorted({number for number in numbers if SHORT < number < limit}, reverse=True)
    powers = [2**power for power in range(limit.bit_length())]
    wanted = [*range(1, SHORT + 1), limit, limit - 1, *named]
    wanted += [number + step for step in (1, -1) for number in named] + powers
    found = dict.fromkeys(length for length in wanted if 0 < length <= limit)
    sums = zip(found, accumulate(found), strict=True)
    return sorted(length for length, total in sums if together is None or total <= together or length == limit)


def texts_of_lengths(lengths: Iterable[int], count: Callable[[str], int]) -> dict[int, str]:
    """Number of tokens -> a text with so many, ascending: of each length that words can make, or else of the next
    smaller one.

    Args:
        lengths: in tokens, ascending.
        count: text -> its number of tokens, which grows with the words of a text.
    """
    lengths = list(lengths)
    words = list(islice(cycle(word for sentence in sentences() for word in sentence.split()), max(lengths)))
    found: dict[int, str] = {}
    taken = 0  # words of the text before, which is shorter
    for length in lengths:
        most = min(length, len(words))  # a word is a token at least
        beyond = bisect_right(range(most + 1), length, lo=taken, key=lambda number: count(" ".join(words[:number])))
        taken = max(taken, beyond - 1)
        text = " ".join(words[:taken])
        made = count(text)
        filled = " ".join([*words[:taken], *[FILLER] * (length - made)])
        made, text = (length, filled) if made < length == count(filled) else (made, text)
        found.setdefault(made, text)
    return found
