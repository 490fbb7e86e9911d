"""Deep models: how far a folder is from encode() at every depth, up to the limit, beside encode()'s own wobble."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.harness import Row, run, worker
from bench.shapes import write_random

# Token types, positions counted from the padding, windows between full attention, a causal mask
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "bert": {},
    "xlm-roberta": {},
    "modernbert": {"reference_compile": False},
    "qwen3": {"num_key_value_heads": 6, "head_dim": 64},
}
DEPTHS = (12, 24)  # layers
LIMIT = 512  # tokens
SIZES = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
SECONDS = 900.0  # for the comparison: no length is left out
UNBOUNDED = 1.0  # what is measured here does not end the run
ALLOWED = "<= 1e-05"  # of the table in docs/verification.md, for numbers near 1
FIGURES = {  # key of the worker's answer -> name and target
    "difference": ("largest difference from encode()", ALLOWED),
    "wobble": ("encode() from itself in other batches", ""),
}


def sections(model: str, folder: Path, rounds: int) -> list[Iterator[Row]]:
    """One for each family."""
    return [depths(family, folder) for family in FAMILIES]


def depths(family: str, folder: Path) -> Iterator[Row]:
    """The comparison that is part of the conversion, at every depth."""
    for layers in DEPTHS:
        found = json.loads(run(worker("deep", family, layers, folder / f"{family}-{layers}")).stdout)
        for key, (name, target) in FIGURES.items():
            section = f"{family}, texts of 1 to {LIMIT} tokens"
            yield Row(section, f"{layers} layers: {name}", "", [found[key]], [], target)


def convert_deep(family: str, layers: str, folder: str) -> dict[str, float]:
    """Worker: a random model of a family converted to ONNX; what its report says."""
    import sbertconv

    sizes = {"num_hidden_layers": int(layers), "max_position_embeddings": LIMIT + 2, **SIZES, **FAMILIES[family]}
    model = write_random(family, Path(folder), LIMIT, **sizes)
    artifact = sbertconv.to_onnx(model, Path(folder) / "onnx", proof_budget=SECONDS, atol=UNBOUNDED, rtol=0.0)
    report: dict[str, Any] = artifact.manifest["parity"]
    return {"difference": max(check["max_abs_diff"] for check in report["checks"]), "wobble": report["wobble"]}


WORKERS: dict[str, Callable[..., Any]] = {"deep": convert_deep}
