"""What `sbertconv tune` measured of a folder on this machine, and the engine that follows from it, or from the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from msgspec import Meta

from sbertconv.artifact.folder import Artifact, folder_hash
from sbertconv.frameworks import version_of
from sbertconv.runtime.cpus import BELOW, cpu_features, cpu_kind, cpu_name
from sbertconv.runtime.engines import ENGINES
from sbertconv.runtime.options import MOST_THREADS, EngineOptions, default_threads
from sbertconv.runtime.records import read_records

RECORDS = "tuned"
Threads = Annotated[int, Meta(ge=1, le=MOST_THREADS)]  # a record with another number is none that `tune` wrote


@dataclass(frozen=True)
class Setting:
    """One way to run a folder, and what it did.

    Attributes:
        engine: its name.
        threads: that compute; None: the default.
        parallel: batches at once.
        batch_tokens: tokens of a batch, padding included; None: the default.
        seconds: of one call, the median of the rounds.
        spread: the longest round less the shortest, as a share of the median.
    """

    engine: str
    threads: Threads | None = None
    parallel: Threads = 1
    batch_tokens: Annotated[int, Meta(ge=1)] | None = None
    seconds: float = 0.0
    spread: float = 0.0


@dataclass(frozen=True)
class Tuned:
    """The fastest settings of a folder on one machine.

    Attributes:
        folder: see `folder_hash`.
        format: that was measured.
        cpu: name and features.
        cores: threads by default when it was measured.
        versions: of the engines that took part.
        one: for one short text.
        many: for many texts of mixed lengths.
        tried: how many settings were measured.
        date: in ISO 8601.
    """

    folder: str
    format: str
    cpu: tuple[str, ...]
    cores: int
    versions: dict[str, str | None]
    one: Setting
    many: Setting
    tried: int
    date: str


def this_cpu() -> tuple[str, ...]:
    """The name of this CPU, and its features."""
    return (cpu_name(), *sorted(cpu_features()))


def tuned_here(artifact: Artifact, form: str) -> Tuned | None:
    """The latest result for a folder that still holds: of this CPU, as many cores and the same versions."""
    here = (folder_hash(artifact.manifest), form, this_cpu(), default_threads())
    for record in reversed(read_records(RECORDS, Tuned)):
        same = (record.folder, record.format, record.cpu, record.cores) == here
        if same and all(version_of(name) == version for name, version in record.versions.items()):
            return record
    return None


def fastest(artifact: Artifact, form: str, engines: Sequence[str], *, many: bool = False) -> tuple[Setting, str]:
    """The setting that is expected to be the fastest, and why.

    Args:
        artifact: the folder.
        form: one of its formats.
        engines: names of those that may be taken, in the order of preference where nothing is known.
        many: whether many texts are to be answered, or one.
    """
    record = tuned_here(artifact, form)
    if record is not None and _is_able(found := record.many if many else record.one, engines):
        return found, f"the fastest of {record.tried} settings on this machine, measured {record.date}"
    kind = cpu_kind()
    precision = artifact.manifest["precision"]
    order = kind.engines.get(precision, kind.engines.get(BELOW, ()))
    known = [name for name in order if name in engines]
    if not known:
        return Setting(engines[0]), "the first that is installed of those that the folder was proven on"
    return Setting(known[0]), f"the first on CPUs {kind.name}; sbertconv tune measures this one"


def _is_able(setting: Setting, engines: Sequence[str]) -> bool:
    """Whether one of these engines can run so."""
    return setting.engine in engines and (setting.parallel == 1 or ENGINES[setting.engine].parallel)


def completed(options: EngineOptions, setting: Setting, given: Mapping[str, Any]) -> EngineOptions:
    """The options with a setting's own where none were given. Those of other threads do not belong together."""
    if given.get("threads") is not None:
        return options
    names = ("threads", "parallel", "batch_tokens")
    return replace(options, **{name: getattr(setting, name) for name in names if given.get(name) is None})
