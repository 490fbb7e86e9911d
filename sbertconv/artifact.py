"""The converted folder: staged beside its target, described by a manifest, published by one rename."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from sbertconv.classes import class_named
from sbertconv.errors import ArtifactError

FORMAT_VERSION = 1
MANIFEST = "sbertconv.json"
KERAS_SUFFIX = ".keras"
PACKED = "/sbertconv/"  # where the last layer of a .keras file keeps the rest of the model
REQUIRED = ("model_class", "backend", "engines", "graphs", "files", "precision", "prompts", "sees_padding")
GRAPH_KEYS = ("name", "formats", "modality", "tasks", "inputs", "outputs", "tokenizer")
STAGING = re.compile(r"\.(?P<target>.+)\.sbertconv-(?P<pid>\d+)(-[0-9a-f]+)?(-scratch|(?P<old>-old))?")
SCRATCH = "-scratch"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A converted folder that exists: its manifest and, when just written, its parity report is inside it.

    Attributes:
        folder: where its files lie.
        manifest: what describes them.
        packed: the .keras file that the folder was unpacked from, or None.
    """

    folder: Path
    manifest: Mapping[str, Any]
    packed: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Absolute paths: another process may have another working folder."""
        packed = self.packed and Path(os.path.abspath(self.packed))
        return {**vars(self), "folder": Path(os.path.abspath(self.folder)), "packed": packed}

    def reopened(self) -> Artifact:
        """The same artifact in another process, read again.

        Raises:
            ArtifactError: if it is not there, or is another one by now.
        """
        place = self.packed or self.folder
        try:
            found = read_artifact(unpacked(place) if self.packed else place)
        except ArtifactError as error:
            raise ArtifactError(
                f"{place}: the model was loaded from here and cannot be opened again in this process.\n{error}\n"
                "Bring the folder to the same path, or load() it here."
            ) from error
        if found.manifest["files"] != self.manifest["files"]:
            raise ArtifactError(
                f"{place}: not the files that the model was loaded from in another process.\n"
                "Bring the same folder to this path, or load() this one."
            )
        return replace(found, packed=self.packed)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that every graph was written in."""
        return tuple(self.manifest["graphs"][0]["formats"])

    def engines(self, form: str) -> tuple[str, ...]:
        """The engines that a format was proven on."""
        return tuple(self.manifest["engines"][form])

    def path(self, name: str) -> Path:
        """A file of the manifest by its name.

        Raises:
            ArtifactError: if the name leaves the folder, or the file is missing or not as long as it was.
        """
        path = inside(self.folder, name)
        expected = self.manifest["files"].get(name)
        if expected is None or not path.is_file():
            raise ArtifactError(f"{path}: the file is missing.\nConvert the model again with --overwrite.")
        if path.stat().st_size != expected["size"]:
            raise ArtifactError(
                f"{path}: {path.stat().st_size:,} bytes instead of {expected['size']:,}: truncated or replaced.\n"
                "Copy the whole folder again, or convert the model again with --overwrite."
            )
        return path

    def verify_hashes(self) -> None:
        """Compare every file with its sha256 in the manifest.

        Raises:
            ArtifactError: naming every file that is missing or differs.
        """
        problems = []
        for name, expected in self.manifest["files"].items():
            path = inside(self.folder, name)
            if not path.is_file():
                problems.append(f"{name}: missing")
            elif sha256(path) != expected["sha256"]:
                problems.append(f"{name}: its sha256 is not that of the manifest")
        if problems:
            raise ArtifactError(
                f"{self.folder}: not as it was written:\n"
                + "\n".join(f"  {problem}" for problem in problems)
                + "\nCopy the whole folder again, or convert the model again with --overwrite."
            )


def how_to_load(folder: str | Path) -> str:
    """What opens a folder that to-st wrote, in Python."""
    manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    name = manifest.get("model_class", "SentenceTransformer")
    row = class_named(name, folder, ArtifactError)
    return row.loads.format(library=row.library, folder=str(folder))


def read_artifact(folder: str | Path) -> Artifact:
    """Read a folder's manifest and check that it can be trusted as a description.

    Raises:
        ArtifactError: for a missing, foreign or unreadable folder, a newer format, or a path that leaves it.
    """
    folder = Path(folder).expanduser()
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder.\nCheck the path.")
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: has no {MANIFEST}, so sbertconv did not write it.\n"
            "Convert a model first: sbertconv to-onnx, to-openvino, to-tf or to-torch."
        )
    advice = "Copy the whole folder again, or convert the model again with --overwrite."
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a readable manifest: {type(error).__name__}: {error}\n{advice}") from error
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version!r}, this sbertconv reads version {FORMAT_VERSION}.\nUpdate sbertconv."
        )
    if manifest.get("backend") == "sentence-transformers":
        raise ArtifactError(f"{folder}: written by to-st, not a converted model.\nOpen it with {how_to_load(folder)}.")
    missing = [key for key in REQUIRED if key not in manifest]
    if not missing:
        own = class_named(manifest["model_class"], path, ArtifactError).keys
        missing = [key for key in own if key not in manifest]
    if missing:
        raise ArtifactError(f"{path}: {', '.join(missing)} missing.\n{advice}")
    try:
        names = [name for name, file in manifest["files"].items() if file["sha256"] and file["size"] >= 0]
        graphs = [{key: graph[key] for key in GRAPH_KEYS} for graph in manifest["graphs"]]
        names += [file for graph in graphs for file in graph["formats"].values()]
        names += [graph["tokenizer"]["file"] for graph in graphs if graph["tokenizer"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a readable manifest: {type(error).__name__}: {error}\n{advice}") from error
    for name in names:
        inside(folder, name)
    return Artifact(folder, manifest)


def is_keras_artifact(model: Any) -> bool:
    """Whether this is the path of a .keras file, or of a folder that `to-tf` wrote."""
    if not isinstance(model, (str, Path)):
        return False
    path = Path(model).expanduser()
    if path.suffix == KERAS_SUFFIX and path.is_file():
        return True
    try:
        return bool(json.loads((path / MANIFEST).read_text(encoding="utf-8"))["backend"] == "keras")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def unpacked(file: str | Path) -> Path:
    """The artifact inside a .keras file, as a folder that lives as long as this process.

    Raises:
        ArtifactError: if the file is missing, or was not written from a converted model.
    """
    file = Path(file).expanduser()
    folder = Path(tempfile.mkdtemp(prefix="sbertconv-"))
    atexit.register(_remove, folder, os.getpid())
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if PACKED in name and not name.endswith("/")]
            for name in names:
                path = inside(folder, name.partition(PACKED)[2])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))
    except (OSError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{file}: not a readable .keras file: {error}\nCheck the path.") from error
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{file}: holds no {MANIFEST}, so it does not come from sbertconv.\n"
            "Convert a model with sbertconv to-tf, and save the Keras model that it gives."
        )
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    model = inside(folder, manifest["graphs"][0]["formats"]["keras"])
    link_or_copy(file, model)
    manifest["files"] = described(folder)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _remove(folder: Path, owner: int) -> None:
    """A process that was forked off ends without taking the folder from the one that made it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def folder_name(folder: Path) -> str:
    """What its user calls a folder: a link has its own name, not that of what it leads to."""
    return Path(os.path.abspath(folder)).name


def link_or_copy(file: Path, target: Path) -> None:
    """The same file in another place, without its bytes twice where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), target)
    except OSError:  # another file system
        shutil.copyfile(file, target)


def inside(folder: Path, name: str) -> Path:
    """The path of a file of the folder.

    Raises:
        ArtifactError: if the name is absolute, climbs out, or follows a link out of the folder.
    """
    path = folder / name
    climbs = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name.replace("\\", "/")).parts
    if climbs or not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{folder / MANIFEST}: the path {name!r} leaves the folder.\nDo not use this folder.")
    return path


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a folder but its manifest, by its name in it."""
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def sha256(path: Path) -> str:
    """The hex digest of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class Staging:
    """A hidden folder beside the target that becomes the target in one rename.

    The name holds the process id, so that the next run removes what a killed one left behind.
    """

    def __init__(self, target: Path, overwrite: bool) -> None:
        self.target = target
        self.overwrite = overwrite
        self.folder = target.parent / f".{target.name}.sbertconv-{os.getpid()}-{secrets.token_hex(4)}"

    def scratch(self) -> Path:
        """A folder beside the artifact for what is not part of it; it goes when the staging ends."""
        folder = self.folder.with_name(f"{self.folder.name}{SCRATCH}")
        folder.mkdir(exist_ok=True)
        return folder

    def write(self, name: str, text: str) -> None:
        """Write a text file of the artifact."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def manifest(self, content: Mapping[str, Any]) -> Artifact:
        """Write the manifest, with size and sha256 of every file written so far."""
        full = {"format_version": FORMAT_VERSION, **content, "files": described(self.folder)}
        self.write(MANIFEST, json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return Artifact(self.folder, full)

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
            raise ArtifactError(f"{self.target}: exists already.\nPass --overwrite to replace it, or another folder.")
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
            known = {MANIFEST, *json.loads((self.target / MANIFEST).read_text(encoding="utf-8"))["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            known = {MANIFEST}
        found = (path.relative_to(self.target).as_posix() for path in self.target.rglob("*") if not path.is_dir())
        return sorted(name for name in found if name not in known)


@contextlib.contextmanager
def stage(target: str | Path, *, overwrite: bool = False) -> Iterator[Staging]:
    """A staging folder for `target`; whatever happens inside, only `publish()` touches the target.

    Raises:
        ArtifactError: if the target exists without `overwrite`, or its parent cannot be written.
    """
    target = Path(target).expanduser().resolve()  # a link stays, what it leads to is replaced
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
        if not match or match["target"] != target.name or _is_running(int(match["pid"])):
            continue
        if match["old"] and not target.exists():
            os.rename(path, target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


RENAME_EXCHANGE = 2  # linux/fs.h
AT_FDCWD = -100


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
