"""The command line: parse, call the API, print. No conversion logic."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sbertconv.classes import MODEL_CLASSES
from sbertconv.errors import ParityError, SbertconvError, UnsupportedOptionError

if TYPE_CHECKING:
    from rich.console import Console

    from sbertconv.artifact import Artifact
    from sbertconv.benchmark.report import BenchReport

WIDTH = 120  # of tables that go to a file or a pipe
SHOWN = ("model_class", "architecture", "tokenizer", "embedding_dimension", "num_labels", "labels", "activation",
         "max_active_dims", "max_seq_length", "similarity_fn_name", "truncate_dim", "prompts", "default_prompt_name",
         "revision")  # fmt: skip


class Commands(TyperGroup):
    """Every command ends the same way: a user's mistake, or ^C, is a message on stderr and no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        try:
            return super().invoke(ctx)
        except SbertconvError as error:
            if ctx.params["debug"]:
                raise
            if isinstance(error, ParityError):
                _print_parity(error.report.to_json(), _console(stderr=True))
            typer.echo(str(error), err=True)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if ctx.params["debug"] or isinstance(error, BrokenPipeError):
                raise
            from sbertconv.files import discard_output

            discard_output()
            what = error.filename or "The output"
            typer.echo(
                f"{what}: cannot be read or written: {error.strerror or error}.\nMake room, or check it.", err=True
            )
            raise typer.Exit(SbertconvError.exit_code) from error
        except KeyboardInterrupt:
            typer.echo("Interrupted. Nothing was written.", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="sbertconv",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="sentence-transformers models as ONNX graphs, Keras models and PyTorch programs, proven equal to encode().",
    epilog="Exit codes: 0 done, 1 cannot convert, 2 usage, 3 parity failed.",
)


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


def _flag(names: str, text: str, **options: Any) -> Any:
    """An option without a value: that it is a bool, and off unless given, goes without saying."""
    return typer.Option(names, help=text, metavar="", show_default=False, **options)


def _count(text: str) -> Any:
    return typer.Option(help=text, metavar="<n>", min=1, show_default=False)


def _counts(text: str) -> Any:
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


def _shape(text: str) -> tuple[int, int]:
    """A batch and a sequence: 32x256."""
    match text.lower().split("x"):
        case [batch, sequence] if batch.isdecimal() and sequence.isdecimal():
            return int(batch), int(sequence)
    raise typer.BadParameter(f"{text!r}: not texts x tokens, such as 32x256")


Model = Annotated[str, typer.Argument(help="A Hub id or a folder; for to-onnx also a .keras file.", show_default=False)]
Revision = Annotated[str | None, typer.Option(help="A Hub branch, tag or commit.", show_default=False)]
Trust = Annotated[bool, _flag("--trust-remote-code", "Run code that comes with the model.")]
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
Overwrite = Annotated[bool, _flag("--overwrite", "Replace an existing artifact.")]
Json = Annotated[bool, _flag("--json", "Print JSON for machines.")]
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
TextInput = Annotated[bool, _flag("--text-input", "The tokenizer inside the graph: it takes strings.")]
Engine = Annotated[
    str, typer.Option(help="onnxruntime, openvino, keras, tensorflow, litert, torch, tensorrt, or auto.")
]
Outputs = Annotated[
    list[Output] | None,
    typer.Option(
        help="sentence_embedding or token_embeddings; of a reranker logits or scores; repeat for both, in this order.",
        metavar="<name>",
        show_default=False,
    ),
]
ActivationToo = Annotated[
    bool, _flag("--activation", "Of a reranker or classifier, its activation as a second output, scores.")
]
SparseOutput = Annotated[bool, _flag("--sparse", "Of a SparseEncoder, indices and values in place of the vector.")]
TopK = Annotated[
    int | None,
    typer.Option(help="Of a SparseEncoder, how many values stay; default: the model's.", min=1, show_default=False),
]
Atol = Annotated[float | None, _tolerance("absolute")]
Rtol = Annotated[float | None, _tolerance("relative")]


def _version(wanted: bool) -> None:
    if wanted:
        from sbertconv import __version__

        typer.echo(f"sbertconv {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, _flag("--debug", "Show the traceback of an error.")] = False,
    version: Annotated[bool, _flag("--version", "Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Options of every command."""


@app.command("to-onnx")
def to_onnx_command(
    model: Model,
    directory: Annotated[
        str | None, typer.Argument(help="Where to write; default: <model's name>-onnx here.", show_default=False)
    ] = None,
    revision: Revision = None,
    trust_remote_code: Trust = False,
    model_class: ReadAs = None,
    pooling: PoolingMode = None,
    overwrite: Overwrite = False,
    opset: Annotated[int, typer.Option(help="Version of the ai.onnx operators.")] = 18,
    output: Outputs = None,
    activation: ActivationToo = False,
    sparse: SparseOutput = False,
    top_k: TopK = None,
    external_data: Annotated[
        bool | None,
        _flag("--external-data/--no-external-data", "Weights in a file beside the graph; default: past 2 GB."),
    ] = None,
    token_type_ids: Annotated[
        bool | None,
        _flag(
            "--token-type-ids/--no-token-type-ids",
            "Always or never take token_type_ids; default: as the tokenizer emits.",
        ),
    ] = None,
    optimize: Annotated[
        bool, _flag("--optimize/--no-optimize", "ONNX Runtime's fused operators (default), or ai.onnx only.")
    ] = True,
    precision: Precision = Bits.fp32,
    engine: Annotated[
        list[GraphEngine] | None,
        typer.Option(
            help="What to prove it on: onnxruntime (default), openvino; repeat for both.",
            metavar="<name>",
            show_default=False,
        ),
    ] = None,
    atol: Atol = None,
    rtol: Rtol = None,
    min_cosine: MinCosine = None,
    min_spearman: MinSpearman = None,
    min_top10: MinTop10 = None,
    eval_file: EvalFile = None,
    calibration: Calibration = None,
    text_input: TextInput = False,
    target: Annotated[
        Target, typer.Option(help="onnxruntime, or tensorrt: no other operators, and what builds a plan.")
    ] = Target.onnxruntime,
    max_shape: Annotated[
        Any,
        typer.Option(
            help="For tensorrt: a plan's largest batch and sequence; default: the model's limit, up to 32 texts.",
            metavar="<n>x<n>",
            parser=_shape,
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a model to ONNX and prove it equal to encode(); a Keras model of to-tf, equal to itself."""
    from sbertconv.api import to_onnx

    with _progress(as_json) as on_stage:
        artifact = to_onnx(
            model,
            directory,
            revision=revision,
            trust_remote_code=trust_remote_code,
            model_class=model_class,
            pooling=pooling,
            overwrite=overwrite,
            opset=opset,
            outputs=None if output is None else [name.value for name in output],
            activation=activation,
            sparse=sparse,
            top_k=top_k,
            external_data=external_data,
            token_type_ids=token_type_ids,
            optimize=optimize,
            precision=precision.value,
            engines=None if engine is None else [name.value for name in engine],
            atol=atol,
            rtol=rtol,
            min_cosine=min_cosine,
            min_spearman=min_spearman,
            min_top10=min_top10,
            texts=_texts_of(eval_file),
            calibration=_texts_of(calibration),
            text_input=text_input,
            target=target.value,
            max_shape=max_shape,
            on_stage=on_stage,
        )
    _print_result(artifact, as_json)


@app.command("build-plan")
def build_plan_command(
    directory: Annotated[
        Path, typer.Argument(help="A folder of to-onnx --target tensorrt; the plans go into it.", show_default=False)
    ],
    atol: Atol = None,
    rtol: Rtol = None,
    as_json: Json = False,
) -> None:
    """Build TensorRT plans for the GPU of this machine and prove them equal to the folder's graphs."""
    from sbertconv.api import build_plan

    with _progress(as_json) as on_stage:
        artifact = build_plan(directory, atol=atol, rtol=rtol, on_stage=on_stage)
    if as_json:
        _print_json({"folder": str(artifact.folder), **artifact.manifest})
        return
    console = _console()
    made = artifact.manifest["plan"]
    _print_parity(made["parity"], console)
    _print_lines(console, f"Built with TensorRT {made['tensorrt']} for {made['gpu']}, written to {artifact.folder}")
    _print_lines(console, "Run it:", f"  sbertconv.load({str(artifact.folder)!r}, format='tensorrt')")


@app.command("engines")
def engines_command(as_json: Json = False) -> None:
    """List what runs converted models, and which of it is installed here."""
    from rich.markup import escape
    from rich.table import Table

    from sbertconv.engines import engine_states

    states = engine_states()
    if as_json:
        _print_json(states)
        return
    table = Table("engine", "runs", "installed", "needs")
    for state in states:
        installed = state["version"] or f"no: {state['install']}"
        table.add_row(state["engine"], ", ".join(state["formats"]), escape(installed), state["needs"])
    _console().print(table)


@app.command("to-openvino")
def to_openvino_command(
    model: Model,
    directory: Annotated[
        str | None, typer.Argument(help="Where to write; default: <model's name>-openvino here.", show_default=False)
    ] = None,
    revision: Revision = None,
    trust_remote_code: Trust = False,
    model_class: ReadAs = None,
    pooling: PoolingMode = None,
    overwrite: Overwrite = False,
    activation: ActivationToo = False,
    sparse: SparseOutput = False,
    top_k: TopK = None,
    precision: Precision = Bits.fp32,
    atol: Atol = None,
    rtol: Rtol = None,
    min_cosine: MinCosine = None,
    min_spearman: MinSpearman = None,
    min_top10: MinTop10 = None,
    eval_file: EvalFile = None,
    calibration: Calibration = None,
    as_json: Json = False,
) -> None:
    """Convert a model to OpenVINO's own files and prove it equal to encode()."""
    from sbertconv.api import to_openvino

    with _progress(as_json) as on_stage:
        artifact = to_openvino(
            model,
            directory,
            revision=revision,
            trust_remote_code=trust_remote_code,
            model_class=model_class,
            pooling=pooling,
            overwrite=overwrite,
            activation=activation,
            sparse=sparse,
            top_k=top_k,
            precision=precision.value,
            atol=atol,
            rtol=rtol,
            min_cosine=min_cosine,
            min_spearman=min_spearman,
            min_top10=min_top10,
            texts=_texts_of(eval_file),
            calibration=_texts_of(calibration),
            on_stage=on_stage,
        )
    _print_result(artifact, as_json)


def _texts_of(file: Path | None) -> list[str]:
    from sbertconv.files import read_texts

    if file is None:
        return []
    texts = list(read_texts(file, "text"))
    if not texts:  # a file that was named must not count as none
        raise UnsupportedOptionError(f"{file}: no texts in it.\nCheck the file, or leave the option out.")
    return texts


@app.command("to-tf")
def to_tf_command(
    model: Model,
    directory: Annotated[
        str | None, typer.Argument(help="Where to write; default: <model's name>-keras here.", show_default=False)
    ] = None,
    revision: Revision = None,
    trust_remote_code: Trust = False,
    model_class: ReadAs = None,
    pooling: PoolingMode = None,
    overwrite: Overwrite = False,
    formats: Annotated[
        list[KerasFormat] | None,
        typer.Option(
            "--format",
            help="keras, saved_model (these two by default), litert or onnx; repeat for several.",
            metavar="<name>",
            show_default=False,
        ),
    ] = None,
    activation: ActivationToo = False,
    atol: Atol = None,
    rtol: Rtol = None,
    text_input: TextInput = False,
    as_json: Json = False,
) -> None:
    """Convert a model to a trainable Keras model and prove it equal to encode()."""
    from sbertconv.api import to_tf

    with _progress(as_json) as on_stage:
        artifact = to_tf(
            model,
            directory,
            revision=revision,
            trust_remote_code=trust_remote_code,
            model_class=model_class,
            pooling=pooling,
            overwrite=overwrite,
            formats=[form.value for form in formats or [KerasFormat.keras, KerasFormat.saved_model]],
            activation=activation,
            atol=atol,
            rtol=rtol,
            text_input=text_input,
            on_stage=on_stage,
        )
    _print_result(artifact, as_json)


@app.command("to-torch")
def to_torch_command(
    model: Model,
    directory: Annotated[
        str | None, typer.Argument(help="Where to write; default: <model's name>-torch here.", show_default=False)
    ] = None,
    revision: Revision = None,
    trust_remote_code: Trust = False,
    model_class: ReadAs = None,
    pooling: PoolingMode = None,
    overwrite: Overwrite = False,
    output: Outputs = None,
    activation: ActivationToo = False,
    sparse: SparseOutput = False,
    top_k: TopK = None,
    precision: Annotated[Bits, typer.Option(help="fp32; smaller ones are to-onnx and to-openvino's.")] = Bits.fp32,
    atol: Atol = None,
    rtol: Rtol = None,
    as_json: Json = False,
) -> None:
    """Convert a model to one program that PyTorch alone runs and prove it equal to encode()."""
    from sbertconv.api import to_torch

    with _progress(as_json) as on_stage:
        artifact = to_torch(
            model,
            directory,
            revision=revision,
            trust_remote_code=trust_remote_code,
            model_class=model_class,
            pooling=pooling,
            overwrite=overwrite,
            outputs=None if output is None else [name.value for name in output],
            activation=activation,
            sparse=sparse,
            top_k=top_k,
            precision=precision.value,
            atol=atol,
            rtol=rtol,
            on_stage=on_stage,
        )
    _print_result(artifact, as_json)


@app.command("to-st")
def to_st_command(
    model: Annotated[str, typer.Argument(help="A folder that to-tf wrote, or a .keras file.", show_default=False)],
    directory: Annotated[
        str | None, typer.Argument(help="Where to write; default: <model's name>-st here.", show_default=False)
    ] = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
    atol: Atol = None,
    rtol: Rtol = None,
    as_json: Json = False,
) -> None:
    """Write a Keras model's weights, fine-tuned perhaps, back into a sentence-transformers folder."""
    from sbertconv.api import default_directory, to_st
    from sbertconv.artifact import how_to_load

    directory = str(default_directory(model, "st")) if directory is None else directory
    with _progress(as_json) as on_stage:
        report = to_st(
            model,
            directory,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            atol=atol,
            rtol=rtol,
            on_stage=on_stage,
        )
    if as_json:
        _print_json({"folder": directory, "parity": report.to_json()})
        return
    console = _console()
    _print_parity(report.to_json(), console)
    _print_lines(console, f"Written to {directory}", "Load it:", f"  {how_to_load(directory)}")


@app.command("verify")
def verify_command(
    model: Model,
    directory: Annotated[Path, typer.Argument(help="A converted folder.", show_default=False)],
    revision: Revision = None,
    trust_remote_code: Trust = False,
    atol: Atol = None,
    rtol: Rtol = None,
    as_json: Json = False,
) -> None:
    """Compare a converted folder with its model again: file hashes, tokens, embeddings."""
    from sbertconv.api import verify

    with _progress(as_json) as on_stage:
        report = verify(
            model,
            directory,
            revision=revision,
            trust_remote_code=trust_remote_code,
            atol=atol,
            rtol=rtol,
            on_stage=on_stage,
        )
    if as_json:
        _print_json(report.to_json())
    else:
        _print_parity(report.to_json(), _console())
    if not report.passed:
        raise typer.Exit(3)


@app.command("inspect")
def inspect_command(
    model: Model,
    revision: Revision = None,
    trust_remote_code: Trust = False,
    model_class: ReadAs = None,
    pooling: PoolingMode = None,
    as_json: Json = False,
) -> None:
    """Show a model's chain, settings and limits, and what converts each module."""
    from sbertconv.api import inspect

    with _progress(as_json) as on_stage:
        on_stage("reading the model's files")
        description = inspect(
            model, revision=revision, trust_remote_code=trust_remote_code, model_class=model_class, pooling=pooling
        )
    if as_json:
        _print_json(description)
    else:
        _print_description(description)


@app.command("encode")
def encode_command(
    directory: Annotated[Path, typer.Argument(help="A converted folder, or a .keras file.", show_default=False)],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.", show_default=False)] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input", help="A .txt, .jsonl, .csv or .parquet file.", show_default=False)
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="A .npy or .parquet file, for vectors of tokens .parquet, sparse .npz; default: JSON lines.",
            show_default=False,
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="The column or key of the text.")] = "text",
    prompt_name: Annotated[str | None, typer.Option(help="A prompt saved with the model.", show_default=False)] = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt as text.", show_default=False)] = None,
    task: Annotated[
        str | None, typer.Option(help="query or document, where the model tells them apart.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Texts per batch.", min=1)] = 32,
    normalize: Annotated[bool, _flag("--normalize", "Divide by the Euclidean length.")] = False,
    truncate_dim: Annotated[
        int | None, typer.Option(help="Keep this many dimensions.", min=1, show_default=False)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32 (default), int8, uint8, binary or ubinary.", show_default=False),
    ] = None,
    max_active_dims: Annotated[
        int | None, typer.Option(help="Of a sparse vector, keep this many values.", min=1, show_default=False)
    ] = None,
    tokens: Annotated[bool, _flag("--tokens", "Of a sparse vector, tokens in place of columns.")] = False,
    form: Annotated[
        Format | None, typer.Option("--format", help="Which format runs; default: the first.", show_default=False)
    ] = None,
    engine: Engine = "auto",
    parallel: Annotated[int, typer.Option(help="Batches at once, each on its share of the cores.", min=1)] = 1,
) -> None:
    """Embed texts or a file with a converted folder; a file is never held in memory whole."""
    from sbertconv.files import encode_texts, read_texts
    from sbertconv.runtime import load

    if bool(texts) == (input_file is not None):
        raise typer.BadParameter("give either texts or --input")
    source = iter(texts) if texts else read_texts(input_file, column)  # type: ignore[arg-type]
    encode_texts(
        load(directory, format=form and form.value, engine=engine, parallel=parallel),
        source,
        output_file,
        progress=sys.stderr.isatty() and output_file is not None,
        tokens=tokens,
        prompt_name=prompt_name,
        prompt=prompt,
        task=task,
        batch_size=batch_size,
        normalize_embeddings=normalize,
        truncate_dim=truncate_dim,
        precision=precision,
        max_active_dims=max_active_dims,
    )


@app.command("predict")
def predict_command(
    directory: Annotated[Path, typer.Argument(help="A converted reranker or classifier.", show_default=False)],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to label, or with --query documents to score.", show_default=False)
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="The first text of every pair.", metavar="<text>", show_default=False)
    ] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input", help="A .txt, .jsonl, .csv or .parquet file.", show_default=False)
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="The column or key of the text (default: text); twice for pairs.", show_default=False),
    ] = None,
    prompt_name: Annotated[str | None, typer.Option(help="A prompt saved with the model.", show_default=False)] = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt as text.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(help="Texts or pairs per batch.", min=1)] = 32,
    form: Annotated[
        Format | None, typer.Option("--format", help="Which format runs; default: the first.", show_default=False)
    ] = None,
    engine: Engine = "auto",
) -> None:
    """Score pairs or label texts with a converted folder; a JSON line for each, a file is never in memory whole."""
    from sbertconv.files import predict_texts, read_inputs
    from sbertconv.runtime import load

    if bool(texts) == (input_file is not None):
        raise typer.BadParameter("give either texts or --input")
    source = iter(texts) if texts else read_inputs(input_file, column or ["text"])  # type: ignore[arg-type]
    predict_texts(
        load(directory, format=form and form.value, engine=engine),
        source if query is None else ((query, text) for text in source),
        prompt_name=prompt_name,
        prompt=prompt,
        batch_size=batch_size,
    )


@app.command("bench")
def bench_command(
    model: Annotated[str, typer.Argument(help="A Hub id or a folder.", show_default=False)],
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(help="Converted folders, or .keras files; every format takes part.", show_default=False),
    ] = None,
    revision: Revision = None,
    trust_remote_code: Trust = False,
    rounds: Annotated[int | None, _count("Turns after the warm-up; default 3.")] = None,
    batch_sizes: Annotated[str | None, _counts("Texts per batch; default 1,8,32.")] = None,
    lengths: Annotated[str | None, _counts("Tokens per text; default 16,64,256.")] = None,
    texts: Annotated[int | None, _count("Texts of mixed lengths; default 1000.")] = None,
    threads: Annotated[int | None, _count("Of every contestant; default: the usable cores.")] = None,
    quick: Annotated[bool, _flag("--quick", "Small counts, for a first look.")] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Everything measured; default: <model's name>-bench.json here.", show_default=False
        ),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option(
            "--html", help="The page with charts; default: <model's name>-bench.html here.", show_default=False
        ),
    ] = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option("--markdown", help="The tables, for a documentation; default: not written.", show_default=False),
    ] = None,
) -> None:
    """Measure encode() and its conversions side by side: speed, latency, memory, size, quality."""
    from dataclasses import replace

    from sbertconv.api import default_directory
    from sbertconv.benchmark import QUICK, Settings, benchmark, html_page

    given: dict[str, Any] = {"rounds": rounds, "batch_sizes": batch_sizes, "lengths": lengths, "texts": texts}
    settings = replace(QUICK if quick else Settings(), **{key: value for key, value in given.items() if value})
    stem = default_directory(model, "bench")
    writers: list[tuple[Path | None, Callable[[BenchReport], str]]] = [
        (json_file or stem.with_name(f"{stem.name}.json"), lambda report: _json_text(report.to_json())),
        (html_file or stem.with_name(f"{stem.name}.html"), html_page),
        (markdown_file, lambda report: report.to_markdown()),
    ]
    files = [(file, render) for file, render in writers if file]
    for file, _ in files:  # said before the long run
        if not file.parent.is_dir():
            raise typer.BadParameter(f"{file.parent}: no such folder")
    with _bar() as on_step:
        report = benchmark(
            model,
            artifacts or [],
            settings=settings,
            threads=threads,
            revision=revision,
            trust_remote_code=trust_remote_code,
            on_step=on_step,
        )
    _print_bench(report)
    for file, render in files:
        file.write_text(render(report), encoding="utf-8")
        typer.echo(f"Written to {file}")


def _console(stderr: bool = False) -> Console:
    """As wide as the terminal; where there is none, wide enough for the tables."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    return console


def _print_lines(console: Console, *lines: str) -> None:
    """Text that is copied or searched for: no markup, and no line breaks of our own."""
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _progress(as_json: bool) -> Iterator[Any]:
    """A spinner, and for machines the report of a comparison that failed, under the key that it has in a manifest."""
    try:
        with _spinner(as_json) as on_stage:
            yield on_stage
    except ParityError as error:
        if as_json:
            _print_json({"folder": None, "parity": error.report.to_json()})
        raise


@contextlib.contextmanager
def _spinner(quiet: bool) -> Iterator[Any]:
    """The stage's name and the time it took; silent where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage: None
        return
    import time

    from rich.console import Console

    console = Console(file=sys.stderr, highlight=False)  # stages redirect sys.stderr, the spinner goes on
    running: list[tuple[str, float]] = []

    def finish() -> None:
        if running:
            name, start = running.pop()
            console.print(f"[green]done[/] {name} [dim]{time.perf_counter() - start:.1f} s[/]")

    with console.status("starting") as status:

        def on_stage(name: str) -> None:
            finish()
            running.append((name, time.perf_counter()))
            status.update(name)

        yield on_stage
        finish()


@contextlib.contextmanager
def _bar() -> Iterator[Any]:
    """A bar with what is measured now; silent where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda name, done, total: None
        return
    from rich.progress import Progress

    with Progress(console=_console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda name, done, total: progress.update(task, description=name, completed=done, total=total)


def _json_text(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str)


def _print_json(content: Any) -> None:
    typer.echo(_json_text(content))


def _print_result(artifact: Artifact, as_json: bool) -> None:
    if as_json:
        _print_json({"folder": str(artifact.folder), **artifact.manifest})
    else:
        _print_artifact(artifact)


def _print_artifact(artifact: Artifact) -> None:
    from rich.table import Table

    console = _console()
    manifest = artifact.manifest
    _print_notes(manifest["notes"], console)
    _print_parity(manifest["parity"], console)
    for graph in manifest["graphs"]:
        if proven := graph.get("text"):
            count, size = proven["corpus"] + proven["fuzz"], _size(proven["bytes"])
            same = f"{count:,} inputs, 0 of {proven['tokens']:,} tokens differ; {size}"
            _print_lines(console, f"Tokenizer inside graph {graph['name']!r}: {same}")
    _print_lines(console, f"Written to {artifact.folder}")
    table = Table()
    table.add_column("file")
    table.add_column("size", justify="right")
    for name, file in manifest["files"].items():
        table.add_row(name, _size(file["size"]))
    console.print(table)
    _print_lines(console, "Run it:", snippet(artifact))
    if manifest.get("target") == "tensorrt":
        _print_lines(
            console, "On the machine with the GPU, build its plan:", f"  sbertconv build-plan {artifact.folder}"
        )


def _print_bench(report: BenchReport) -> None:
    from rich.markup import escape
    from rich.table import Column, Table

    console = _console()
    for content in report.tables():
        columns = (Column(heading, justify="right", overflow="fold") for heading in content.header)
        table = Table(Column(overflow="fold"), *columns, title=content.title, title_justify="left")
        for name, cells in content.rows:
            table.add_row(escape(name), *(f"{cell.value}\n[dim]{cell.ratio}[/]".rstrip() for cell in cells))
        console.print(table)
    _print_lines(console, *report.description)


def _print_notes(notes: Iterable[str], console: Console) -> None:
    _print_lines(console, *(f"Note: {note}" for note in notes))


def _size(count: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def snippet(artifact: Artifact) -> str:
    """Five lines of Python that run the artifact."""
    manifest = artifact.manifest
    texts = 'texts = ["A sentence.", "Another one."]'
    sparse = [
        texts,
        f"embeddings = model.encode(texts)  # scipy CSR, [2, {manifest.get('embedding_dimension')}]",
        "print(model.decode(embeddings, top_k=5))",
    ]
    calls = {
        ("SentenceTransformer", "sentence_embedding"): [
            texts,
            f"embeddings = model.encode(texts)  # numpy, [2, {manifest.get('embedding_dimension')}]",
            "print(model.similarity(embeddings, embeddings))",
        ],
        ("SentenceTransformer", "token_embeddings"): [
            texts,
            'tokens = model.encode(texts, output_value="token_embeddings")',
            "print([matrix.shape for matrix in tokens])",
        ],
        ("SparseEncoder", "sentence_embedding"): sparse,
        ("SparseEncoder", "values"): sparse,
        ("MultiVectorEncoder", "token_embeddings"): [
            'queries = model.encode_query(["A question?"])  # a numpy array [tokens, dim] for each',
            'documents = model.encode_document(["An answer.", "Something else."])',
            "print(model.similarity(queries, documents))  # MaxSim, [1, 2]",
        ],
        ("CrossEncoder", "logits"): [
            'pairs = [("A question?", "An answer."), ("A question?", "Something else.")]',
            f"scores = model.predict(pairs)  # numpy, a row per pair, {manifest.get('num_labels')} label(s)",
            "print(scores)",
        ],
        ("TextClassifier", "logits"): [
            texts,
            "labels = model.predict(texts)  # the likeliest of each text",
            "print(labels)",
        ],
    }
    outputs = {(manifest["model_class"], output["name"]) for output in manifest["graphs"][0]["outputs"]}
    lines = [
        "import sbertconv",
        f"model = sbertconv.load({str(artifact.folder)!r})",
        *next(lines for name, lines in calls.items() if name in outputs),
    ]
    return "\n".join(f"  {line}" for line in lines)


def _quoted(text: str, width: int = 22) -> str:
    """A text in a row of one line: some characters take two columns of a terminal, others none."""
    from rich.cells import cell_len, set_cell_size
    from rich.markup import escape

    return escape(repr(text if cell_len(text) <= width else f"{set_cell_size(text, width - 3).rstrip()}..."))


def _print_parity(report: Mapping[str, Any], console: Console) -> None:
    from rich.table import Table

    title = f"Parity with {report['method']}(): {report['rule']}"
    table = Table(title=title, title_justify="left")
    for name, justify in (
        ("check", "left"), ("texts", "right"), ("max abs diff", "right"), ("on", "left"), ("tokens", "right"),
        ("min cosine", "right"), ("", "left"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=name != "on", overflow="fold")  # type: ignore[arg-type]
    for check in report["checks"]:
        exact = check["dtype"] == "int64"
        table.add_row(
            check["name"],
            str(check["texts"]),
            ("exact" if check["passed"] else "differ") if exact else _figure(check["max_abs_diff"], ".1e"),
            "" if exact and check["passed"] else _quoted(check["worst_text"]),
            "" if exact and check["passed"] else str(check["worst_tokens"]),
            "" if exact else _figure(check["min_cosine"], ".7f"),
            "[green]ok[/]" if check["passed"] else "[red]FAILED[/]",
        )
    text = _quoted(report["wobble_text"])
    table.add_section()
    table.add_row(
        f"{report['method']}(), batch 1 / 32", "", _figure(report["wobble"], ".1e"), text, "", "", "[dim]yardstick[/]"
    )
    console.print(table)
    _print_lines(console, *(f"{check['name']}: {check['problem']}" for check in report["checks"] if check["problem"]))
    for quality in report["quality"]:
        _print_quality(quality, console)
    _print_notes(report["notes"], console)


# What the quality was measured of -> what its inputs and its figures are called.
QUALITY_WORDS = {
    "sentences": (
        "sentences",
        "smallest cosine",
        "mean cosine",
        "rank correlation of all similarities",
        "nearest neighbour stays",
        "ten nearest neighbours stay",
        "smallest cosine, alone and in a batch",
    ),
    "lists": (
        "inputs in ranked lists",
        "smallest correlation of a list's logits",
        "mean correlation",
        "rank correlation of all logits",
        "first of a list stays",
        "first ten stay",
        "correlation, alone and in a batch",
    ),
}


def _print_quality(quality: Mapping[str, Any], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    from sbertconv.parity import shorten

    words = QUALITY_WORDS[quality["of"]]
    result = "passed" if quality["passed"] else "below the gate"
    of = ", ".join([f"{quality['texts']:,} {words[0]}", *quality["run"].split(": ")[:-1]])
    title = f"Quality on {of}: {result}"
    table = Table("", "found", "gate", "on", title=title, title_justify="left")
    gate = quality["gate"]
    figures = (
        ("min_cosine", gate["min_cosine"], quality["worst_text"]),
        ("mean_cosine", None, ""),
        ("spearman", gate["min_spearman"], ""),
        ("top1", None, ""),
        ("top10", gate["min_top10"], ""),
        ("batch_cosine", None, quality["batch_text"]),
    )
    for name, (key, limit, text) in zip(words[1:], figures, strict=True):
        shown = escape(repr(shorten(text, 40))) if text else ""
        table.add_row(name, _figure(quality[key], ".5f"), "" if limit is None else f">= {limit:g}", shown)
    console.print(table)


def _figure(value: float | None, form: str) -> str:
    """A number of a report, where None stands for one that is not finite."""
    return "-" if value is None else format(value, form)


def _print_description(description: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Column, Table

    console = _console()
    _print_lines(console, description["name"])
    modules = description["modules"]
    backends = list(modules[0]["backends"]) if modules else []
    table = Table("", *(Column(name, overflow="fold") for name in ("module", "settings", *backends)))
    problems = []
    for module in modules:
        settings = ", ".join(f"{key}={_short_value(value)}" for key, value in module["settings"].items())
        table.add_row(module["label"], escape(module["name"]), escape(settings), *map(_by, module["backends"].values()))
        found = dict.fromkeys(result["problem"] for result in module["backends"].values() if result["problem"])
        problems += [f"[{module['label']}] {module['name']}: {problem}" for problem in found]
    console.print(table)
    _print_lines(console, *problems)
    for key in SHOWN:
        value = description.get(key)
        if key in description and key in ("embedding_dimension", "activation") and value is None:
            value = "unknown until loaded"
        if value not in (None, {}):
            _print_lines(console, f"{key.replace('_', ' ')}: {value}")
    _print_notes(description["notes"], console)


def _by(result: Mapping[str, str]) -> str:
    from rich.markup import escape

    return "[red]unsupported[/]" if result["problem"] else escape(result["by"])


def _short_value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def main() -> None:
    """Run the command line."""
    app()
