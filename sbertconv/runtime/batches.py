"""Texts -> batches: the cores that compute them, and the cut that costs least."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.runtime.tokenization import Tensors, Tokens

Batch = tuple[np.ndarray, Tensors]  # the places of its texts, and what the graph takes
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
WINDOW = 1024  # texts that are tokenized together and then sorted by their tokens
TOKENS_PER_CORE = 512  # in one batch, padding included: more no longer fit into the core's cache
TOKENS_AT_ONCE = 2048  # in one batch, however many cores there are: it bounds the memory
TOKENS_ON_GPU = 16_384  # in one batch: fewer leave most of it idle; also what a plan of TensorRT takes
BATCH_COST = 16  # tokens that a core computes in the time that a batch takes whatever is in it (measured: 12 to 23)


def usable_cores() -> int:
    """The cores this process may use; engines' own counts ignore that it may be held to a few.

    A container's limit is in /sys/fs/cgroup, see https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_LIMIT.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def count_characters(item: Any) -> int:
    """The length that texts are sorted by before they are tokenized; that of a pair or of messages is all."""
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, tuple) else (item,)
    return sum(len(part) for part in parts if isinstance(part, str))


def chunks(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def prepared_ahead(
    chunks: Sequence[np.ndarray], prepare: Callable[[np.ndarray], Any]
) -> Iterator[tuple[np.ndarray, Any]]:
    """Each chunk with what is prepared of it; the next one is prepared while the caller works on this one."""
    with ThreadPoolExecutor(1) as worker:
        waiting = worker.submit(prepare, chunks[0])
        for chunk, following in zip(chunks, [*chunks[1:], None], strict=True):
            prepared = waiting.result()
            if following is not None:
                waiting = worker.submit(prepare, following)
            yield chunk, prepared


def cheapest_batches(lengths: Sequence[int], batch_size: int, tokens: int, cost: int) -> Iterator[list[int]]:
    """The places of the texts of each batch, the longest first, so that all batches together cost least.

    Args:
        lengths: of the texts, in tokens; at least 1.
        batch_size: texts in a batch, at most.
        tokens: in a batch, padding included, at most, unless one text is longer.
        cost: of a batch, in tokens, beside those that are in it.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    least, counts = [0] * (len(order) + 1), [0] * len(order)  # of the texts from each on
    for start in reversed(range(len(order))):
        longest = lengths[order[start]]
        most = max(1, min(batch_size, tokens // longest, len(order) - start))
        least[start], counts[start] = min(
            (longest * count + cost + least[start + count], count) for count in range(1, most + 1)
        )
    start = 0
    while start < len(order):
        yield order[start : start + counts[start]]
        start += counts[start]


@dataclass(frozen=True)
class Room:
    """What batches are cut by.

    Attributes:
        tokens: in a batch, padding included, at most, unless one text is longer.
        cost: of a batch, in tokens, beside those that are in it.
        parallel: batches that run at once.
    """

    tokens: int
    cost: int
    parallel: int


def token_batches(
    order: np.ndarray, batch_size: int, tokenize: Callable[[np.ndarray], list[Tokens]], room: Room | None
) -> Iterator[tuple[np.ndarray, list[Tokens]]]:
    """Places and tokens of each batch: many texts are tokenized, and then sorted by their tokens, so that hardly
    anything is padding.

    Args:
        order: the places of the texts, the longest first.
        batch_size: texts in a batch, at most.
        tokenize: gives the tokens of the texts at some places.
        room: None: the batches are the library's, in this order and of this size.
    """
    size = batch_size if room is None else max(WINDOW, batch_size)
    for chosen, rows in prepared_ahead(chunks(order, size), tokenize):
        if room is None:
            yield chosen, rows
            continue
        share = -(-len(rows) // room.parallel)  # of few texts, every core gets some
        lengths = [max(len(ids), 1) for ids, _ in rows]
        for places in cheapest_batches(lengths, min(batch_size, share), room.tokens, room.cost):
            yield chosen[places], [rows[place] for place in places]


def answered(
    run: Callable[[Tensors], Tensors], batches: Iterator[Batch], parallel: int
) -> Iterator[tuple[Batch, Tensors]]:
    """Each batch with what a graph gives for it, in order; so many run at once."""
    if parallel == 1:
        for batch in batches:
            yield batch, run(batch[1])
        return
    with ThreadPoolExecutor(parallel) as pool:
        running: deque[tuple[Batch, Future[Tensors]]] = deque()
        for batch in batches:
            running.append((batch, pool.submit(run, batch[1])))
            if len(running) > parallel:  # one waits, so that no core does
                done, answer = running.popleft()
                yield done, answer.result()
        for done, answer in running:
            yield done, answer.result()
