"""Memory that a conversion holds between its stages, and how it is given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator


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
