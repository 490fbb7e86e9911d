"""The exception tree.

    SbertconvError
    ├── SourceError                the model cannot be found, read or trusted
    ├── UnsupportedModuleError     a module of the chain has no converter and cannot be traced
    ├── UnsupportedOptionError     a setting of a module or an option of a command is not supported
    │   └── UnreadableInputError   an image or a sound of a call cannot be read (has .index)
    ├── MissingDependencyError     an extra is not installed (also an ImportError)
    ├── DuplicateConverterError    a second converter for the same module type
    ├── ParityError                the converted model differs from encode() (has .report)
    ├── TokenizationError          the tokenizer inside a graph differs from the model's, or one fails on a text
    └── ArtifactError              a converted folder cannot be written, read or trusted

Line 1 of a message says what and where, then what is available, the last line what to do.
`exit_code` is what the command line returns: 1 cannot convert, 2 usage, 3 parity failed.
"""

from __future__ import annotations

import importlib.util
import re
from typing import Any, Protocol

# What a terminal obeys or hides: controls, turns of the writing direction, halves of characters
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

CONVERT_AGAIN = "Convert the model again with overwrite=True."  # for a folder of which a part is broken
WAYS_OUT = (  # for a model that a backend cannot hold
    "Try another backend, which may take it, or write what is named there as operations on tensors and register a "
    "converter: docs/extending.md"
)
LONGEST_LINE, MOST_LINES = 4000, 200  # characters and lines of a message
COLOURS = re.compile("\x1b\\[[0-9;]*m")
AUTOGRAPH = "in user code:"  # how an error of TensorFlow's begins that lists the lines of a function first
PLACES = ('File "', "Exception from ")  # how a line of an engine's error begins that is no reason
OF_A_TYPE = re.compile(r"\w+(Error|Exception): ")


def visible(text: str) -> str:
    """Text that a terminal shows as it is: a character that would move its cursor, name its window or turn the writing
    round is written as JSON writes it, so that JSON stays the same.
    """
    return HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(text: str) -> str:
    """Text without the middle of a long line, and without the lines before the last where there are many: lists of
    names may be as long as a file.
    """
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        left_out = len(lines) - MOST_LINES
        lines = [*lines[: MOST_LINES - 1], f"  and {left_out:,} lines more", lines[-1]]
    half = LONGEST_LINE // 2
    return "\n".join(line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}" for line in lines)


class SbertconvError(Exception):
    """Base class of every error raised on purpose. Its text is `visible` and `shortened`, for it has names and settings
    of files.
    """

    exit_code = 1

    def __str__(self) -> str:
        return visible(shortened(super().__str__()))


class SourceError(SbertconvError):
    """The model cannot be found, read or trusted."""


class UnsupportedModuleError(SbertconvError):
    """A module of the chain has no converter and cannot be traced."""


class UnsupportedOptionError(SbertconvError):
    """A setting of a module or an option of a command is not supported."""


class UnreadableInputError(UnsupportedOptionError):
    """An image or a sound that cannot be read, with its place among the inputs of a call.

    Attributes:
        index: of the first of them, from 0.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message, index)
        self.index = index

    def __str__(self) -> str:
        return str(self.args[0])


class MissingDependencyError(SbertconvError, ImportError):
    """A package of an optional extra is not installed."""


class DuplicateConverterError(SbertconvError):
    """A converter for this backend and module type exists already."""


class ArtifactError(SbertconvError):
    """A converted folder cannot be written, read or trusted."""


class Report(Protocol):
    """The checks of a comparison; see `sbertconv.ParityReport`."""

    @property
    def passed(self) -> bool:
        """Whether every check held."""

    def to_json(self) -> dict[str, Any]:
        """The checks as plain types."""


class ParityError(SbertconvError):
    """The converted model differs from encode(); nothing was written. `report` holds every check."""

    exit_code = 3

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        """For errors that come from another process."""
        return type(self), (str(self), self.report)


class TokenizationError(SbertconvError):
    """The tokenizer inside a graph gives other tokens than the model's, or a tokenizer fails on a text; nothing was
    written.
    """

    exit_code = 3


def missing_packages(*packages: str) -> list[str]:
    """Those of the packages that are not installed."""
    return [package for package in packages if not is_installed(package)]


def is_installed(package: str) -> bool:
    """Whether a package is there, by its name with dots, without importing more than those around it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def require(extra: str, *packages: str) -> None:
    """Raise MissingDependencyError, naming the extra to install, unless every package is installed."""
    if missing := missing_packages(*packages):
        raise MissingDependencyError(
            f"Missing package{'s' if len(missing) > 1 else ''}: {', '.join(missing)}.\n"
            f'Install what is needed: pip install "sbertconv[{extra}]"'
        )


def error_text(error: BaseException | None, lines: int = 1) -> str:
    """The type and the first lines of a library's error, in one line."""
    found = [line.strip() for line in COLOURS.sub("", str(error)).splitlines() if line.strip()]
    if found and found[0] == AUTOGRAPH:
        reasons = [place for place, line in enumerate(found) if OF_A_TYPE.match(line)]
        return " ".join(found[(reasons or [0])[-1] :][:lines])
    return f"{type(error).__name__}: {' '.join(found[:lines])}".rstrip(": ")


def engine_text(error: BaseException) -> str:
    """The reason an engine gives for a failure, in one line, without the places in Python and C++ that TensorFlow and
    OpenVINO put before it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = [place for place, line in enumerate(lines) if line.startswith(PLACES)]
    return " ".join(lines[places[-1] + 1 :] if places else lines)
