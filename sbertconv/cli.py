"""The command line: parse, call the API, print. No conversion logic."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sbertconv.console.estimates import Course
from sbertconv.console.hints import complete_converted, complete_model, with_new_names, with_suggestion
from sbertconv.console.options import (
    BeyondProof,
    Device,
    DryRun,
    Engine,
    FormatOption,
    Json,
    Keep,
    Model,
    Nulls,
    On,
    OnError,
    OutputFormat,
    PartOf,
    RowsPerFile,
    Threads,
    Trial,
    Workers,
    count,
    counts,
    flag,
    flags_of,
    in_command_words,
    names_of,
    with_options,
)
from sbertconv.console.printing import (
    LEVEL,
    bar,
    json_text,
    open_console,
    print_bench,
    print_converted,
    print_description,
    print_engine,
    print_estimate,
    print_json,
    print_lines,
    print_parity,
    print_reduction,
    print_result,
    print_tuning,
    progress,
    tell_warnings,
)
from sbertconv.errors import ParityError, SbertconvError, UnsupportedOptionError, visible
from sbertconv.frameworks import imports_told
from sbertconv.options import fields_of

if TYPE_CHECKING:
    from sbertconv.benchmark.report import BenchReport


ANYWHERE = ("-q", "--quiet", "-v", "--verbose", "--debug")  # options of every command, before or behind its name


class Commands(TyperGroup):
    """Every command ends the same way: a user's mistake, or ^C, is a message on stderr and no traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Options of every command count wherever they stand, up to a "--"; old names are read as the new ones."""
        end = args.index("--") if "--" in args else len(args)
        named, notices = with_new_names(args[:end])
        for notice in notices:
            typer.echo(notice, err=True)
        args = [*named, *args[end:]]
        own = [arg for arg in args[:end] if arg in ANYWHERE]
        return super().parse_args(ctx, [*own, *(arg for arg in args[:end] if arg not in ANYWHERE), *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        try:
            with imports_told():
                return super().invoke(ctx)
        except SbertconvError as error:
            if ctx.params["debug"]:
                raise
            if isinstance(error, ParityError):
                print_parity(error.report.to_json(), open_console(stderr=True))
            known = flags_of(self.get_command(ctx, ctx.invoked_subcommand or ""))
            # As the command line has it, a value has no escapes
            typer.echo(visible(with_suggestion(in_command_words(str(error), known))), err=True)
            raise typer.Exit(error.exit_code) from error
        except typer.BadParameter as error:
            error.message = with_suggestion(error.message)
            raise
        except OSError as error:
            if ctx.params["debug"] or isinstance(error, BrokenPipeError):
                raise
            _tell_unwritable(error)
            raise typer.Exit(SbertconvError.exit_code) from error
        except KeyboardInterrupt as stop:
            typer.echo(stop.args[0] if stop.args else "Interrupted. Nothing was written.", err=True)
            raise typer.Exit(130) from None


def _tell_unwritable(error: OSError) -> None:
    from sbertconv.console.files import discard_output

    discard_output()
    what = error.filename or "The output"
    said = f"{what}: cannot be read or written: {error.strerror or error}.\nMake room, or check it."
    typer.echo(visible(said), err=True)


app = typer.Typer(
    name="sbertconv",
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="sentence-transformers models as ONNX graphs, Keras models and PyTorch programs, proven equal to encode().",
    epilog="Exit codes: 0 done, 1 cannot convert, 2 usage, 3 parity failed.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from sbertconv import __version__

        typer.echo(f"sbertconv {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, flag("--debug", "Show the traceback of an error.")] = False,
    quiet: Annotated[bool, flag("--quiet", "Print nothing but what was asked for, and errors.", short="-q")] = False,
    verbose: Annotated[bool, flag("--verbose", "A line for each stage, with --json too.", short="-v")] = False,
    version: Annotated[
        bool, flag("--version", "Print the version.", short="-V", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command."""
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    LEVEL.update(quiet=quiet, verbose=verbose)


def converting(verb: str, kind: str, backend: str, purpose: str) -> None:
    """Register the command of a conversion.

    Args:
        verb: the function of `sbertconv.api`, whose options it has.
        kind: the default folder's ending.
        backend: whose converters a plan shows.
        purpose: the command's help.
    """

    @app.command(verb.replace("_", "-"), help=purpose)
    @with_options(verb, kind)
    def command(
        model: Model,
        directory: str | None = None,
        dry_run: DryRun = False,
        as_json: Json = False,
        **options: Any,
    ) -> None:
        if dry_run:
            _show_plan(Course(verb, model, options), directory, kind, backend, as_json)
            return
        from sbertconv import api

        course = Course(verb, model, options)
        with progress(as_json, course.left) as on_stage:
            artifact = getattr(api, verb)(model, directory, on_stage=course.heard(on_stage), **options)
        course.keep(artifact.folder)
        print_result(artifact, as_json)


converting(
    "to_onnx",
    "onnx",
    "onnx",
    "Convert a model to ONNX and prove it equal to encode(); a Keras model of to-tf, equal to itself.",
)
converting("to_openvino", "openvino", "onnx", "Convert a model to OpenVINO's own files and prove it equal to encode().")
converting("to_tf", "keras", "keras", "Convert a model to a trainable Keras model and prove it equal to encode().")
converting(
    "to_torch",
    "torch",
    "torch",
    "Convert a model to one program that PyTorch alone runs and prove it equal to encode().",
)


@app.command("build-plan")
@with_options("build_plan")
def build_plan_command(
    directory: Annotated[
        Path,
        typer.Argument(
            help="A folder of to-onnx --target tensorrt; the plans go into it.",
            show_default=False,
            autocompletion=complete_converted,
        ),
    ],
    as_json: Json = False,
    **options: Any,
) -> None:
    """Build TensorRT plans for the GPU of this machine and prove them equal to the folder's graphs."""
    from sbertconv.api import build_plan

    with progress(as_json) as on_stage:
        artifact = build_plan(directory, on_stage=on_stage, **options)
    if as_json:
        print_json({"folder": str(artifact.folder), **artifact.manifest})
        return
    console = open_console()
    made = artifact.manifest["plan"]
    print_parity(made["parity"], console)
    print_lines(console, f"Built with TensorRT {made['tensorrt']} for {made['gpu']}, written to {artifact.folder}")
    print_lines(console, "Run it:", f"  sbertconv.load({str(artifact.folder)!r}, format='tensorrt')")


@app.command("pack")
def pack_command(
    folder: Annotated[
        Path, typer.Argument(help="A converted folder.", show_default=False, autocompletion=complete_converted)
    ],
    directory: Annotated[Path, typer.Argument(help="Where to write.", show_default=False)],
    consumers: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            help="What will open it, a name of docs/consumers.md: fastembed, triton, ...; repeat for several.",
            metavar="<name>",
            show_default=False,
        ),
    ] = None,
    precisions: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="A folder of the same model in another precision, for transformers.js; repeat for several.",
            metavar="<folder>",
            show_default=False,
        ),
    ] = None,
    input_names: Annotated[list[str] | None, names_of("--input-name", "input_ids=ids")] = None,
    output_names: Annotated[list[str] | None, names_of("--output-name", "sentence_embedding=embedding")] = None,
    overwrite: Annotated[bool, flag("--overwrite", "Replace an existing artifact.")] = False,
    as_json: Json = False,
) -> None:
    """Lay a converted folder out for other software, proven equal to encode() as that reads it."""
    from sbertconv.consumers import pack

    with progress(as_json) as on_stage:
        artifact = pack(
            folder,
            directory,
            consumers or (),
            precisions=precisions or (),
            input_names=input_names or (),
            output_names=output_names or (),
            overwrite=overwrite,
            on_stage=on_stage,
        )
    if as_json:
        print_json({"folder": str(artifact.folder), **artifact.manifest})
        return
    console = open_console()
    for name, proof in artifact.manifest["consumers"].items():
        print_lines(console, f"{name}: {proof['texts']} texts, at most {proof['max_abs_diff']:.1e} from encode()")
        print_lines(console, f"  reads {proof['reads']}")
        print_lines(console, *(f"    {line}" for line in proof.get("opens", "").splitlines()[1:-1]))
        for precision, one in proof.get("precisions", {}).items():
            cosine = f", cosine {one['min_cosine']:.4f} and more" if "min_cosine" in one else ""
            print_lines(console, f"  {precision}: {one['file']}{cosine}")
    print_lines(console, f"Written to {artifact.folder}")


@app.command("push")
def push_command(
    folder: Annotated[
        Path, typer.Argument(help="A converted folder.", show_default=False, autocompletion=complete_converted)
    ],
    repo_id: Annotated[str, typer.Argument(help="owner/name; it is made if it is not there.", show_default=False)],
    private: Annotated[bool, flag("--private", "Make it private.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="The branch, which is made if it is not there; default main.", show_default=False)
    ] = None,
    create_pr: Annotated[bool, flag("--create-pr", "Open a pull request and leave the branch as it is.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a converted folder to the Hub in one commit, its README.md as the card."""
    from sbertconv.artifact.hub import push

    where = push(folder, repo_id, private=private, revision=revision, create_pr=create_pr)
    if as_json:
        print_json({"url": where})
        return
    print_lines(open_console(), f"Uploaded: {where}")


@app.command("engines")
def engines_command(as_json: Json = False) -> None:
    """List what runs converted models, and which of it is installed here."""
    from rich.table import Table

    from sbertconv.runtime.engines import engine_states

    states = engine_states()
    if as_json:
        print_json(states)
        return
    table = Table("engine", "runs", "installed", "needs")
    for state in states:
        installed = state["version"] or f"no: {state['install']}"
        table.add_row(state["engine"], ", ".join(state["formats"]), installed, state["needs"])
    open_console().print(table)


def _show_plan(course: Course, directory: str | None, kind: str, backend: str, as_json: bool) -> None:
    """Print what a conversion would begin with, what it would take, if that is known, and where it would write to;
    exit 1 if it would be refused.
    """
    from sbertconv.api import inspect
    from sbertconv.conversion import default_directory

    model, options = course.model, course.options
    description = inspect(model, **{name: value for name, value in options.items() if name in fields_of("inspect")})
    target = Path(directory or default_directory(str(description.get("name", model)), kind))
    taken = target.exists() and not options.get("overwrite")
    results = [module["backends"][backend] for module in description.get("modules", ()) if backend]
    if as_json:
        found = course.estimate
        estimate = found and {name: getattr(found, name) for name in ("seconds", "memory", "size")}
        print_json(
            {**description, "dry_run": True, "folder": str(target), "exists": target.exists(), "estimate": estimate}
        )
    else:
        (print_converted if "formats" in description else print_description)(description)
        print_estimate(course.estimate, open_console())
        advice = ": exists already, pass --overwrite to replace it" if taken else ""
        print_lines(open_console(), f"Would write to {target}{advice}")
    if taken or any(result["problem"] for result in results):
        raise typer.Exit(1)


def _given(texts: list[str] | None, input_file: Path | None) -> Path | None:
    """The file to read; "-" in the place of the texts is standard input.

    Raises:
        typer.BadParameter: unless there is either the one or the other.
    """
    if bool(texts) == (input_file is not None):
        raise typer.BadParameter("give either texts or --input")
    return Path("-") if texts == ["-"] else input_file


@app.command("to-st")
@with_options("to_st", "st")
def to_st_command(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder that to-tf wrote, or a .keras file.", show_default=False, autocompletion=complete_converted
        ),
    ],
    directory: str | None = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Write a Keras model's weights, fine-tuned perhaps, back into a sentence-transformers folder."""
    if dry_run:
        from sbertconv.converters.keras.back import keras_files

        keras_files(model)
        _show_plan(Course("to_st", model, options), directory, "st", "", as_json)
        return
    from sbertconv.api import to_st
    from sbertconv.artifact.folder import how_to_load
    from sbertconv.conversion import default_directory

    directory = str(default_directory(model, "st")) if directory is None else directory
    course = Course("to_st", model, options)
    with progress(as_json, course.left) as on_stage:
        report = to_st(model, directory, on_stage=course.heard(on_stage), **options)
    course.keep(directory)
    if as_json:
        print_json({"folder": directory, "parity": report.to_json()})
        return
    console = open_console()
    print_parity(report.to_json(), console)
    print_lines(console, f"Written to {directory}", "Load it:", f"  {how_to_load(directory)}")


def reducing(verb: str, kind: str, purpose: str) -> None:
    """Register the command of a reduction.

    Args:
        verb: the function of `sbertconv.api`, whose options it has.
        kind: the default folder's ending.
        purpose: the command's help.
    """

    @app.command(verb.replace("_", "-"), help=purpose)
    @with_options(verb, kind)
    def command(
        model: Annotated[
            str,
            typer.Argument(help="A Hub id or a folder.", show_default=False, autocompletion=complete_model),
        ],
        directory: str | None = None,
        dry_run: Trial = False,
        as_json: Json = False,
        **options: Any,
    ) -> None:
        from sbertconv import api
        from sbertconv.artifact.scratch import scratch_folder

        with progress(as_json) as on_stage, ExitStack() as stack:
            where = stack.enter_context(scratch_folder()) / "model" if dry_run else directory
            made = getattr(api, verb)(model, where, on_stage=on_stage, **options)
        print_reduction(made, as_json, dry_run)


reducing(
    "trim", "trimmed", "Write a model with the tokens that texts or languages need, equal on them to the last bit."
)
reducing("shorten", "short", "Write a model with some of its layers, behind a quality gate on its similarities.")
reducing(
    "to_static", "static", "Write token vectors distilled from a model, behind a quality gate on its similarities."
)


@app.command("verify")
@with_options("verify")
def verify_command(
    model: Model,
    directory: Annotated[
        Path, typer.Argument(help="A converted folder.", show_default=False, autocompletion=complete_converted)
    ],
    as_json: Json = False,
    **options: Any,
) -> None:
    """Compare a converted folder with its model again: file hashes, tokens, embeddings."""
    from sbertconv.api import verify

    with progress(as_json) as on_stage:
        report = verify(model, directory, on_stage=on_stage, **options)
    if as_json:
        print_json(report.to_json())
    else:
        print_parity(report.to_json(), open_console())
    if not report.passed:
        print_lines(
            open_console(stderr=True),
            "The folder is not this model's, or one of them changed: convert it again with --overwrite.",
            "For rounding, allow more with --atol and --rtol.",
        )
        raise typer.Exit(3)


@app.command("inspect")
@with_options("inspect")
def inspect_command(
    model: Annotated[
        str,
        typer.Argument(
            help="A Hub id or a folder; a converted folder or a .keras file.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ],
    as_json: Json = False,
    **options: Any,
) -> None:
    """Show a model's chain, settings and limits, and what converts each module; or what a converted folder holds."""
    from sbertconv.api import inspect

    with progress(as_json) as on_stage:
        on_stage("reading the model's files")
        description = inspect(model, **options)
    if as_json:
        print_json(description)
    elif "formats" in description:
        print_converted(description)
    else:
        print_description(description)


@app.command("encode")
def encode_command(
    directory: Annotated[
        Path,
        typer.Argument(
            help="A converted folder, or a .keras file.", show_default=False, autocompletion=complete_converted
        ),
    ],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.", show_default=False)] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="A .txt, .jsonl, .csv or .parquet file, or - for lines of standard input; tables: patterns, and "
            "folders, of which names that begin with . or _ are left out.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            help="A .npy or .parquet file, of tokens .parquet, sparse .npz; of tables a folder/; default, or -: JSON "
            "lines.",
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
    normalize_embeddings: Annotated[
        bool, flag("--normalize", "Divide by the Euclidean length.", also="--normalize-embeddings")
    ] = False,
    truncate_dim: Annotated[
        int | None, typer.Option(help="Keep this many dimensions.", min=1, show_default=False)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--embedding-precision",
            help="float32 (default), int8, uint8, binary, ubinary; of tables float16.",
            show_default=False,
        ),
    ] = None,
    max_active_dims: Annotated[
        int | None, typer.Option(help="Of a sparse vector, keep this many values.", min=1, show_default=False)
    ] = None,
    tokens: Annotated[bool, flag("--tokens", "Of a sparse vector, tokens in place of columns.")] = False,
    form: Annotated[
        FormatOption | None, typer.Option("--format", help="Which format runs; default: the first.", show_default=False)
    ] = None,
    engine: Engine = "auto",
    threads: Threads = None,
    parallel: Annotated[
        int | None,
        typer.Option(help="Batches at once, each on its share of the threads; default 1, or as tuned.", min=1),
    ] = None,
    device: Device = None,
    beyond_proof: BeyondProof = False,
    part: PartOf = None,
    keep: Keep = None,
    nulls: Nulls = None,
    on_error: OnError = None,
    output_format: OutputFormat = None,
    rows_per_file: RowsPerFile = None,
    workers: Workers = None,
    on: On = None,
) -> None:
    """Embed texts, a file or tables with a converted folder; a file is never held in memory whole."""
    from sbertconv.console.files import check_outputs, encode_texts, read_inputs
    from sbertconv.console.tables import encode_tables, is_tables
    from sbertconv.runtime.opening import load

    if bool(texts) == bool(inputs):
        raise typer.BadParameter("give either texts or --input")
    how: dict[str, Any] = {
        "format": form and form.value,
        "engine": engine,
        "threads": threads,
        "parallel": parallel,
        "device": device,
        "beyond_proof": beyond_proof,
        "part": part and part.value,
    }
    encode: dict[str, Any] = {
        "prompt_name": prompt_name,
        "prompt": prompt,
        "task": task,
        "batch_size": batch_size,
        "normalize_embeddings": normalize_embeddings,
        "truncate_dim": truncate_dim,
        "max_active_dims": max_active_dims,
    }
    of_tables: dict[str, Any] = {
        "nulls": nulls,
        "on_error": on_error,
        "output_format": output_format,
        "rows_per_file": rows_per_file,
        "workers": workers,
    }
    given = {name: value for name, value in of_tables.items() if value is not None}
    if inputs and not tokens and is_tables(inputs, output):
        encode_tables(
            directory,
            inputs,
            output,
            column=column,
            keep=keep,
            precision=precision,
            encode=encode,
            load=how,
            options=given,
            on=on,
        )
        return
    if idle := [*given, *(name for name, value in {"keep": keep, "on": on}.items() if value is not None)]:
        names = ", ".join(f"{name}=" for name in idle)
        raise UnsupportedOptionError(f"{names}: only tables have it.\nName a folder with --output, or leave it out.")
    file = _given(texts, Path(inputs[0]) if inputs else None)
    source = iter(texts or ()) if file is None else read_inputs(file, [column])
    target = None if output in (None, "-") else Path(str(output))
    shown = sys.stderr.isatty() and target is not None and not LEVEL["quiet"]
    check_outputs([target] if target else [])
    model = load(directory, **how, many=file is not None)
    print_engine(model.engine, model.because)
    encode_texts(model, source, target, progress=shown, tokens=tokens, precision=precision, **encode)


@app.command("predict")
def predict_command(
    directory: Annotated[
        Path,
        typer.Argument(
            help="A converted reranker or classifier.", show_default=False, autocompletion=complete_converted
        ),
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to label, or with --query documents to score.", show_default=False)
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="The first text of every pair.", metavar="<text>", show_default=False)
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="A .txt, .jsonl, .csv or .parquet file, or - for lines of standard input.",
            show_default=False,
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="The column or key of the text (default: text); twice for pairs.", show_default=False),
    ] = None,
    prompt_name: Annotated[str | None, typer.Option(help="A prompt saved with the model.", show_default=False)] = None,
    prompt: Annotated[str | None, typer.Option(help="A prompt as text.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(help="Texts or pairs per batch.", min=1)] = 32,
    form: Annotated[
        FormatOption | None, typer.Option("--format", help="Which format runs; default: the first.", show_default=False)
    ] = None,
    engine: Engine = "auto",
    beyond_proof: BeyondProof = False,
) -> None:
    """Score pairs or label texts with a converted folder; a JSON line for each, a file is never in memory whole."""
    from sbertconv.console.files import predict_texts, read_inputs
    from sbertconv.runtime.opening import load

    file = _given(texts, input_file)
    source = iter(texts or ()) if file is None else read_inputs(file, column or ["text"])
    predict_texts(
        load(directory, format=form and form.value, engine=engine, beyond_proof=beyond_proof),
        source if query is None else ((query, text) for text in source),
        prompt_name=prompt_name,
        prompt=prompt,
        batch_size=batch_size,
    )


@app.command("bench")
@with_options("benchmark")
def bench_command(
    model: Annotated[str, typer.Argument(help="A Hub id or a folder.", show_default=False)],
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(help="Converted folders, or .keras files; every format takes part.", show_default=False),
    ] = None,
    rounds: Annotated[int | None, count("Turns after the warm-up; default 3.")] = None,
    batch_sizes: Annotated[str | None, counts("Texts per batch; default 1,8,32.")] = None,
    lengths: Annotated[str | None, counts("Tokens per text; default 16,64,256.")] = None,
    texts: Annotated[int | None, count("Texts of mixed lengths; default 1000.")] = None,
    threads: Annotated[int | None, count("Of every contestant; default: the usable cores.")] = None,
    quick: Annotated[bool, flag("--quick", "Small counts, for a first look.")] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json-file", help="Everything measured; default: <model's name>-bench.json here.", show_default=False
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
    **options: Any,
) -> None:
    """Measure encode() and its conversions side by side: speed, latency, memory, size, quality."""
    from dataclasses import replace

    from sbertconv.benchmark import QUICK, Settings, benchmark, html_page
    from sbertconv.console.files import check_outputs, write_file
    from sbertconv.conversion import default_directory

    given: dict[str, Any] = {"rounds": rounds, "batch_sizes": batch_sizes, "lengths": lengths, "texts": texts}
    settings = replace(QUICK if quick else Settings(), **{key: value for key, value in given.items() if value})
    stem = default_directory(model, "bench")
    writers: list[tuple[Path | None, Callable[[BenchReport], str]]] = [
        (json_file or stem.with_name(f"{stem.name}.json"), lambda report: json_text(report.to_json())),
        (html_file or stem.with_name(f"{stem.name}.html"), html_page),
        (markdown_file, lambda report: report.to_markdown()),
    ]
    files = [(file, render) for file, render in writers if file]
    check_outputs([file for file, _ in files])
    with bar() as on_step:
        report = benchmark(
            model,
            artifacts or [],
            settings=settings,
            threads=threads,
            on_step=on_step,
            **options,
        )
    print_bench(report)
    for file, render in files:
        write_file(file, render(report))
        typer.echo(visible(f"Written to {file}"))


@app.command("tune")
def tune_command(
    directory: Annotated[
        Path,
        typer.Argument(
            help="A converted folder, or a .keras file.", show_default=False, autocompletion=complete_converted
        ),
    ],
    seconds: Annotated[float, typer.Option(help="That it may take, about.", min=1)] = 60.0,
    as_json: Annotated[bool, flag("--json", "Print everything measured as JSON.")] = False,
) -> None:
    """Measure which engine and which batches run a folder fastest on this machine; load() and encode take these."""
    from dataclasses import asdict

    from sbertconv.benchmark.tuning import tune

    with bar() as on_step:
        found = tune(directory, seconds=seconds, on_step=on_step)
    if as_json:
        print_json({**asdict(found), "file": None if found.file is None else str(found.file)})
    else:
        print_tuning(found)


def main() -> None:
    """Run the command line."""
    # What is said on a stream that is closed goes nowhere
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stderr(sys.stderr or nowhere):
        tell_warnings()
        try:
            app()
        except OSError as error:  # of the help, which is printed before a command runs
            if "--debug" in sys.argv:
                raise
            _tell_unwritable(error)
            sys.exit(SbertconvError.exit_code)
