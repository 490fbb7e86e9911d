"""The gate before a .pt2 file is opened: torch.export.load unpickles and evaluates what such a file says.

The layout of the archive is that of `torch.export.pt2_archive`; a program of `to_torch` needs neither pickles nor
operations from outside ATen.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sbertconv.errors import ArtifactError

MEMBERS = re.compile(
    r"[^/]+/(models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)|\.format_version|\.storage_alignment)"
)
CONFIGS = re.compile(r"[^/]+/data/(weights|constants)/model_\w+_config\.json")
TARGETS = re.compile(r"torch\.ops\.(aten|higher_order|prims)\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+")
SYMBOL = re.compile(r"Symbol\('[a-z]\w*'(, ?\w+=(True|False))*\)")
EXPRESSION = re.compile(r"(\b[A-Z][A-Za-z]*\b|\btrue\b|\bfalse\b|[0-9 (),+*/<>=-])*")  # no strings, no attributes


def check_program(path: Path) -> None:
    """Refuse a .pt2 file that holds more than `to_torch` writes: pickles, calls from outside ATen, other expressions.

    Raises:
        ArtifactError: naming everything that does not belong there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            problems = list(_problems(archive))
    except (OSError, zipfile.BadZipFile, ValueError, RecursionError, KeyError) as error:
        raise ArtifactError(
            f"{path}: not a readable PyTorch program: {error}\nConvert the model again with --overwrite."
        ) from error
    if problems:
        raise ArtifactError(
            f"{path}: holds what no conversion writes, and opening it could run code:\n"
            + "\n".join(f"  {problem}" for problem in problems[:10])
            + "\nDo not use this folder."
        )


def _problems(archive: zipfile.ZipFile) -> Iterator[str]:
    import torch

    for name in archive.namelist():
        if not MEMBERS.fullmatch(name):
            yield f"{name}: no member of a program"
        elif name.endswith("data/sample_inputs/model.pt"):
            try:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            except Exception as error:  # torch falls back to an unrestricted unpickler here
                yield f"{name}: more than tensors: {str(error).splitlines()[0]:.100}"
        elif CONFIGS.fullmatch(name):
            entries = json.loads(archive.read(name))["config"]
            yield from (
                f"{name}: {key} is pickled" for key, entry in entries.items() if entry["use_pickle"] is not False
            )
        elif name.endswith("models/model.json"):
            yield from _suspicious(json.loads(archive.read(name)), name)


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
