"""Folders laid out for software that opens them by itself, and proven as that software reads them.

A row has the consumer's own rule in Python: its files, its cut, its pick of an output, its pooling. `pack` publishes a
folder when the answers of every reader are those of `load(folder)`. One file per consumer, or per family of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from sbertconv.consumers import (
    elasticsearch,
    fastembed,
    litert,
    mean_pooling,
    opensearch,
    openvino_genai,
    sentence_transformers,
    sql,
    tensorflow_serving,
    text_embeddings_inference,
    transformers_js,
    triton,
    vespa,
)
from sbertconv.consumers.consumer import Consumer
from sbertconv.consumers.packing import pack
from sbertconv.errors import DuplicateConverterError
from sbertconv.plan.registry import register_plugins

ENTRY_POINT_GROUP = "sbertconv.consumers"
ROWS = (
    *fastembed.ROWS,
    *text_embeddings_inference.ROWS,
    *sentence_transformers.ROWS,
    *transformers_js.ROWS,
    *triton.ROWS,
    *vespa.ROWS,
    *mean_pooling.ROWS,
    *opensearch.ROWS,
    *tensorflow_serving.ROWS,
    *openvino_genai.ROWS,
    *litert.ROWS,
    *elasticsearch.ROWS,
    *sql.ROWS,
)

__all__ = ["Consumer", "Consumers", "default_consumers", "pack"]


class Consumers:
    """Rows by name and class of models."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Consumer]] = {}

    def add(self, consumer: Consumer, *, override: bool = False) -> None:
        """Add a row.

        Raises:
            DuplicateConverterError: if the name has one for this class of models and `override` is not set.
        """
        rows = self._rows.setdefault(consumer.name, {})
        if consumer.model_class in rows and not override:
            raise DuplicateConverterError(
                f"A consumer {consumer.name!r} of {consumer.model_class} is registered already.\n"
                "Pass override=True to replace it."
            )
        rows[consumer.model_class] = consumer

    @property
    def names(self) -> tuple[str, ...]:
        """What `--for` takes."""
        return tuple(self._rows)

    def rows(self, name: str) -> Mapping[str, Consumer]:
        """Class of models -> row, of one name."""
        return self._rows[name]


def default_consumers() -> Consumers:
    """The built-in rows and those of installed plugins.

    Plugins name a function `register(consumers)` in the entry point group `sbertconv.consumers`.

    Raises:
        SbertconvError: if a plugin cannot be imported or its `register` fails, with the plugin's name.
    """
    table = Consumers()
    for row in ROWS:
        table.add(row)
    register_plugins(ENTRY_POINT_GROUP, "consumer", table)
    return table
