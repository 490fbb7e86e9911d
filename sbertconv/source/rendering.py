"""How much a chat template may make of what it gets: ten letters of it can be a text of gigabytes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from sbertconv.errors import SourceError
from sbertconv.frameworks import Replaced
from sbertconv.memory import bounded_memory

ROOM = 1 << 29  # bytes that a template may take; what it repeats is as long as it says
LONGEST = 100_000  # characters that it may write of its own: a tokenizer makes a hundred times as many bytes of them
TIMES = 8  # that it may write a text


@contextlib.contextmanager
def room_of_templates(template: str) -> Iterator[None]:
    """Let what is made of a chat template take no more memory than any of them needs.

    Raises:
        SourceError: where it asks for more.
    """
    try:
        with bounded_memory(ROOM):
            yield
    except MemoryError as error:
        raise _refusal(template, f"takes more than {ROOM >> 20} MiB of memory") from error


def _refusal(template: str, problem: str) -> SourceError:
    return SourceError(
        f"chat template {template[:60]!r} {problem} (have: up to {ROOM >> 20} MiB, and {LONGEST:,} characters "
        f"beside its texts).\nDo not use this model, or mend the template."
    )


def _compiled(function: Callable[..., Any], template: str) -> Any:
    """What `function`, a library's, compiles a template to, within bounds."""
    with room_of_templates(template):
        return function(template)


def _rendered(function: Callable[..., Any], *args: Any, **given: Any) -> Any:
    """What `function`, a library's, renders of conversations, within bounds."""
    template = str(given["chat_template"])
    with room_of_templates(template):
        found = function(*args, **given)
        for text, messages in zip(found[0], given["conversations"], strict=True):
            if len(text) > LONGEST + TIMES * len(str(messages)):
                raise _refusal(template, f"writes {len(text):,} characters")
    return found


def _others() -> Iterator[tuple[Any, str, Any]]:
    from sbertconv.source.transformers_compat import COMPILES, RENDERS, templating

    for owner, name in templating(RENDERS):
        yield owner, name, functools.partial(_rendered, getattr(owner, name))
    for owner, name in templating(COMPILES):
        yield owner, name, functools.partial(_compiled, getattr(owner, name))


# In here, no library compiles or renders a chat template, wherever it comes from and whatever it is asked with, but
# within bounds; where one asks for more, that is a SourceError.
bounded_templates = Replaced(_others)
