"""The folder that an output goes to, on this machine or in a store of fsspec: a ledger, and files that are there whole
or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from sbertconv.artifact.folder import inside
from sbertconv.errors import SbertconvError, UnsupportedOptionError, error_text, require

LEDGER = "_sbertconv.jsonl"  # readers of folders pass over names that begin so
PARTIAL = ".partial"
AT_ONCE = 1000  # lines that are asked of a store together
WriteFile = Callable[[Any], None]


class Store(Protocol):
    """Where an output goes.

    Attributes:
        ledger: what messages call the ledger.
    """

    ledger: str

    def lines(self) -> Iterator[bytes]:
        """The ledger's lines that are whole."""

    def cut(self, number: int) -> None:
        """Keep so many lines of the ledger, and remove what a killed run left half-written."""

    def append(self, line: bytes) -> None:
        """Add a line to the ledger; it is stored when this returns."""

    def names(self, pattern: str) -> list[str]:
        """The names of the files of a pattern, in order."""

    def has(self, name: str) -> bool:
        """Whether a file of this name is there. Raises ArtifactError for a name that leaves the folder."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises UnsupportedOptionError if it cannot be read."""

    def remove(self, pattern: str) -> None:
        """Remove the files of a pattern. Raises UnsupportedOptionError if one stays."""

    def write(self, name: str, write: WriteFile) -> None:
        """A file that `write` fills. Raises UnsupportedOptionError if it cannot be written; nothing is there then."""

    def close(self) -> None:
        """Let it go."""


def store_of(output: str | Path) -> Store:
    """The store of an output.

    Raises:
        UnsupportedOptionError: if it cannot be opened, or another run writes to it.
    """
    text = str(output)
    if "://" not in text:
        return LocalStore(Path(text))
    require("tables", "fsspec")
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(text)
        if isinstance(system, fsspec.implementations.local.LocalFileSystem):
            return LocalStore(Path(path))
        return RemoteStore(system, path.rstrip("/"), text.rstrip("/"))
    except SbertconvError:
        raise
    except Exception as error:  # each file system has its own
        raise UnsupportedOptionError(f"{text}: cannot be opened: {error}.\nChoose another --output.") from error


def no_link(path: str, flags: int) -> int:
    """Open a file, but not what a link of its name leads to: of an output folder everything is written in it."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def not_written(place: object, error: Exception) -> UnsupportedOptionError:
    """The error for a file that cannot be written."""
    return UnsupportedOptionError(
        f"{place}: cannot be written: {getattr(error, 'strerror', None) or error}.\n"
        "Make room and give the same command again: what is done stays."
    )


class LocalStore:
    """A folder, held by one process at a time. The ledger is a file of lines; files are written beside their names,
    flushed to the disk and renamed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = str(folder / LEDGER)
        self.held = False
        try:
            self.made = [one for one in (folder, *folder.parents) if not one.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            self.file = open(self.ledger, "a+b", opener=no_link)  # noqa: SIM115  # closed by close()
        except (OSError, ValueError) as error:  # ValueError: a null in its name
            reason = getattr(error, "strerror", None) or error
            raise UnsupportedOptionError(
                f"{self.ledger}: cannot be opened: {reason}.\nChoose another --output."
            ) from error
        try:
            self._lock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let it go. Of a run that ended before its first line, nothing stays."""
        if self.held and not os.fstat(self.file.fileno()).st_size:
            with suppress(OSError):  # something else may lie in the folder by now
                os.unlink(self.ledger)
                for folder in self.made:
                    folder.rmdir()
        self.file.close()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held = os.path.samestat(os.fstat(self.file.fileno()), os.lstat(self.ledger))
            if not self.held:  # who held it has removed it
                raise FileNotFoundError(self.ledger)
        except OSError as error:
            raise UnsupportedOptionError(
                f"{self.folder}: another run writes to it.\nWait for it, or choose another folder."
            ) from error

    def lines(self) -> Iterator[bytes]:
        self.file.seek(0)
        yield from (line for line in self.file if line.endswith(b"\n"))

    def cut(self, number: int) -> None:
        self.file.seek(0)
        self.file.truncate(sum(map(len, islice(self.file, number))))
        self.remove(f".*{PARTIAL}")

    def append(self, line: bytes) -> None:
        self.file.write(line)
        self.file.flush()
        os.fsync(self.file.fileno())

    def names(self, pattern: str) -> list[str]:
        return sorted(path.name for path in self.folder.glob(pattern))

    def has(self, name: str) -> bool:
        return inside(self.folder, name, self.ledger).is_file()

    def read(self, name: str) -> bytes:
        with self._reached(name):
            return (self.folder / name).read_bytes()

    def remove(self, pattern: str) -> None:
        for path in self.folder.glob(pattern):
            with self._reached(path.name):
                path.unlink(missing_ok=True)

    @contextmanager
    def _reached(self, name: str) -> Iterator[None]:
        """In here a file is read or removed, which may be a folder, or not be allowed."""
        try:
            yield
        except OSError as error:
            raise UnsupportedOptionError(
                f"{self.folder / name}: cannot be read or removed: {error.strerror or error}.\n"
                "Remove it, or choose another --output."
            ) from error

    def write(self, name: str, write: WriteFile) -> None:
        partial = self.folder / f".{name}{PARTIAL}"
        try:
            partial.unlink(missing_ok=True)  # it may be a link to somewhere else
            with partial.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / name)
        except OSError as error:
            raise not_written(self.folder / name, error) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)  # unless it has its name by now


class RemoteStore:
    """A folder of a store that fsspec reaches. Such stores neither append nor lock: the ledger is a folder with an
    object for each line, and two runs at once are not noticed. A file is written in a transaction of fsspec: an object
    store has nothing before its end, others rename.
    """

    def __init__(self, system: Any, root: str, output: str) -> None:
        self.system, self.root, self.output = system, root, output
        self.ledger = f"{output}/{LEDGER}"
        self.next = 0
        self._present: set[str] | None = None
        system.makedirs(f"{root}/{LEDGER}", exist_ok=True)

    def close(self) -> None:
        """Nothing is held."""

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """In here the store is asked; whatever its file system raises is one kind of error."""
        try:
            yield
        except SbertconvError:
            raise
        except Exception as error:
            raise UnsupportedOptionError(
                f"{self.output}: cannot be reached: {error_text(error)}\nCheck the address, or choose another --output."
            ) from error

    def _lines(self) -> list[str]:
        with self._reached():
            self.system.invalidate_cache()
            return sorted(path for path in self.system.find(f"{self.root}/{LEDGER}"))

    def lines(self) -> Iterator[bytes]:
        paths = self._lines()
        for start in range(0, len(paths), AT_ONCE):
            with self._reached():
                found = self.system.cat(paths[start : start + AT_ONCE])  # a dict even of one: a list was asked for
            yield from (found[path] for path in paths[start : start + AT_ONCE])

    def cut(self, number: int) -> None:
        for path in self._lines()[number:]:
            with self._reached():
                self.system.rm_file(path)
        self.next = number

    def append(self, line: bytes) -> None:
        self.write(f"{LEDGER}/{self.next:012d}", lambda file: file.write(line))
        self.next += 1

    def names(self, pattern: str) -> list[str]:
        with self._reached():
            return sorted(path.rsplit("/", 1)[-1] for path in self.system.glob(f"{self.root}/{pattern}"))

    def has(self, name: str) -> bool:
        inside(Path(), name, self.ledger)
        if self._present is None:  # asked once: the names are fewer than the requests would be
            self._present = set(self.names("*"))
        return name in self._present

    def read(self, name: str) -> bytes:
        with self._reached():
            return bytes(self.system.cat_file(f"{self.root}/{name}"))

    def remove(self, pattern: str) -> None:
        for name in self.names(pattern):
            with self._reached():
                self.system.rm_file(f"{self.root}/{name}")

    def write(self, name: str, write: WriteFile) -> None:
        import pyarrow as pa

        try:
            with self.system.transaction:
                with self._reached():
                    opened = self.system.open(f"{self.root}/{name}", "wb")
                with opened as file:
                    write(file)
        except (SbertconvError, pa.ArrowException):
            raise
        except Exception as error:  # each file system has its own
            raise not_written(f"{self.output}/{name}", error) from error
