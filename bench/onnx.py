"""`sbertconv to-onnx` and its runtime beside PyTorch."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.harness import Row, hold_to, processes, python, run, worker
from sbertconv.benchmark.measuring import alternate, mixed_texts
from sbertconv.runtime.batches import usable_cores

SHORT_TEXT = "How do I reset the password of my account?"
LATENCY_CALLS = 100  # per side and block
COUNT_TEXTS = 1000


def sections(model: str, folder: Path, rounds: int) -> list[Iterator[Row]]:
    """What is measured, in order."""
    artifact, core_counts = folder / "model-onnx", sorted({1, usable_cores()})
    found = [conversion(model, artifact, rounds), first_embedding(model, artifact, rounds)]
    return found + [part(model, artifact, rounds, cores) for part in (throughput, latency) for cores in core_counts]


def conversion(model: str, artifact: Path, rounds: int) -> Iterator[Row]:
    """The whole command as users run it, check included, and a process that loads the same model and only exports."""
    yield from processes(
        "Conversion, check included, beside a plain torch.onnx.export",
        rounds,
        [str(Path(sysconfig.get_path("scripts"), "sbertconv")), "to-onnx", model, str(artifact), "--overwrite"],
        worker("export", model, artifact.with_name("plain.onnx")),
        [
            ("wall time", "s", "wall", "<= 1.50"),
            ("CPU time", "s", "cpu", ""),
            ("peak memory", "MiB", "peak_mib", "<= 1.20"),
        ],
    )


def first_embedding(model: str, artifact: Path, rounds: int) -> Iterator[Row]:
    """A fresh process that imports, loads and encodes one text."""
    loads = (
        f"import sbertconv; model = sbertconv.load({str(artifact)!r})",
        f"from sentence_transformers import SentenceTransformer; model = SentenceTransformer({model!r})",
    )
    commands = (
        python("-c", f"{load}; model.encode({SHORT_TEXT!r}); import time; print(time.time())") for load in loads
    )
    figures = [
        ("process start to first embedding", "s", "until_printed", "<= 0.20"),
        ("peak memory", "MiB", "peak_mib", ""),
    ]
    yield from processes("A fresh process: import, load, encode one text", rounds, *commands, figures)


def throughput(model: str, artifact: Path, rounds: int, cores: int) -> Iterator[Row]:
    """`encode` on many texts of mixed lengths."""
    found = json.loads(run(worker("throughput", model, artifact, rounds, cores)).stdout)
    section = f"encode(), {COUNT_TEXTS:,} texts of {found['mean_tokens']:.0f} tokens on average, float32, batch size 32"
    for name, unit, key, target in (
        ("throughput", "texts/s", "wall", ">= 0.85"),
        ("texts per second of CPU time", "texts/s", "cpu", ""),
    ):
        sides = [[COUNT_TEXTS / pair[side][key] for pair in found["pairs"]] for side in (0, 1)]
        yield Row(section, f"{name}, cores: {cores}", unit, *sides, target)


def latency(model: str, artifact: Path, rounds: int, cores: int) -> Iterator[Row]:
    """`encode` on one short text, again and again."""
    pairs = json.loads(run(worker("latency", model, artifact, rounds, cores)).stdout)
    section = f"encode(), one short text, {LATENCY_CALLS * len(pairs):,} calls"
    for name, cut, target in (("median", 50, "<= 0.50"), ("95th percentile", 95, "")):
        sides = [[statistics.quantiles(pair[side], n=100)[cut - 1] for pair in pairs] for side in (0, 1)]
        yield Row(section, f"{name}, cores: {cores}", "ms", *sides, target)


def export_plain(model: str, path: str) -> None:
    """Worker: what a user would write without sbertconv, saved to disk and not checked."""
    import torch
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")

    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            return self.encoder(dict(zip(features, tensors, strict=True)))["sentence_embedding"]

    features = encoder.preprocess(["A text with more tokens than the other.", "One, short.", "Third"])
    features = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
    axes = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    torch.onnx.export(
        Chain().eval(),
        tuple(features.values()),
        path,
        input_names=list(features),
        output_names=["sentence_embedding"],
        dynamic_shapes=((axes,) * len(features),),
        dynamo=True,
    )


def load_both(model: str, artifact: str, cores: str) -> tuple[Any, Any]:
    """Both sides in this process, held to the same cores and so to the same number of threads."""
    hold_to(int(cores))  # sbertconv counts the cores that the process may use
    from sentence_transformers import SentenceTransformer

    import sbertconv

    return sbertconv.load(artifact), SentenceTransformer(model, device="cpu")


def measure_throughput(model: str, artifact: str, rounds: str, cores: str) -> dict[str, Any]:
    """Worker: wall and CPU seconds for all texts, in pairs."""
    import numpy as np

    texts = mixed_texts(COUNT_TEXTS)
    ours, theirs = load_both(model, artifact, cores)
    a, b = (side.encode(texts[:100], show_progress_bar=False) for side in (ours, theirs))  # the warm-up
    if not np.allclose(a, b, atol=1e-4):  # a figure for something else would be worthless
        sys.exit(f"The two sides differ by {np.abs(a - b).max():.1e}.")

    def timed(encoder: Any) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        encoder.encode(texts, show_progress_bar=False)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    tokens = [ours.tokenize([text])["input_ids"].shape[1] for text in texts]
    pairs = list(alternate(int(rounds), lambda: timed(ours), lambda: timed(theirs)))
    return {"pairs": pairs, "mean_tokens": statistics.mean(tokens)}


def measure_latency(model: str, artifact: str, rounds: str, cores: str) -> list[tuple[list[float], list[float]]]:
    """Worker: milliseconds of every call, in pairs of blocks."""

    def timed(encoder: Any) -> list[float]:
        clock = [time.perf_counter()]
        for _ in range(LATENCY_CALLS):
            encoder.encode(SHORT_TEXT, show_progress_bar=False)
            clock.append(time.perf_counter())
        return [1000 * (end - start) for start, end in itertools.pairwise(clock)]

    ours, theirs = load_both(model, artifact, cores)
    blocks = 2 * int(rounds)  # blocks are short: many of them, and the first is the warm-up
    return list(alternate(blocks + 1, lambda: timed(ours), lambda: timed(theirs)))[1:]


WORKERS: dict[str, Callable[..., Any]] = {
    "export": export_plain,
    "throughput": measure_throughput,
    "latency": measure_latency,
}
