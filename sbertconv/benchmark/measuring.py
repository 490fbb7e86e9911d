"""How everything here is measured: the texts, the order of turns, the cores, and what the figures hold for."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import math
import os
import platform
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sbertconv.runtime.batches import usable_cores
from sbertconv.runtime.cpus import cpu_name

BUSY = 0.5  # load average per core before anything is measured
PACKAGES = (
    "sbertconv", "torch", "sentence-transformers", "transformers", "onnxruntime", "openvino", "onnx", "onnxscript",
    "keras", "tensorflow-cpu", "tensorflow",
)  # fmt: skip


@functools.cache
def words() -> list[str]:
    """The words of the English prose in the Python manual (pydoc's topics), in order."""
    from pydoc_data.topics import topics

    paragraphs = (" ".join(text.split()) for topic in sorted(topics) for text in topics[topic].split("\n\n"))
    prose = (text for text in paragraphs if re.fullmatch(r"[A-Z][a-z]* [\w\s,;:.?!'\"()-]+[.?!]", text))
    return " ".join(prose).split()


MANY = 1000  # texts; so many stand for any collection


def mixed_texts(count: int, batch_size: int = 32) -> list[str]:
    """Texts of 3 to 260 words, most of them short, cut out of the prose; the same ones every time.

    encode() fills its batches with neighbours in length. Among few texts neighbours lie far apart, and batches are
    mostly padding; fewer than a thousand are therefore whole batches out of a thousand.
    """
    chance = random.Random(0)
    lengths = [min(max(round(chance.lognormvariate(3.2, 0.9)), 3), 260) for _ in range(max(count, MANY))]
    starts = [chance.randrange(len(words()) - length) for length in lengths]
    texts = [" ".join(words()[start : start + length]) for start, length in zip(starts, lengths, strict=True)]
    if count >= MANY:
        return texts
    texts.sort(key=len, reverse=True)
    size = min(batch_size, count)
    batches = math.ceil(count / size)
    places = [int((batch + 0.5) * MANY / batches - size / 2) for batch in range(batches)]
    return [text for place in places for text in texts[max(0, place) :][:size]][:count]


def texts_of(tokens: int, count: int, count_tokens: Callable[[str], int]) -> list[str]:
    """Different texts of as many tokens each, or as near to it from below as words allow."""
    chance, found = random.Random(tokens), []
    for _ in range(count):
        start = chance.randrange(len(words()) - tokens)
        text = words()[start]
        low, high = 1, tokens  # a text of `low` words is short enough, one of more than `high` is not
        while low < high:
            middle = (low + high + 1) // 2
            candidate = " ".join(words()[start : start + middle])
            if count_tokens(candidate) <= tokens:
                low, text = middle, candidate
            else:
                high = middle - 1
        while count_tokens(text) < count_tokens(longer := f"{text} a") <= tokens:
            text = longer
        found.append(text)
    return found


def alternate(rounds: int, *works: Callable[[], Any]) -> Iterator[tuple[Any, ...]]:
    """The results of all works, once per round; the next one begins every round."""
    for number in range(rounds):
        order = [(number + offset) % len(works) for offset in range(len(works))]
        results = {index: works[index]() for index in order}
        yield tuple(results[index] for index in range(len(works)))


OnStep = Callable[[str, int, int], None]  # what starts now, how many steps are done, how many there are


@dataclass
class Steps:
    """The steps of a run, told as each begins and ends.

    Attributes:
        on_step: called with the name of the step, how many are done, and how many there are.
        total: how many there are.
        done: how many are done.
    """

    on_step: OnStep
    total: int = 0
    done: int = 0

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Do one, and give its result."""
        self.on_step(name, self.done, self.total)
        result = work()
        self.done += 1
        self.on_step(name, self.done, self.total)
        return result


def hold_to(cores: int) -> None:
    """Keep this process on so many of its cores; libraries that count them start as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def machine() -> dict[str, Any]:
    """What figures hold for: date, CPU, usable cores, memory in GiB, load average, and versions by package."""
    memory = None
    with contextlib.suppress(ValueError, AttributeError):  # a name that this system does not have
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "memory_gib": memory,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def described(facts: dict[str, Any]) -> list[str]:
    """`machine()` in sentences, and why there are no ratios if something else was running."""
    memory = f", {facts['memory_gib']} GiB" if facts["memory_gib"] else ""
    lines = [
        f"{facts['date']} · {facts['cpu']}, {facts['cores']} cores{memory}",
        " · ".join(f"{name} {version}" for name, version in facts["versions"].items()),
    ]
    if is_busy(facts):
        lines.append(
            f"The machine was busy (load {facts['load']:.1f} at the start): wall times mean little, and no ratio of "
            "them is told. Run it again when it is quiet."
        )
    return lines


def is_busy(facts: dict[str, Any]) -> bool:
    """Whether something else was running at the start, so that nothing can be said about who is faster."""
    return bool((facts["load"] or 0) > BUSY * facts["cores"])
