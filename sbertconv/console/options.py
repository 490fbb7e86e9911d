"""The arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import Field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer

from sbertconv.console.hints import complete_engine, complete_model
from sbertconv.errors import UnsupportedOptionError
from sbertconv.options import ENCODER, Names, Shape, all_fields, fields_of, flag_of, of_field

Command = TypeVar("Command", bound=Callable[..., None])
LAST = ("dry_run", "as_json")  # stand behind the options of the verb
# A number, a text, True, False, or a list or pair of such, as Python prints them.
VALUE = r"-?\d+(?:\.\d+)?(?:e-?\d+)?|'[^']*'|True|False|\[[^\]]*\]|\(\d+, \d+\)"


class FormatOption(StrEnum):
    onnx = "onnx"
    openvino = "openvino"
    keras = "keras"
    saved_model = "saved_model"
    litert = "litert"
    torch = "torch"
    tensorrt = "tensorrt"


class Part(StrEnum):
    encoder = ENCODER


def flag(name: str, text: str, short: str | None = None, also: str | None = None, **options: Any) -> Any:
    """An option without a value: that it is a bool, and off unless given, goes without saying."""
    return typer.Option(*filter(None, (name, also, short)), help=text, metavar="", show_default=False, **options)


def names_of(flag: str, example: str) -> Any:
    """Names of tensors, old=new, repeated."""
    text = f"A name in the graph, like {example}; those that are named come first; repeat for several."
    return typer.Option(flag, help=text, metavar="<old=new>", show_default=False)


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
DryRun = Annotated[
    bool, flag("--dry-run", "Show plan, folder, and an estimate of time, memory and size; write nothing.")
]
Trial = Annotated[bool, flag("--dry-run", "Do the work and its proof, and show what they come to; write nothing.")]
Json = Annotated[bool, flag("--json", "Print JSON for machines.")]
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
OutputFormat = Annotated[str | None, _of_tables("parquet (default), arrow or lance.", metavar="<name>")]
RowsPerFile = Annotated[int | None, _of_tables("rows of an output file; default 8192.", min=1)]
Workers = Annotated[int | None, _of_tables("processes, each on its share of the threads; default 1.", min=1)]
On = Annotated[str | None, _of_tables("ray or spark, with an address behind a colon; default: this machine.")]
PartOf = Annotated[
    Part | None,
    typer.Option(
        "--part",
        help="Of a .keras file whose model contains a converted one, that one alone: encoder.",
        metavar="<name>",
        show_default=False,
    ),
]
BeyondProof = Annotated[
    bool, flag("--beyond-proof", "Take texts longer than those that were compared with the model, up to its limit.")
]


def with_options(verb: str, writes: str = "") -> Callable[[Command], Command]:
    """Give a command the options of a public verb, see `sbertconv.options.VERBS`, behind its own arguments.

    The command's `**options` are those that were given, by their names and with their types in Python.

    Args:
        verb: the function's name.
        writes: the ending of the folder that it writes by default, for the argument `directory`.
    """
    where = typer.Argument(help=f"Where to write; default: <model's name>-{writes} here.", show_default=False)

    def decorate(command: Command) -> Command:
        parameters = inspect.signature(command, eval_str=True).parameters.values()
        own = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        arguments = [
            parameter.replace(annotation=Annotated[str | None, where])
            if writes and parameter.name == "directory"
            else parameter
            for parameter in own
            if parameter.name not in LAST
        ]
        entries = fields_of(verb)
        options = [parameter_of(*entry) for entry in entries.values()]
        last = [parameter for parameter in own if parameter.name in LAST]

        @functools.wraps(command)
        def call(**given: Any) -> None:
            values = {name: given.pop(name) for name in entries}
            command(**given, **{name: as_python(*entries[name], value) for name, value in values.items()
                                if value is not None})  # fmt: skip

        call.__signature__ = inspect.Signature([*arguments, *options, *last])  # type: ignore[attr-defined]
        call.__annotations__ = {}
        return cast(Command, call)

    return decorate


def parameter_of(entry: Field[Any], kind: Any) -> inspect.Parameter:
    """A field of a subject as a parameter that typer reads."""
    facts, default = of_field(entry), entry.default
    named = f"{flag_of(entry)}/{facts.off}" if facts.off else flag_of(entry)
    about: dict[str, Any] = {"help": facts.help, "metavar": facts.metavar or None, "min": facts.low, "max": facts.high}
    about["show_default"] = isinstance(default, (str, int)) and not isinstance(default, bool)
    several = kind in (Names, Names | None)
    if kind in (bool, bool | None):
        about["metavar"] = ""
    elif facts.from_file:
        kind, default = Path | None, None
    elif kind == Shape | None:
        kind, about["parser"] = Any, shape
    elif facts.choices and isinstance(facts.choices[0], str):
        choice: Any = StrEnum(entry.name, {name: name for name in facts.choices})  # type: ignore[misc]
        kind = list[choice] | None if several else choice if default is not None else choice | None
        default = None if several else default and choice(str(default))
    elif several:
        kind, default = list[str] | None, None
    return inspect.Parameter(
        entry.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=default,
        annotation=Annotated[kind, typer.Option(named, **about)],
    )


def as_python(entry: Field[Any], kind: Any, value: Any) -> Any:
    """What the command line gave for an option, as the public verb takes it."""
    if of_field(entry).from_file:
        return texts_of(value)
    if isinstance(value, StrEnum):
        return value.value
    return [getattr(part, "value", part) for part in value] if isinstance(value, list) else value


def texts_of(file: Path) -> tuple[str, ...]:
    """The texts of a file, as `encode` reads them.

    Raises:
        UnsupportedOptionError: if there are none: a file that was named must not count as none.
    """
    from sbertconv.console.files import read_texts

    texts = tuple(read_texts(file, "text"))
    if not texts:
        raise UnsupportedOptionError(f"{file}: no texts in it.\nCheck the file, or leave the option out.")
    return texts


def in_command_words(message: str, flags: Mapping[str, tuple[str, str]]) -> str:
    """A message that calls options as Python does, `top_k=5`, with the command line's words, `--top-k 5`.

    Args:
        message: an error's text.
        flags: keyword -> the flag, and the one that says False.
    """

    def spelled(found: re.Match[str]) -> str:
        flag, off = flags[found["name"]]
        if found["value"] is None:
            return flag
        try:
            value = ast.literal_eval(found["value"])
        except (ValueError, SyntaxError):  # no value, but part of a name, as in `year=064`
            return str(found[0])
        if isinstance(value, bool):
            return flag if value else off or f"no {flag}"
        if isinstance(value, tuple):
            return f"{flag} {'x'.join(map(str, value))}"
        parts = value if isinstance(value, list) else [value]
        return " ".join(f"{flag} {shlex.quote(str(part))}" for part in parts)

    names = "|".join(sorted(flags, key=len, reverse=True))
    in_a_name = r"[\w/\\]"  # of a file, as in `year=2024/top_k=5`
    return re.sub(
        rf"(?<!{in_a_name})(?P<name>{names})=(?:(?P<value>{VALUE})(?!{in_a_name})|(?![^\s,:;.)]))", spelled, message
    )


def flags_of(command: Any) -> dict[str, tuple[str, str]]:
    """Every option that a message may call by its keyword -> its flags: those of all verbs, and those of a command."""
    verbs = {name: (flag_of(entry), of_field(entry).off) for name, (entry, _) in all_fields().items()}
    own: dict[str, tuple[str, str]] = {}
    for parameter in getattr(command, "params", ()):
        if parameter.opts[0].startswith("--"):
            found = parameter.opts[0], next(iter(parameter.secondary_opts), "")
            own |= {parameter.name: found, parameter.opts[0][2:].replace("-", "_"): found}
    return {**verbs, **own}
