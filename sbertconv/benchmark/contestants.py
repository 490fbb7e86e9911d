"""Who takes part: the original and every way to run every given artifact, each in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sbertconv.benchmark.worker import ASKED
from sbertconv.errors import ArtifactError, SourceError

if TYPE_CHECKING:
    from sbertconv.artifact.folder import Artifact
    from sbertconv.source.opening import Source

BASELINE = "PyTorch"
FULL = "fp32"
FIRST_TEXT = "How do I reset the password of my account?"
LAST_LINES = 6  # of a worker's stderr that are shown when it dies
PATIENCE = 30  # seconds that a worker may take to end
NOT_LOADED = {".onnx", ".onnx_data", ".h5", ".msgpack", ".ot", ".xml", ".tflite", ".md"}  # beside a checkpoint


@dataclass(frozen=True)
class Way:
    """One way to run an engine: its name, environment variables, a package without which it is left out, and whether
    every core has a batch of its own.
    """

    name: str
    env: Mapping[str, str] = field(default_factory=dict)
    package: str = ""
    parallel: bool = False

    @property
    def is_there(self) -> bool:
        return not self.package or importlib.util.find_spec(self.package) is not None


# compiled when a shape is first seen and not some calls later, so that the warm-up holds all of it
XLA = {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit --tf_xla_enable_lazy_compilation=false"}
# Engine -> the ways to run it.
WAYS: dict[str, tuple[Way, ...]] = {
    "onnxruntime": (
        Way("ONNX Runtime", package="onnxruntime"),
        Way("ONNX Runtime parallel", package="onnxruntime", parallel=True),
    ),
    "openvino": (Way("OpenVINO", package="openvino"), Way("OpenVINO parallel", package="openvino", parallel=True)),
    "keras": (Way("Keras"), Way("Keras/XLA", env=XLA, package="tensorflow")),
    "tensorflow": (Way("SavedModel"),),
    "litert": (Way("LiteRT"),),
    "torch": (Way("torch.export"),),
    "tensorrt": (Way("TensorRT", package="tensorrt"),),
}


@dataclass(frozen=True)
class Contestant:
    """What a worker loads.

    Attributes:
        name: what it is called in the report.
        path: the model, or the artifact's folder.
        size: counts the bytes on disk of what it needs; what comes from the Hub is there once it is loaded.
        format: of the artifact, or "pytorch".
        precision: as the artifact's manifest says; the original is loaded in float32.
        loader: a key of `worker.LOADERS`, `options` its keywords.
        env: environment variables of the worker.
    """

    name: str
    path: str
    size: Callable[[], int]
    format: str
    precision: str = FULL
    loader: str = "sbertconv"
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> type[SourceError | ArtifactError]:
        return SourceError if self.loader == "pytorch" else ArtifactError


def original(source: Source) -> Contestant:
    """PyTorch's encode() or predict().

    Raises:
        SourceError: for a model whose method is not measured.
    """
    check_measured(source.model_class.name, source.name, SourceError)
    options = {
        "library": source.model_class.library,
        "revision": source.revision,
        "trust_remote_code": source.trust_remote_code,
    }
    assert source.folder  # not a live model
    size = partial(checkpoint_size, source.folder)
    return Contestant(BASELINE, str(source.location), size, "pytorch", loader="pytorch", options=options)


def check_measured(name: str, where: object, error: type[Exception]) -> None:
    """Raise an error for a class of models that the workers do not know how to ask."""
    if name not in ASKED:
        raise error(f"{where}: a {name} is not measured (have: {', '.join(ASKED)}).\nLeave it out.")


def contestants_of(paths: Sequence[str | Path], threads: int) -> list[Contestant]:
    """Every way to run every format of these converted folders (or .keras files) with so many threads, under names
    that differ.

    Raises:
        ArtifactError: if a folder is missing, or not one that sbertconv wrote.
    """
    from sbertconv.runtime.opening import artifact_at

    found = []
    for path in paths:
        artifact = artifact_at(path)
        check_measured(artifact.manifest["model_class"], path, ArtifactError)
        precision = artifact.manifest["precision"]
        for form in artifact.formats:
            size = partial(disk_size, Path(path).expanduser(), artifact, form)
            for engine, way in ((name, way) for name in artifact.engines(form) for way in WAYS[name]):
                if way.is_there and (threads > 1 or not way.parallel):
                    name = f"{way.name} {precision}"
                    options = {"format": form, "engine": engine, "parallel": threads if way.parallel else 1}
                    found.append(Contestant(name, str(path), size, form, precision, "sbertconv", options, way.env))
    return told_apart(found)


def told_apart(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Those with the same name get their folder's name too, and its whole path where that is not enough."""
    for suffix in (lambda one: Path(one.path).name, lambda one: one.path):
        counts = Counter(one.name for one in contestants)
        contestants = [
            replace(one, name=f"{one.name} · {suffix(one)}") if counts[one.name] > 1 else one for one in contestants
        ]
    return list(contestants)


def disk_size(path: Path, artifact: Artifact, form: str) -> int:
    """Bytes of a .keras file, or of an artifact's files without those of its other formats."""
    if path.is_file():
        return path.stat().st_size
    parents: dict[str, set[PurePosixPath]] = {name: set() for name in artifact.formats}
    for graph in artifact.manifest["graphs"]:
        for name, written in graph["formats"].items():
            parents[name].add(PurePosixPath(written).parent)
    others = set().union(*(parents[name] for name in artifact.formats if name != form)) - parents[form]
    files = artifact.manifest["files"].items()
    return sum(file["size"] for name, file in files if not others & {*PurePosixPath(name).parents})


def checkpoint_size(folder: Path) -> int:
    """Bytes of what SentenceTransformer loads from a folder: one checkpoint, where a folder holds several."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in NOT_LOADED]
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    tensors = {path.parent for path in files if path.suffix == ".safetensors"}
    chosen = (path for path in files if not (path.suffix == ".bin" and path.parent in tensors))
    return sum(path.stat().st_size for path in chosen if "openvino" not in path.relative_to(folder).parts)


class Worker:
    """The process of one contestant, or with None one that measures the machine; closes with a with statement.

    Attributes:
        first_embedding: seconds from the start of the process to its first embedding.
        dimension: of its embeddings.
    """

    first_embedding = 0.0
    dimension = 0

    def __init__(self, contestant: Contestant | None, threads: int) -> None:
        self.contestant = contestant
        self.name = contestant.name if contestant else "the machine's limit"
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), **(contestant.env if contestant else {})}
        env.pop("OMP_WAIT_POLICY", None)  # of the command: PyTorch is measured as it comes
        started = time.time()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sbertconv.benchmark.worker", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            env=env,
        )
        if contestant is None:
            return
        keywords = {"loader": contestant.loader, "path": contestant.path, "options": dict(contestant.options)}
        try:
            found = self.ask("load", **keywords, text=FIRST_TEXT)
        except BaseException:
            self.close()
            raise
        self.first_embedding, self.dimension = found["time"] - started, found["dimension"]

    def ask(self, command: str, **keywords: Any) -> Any:
        """The answer to a command of `worker.COMMANDS`.

        Raises:
            ArtifactError: if the process died, with what it said last; SourceError if it was the original's.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": command, **keywords}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise self._death(command)
        return json.loads(answer)

    def _death(self, command: str) -> SourceError | ArtifactError:
        code = self._process.wait(PATIENCE)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._errors.seek(0)
        lines = [line.rstrip() for line in self._errors if line.strip()][-LAST_LINES:]
        said = "\n".join(f"  {line}" for line in lines or ["(it said nothing)"])
        where = f"{self.name} ({self.contestant.path})" if self.contestant else self.name
        error = self.contestant.error if self.contestant else SourceError
        return error(
            f"{where}: its process ended at {command!r} with {how}:\n{said}\n"
            "Mend what it names, or leave this one out; a process killed by SIGKILL had too little memory."
        )

    def close(self) -> None:
        """End the process; temporary files of its own go with it."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
