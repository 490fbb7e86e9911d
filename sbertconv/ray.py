"""Converted folders on Ray: a callable for `Dataset.map_batches`, and workers for `sbertconv encode --on ray`."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.folder import Artifact, folder_hash, folder_name, inside, read_artifact
from sbertconv.errors import ArtifactError, require
from sbertconv.tables.embedding import EmbedTable
from sbertconv.tables.workers import Worker, WorkerDiedError, answer_to, reaching, table_in

if TYPE_CHECKING:
    import pyarrow as pa

MOST_FILES = 10_000  # of a converted folder; those that are known have up to a hundred


@dataclass(frozen=True)
class Shipped:
    """A converted folder in Ray's object store, for nodes that share no disk.

    Attributes:
        content: a reference to the folder as a tar file.
        code: the hash of its files.
        name: of the folder.
    """

    content: Any
    code: str
    name: str

    def unpacked(self) -> str:
        """The folder on this node, once for all of its workers."""
        import ray

        place = Path(tempfile.gettempdir()) / f"sbertconv-{os.getuid() if hasattr(os, 'getuid') else 0}-{self.code}"
        if not is_mine(place):
            own = Path(tempfile.mkdtemp(prefix=".sbertconv-", dir=place.parent))
            unpack_archive(ray.get(self.content), own)
            try:
                own.rename(place)
            except OSError:  # another worker was sooner, or somebody else took the name
                return str(place if is_mine(place) else own)
        return str(place)


def is_mine(folder: Path) -> bool:
    """Whether a folder among the temporary files was made by this user: others may make one of its name."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def pack_archive(artifact: Artifact) -> bytes:
    """The files that an artifact consists of as a tar file, in the place of links what they lead to."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        for name, path in artifact.members():
            archive.add(path, arcname=name, recursive=False)
    return packed.getvalue()


def unpack_archive(content: bytes, folder: Path) -> None:
    """Unpack a tar file of plain files, which nothing makes larger than it is and nothing leads out of the folder.

    Raises:
        ArtifactError: if it is none that can be unpacked so.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for number, member in enumerate(archive):
                packed = None if member.issparse() or not member.isreg() else archive.extractfile(member)
                if number >= MOST_FILES or (packed is None and not member.isdir()):
                    raise ValueError(f"{member.name!r:.100} is no plain file, or one too many")
                if packed is not None:
                    target = inside(folder, member.name, "The folder as it was sent cannot be unpacked")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        shutil.copyfileobj(packed, file)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"The folder as it was sent cannot be unpacked: {error}\nSend it again.") from error


def ship(folder: str | Path) -> Shipped:
    """Put a converted folder into Ray's object store.

    Raises:
        MissingDependencyError: if Ray is not installed.
        ArtifactError: if it is no converted folder.
    """
    require("ray", "ray")
    import ray

    artifact = read_artifact(folder)
    return Shipped(ray.put(pack_archive(artifact)), folder_hash(artifact.manifest), folder_name(Path(folder)))


class Embed:
    """The callable class that `Dataset.map_batches` takes, with `batch_format="pyarrow"`. An actor opens the folder
    once; it computes on as many threads as it has CPUs of Ray, and on the GPU where it has one.

        dataset.map_batches(Embed, fn_constructor_kwargs={"folder": folder}, batch_format="pyarrow",
                            compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1)
    """

    def __init__(self, folder: str | Path | Shipped, **options: Any) -> None:
        place, name = (folder.unpacked(), folder.name) if isinstance(folder, Shipped) else (str(folder), "")
        embed = EmbedTable(folder=place, **{**options, "name": options.get("name") or name})
        self.embed = replace(embed, load={**resources(), **embed.load})

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with its vectors."""
        return self.embed(batch)

    def answer_to(self, table: bytes) -> tuple[bytes, bytes]:
        """The same of a table in Arrow's stream format, or the error."""
        return answer_to(self.embed, table)


def resources() -> dict[str, Any]:
    """What Ray has given this actor, as keywords of `sbertconv.load`."""
    import ray

    given = ray.get_runtime_context().get_assigned_resources()
    found: dict[str, Any] = {"threads": max(1, int(given.get("CPU", 1)))}
    return {**found, "device": "cuda"} if given.get("GPU") else found


def workers(embed: EmbedTable, count: int, address: str | None = None) -> tuple[Callable[[], Worker], int]:
    """Actors on a cluster, of which each gets the folder through the object store.

    Args:
        embed: what they do; its threads are the CPUs of each.
        count: how many; 1: as many as the cluster has CPUs for.
        address: of the cluster; None: that which this process is connected to, or a new one on this machine.

    Raises:
        MissingDependencyError: if Ray is not installed.
        UnsupportedOptionError: if there is no cluster at the address.
    """
    require("ray", "ray")
    import ray

    if not ray.is_initialized():
        with reaching("Ray", address):
            ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    cpus = int(embed.load.get("threads") or 1)
    shipped = ship(embed.folder)
    options = {name: getattr(embed, name) for name in embed.__dataclass_fields__ if name != "folder"}
    options["load"] = {name: value for name, value in embed.load.items() if name != "threads"}
    gpus = 1 if str(embed.load.get("device") or "").startswith("cuda") else 0
    actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Embed)
    able = max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)
    return lambda: Actor(actor.remote(shipped, **options)), able if count == 1 else count


class Actor:
    """An actor as a worker of a pool."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def __call__(self, table: bytes) -> bytes:
        """Embed one part.

        Raises:
            WorkerDiedError: if the actor, or its node, is gone.
        """
        import ray

        try:
            answer = ray.get(self.handle.answer_to.remote(table))
        except ray.exceptions.RayActorError as error:
            raise WorkerDiedError(f"An actor ended: {error}\nCheck the memory: each holds the model.") from error
        return table_in(answer)

    def close(self) -> None:
        """Let Ray have the actor's CPUs back."""
        import ray

        if ray.is_initialized():
            ray.kill(self.handle)
