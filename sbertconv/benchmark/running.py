"""One run: who takes part, what each is asked in turn, and the figures that come of it."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sbertconv.artifact.folder import folder_name
from sbertconv.benchmark.contestants import Contestant, Worker, contestants_of, original
from sbertconv.benchmark.measuring import OnStep, Steps, alternate, machine, mixed_texts
from sbertconv.benchmark.report import BenchReport, Figure, figures
from sbertconv.errors import ArtifactError, UnsupportedOptionError
from sbertconv.options import verb
from sbertconv.runtime.batches import usable_cores
from sbertconv.runtime.similarity import normalize

if TYPE_CHECKING:
    import sbertconv.keywords as keywords
    from sbertconv.source.opening import Source

UNRELATED = 0.5  # a smallest cosine below this is no matter of precision
MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """How much is measured; positive integers.

    Attributes:
        rounds: turns of every contestant after the warm-up.
        batch_sizes: texts per batch. The largest is also that of the texts of mixed lengths, and how many texts of
            each length are encoded in a turn.
        lengths: tokens per text, special ones included; what the model would cut is left out.
        texts: how many of mixed lengths.
        calls: of encode() on one text, in a turn, for the latency.
    """

    rounds: int = 3
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    lengths: tuple[int, ...] = (16, 64, 256)
    texts: int = 1000
    calls: int = 30

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            numbers = np.atleast_1d(np.asarray(value))
            if not numbers.size or numbers.dtype.kind not in "iu" or numbers.min() < 1:
                raise UnsupportedOptionError(f"{name} {value} is not possible (have: positive integers).\nPass these.")


QUICK = Settings(rounds=1, batch_sizes=(1, 4), lengths=(8, 16), texts=32, calls=5)


@dataclass(frozen=True)
class Task:
    """What every contestant does in turn, and how figures are read from the seconds that its calls took.

    Attributes:
        read: quantity -> value of one turn, from its seconds and the machine's limit in operations per second.
        place: length and batch_size of the figures.
    """

    name: str
    texts: Sequence[str]
    batch_size: int
    calls: int
    read: Mapping[str, Callable[[Sequence[float], float], float]]
    place: Mapping[str, int]


def throughput(name: str, texts: Sequence[str], tokens: int, operations: float, place: Mapping[str, int]) -> Task:
    """Texts, tokens and the share of the limit, from one call for all texts."""
    return Task(
        name,
        texts,
        place["batch_size"],
        1,
        {
            "texts_per_second": lambda seconds, limit: len(texts) / seconds[0],
            "tokens_per_second": lambda seconds, limit: tokens / seconds[0],
            "share_of_limit": lambda seconds, limit: 100 * operations / seconds[0] / limit,
        },
        place,
    )


def latency(name: str, text: str, calls: int, place: Mapping[str, int]) -> Task:
    """Median and 95th percentile of many calls on one text."""
    read = {
        "latency_p50": lambda seconds, limit: 1000 * float(np.percentile(seconds, 50)),
        "latency_p95": lambda seconds, limit: 1000 * float(np.percentile(seconds, 95)),
    }
    return Task(name, [text], 1, calls, read, place)


@verb
def benchmark(
    model: str | Path,
    artifacts: Sequence[str | Path] = (),
    *,
    settings: Settings = Settings(),
    threads: int | None = None,
    on_step: OnStep = lambda name, done, total: None,
    **options: Unpack[keywords.Benchmark],
) -> BenchReport:
    """Measure a model's encode() and its conversions in one run, every one in a process of its own.

    Args:
        model: a Hub id or a folder; loaded in float32.
        artifacts: converted folders or .keras files; every format of each takes part.
        settings: how much is measured.
        threads: cores, and threads, of every process; default and at most those this process may use.
        {options}
        on_step: called as each turn starts.

    Returns:
        Every figure: absolute, ratio to PyTorch in the same run, and the rounds' own values.

    Raises:
        SourceError: if the model cannot be read, or its process died.
        ArtifactError: if a folder is missing, is of another model (another dimension), or its process died.
        UnsupportedOptionError: for impossible settings or threads.
    """
    from sbertconv.source.opening import open_source

    _check_types(settings, artifacts, threads)
    source = open_source(model, **options)
    threads = usable_cores() if threads is None else threads
    if not 1 <= threads <= usable_cores():
        raise UnsupportedOptionError(
            f"threads {threads} is not possible (have: 1 to {usable_cores()} cores).\nPass one of these."
        )
    contestants = [original(source), *contestants_of(artifacts, threads)]
    facts = machine()  # before anything runs
    with contextlib.ExitStack() as stack:
        return Run(source, contestants, settings, threads, on_step, stack).report(facts)


def _check_types(settings: object, artifacts: object, threads: object) -> None:
    """Raise UnsupportedOptionError for arguments of other types than benchmark()'s."""
    for name, value, fits, due in (
        ("settings", settings, isinstance(settings, Settings), "Settings"),
        (
            "artifacts",
            artifacts,
            isinstance(artifacts, Iterable) and not isinstance(artifacts, str),
            "a list of folders",
        ),
        ("threads", threads, isinstance(threads, (int, type(None))), "a whole number, None"),
    ):
        if not fits:
            raise UnsupportedOptionError(
                f"{name}={value!r:.60} is {type(value).__name__} (have: {due}).\nPass one of these."
            )


class Run:
    """The processes of one run, alive together, and how far it has come."""

    def __init__(
        self,
        source: Source,
        contestants: Sequence[Contestant],
        settings: Settings,
        threads: int,
        on_step: OnStep,
        stack: contextlib.ExitStack,
    ) -> None:
        self.source = source
        self.contestants = contestants
        self.settings = settings
        self.threads = threads
        self.step = Steps(on_step)
        self.stack = stack
        self.notes: list[str] = []

    @property
    def names(self) -> list[str]:
        return [contestant.name for contestant in self.contestants]

    def report(self, facts: dict[str, Any]) -> BenchReport:
        """Measure everything."""
        settings, turns = self.settings, self.settings.rounds + 1
        cells = len(settings.lengths) * (1 + len(settings.batch_sizes))
        count = len(self.contestants)
        self.step.total = count * (2 + settings.rounds) + (count * turns + 1) * (1 + cells)
        self.workers = [self._start(contestant) for contestant in self.contestants]
        matmul = self.stack.enter_context(Worker(None, self.threads))
        measure_limit = partial(self.step, matmul.name, partial(matmul.ask, "matmul_rate"))
        found = [*self._quality(), *self._first_embedding()]
        tokens, flops, tasks = self._tasks()
        self.step.total = self.step.done + (count * turns + 1) * len(tasks)  # lengths that the model would cut are gone
        results, limit = [], 0.0
        for task in tasks:
            limit = max(limit, measure_limit())
            results.append((task, self._in_turns(task, turns)))
        for task, rounds in results:
            for quantity, read in task.read.items():
                values = [[read(seconds, limit) for seconds in turn] for turn in rounds]
                found += figures(quantity, self.names, values, **task.place)
        peaks = [worker.ask("peak_memory") / MIB for worker in self.workers]
        found += figures("peak_memory", self.names, [peaks])
        found += figures("size_on_disk", self.names, [[contestant.size() / MIB for contestant in self.contestants]])
        return BenchReport(
            self._model_name(),
            facts,
            self.threads,
            limit,
            tuple(flops),
            {**asdict(settings), "mean_tokens": statistics.mean(tokens)},
            tuple(
                {"name": one.name, "path": one.path, "format": one.format, "precision": one.precision}
                for one in self.contestants
            ),
            tuple(found),
            tuple(self.notes),
        )

    def _model_name(self) -> str:
        """A Hub id as it is; a folder without the way to it, which is nobody's business in a report."""
        path = Path(self.source.name).expanduser()
        return folder_name(path) if path.exists() else self.source.name

    def _start(self, contestant: Contestant) -> Worker:
        """A process that stays; its dimension is that of the first, which is PyTorch's."""
        name = f"{contestant.name}: loading"
        worker: Worker = self.step(name, lambda: self.stack.enter_context(Worker(contestant, self.threads)))
        if contestant is self.contestants[0]:
            self.dimension = worker.dimension
        if worker.dimension != self.dimension:
            raise ArtifactError(
                f"{contestant.path}: answers of {worker.dimension} dimensions, those of {self.source.name} have "
                f"{self.dimension}: it was converted from another model.\nGive the folder of this model's conversion."
            )
        return worker

    def _quality(self) -> Iterator[Figure]:
        """The smallest cosine of each one's vectors with PyTorch's; of logits, each label's less their mean are one."""
        batch_size = max(self.settings.batch_sizes)
        texts = mixed_texts(self.settings.texts, batch_size)
        vectors = []
        with tempfile.TemporaryDirectory(prefix="sbertconv-") as folder:
            path = Path(folder) / "vectors.npy"
            for worker in self.workers:
                ask = partial(worker.ask, "vectors", texts=texts, batch_size=batch_size, path=str(path))
                self.step(f"{worker.name}: quality", ask)
                found = np.load(path).astype(np.float64)
                scored = self.source.model_class.method == "predict"
                vectors.append(normalize((found - found.mean(axis=0)).T if scored else found))
                if len(vectors[-1]) != len(vectors[0]):
                    raise ArtifactError(
                        f"{worker.name}: {len(vectors[-1])} vectors where PyTorch gives {len(vectors[0])}: "
                        "other tokens count, or were pooled.\nRun sbertconv verify, or leave this one out."
                    )
        cosines = [float((vectors[0] * ours).sum(axis=1).min()) for ours in vectors]
        for name, cosine in zip(self.names, cosines, strict=True):
            if cosine < UNRELATED:
                self.notes.append(
                    f"{name}: its answers have nothing to do with PyTorch's (smallest cosine {cosine:.3f}); "
                    "was it converted from another model?"
                )
        return figures("min_cosine", self.names, [cosines])

    def _first_embedding(self) -> Iterator[Figure]:
        """Fresh processes; those that stay have warmed the disk's cache."""

        def measure(contestant: Contestant) -> float:
            with Worker(contestant, self.threads) as worker:
                return worker.first_embedding

        works = [
            partial(self.step, f"{contestant.name}: first embedding", partial(measure, contestant))
            for contestant in self.contestants
        ]
        return figures("first_embedding", self.names, list(alternate(self.settings.rounds, *works)))

    def _tasks(self) -> tuple[list[int], list[float], list[Task]]:
        """Tokens of each mixed text, the polynomial of a text's operations, and all tasks."""
        settings, pytorch = self.settings, self.workers[0]
        limit, flops = pytorch.ask("limit"), pytorch.ask("flops")
        (shortest,) = pytorch.ask("count_tokens", texts=["a"])
        lengths = [length for length in settings.lengths if limit is None or length <= limit] or [limit]
        if len(lengths) < len(settings.lengths):
            self.notes.append(f"The model cuts texts at {limit} tokens; longer ones are left out.")
        if below := [length for length in lengths if length < shortest]:
            self.notes.append(f"No input has fewer than {shortest} tokens; shorter ones are left out.")
            lengths = [length for length in lengths if length not in below] or [shortest]

        def operations(tokens: Sequence[int]) -> float:
            return float(np.polyval(flops, tokens).sum())

        largest = max(settings.batch_sizes)
        texts = mixed_texts(settings.texts, largest)
        tokens = pytorch.ask("count_tokens", texts=texts)
        place = {"batch_size": largest}
        tasks = [throughput("mixed lengths", texts, sum(tokens), operations(tokens), place)]
        for length in lengths:
            same = pytorch.ask("texts_of", tokens=length, count=largest)
            counts = pytorch.ask("count_tokens", texts=same)
            name = f"{length} tokens"
            for batch_size in settings.batch_sizes:
                place = {"length": length, "batch_size": batch_size}
                label = f"{name}, batches of {batch_size}"
                tasks.append(throughput(label, same, sum(counts), operations(counts), place))
            tasks.append(latency(f"{name}, latency", same[0], settings.calls, {"length": length, "batch_size": 1}))
        return tokens, flops, tasks

    def _in_turns(self, task: Task, turns: int) -> list[tuple[list[float], ...]]:
        """Seconds of each call by contestant, in every round but the first, the warm-up."""
        keywords = {"texts": task.texts, "batch_size": task.batch_size, "calls": task.calls}
        works = [
            partial(self.step, f"{worker.name}: {task.name}", partial(worker.ask, "encode", **keywords))
            for worker in self.workers
        ]
        return list(alternate(turns, *works))[1:]
