"""What a run found: figures with their ratios, the tables they make, and both as JSON or Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sbertconv.benchmark.measuring import described, is_busy

METHOD = (
    "Every contestant has a process of its own, with the same cores, and only one works at a time. They take turns in "
    "every round and another one begins each; a round before the first is the warm-up. Figures are medians of the "
    "rounds; a ratio is the median of the rounds' own ratios to PyTorch, with the smallest and the largest of them "
    "behind it, and is told from three rounds on. Memory and size are no matter of rounds."
)
FEWEST_ROUNDS = 3  # fewer say nothing about how far a ratio can be trusted


@dataclass(frozen=True)
class Quantity:
    """Something measured.

    Attributes:
        name: what it is called.
        unit: of its values; empty: none.
        write: a value as text.
        more_is_better: whether more of it is better.
        words: a ratio to PyTorch is "2.1 times" and these words; empty: no ratio helps.
        once: whether it is taken once in a run, and is no matter of rounds.
    """

    name: str
    unit: str
    write: Callable[[float], str]
    more_is_better: bool
    words: str = ""
    once: bool = False

    @property
    def has_ratio(self) -> bool:
        """Whether it is compared with PyTorch's."""
        return bool(self.words)

    def text(self, value: float) -> str:
        return f"{self.write(value)} {self.unit}".rstrip()


def rounded(value: float) -> str:
    """Three digits, or all of those before the point."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


QUANTITIES = {
    "texts_per_second": Quantity("texts", "/s", rounded, True, "as fast"),
    "tokens_per_second": Quantity("tokens", "/s", rounded, True, "as fast"),
    "share_of_limit": Quantity("of the limit", "%", rounded, True),
    "latency_p50": Quantity("p50", "ms", rounded, False, "as long"),
    "latency_p95": Quantity("p95", "ms", rounded, False, "as long"),
    "first_embedding": Quantity("first embedding", "s", rounded, False, "as long"),
    "peak_memory": Quantity("peak memory", "MiB", rounded, False, "as much", once=True),
    "size_on_disk": Quantity("size on disk", "MiB", rounded, False, "as large", once=True),
    "min_cosine": Quantity("smallest cosine", "", lambda value: f"{value:.6f}", True),
}


@dataclass(frozen=True)
class Figure:
    """One quantity of one contestant.

    Attributes:
        quantity: a key of QUANTITIES, which has its unit.
        value: the median of the rounds.
        ratio: to PyTorch's, the median of the rounds' own ratios; None where that is 0 or has no meaning, and of times
            that were taken on a busy machine.
        spread: the smallest and the largest of these; None without them.
        rounds: one value per round.
        length: tokens per text; None for texts of mixed lengths, or where there is none.
        batch_size: None where there is none.
    """

    contestant: str
    quantity: str
    value: float
    ratio: float | None
    rounds: tuple[float, ...]
    length: int | None = None
    batch_size: int | None = None
    spread: tuple[float, float] | None = None

    @property
    def is_told(self) -> bool:
        """Whether its ratio is shown: rounds enough, and not PyTorch's to itself."""
        enough = QUANTITIES[self.quantity].once or len(self.rounds) >= FEWEST_ROUNDS
        return self.ratio is not None and enough and self.spread != (1.0, 1.0)

    @property
    def without_ratio(self) -> Figure:
        """The same; what was taken once is no matter of time, and keeps its ratio."""
        return self if QUANTITIES[self.quantity].once else replace(self, ratio=None, spread=None)


def figures(
    quantity: str,
    names: Sequence[str],
    rounds: Sequence[Sequence[float]],
    length: int | None = None,
    batch_size: int | None = None,
) -> Iterator[Figure]:
    """A figure per contestant, from one value per contestant in each round; the first contestant is the yardstick."""
    for index, name in enumerate(names):
        values = tuple(values[index] for values in rounds)
        ratio, spread = None, None
        if QUANTITIES[quantity].has_ratio and all(values[0] for values in rounds):
            ratios = [values[index] / values[0] for values in rounds]
            ratio, spread = statistics.median(ratios), (min(ratios), max(ratios))
        yield Figure(name, quantity, statistics.median(values), ratio, values, length, batch_size, spread)


@dataclass(frozen=True)
class Cell:
    """A figure in a table: the absolute with its unit, and the ratio in words beneath or beside it."""

    value: str
    ratio: str = ""


@dataclass(frozen=True)
class Table:
    """Contestants down, figures across."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class BenchReport:
    """One run.

    Attributes:
        model: the name of the model.
        machine: what `measuring.machine()` says.
        threads: cores, and threads, of every contestant.
        limit: the best float32 matrix product of this machine on as many cores, in operations per second.
        flops: operations of one text of n tokens in matrix products: coefficients of a polynomial in n, highest first.
        settings: what was asked for, by name.
        contestants: name, path, format, precision and size in bytes of each; the first is PyTorch.
        figures: everything measured; on a busy machine without the ratios of times.
        notes: what was assumed.
    """

    model: str
    machine: dict[str, Any]
    threads: int
    limit: float
    flops: tuple[float, ...]
    settings: dict[str, Any]
    contestants: tuple[dict[str, Any], ...]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if is_busy(self.machine):
            object.__setattr__(self, "figures", tuple(figure.without_ratio for figure in self.figures))

    @property
    def names(self) -> list[str]:
        return [contestant["name"] for contestant in self.contestants]

    @property
    def description(self) -> list[str]:
        """The model, the machine and the run, in sentences."""
        return [
            f"{self.model} · threads: {self.threads} · rounds: {self.settings['rounds']} · "
            f"the limit, a float32 matrix product: {self.limit / 1e9:,.0f} GFLOP/s",
            *described(self.machine),
            *self.notes,
        ]

    def select(self, quantity: str, *, length: int | None = None, batch_size: int | None = None) -> dict[str, Figure]:
        """The figures of one quantity for this length and batch size, by contestant."""
        return {
            figure.contestant: figure
            for figure in self.figures
            if (figure.quantity, figure.length, figure.batch_size) == (quantity, length, batch_size)
        }

    def places(self, quantity: str) -> list[dict[str, int | None]]:
        """Every length and batch size that a quantity was measured for, as keywords of `select`."""
        found = dict.fromkeys((f.length, f.batch_size) for f in self.figures if f.quantity == quantity)
        return [{"length": length, "batch_size": batch_size} for length, batch_size in found]

    def tables(self) -> list[Table]:
        """The headline, with latency for the shortest texts; then every length and batch size."""
        mixed, shortest = {"batch_size": max(self.settings["batch_sizes"])}, self.places("latency_p50")[0]
        headline = [
            ("texts_per_second", mixed), ("tokens_per_second", mixed), ("share_of_limit", mixed),
            ("latency_p50", shortest), ("latency_p95", shortest), ("first_embedding", {}), ("peak_memory", {}),
            ("size_on_disk", {}), ("min_cosine", {}),
        ]  # fmt: skip
        title = (
            f"{self.settings['texts']:,} texts of {self.settings['mean_tokens']:.0f} tokens on average in batches of "
            f"{mixed['batch_size']}; latency of one text of {shortest['length']} tokens"
        )
        found = [self._table(title, [(QUANTITIES[name].name, name, place) for name, place in headline])]
        for name, title in GRIDS.items():
            columns = [(place_name(place), name, place) for place in self.places(name) if place["length"]]
            found.append(self._table(title, columns))
        return found

    def _table(self, title: str, columns: Sequence[tuple[str, str, dict[str, Any]]]) -> Table:
        by_column = [self.select(quantity, **place) for _, quantity, place in columns]
        rows = tuple((name, tuple(cell(column[name]) for column in by_column)) for name in self.names)
        return Table(title, tuple(heading for heading, _, _ in columns), rows)

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain types; figures carry their unit."""
        found = asdict(self)
        found["figures"] = [{**figure, "unit": QUANTITIES[figure["quantity"]].unit} for figure in found["figures"]]
        return found

    def to_markdown(self) -> str:
        """The page for a repository's documentation."""
        parts = [f"# {self.model}", METHOD, "\n".join(f"- {line}" for line in self.description)]
        for table in self.tables():
            lines = [["", *table.header], ["---", *["---:"] * len(table.header)]]
            lines += [[name, *(f"{one.value} {one.ratio}".rstrip() for one in cells)] for name, cells in table.rows]
            parts += [f"## {table.title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
        return "\n\n".join(parts) + "\n"


GRIDS = {
    "texts_per_second": "Texts per second by length and batch size",
    "latency_p50": "Latency by length, median",
    "latency_p95": "Latency by length, 95th percentile",
}


def place_name(place: dict[str, int | None]) -> str:
    batch_size = place["batch_size"]
    return f"{place['length']} tokens" + (f" × {batch_size}" if batch_size and batch_size > 1 else "")


def cell(figure: Figure) -> Cell:
    """A figure as text: "812 /s" and "2.1 times as fast (2.0 to 2.3)"."""
    quantity = QUANTITIES[figure.quantity]
    value = quantity.text(figure.value)
    if not figure.is_told:
        return Cell(value)
    spread = "" if quantity.once or figure.spread is None else " ({} to {})".format(*map(times, figure.spread))
    return Cell(value, f"{times(figure.ratio or 0)} times {quantity.words}{spread}")


def times(ratio: float) -> str:
    """Two digits, which is what a ratio of measured times is worth."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"
