"""How long a text can be compared in the time that there is: a folder is proven up to there, and cut there."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from sbertconv.artifact.scoring import TASKS
from sbertconv.corpus.texts import CORPUS
from sbertconv.errors import UnsupportedOptionError
from sbertconv.parity.lengths import LONG, LONGEST_FORWARD, asked_limit, lengths_to_ask, texts_of_lengths
from sbertconv.parity.questions import ALONE, COMPANY, Question, Side, answering, ask, profiled

if TYPE_CHECKING:
    from sbertconv.runtime.graph import Graph
    from sbertconv.runtime.model import ConvertedModel

LEAST = 60.0  # seconds, where the conversion took less
FIRST = 64  # tokens of the first text whose time is taken
SIDES = 2  # the original and one format of the folder
AGAIN = 0.5  # seconds; a shorter time is taken again, because the first call prepares things


def proven_length(original: Side, embedder: ConvertedModel, budget: float | None, spent: float = 0.0) -> int | None:
    """The number of tokens up to which texts can be compared; None: there is no limit, and no length that matters.

    Args:
        original: a model in float32 on the CPU.
        embedder: the converted folder; its tokenizers and its manifest decide on the lengths. It does not run.
        budget: seconds that the comparison of all lengths may take; None: as long as the conversion, at least `LEAST`,
            and no text of more than `LONGEST_FORWARD` tokens; a limit up to `LONG` is compared in any case.
        spent: seconds that the conversion took so far.
    """
    seconds, longest = (max(spent, LEAST), [LONGEST_FORWARD]) if budget is None else (budget, [])
    numbers = original.numbers()
    whole: list[int] = []
    cut: list[int] = []
    for graph in embedder.graphs:
        if graph.section["modality"] != "text":
            continue
        limit = _limit(graph)
        if limit is None and not numbers:  # words that are looked up and pooled are no different in a long text
            continue
        most = min([asked_limit(limit, numbers), *profiled(graph), *longest])
        anyway = most if budget is None and most <= LONG else 0
        fits = anyway or _fitting(original, embedder, graph, most, seconds)
        (cut if limit is None or fits < limit else whole).append(fits)
    return min(cut) if cut else max(whole, default=None)


def cut_note(embedder: ConvertedModel, proven: int | None) -> str | None:
    """What to say of a folder that is not proven up to its limit.

    Raises:
        UnsupportedOptionError: if its graphs cut texts by themselves, at that limit.
    """
    limits = [_limit(graph) for graph in embedder.graphs if graph.section["modality"] == "text"]
    limit = None if None in limits else max((limit for limit in limits if limit is not None), default=0)
    if proven is None or (limit is not None and limit <= proven):
        return None
    own = "has no limit" if limit is None else f"has a limit of {limit} tokens"
    if embedder.artifact.manifest.get("text_input"):
        raise UnsupportedOptionError(
            f"text input: the model {own}, and texts can be compared up to {proven} in the time that there is; a graph "
            "with its tokenizer inside would take longer ones.\n"
            "Give more seconds with proof_budget=, or lower the model's max_seq_length."
        )
    return (
        f"Proven up to {proven} tokens, and the model {own}: longer texts are cut there, unless the folder is loaded "
        "with beyond_proof=True. More seconds with proof_budget= prove more."
    )


def _limit(graph: Graph) -> int | None:
    """The largest of a graph's limits in tokens, if every text is cut somewhere."""
    limits = [graph.tokenizer.max_length(task) for task in (None, *TASKS)]
    return None if None in limits else max(limit for limit in limits if limit is not None)


def _fitting(original: Side, embedder: ConvertedModel, graph: Graph, most: int, seconds: float) -> int:
    """The longest of the lengths up to `most` whose comparison takes so many seconds; at least that of the corpus,
    which is compared in any case.
    """
    from sbertconv.parity.kinds import CLASS_PARITY

    kind = CLASS_PARITY[embedder.artifact.manifest["model_class"]]
    asked = kind.questions("", graph, original, embedder)
    alone = next(question for question in asked if question.name.endswith(ALONE))
    first = None if isinstance(alone.inputs[0], str) else alone.inputs[0][0]

    def item(text: str) -> str | tuple[str, str]:
        return text if first is None else (first, text)

    def count(text: str) -> int:
        return int(embedder.tokenize([item(text)], alone.task)["input_ids"].shape[1])

    def seconds_of(length: int) -> float:
        text = item(next(iter(texts_of_lengths([length], count).values())))
        took = _timed(original, replace(alone, inputs=[text]))
        return took if took > AGAIN else min(took, _timed(original, replace(alone, inputs=[text])))

    least = min(most, max(map(count, CORPUS)))
    with answering(embedder):
        fitting = fitting_length(most, original.numbers(), seconds_of, seconds)
    return max(least, fitting)


def _timed(original: Side, question: Question) -> float:
    start = time.monotonic()
    ask(original, question)
    return time.monotonic() - start


def fitting_length(most: int, numbers: Collection[int], seconds_of: Callable[[int], float], seconds: float) -> int:
    """The longest of 64, 128, ... and `most` whose ladder can be compared in time; 0 if none can.

    Args:
        most: tokens of the longest text.
        numbers: whole numbers of the model's config.
        seconds_of: tokens of a text -> what the original takes for it; asked at growing lengths, and no further than
            is needed.
        seconds: for all of them.
    """
    best, length = 0, min(FIRST, most)
    while True:
        took = seconds_of(length)
        if _seconds(length, numbers, length, took) > seconds:
            return best
        if length == most or _seconds(most, numbers, length, took) <= seconds:
            return most
        best, length = length, min(2 * length, most)


def _seconds(most: int, numbers: Collection[int], measured: int, took: float) -> float:
    """An estimate for the ladder up to `most`: alone and in company, on both sides, from the time of one text. Beyond
    that text time grows with the square of the length at most.
    """
    shares = (length / measured for length in lengths_to_ask(most, numbers))
    return SIDES * (1 + COMPANY) * took * sum(max(share, share**2) for share in shares)
