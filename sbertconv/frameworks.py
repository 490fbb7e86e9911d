"""Keras, TensorFlow and OpenVINO: imported where they are needed, the right ones, without reports of their use."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sbertconv.errors import MissingDependencyError, UnsupportedOptionError, error_text, require

OLDEST_KERAS = 3
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
