"""Everything that needs a GPU, in one go: every engine on every device is converted for, compared with encode() and
measured, each in a process of its own, and one table says how it went. What cannot run says why.

    pip install "sbertconv[all]"    # and the builds for GPUs that the table asks for, such as onnxruntime-gpu
    python examples/gpu_check.py sentence-transformers/all-MiniLM-L6-v2

The exit code is 1 if what ran differs from encode() by more than its precision may.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Encode = Callable[[Sequence[str], int], Any]
COUNT = 512  # of the shipped sentences
EXPECTED = "expected.npy"  # what encode() gives on the CPU
LIMITS = {"fp32": (1e-5, 0.99999), "fp16": (1.0, 0.999)}  # largest difference (also relative), smallest cosine
# float32 is float32: NVIDIA's libraries would else round its factors to 10 bits. JAX would take all memory at once.
ENVIRONMENT = {
    "NVIDIA_TF32_OVERRIDE": "0",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
TENSORRT = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
NOT_HERE = 3  # the exit code of a row that cannot run here
SECONDS = 1800  # for a row


@dataclass(frozen=True)
class Case:
    """A row: an engine on a device.

    Attributes:
        backend: what converts; empty: nothing does, it is the library itself.
        form: the format that runs.
        load: keywords of `sbertconv.load`.
        environment: of the row's process.
    """

    engine: str
    device: str
    backend: str = ""
    form: str = ""
    precision: str = "fp32"
    load: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


LIBRARY = "sentence-transformers"
JAX, TENSORFLOW = {"KERAS_BACKEND": "jax"}, {"KERAS_BACKEND": "tensorflow"}
CASES = (
    Case(LIBRARY, "cpu"),
    Case(LIBRARY, "cuda"),
    Case(LIBRARY, "cuda", precision="fp16"),
    Case("onnxruntime", "cpu", "onnx", "onnx", load={"device": "cpu"}),
    Case("onnxruntime", "cuda", "onnx", "onnx", load={"device": "cuda"}),
    Case("onnxruntime", "cuda, TensorRT", "onnx", "onnx", load={"providers": TENSORRT}),
    Case("openvino", "gpu", "onnx", "onnx", load={"device": "gpu"}),
    Case("torch", "cpu", "torch", "torch", load={"device": "cpu"}),
    Case("torch", "cuda", "torch", "torch", load={"device": "cuda"}),
    Case("keras", "cpu, JAX", "keras", "keras", load={"device": "cpu"}, environment=JAX),
    Case("keras", "cuda, JAX", "keras", "keras", load={"device": "cuda"}, environment=JAX),
    Case("keras", "cuda, TensorFlow", "keras", "keras", load={"device": "cuda"}, environment=TENSORFLOW),
    Case("tensorflow", "cuda", "keras", "saved_model", load={"device": "cuda"}, environment=TENSORFLOW),
    Case("tensorrt", "cuda", "tensorrt", "tensorrt"),
    Case("tensorrt", "cuda", "tensorrt", "tensorrt", precision="fp16"),
)


def original(case: Case, model: str) -> Encode:
    """encode() of the library on a device.

    Raises:
        MissingDependencyError: if PyTorch has no such device here.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    from sbertconv import MissingDependencyError

    if case.device == "cuda" and not torch.cuda.is_available():
        raise MissingDependencyError(f"PyTorch {torch.__version__} finds no GPU.\nInstall its build for CUDA.")
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[case.precision]
    loaded = SentenceTransformer(model, device=case.device, model_kwargs={"dtype": dtype})
    return lambda texts, size: loaded.encode(list(texts), batch_size=size, show_progress_bar=False)


def converted(case: Case, model: str, out: Path) -> Encode:
    """encode() of a converted folder, which the first row that takes it makes, unless the engine lacks the device."""
    import sbertconv
    from sbertconv.runtime.engines import check_options
    from sbertconv.runtime.options import EngineOptions
    from sbertconv.runtime.tensorrt import import_tensorrt

    folder = out / f"{case.form}-{case.precision}"
    write = {
        "onnx": lambda: sbertconv.to_onnx(model, folder),
        "torch": lambda: sbertconv.to_torch(model, folder),
        "keras": lambda: sbertconv.to_tf(model, folder, formats=(case.form,)),
        "tensorrt": lambda: sbertconv.to_onnx(model, folder, target="tensorrt", precision=case.precision),
    }
    if case.engine == "tensorrt":
        import_tensorrt(folder)
    else:
        check_options(case.engine, EngineOptions(**case.load))
    if not folder.exists():
        write[case.backend]()
        if case.engine == "tensorrt":
            sbertconv.build_plan(folder)
    loaded = sbertconv.load(folder, format=case.form, engine=case.engine, **case.load)
    return lambda texts, size: loaded.encode(list(texts), batch_size=size)


def measured(case: Case, model: str, out: Path, rounds: int) -> dict[str, Any]:
    """A row: how near its answers are to encode() on the CPU, and how fast it is."""
    import numpy as np

    from sbertconv.corpus.texts import sentences

    texts = [*sentences()[:COUNT], "", "word " * 1000]
    encode = converted(case, model, out) if case.backend else original(case, model)
    found = np.asarray(encode(texts, 32), np.float32)
    if case == CASES[0]:
        np.save(out / EXPECTED, found)
    expected = np.load(out / EXPECTED)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    difference = float(np.abs(found - expected).max())
    cosine = float(((found * expected).sum(axis=1) / np.where(norms == 0, 1, norms)).min())
    largest, smallest = LIMITS[case.precision]
    rate, latency = rates(encode, texts[:COUNT], rounds)
    passed = np.allclose(found, expected, largest, largest) and cosine >= smallest
    return {"passed": bool(passed), "difference": difference, "cosine": cosine, "rate": rate, "latency": latency}


def rates(encode: Encode, texts: Sequence[str], rounds: int) -> tuple[float, float]:
    """Texts per second in batches of 32, and milliseconds for one text: medians after a warm-up."""
    medians = []
    for inputs, size, calls in ((texts, 32, 1), (texts[:1], 1, 50)):
        encode(inputs, size)
        seconds = []
        for _ in range(rounds * calls):
            start = time.perf_counter()
            encode(inputs, size)
            seconds.append(time.perf_counter() - start)
        medians.append(statistics.median(seconds))
    return len(texts) / medians[0], medians[1] * 1000


def run_row(number: int, model: str, out: Path, rounds: int) -> int:
    """What a row's process does; the last line that it prints is the row, or why there is none."""
    from sbertconv import MissingDependencyError, SbertconvError

    try:
        print("\n" + json.dumps(measured(CASES[number], model, out, rounds)))
    except (MissingDependencyError, ModuleNotFoundError) as error:
        print("\n" + " ".join(str(error).splitlines()))
        return NOT_HERE
    except (SbertconvError, RuntimeError) as error:  # RuntimeError: PyTorch's, JAX's and TensorFlow's of a GPU
        print("\n" + " ".join(str(error).splitlines()))
        return 1
    return 0


def asked(number: int, model: str, out: Path, rounds: int) -> tuple[str, dict[str, Any] | str]:
    """What became of a row, "ok", "differs", "not here" or "FAILED", and its figures or the reason."""
    command = [sys.executable, __file__, model, "--row", str(number), "--out", str(out), "--rounds", str(rounds)]
    environment = {**os.environ, **ENVIRONMENT, **CASES[number].environment}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "FAILED", f"took more than {SECONDS} s"
    last = (done.stdout.strip() or done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
    if done.returncode == NOT_HERE:
        return "not here", last
    if done.returncode:
        return "FAILED", last if done.returncode == 1 else f"ended with {done.returncode}: {last}"
    figures = json.loads(last)
    return "ok" if figures["passed"] else "differs", figures


def main() -> int:
    """Print the table; returns the exit code."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a Hub id or a folder")
    parser.add_argument("--only", help="the rows of one engine, beside the library's on the CPU")
    parser.add_argument("--out", type=Path, help="where the converted folders stay; default: nowhere")
    parser.add_argument("--rounds", type=int, default=5, help="of every measurement (default: 5)")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        return run_row(arguments.row, arguments.model, arguments.out, arguments.rounds)
    table = Table(
        "engine", "device", "precision", "", "max abs diff", "min cosine", "texts/s, batches of 32", "ms, one text"
    )
    rows, reasons = [], []
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        for number, case in enumerate(CASES):
            if number and arguments.only not in (None, case.engine):
                continue
            print(f"{case.engine}, {case.device}, {case.precision} ...", file=sys.stderr, flush=True)
            state, found = asked(number, arguments.model, out, arguments.rounds)
            cells = []
            if isinstance(found, dict):
                cells = [f"{found['difference']:.1e}", f"{found['cosine']:.7f}"]
                cells += [f"{found['rate']:,.0f}", f"{found['latency']:.2f}"]
            else:
                reasons.append(f"{case.engine}, {case.device}, {case.precision}: {found}")
            table.add_row(case.engine, case.device, case.precision, state, *cells)
            rows.append((case, state))
    Console(width=None if sys.stdout.isatty() else 160).print(table, markup=False)
    print(*reasons, sep="\n")
    on_gpu = [case for case, state in rows if not case.device.startswith("cpu") and state != "not here"]
    ran = (
        f"{len(on_gpu)} rows ran on a GPU" if on_gpu else "No row ran on a GPU: there is none here, or no build for it"
    )
    print(f"{ran}. Differences are those to encode() on the CPU.")
    return int(any(state in ("differs", "FAILED") for _, state in rows))


if __name__ == "__main__":
    sys.exit(main())
