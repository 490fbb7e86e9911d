"""Keras, TensorFlow and OpenVINO: imported where they are needed, the right ones, without reports of their use."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import linecache
import os
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from traceback import walk_tb
from types import FrameType
from typing import Any

from sbertconv.errors import MissingDependencyError, SbertconvError, UnsupportedOptionError, error_text, require

OLDEST_KERAS = 3
MODULE = "<module>"  # the name of the code that an import runs
OPENVINO_REPORTS = "openvino_telemetry"


def version_of(package: str) -> str | None:
    """The installed version of a package, under its own name or that of its build for the CPU."""
    for name in (package, f"{package}-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None


def private(owner: Any, name: str, package: str) -> Any:
    """An attribute that a package does not document. Only files with `compat` in their name ask for one.

    Raises:
        MissingDependencyError: if the installed version does not have it.
    """
    if not hasattr(owner, name):
        kind = getattr(owner, "__name__", type(owner).__name__)
        raise MissingDependencyError(
            f"{package} {version_of(package)}: {kind} has no {name}, which sbertconv goes by.\n"
            f"Install a version of {package} that this version of sbertconv names: pip install sbertconv"
        )
    return getattr(owner, name)


@contextlib.contextmanager
def imports_told() -> Iterator[None]:
    """In here, a package that does not start because of what a variable of the environment says is a user's mistake.

    Raises:
        MissingDependencyError: that names the variable.
    """
    try:
        yield
    except SbertconvError:
        raise
    except Exception as error:  # packages check their variables in their own ways
        frames = list(walk_tb(error.__traceback__))
        imported = itertools.dropwhile(lambda entry: entry[0].f_code.co_name != MODULE, frames)
        named = next((found for frame, line in reversed(list(imported)) if (found := _variables(frame, line))), [])
        if not named:
            raise
        package = str(frames[-1][0].f_globals.get("__name__", "")).split(".", 1)[0]
        raise MissingDependencyError(
            f"{package} cannot start with {' and '.join(f'{name}={os.environ[name]!r}' for name in named)} in the "
            f"environment: {error_text(error)}\nUnset {' and '.join(named)}, or set what {package} takes."
        ) from error


def _variables(frame: FrameType, line: int) -> list[str]:
    """The variables of the environment that a line of a module, or the function that it is in, reads by name."""
    code = frame.f_code
    if code.co_name == MODULE:
        names = set(re.findall(r"\w+", linecache.getline(code.co_filename, line)))
    else:
        names = {value for value in code.co_consts if isinstance(value, str)}
        names |= {value for name in code.co_names if isinstance(value := frame.f_globals.get(name), str)}
    return sorted(names & os.environ.keys())


class Replaced:
    """Functions and settings of other libraries that are others while anything is in here, in whatever thread, and
    their own again behind the last that leaves.
    """

    def __init__(self, others: Callable[[], Iterator[tuple[Any, str, Any]]]) -> None:
        """`others` gives owner, name, and what takes its place; it is asked at the first entrance, and may import."""
        self._others = others
        self._lock = threading.Lock()
        self._inside = 0
        self._own: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                others = list(self._others())
                self._own = [(owner, name, getattr(owner, name)) for owner, name, _ in others]
                self._set(others)
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._set(self._own)

    def _set(self, values: list[tuple[Any, str, Any]]) -> None:
        for owner, name, value in values:
            setattr(owner, name, value)


def import_keras() -> Any:
    """The keras package, on whatever backend the user has chosen.

    Raises:
        MissingDependencyError: if it, or its backend, is not installed.
        UnsupportedOptionError: if Keras 2 is asked for.
    """
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        raise UnsupportedOptionError(
            "TF_USE_LEGACY_KERAS is set, which makes TensorFlow use Keras 2 (have: Keras 3).\nUnset it."
        )
    require("tf", "keras")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _without_greeting():
            import keras
    except (ImportError, ValueError) as error:  # a ValueError for a backend that Keras does not know
        raise MissingDependencyError(
            f"Keras cannot start on the backend {os.environ.get('KERAS_BACKEND', 'tensorflow')!r}: "
            f'{error_text(error)}\nInstall what is needed: pip install "sbertconv[tf]", or set KERAS_BACKEND.'
        ) from error
    if int(keras.__version__.split(".")[0]) < OLDEST_KERAS:
        raise UnsupportedOptionError(
            f'Keras {keras.__version__} is installed (have: Keras 3).\nUpdate it: pip install "sbertconv[tf]"'
        )
    return keras


@contextlib.contextmanager
def float32_policy() -> Iterator[None]:
    """Layers made in here are float32, whatever dtype policy the user has set for theirs."""
    config = import_keras().config
    kept = config.dtype_policy()
    config.set_dtype_policy("float32")
    try:
        yield
    finally:
        config.set_dtype_policy(kept)


@contextlib.contextmanager
def _without_greeting() -> Iterator[None]:
    """TensorFlow writes to the file descriptor of stderr, whatever its log level, while it is imported."""
    if "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def import_openvino() -> Any:
    """The openvino package, without the reports that importing it sends: its own stub of them is taken where the
    package `openvino_telemetry` is not there, and for the time of the import it is not. A program that imports openvino
    itself before has agreed to them.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    require("openvino", "openvino")
    if "openvino" not in sys.modules:
        kept = sys.modules.get(OPENVINO_REPORTS)
        sys.modules[OPENVINO_REPORTS] = None  # type: ignore[assignment]  # importing it raises ImportError
        try:
            importlib.import_module("openvino")
        finally:
            del sys.modules[OPENVINO_REPORTS]
            if kept is not None:
                sys.modules[OPENVINO_REPORTS] = kept
    return sys.modules["openvino"]


def import_tensorflow(formats: Collection[str]) -> Any:
    """The tensorflow package, for what only TensorFlow can write or run.

    Args:
        formats: what it is needed for, for the message.

    Raises:
        MissingDependencyError: if it is not installed.
        UnsupportedOptionError: if Keras runs on another backend.
    """
    require("tf", "tensorflow")
    backend = import_keras().backend.backend()
    if backend != "tensorflow":
        raise UnsupportedOptionError(
            f"{', '.join(sorted(formats))}: only TensorFlow writes and runs that, and KERAS_BACKEND is {backend!r} "
            "(have on every backend: keras).\nSet KERAS_BACKEND=tensorflow, or ask for formats=['keras'] alone."
        )
    import tensorflow

    return tensorflow
