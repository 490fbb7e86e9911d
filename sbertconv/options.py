"""The options of every public verb, each written once: its name, type, default and sentence of help.

A subject is a frozen dataclass; `VERBS` says which subjects a verb takes. From the fields come the flat keywords of
Python (`keywords.py` holds them for type checkers, written by docs/generate.py), their docstrings, the options of the
command line (`console/options.py`), the manifest's `options`, and the refusal of an option that a verb has no use for.
Messages call an option as Python does, `top_k=5`; the command line prints them in its own words.
"""

from __future__ import annotations

import functools
import inspect
import math
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar, cast, get_type_hints

from sbertconv.artifact.kinds import EXACT, MODEL_CLASSES
from sbertconv.errors import UnsupportedOptionError

T = TypeVar("T")
Verb = TypeVar("Verb", bound=Callable[..., Any])
Shape = tuple[int, int]
Names = tuple[str, ...]

PRECISIONS = (EXACT, "bf16", "fp16", "int8", "int4")
TARGETS = ("onnxruntime", "tensorrt")
GRAPH_ENGINES = ("onnxruntime", "openvino")
KERAS_FORMATS = ("keras", "saved_model", "litert", "onnx")
OUTPUTS = tuple(dict.fromkeys(name for row in MODEL_CLASSES.values() for name in row.outputs))
OPSETS = tuple(range(18, 23))  # torch.onnx lowers to 18 and up; ONNX Runtime 1.31 misreads RotaryEmbedding of 23
ENCODER = "encoder"
OPTION = "option"  # the key of a field's metadata


@dataclass(frozen=True, kw_only=True)
class Option:
    """The facts of an option beside its name, type and default.

    Attributes:
        help: one sentence for docstring, command line and docs.
        flag: its name on the command line; empty: the keyword's with dashes.
        metavar: what stands for its value in the command line's help; empty: as the type has it.
        choices: the values that it may have; of a sequence, each of its values; empty: any.
        low: the smallest number that it may be.
        high: the largest.
        from_file: whether the command line takes a file with the value's lines.
        off: the command line's flag that says False; where it is set and the default is None there are both.
    """

    help: str
    flag: str = ""
    metavar: str = ""
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    from_file: bool = False
    off: str = ""


def option(default: T, sentence: str, **facts: Any) -> T:
    """A field of a subject."""
    return field(default=default, metadata={OPTION: Option(help=sentence, **facts)})


def of_field(entry: Field[Any]) -> Option:
    """What a subject says of one of its fields."""
    found: Option = entry.metadata[OPTION]
    return found


def flag_of(entry: Field[Any]) -> str:
    """The command line's name of an option."""
    return of_field(entry).flag or f"--{entry.name.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model is opened."""

    revision: str | None = option(None, "A Hub branch, tag or commit.")
    trust_remote_code: bool = option(False, "Run code that comes with the model.")
    model_class: str | None = option(
        None,
        f"What a checkpoint without files of sentence-transformers is read as: {', '.join(MODEL_CLASSES)}; default: "
        "as its config.json tells.",
        flag="--class",
        metavar="<name>",
    )
    pooling: str | None = option(
        None,
        "How such a checkpoint's token embeddings become one: mean, cls, lasttoken, max, weightedmean, "
        "mean_sqrt_len_tokens; default: as SentenceTransformer does.",
        metavar="<mode>",
    )
    allow_changed: bool = option(
        False,
        "Convert a model that the library loads without some of its settings or weights: what encode() computes all "
        "the same.",
    )
    tasks: Names = option(
        (),
        "An adapter of the model, or a task that its forward takes: each becomes a graph, which encode(task=) chooses; "
        "repeat for several.",
        flag="--task",
        metavar="<name>",
    )


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """How the folder is written."""

    overwrite: bool = option(False, "Replace an existing artifact.")


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """What becomes of the folder."""

    push_to_hub: str | None = option(
        None, "Upload the folder to the Hub as owner/name, made if it is not there.", metavar="<owner/name>"
    )


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """What of a Keras model is meant."""

    part: str | None = option(
        None,
        "Of a .keras file whose model contains a converted one, that one alone: encoder; default: the whole, a "
        "classifier of texts.",
        metavar="<name>",
        choices=(ENCODER,),
    )


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """The rule |a - b| <= atol + rtol * |b| of a comparison."""

    atol: float | None = option(None, "Largest absolute difference; default 1e-5, with PyTorch 1e-6.", low=0)
    rtol: float | None = option(None, "Largest relative difference; default 1e-5, with PyTorch 1e-6.", low=0)


@dataclass(frozen=True, kw_only=True)
class LookInsideOptions:
    """How much a comparison shows."""

    by_module: bool = option(
        False, "Compare the values inside too, and name the first module at which the two sides part."
    )


@dataclass(frozen=True, kw_only=True)
class ProofOptions(RuleOptions):
    """The bounds of the proof."""

    proof_budget: float | None = option(
        None,
        "Seconds for comparing long texts; the folder is cut at what was compared, its proven_length. Default: as long "
        "as the conversion took, at least 60, up to 4,096 tokens.",
        metavar="<seconds>",
        low=0,
    )


@dataclass(frozen=True, kw_only=True)
class GateOptions(ProofOptions):
    """The bounds of the proof, below float32 a quality gate on 1,200 sentences and the texts given."""

    min_cosine: float | None = option(
        None, "Below fp32, the smallest cosine with encode(); defaults per precision.", low=0, high=1
    )
    min_spearman: float | None = option(
        None, "Below fp32, the rank correlation of all similarities; defaults per precision.", low=0, high=1
    )
    min_top10: float | None = option(
        None, "Below fp32, the share of the ten nearest neighbours that stay; defaults per precision.", low=0, high=1
    )
    texts: Names = option((), "Your own texts for the gate.", flag="--eval", from_file=True)


@dataclass(frozen=True, kw_only=True)
class ActivationOptions:
    """A second output of those that predict."""

    activation: bool = option(False, "Of a reranker or classifier, its activation as a second output, scores.")


@dataclass(frozen=True, kw_only=True)
class VectorOptions:
    """How the vectors of a text come out of a graph."""

    truncate_dim: int | None = option(
        None,
        "Of a SentenceTransformer, cut its vectors to so many dimensions in the graph; default: as the model does.",
        metavar="<n>",
        low=1,
    )
    normalize: bool = option(False, "Of a SentenceTransformer, normalize its vectors in the graph, after they are cut.")


@dataclass(frozen=True, kw_only=True)
class OutputOptions(ActivationOptions, VectorOptions):
    """What a graph gives."""

    outputs: Names | None = option(
        None,
        "sentence_embedding, token_embeddings or last_hidden_state, the transformer's own; of a model with heads as "
        "BGE-M3 has lexical_weights and colbert_vecs; of a reranker or classifier logits or scores; of a SparseEncoder "
        "indices and values, and logits of tokens; several in this order.",
        flag="--output",
        metavar="<name>",
        choices=OUTPUTS,
    )
    sparse: bool = option(False, "Of a SparseEncoder, indices and values in place of the vector.")
    top_k: int | None = option(
        None, "Of a SparseEncoder, how many values of a vector stay; default: the model's own limit.", low=1
    )


@dataclass(frozen=True, kw_only=True)
class TextInputOptions:
    """The tokenizer inside the graph."""

    text_input: bool = option(
        False, "The tokenizer inside the graph: it takes strings. It is proven token by token on 20,000 texts."
    )


@dataclass(frozen=True, kw_only=True)
class GraphOptions(OutputOptions):
    """How a graph is written, for every engine that runs one."""

    token_type_ids: bool | None = option(
        None, "Always or never take token_type_ids; default: as the tokenizer emits.", off="--no-token-type-ids"
    )
    precision: str = option(
        EXACT,
        "fp32; or smaller weights behind a quality gate: bf16 (computed as the engine can), fp16 (for accelerators), "
        "int8, int4 (in blocks).",
        choices=PRECISIONS,
    )
    calibration: Names = option(
        (), "Your own texts for fp16, which keeps in float32 whatever leaves its range on them.", from_file=True
    )
    input_names: Names = option(
        (),
        "Names of inputs in the graph, like input_ids=ids; those that are named come first, in this order.",
        flag="--input-name",
        metavar="<old=new>",
    )
    output_names: Names = option((), "The same of outputs.", flag="--output-name", metavar="<old=new>")
    consumers: Names = option(
        (),
        "Other software that will open the folder, as sbertconv pack lays it out and proves it; several are possible.",
        flag="--for",
        metavar="<name>",
    )


@dataclass(frozen=True, kw_only=True)
class OnnxOptions(GraphOptions, TextInputOptions, PartOptions):
    """How an ONNX graph is written."""

    opset: int = option(18, "Version of the ai.onnx operators.", choices=OPSETS)
    external_data: bool | None = option(
        None, "Weights in a file beside the graph; default: past 2 GB.", off="--no-external-data"
    )
    optimize: bool = option(
        True, "ONNX Runtime's fused operators where they keep the parity, or ai.onnx only.", off="--no-optimize"
    )
    engines: Names | None = option(
        None,
        "What to prove it on, and so what runs it by itself: onnxruntime, openvino; default onnxruntime, of bf16 also "
        "openvino where it is installed.",
        flag="--engine",
        metavar="<name>",
        choices=GRAPH_ENGINES,
    )
    target: str = option(
        "onnxruntime", "onnxruntime, or tensorrt: no other operators, and what builds a plan.", choices=TARGETS
    )
    max_shape: Shape | None = option(
        None,
        "For tensorrt, a plan's largest batch and sequence; default: the model's limit, up to 32 texts.",
        metavar="<n>x<n>",
    )


@dataclass(frozen=True, kw_only=True)
class OpenVinoOptions(GraphOptions):
    """How OpenVINO's intermediate representation is written."""


@dataclass(frozen=True, kw_only=True)
class KerasOptions(ActivationOptions, VectorOptions, TextInputOptions):
    """How a Keras artifact is written."""

    formats: Names = option(
        ("keras", "saved_model"),
        "keras (trainable), saved_model (these two by default), litert or onnx; each is compared.",
        flag="--format",
        metavar="<name>",
        choices=KERAS_FORMATS,
    )


@dataclass(frozen=True, kw_only=True)
class TorchOptions(OutputOptions):
    """How a PyTorch program is written."""


@dataclass(frozen=True, kw_only=True)
class TrimOptions:
    """Which tokens stay."""

    keep: Names = option(
        (), "The texts whose embeddings stay as they are, to the last bit: their tokens are kept.", from_file=True
    )
    languages: Names = option(
        (),
        "A language (de, ru, ja, ...) or a script (Latin, Cyrillic, ...): every token of its letters stays; repeat for "
        "several.",
        flag="--language",
        metavar="<name>",
    )
    sample: Names = option(
        (),
        "Other texts, of which those are counted that change their tokens; default: 1,200 English sentences.",
        from_file=True,
    )


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """Which layers stay."""

    layers: str = option("", "How many of the first layers stay, 3, or which, from 0: 0,2,5.", metavar="<n|n,n,...>")


@dataclass(frozen=True, kw_only=True)
class StaticOptions:
    """How token vectors are made."""

    dim: int | None = option(
        None, "Dimensions that stay of the model's own, the main ones of its tokens; default 256.", metavar="<n>", low=1
    )


@dataclass(frozen=True, kw_only=True)
class LikenessOptions:
    """The gate of a smaller model that answers otherwise."""

    min_cosine: float | None = option(
        None, "The smallest cosine of a text's vector with the original's; default: any.", low=0, high=1
    )
    min_spearman: float | None = option(
        None, "The rank correlation of all similarities with the original's; default 0.3.", low=0, high=1
    )
    min_top10: float | None = option(
        None, "The share of the ten nearest neighbours that stay; default 0.2.", low=0, high=1
    )
    texts: Names = option(
        (),
        "Your own texts, which the gate looks at, 50 and more; default: 1,200 English sentences.",
        flag="--eval",
        from_file=True,
    )


Subject = type[Any] | tuple[type[Any], str]  # a subject whole, or those of its fields that are named
READ = "revision trust_remote_code"
WHOLE = f"{READ} model_class pooling allow_changed"  # of a model that is read and written as it is
NOT_RECORDED = ("overwrite", "push_to_hub")  # of the options, those that change nothing in the folder
VERBS: dict[str, tuple[Subject, ...]] = {
    "to_onnx": (ModelOptions, FolderOptions, PushOptions, OnnxOptions, GateOptions),
    "to_openvino": (ModelOptions, FolderOptions, PushOptions, OpenVinoOptions, GateOptions),
    "to_tf": (ModelOptions, FolderOptions, PushOptions, KerasOptions, ProofOptions),
    "to_keras": (ModelOptions, ActivationOptions, VectorOptions, ProofOptions),
    "to_torch": (ModelOptions, FolderOptions, PushOptions, TorchOptions, ProofOptions),
    "to_st": ((ModelOptions, "trust_remote_code"), FolderOptions, RuleOptions, PartOptions),
    "trim": ((ModelOptions, WHOLE), FolderOptions, TrimOptions),
    "shorten": ((ModelOptions, WHOLE), FolderOptions, LayerOptions, LikenessOptions),
    "to_static": (
        (ModelOptions, WHOLE),
        FolderOptions,
        StaticOptions,
        (LikenessOptions, "min_spearman min_top10 texts"),
    ),
    "pipeline": (ModelOptions, (OutputOptions, "outputs")),
    "build_plan": (RuleOptions,),
    "verify": ((ModelOptions, f"{READ} allow_changed"), RuleOptions, LookInsideOptions),
    "inspect": ((ModelOptions, f"{READ} model_class pooling"),),
    "benchmark": ((ModelOptions, READ),),
}


@functools.cache
def fields_of(verb: str) -> dict[str, tuple[Field[Any], Any]]:
    """The options of a verb in the order of its subjects: name -> the field and its type."""
    found = {}
    for subject in VERBS[verb]:
        whole, only = subject if isinstance(subject, tuple) else (subject, None)
        hints = get_type_hints(whole)
        for entry in fields(whole):
            if only is None or entry.name in only.split():
                found[entry.name] = entry, hints[entry.name]
    return found


@functools.cache
def all_fields() -> dict[str, tuple[Field[Any], Any]]:
    """The options of all verbs."""
    return {name: entry for verb in VERBS for name, entry in fields_of(verb).items()}


# What verbs take that no command has -> whether a value is such a thing, and what it is called.
OWN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "on_stage": (callable, "function of a stage's name"),
    "on_step": (callable, "function of a step's name and two numbers"),
    "registry": (lambda value: hasattr(value, "backends"), "Registry"),
}


def verb(function: Verb) -> Verb:
    """The function as a public verb: its `**options` are those of its row in `VERBS`, checked before it runs.

    The keywords stand in its signature and its docstring; the place `{options}` of the docstring is filled in.

    Raises:
        UnsupportedOptionError: when called with an option that the verb does not have, or a value that it cannot be.
    """
    name, entries = function.__name__, fields_of(function.__name__)
    own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    keywords = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=entry.default, annotation=entry.type)
        for key, (entry, _) in entries.items()
    ]
    local = [p.name for p in own]

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        for key, (fits, due) in OWN.items():
            if key in local and given.get(key) is not None and not fits(given[key]):
                raise UnsupportedOptionError(f"{key}={given[key]!r:.60} is no {due}.\nPass one, or leave it out.")
        return function(*args, **{key: given[key] for key in given if key in local}, **_checked(name, given, local))

    signature = inspect.signature(function)
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what inspect reads
        parameters=sorted([*own, *keywords], key=lambda parameter: parameter.kind)
    )
    call.__doc__ = (function.__doc__ or "").replace("{options}", documented(name))
    del call.__wrapped__  # it has neither the options nor this docstring, and tools would look there
    return cast(Verb, call)


def documented(name: str, indent: str = " " * 8) -> str:
    """The options of a verb as lines of a docstring's Args."""
    lines = [
        textwrap.fill(f"{key}: {of_field(entry).help}", 120, initial_indent=indent, subsequent_indent=indent + " " * 4)
        for key, (entry, _) in fields_of(name).items()
    ]
    return "\n".join(lines).strip()


def _checked(name: str, given: Mapping[str, Any], local: Collection[str]) -> dict[str, Any]:
    """The options given, as the types of their fields.

    Raises:
        UnsupportedOptionError: naming every unknown option and every wrong value.
    """
    entries, found, problems = fields_of(name), {}, []
    for key, value in given.items():
        if key in entries:
            try:
                found[key] = checked_value(*entries[key], value)
            except UnsupportedOptionError as error:
                problems.append(str(error))
        elif key not in local:
            meant = get_close_matches(key, [*entries, *local], 1)
            problems.append(f"{key}=: {name}() has no such option.{''.join(f' Did you mean {one}?' for one in meant)}")
    if problems:
        advice = [] if any(problem.count("\n") for problem in problems) else ["Leave out what does not apply."]
        raise UnsupportedOptionError("\n".join([*problems, *advice]))
    return found


def checked_value(entry: Field[Any], kind: Any, value: Any) -> Any:
    """A value as the type of its field.

    Raises:
        UnsupportedOptionError: for a value of another type or out of range, with what is allowed.
    """
    import msgspec

    facts = of_field(entry)
    if isinstance(value, str) and kind in (Names, Names | None):  # a text is a sequence too, of single letters
        raise UnsupportedOptionError(
            f"{entry.name}={value!r:.60} is one text (have: a sequence of them).\nPut it into a list."
        )
    try:
        plain = value.item() if hasattr(value, "item") else str(value) if isinstance(value, str) else value
        value = msgspec.convert(list(plain) if isinstance(plain, Iterator) else plain, kind)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise UnsupportedOptionError(
            f"{entry.name}={value!r:.60} is {type(value).__name__} (have: {words_of(kind)}).\nPass one of these."
        ) from error
    parts = value if isinstance(value, tuple) else (value,)
    if facts.choices and value is not None:
        unknown = [part for part in parts if part not in facts.choices]
        if unknown or not parts or len(set(parts)) < len(parts):
            said = f"{unknown[0]!r} is not known" if unknown else f"{list(parts)!r}: each at most once, and not none"
            raise UnsupportedOptionError(
                f"{entry.name}={said} (have: {', '.join(map(str, facts.choices))}).\nChoose among these."
            )
    low, high = facts.low, facts.high
    if isinstance(value, float) and math.isinf(value):  # which a manifest cannot record
        raise UnsupportedOptionError(f"{entry.name}={value} is no number (have: finite ones).\nPass a large one.")
    if value is not None and not ((low is None or value >= low) and (high is None or value <= high)):
        due = f"{low:g} to {high:g}" if high is not None else f"{low:g} and more"
        raise UnsupportedOptionError(f"{entry.name}={value} (have: {due}).\nLeave it out for the default.")
    return value


def words_of(kind: Any) -> str:
    """A type for a reader: `text, None`."""
    words = {
        str: "text", bool: "True, False", int: "a whole number", float: "a number", type(None): "None",
        Names: "a sequence of texts", Shape: "two whole numbers",
    }  # fmt: skip
    return words[kind] if kind in words else ", ".join(words_of(part) for part in kind.__args__)


def subject(kind: type[T], options: Mapping[str, Any]) -> T:
    """The options of one subject, from the flat ones of a verb."""
    names = {entry.name for entry in fields(cast(Any, kind))}
    return kind(**{name: value for name, value in options.items() if name in names})


def differing(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a verb's options that are not as by default."""
    defaults = {key: entry.default for key, (entry, _) in fields_of(name).items()}
    return {key: value for key, value in options.items() if value != defaults.get(key)}


def recorded(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's `options`: those that are not as by default; of a user's texts their number alone."""
    entries = fields_of(name)
    return {
        key: len(value) if of_field(entries[key][0]).from_file else value
        for key, value in differing(name, options).items()
        if key not in NOT_RECORDED
    }


def refuse_idle(name: str, options: Mapping[str, Any], used: Collection[str], reason: str) -> None:
    """Raise UnsupportedOptionError for every option that differs from its default and would not be used.

    Args:
        name: the verb.
        options: those that it was given.
        used: the options that apply.
        reason: why no other one does.
    """
    if idle := [f"{key}=" for key in differing(name, options) if key not in used]:
        raise UnsupportedOptionError(f"{', '.join(idle)}: {reason}\nLeave {'them' if len(idle) > 1 else 'it'} out.")
