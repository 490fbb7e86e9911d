"""Keras and TensorFlow, imported only where they are needed and only if they are the right ones."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sbertconv.errors import MissingDependencyError, UnsupportedOptionError, error_text, require

OLDEST_KERAS = 3


def version_of(package: str) -> str | None:
    """The installed version of a package, under its own name or that of its build for the CPU."""
    for name in (package, f"{package}-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None


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
            "(have on every backend: keras).\nSet KERAS_BACKEND=tensorflow, or ask for --format keras alone."
        )
    import tensorflow

    return tensorflow


@contextlib.contextmanager
def settled_heap() -> Iterator[None]:
    """What exists by now is not looked at again by the collections in here: the imported libraries alone are a million
    objects, half a second each time.
    """
    if gc.get_freeze_count():  # whoever froze them keeps them so
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def keep_nothing_freed() -> None:
    """Let TensorFlow allocate from the C library, if it has not allocated yet: its own allocator keeps all that it ever
    had, and a conversion would need the memory of all its stages instead of the largest. Inference is about 3% slower
    so, which is why only conversions ask for it.
    """
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")


def release_memory() -> None:
    """Give back what the stage before has left: modules refer to each other in circles."""
    gc.collect()
    trim_heap()


def trim_heap() -> None:
    """Give back what is free: glibc keeps it, for each thread, until it is told not to."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
