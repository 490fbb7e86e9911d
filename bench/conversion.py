"""Conversions by stage and depth, beside a plain torch.onnx.export of the same model."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.harness import Row, run, worker
from sbertconv.benchmark.measuring import alternate

DEPTHS = {"to_onnx": (6, 12, 24, 48), "to_tf": (6, 24), "to_torch": (6, 24)}  # layers
CONVERTING = "converting"  # trace, translate and fuse
SHALLOW, DEEP, GROWTH = 6, 24, "<= 1.80"  # the stage's own ratio between two depths


def sections(model: str, folder: Path, rounds: int) -> list[Iterator[Row]]:
    """What is measured, in order."""
    return [by_stage(command, model, folder, rounds) for command in DEPTHS]


def by_stage(command: str, model: str, folder: Path, rounds: int) -> Iterator[Row]:
    """CPU seconds of each stage of a conversion, at every depth, and of a process that only exports."""
    section = f"{command.replace('_', '-')}: CPU seconds by stage and number of layers"
    found: dict[int, list[dict[str, float]]] = {}
    for layers in DEPTHS[command]:
        source = folder / f"{layers}-layers"
        if not source.exists():
            run(worker("deepened", model, source, layers))
        ours = worker("stages", command, source, folder / "converted")
        theirs = worker("export", source, folder / "plain.onnx")
        pairs = list(alternate(rounds, lambda one=ours: run(one), lambda one=theirs: run(one)))
        found[layers] = [json.loads(pair[0].stdout) for pair in pairs]
        for stage in found[layers][0]:
            yield Row(section, f"{layers} layers: {stage}", "s", [figures[stage] for figures in found[layers]], [])
        for name, field in (("whole process", "cpu"), ("whole process, wall time", "wall")):
            sides = ([getattr(pair[side], field) for pair in pairs] for side in (0, 1))
            yield Row(section, f"{layers} layers: {name}", "s", *sides)
    deep, shallow = ([figures[CONVERTING] for figures in found[layers]] for layers in (DEEP, SHALLOW))
    yield Row(section, f"{CONVERTING}: {DEEP} layers beside {SHALLOW}", "s", deep, shallow, GROWTH)


def write_deepened(model: str, folder: str, layers: str) -> None:
    """Worker: a model like another one with so many layers, their weights random."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    encoder = SentenceTransformer(model, device="cpu")
    config = AutoConfig.for_model(**encoder[0].config.to_dict() | {"num_hidden_layers": int(layers)})
    encoder[0].model = AutoModel.from_config(config).eval()
    encoder.save_pretrained(folder)


def measure_stages(command: str, model: str, folder: str) -> dict[str, float]:
    """Worker: the CPU seconds of each stage of a conversion, the imports before it included."""
    import sbertconv

    found: dict[str, float] = {}
    current, begin = "loading libraries", 0.0

    def on_stage(name: str) -> None:
        nonlocal current, begin
        now = time.process_time()
        found[current] = round(found.get(current, 0.0) + now - begin, 3)
        current, begin = name, now

    getattr(sbertconv, command)(model, folder, overwrite=True, on_stage=on_stage)
    on_stage("")
    if not found.get(CONVERTING):
        sys.exit(f"No stage is called {CONVERTING!r} (have: {', '.join(found)}).")
    return found


WORKERS: dict[str, Callable[..., Any]] = {"deepened": write_deepened, "stages": measure_stages}
