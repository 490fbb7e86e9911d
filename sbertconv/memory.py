"""Memory that a conversion holds between its stages, and how it is given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

# Tracers, the tolerances of the graph's optimizer, warnings, file descriptor 2 and the frozen heap are the process's.
CONVERSION = threading.RLock()


def _unlocked() -> None:
    """Give a forked child a lock of its own: the thread that held the other has stayed in the parent."""
    global CONVERSION
    CONVERSION = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_unlocked)


@contextlib.contextmanager
def settled_heap() -> Iterator[None]:
    """Let one conversion run at a time, a second thread waits; and keep the collections in here from looking at what
    exists by now: the imported libraries alone are a million objects, half a second each time.
    """
    with CONVERSION, _frozen():
        yield


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
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


@contextlib.contextmanager
def bounded_memory(room: int) -> Iterator[None]:
    """Let nothing in here map more than `room` bytes beyond what the process has by now.

    The limit is the process's: other threads meet it too. Where the system knows none, as outside Linux, there is none.

    Raises:
        MemoryError: by what asks for more.
    """
    try:
        import resource

        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        least = min((limit for limit in before if limit != resource.RLIM_INFINITY), default=mapped + room)
        resource.setrlimit(resource.RLIMIT_AS, (min(least, mapped + room), before[1]))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
