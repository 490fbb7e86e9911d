"""The arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sbertconv.artifact.kinds import MODEL_CLASSES
from sbertconv.console.hints import complete_engine, complete_model


class Output(StrEnum):
    sentence_embedding = "sentence_embedding"
    token_embeddings = "token_embeddings"
    scoring_mask = "scoring_mask"
    logits = "logits"
    scores = "scores"


class KerasFormat(StrEnum):
    keras = "keras"
    saved_model = "saved_model"
    litert = "litert"
    onnx = "onnx"


class Format(StrEnum):
    onnx = "onnx"
    openvino = "openvino"
    keras = "keras"
    saved_model = "saved_model"
    litert = "litert"
    torch = "torch"
    tensorrt = "tensorrt"


class Target(StrEnum):
    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"


class GraphEngine(StrEnum):
    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Part(StrEnum):
    encoder = "encoder"


class Bits(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"
    int4 = "int4"


def _tolerance(kind: str) -> Any:
    return typer.Option(help=f"Largest {kind} difference; default 1e-5, with PyTorch 1e-6.", show_default=False)


def _gate(what: str) -> Any:
    return typer.Option(help=f"Below fp32: {what}; defaults per precision.", show_default=False, min=0, max=1)


def flag(names: str, text: str, short: str | None = None, **options: Any) -> Any:
    """An option without a value: that it is a bool, and off unless given, goes without saying."""
    return typer.Option(*filter(None, (names, short)), help=text, metavar="", show_default=False, **options)


def count(text: str) -> Any:
    return typer.Option(help=text, metavar="<n>", min=1, show_default=False)


def counts(text: str) -> Any:
    return typer.Option(help=text, metavar="<n,n,...>", parser=_numbers, show_default=False)


def _numbers(text: str) -> tuple[int, ...]:
    """Positive integers, in order, each once."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise typer.BadParameter(f"{text!r}: not positive integers with commas between them")
    return tuple(numbers)


def shape(text: str) -> tuple[int, int]:
    """A batch and a sequence: 32x256."""
    match text.lower().split("x"):
        case [batch, sequence] if batch.isdecimal() and sequence.isdecimal():
            return int(batch), int(sequence)
    raise typer.BadParameter(f"{text!r}: not texts x tokens, such as 32x256")


Model = Annotated[
    str,
    typer.Argument(
        help="A Hub id or a folder; for to-onnx also a .keras file.", show_default=False, autocompletion=complete_model
    ),
]
DryRun = Annotated[bool, flag("--dry-run", "Show the plan and the folder; convert and write nothing.")]
Revision = Annotated[str | None, typer.Option(help="A Hub branch, tag or commit.", show_default=False)]
Trust = Annotated[bool, flag("--trust-remote-code", "Run code that comes with the model.")]
ReadAs = Annotated[
    str | None,
    typer.Option(
        "--class",
        help=f"Read a checkpoint without files of sentence-transformers as {', '.join(MODEL_CLASSES)}.",
        metavar="<name>",
        show_default=False,
    ),
]
PoolingMode = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        help="Pool such a checkpoint's token embeddings: mean, cls, lasttoken, max, ...; default as in encode().",
        metavar="<mode>",
        show_default=False,
    ),
]
PartOf = Annotated[
    Part | None,
    typer.Option(
        "--part",
        help="Of a .keras file whose model contains a converted one, that one alone: encoder.",
        metavar="<name>",
        show_default=False,
    ),
]
AllowChanged = Annotated[
    bool,
    flag("--allow-changed", "Convert a model that the library loads without some of its settings or weights."),
]
Overwrite = Annotated[bool, flag("--overwrite", "Replace an existing artifact.")]
Json = Annotated[bool, flag("--json", "Print JSON for machines.")]
Precision = Annotated[
    Bits, typer.Option(help="fp32, or smaller weights behind a quality gate: bf16, fp16, int8, int4.")
]
MinCosine = Annotated[float | None, _gate("smallest cosine with encode()")]
MinSpearman = Annotated[float | None, _gate("rank correlation of all similarities")]
MinTop10 = Annotated[float | None, _gate("share of the ten nearest neighbours that stay")]
EvalFile = Annotated[
    Path | None, typer.Option("--eval", help="Your own texts for the gate, as encode reads them.", show_default=False)
]
Calibration = Annotated[
    Path | None, typer.Option(help="Your own texts for fp16's probe of its range, read likewise.", show_default=False)
]
TextInput = Annotated[bool, flag("--text-input", "The tokenizer inside the graph: it takes strings.")]
Engine = Annotated[
    str,
    typer.Option(
        help="onnxruntime, openvino, keras, tensorflow, litert, torch, tensorrt, or auto.",
        autocompletion=complete_engine,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads; default: OMP_NUM_THREADS, or the usable cores.", min=1, show_default=False),
]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1, with OpenVINO gpu or npu; default: the engine's own.", show_default=False),
]


def _of_tables(text: str, **options: Any) -> Any:
    return typer.Option(help=f"Of tables: {text}", show_default=False, **options)


Keep = Annotated[str | None, _of_tables("the columns that stay, with commas between them; default all.")]
Nulls = Annotated[
    str | None, _of_tables("null (default): a row without text has no vector; error: it is a bad row.", metavar="<how>")
]
OnError = Annotated[
    str | None, _of_tables("fail (default) at a bad row or broken file, or skip and report it.", metavar="<how>")
]
OutputFormat = Annotated[str | None, _of_tables("parquet (default) or arrow.", metavar="<name>")]
RowsPerFile = Annotated[int | None, _of_tables("rows of an output file; default 8192.", min=1)]
Workers = Annotated[int | None, _of_tables("processes, each on its share of the threads; default 1.", min=1)]
On = Annotated[str | None, _of_tables("ray or spark, with an address behind a colon; default: this machine.")]
Outputs = Annotated[
    list[Output] | None,
    typer.Option(
        help="sentence_embedding or token_embeddings; of a reranker logits or scores; repeat for both, in this order.",
        metavar="<name>",
        show_default=False,
    ),
]
ActivationToo = Annotated[
    bool, flag("--activation", "Of a reranker or classifier, its activation as a second output, scores.")
]
SparseOutput = Annotated[bool, flag("--sparse", "Of a SparseEncoder, indices and values in place of the vector.")]
TopK = Annotated[
    int | None,
    typer.Option(help="Of a SparseEncoder, how many values stay; default: the model's.", min=1, show_default=False),
]
TokenTypeIds = Annotated[
    bool | None,
    flag(
        "--token-type-ids/--no-token-type-ids", "Always or never take token_type_ids; default: as the tokenizer emits."
    ),
]
ProofBudget = Annotated[
    float | None,
    typer.Option(
        help="Seconds for comparing long texts, cut at what was compared; default: as long as the conversion, at least "
        "60, up to 4,096 tokens.",
        metavar="<seconds>",
        min=0,
        show_default=False,
    ),
]
BeyondProof = Annotated[
    bool, flag("--beyond-proof", "Take texts longer than those that were compared with the model, up to its limit.")
]
Atol = Annotated[float | None, _tolerance("absolute")]
Rtol = Annotated[float | None, _tolerance("relative")]
