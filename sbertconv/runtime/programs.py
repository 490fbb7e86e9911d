"""The gate before a .pt2 file is opened: torch.export.load unpickles and evaluates what such a file says.

The layout of the archive is that of `torch.export.pt2_archive`; a program of `to_torch` needs neither pickles nor
operations from outside ATen.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sbertconv.artifact.json_reading import parse_json
from sbertconv.errors import ArtifactError

MEMBERS = re.compile(
    r"(models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)|\.format_version|\.storage_alignment)"
)
CONFIGS = re.compile(r"data/(weights|constants)/model_\w+_config\.json")
TARGETS = re.compile(  # from_file maps any file, and makes it where it is not there
    r"torch\.ops\.(aten(?!\.from_file\b)|higher_order|prims)\.\w+(\.\w+)?"
    r"|_operator\.\w+|math\.\w+|torch\.sym_\w+"
)
SYMBOL = re.compile(r"Symbol\('[a-z]\w*'(, ?\w+=(True|False))*\)")
EXPRESSION = re.compile(r"(\b[A-Z][A-Za-z]*\b|\btrue\b|\bfalse\b|[0-9 (),+*/<>=-])*")  # no strings, no attributes


def check_program(path: Path) -> None:
    """Refuse a .pt2 file that holds more than `to_torch` writes: pickles, calls from outside ATen, other expressions.

    Raises:
        ArtifactError: naming everything that does not belong there.
    """
    from torch.export.pt2_archive import PT2ArchiveReader

    try:
        with zipfile.ZipFile(path) as archive:
            listed = [name.partition("/")[2] for name in archive.namelist()]
        with PT2ArchiveReader(str(path)) as program:  # as torch.export.load reads it: zipfile may find other members
            problems = list(_problems(program, listed))
    except (
        OSError,
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        AssertionError,
        ArtifactError,
    ) as error:
        raise ArtifactError(
            f"{path}: not a readable PyTorch program: {error}\nConvert the model again with overwrite=True."
        ) from error
    if problems:
        raise ArtifactError(
            f"{path}: holds what no conversion writes, and opening it could run code:\n"
            + "\n".join(f"  {problem}" for problem in problems[:10])
            + "\nDo not use this folder."
        )


def _problems(program: Any, listed: Sequence[str]) -> Iterator[str]:
    """What is wrong with the members of a program, an open PT2ArchiveReader; `listed` are their names as zipfile reads
    them.
    """
    import torch

    names = program.get_file_names()
    if sorted(names) != sorted(listed) or len(set(names)) < len(names):
        yield "members that stand twice, or that only some readers find"
    for name in names:
        if not MEMBERS.fullmatch(name):
            yield f"{name}: no member of a program"
        elif name == "data/sample_inputs/model.pt":
            try:
                torch.load(io.BytesIO(program.read_bytes(name)), weights_only=True)
            except Exception as error:  # torch falls back to an unrestricted unpickler here
                yield f"{name}: more than tensors: {str(error).splitlines()[0]:.100}"
        elif CONFIGS.fullmatch(name):
            entries = parse_json(program.read_bytes(name), name, dict)["config"]
            yield from (
                f"{name}: {key} is pickled" for key, entry in entries.items() if entry["use_pickle"] is not False
            )
        elif name == "models/model.json":
            yield from _suspicious(parse_json(program.read_bytes(name), name), name)


def _suspicious(content: Any, name: str) -> Iterator[str]:
    """The calls and the expressions of a program that torch would look up or evaluate."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            target, expression = item.get("target"), item.get("expr_str")
            if isinstance(target, str) and "inputs" in item and not TARGETS.fullmatch(target):
                yield f"{name}: calls {target:.100}"
            if isinstance(expression, str) and not EXPRESSION.fullmatch(SYMBOL.sub("0", expression)):
                yield f"{name}: evaluates {expression:.100}"
