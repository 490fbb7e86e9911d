"""Copies a folder into the layouts of consumers, proven as each of them reads it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, read_artifact
from sbertconv.artifact.publishing import stage
from sbertconv.artifact.tokenizer_file import rust_errors
from sbertconv.consumers.consumer import HIDDEN, Consumer, Manifest
from sbertconv.consumers.reading import forget
from sbertconv.corpus.texts import CORPUS, long_text
from sbertconv.errors import ArtifactError, ParityError, UnsupportedOptionError, require
from sbertconv.parity.comparison import FLOAT32, Check, ParityReport, Tolerance, shown

BATCH = 8
LONGEST = 1024  # tokens of a text that is compared
OVER = 5  # texts over the limit


def pack(
    folder: str | Path,
    directory: str | Path,
    consumers: Sequence[str],
    *,
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
        overwrite: replace an existing artifact.
        atol: absolute term of the rule |a - b| <= atol + rtol * |b|.
        rtol: relative term of the rule.
        on_stage: called with the name of each stage as it starts.

    Returns:
        The published artifact; `consumers` in its manifest says for which software it is proven, and how well.

    Raises:
        ArtifactError: for a folder that is not as it was written, or a target that cannot be.
        UnsupportedOptionError: for a consumer that is not known, or whose answers would be wrong; names the way out.
        ParityError: if the answers of a reader differ. Nothing is published then.
    """
    known = named(consumers)
    require("onnx", "onnx", "onnxruntime")
    from sbertconv.runtime.opening import open_model

    on_stage("checking the files")
    artifact = read_artifact(folder)
    artifact.verify_hashes()
    rows = [row_for(name, rows, artifact.manifest) for name, rows in known.items()]
    refused = [f"  {row.name}: {reason}" for row in rows for reason in row.refuses(artifact.manifest)]
    if refused:
        raise UnsupportedOptionError(
            f"{folder}: its vectors would be wrong, or none, in what it is packed for:\n"
            + "\n".join(refused)
            + "\nMend that, or leave the consumer out."
        )
    if len(meanings := {row.hidden: row.name for row in rows if row.hidden}) > 1:
        raise UnsupportedOptionError(
            f"{' and '.join(meanings.values())}: they read other tensors under the name {HIDDEN}, and a graph has one "
            "of that name.\nPack a folder for each."
        )
    with stage(directory, overwrite=overwrite) as staging:
        on_stage("writing")
        for name in artifact.manifest["files"]:
            target = staging.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path(name), target)
        for row in rows:
            row.layout(artifact, staging)
        written = staging.manifest({**artifact.manifest, "consumers": {}})
        on_stage("comparing")
        models = {form: open_model(written, form) for form in {row.form for row in rows}}
        rule = Tolerance(atol, rtol, FLOAT32.reason)
        try:
            checks = [compared(row, models[row.form], staging.folder, rule) for row in rows]
        finally:
            forget()
        report = ParityReport("onnx", str(rule), tuple(checks), 0.0, "")
        if not report.passed:
            worst = report.worst
            raise ParityError(
                f"{worst.name} does not give the vectors of encode(): {worst.problem} on "
                f"text {worst.worst_text[:40]!r}. The rule is {rule}. Nothing was written.\nLeave this consumer out.",
                report,
            )
        proven = {
            row.name: {
                "reads": row.reads,
                "texts": check.texts,
                "max_abs_diff": check.max_abs_diff,
                "over_limit": row.over_limit and (models[row.form].max_seq_length or 0) <= LONGEST,
            }
            for row, check in zip(rows, checks, strict=True)
        }
        staging.manifest({**artifact.manifest, "consumers": proven})
        on_stage("publishing")
        staging.publish()
        return read_artifact(staging.target)


def named(names: Sequence[str]) -> dict[str, Mapping[str, Consumer]]:
    """The rows of these names, each name once."""
    from sbertconv.consumers import default_consumers

    table = default_consumers()
    unknown = [name for name in names if name not in table.names]
    if unknown or not names:
        raise UnsupportedOptionError(
            f"{', '.join(unknown) or 'no consumer'}: not known (have: {', '.join(table.names)}).\nName one with --for."
        )
    return {name: table.rows(name) for name in names}


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
    """

    inputs: Callable[[Sequence[str], Sequence[str]], list[Any]]
    answer: Callable[[Any, list[Any]], Sequence[np.ndarray]]


def as_texts(texts: Sequence[str], over: Sequence[str]) -> list[Any]:
    """The texts themselves."""
    return [*texts, *over]


def as_pairs(texts: Sequence[str], over: Sequence[str]) -> list[Any]:
    """Each text with the next one, and every text over the limit as either half of a pair."""
    pairs = list(zip(texts, [*texts[1:], texts[0]], strict=True))
    return [*pairs, *((long, texts[4]) for long in over), *((texts[5], long) for long in over)]


ASKED = {
    "SentenceTransformer": Asked(as_texts, lambda model, batch: model.encode(batch, batch_size=BATCH)),
    "SparseEncoder": Asked(
        as_texts, lambda model, batch: model.encode(batch, batch_size=BATCH, convert_to_sparse_tensor=False)
    ),
    "CrossEncoder": Asked(as_pairs, lambda model, batch: model.predict(batch, batch_size=BATCH)),
}


def compared(row: Consumer, model: Any, folder: Path, rule: Tolerance) -> Check:
    """The reader against the folder's own run time, in equal batches: the corpus, and texts over the limit."""
    asked, length = ASKED[row.model_class], model.max_seq_length or 512
    over = [f"{start} {long_text(length)}" for start in CORPUS[3 : 3 + OVER]] if length <= LONGEST else []
    inputs = asked.inputs(CORPUS, over)
    if not row.over_limit:
        inputs = [item for item in inputs if model.tokenize([item])["input_ids"].shape[1] < length]
    worst, diff, cosine, problem, size = inputs[0], -1.0, 1.0, "", 0
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        with rust_errors(folder, ArtifactError):
            ours = row.read(folder, batch)
        for item, a, b in zip(batch, ours, asked.answer(model, batch), strict=True):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            size = b.shape[-1] if b.ndim else 1
            if a.shape != b.shape:
                worst, diff, problem = item, float("inf"), f"shape {a.shape} instead of {b.shape}"
                break
            gap, norms = np.abs(a - b), float(np.linalg.norm(a) * np.linalg.norm(b))
            cosine = min(cosine, float((a * b).sum()) / norms if norms else 1.0)
            if not bool((gap <= rule.atol + rule.rtol * np.abs(b)).all()):  # NaN included
                problem = problem or f"max abs diff {gap.max():.1e}"
            if not float(gap.max()) <= diff:
                worst, diff = item, float(gap.max())
    tokens = model.tokenize([worst])["input_ids"].shape[1]
    shape = (len(inputs), int(size))
    return Check(row.name, len(inputs), diff, shown(worst), tokens, cosine, 0, shape, "float32", not problem, problem)
