"""A folder that is staged beside its target and published by one rename."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import secrets
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sbertconv.artifact.card import CARD, card
from sbertconv.artifact.folder import MANIFEST, TO_ST, Artifact, described, fresh, listed
from sbertconv.artifact.json_reading import parse_json, read_json
from sbertconv.artifact.manifest import FORMAT_VERSION, problems_of
from sbertconv.artifact.scratch import is_running
from sbertconv.errors import ArtifactError, SbertconvError

STAGING = re.compile(r"\.(?P<target>.+)\.sbertconv-(?P<pid>\d+)(-[0-9a-f]+)?(-scratch|(?P<old>-old))?")
SCRATCH = "-scratch"
LONGEST_NAME = 180  # bytes
RENAME_EXCHANGE = 2  # linux/fs.h
AT_FDCWD = -100


def short_name(name: str) -> str:
    """A name with room for more in the 255 bytes that a file system takes, another one for every name."""
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    return f"{os.fsencode(name)[:LONGEST_NAME].decode(errors='ignore')}-{zlib.crc32(os.fsencode(name)):08x}"


class Staging:
    """A hidden folder beside the target that becomes the target in one rename.

    The name holds the process id, so that the next run removes what a killed one left behind.
    """

    def __init__(self, target: Path, overwrite: bool) -> None:
        self.target = target
        self.overwrite = overwrite
        self.folder = target.parent / f".{short_name(target.name)}.sbertconv-{os.getpid()}-{secrets.token_hex(4)}"

    def scratch(self) -> Path:
        """A folder beside the artifact for what is not part of it; it goes when the staging ends."""
        folder = self.folder.with_name(f"{self.folder.name}{SCRATCH}")
        folder.mkdir(exist_ok=True)
        return folder

    def write(self, name: str, text: str) -> None:
        """Write a text file of the artifact; of a path whose bytes are no text, "?" stands in it."""
        fresh(self.folder / name).write_text(text, encoding="utf-8", errors="replace")

    def manifest(self, content: Mapping[str, Any]) -> Artifact:
        """Write the manifest, with size and sha256 of every file written so far; once it has the proof, the card too.

        Raises:
            ArtifactError: if it is none that could be read.
        """
        if "parity" in content and content["backend"] != TO_ST:
            self.write(CARD, card(content))
        full = {"format_version": FORMAT_VERSION, **content, "files": described(self.folder)}
        text = json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        text = text.encode(errors="replace").decode()
        written = parse_json(text, self.target, dict)
        if written["backend"] != TO_ST and (found := problems_of(written, closed=True)):
            raise ArtifactError(f"{self.target}: its manifest would be:\n{listed(found)}\nReport it with the model.")
        self.write(MANIFEST, text)
        return Artifact(self.folder, written)

    def publish(self) -> None:
        """Rename the staged folder to the target; an old target is exchanged for it and then removed.

        Raises:
            ArtifactError: if the target came into being meanwhile, or cannot be replaced.
        """
        try:
            if self.target.exists():
                self._refuse_existing()
                replace_folder(self.folder, self.target)
            else:
                os.rename(self.folder, self.target)
        except OSError as error:
            raise ArtifactError(f"{self.target}: cannot be written: {error.strerror}.\nNothing was changed.") from error

    def _refuse_existing(self) -> None:
        if not self.overwrite:
            raise ArtifactError(
                f"{self.target}: exists already.\nPass overwrite=True to replace it, or another folder."
            )
        if not self.target.is_dir():
            raise ArtifactError(f"{self.target}: exists and is not a folder.\nChoose another folder.")
        if any(self.target.iterdir()) and not (self.target / MANIFEST).is_file():
            raise ArtifactError(
                f"{self.target}: exists and was not written by sbertconv, so it is not replaced.\n"
                "Choose another folder, or remove it yourself."
            )
        if foreign := self._foreign_files():
            raise ArtifactError(
                f"{self.target}: holds files that sbertconv did not write and replacing it would delete: "
                f"{', '.join(foreign[:4])}{', ...' if len(foreign) > 4 else ''}.\nMove them, or choose another folder."
            )

    def _foreign_files(self) -> list[str]:
        """Files of the target that its manifest does not name."""
        try:
            known = {MANIFEST, *read_json(self.target / MANIFEST, dict)["files"]}
        except (ArtifactError, KeyError, TypeError):
            known = {MANIFEST}
        found = (path.relative_to(self.target).as_posix() for path in self.target.rglob("*") if not path.is_dir())
        return sorted(name for name in found if name not in known)


def target_path(target: str | Path) -> Path:
    """The folder that a target is, wherever the process moves to: a link stays, the folder behind it is replaced.

    Raises:
        ArtifactError: if no folder can have that name.
    """
    try:
        path = Path(target).expanduser().resolve()
        path.exists()
    except (OSError, TypeError, ValueError, RuntimeError) as error:  # a loop of links, a name that no file can have
        raise ArtifactError(f"{str(target)!r:.200}: cannot be written: {error}\nChoose another folder.") from error
    return path


@contextlib.contextmanager
def stage(target: str | Path, *, overwrite: bool = False) -> Iterator[Staging]:
    """A staging folder for `target`; whatever happens inside, only `publish()` touches the target.

    Raises:
        ArtifactError: if the target exists without `overwrite`, or its parent cannot be written.
    """
    target = target_path(target)
    staging = Staging(target, overwrite)
    if target.exists():
        staging._refuse_existing()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        staging.folder.mkdir()
    except OSError as error:
        raise ArtifactError(
            f"{target}: cannot be written: {error.strerror}.\nChoose a folder you may write."
        ) from error
    try:
        yield staging
    except SbertconvError as error:  # what is staged is in nobody's words
        error.args = tuple(
            part.replace(f"{staging.folder}", f"{target}") if isinstance(part, str) else part for part in error.args
        )
        raise
    except OSError as error:
        raise ArtifactError(
            f"{target}: writing failed: {error.strerror or error}.\nNothing was changed; make room and try again."
        ) from error
    finally:
        shutil.rmtree(staging.folder, ignore_errors=True)
        shutil.rmtree(staging.folder.with_name(f"{staging.folder.name}{SCRATCH}"), ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove the staging folders of runs that were killed; an old folder that stood aside comes back."""
    for path in target.parent.iterdir():
        match = STAGING.fullmatch(path.name)
        if not match or match["target"] != short_name(target.name) or is_running(int(match["pid"])):
            continue
        if match["old"] and not target.exists():
            os.rename(path, target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def replace_folder(new: Path, old: Path) -> None:
    """Put `new` in the place of `old`. On Linux one system call exchanges them, so that a kill at any moment
    leaves one whole folder there; elsewhere the old one steps aside and comes back if the rename fails.
    """
    if not _exchange(new, old):
        aside = new.with_name(new.name + "-old")
        os.rename(old, aside)
        try:
            os.rename(new, old)
        except BaseException:  # an interrupt included
            os.rename(aside, old)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)
