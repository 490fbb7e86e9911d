"""The model of the library, asked: what its own code raises then comes from its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sbertconv.errors import SbertconvError, SourceError, error_text

SETTINGS = "transformer_task, modality_config, module_output_name or processing_kwargs in sentence_bert_config.json"


@contextmanager
def asking() -> Iterator[None]:
    """In here, whatever the library raises is one kind of error.

    Raises:
        SourceError: with the library's words, and the keys of the file that are most likely wrong.
    """
    try:
        yield
    except (SbertconvError, MemoryError):
        raise
    except Exception as error:
        raise SourceError(
            f"The model itself fails on texts, before anything of it is converted: {error_text(error, 3)}\n"
            f"Mend what its files say, such as {SETTINGS}."
        ) from error
