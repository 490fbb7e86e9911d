"""The order of the folders, and the light half: every import runs down, those for typing, lazy ones and strings too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbertconv

ROOT = Path(sbertconv.__file__).parent
GROUND = (
    "errors", "memory", "frameworks", "artifact", "options", "keywords", "corpus", "text", "layers", "runtime",
    "tables", "ray", "spark",
)  # fmt: skip
CONVERSION = ("source", "plan", "converters", "parity", "conversion", "consumers")
FACE = ("integrations", "benchmark", "console", "api", "cli", "__init__")
ORDER = GROUND + CONVERSION + FACE
HEAVY = {"torch", "transformers", "sentence_transformers", "onnx"}
PLACE = re.compile(r"sbertconv(\.[a-z_]+)+(:\w+)?")


def files(*rooms: str) -> list[Path]:
    return [file for file in sorted(ROOT.rglob("*.py")) if room_of(file) in rooms]


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def places(tree: ast.AST) -> Iterator[str]:
    """Every module that a file names, wherever in it and however."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PLACE.fullmatch(node.value):
            yield node.value


def test_every_import_runs_down_the_order_of_the_folders() -> None:
    up = []
    for file in files(*ORDER[:-1]):
        for place in places(ast.parse(file.read_text(encoding="utf-8"))):
            package, _, rest = place.partition(".")
            room = re.split(r"[.:]", rest)[0]
            if package == "sbertconv" and room in ORDER and ORDER.index(room) > ORDER.index(room_of(file)):
                up.append(f"{file.relative_to(ROOT)} names {place}")
    assert not up


def test_every_file_has_its_place_in_the_order() -> None:
    assert {room_of(file) for file in ROOT.rglob("*.py")} == set(ORDER)


@pytest.mark.parametrize("room", GROUND)
def test_the_half_that_runs_folders_imports_no_library_of_the_half_that_makes_them(room: str) -> None:
    heavy = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files(room)
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else getattr(node, "names", []))
        if str(getattr(name, "name", name)).split(".")[0] in HEAVY
    ]
    assert not heavy


def test_every_stage_knows_every_class_of_models() -> None:
    from sbertconv.artifact.kinds import MODEL_CLASSES
    from sbertconv.parity.kinds import CLASS_PARITY
    from sbertconv.plan.inspection import DESCRIPTIONS
    from sbertconv.plan.outputs import OUTPUTS
    from sbertconv.runtime.opening import RUNTIMES
    from sbertconv.source.kinds import CLASS_SOURCES

    for table in (CLASS_PARITY, DESCRIPTIONS, OUTPUTS, RUNTIMES, CLASS_SOURCES):
        assert set(table) == set(MODEL_CLASSES)
    for name, row in MODEL_CLASSES.items():
        assert tuple(OUTPUTS[name].outputs) == row.outputs
        assert OUTPUTS[name].outputs[row.output].feature == CLASS_SOURCES[name].feature
