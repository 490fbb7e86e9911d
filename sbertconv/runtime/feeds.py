"""What goes into a graph and what comes out of it: an answer belongs to its question, whichever engine gives it.

Not every engine refuses tensors that do not fit: some read past a table, or leave the last answer where it lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sbertconv.artifact.naming import Arrays
from sbertconv.errors import ArtifactError, UnsupportedOptionError

Entries = Sequence[Mapping[str, Any]]  # of a manifest: name, dtype, shape
MARKED = "fi"  # kinds of dtypes that have a number which no model gives
VARYING = ("batch", "sequence")  # the sizes that all tensors of a call share
ALSO = {"int32": ("int64",), "string": ("object", "str"), "object": ("str",)}  # dtypes that become the graph's own


def longest(tokenizer: Mapping[str, Any] | None) -> int | None:
    """The tokens of the longest text that a graph was proven on, by its manifest's `tokenizer` entry; None: any."""
    if tokenizer is None or tokenizer["max_length"] is None:
        return None
    expansion = tokenizer.get("query_expansion") or {}
    limits: list[int] = [tokenizer["max_length"], *tokenizer["task_max_length"].values(), expansion.get("length", 0)]
    return max(limits)


def checked_feeds(inputs: Entries, tensors: Mapping[str, Any], limit: int | None) -> Arrays:
    """The tensors that a graph takes, of those that are given.

    Args:
        inputs: the manifest's.
        tensors: by name; others are left out.
        limit: in tokens, or None.

    Raises:
        UnsupportedOptionError: naming every tensor that is missing, or of another dtype or shape than is due.
    """
    names = [entry["name"] for entry in inputs]
    if missing := [name for name in names if name not in tensors]:
        given = ", ".join(map(str, tensors)) or "none"
        raise UnsupportedOptionError(
            f"The graph takes {', '.join(names)}, and {', '.join(missing)} is missing (have: {given}).\n"
            "Pass what model.tokenize(texts) gives."
        )
    feeds = {name: np.asarray(tensors[name]) for name in names}
    sizes: dict[str, int] = {}
    if problems := [problem for entry in inputs for problem in _misfits(entry, feeds[entry["name"]], sizes, limit)]:
        raise UnsupportedOptionError(
            "The tensors do not fit the graph:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nPass what model.tokenize(texts) gives."
        )
    return feeds


def _misfits(entry: Mapping[str, Any], array: np.ndarray, sizes: dict[str, int], limit: int | None) -> Iterator[str]:
    """What is wrong with one tensor, in words; `sizes` are those of the tensors before, and gain its own."""
    name, due = entry["name"], entry["shape"]
    found = f"{name}: {array.dtype} {list(array.shape)}"
    kind = "str" if array.dtype.kind == "U" else str(array.dtype)
    if kind not in (entry["dtype"], *ALSO.get(entry["dtype"], ())):
        yield f"{found} (have: {entry['dtype']})"
        return
    if len(due) != array.ndim:
        yield f"{found} (have: {_shown(due)})"
        return
    for size, given in zip(due, array.shape, strict=True):
        expected = sizes.setdefault(size, given) if size in VARYING else size
        if isinstance(expected, int) and given != expected:
            yield f"{found}, where {size} is {expected} (have: {_shown(due)})"
        elif size == "sequence" and given == 0:
            yield f"{found}: no tokens (have: at least 1)"
        elif size == "sequence" and limit is not None and given > limit:
            yield f"{found}: {given} tokens (have: up to {limit}, on which the graph was proven)"
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        yield f"{found}: {array.min()} in it (have: numbers that are not negative)"
    if "below" in entry and array.size and array.max() >= entry["below"]:
        yield f"{found}: {array.max()} in it (have: numbers below {entry['below']}, which the table has rows for)"


def checked_answer(outputs: Entries, found: Mapping[str, np.ndarray], feeds: Arrays, file: str) -> None:
    """Raise ArtifactError for an answer that is not of these tensors: an output is missing, or has other rows than they
    or another shape than the manifest says.
    """
    rows = next((len(array) for array in feeds.values()), 0)
    for entry in outputs:
        name, due = entry["name"], [rows if size == "batch" else size for size in entry["shape"]]
        shape = found[name].shape if name in found else None
        sizes = zip(due, shape or (), strict=False)
        if shape is None or len(shape) != len(due) or any(isinstance(a, int) and a != b for a, b in sizes):
            given = "nothing" if shape is None else list(shape)
            raise ArtifactError(
                f"{file} gave {given} as {name}, where {_shown(due)} is due: the answer is not that of these tensors.\n"
                "Use another engine, and convert the model again with overwrite=True."
            )


def _shown(shape: Sequence[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def marked(arrays: Iterable[np.ndarray]) -> None:
    """Write a mark over the last answer, so that one that was not computed can be told from one that was."""
    for array in arrays:
        if array.size and array.dtype.kind in MARKED:
            array.flat[0] = _mark(array.dtype)


def is_marked(array: np.ndarray) -> bool:
    """Whether an array still has the mark of `marked`."""
    return bool(array.size) and array.dtype.kind in MARKED and bool(array.flat[0] == _mark(array.dtype))


def _mark(dtype: np.dtype[Any]) -> Any:
    """A number that no model gives."""
    return np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min
