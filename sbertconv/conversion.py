"""The five stages of a conversion, in order, once for every backend: load, plan, convert, compare, publish."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sbertconv.artifact.folder import KERAS_SUFFIX, Artifact, folder_name, read_artifact
from sbertconv.artifact.kinds import EXACT, HEAD_OUTPUTS, NORMALIZES
from sbertconv.artifact.publishing import Staging, stage, target_path
from sbertconv.errors import (
    CONVERT_AGAIN,
    WAYS_OUT,
    ArtifactError,
    SbertconvError,
    UnsupportedModuleError,
    UnsupportedOptionError,
)
from sbertconv.memory import release_memory, settled_heap
from sbertconv.options import GateOptions, ModelOptions, ProofOptions, RuleOptions
from sbertconv.parity.quality import BOUNDS, GATES
from sbertconv.runtime.opening import open_model
from sbertconv.source.files import HEAD_FILES, heads_in
from sbertconv.source.naming import path_is_there

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sbertconv.converters.writing import Finish
    from sbertconv.parity.comparison import ParityReport, Reference
    from sbertconv.plan.planning import Plan
    from sbertconv.plan.registry import Registry
    from sbertconv.source.opening import Source

CHOOSING = (
    "It takes the best of the tokens by scores: equal ones may be chosen otherwise in another batch, by the library "
    "too, so texts are batched as encode() does."
)
BRANCHING = (
    "Of a branch on data it has the side that its example took, and every text was compared with that: {lines}. A text "
    "of another kind may take the other side in the library."
)
OnStage = Callable[[str], None]


class Write(Protocol):
    """A backend's writer: the manifest's content, and the ways to write the rest without the original."""

    def __call__(
        self, source: Source, model: SentenceTransformer, plan: Plan, *, staging: Staging
    ) -> tuple[dict[str, Any], Sequence[Finish]]: ...


def say_nothing(stage_name: str) -> None:
    """The stages of a conversion that nobody watches."""


@dataclass(frozen=True)
class Bounds:
    """What a conversion must keep: the rule of float32, or below it the quality gate.

    Raises:
        UnsupportedOptionError: for bounds that do not apply to the precision.
    """

    precision: str
    asked: RuleOptions

    def __post_init__(self) -> None:
        exact = self.precision not in GATES
        idle = [f"{name}=" for name, value in (self._gate if exact else self.rule).items() if value not in (None, ())]
        if idle:
            raise UnsupportedOptionError(
                f"{', '.join(idle)}: {self.precision} is held to "
                + ("|a - b|, see atol= and rtol=." if exact else "a quality gate, see min_cosine=.")
                + "\nLeave the option out."
            )

    @property
    def rule(self) -> dict[str, float | None]:
        """The user's own numbers of the rule."""
        return {"atol": self.asked.atol, "rtol": self.asked.rtol}

    @property
    def _gate(self) -> dict[str, Any]:
        asked = self.asked
        names = (*BOUNDS, "texts") if isinstance(asked, GateOptions) else ()
        return {name: getattr(asked, name) for name in names}

    @property
    def texts(self) -> Sequence[str]:
        """The user's own texts."""
        return self.asked.texts if isinstance(self.asked, GateOptions) else ()

    @property
    def seconds(self) -> float | None:
        """How long the comparison of long texts may take."""
        return self.asked.proof_budget if isinstance(self.asked, ProofOptions) else None

    def to_json(self) -> dict[str, Any]:
        """What the manifest says about it."""
        if self.precision not in GATES:
            return {}
        changed = {name: value for name, value in self._gate.items() if name != "texts"}
        return {"gate": asdict(GATES[self.precision].changed(changed))}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A model on its way into a folder.

    Attributes:
        source: the model.
        registry: its converters.
        backend: the one that the plan is made for: "onnx", "keras" or "torch".
        bounds: what the folder must keep.
        recorded: the options that the manifest names.
        on_stage: called with the name of each stage as it starts.
        policy: entered for the whole of it, once no other conversion runs.
    """

    source: Source
    registry: Registry
    backend: str
    bounds: Bounds
    recorded: Mapping[str, Any]
    on_stage: OnStage
    policy: Callable[[], AbstractContextManager[Any]] = nullcontext

    def into(self, target: str | Path, ways: Mapping[str, Write], *, overwrite: bool) -> Artifact:
        """Convert in the first of the ways whose folder passes, and publish that.

        Args:
            target: the folder.
            ways: a note for the manifest -> the writer; `{reason}` in the note is why the way before it failed.
            overwrite: replace an artifact.

        Raises:
            UnsupportedModuleError: if no way gives a folder that runs.
            ParityError: if the last one differs from the model.
        """
        report, reason, broken = None, "", None
        with staged(target, overwrite=overwrite) as staging, self.policy():
            for note, write in ways.items():
                try:
                    written, report, reference = self._written_and_compared(write, staging)
                except ArtifactError as error:  # the graph cannot be fused, loaded or run
                    if len(ways) == 1 and not str(error).endswith(CONVERT_AGAIN):  # it says what to do
                        raise
                    broken = error
                    first, *others = str(error).splitlines()
                    reason = " ".join([first, *others[: first.endswith(":")]]).replace(f"{staging.folder}{os.sep}", "")
                    continue
                content = {**written, "notes": [*written["notes"], *filter(None, [note.format(reason=reason)])]}
                if report.passed:
                    break
                reason = report.failure
            if report is None:
                raise UnsupportedModuleError(
                    f"Cannot convert {self.source.name!r}: its graph does not run on every text of the corpus:\n"
                    f"  {reason}\n{WAYS_OUT}"
                ) from broken
            if not report.passed:
                report = located(report, reference, self.source, staging.manifest(content))
            return read_artifact(published(staging, content, report, self.on_stage))

    def _written_and_compared(self, write: Write, staging: Staging) -> tuple[dict[str, Any], ParityReport, Reference]:
        """Write the artifact, reload it and compare: the manifest's content, the report, and the original's answers.
        Where there are several ways to finish it, the first that passes is taken.

        Raises:
            ArtifactError: if the graph cannot be fused, loaded or run.
        """
        from sbertconv.parity.comparison import compare_formats

        finishes, reference, proven = self._drafted(write, staging)
        measured = {**self.bounds.to_json(), **proven}
        measured |= {"options": dict(self.recorded)} if self.recorded else {}
        while finishes:
            release_memory()
            self.on_stage("writing")
            content = finishes.pop(0)(measured)
            release_memory()
            self.on_stage(f"comparing with {self.source.model_class.method}()")
            report = compare_formats(reference, staging.manifest(content), **self.bounds.rule)
            if report.passed:
                break
        return content, report, reference

    def _drafted(self, write: Write, staging: Staging) -> tuple[list[Finish], Reference, dict[str, Any]]:
        """Load, plan and convert; the original answers the harness's questions and is let go, before what can do
        without it is written and long before the converted model is loaded. The last of the three is what the manifest
        says of these answers: whether they see the padding, and the number of tokens that it could be asked up to.
        """
        from sbertconv.converters.writing import cut_files
        from sbertconv.parity.budget import cut_note, proven_length
        from sbertconv.parity.comparison import Reference
        from sbertconv.parity.kinds import CLASS_PARITY
        from sbertconv.plan.planning import plan_model

        start = time.monotonic()
        self.on_stage("loading the model")
        with self.source.loaded(widened_late=self.backend == "onnx") as model:
            self.on_stage("planning")
            with model_running(self.source):
                plan = plan_model(model, self.source.name, self.backend, self.registry)
            plan.check()
            self.on_stage("converting")
            with model_running(self.source):
                content, finishes = write(self.source, model, plan, staging=staging)
            del plan
            release_memory()
            self.on_stage("asking the original")
            original = CLASS_PARITY[self.source.model_class.name].original(model)
            drafted = open_model(staging.manifest(content), beyond_proof=True)
            chooses = any(graph.get("chooses_tokens") for graph in content["graphs"])
            content["notes"] += [CHOOSING] if chooses else []
            sides = dict.fromkeys(side for graph in content["graphs"] for side in graph.get("sides", ()))
            content["notes"] += [BRANCHING.format(lines="; ".join(sides))] if sides else []
            proven = proven_length(original, drafted, self.bounds.seconds, time.monotonic() - start)
            if proven is not None and (note := cut_note(drafted, proven)):
                content["notes"].append(note)
                cut_files(staging, content["graphs"], proven)
            drafted = open_model(staging.manifest({**content, "proven_length": proven}), beyond_proof=True)
            reference = Reference.of(original, drafted, self.bounds.texts)
            content["notes"] += [reference.note] if reference.note else []
            found = {"sees_padding": chooses or reference.sees_padding, "proven_length": proven}
            return list(finishes), reference, found


@contextmanager
def model_running(source: Source) -> Iterator[None]:
    """In here the code of a model runs, on texts that it may not take, and that of its converters: whatever they raise
    is one kind of error.

    Raises:
        UnsupportedModuleError: with the reason, and the line of the model's code that it comes from.
    """
    from sbertconv.converters.places import place_of
    from sbertconv.converters.torch.backend import root_cause

    try:
        yield
    except (SbertconvError, OSError, MemoryError):
        raise
    except Exception as error:
        raise UnsupportedModuleError(
            f"Cannot convert {source.name!r}: {root_cause(error)}{place_of(error)}\n"
            f"Check that {source.model_class.method}() of the model takes every text, an empty one too. {WAYS_OUT}"
        ) from error


def located(report: ParityReport, reference: Reference, source: Source, artifact: Artifact) -> ParityReport:
    """The report, with the module at which the two sides part on its worst text; the original is loaded for it."""
    from sbertconv.parity.comparison import with_partings
    from sbertconv.parity.kinds import CLASS_PARITY

    with source.loaded() as model:
        original = CLASS_PARITY[source.model_class.name].original(model)
        return with_partings(report, original, reference, artifact)


@contextmanager
def staged(target: str | Path, *, overwrite: bool) -> Iterator[Staging]:
    """A folder to write in, beside the target; one conversion of a process at a time has one."""
    with settled_heap(), stage(target, overwrite=overwrite) as staging:
        yield staging


def published(
    staging: Staging,
    content: Mapping[str, Any],
    report: ParityReport,
    on_stage: OnStage,
    place: Callable[[Any], Mapping[str, Any]] = lambda proof: {"parity": proof},
) -> Path:
    """Publish what was written if the report allows it; the report stands in its manifest, at its place. Returns the
    folder.

    Raises:
        ParityError: if it does not. Nothing is published then.
    """
    staging.manifest({**content, **place(report.to_json())})
    report.raise_if_failed()
    on_stage("publishing")
    staging.publish()
    return staging.target


def opened(
    model: str | Path | SentenceTransformer, how: ModelOptions, registry: Registry | None
) -> tuple[Source, Registry]:
    """The model as a source, and the converters: those given, or the built-in ones and those of plugins.

    Raises:
        SourceError, UnsupportedModuleError: if the model cannot be read, or is of another class.
    """
    from sbertconv.converters import default_registry
    from sbertconv.source.opening import open_source

    source = open_source(model, **asdict(how))
    source.check_classes()
    return source, registry or default_registry()


def with_changes(
    source: Source,
    top_k: int | None = None,
    truncate_dim: int | None = None,
    normalize: bool = False,
    outputs: Sequence[str] = (),
) -> Source:
    """The source, whose model gives its vectors in this way while it is loaded; unless asked, as it does by itself.

    Raises:
        UnsupportedOptionError: for a model without such vectors, or outputs of heads that are not beside it.
    """
    asked = {"max_active_dims": top_k, "truncate_dim": truncate_dim, NORMALIZES: normalize}
    if top_k is not None:
        source.model_class.check_sparse("top_k=")
    if truncate_dim is not None:
        source.model_class.check_dense("truncate_dim=")
    if normalize:
        source.model_class.check_dense("normalize=True")
    heads = tuple(name for name in outputs if name in HEAD_OUTPUTS)
    there = heads_in(source.folder) if source.folder else []
    if missing := [f"{name} ({HEAD_FILES[name]})" for name in heads if name not in there]:
        raise UnsupportedOptionError(
            f"outputs={list(outputs)}: {source.name} has no head beside it for {', '.join(missing)}.\n"
            "Choose other outputs, or pass the folder that holds these files."
        )
    return replace(source, changes={name: value for name, value in asked.items() if value}, heads=heads)


def target_folder(directory: str | Path | None, name: str, kind: str) -> Path:
    """The folder to write: the one that was given, or the default. A conversion may wait for another one, during which
    the process may move.
    """
    if directory == "":
        raise UnsupportedOptionError(
            "The folder to write has an empty name.\nName it, or leave it out for the default: '.' is the current one."
        )
    return target_path(default_directory(name, kind) if directory is None else directory)


def default_directory(name: str, kind: str) -> Path:
    """`<model's name>-<kind>` in the current folder."""
    stem = folder_name(Path(name)) if path_is_there(name) else name.rsplit("/", 1)[-1]
    stem = stem.removesuffix(KERAS_SUFFIX)
    if not stem:
        raise UnsupportedOptionError(f"{name!r} gives no name for a folder.\nPass the folder to write.")
    return Path.cwd() / f"{stem}-{kind}"


def exact_bounds(asked: RuleOptions) -> Bounds:
    """The bounds of a backend without smaller precisions."""
    return Bounds(EXACT, asked)
