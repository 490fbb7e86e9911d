"""Everything about TensorRT that needs a GPU, in one go: builds the plans, compares them with encode(), measures them
beside PyTorch, and prints two tables.

    pip install "sbertconv[onnx,tensorrt]"
    python examples/tensorrt_check.py sentence-transformers/all-MiniLM-L6-v2

The exit code is 1 if a plan could not be built or differs from encode() by more than its precision may.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sbertconv
from sbertconv.converters.onnx.tensorrt import PRECISIONS
from sbertconv.corpus.texts import sentences
from sbertconv.runtime.tensorrt import gpu_name, import_tensorrt

Encode = Callable[[Sequence[str], int], Any]


def planned(model: str, precision: str, folder: Path) -> tuple[Any, list[str]]:
    """A model's plan in a precision (None if there is none), and the cells of its row: what was compared."""
    start = time.perf_counter()
    try:
        sbertconv.to_onnx(model, folder, target="tensorrt", precision=precision, overwrite=True)
        sbertconv.build_plan(folder)
        built = time.perf_counter() - start
        report = sbertconv.verify(model, folder)
    except sbertconv.SbertconvError as error:
        return None, [precision, "FAILED", "", "", "", str(error)]
    ours = [check for check in report.checks if check.name.startswith("tensorrt: ")]
    worst = max(ours, key=lambda check: check.max_abs_diff)
    cosine = min(check.min_cosine for check in ours)
    cells = [
        precision,
        "ok" if report.passed else "FAILED",
        f"{worst.max_abs_diff:.1e}",
        f"{cosine:.7f}",
        f"{built:.0f} s",
        "" if report.passed else f"{worst.name}: {worst.problem or report.rule}",
    ]
    return sbertconv.load(folder, format="tensorrt"), cells


def originals(model: str) -> dict[str, Encode]:
    """PyTorch's encode() in the precisions that the plans have, on the GPU where PyTorch can use it."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.backends.cuda.matmul.allow_tf32 = False  # the plans do without it, too
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtypes = {"fp32": torch.float32, "fp16": torch.float16} if device == "cuda" else {"fp32": torch.float32}
    found: dict[str, Encode] = {}
    for precision, dtype in dtypes.items():
        loaded = SentenceTransformer(model, device=device, model_kwargs={"dtype": dtype})
        found[f"PyTorch {precision}, {device}"] = lambda texts, size, loaded=loaded: loaded.encode(
            list(texts), batch_size=size, show_progress_bar=False
        )
    return found


def rates(encode: Encode, texts: Sequence[str], rounds: int) -> list[str]:
    """Texts per second in batches, and milliseconds for one text: medians after a warm-up."""
    cells = []
    for inputs, size, calls in ((texts, 32, 1), (texts[:1], 1, 50)):
        encode(inputs, size)
        seconds = []
        for _ in range(rounds * calls):
            start = time.perf_counter()
            encode(inputs, size)
            seconds.append(time.perf_counter() - start)
        cells.append(statistics.median(seconds))
    return [f"{len(texts) / cells[0]:,.0f}", f"{cells[1] * 1000:.2f}"]


def main() -> int:
    """Print both tables; returns the exit code."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a Hub id or a folder")
    parser.add_argument("--out", type=Path, help="where the converted folders stay; default: nowhere")
    parser.add_argument("--rounds", type=int, default=5, help="of every measurement (default: 5)")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        try:
            trt, cuda = import_tensorrt(out)
        except sbertconv.MissingDependencyError as error:
            print(str(error).splitlines()[0], 'pip install "sbertconv[onnx,tensorrt]"', sep="\n", file=sys.stderr)
            return 1
        console.print(f"TensorRT {trt.__version__}, {gpu_name(cuda)}, {arguments.model}", markup=False)
        compared = Table("plan", "", "max abs diff", "min cosine", "built in", "", title="Beside encode() on the CPU")
        contestants = originals(arguments.model)
        passed = True
        for precision in PRECISIONS:
            embedder, cells = planned(arguments.model, precision, out / precision)
            compared.add_row(*cells)
            passed = passed and cells[1] == "ok"
            if embedder is not None:
                contestants[f"TensorRT {precision}"] = lambda texts, size, embedder=embedder: embedder.encode(
                    list(texts), batch_size=size
                )
        console.print(compared)
        measured = Table("", "texts/s, batches of 32", "ms, one text", title=f"Median of {arguments.rounds} rounds")
        for name, encode in contestants.items():
            measured.add_row(name, *rates(encode, sentences(), arguments.rounds))
        console.print(measured)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
