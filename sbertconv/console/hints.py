"""What helps a user at the prompt: completions, and the name that was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sbertconv.artifact.folder import KERAS_SUFFIX, MANIFEST
from sbertconv.source.naming import cached_models, did_you_mean

# A word in quotes, and behind it the words that it might have been: as our errors and those of typer list them.
CHOICES = re.compile(r"'(?P<wrong>[^']+)'[^\n]*?(\(have: (?P<have>[^)\n]*)\)|is not one of (?P<quoted>'[^\n]*'))")

# Command -> old name of an option -> its name; an old one is taken with a notice until the next version.
RENAMED = {
    "encode": {"--precision": "--embedding-precision"},  # the weights' is --precision
    "bench": {"--json": "--json-file"},  # elsewhere --json takes no value
}


def with_new_names(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line with the new names of options in the place of old ones, and a notice for each."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    names = RENAMED.get(command, {})
    found, notices = [], []
    for word in arguments:
        name, sign, value = word.partition("=")
        if name in names:
            notices.append(f"Note: {name} is {names[name]} now; the old name goes in the next version.")
        found.append(f"{names.get(name, name)}{sign}{value}")
    return found, notices


def with_suggestion(message: str) -> str:
    """The message, with the choice most like the one that was given behind its first line."""
    found = CHOICES.search(message)
    if found is None or "Did you mean" in message:
        return message
    listed = found["have"] or found["quoted"].replace("'", "")
    names = listed.split(", ")
    if found["wrong"] in names:  # a kind of thing that has the name of the thing
        return message
    first, line_break, rest = message.partition("\n")
    return f"{first}{did_you_mean(found['wrong'], names)}{line_break}{rest}"


def _entries(incomplete: str) -> Iterator[tuple[str, Path]]:
    """The entries of a folder that a path begun so may mean, as the user would go on writing it."""
    written = incomplete[: incomplete.rfind("/") + 1]
    try:
        folder = Path(written or ".").expanduser()
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except (OSError, RuntimeError, ValueError):  # nobody of that name, a folder that is not ours to read
        return
    for path in paths:
        if not path.name.startswith(".") and f"{written}{path.name}".startswith(incomplete):
            yield f"{written}{path.name}", path


def complete_model(incomplete: str) -> list[str]:
    """Folders, .keras files, and models in the Hub's cache."""
    folders = [f"{name}/" if path.is_dir() else name for name, path in _entries(incomplete) if is_model(path)]
    return [*folders, *(name for name in cached_models() if name.startswith(incomplete))]


def is_model(path: Path) -> bool:
    return path.is_dir() or path.suffix == KERAS_SUFFIX


def complete_converted(incomplete: str) -> list[str]:
    """Folders with a manifest and .keras files; folders on the way to them where there are none."""
    entries = [(name, path) for name, path in _entries(incomplete) if is_model(path)]
    converted = [name for name, path in entries if path.is_file() or (path / MANIFEST).is_file()]
    return converted or [f"{name}/" for name, _ in entries]


def complete_engine(incomplete: str) -> list[str]:
    """Names of engines."""
    from sbertconv.runtime.engines import AUTO, ENGINES

    return [name for name in (AUTO, *ENGINES) if name.startswith(incomplete)]
