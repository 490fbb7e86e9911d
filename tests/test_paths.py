"""Paths that a file says go through one gate: the code is walked for joins of a folder with such a name around it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbertconv

ROOT = Path(sbertconv.__file__).parent
FOLDER = re.compile(r"(.*\b(folder|root|path|here|place|target|drafts|scratch|directory)|Path\(.*\))")
LOOKUPS = {"get", "items", "values", "keys", "namelist", "infolist", "read_json", "parse_json"}
GATE = {"inside", "path"}  # the function, and the method of an artifact that calls it
# Where a name needs no gate any more: every name of a manifest goes through it in `read_artifact`, before anything else
# can have the manifest
CHECKED = {
    ("artifact/hub.py", "push"), ("consumers/elasticsearch.py", "elasticsearch_layout"),
    ("consumers/graphs.py", "graph_proto"), ("consumers/graphs.py", "save_staged"),
    ("consumers/litert.py", "fixed_layout"), ("consumers/opensearch.py", "opensearch_layout"),
    ("consumers/openvino_genai.py", "genai_layout"), ("consumers/packing.py", "copy_files"),
    ("consumers/sql.py", "bigquery_layout"), ("consumers/tensorflow_serving.py", "serving_layout"),
    ("consumers/triton.py", "triton_layout"), ("converters/onnx/naming.py", "rename_graph"),
    ("converters/keras/back.py", "keras_files"), ("runtime/engines.py", "open_graph"),
    ("runtime/tokenization.py", "load_tokenizer"), ("api.py", "build_plan"),
}  # fmt: skip
# Where this process made the name: from a route's checked name, or from a folder that it listed
MADE = {
    ("consumers/transformers_js.py", "read_transformers_js"), ("converters/keras/writer.py", "_write_models"),
    ("converters/keras/back.py", "write_onnx_of"), ("converters/keras/back.py", "write_sentence_transformers"),
    ("converters/onnx/writer.py", "_finish"), ("converters/writing.py", "cut_files"),
    ("converters/writing.py", "write_tokenizer"), ("source/files.py", "heads_in"),
}  # fmt: skip


def names(target: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def called(node: ast.AST) -> str:
    return ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""


def is_said(value: ast.AST, said: set[str]) -> bool:
    """Whether an expression has something that was looked up by a name, or a variable of `said`."""
    if called(value) in GATE:
        return False
    return any(
        (isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str))
        or called(node) in LOOKUPS
        or (isinstance(node, ast.Name) and node.id in said)
        for node in ast.walk(value)
    )


def variables(function: ast.AST) -> set[str]:
    """The variables of a function that hold something looked up, or made of such."""
    said: set[str] = set()
    for _ in range(3):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and is_said(node.value, said):
                said |= {name for target in node.targets for name in names(target)}
            elif isinstance(node, (ast.For, ast.comprehension, ast.NamedExpr)):
                source = node.value if isinstance(node, ast.NamedExpr) else node.iter
                said |= names(node.target) if is_said(source, said) else set()
    return said


def joins(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The functions, and their joins of a folder with a name that was looked up."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            said = variables(function)
            for node in ast.walk(function):
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                    if FOLDER.fullmatch(ast.unparse(node.left)) and is_said(node.right, said):
                        yield function.name, ast.unparse(node)
                elif isinstance(node, ast.Call) and called(node) in ("Path", "joinpath", "join"):
                    named = any(is_said(part, said) for part in node.args[1:])
                    if named and FOLDER.search(ast.unparse(node)):
                        yield function.name, ast.unparse(node)


def test_no_name_that_a_file_says_goes_around_the_gate() -> None:
    found = {
        (file.relative_to(ROOT).as_posix(), function): code
        for file in sorted(ROOT.rglob("*.py"))
        for function, code in joins(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert {place: code for place, code in found.items() if place not in CHECKED | MADE} == {}
    assert (CHECKED | MADE) - set(found) == set(), "places that are no more"


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("open(folder / manifest['file'])", 1),
        ("name = graph['formats']['onnx']; (root / name).read_text()", 1),
        ("for name in archive.namelist(): (folder / name).write_bytes(b'')", 1),
        ("Path(folder, config.get('path'))", 1),
        ("os.path.join(folder, config['path'])", 1),
        ("inside(folder, manifest['file'])", 0),
        ("artifact.path(graph['formats']['onnx'])", 0),
        ("found = inside(folder, manifest['file']); found / 'config.json'", 0),
        ("folder / 'config.json'", 0),
        ("total / counts['all']", 0),
    ],
)
def test_the_walk_finds_joins(code: str, count: int) -> None:
    assert len(list(joins(ast.parse(f"def f():\n    {code}")))) == count
