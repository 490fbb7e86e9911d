"""The chain of a model as its files describe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModuleSpec:
    """One module of the chain as its files describe it; `label` is its place, e.g. "1" or "0.query.1"."""

    label: str
    type: str
    path: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.type.rsplit(".", 1)[-1]
