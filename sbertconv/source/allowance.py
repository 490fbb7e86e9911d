"""How much a model may ask for, while it is loaded and for its first answer: a setting of ten letters can name a tensor
of terabytes, and another a loop without an end.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sbertconv.errors import SourceError
from sbertconv.source.files import COPY, WEIGHT_FILES
from sbertconv.source.torch_compat import TorchDispatchMode, allocates, on_meta, storage_of, tree_flatten

FREE = 1 << 29  # bytes that any model may take
TIMES = 8  # of its weights' files: float32 of half-precision numbers, and copies on the way
MOST_TENSORS = 1 << 18  # the largest models have a tenth of that


class Allowance(TorchDispatchMode):
    """In here, PyTorch holds no more memory at a time than goes with the weights of a folder, and makes no more tensors
    than models do: whatever setting, at whatever depth of whatever file, would ask for them. A tensor that is too large
    is not made at all, as far as its size can be told beforehand.

    Attributes:
        exceeded: whether more was asked for, which the library may have turned into an error of its own.

    Raises:
        SourceError: where more is asked for.
    """

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder = folder
        self.taken = self.count = 0
        self.exceeded: SourceError | None = None
        self._held: dict[int, int] = {}  # where numbers lie -> bytes

    @functools.cached_property
    def due(self) -> int:
        """Bytes, once the files are there: they may come from the Hub meanwhile."""
        files = {file for name in WEIGHT_FILES for file in (self.folder or Path()).rglob(name)}
        return FREE + TIMES * sum(file.stat().st_size for file in files)

    def __torch_dispatch__(
        self, operator: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count what it makes."""
        kwargs = kwargs or {}
        if not _allocates(operator):
            return operator(*args, **kwargs)
        self.count += 1
        self._check(sum(map(_size, _tensors(on_meta(operator, args, kwargs)))))
        found = operator(*args, **kwargs)
        for tensor in _tensors(found):
            if tensor.device.type == "cpu" and (place := storage_of(tensor)) not in self._held:
                self._held[place] = size = _size(tensor)
                self.taken += size
                weakref.finalize(tensor.untyped_storage(), self._let_go, place).atexit = False
        self._check(0)
        return found

    def _let_go(self, place: int) -> None:
        self.taken -= self._held.pop(place)

    def _check(self, more: int) -> None:
        taken = self.taken + more
        if self.count > MOST_TENSORS or (taken > FREE and taken > self.due):
            self.exceeded = SourceError(
                f"its settings ask for more than its files hold: {self.count:,} tensors, of {taken:,} bytes "
                f"(have: up to {MOST_TENSORS:,}, and {TIMES} times the size of its weights).\n{COPY}"
            )
            raise self.exceeded


def _tensors(found: Any) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found]
    return [leaf for leaf in tree_flatten(found)[0] if isinstance(leaf, torch.Tensor)]


def _size(tensor: torch.Tensor) -> int:
    return int(tensor.nbytes)


_allocates = functools.cache(allocates)
