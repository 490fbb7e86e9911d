"""Which tokens of a text count in late interaction, as MultiVectorMask decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TASKS = ("query", "document")  # what encode_query and encode_document ask for
IS_QUERY = "is_query"  # the input of a graph: 1 for a query, 0 for a document, int64 [batch]


@dataclass(frozen=True)
class ScoringRule:
    """The settings of one MultiVectorMask and of the query expansion before it.

    Attributes:
        expanded: so many leading positions of a query count whatever the attention mask says; 0: those alone that it
            says.
        skipped: token ids that do not count.
        skipping: the tasks in which they do not.
        kept: of anything but a query, the token ids that alone count; empty: all.
    """

    expanded: int
    skipped: tuple[int, ...]
    skipping: tuple[str, ...]
    kept: tuple[int, ...]

    @classmethod
    def of(cls, mask: torch.nn.Module, modules: Sequence[Any], skipped: tuple[int, ...]) -> ScoringRule:
        """The rule of a MultiVectorMask among the modules of its route; `skipped` are the ids that it leaves out."""
        found = [getattr(module, "query_expansion", None) for module in modules]
        expansion = next((one for one in found if one is not None and not one["attend"]), None)
        named: Any = mask.skiplist_tasks
        skipping = tuple(task for task in TASKS if task in named)
        skipped = skipped if skipping else ()
        kept: Any = mask.keep_only_token_ids
        return cls(expansion["length"] if expansion else 0, skipped, skipping if skipped else (), tuple(kept or ()))

    @property
    def tells_queries(self) -> bool:
        """Whether a token may count in a query and not in a document, or the other way round."""
        return bool(self.expanded or self.kept) or len(self.skipping) == 1
