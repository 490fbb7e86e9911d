"""How much a model may ask for while it is loaded: a setting of ten letters can name a weight of terabytes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sbertconv.errors import SourceError
from sbertconv.source.files import COPY, WEIGHT_FILES
from sbertconv.source.torch_compat import TorchDispatchMode, allocates

FREE = 1 << 29  # bytes that any model may take
TIMES = 8  # of its weights' files: float32 of half-precision numbers, and copies on the way
MOST_TENSORS = 1 << 18  # the largest models have a tenth of that


class Allowance(TorchDispatchMode):
    """In here, PyTorch makes no more memory than goes with the weights of a folder, and no more tensors than models
    have: whatever setting, at whatever depth of whatever file, would ask for them.

    Raises:
        SourceError: where more is asked for.
    """

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder = folder
        self.taken = self.count = 0

    @functools.cached_property
    def due(self) -> int:
        """Bytes, once the files are there: they may come from the Hub meanwhile."""
        files = {file for name in WEIGHT_FILES for file in (self.folder or Path()).rglob(name)}
        return FREE + TIMES * sum(file.stat().st_size for file in files)

    def __torch_dispatch__(
        self, operator: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count what it made."""
        found = operator(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and _allocates(operator):
            self.count += 1
            self.taken += found.numel() * found.element_size() if found.device.type == "cpu" else 0
            if self.count > MOST_TENSORS or (self.taken > FREE and self.taken > self.due):
                raise SourceError(
                    f"its settings ask for more than its files hold: {self.count:,} tensors, of {self.taken:,} bytes "
                    f"(have: up to {MOST_TENSORS:,}, and {TIMES} times the size of its weights).\n{COPY}"
                )
        return found


_allocates = functools.cache(allocates)
