"""How an engine computes: threads, device, and what ONNX Runtime is told beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sbertconv.errors import UnsupportedOptionError
from sbertconv.runtime.batches import usable_cores

CPU = "cpu"
MOST_THREADS = 4096  # an engine starts as many as it is told


def default_threads() -> int:
    """The number of OMP_NUM_THREADS where it is set, else of the cores that this process may use."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(int(first[:9]), MOST_THREADS) if first.isdecimal() and int(first[:9]) else usable_cores()


def check_told(session_options: Any, providers: Any) -> None:
    """Raise UnsupportedOptionError for session options that are no dict of names, or providers that are no list of
    names and of pairs of a name and a dict.
    """
    named = isinstance(session_options, Mapping) and all(isinstance(name, str) for name in session_options)
    if not (named and isinstance(providers, (list, tuple)) and all(map(_is_provider, providers))):
        raise UnsupportedOptionError(
            f"session_options={session_options!r:.80}, providers={providers!r:.80} (have: a dict, and a list of names "
            "or of pairs of a name and a dict).\nPass these."
        )


def _is_provider(given: Any) -> bool:
    if isinstance(given, tuple) and len(given) == 2:
        return isinstance(given[0], str) and isinstance(given[1], Mapping)
    return isinstance(given, str)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine computes. It travels with a loaded model: another process opens the model with the same options.

    Attributes:
        threads: of all batches together; None: `default_threads()` of the process that computes.
        parallel: how many batches run at once, each on its share of the threads.
        device: "cpu", "cuda", "cuda:1", of OpenVINO also "gpu" and "npu"; None: the engine's own.
        batch_tokens: tokens of a batch, padding included, unless one text is longer; None: as many as the caches hold.
        providers: of ONNX Runtime, in place of the device: names, or pairs of a name and its options.
        session_options: of ONNX Runtime: attributes of its SessionOptions, and configuration entries, which have a dot.
    """

    threads: int | None = None
    parallel: int = 1
    device: str | None = None
    batch_tokens: int | None = None
    providers: tuple[str | tuple[str, Mapping[str, Any]], ...] = ()
    session_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no engine takes.

        Raises:
            UnsupportedOptionError: for no thread, a device that is no name with a number, or what ONNX Runtime is told
                if that has no names.
        """
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise UnsupportedOptionError(
                f"threads={self.threads} (have: 1 to {MOST_THREADS:,}).\nLeave it out for every core."
            )
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise UnsupportedOptionError(f"batch_tokens={self.batch_tokens} (have: 1 and more).\nLeave it out.")
        name, colon, number = (self.device or CPU).partition(":")
        if not name or (colon and not number.isdecimal()):
            raise UnsupportedOptionError(f"device {self.device!r} is no device.\nPass a name, such as cpu or cuda:1.")
        check_told(self.session_options, self.providers)

    @property
    def cores(self) -> int:
        """The threads that compute."""
        return self.threads or default_threads()

    @property
    def kind(self) -> str:
        """The device without its number, in small letters."""
        return (self.device or CPU).partition(":")[0].lower()

    @property
    def number(self) -> int:
        """The number of the device among those of its kind."""
        return int((self.device or CPU).partition(":")[2] or 0)
