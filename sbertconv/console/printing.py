"""What the commands show: progress on stderr, tables or JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from sbertconv.console.options import flags_of, in_command_words
from sbertconv.errors import ParityError, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from sbertconv.artifact.folder import Artifact
    from sbertconv.benchmark.report import BenchReport
    from sbertconv.benchmark.tuning import Tuning
    from sbertconv.console.estimates import Estimate
    from sbertconv.reduction.reports import Reduction

AROUND = 4  # modules that are shown before and behind the place where two sides part
WIDTH = 120  # of tables that go to a file or a pipe
SHOWN = ("model_class", "architecture", "tokenizer", "embedding_dimension", "num_labels", "labels", "activation",
         "max_active_dims", "max_seq_length", "similarity_fn_name", "truncate_dim", "prompts", "default_prompt_name",
         "revision")  # fmt: skip


ALSO_SHOWN = ("chain", "do_lower_case", "padding_side", "text_input", "target", "top_k", "opset", "sbertconv")


# What `-q` and `-v` ask for; set by each run of the command line.
LEVEL = {"quiet": False, "verbose": False}


def open_console(stderr: bool = False) -> Console:
    """As wide as the terminal; where there is none, wide enough for the tables. `-q` silences all but errors."""
    from sbertconv.console.plain import PlainConsole

    console = PlainConsole(stderr=stderr, highlight=False, quiet=LEVEL["quiet"] and not stderr)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    return console


def print_lines(console: Console, *lines: str) -> None:
    """Text that is copied or searched for: no line breaks of our own."""
    for line in lines:
        console.print(line, soft_wrap=True)


def tell_warnings() -> None:
    """Warnings are lines for who reads them, without the place in the code that gave them; and what no encoding of the
    output has, is written as an escape.
    """

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not LEVEL["quiet"]:
            typer.echo(f"Note: {visible(str(message))}", err=True)

    warnings.showwarning = show
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def progress(as_json: bool, left: Callable[[], float | None] = lambda: None) -> Iterator[Any]:
    """A spinner, and for machines the report of a comparison that failed, under the key that it has in a manifest.

    Args:
        as_json: whether the result is JSON; stages are then shown with `-v` alone.
        left: the seconds that remain, or None.
    """
    try:
        with _spinner(as_json, left) as on_stage:
            yield on_stage
    except ParityError as error:
        if as_json:
            print_json({"folder": None, "parity": error.report.to_json()})
        raise


@contextlib.contextmanager
def _spinner(as_json: bool, left: Callable[[], float | None]) -> Iterator[Any]:
    """The stage's name and the time it took, a line each; on a terminal what runs now, too."""
    if LEVEL["quiet"] or (as_json and not LEVEL["verbose"]):
        yield lambda stage: None
        return
    import time

    from rich.text import Text

    from sbertconv.console.estimates import about
    from sbertconv.console.plain import PlainConsole

    console = PlainConsole(file=sys.stderr, highlight=False)  # stages redirect sys.stderr, the spinner goes on
    running: list[tuple[str, float]] = []

    def remaining() -> str:
        seconds = left() or 0.0
        return f", {about(seconds)} left" if seconds >= 1 and running else ""

    class Now:
        """What the spinner shows, as of each of its turns."""

        def __rich__(self) -> Text:
            return Text(f"{visible(running[0][0]) if running else 'starting'}{remaining()}")

    def finish(last: bool) -> None:
        if running:
            name, start = running[0]
            took = f"{time.perf_counter() - start:.1f} s{'' if last else remaining()}"
            console.print(Text.assemble(("done", "green"), f" {visible(name)} ", (took, "dim")), soft_wrap=True)
            running.clear()

    with console.status(Now()) if console.is_terminal else contextlib.nullcontext():

        def on_stage(name: str) -> None:
            finish(last=False)
            running.append((name, time.perf_counter()))

        yield on_stage
        finish(last=True)


@contextlib.contextmanager
def bar() -> Iterator[Any]:
    """A bar with what is measured now and the time that remains; where nobody watches, a line for each tenth."""
    if LEVEL["quiet"]:
        yield lambda name, done, total: None
        return
    console = open_console(stderr=True)
    if not console.is_terminal:
        told = [-1]

        def tell(name: str, done: int, total: int) -> None:
            if done * 10 // total > told[0]:
                told[0] = done * 10 // total
                print_lines(console, f"{told[0] * 10:3} % {visible(name)}")

        yield tell
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda name, done, total: progress.update(task, description=visible(name), completed=done, total=total)


def json_text(content: Any) -> str:
    """JSON; a number that is not finite, which JSON does not have, is null."""
    try:
        return json.dumps(content, indent=2, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        plain = json.loads(json.dumps(content, default=str), parse_constant=lambda name: None)
        return json.dumps(plain, indent=2, ensure_ascii=False)


def print_json(content: Any) -> None:
    typer.echo(visible(json_text(content)))


def print_result(artifact: Artifact, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(artifact.folder), **artifact.manifest})
    else:
        _print_artifact(artifact)


def _print_artifact(artifact: Artifact) -> None:
    from rich.table import Table

    console = open_console()
    manifest = artifact.manifest
    _print_notes(manifest["notes"], console)
    print_parity(manifest["parity"], console)
    for graph in manifest["graphs"]:
        if proven := graph.get("text"):
            count, size = proven["corpus"] + proven["fuzz"], _size(proven["bytes"])
            same = f"{count:,} inputs, 0 of {proven['tokens']:,} tokens differ; {size}"
            print_lines(console, f"Tokenizer inside graph {graph['name']!r}: {same}")
    print_lines(console, f"Written to {artifact.folder}")
    table = Table()
    table.add_column("file")
    table.add_column("size", justify="right")
    for name, file in manifest["files"].items():
        table.add_row(name, _size(file["size"]))
    console.print(table)
    print_lines(console, "Run it:", snippet(artifact))
    if manifest.get("target") == "tensorrt":
        print_lines(
            console, "On the machine with the GPU, build its plan:", f"  sbertconv build-plan {artifact.folder}"
        )


def print_estimate(estimate: Estimate | None, console: Console) -> None:
    """A line, if anything is known."""
    if estimate is not None:
        from sbertconv.console.estimates import about

        memory = f", {_size(round(estimate.memory))} of memory" if estimate.memory else ""
        took = f"{about(estimate.seconds)}{memory}, a folder of {_size(round(estimate.size))}"
        print_lines(console, f"Estimate, after a conversion like it on this machine: {took}")


def print_bench(report: BenchReport) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    console = open_console()
    for content in report.tables():
        columns = (Column(heading, justify="right", overflow="fold") for heading in content.header)
        table = Table(Column(overflow="fold"), *columns, title=content.title, title_justify="left")
        for name, cells in content.rows:
            table.add_row(name, *(Text.assemble(cell.value, *_below(cell.ratio)) for cell in cells))
        console.print(table)
    print_lines(console, *report.description)


# The figures of a reduction: name -> what they are called, and how a number is shown.
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "rows": ("tokens", lambda number: f"{number:,.0f}"),
    "layers": ("layers", lambda number: f"{number:,.0f}"),
    "dim": ("dimensions of a vector", lambda number: f"{number:,.0f}"),
    "parameters": ("numbers", lambda number: f"{number:,.0f}"),
    "bytes": ("weights and tokenizer", lambda number: _size(round(number))),
    "seconds": ("seconds for the gate's texts", lambda number: f"{number:.2f}"),
    "kept_texts": ("texts with the same embedding, to the last bit", lambda number: f"{number:,.0f}"),
    "sample_texts": ("texts of the sample", lambda number: f"{number:,.0f}"),
    "changed_share": ("of these, texts that change their tokens", lambda number: f"{number:.1%}"),
}


def print_reduction(made: Reduction, as_json: bool, dry_run: bool) -> None:
    """The proof, what became smaller, and how to open it; in a dry run there is nothing to open."""
    from rich.table import Column, Table

    from sbertconv.artifact.folder import how_to_load

    if as_json:
        print_json({**made.to_json(), **({"folder": None, "dry_run": True} if dry_run else {})})
        return
    console = open_console()
    _print_notes(made.notes, console)
    print_parity(made.parity.to_json(), console)
    table = Table("", Column("original", justify="right"), Column("smaller", justify="right"))
    for figure in made.figures:
        name, shown = FIGURES[figure.name]
        table.add_row(name, *("" if number is None else shown(number) for number in (figure.before, figure.after)))
    console.print(table)
    if made.example:
        print_lines(console, f"One of them: {_quoted(made.example, 80)}")
    if dry_run:
        print_lines(console, "Nothing was written.")
        return
    print_lines(console, f"Written to {made.folder}", "Load it:", f"  {how_to_load(made.folder)}")
    print_lines(console, "Convert it:", f"  sbertconv to-onnx {made.folder}")


def print_tuning(tuning: Tuning) -> None:
    """Every setting for one text and for many, the fastest first, and where the result is."""
    from rich.table import Table

    console = open_console()
    for title, settings in (("One short text", tuning.one), (f"{tuning.texts} texts of mixed lengths", tuning.many)):
        table = Table("engine", title=title, title_justify="left")
        for heading in ("batches at once", "tokens of a batch", "time", "spread"):
            table.add_column(heading, justify="right")
        for one in settings:
            tokens = "default" if one.batch_tokens is None else str(one.batch_tokens)
            table.add_row(one.engine, str(one.parallel), tokens, f"{1000 * one.seconds:.3g} ms", f"{one.spread:.0%}")
        console.print(table)
    one, many = tuning.record.one, tuning.record.many
    print_lines(
        console,
        f"load() takes {one.engine}; load(many=True) and encode --input take {many.engine}, {many.parallel} at once.",
        f"Written to {tuning.file}" if tuning.file else "Not kept: the user's cache cannot be written.",
    )


def print_engine(engine: str, because: str) -> None:
    """Which engine runs, and why; for those who want to know."""
    if LEVEL["verbose"] and because:
        print_lines(open_console(stderr=True), f"{engine}: {because}")


def _below(ratio: str) -> list[Any]:
    return ["\n", (ratio, "dim")] if ratio else []


def _print_parting(parting: Mapping[str, Any], console: Console) -> None:
    """The modules around the place where the two sides part."""
    from rich.table import Table
    from rich.text import Text

    modules = parting["modules"]
    last = max((place for place, module in enumerate(modules) if module["found"]), default=-1)

    table = Table("module", "type", "max abs diff", "", title_justify="left")
    table.title = f"Module by module on {parting['engine']}, text {_quoted(parting['text'])}"
    for module in modules[max(0, last - AROUND) : last + 1 + AROUND]:
        nearest = module["max_abs_diff"]
        table.add_row(
            module["path"],
            module["type"],
            "no such value" if nearest is None else f"{nearest:.1e}",
            Text("found", "green") if module["found"] else "",
        )
    if last + 1 < len(modules):
        console.print(table)
    print_lines(console, f"Module by module, {parting['summary']}")


def _print_notes(notes: Iterable[str], console: Console) -> None:
    print_lines(console, *(f"Note: {in_command_words(note, flags_of(None))}" for note in notes))


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
    asked = ", format='torch'" if artifact.formats == ("torch",) else ""
    lines = [
        "import sbertconv",
        f"model = sbertconv.load({str(artifact.folder)!r}{asked})",
        *next(lines for name, lines in calls.items() if name in outputs),
    ]
    return "\n".join(f"  {line}" for line in lines)


def _quoted(text: str, width: int = 22) -> str:
    """A text in a row of one line: some characters take two columns of a terminal, others none."""
    from rich.cells import cell_len, set_cell_size

    return repr(text if cell_len(text) <= width else f"{set_cell_size(text, width - 3).rstrip()}...")


def print_parity(report: Mapping[str, Any], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    title = f"Parity with {report['method']}(): {report['rule']}"
    table = Table(title=title, title_justify="left")
    for name, justify in (
        ("check", "left"), ("texts", "right"), ("max abs diff", "right"), ("on", "left"), ("tokens", "right"),
        ("min cosine", "right"), ("", "left"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=name != "on", overflow="fold")  # type: ignore[arg-type]
    for check in report["checks"]:
        exact = check["dtype"] == "int64" or report["wobble"] is None
        table.add_row(
            check["name"],
            str(check["texts"]),
            ("exact" if check["passed"] else "differ") if exact else _figure(check["max_abs_diff"], ".1e"),
            "" if exact and check["passed"] else _quoted(check["worst_text"]),
            "" if exact and check["passed"] else str(check["worst_tokens"]),
            "" if exact else _figure(check["min_cosine"], ".7f"),
            Text("ok", "green") if check["passed"] else Text("FAILED", "red"),
        )
    if report["wobble"] is not None:
        text = _quoted(report["wobble_text"])
        table.add_section()
        table.add_row(
            f"{report['method']}(), batch 1 / 32",
            "",
            _figure(report["wobble"], ".1e"),
            text,
            "",
            "",
            Text("yardstick", "dim"),
        )
    if report["checks"]:
        console.print(table)
    problems = [f"{check['name']}: {check['problem']}" for check in report["checks"] if check["problem"]]
    print_lines(console, *(in_command_words(problem, flags_of(None)) for problem in problems))
    for quality in report["quality"]:
        _print_quality(quality, console)
    for parting in report.get("partings", ()):
        _print_parting(parting, console)
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
    from rich.table import Table

    from sbertconv.parity.comparison import shorten

    words = QUALITY_WORDS[quality["of"]]
    result = "passed" if quality["passed"] else "below the gate"
    of = ", ".join([f"{quality['texts']:,} {words[0]}", *quality["run"].split(": ")[:-1]])
    title = f"Quality on {of}: {result}"
    table = Table("", "found", "gate", "on", title=title, title_justify="left")
    gate = quality["gate"]
    figures = (
        ("min_cosine", gate.get("min_cosine"), quality.get("worst_text")),
        ("mean_cosine", None, ""),
        ("spearman", gate["min_spearman"], ""),
        ("top1", None, ""),
        ("top10", gate["min_top10"], ""),
        ("batch_cosine", None, quality.get("batch_text")),
    )
    for name, (key, limit, text) in zip(words[1:], figures, strict=True):
        if key not in quality:
            continue
        shown = repr(shorten(text, 40)) if text else ""
        table.add_row(name, _figure(quality[key], ".5f"), "" if limit is None else f">= {limit:g}", shown)
    console.print(table)


def _figure(value: float | None, form: str) -> str:
    """A number of a report, where None stands for one that is not finite."""
    return "-" if value is None else format(value, form)


def print_description(description: Mapping[str, Any]) -> None:
    from rich.table import Column, Table

    console = open_console()
    print_lines(console, description["name"])
    modules = description["modules"]
    backends = list(modules[0]["backends"]) if modules else []
    table = Table("", *(Column(name, overflow="fold") for name in ("module", "settings", *backends)))
    problems = []
    for module in modules:
        settings = ", ".join(f"{key}={_short_value(value)}" for key, value in module["settings"].items())
        table.add_row(module["label"], module["name"], settings, *map(_by, module["backends"].values()))
        found = dict.fromkeys(result["problem"] for result in module["backends"].values() if result["problem"])
        problems += [f"[{module['label']}] {module['name']}: {problem}" for problem in found]
    console.print(table)
    print_lines(console, *problems)
    for key in SHOWN:
        value = description.get(key)
        if key in description and key in ("embedding_dimension", "activation") and value is None:
            value = "unknown until loaded"
        if value not in (None, {}):
            print_lines(console, f"{key.replace('_', ' ')}: {value}")
    _print_notes(description["notes"], console)


def print_converted(description: Mapping[str, Any]) -> None:
    """What `describe_converted` says: its formats, its tensors, and a line for everything else."""
    from rich.table import Column, Table

    console = open_console()
    source = description["source"]["name"]
    print_lines(console, f"{description['path']}: a {description['model_class']}, converted from {source}")
    if around := description.get("around"):
        print_lines(console, f"contained in a Keras model, whose own layers are: {', '.join(around)}")
    formats = Table("format", Column("size", justify="right"), "precision", "proven on", "runs here on", "files")
    for form, found in description["formats"].items():
        here = ", ".join(found["installed"]) or "nothing that is installed"
        proven, files = ", ".join(found["engines"]), ", ".join(found["files"])
        formats.add_row(form, _size(found["size"]), description["precision"], proven, here, files)
    console.print(formats)
    if proven_on := description["proven_on"]:
        where = ", ".join(f"{engine} {place}" for engine, place in proven_on.items())
        print_lines(console, f"proven on: {where}; other engines, versions, devices and providers are unproven")
    tensors = Table("graph", "", "tensor", "dtype", "shape")
    for graph in description["graphs"]:
        for way in ("inputs", "outputs"):
            for tensor in graph[way]:
                shape = " × ".join(map(str, tensor["shape"]))
                tensors.add_row(graph["name"], way[:-1], tensor["name"], tensor["dtype"], shape)
    console.print(tensors)
    print_lines(console, f"size: {_size(description['size'])}")
    for key in (*dict.fromkeys((*SHOWN[1:], *ALSO_SHOWN)),):
        if (value := description.get(key)) not in (None, {}, [], False):
            print_lines(console, f"{key.replace('_', ' ')}: {value}")
    if proof := description["parity"]:
        print_lines(
            console,
            f"parity with {proof['method']}(): {proof['checks']} checks, at most {proof['max_abs_diff']:.1e} apart; "
            f"{proof['rule']}",
        )
    for quality in description["quality"]:
        _print_quality(quality, console)
    for name, consumer in description["consumers"].items():
        print_lines(console, f"proven for {name}: {consumer['texts']} texts, at most {consumer['max_abs_diff']:.1e}")
    _print_notes(description["notes"], console)


def _by(result: Mapping[str, str]) -> Text:
    from rich.text import Text

    return Text("unsupported", "red") if result["problem"] else Text(visible(result["by"]))


def _short_value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
