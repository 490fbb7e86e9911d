"""Copies a folder into the layouts of consumers, proven as each of them reads it."""

from __future__ import annotations

import contextlib
import math
import operator
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from sbertconv.artifact.folder import Artifact, read_artifact
from sbertconv.artifact.kinds import EXACT
from sbertconv.artifact.naming import renamed
from sbertconv.artifact.publishing import stage
from sbertconv.artifact.tokenizer_file import rust_errors
from sbertconv.consumers.consumer import HIDDEN, Consumer, Manifest
from sbertconv.consumers.opening import block
from sbertconv.consumers.precisions import Found, by_precision, check_weights, readers, section_of, write_variants
from sbertconv.consumers.reading import forget
from sbertconv.converters.onnx.naming import RENAMERS, rename_graph
from sbertconv.corpus.texts import CORPUS, long_text, sentences
from sbertconv.errors import (
    ArtifactError,
    ParityError,
    SbertconvError,
    UnsupportedOptionError,
    error_text,
    require,
)
from sbertconv.parity.comparison import FLOAT32, Check, ParityReport, Tolerance, cosine_of, shown
from sbertconv.parity.quality import GATES, Gate, measure_quality

BATCH = 8
LONGEST = 1024  # tokens of a text that is compared
OVER = 5  # texts over the limit
GATED = 128  # sentences of a gate
ROUNDED = Gate(0.99, 0, 0, "the last bit of a sum decides how activations are rounded to 8 bits")
NO_NAMES: Mapping[str, Sequence[str]] = {"inputs": (), "outputs": ()}


def pack(
    folder: str | Path,
    directory: str | Path,
    consumers: Sequence[str] = (),
    *,
    precisions: Sequence[str | Path] = (),
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    overwrite: bool = False,
    atol: float = FLOAT32.atol,
    rtol: float = FLOAT32.rtol,
    on_stage: Callable[[str], None] = lambda name: None,
) -> Artifact:
    """Copy a converted folder into the layout of other software, proven equal to the folder as that software reads it.

    Args:
        folder: what `to_onnx` wrote.
        directory: where to write; `load` opens it as well.
        consumers: names of `sbertconv.consumers.default_consumers()`.
        precisions: folders of the same model in other precisions, for a consumer that chooses among several.
        input_names: like "input_ids=ids", names of the graph's inputs in the copy; those that are named come first, in
            this order.
        output_names: the same of its outputs.
        overwrite: replace an existing artifact.
        atol: absolute term of the rule |a - b| <= atol + rtol * |b|.
        rtol: relative term of the rule.
        on_stage: called with the name of each stage as it starts.

    Returns:
        The published artifact; `consumers` in its manifest says for which software it is proven, and how well.

    Raises:
        ArtifactError: for a folder that is not as it was written, or a target that cannot be.
        UnsupportedOptionError: for a consumer that is not known, or whose answers would be wrong, or for names that do
            not fit; says the way out.
        ParityError: if the answers of a reader differ. Nothing is published then.
    """
    names = {"inputs": input_names, "outputs": output_names}
    known = named(consumers, optional=any(names.values()))
    rule = Tolerance(atol, rtol, FLOAT32.reason)
    return packed(folder, directory, known, precisions, names, overwrite=overwrite, rule=rule, on_stage=on_stage)


def packed(
    folder: str | Path,
    directory: str | Path,
    known: Mapping[str, Mapping[str, Consumer]],
    precisions: Sequence[str | Path] = (),
    names: Mapping[str, Sequence[str]] = NO_NAMES,
    *,
    overwrite: bool,
    rule: Tolerance = FLOAT32,
    on_stage: Callable[[str], None],
) -> Artifact:
    """`pack`, for consumers whose rows are looked up already, by `named`."""
    require("onnx", "onnx", "onnxruntime")
    on_stage("checking the files")
    source, *others = map(read_artifact, (folder, *precisions))
    for one in (source, *others):
        one.verify_hashes()
    artifact = replace(source, manifest=with_names(source.manifest, names))
    rows = [row_for(name, kinds, artifact.manifest) for name, kinds in known.items()]
    check_rows(rows, artifact)
    variants = by_precision(others, source, rows)
    if variants:
        on_stage("comparing the precisions")
        check_weights(source, variants, ASKED[source.manifest["model_class"]].answer, 1 - ROUNDED.min_cosine)
    with stage(directory, overwrite=overwrite) as staging:
        on_stage("writing")
        copy_files(source, staging.folder)
        with broken_files(source.folder):
            for graph in source.manifest["graphs"]:
                rename_graph(staging.folder, graph, names)
            for row in sorted(rows, key=lambda row: not row.hidden):  # the graph is changed before it is linked
                row.layout(artifact, staging)
                write_variants(row, variants, staging)
            written = staging.manifest({**artifact.manifest, "consumers": {}})
        on_stage("comparing")
        proven = proven_for(rows, written, source if any(names.values()) else None, variants, rule)
        staging.manifest({**artifact.manifest, "consumers": proven})
        on_stage("publishing")
        staging.publish()
        return read_artifact(staging.target)


@contextlib.contextmanager
def broken_files(folder: Path, how: str = "") -> Iterator[None]:
    """In here, whatever a library says of a folder's files is one kind of error.

    Raises:
        ArtifactError: with the library's words.
    """
    try:
        yield
    except (SbertconvError, OSError):  # of the disk it is said elsewhere
        raise
    except Exception as error:
        raise ArtifactError(
            f"{folder}: cannot be packed{how}: {error_text(error, 2)[:400]}\n"
            "Convert the model again with overwrite=True, or leave the consumer out."
        ) from error


def check_rows(rows: Sequence[Consumer], artifact: Artifact) -> None:
    """Raise UnsupportedOptionError for a consumer that would be wrong, or two that cannot share a folder."""
    refused = [f"  {row.name}: {reason}" for row in rows for reason in row.refuses(artifact.manifest)]
    if refused:
        raise UnsupportedOptionError(
            f"{artifact.folder}: its vectors would be wrong, or none, in what it is packed for:\n"
            + "\n".join(refused)
            + "\nMend that, or leave the consumer out."
        )
    if len(meanings := {row.hidden: row.name for row in rows if row.hidden}) > 1:
        raise UnsupportedOptionError(
            f"{' and '.join(meanings.values())}: they read other tensors under the name {HIDDEN}, and a graph has one "
            "of that name.\nPack a folder for each."
        )


def copy_files(source: Artifact, target: Path) -> None:
    """Every file of the artifact but its manifest."""
    for name in source.manifest["files"]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path(name), target / name)


def proven_for(
    rows: Sequence[Consumer], written: Artifact, before: Artifact | None, variants: Found, rule: Tolerance
) -> dict[str, dict[str, Any]]:
    """What the manifest says of each consumer.

    Args:
        rows: the consumers.
        written: the staged folder.
        before: the folder with its old names, if they are others now.
        variants: the folders of other precisions.
        rule: what every answer is held to.

    Raises:
        ParityError: if an answer differs.
    """
    from sbertconv.runtime.opening import open_model

    models = {form: open_model(written, form) for form in {row.form for row in rows}}
    try:
        checks = [compared(row, models[row.form], written.folder, rule) for row in rows]
        more = [compared_variants(row, variants, written.folder, rule) for row in rows]
        likewise = [check for row in rows for check in compared_namesakes(row, models[row.form], written.folder, rule)]
    finally:
        forget()
    again = [same_answers(open_model(before), open_model(written))] if before else []
    within = [check for found in more for check in found.values()]
    report = ParityReport("onnx", str(rule), (*checks, *within, *likewise, *again), 0.0, "")
    if not report.passed:
        worst = report.worst
        held = {row.name: f"gate of {row.gate}" for row in rows if row.gate}.get(worst.name, f"rule is {rule}")
        raise ParityError(
            f"{worst.name} does not give the vectors of encode(): {worst.problem} on "
            f"text {worst.worst_text[:40]!r}. The {held}. Nothing was written.\nLeave this consumer out.",
            report,
        )
    return {
        row.name: {
            "reads": row.reads,
            "texts": check.texts,
            "max_abs_diff": check.max_abs_diff,
            "over_limit": row.over_limit and not row.gate and (models[row.form].max_seq_length or 0) <= LONGEST,
            **({"min_cosine": check.min_cosine} if row.gate else {}),
            **block(row.name, written),
            **(
                {"precisions": {name: section_of(row, variants[name], found[name].max_abs_diff) for name in found}}
                if found
                else {}
            ),
        }
        for row, check, found in zip(rows, checks, more, strict=True)
    }


def compared_variants(row: Consumer, variants: Found, folder: Path, rule: Tolerance) -> dict[str, Check]:
    """Precision -> the reader on its file against the folder that it is of."""
    from sbertconv.runtime.opening import open_model

    return {
        precision: compared(
            replace(row, name=f"{row.name} in {precision}", read=read), open_model(variants[precision]), folder, rule
        )
        for precision, read in readers(row, variants).items()
    }


def compared_namesakes(row: Consumer, model: Any, folder: Path, rule: Tolerance) -> Iterator[Check]:
    """The reader on every other file of the name that it searches the folder for."""
    for file in sorted(folder.rglob(row.searched)) if row.searched else ():
        name = file.relative_to(folder).as_posix()
        read = partial(row.read, file=name)  # type: ignore[call-arg]
        yield compared(replace(row, name=f"{row.name} by {name}", read=read), model, folder, rule)


def with_names(manifest: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> Any:
    """The manifest of a folder whose graphs get other names.

    Raises:
        UnsupportedOptionError: for names that do not fit, or a format that has no names to choose.
    """
    if other := sorted(set(manifest["engines"]) - set(RENAMERS)) if any(names.values()) else []:
        raise UnsupportedOptionError(
            f"{', '.join(other)}: the names in its files are not changed (have: {', '.join(RENAMERS)}).\n"
            "Leave them out."
        )
    return {**manifest, "graphs": [renamed(graph, names) for graph in manifest["graphs"]]}


def named(names: Sequence[str], optional: bool = False) -> dict[str, Mapping[str, Consumer]]:
    """The rows of these names, each name once."""
    from sbertconv.consumers import default_consumers

    table = default_consumers()
    asked: list[Any] = list(names) if isinstance(names, (list, tuple)) else [names]
    unknown = [f"{name}"[:80] for name in asked if not isinstance(name, str) or name not in table.names]
    if unknown or not (asked or optional):
        raise UnsupportedOptionError(
            f"{', '.join(unknown) or 'no consumer'}: not known (have: {', '.join(table.names)}).\nName one with --for."
        )
    return {name: table.rows(name) for name in asked}


def row_for(name: str, rows: Mapping[str, Consumer], manifest: Manifest) -> Consumer:
    """The row of a name for a folder's class of models.

    Raises:
        UnsupportedOptionError: if there is none.
    """
    if manifest["model_class"] not in rows:
        raise UnsupportedOptionError(
            f"{name}: does not open a {manifest['model_class']} (have: {', '.join(rows)}).\nLeave the consumer out."
        )
    return rows[manifest["model_class"]]


@dataclass(frozen=True)
class Asked:
    """What a class of models is asked.

    Attributes:
        inputs: some texts, a text over the limit for each of the first -> what is asked.
        answer: model, a batch -> an array for each.
        tokens: model, one of what is asked -> how many tokens it has, and the limit.
    """

    inputs: Callable[[Sequence[str], Sequence[str]], list[Any]]
    answer: Callable[[Any, list[Any]], Sequence[np.ndarray]]
    tokens: Callable[[Any, Any], tuple[int, float]] = lambda model, item: (
        model.tokenize([item])["input_ids"].shape[1],
        model.max_seq_length or math.inf,
    )


def as_texts(texts: Sequence[str], over: Sequence[str]) -> list[Any]:
    """The texts themselves."""
    return [*texts, *over]


def as_pairs(texts: Sequence[str], over: Sequence[str]) -> list[Any]:
    """Each text with the next one, and every text over the limit as either half of a pair."""
    pairs = list(zip(texts, [*texts[1:], texts[0]], strict=True))
    return [*pairs, *((long, texts[4]) for long in over), *((texts[5], long) for long in over)]


def as_tasks(texts: Sequence[str], over: Sequence[str]) -> list[Any]:
    """Each text as a query and as a document, in batches of one task."""
    return [("query", text) for text in texts[: len(texts) // BATCH * BATCH]] + [("document", text) for text in texts]


def token_vectors(model: Any, batch: list[Any]) -> list[np.ndarray]:
    """Of each text its vectors, in its task."""
    encode = {"query": model.encode_query, "document": model.encode_document}
    return [encode[task](text) for task, text in batch]


def task_tokens(model: Any, item: tuple[str, str]) -> tuple[int, float]:
    """How many tokens a text has with its prompt, expansion apart, and the limit of its task."""
    task, text = item
    prompt = model.prompts.get(task)
    tokens = int(model.tokenize([text], task, prompt)["attention_mask"].sum())
    return tokens, model.graph("text", task).tokenizer.max_length(task) or math.inf


ASKED = {
    "SentenceTransformer": Asked(as_texts, lambda model, batch: model.encode(batch, batch_size=BATCH)),
    "SparseEncoder": Asked(
        as_texts, lambda model, batch: model.encode(batch, batch_size=BATCH, convert_to_sparse_tensor=False)
    ),
    "CrossEncoder": Asked(as_pairs, lambda model, batch: model.predict(batch, batch_size=BATCH)),
    "TextClassifier": Asked(as_texts, lambda model, batch: model.logits(batch, batch_size=BATCH)),
    "MultiVectorEncoder": Asked(as_tasks, token_vectors, task_tokens),
}


def compared(row: Consumer, model: Any, folder: Path, rule: Tolerance) -> Check:
    """The reader against the folder's own run time, in equal batches: the corpus, and texts over the limit. Below
    float32 both compute the same rounded weights, and vectors must have one direction.
    """
    held: Tolerance | Gate = rule if model.artifact.manifest["precision"] == EXACT else ROUNDED
    asked, length = ASKED[row.model_class], model.max_seq_length or 512
    over = [f"{start} {long_text(length)}" for start in CORPUS[3 : 3 + OVER]] if length <= LONGEST else []
    inputs = asked.inputs(CORPUS, over)
    if not row.over_limit:
        inputs = [item for item in inputs if operator.lt(*asked.tokens(model, item))]

    def answers(batch: list[Any]) -> Sequence[Any]:
        with rust_errors(folder, ArtifactError), broken_files(folder, f" as {row.name} reads it"):
            return cast("Sequence[Any]", row.read(folder, batch))

    if row.gate:
        return gated(row, answers, model)
    return check(row.name, inputs, answers, partial(row.expected or asked.answer, model), row.model_class, model, held)


def gated(row: Consumer, answers: Callable[[list[Any]], Sequence[Any]], model: Any) -> Check:
    """The reader's vectors against the folder's own on some sentences, by the gate of a precision."""
    texts = sentences()[:GATED]
    theirs = model.encode(texts, batch_size=BATCH)
    ours = [vector for start in range(0, GATED, BATCH) for vector in answers(list(texts[start : start + BATCH]))]
    found = measure_quality(texts, theirs, ours, {0: answers([texts[0]])[0]}, GATES[row.gate])
    diff = float(np.abs(np.asarray(ours, np.float64) - theirs).max())
    shape, tokens = (GATED, int(theirs.shape[1])), ASKED[row.model_class].tokens(model, found.worst_text)[0]
    worst, problem = shown(found.worst_text), "; ".join(found.problems)
    return Check(row.name, GATED, diff, worst, tokens, found.min_cosine, 0, shape, "float32", found.passed, problem)


def same_answers(before: Any, after: Any, rule: Tolerance = FLOAT32) -> Check:
    """A folder against its copy with other names."""
    kind = before.artifact.manifest["model_class"]
    asked = ASKED[kind]
    own = partial(asked.answer, before)
    return check("names", asked.inputs(CORPUS, []), partial(asked.answer, after), own, kind, before, rule)


def check(
    name: str,
    inputs: list[Any],
    answers: Callable[[list[Any]], Sequence[Any]],
    expected: Callable[[list[Any]], Sequence[Any]],
    kind: str,
    model: Any,
    rule: Tolerance | Gate,
) -> Check:
    """Answers against those of a converted model, batch by batch."""
    worst, diff, cosine, problem, size = inputs[0], -1.0, 1.0, "", 1
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        for item, ours, theirs in zip(batch, answers(batch), expected(batch), strict=True):
            a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
            size = b.shape[-1] if b.ndim else 1
            if a.shape != b.shape:
                worst, diff, problem = item, float("inf"), problem or f"shape {a.shape} instead of {b.shape}"
                continue
            gap, one = np.abs(a - b), cosine_of(a, b)
            cosine = min(cosine, one)
            if not rule.holds(gap, b, one):  # NaN included
                problem = problem or f"max abs diff {gap.max():.1e}"
            if not float(gap.max()) <= diff:
                worst, diff = item, float(gap.max())
    tokens, _ = ASKED[kind].tokens(model, worst)
    shape = (len(inputs), int(size))
    return Check(name, len(inputs), diff, shown(worst), tokens, cosine, 0, shape, "float32", not problem, problem)
