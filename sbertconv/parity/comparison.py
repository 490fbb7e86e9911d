"""The parity harness: a converted folder against `SentenceTransformer.encode()` or `CrossEncoder.predict()`, text by
text.

Both sides get the same texts in the same batches through these public methods, so that tokenizer, prompt,
truncation, padding, graph and dtype are all inside the comparison. Rule: |a - b| <= atol + rtol * |b|.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.artifact.kinds import MODEL_CLASSES, ModelClass
from sbertconv.corpus.texts import BATCH_SIZE
from sbertconv.errors import ParityError, SourceError
from sbertconv.memory import release_memory, trim_heap
from sbertconv.parity.kinds import CLASS_PARITY
from sbertconv.parity.quality import ALONE_STEP, BOUNDS, GATES, Gate, QualityReport
from sbertconv.parity.questions import (
    ALONE,
    BATCH,
    LENGTHS_ALONE,
    LENGTHS_MIXED,
    SENTENCES,
    TOKENS,
    Converted,
    Question,
    Side,
    answering,
    ask,
    longest_forward,
    questions,
)

if TYPE_CHECKING:
    from sbertconv.artifact.folder import Artifact
    from sbertconv.parity.by_module import Parting
    from sbertconv.runtime.model import ConvertedModel

BELOW_GATE = "Choose a precision= with more bits, or lower the gate if that is good enough for you: docs/precision.md"
BEYOND_RULE = "Allow more with atol= and rtol= if that is good enough for you: docs/verification.md"
OTHER_ANSWER = "That is a defect of the conversion, not of rounding: report it with the text and the model."
SETTINGS = "settings"  # the check of what a manifest says of its model
NAMED = 8  # lengths in one note
WOBBLING = (ALONE, BATCH, LENGTHS_ALONE, LENGTHS_MIXED)  # how the questions end that tell whether answers depend on it
LEFT_OUT = (
    "A text alone, or in a batch without padding, has another vector in encode() than in a padded batch, by "
    "{diff:.1e}: the library leaves the causal mask out there. This is converted and compared as in a padded batch: "
    "every text has the one vector that encode() gives with attn_implementation='eager'."
)
SEES_PADDING = 1e-3  # float32 noise between batch sizes stays below 1e-5, a model that sees its padding is far above


@dataclass(frozen=True)
class Tolerance:
    """|a - b| <= atol + rtol * |b|, and why these numbers."""

    atol: float
    rtol: float
    reason: str

    def holds(self, diff: np.ndarray, theirs: np.ndarray, cosine: float) -> bool:
        """Whether one text's vector is near enough."""
        return bool((diff <= self.atol + self.rtol * np.abs(theirs)).all())

    def __str__(self) -> str:
        return f"|a - b| <= {self.atol:.0e} + {self.rtol:.0e} |b|"


FLOAT32 = Tolerance(
    1e-5,
    1e-5,
    "float32 sums in another order differ by up to 7e-6 (encode() from itself between batch sizes); "
    "the relative term is for embeddings that are not normalised",
)
TOLERANCES = {  # by backend, where the precision is exact
    "onnx": FLOAT32,
    "keras": FLOAT32,
    "torch": Tolerance(
        1e-6,
        1e-6,
        "the same kernels on the same batches as encode(): what is left are the few operations that a trace says "
        "otherwise (a mask where all tokens count, LSTM, EmbeddingBag), 8 steps of float32 at 1",
    ),
}


@dataclass(frozen=True)
class Check:
    """One comparison of one list of texts.

    Attributes:
        name: what was compared, e.g. "padded batch".
        texts: how many.
        max_abs_diff: the largest absolute difference.
        worst_text: the text it came from.
        worst_tokens: its length in tokens.
        min_cosine: the smallest cosine between the two sides' vectors of one text.
        non_finite: values that are NaN or infinite on one side only, or of different kind.
        shape, dtype: of the converted model's result.
        passed: whether every value keeps the rule, and shapes and dtypes agree.
        problem: why not, in words, where numbers do not say it.
    """

    name: str
    texts: int
    max_abs_diff: float
    worst_text: str
    worst_tokens: int
    min_cosine: float
    non_finite: int
    shape: tuple[int, ...]
    dtype: str
    passed: bool
    problem: str = ""


@dataclass(frozen=True)
class ParityReport:
    """Every check of one conversion, and encode()'s own wobble as the yardstick.

    Attributes:
        rule: what every text's vector is held to, in words.
        method: of the original, that the converted model is compared with, and of what if not of that.
        quality: below float32, what the whole set of sentences is held to; one per route for texts.
        partings: on each engine, where the converted model parts from the original, module by module; where it was
            looked for.
    """

    backend: str
    rule: str
    checks: tuple[Check, ...]
    wobble: float
    wobble_text: str
    notes: tuple[str, ...] = ()
    quality: tuple[QualityReport, ...] = ()
    method: str = "encode"
    partings: tuple[Parting, ...] = ()

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks) and all(quality.passed for quality in self.quality)

    @property
    def worst(self) -> Check:
        """The failed check with the largest difference, or of all checks if none failed."""
        failed = [check for check in self.checks if not check.passed]
        return max(failed or self.checks, key=lambda check: (check.max_abs_diff, bool(check.problem)))

    @property
    def failure(self) -> str:
        """Of a report that did not pass: what failed, naming the worst text."""
        if problems := [problem for quality in self.quality for problem in quality.problems]:
            return f"The quality is below the gate: {'; '.join(problems)}."
        worst = self.worst
        if worst.name == SETTINGS:
            return f"The manifest says what the model does not: {worst.problem}."
        what = worst.problem or f"max abs diff {worst.max_abs_diff:.1e}, cosine {worst.min_cosine:.6f}"
        return (
            f"Parity failed for {self.backend!r}: {what} in {worst.name!r} on text {shorten(worst.worst_text)!r}, "
            f"{worst.worst_tokens} tokens. The rule is {self.rule}."
            + "".join(f"\n  {parting}" for parting in self.partings)
        )

    def with_settings(self, others: Sequence[str]) -> ParityReport:
        """The same with a check that failed, if a manifest says otherwise than its model: a line for each key."""
        if not others:
            return self
        problem = "; ".join(others)
        check = Check(SETTINGS, 0, 0.0, "", 0, 1.0, 0, (), "", passed=False, problem=problem)
        return replace(self, checks=(*self.checks, check))

    def raise_if_failed(self) -> None:
        """Raise ParityError, naming the worst text, unless every check passed."""
        if not self.passed:
            advice = BELOW_GATE if self.quality else OTHER_ANSWER if self.worst.problem else BEYOND_RULE
            raise ParityError(f"{self.failure} Nothing was written.\n{advice}", self)

    def to_json(self) -> dict[str, Any]:
        """For machines: the same content as plain types; an infinite difference (other shapes) is None."""
        quality = [quality.to_json() for quality in self.quality]
        partings = [{**asdict(parting), "summary": str(parting)} for parting in self.partings]
        content = {**asdict(self), "quality": quality, "passed": self.passed, "partings": partings}
        for check in content["checks"]:
            check["max_abs_diff"] = check["max_abs_diff"] if np.isfinite(check["max_abs_diff"]) else None
        return content


def with_partings(report: ParityReport, original: Side, reference: Reference, artifact: Artifact) -> ParityReport:
    """The report, with the place where the two sides part on the worst text; on each engine whose values can be had.

    Args:
        report: of a comparison with the artifact.
        original: the model, loaded.
        reference: what it was asked.
        artifact: the converted folder.
    """
    from sbertconv.parity.by_module import can_look_inside, parting, question_of
    from sbertconv.runtime.opening import open_model

    question = question_of(report.worst.name, report.worst.worst_text, reference.questions)
    found = []
    for form in artifact.formats:
        for engine in artifact.engines(form):
            if question is not None and can_look_inside(artifact, form):
                embedder = open_model(artifact, form, engine, beyond_proof=True)
                found.append(parting(original, embedder, question, FLOAT32.atol, FLOAT32.rtol))
    return replace(report, partings=tuple(found))


def shorten(text: str, width: int = 32) -> str:
    """A text for a table cell or a message."""
    return text if len(text) <= width else f"{text[: width - 3]}..."


def rule_of(manifest: Mapping[str, Any], atol: float | None, rtol: float | None) -> Tolerance | Gate:
    """What an artifact is held to: the tables' numbers for its precision, or the user's own."""
    if manifest["precision"] in GATES:
        asked = manifest.get("gate") or asdict(GATES[manifest["precision"]])
        kind = CLASS_PARITY[manifest["model_class"]].gate
        gate: Gate = kind(**{one.name: asked.get(one.name, "") for one in fields(Gate)})
        return gate
    default = TOLERANCES[manifest["backend"]]
    return Tolerance(default.atol if atol is None else atol, default.rtol if rtol is None else rtol, default.reason)


@dataclass(frozen=True)
class Reference:
    """What the original model answered; holds no reference to it. `note` says if it was not asked as it is."""

    questions: Sequence[Question]
    answers: Sequence[Sequence[Any]]
    owner: str = ""
    note: str = ""

    @classmethod
    def of(cls, original: Side, embedder: ConvertedModel, texts: Sequence[str] = ()) -> Reference:
        """Ask the original everything that will be asked of the converted model, which does not run yet.

        Args:
            original: a model in float32 on the CPU.
            embedder: the converted folder; its tokenizers and its manifest decide what is asked.
            texts: further ones for the quality of a smaller model.

        Raises:
            SourceError: if the original cannot answer.
        """
        asked = questions(original, embedder, texts)
        with answering(embedder):
            found = cls(asked, [ask(original, question) for question in asked], original.owner)
            found.check_numbers()
            return found.as_in_padded_batches(original) if found.sees_padding else found

    def as_in_padded_batches(self, original: Side) -> Reference:
        """The answers with the causal mask of padded batches, if they are those of padded batches and the same in every
        batch; else these. Of a batch without padding transformers leaves the mask out, and with it some models the
        rule that a token sees none behind it.
        """
        with original.written_out() as causal:
            asked = [question for question in self.questions if question.name.endswith(WOBBLING)] if causal else []
            settled = Reference(asked, [ask(original, question) for question in asked])
            if not asked or settled.sees_padding or self.distance(settled, (BATCH, LENGTHS_MIXED)) > SEES_PADDING:
                return self
            known = {question.name: answers for question, answers in zip(asked, settled.answers, strict=True)}
            answers = [known.get(one.name) or ask(original, one) for one in self.questions]
        return replace(self, answers=answers, note=LEFT_OUT.format(diff=self.wobble[0]))

    def distance(self, other: Reference, names: tuple[str, ...]) -> float:
        """The largest difference from other answers to the questions whose names end so."""
        theirs = {question.name: answers for question, answers in zip(other.questions, other.answers, strict=True)}
        pairs = [
            (one, another)
            for question, answers in zip(self.questions, self.answers, strict=True)
            if question.name.endswith(names)
            for one, another in zip(answers, theirs[question.name], strict=True)
        ]
        return max((_measure(one, another, FLOAT32).diff for one, another in pairs), default=0.0)

    def check_numbers(self) -> None:
        """Raise SourceError if no answer to any question is a number: NaN would be equal to NaN everywhere."""
        pairs = zip(self.questions, self.answers, strict=True)
        answers = [row for question, rows in pairs if question.method != TOKENS for row in rows if row.size]
        if answers and not any(np.isfinite(row).any() for row in answers):
            raise SourceError(
                f"Every answer of the model itself, {len(answers)} in all, is NaN or infinite: there is nothing to "
                "compare.\nCheck the numbers of its settings and weights."
            )

    @cached_property
    def wobble(self) -> tuple[float, str]:
        """How far encode() is from itself between batches of one and all texts in one, and on which text."""
        return _wobble(list(zip(self.questions, self.answers, strict=True)))

    @property
    def sees_padding(self) -> bool:
        """Whether a text's vector depends on the padding of its batch: then only equal batches can be compared."""
        return self.wobble[0] > SEES_PADDING

    def without_tokens(self) -> Reference:
        """The same without the questions about tokens."""
        kept = [pair for pair in zip(self.questions, self.answers, strict=True) if pair[0].method != TOKENS]
        return replace(self, questions=[question for question, _ in kept], answers=[answers for _, answers in kept])


def compare_formats(
    reference: Reference, artifact: Artifact, *, atol: float | None = None, rtol: float | None = None
) -> ParityReport:
    """Ask every format of an artifact the same, on every engine that the manifest names, one after the other; tokens
    are the same for all.

    Args and Raises: see `compare`.
    """
    from sbertconv.runtime.opening import open_model

    reports: list[ParityReport] = []
    runs = [(form, engine) for form in artifact.formats for engine in artifact.engines(form)]
    for form, engine in runs:
        report = compare(reference, open_model(artifact, form, engine, beyond_proof=True), atol=atol, rtol=rtol)
        if len(runs) > 1:
            label = form if len(artifact.engines(form)) == 1 else engine
            names = (c.name if c.name.endswith(TOKENS) else f"{label}: {c.name}" for c in report.checks)
            named = zip(report.checks, names, strict=True)
            report = replace(
                report,
                checks=tuple(replace(check, name=name) for check, name in named),
                quality=tuple(replace(quality, run=f"{label}: {quality.run}") for quality in report.quality),
            )
        reports.append(report)
        reference = reference.without_tokens()
        release_memory()  # one format at a time
    checks, quality = ([part for report in reports for part in getattr(report, name)] for name in ("checks", "quality"))
    return replace(reports[0], checks=tuple(checks), quality=tuple(quality))


def compare(
    reference: Reference, embedder: ConvertedModel, *, atol: float | None = None, rtol: float | None = None
) -> ParityReport:
    """Ask the converted model the same and apply the rule.

    Args:
        reference: the original's answers.
        embedder: the converted folder, loaded from disk.
        atol: overrides the table's absolute tolerance.
        rtol: overrides the table's relative tolerance.

    Raises:
        ArtifactError: if the graph cannot be loaded or fails on a batch.
    """
    rule = rule_of(embedder.artifact.manifest, atol, rtol)
    asked = list(zip(reference.questions, reference.answers, strict=True))
    converted = Converted(embedder)
    model_class = MODEL_CLASSES[embedder.artifact.manifest["model_class"]]
    embedder.open()  # takes more memory than running: before anything else is there
    trim_heap()
    checks, quality = [], []
    for question, theirs in asked:
        ours = ask(converted, question)
        checks.append(_check(question, ours, theirs, embedder, rule))
        if isinstance(rule, Gate) and question.name.endswith(SENTENCES):
            quality.append(_quality(model_class, question, ours, theirs, converted, rule))
    wobble, wobble_text = reference.wobble
    method = f"{reference.owner}{model_class.method}"
    notes = [reference.note] if reference.note else []
    if reference.sees_padding:
        notes.append(
            f"{method}() differs from itself by {wobble:.1e} between batch 1 and batch {BATCH_SIZE}: "
            "this model sees the padding; only equal batches are compared."
        )
    notes += [note for question, _ in asked if (note := _missing(question))]
    notes += [note for note in [lowered(rule, embedder.artifact.manifest["precision"])] if note]
    over = [
        np.size(answers[-1].get("input_ids", ()))
        for question, answers in asked
        if question.method == TOKENS and answers[-1]
    ]
    forward = min(longest_forward(graph) for graph in embedder.graphs)
    if longest := max((length for length in over if length > forward), default=0):
        notes.append(f"Texts of {forward + 1} to {longest} tokens were compared by their tokens alone.")
    return ParityReport(
        embedder.artifact.manifest["backend"],
        str(rule),
        tuple(checks),
        wobble,
        wobble_text,
        tuple(notes),
        tuple(quality),
        method,
    )


def lowered(rule: Tolerance | Gate, precision: str) -> str | None:
    """What to say of a gate below the usual one: a folder names its own, and nobody may have looked at it."""
    if not isinstance(rule, Gate):
        return None
    usual = GATES[precision]
    lower = [
        f"{name} {getattr(rule, name):g} (usual: {getattr(usual, name):g})"
        for name in BOUNDS
        if getattr(rule, name) < getattr(usual, name)
    ]
    return f"The folder's own gate is lower than that of {precision}: {', '.join(lower)}." if lower else None


def _missing(question: Question) -> str | None:
    """What to say of a ladder with gaps."""
    if not question.missing:
        return None
    named, more = ", ".join(map(str, question.missing[:NAMED])), len(question.missing) - NAMED
    return f"{question.name}: not compared at {named}{f' and {more} more' if more > 0 else ''} tokens."


def _quality(
    model_class: ModelClass,
    question: Question,
    ours: Sequence[Any],
    theirs: Sequence[Any],
    converted: Converted,
    gate: Gate,
) -> QualityReport:
    """All the answers together, and some of them from a batch of one."""
    chosen = range(0, len(question.inputs), ALONE_STEP)
    options = {**question.options, "batch_size": 1}
    alone = ask(converted, replace(question, inputs=[question.inputs[index] for index in chosen], options=options))
    found: QualityReport = CLASS_PARITY[model_class.name].measure_quality(
        question.inputs, theirs, ours, dict(zip(chosen, alone, strict=True)), gate
    )
    return replace(found, run=question.name.removesuffix(SENTENCES))


def _check(
    question: Question, ours: Sequence[Any], theirs: Sequence[Any], embedder: ConvertedModel, rule: Tolerance | Gate
) -> Check:
    """Apply the rule to the answers to one question."""
    if question.method == TOKENS:
        measured = [_measure_tokens(a, b) for a, b in zip(ours, theirs, strict=True)]
    else:
        measured = [_measure(a, b, rule) for a, b in zip(ours, theirs, strict=True)]
    worst = max(range(len(measured)), key=lambda index: measured[index].diff)
    item = question.inputs[worst]
    text = item if isinstance(item, (str, tuple)) else None
    first = ours[0]["input_ids"] if question.method == TOKENS else ours[0]
    non_finite = sum(m.non_finite for m in measured)
    problems = [m.problem for m in measured if m.problem]
    if non_finite:
        problems.append(f"{non_finite} values are NaN or infinite on one side")
    return Check(
        name=question.name,
        texts=len(measured),
        max_abs_diff=measured[worst].diff,
        worst_text=f"input {worst}" if text is None else shown(text),
        worst_tokens=0 if text is None else _count_tokens(embedder, text, question.task),
        min_cosine=min(m.cosine for m in measured),
        non_finite=non_finite,
        shape=(len(measured), *first.shape[-1:]),
        dtype=str(first.dtype),
        passed=all(m.passed for m in measured),
        problem="; ".join(problems[:1]),
    )


def _wobble(asked: Sequence[tuple[Question, Sequence[Any]]]) -> tuple[float, str]:
    """encode() against itself: every text and every length, alone and in company."""
    worst, text = 0.0, ""
    named = {question.name: (question, answers) for question, answers in asked}
    for name, (question, answers) in named.items():
        for one, several in ((ALONE, BATCH), (LENGTHS_ALONE, LENGTHS_MIXED)):
            other = f"{name.removesuffix(one)}{several}"
            if not name.endswith(one) or other not in named:
                continue
            alone = dict(zip(question.inputs, answers, strict=True))
            for item, batch in zip(named[other][0].inputs, named[other][1], strict=True):
                if (diff := _measure(alone[item], batch, FLOAT32).diff) > worst or not text:
                    worst, text = max(diff, worst), shown(item)
    return worst, text


def shown(text: str | tuple[str, str]) -> str:
    """A text, or the two of a pair with a bar between them."""
    return text if isinstance(text, str) else " | ".join(text)


def _count_tokens(embedder: ConvertedModel, text: Any, task: str | None) -> int:
    tokens = embedder.tokenize([text], task)
    return int(tokens["attention_mask"].sum() if "attention_mask" in tokens else tokens["input_ids"].size)


@dataclass(frozen=True)
class _Measure:
    diff: float
    cosine: float
    non_finite: int
    passed: bool
    problem: str = ""


def cosine_of(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of all numbers of two arrays of one shape, float64; 1 if both are 0, 0 if one of them is."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norms if norms else float(np.array_equal(a, b))


def _measure(a: np.ndarray, b: np.ndarray, rule: Tolerance | Gate) -> _Measure:
    """One pair of arrays. Values that are not finite must be the same on both sides: -inf is max pooling's
    answer to an empty text.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return _Measure(float("inf"), 0.0, 0, False, f"{a.dtype} {a.shape} instead of {b.dtype} {b.shape}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    non_finite = int((~finite & ~same).sum())
    a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    diff = np.abs(a - b)
    cosine = cosine_of(a, b)
    passed = non_finite == 0 and rule.holds(diff, b, cosine)
    return _Measure(float(diff.max(initial=0)), cosine, non_finite, passed)


def _measure_tokens(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> _Measure:
    """How many values of the shared tensors differ; another length counts every token.

    Bags of words count in the library's tokenizer and have no ids to compare; a text without words has no
    ids in the library's flat lists and one column of padding in ours.
    """
    found = 0
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        if name in ours and name in theirs:
            a, b = ours[name], np.atleast_2d(theirs[name])
            if b.size:
                found += int((a != b).sum()) if a.shape == b.shape else max(a.size, b.size)
    return _Measure(float(found), 1.0, 0, found == 0, "tokenized differently" if found else "")
