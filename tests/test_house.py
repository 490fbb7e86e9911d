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
    "errors", "memory", "frameworks", "keras_compat", "artifact", "options", "keywords", "corpus", "text", "layers",
    "runtime", "tables", "ray", "spark",
)  # fmt: skip
CONVERSION = ("source", "plan", "converters", "parity", "conversion", "reduction", "consumers")
FACE = ("integrations", "benchmark", "console", "api", "cli", "__init__", "__main__")
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


LONGEST = 60  # lines of code of a function


def test_no_function_is_too_long_to_read_in_one_go() -> None:
    long = []
    for file in files(*ORDER):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1:2] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                if (lines := (node.end_lineno or 0) - first[0].lineno + 1) > LONGEST:
                    long.append(f"{file.relative_to(ROOT)}: {node.name}, {lines} lines")
    assert not long


def private_names(tree: ast.AST) -> Iterator[str]:
    """Attributes and modules with a leading underscore that a file asks another library for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("sbertconv"):
            yield from (name for name in [*(node.module or "").split("."), *(a.name for a in node.names)])
        elif isinstance(node, ast.Attribute):
            yield node.attr


def own_names(tree: ast.AST) -> Iterator[str]:
    """Names that a file gives itself: functions, classes, variables, fields, attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_private_names_of_other_libraries_stand_in_files_of_their_own() -> None:
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files(*ORDER)}
    own = {name for tree in trees.values() for name in own_names(tree)}
    found = [
        f"{file.relative_to(ROOT)} asks for {name}"
        for file, tree in trees.items()
        if "compat" not in file.stem
        for name in private_names(tree)
        if name.startswith("_") and not name.startswith("__") and name not in own
    ]
    assert not found


def test_a_private_name_that_is_gone_is_said_with_the_version() -> None:
    from sbertconv.errors import MissingDependencyError
    from sbertconv.frameworks import private

    with pytest.raises(
        MissingDependencyError, match=r"^numpy \d.*: int has no _gone, which sbertconv goes by.\nInstall"
    ):
        private(1, "_gone", "numpy")
