"""`encode` of tables: when it is one, what it is told, and what it says on the way and at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sbertconv.console.files import READERS
from sbertconv.console.options import flags_of, in_command_words
from sbertconv.errors import UnsupportedOptionError, visible

CLUSTERS = {"ray": "sbertconv.ray", "spark": "sbertconv.spark"}
SHOWN = 10  # bad rows that are named at the end; the ledger has all


def is_tables(inputs: Sequence[str], output: str | None) -> bool:
    """Whether this goes from tables to a folder of tables: several files, a folder, a pattern or a remote path, a
    format that is read only so, or an output that is a folder.
    """
    if len(inputs) != 1:
        return bool(inputs)
    (given,) = inputs
    if output is not None and (output.endswith(("/", "\\")) or "://" in output or Path(output).is_dir()):
        return True
    many = "://" in given or Path(given).is_dir() or (set("*?[") & set(given) and not Path(given).exists())
    return bool(many) or (Path(given).suffix not in READERS and is_readable(given))


def is_readable(path: str) -> bool:
    from sbertconv.tables.reading import FORMATS, ending_of

    return ending_of(path) in FORMATS


def encode_tables(
    folder: Path,
    inputs: Sequence[str],
    output: str | None,
    *,
    column: str,
    keep: str | None,
    precision: str | None,
    encode: Mapping[str, Any],
    load: Mapping[str, Any],
    options: Mapping[str, Any],
    on: str | None,
) -> None:
    """Embed tables into a folder, with progress on stderr.

    Raises:
        UnsupportedOptionError: without an output folder, and what `embed_tables` raises.
    """
    from sbertconv.tables.embedding import EmbedTable
    from sbertconv.tables.encoding import TableOptions, embed_tables

    if output in (None, "-"):
        raise UnsupportedOptionError("Tables need a folder for their output.\nName one with --output.")
    if Path(output).is_file() or Path(output).suffix in (".npy", ".npz", ".parquet"):
        raise UnsupportedOptionError(f"{output}: is a file, and several tables go to a folder.\nName a folder.")
    embed = EmbedTable(
        folder=str(folder.absolute()),
        column=column,
        keep=None if keep is None else tuple(filter(None, keep.split(","))),
        precision=precision or "float32",
        encode={name: value for name, value in encode.items() if value not in (None, False)},
        load={name: value for name, value in load.items() if value is not None},
    )
    cluster = None if on is None else _cluster(on)
    try:
        with _progress() as (on_start, on_part):
            summary = embed_tables(embed, inputs, output, TableOptions(**options), on_part, on_start, cluster)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"Interrupted. {output} keeps what is done: the same command goes on there.") from stop
    _tell(summary, output)


def _cluster(on: str) -> Any:
    """What opens workers on a cluster.

    Raises:
        UnsupportedOptionError: for one that is not known.
    """
    import importlib
    from functools import partial

    name, _, address = on.partition(":")
    if name not in CLUSTERS:
        raise UnsupportedOptionError(f"--on {on}: (have: {', '.join(CLUSTERS)}).\nLeave it out for this machine.")
    return partial(importlib.import_module(CLUSTERS[name]).workers, address=address or None)


def _tell(summary: Any, output: str) -> None:
    rate = summary.rows / summary.seconds if summary.seconds else 0.0
    there = f", {summary.there:,} were there" if summary.there else ""
    done = f"{summary.rows:,} rows of {summary.files:,} files in {summary.seconds:,.1f} s ({rate:,.0f} rows/s)"
    lines = [f"{output}: {done}{there}"]
    lines += [f"Left out: {path}, row {bad.row}: {bad.reason}" for path, bad in summary.bad[:SHOWN]]
    if len(summary.bad) > SHOWN:
        lines.append(f"Left out: {len(summary.bad) - SHOWN:,} rows more; the ledger in {output} has them all")
    lines += [f"Left out: the rest of {reason}" for reason in summary.broken.values()]
    print(visible(in_command_words("\n".join(lines), flags_of(None))), file=sys.stderr)


@contextmanager
def _progress() -> Iterator[tuple[Callable[..., None], Callable[..., None]]]:
    """A bar of the input's bytes with rows per second and the remaining time; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield (lambda files, ledger: None), (lambda summary, part: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("opening", total=None)

        def on_start(files: Sequence[Any], ledger: Any) -> None:
            done = sum(file.size for file in files if ledger.done(file).complete)
            bar.update(task, total=max(1, sum(file.size for file in files)), completed=done)

        def on_part(summary: Any, part: Any) -> None:
            seconds = bar.tasks[0].elapsed or 1.0
            bar.update(task, description=f"{summary.rows:,} rows, {summary.rows / seconds:,.0f}/s")
            bar.advance(task, part.consumed)

        yield on_start, on_part
