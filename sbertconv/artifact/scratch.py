"""Temporary folders with the process in their names, so that those of a killed one can be told and removed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from sbertconv.errors import ArtifactError

PREFIX = "sbertconv"
SCRATCH = re.compile(rf"{PREFIX}-(?P<host>[0-9a-f]{{8}})-(?P<pid>\d+)-.+")


def make_scratch() -> Path:
    """A new folder among the temporary files; those that killed processes of this machine left there are removed.

    Raises:
        ArtifactError: if none can be made.
    """
    try:
        sweep(Path(tempfile.gettempdir()))
        return Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{_host()}-{os.getpid()}-"))
    except OSError as error:
        raise ArtifactError(
            f"{error.filename or 'TMPDIR'}: no temporary folder can be made: {error.strerror or error}\n"
            "Make room, or set TMPDIR to a folder that you may write."
        ) from error


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for as long as it is used."""
    folder = make_scratch()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(place: Path) -> None:
    """Remove the folders of processes of this machine that are no more."""
    with contextlib.suppress(OSError):
        for path in place.iterdir():
            match = SCRATCH.fullmatch(path.name)
            if match and match["host"] == _host() and not is_running(int(match["pid"])):
                shutil.rmtree(path, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Whether there is such a process; one of somebody else is."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _host() -> str:
    """What tells containers that share a folder apart."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"
