"""Every precision on every engine beside PyTorch's float32, on the demo's model and on base-size shapes.

A conversion whose check fails raises: a section stands only where parity and every quality gate are green.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import Row, computes_bfloat16, run, worker
from bench.shapes import SHAPES
from sbertconv.benchmark import Settings, benchmark
from sbertconv.benchmark.report import BenchReport
from sbertconv.benchmark.worker import matmul_rate

BOUND = "limit of bf16: matrix products at this CPU's rate, no padding, nothing else"
BOTH = ("onnxruntime", "openvino")
PRECISIONS = {"fp32": BOTH, "bf16": ("openvino",), "int8": BOTH}  # ONNX Runtime would compute bf16 in float32
FASTEST, QUICKEST, SHARE = "texts_per_second", "latency_p50", "share_of_limit"  # of BenchReport's quantities
SHORT = 16  # tokens
TEXTS, BASE_TEXTS = 1000, 256  # of mixed lengths; a base-size model needs eight times as long for one
SMALLEST_COSINE, LARGEST_SHARE = 0.99, 0.30  # of int8, for the real model: vectors, and size beside float32


def sections(model: str, folder: Path, rounds: int) -> list[Iterator[Row]]:
    """The given model, then every shape."""
    found = [precision("the model", lambda _: model, folder, rounds, TEXTS, trained=True)]
    return found + [precision(f"random {name}-base", make, folder, rounds, BASE_TEXTS) for name, make in SHAPES.items()]


def precision(
    name: str, make: Callable[[Path], Any], folder: Path, rounds: int, texts: int, trained: bool = False
) -> Iterator[Row]:
    """Convert to every precision, measure all of them together, and hold the best of each to its target."""
    import sbertconv

    place = folder / re.sub(r"\W", "-", name)
    place.mkdir()
    model = str(make(place))
    artifacts = [
        sbertconv.to_onnx(model, place / precision, precision=precision, engines=engines).folder
        for precision, engines in PRECISIONS.items()
    ]
    settings = Settings(rounds=rounds, batch_sizes=(32,), lengths=(SHORT,), texts=texts)
    report = benchmark(model, artifacts, settings=settings)
    section = (
        f"{name}: encode(), {texts:,} texts of {report.settings['mean_tokens']:.0f} tokens on average, "
        f"threads: {report.threads}"
    )
    for contestant in report.contestants[1:]:
        ours, theirs = (values(report, one["name"], FASTEST) for one in (contestant, report.contestants[0]))
        yield Row(section, f"{contestant['name']}", "texts/s", ours, theirs)
    best = {precision: extreme(report, precision, FASTEST, max) for precision in PRECISIONS}
    pytorch = {quantity: values(report, report.contestants[0]["name"], quantity) for quantity in (FASTEST, QUICKEST)}
    yield Row(section, "best of fp32", "texts/s", best["fp32"], pytorch[FASTEST], ">= 1.10")
    target = ">= 3.50" if computes_bfloat16() else ""
    yield Row(section, "best of bf16", "texts/s", best["bf16"], pytorch[FASTEST], target)
    yield Row(section, BOUND, "texts/s", bound(report, pytorch[FASTEST]), pytorch[FASTEST])
    yield Row(section, "best of int8, beside the best of bf16", "texts/s", best["int8"], best["bf16"], ">= 1.00")
    quickest = extreme(report, "fp32", QUICKEST, min)
    yield Row(section, f"one text of {SHORT} tokens, best of fp32", "ms", quickest, pytorch[QUICKEST], "<= 0.50")
    if trained:
        yield from kept(section, report)


def kept(section: str, report: BenchReport) -> Iterator[Row]:
    """What int8 keeps of the vectors, on the texts that were timed, and of the bytes."""
    cosine = extreme(report, "int8", "min_cosine", min)
    yield Row(section, "smallest cosine of int8", "", cosine, [], f">= {SMALLEST_COSINE:.2f}")
    sizes = [extreme(report, precision, "size_on_disk", max) for precision in ("int8", "fp32")]
    yield Row(section, "size of int8, beside float32", "MiB", *sizes, f"<= {LARGEST_SHARE:.2f}")


def bound(report: BenchReport, texts_per_second: Sequence[float]) -> list[float]:
    """Texts per second if there were only the operations of their matrix products, in bfloat16; of each round, from
    those of PyTorch and the share of the float32 rate that they come to.
    """
    rate = json.loads(run(worker("matmul_rate", "bfloat16")).stdout)
    shares = values(report, report.contestants[0]["name"], SHARE)
    return [texts * rate / (share / 100 * report.limit) for texts, share in zip(texts_per_second, shares, strict=True)]


def values(report: BenchReport, contestant: str, quantity: str) -> tuple[float, ...]:
    """A contestant's value of each round, on the texts of mixed lengths if it was measured there."""
    found = [one for one in report.figures if (one.contestant, one.quantity) == (contestant, quantity)]
    return min(found, key=lambda one: one.length is not None).rounds


def extreme(report: BenchReport, precision: str, quantity: str, choose: Callable[..., Any]) -> tuple[float, ...]:
    """The values of the best (or worst) contestant in this precision."""
    names = [one["name"] for one in report.contestants[1:] if one["precision"] == precision]
    found: tuple[float, ...] = choose((values(report, name, quantity) for name in names), key=sum)
    return found


WORKERS: Mapping[str, Callable[..., Any]] = {"matmul_rate": matmul_rate}
