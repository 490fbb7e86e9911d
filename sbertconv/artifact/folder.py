"""The converted folder as it is read: its manifest, its files, and the artifact inside a .keras file."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import lzma
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sbertconv.artifact.json_reading import read_json
from sbertconv.artifact.kinds import class_named
from sbertconv.artifact.manifest import FORMAT_VERSION, Manifest, limit_of, problems_of
from sbertconv.artifact.scratch import make_scratch
from sbertconv.errors import CONVERT_AGAIN, ArtifactError, SbertconvError

MANIFEST = "sbertconv.json"
KERAS_SUFFIX = ".keras"
PACKED = "/sbertconv/"  # where the last layer of a .keras file keeps the rest of the model
CHUNK = 1 << 20
MOST_MEMBERS = 1000  # of a .keras file, which has the files of a model's folder; they are a dozen
LARGEST_RATIO = 100  # of an archive's size unpacked; tokenizer files reach 10, weights 1.1
AGAIN = "Copy the whole folder again, or convert the model again with overwrite=True."
# What zipfile raises for archives that are broken, encrypted or packed in a way that it does not know
BROKEN_ARCHIVE = (
    OSError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
)
TO_ST = "sentence-transformers"  # in the place of a backend: a folder that to-st wrote


@dataclass(frozen=True)
class Artifact:
    """A converted folder that exists: its manifest and, when just written, its parity report is inside it.

    Attributes:
        folder: where its files lie, absolute: they are opened when they are needed, and by then this process, or the
            one that it was sent to, may have another working folder.
        manifest: what describes them.
        packed: the .keras file that the folder was unpacked from, absolute, or None.
    """

    folder: Path
    manifest: Manifest
    packed: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.absolute())
        object.__setattr__(self, "packed", self.packed and self.packed.absolute())

    def reopened(self) -> Artifact:
        """The same artifact in another process, read again.

        Raises:
            ArtifactError: if it is not there, or is another one by now.
        """
        place = self.packed or self.folder
        try:
            found = read_packed(place) if self.packed else read_artifact(place)
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
            raise ArtifactError(f"{path}: the file is missing.\n{CONVERT_AGAIN}")
        size = _size(path)
        if size != expected["size"]:
            raise ArtifactError(
                f"{path}: {size:,} bytes instead of {expected['size']:,}: truncated or replaced.\n"
                "Copy the whole folder again, or convert the model again with overwrite=True."
            )
        return path

    def members(self) -> Iterator[tuple[str, Path]]:
        """The name and the path of the manifest and of every file that it names; of what else lies there, nothing.

        Raises:
            ArtifactError: as `path` does.
        """
        yield MANIFEST, self.folder / MANIFEST
        yield from ((name, self.path(name)) for name in self.manifest["files"])

    @property
    def limit(self) -> int | None:
        """See `limit_of`."""
        return limit_of(self.manifest)

    def verify_hashes(self) -> None:
        """Compare every file with its sha256 in the manifest.

        Raises:
            ArtifactError: naming every file that is missing or differs.
        """
        problems = []
        for name, expected in self.manifest["files"].items():
            path = inside(self.folder, name)
            try:
                same = path.is_file() and path.stat().st_size == expected["size"] and sha256(path) == expected["sha256"]
            except OSError as error:
                problems.append(f"{name}: {error.strerror or error}")
                continue
            if not same:
                problems.append(f"{name}: {'its sha256 is not that of the manifest' if path.is_file() else 'missing'}")
        if problems:
            raise ArtifactError(
                f"{self.folder}: not as it was written:\n"
                + "\n".join(f"  {problem}" for problem in problems)
                + "\nCopy the whole folder again, or convert the model again with overwrite=True."
            )


def _size(path: Path) -> int:
    """The bytes of a file; -1 if it is gone by now."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def how_to_load(folder: str | Path) -> str:
    """What opens a folder that to-st wrote, in Python."""
    name = _read_manifest(Path(folder) / MANIFEST, Path(folder) / MANIFEST).get("model_class", "SentenceTransformer")
    row = class_named(name, folder, ArtifactError)
    return row.loads.format(library=row.library, folder=str(folder))


def given_path(given: Any, kind: type[SbertconvError] = ArtifactError) -> Path:
    """The path that a caller gives.

    Raises:
        kind: for what is none, or none that a file can have.
    """
    if not isinstance(given, (str, Path)):
        raise kind(f"{given!r:.80}: {type(given).__name__}, where a path is due.\nPass that of a folder.")
    try:
        path = Path(given).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a null in it, of an unknown user
        raise kind(f"{str(given)!r:.200}: no such folder: {error}\nCheck the path.") from error
    return path


def read_artifact(folder: str | Path, named: Path | None = None) -> Artifact:
    """Read a folder's manifest and check that it can be trusted as a description.

    Args:
        folder: where it lies.
        named: the name that messages call it by, if that is another: the .keras file that it was unpacked from.

    Raises:
        ArtifactError: for a missing, foreign or unreadable folder, a newer format, or a path that leaves it.
    """
    folder = given_path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder.\nCheck the path.")
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: has no {MANIFEST}, so sbertconv did not write it.\n"
            "Convert a model first: sbertconv to-onnx, to-openvino, to-tf or to-torch."
        )
    path = named or path
    manifest = _read_manifest(folder / MANIFEST, path)
    if manifest.get("backend") == TO_ST:
        raise ArtifactError(f"{folder}: written by to-st, not a converted model.\nOpen it with {how_to_load(folder)}.")
    if found := problems_of(manifest):
        raise ArtifactError(f"{path}: not a manifest that can be read:\n" + listed(found) + f"\n{AGAIN}")
    names = [*manifest["files"], *(file for graph in manifest["graphs"] for file in graph["formats"].values())]
    names += [file for graph in manifest["graphs"] for file in graph.get("data", ())]
    names += [graph["tokenizer"]["file"] for graph in manifest["graphs"] if graph["tokenizer"]]
    for name in names:
        inside(folder, name, path)
    return Artifact(folder, manifest)


def _read_manifest(file: Path, path: Path) -> Any:
    """The parsed manifest of a format version that is known here; messages call it `path`.

    Raises:
        ArtifactError: if it cannot be read, or is newer.
    """
    manifest = read_json(file, dict, advice=AGAIN, where=path)
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        is_newer = type(version) is int and version > FORMAT_VERSION
        raise ArtifactError(
            f"{path}: format version {version!r}, this sbertconv reads version {FORMAT_VERSION}.\n"
            f"{'Update sbertconv.' if is_newer else AGAIN}"
        )
    return manifest


def listed(problems: Sequence[str], most: int = 20) -> str:
    """Problems as lines of a message."""
    lines = [f"  {problem}" for problem in problems[:most]]
    return "\n".join([*lines, *([f"  and {len(problems) - most} more"] if len(problems) > most else [])])


def converted_file(model: Any) -> Path | None:
    """The .keras file that this is the path of, or the manifest of the folder that it is; None: neither is there."""
    if not isinstance(model, (str, Path)):
        return None
    try:
        path = Path(model).expanduser()
        file = path if path.suffix == KERAS_SUFFIX and path.is_file() else path / MANIFEST
        return file if file.is_file() else None
    except (OSError, RuntimeError, ValueError):  # no name that a file can have, the home of a user who is not there
        return None


def is_keras_artifact(model: Any) -> bool:
    """Whether this is the path of a .keras file, or of a folder that `to-tf` wrote."""
    file = converted_file(model)
    if file is None or file.suffix == KERAS_SUFFIX:
        return file is not None
    try:
        return bool(read_json(file, dict).get("backend") == "keras")
    except ArtifactError:
        return False


def unpacked(file: str | Path) -> Path:
    """The artifact inside a .keras file, as a folder that lives as long as this process.

    Raises:
        ArtifactError: if the file is missing, or was not written from a converted model.
    """
    file = given_path(file)
    folder = scratch_for_life()
    with opened_archive(file) as archive:
        refuse_crowd(archive, file)
        names = [name for name in archive.namelist() if PACKED in name and not name.endswith("/")]
        for name in names:
            path = inside(folder, name.partition(PACKED)[2], file)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as packed, path.open("wb") as written:
                shutil.copyfileobj(packed, written, CHUNK)
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{file}: holds no {MANIFEST}, so it does not come from sbertconv.\n"
            "Convert a model with sbertconv to-tf, and save the Keras model that it gives."
        )
    try:
        manifest = read_json(folder / MANIFEST, dict, where=file)
        model = inside(folder, manifest["graphs"][0]["formats"]["keras"], file)
    except (KeyError, TypeError, IndexError) as error:
        raise ArtifactError(
            f"{file}: its {MANIFEST} is not readable: {type(error).__name__}: {error}\nGet a complete copy of the file."
        ) from error
    try:
        link_or_copy(file, model)
    except OSError as error:  # a folder or a file in its place, or a name that no file can have
        place = model.relative_to(folder)
        raise ArtifactError(
            f"{file}: cannot be unpacked as {place}: {error.strerror or error}\nDo not use this file."
        ) from error
    manifest["files"] = described(folder)
    fresh(folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def read_packed(file: Path) -> Artifact:
    """The artifact inside a .keras file; see `unpacked` and `read_artifact`."""
    return replace(read_artifact(unpacked(file), file), packed=file)


@contextlib.contextmanager
def opened_archive(file: Path, named: Path | None = None) -> Iterator[zipfile.ZipFile]:
    """A zip file whose members are read in here; its sizes are bounded, see `refuse_bomb`, and its names are those of
    the files that they would be unpacked to, each once. Messages call it `named`, if that is given.

    Raises:
        ArtifactError: if it, or a member, cannot be read, it unpacks to too much, or a name is none of these.
    """
    try:
        if not file.is_file():  # opening a pipe would wait for ever
            raise OSError("no such file")
        with zipfile.ZipFile(file) as archive:
            refuse_bomb(archive, named or file)
            refuse_names(archive, named or file)
            yield archive
    except BROKEN_ARCHIVE as error:
        raise ArtifactError(f"{named or file}: not a readable archive: {error}\nGet a complete copy of it.") from error


def scratch_for_life() -> Path:
    """A temporary folder that lives as long as this process."""
    folder = make_scratch()
    atexit.register(_remove, folder, os.getpid())
    return folder


def refuse_bomb(archive: zipfile.ZipFile, file: Path) -> None:
    """Raise ArtifactError for an archive that unpacks to far more than it holds, or than there is room for; sizes are
    those of its directory, beyond which zipfile reads no member.
    """
    packed, unpacked_size = (
        sum(getattr(member, size) for member in archive.infolist()) for size in ("compress_size", "file_size")
    )
    if unpacked_size > LARGEST_RATIO * packed + CHUNK:
        raise ArtifactError(
            f"{file}: {packed:,} bytes that unpack to {unpacked_size:,}: no model compresses so well.\n"
            "Do not use this file."
        )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if unpacked_size > free:
        raise ArtifactError(
            f"{file}: unpacks to {unpacked_size:,} bytes, and {tempfile.gettempdir()} has {free:,} left.\n"
            "Make room there, or set TMPDIR to a folder with more."
        )


def refuse_names(archive: zipfile.ZipFile, file: Path) -> None:
    """Raise ArtifactError for a member that another name, or another member, would be unpacked over, on a file system
    that knows no capitals, or no dots at the end, too: what was looked at would not be what is opened.
    """
    names = archive.namelist()
    for name in names:
        if inside(file.parent, name, file).relative_to(file.parent).as_posix() != name.removesuffix("/"):
            raise ArtifactError(f"{file}: holds {name!r}, which is not how a file is called.\nDo not use this file.")
    if len({tuple(part.rstrip(". ") for part in name.casefold().split("/")) for name in names}) < len(names):
        raise ArtifactError(f"{file}: holds a file twice.\nDo not use this file.")


def refuse_crowd(archive: zipfile.ZipFile, file: Path) -> None:
    """Raise ArtifactError for a .keras file of more members than a model has, each of which becomes a file."""
    if (count := len(archive.infolist())) > MOST_MEMBERS:
        raise ArtifactError(f"{file}: holds {count:,} files (have: up to {MOST_MEMBERS:,}).\nDo not use this file.")


def _remove(folder: Path, owner: int) -> None:
    """A process that was forked off ends without taking the folder from the one that made it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def folder_name(folder: Path) -> str:
    """What its user calls a folder: a link has its own name, not that of what it leads to."""
    return Path(os.path.abspath(folder)).name


def fresh(path: Path) -> Path:
    """The path, free for a file that is written whole: its folder is there, and no file is. One that lay there may have
    a second place, see `link_or_copy`, and what is written into it would stand in both.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def link_or_copy(file: Path, target: Path) -> None:
    """The same file in another place, without its bytes twice where the file system can. Whatever is written beside
    such files takes a `fresh` path, so that nothing changes elsewhere.
    """
    fresh(target)
    try:
        os.link(file.resolve(), target)
    except OSError:  # another file system
        shutil.copyfile(file, target)


def inside(folder: Path, name: str, where: object = None) -> Path:
    """The path of a file of the folder, by a name that a file says. The folder itself may consist of links, as it does
    in the Hub's cache: they are its owner's; names are not.

    Args:
        folder: where the file lies, or will lie.
        name: its path in the folder, as a file says it.
        where: the file that says it, for the message; default the folder's manifest.

    Raises:
        ArtifactError: if the name is no relative path that stays in the folder.
    """
    posix = str(name).replace("\\", "/")
    path = PurePosixPath(posix)
    stays = isinstance(name, str) and path.parts and not (path.is_absolute() or PureWindowsPath(posix).drive)
    if not stays or ".." in path.parts or "\0" in name:
        said = folder / MANIFEST if where is None else where
        raise ArtifactError(f"{said}: the path {name!r} leaves the folder.\nDo not use this folder.")
    return folder / name


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a folder but its manifest, by its name in it."""
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def folder_hash(manifest: Mapping[str, Any]) -> str:
    """One sha256 of a converted folder: of the sizes and hashes of all its files."""
    return hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """The hex digest of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
