"""The gate before a .pt2 file is opened: torch.export.load unpickles and evaluates what such a file says.

The layout of the archive is that of `torch.export.pt2_archive`; a program of `to_torch` needs neither pickles nor
operations from outside ATen.
"""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sbertconv.artifact.folder import opened_archive
from sbertconv.artifact.json_reading import parse_json
from sbertconv.errors import CONVERT_AGAIN, ArtifactError

MEMBERS = re.compile(
    r"(models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)|\.format_version|\.storage_alignment)"
)
CONFIGS = re.compile(r"data/(weights|constants)/model_\w+_config\.json")
TARGETS = re.compile(  # from_file maps any file, and makes it where it is not there
    r"torch\.ops\.(aten(?!\.from_file\b)|prims)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|while_loop|scan|associative_scan|map_impl)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(trunc|ceil|floor|sqrt)|torch\.sym_\w+"
)
# What an expression may consist of: sympy evaluates its text, in a namespace that holds more than arithmetic
FUNCTIONS = {
    "Abs", "Add", "And", "BooleanFalse", "BooleanTrue", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality",
    "ExprCondPair", "Float", "FloatPow", "FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt",
    "Identity", "IntTrueDiv", "Integer", "Le", "LessThan", "Lt", "Max", "Min", "Mod", "ModularIndexing", "Mul",
    "Ne", "Not", "Or", "Piecewise", "Pow", "PowByNatural", "PythonMod", "Rational", "RoundToInt",
    "StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat", "TruncToFloat", "TruncToInt", "Unequality",
    "Where",
}  # fmt: skip
POWERS = {"Pow", "FloatPow", "PowByNatural"}
LONGEST_EXPRESSION, LARGEST_NUMBER, LARGEST_POWER, MOST_POWERS = 5000, 2**63, 4, 6  # x**4**6 is a number of kilobytes
SYMBOL = re.compile(r"[a-z]\w{0,30}")
NODES = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.Tuple, ast.UnaryOp, ast.USub,
         ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Compare, ast.Eq, ast.NotEq, ast.Lt,
         ast.LtE, ast.Gt, ast.GtE)  # fmt: skip
CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict")  # others name modules, which torch imports


def check_program(path: Path) -> None:
    """Refuse a .pt2 file that holds more than `to_torch` writes: pickles, calls from outside ATen, other expressions.

    Raises:
        ArtifactError: naming everything that does not belong there.
    """
    from torch.export.pt2_archive import PT2ArchiveReader

    try:
        with opened_archive(path) as archive:
            listed = [name.partition("/")[2] for name in archive.namelist()]
        with PT2ArchiveReader(str(path)) as program:  # as torch.export.load reads it: zipfile may find other members
            problems = list(_problems(program, listed))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        AssertionError,
        ArtifactError,
    ) as error:
        raise ArtifactError(f"{path}: not a readable PyTorch program: {error}\n{CONVERT_AGAIN}") from error
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
    """What torch would look up, import or evaluate of a program, and no conversion writes."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            for key in RULES.keys() & item.keys():
                does, fits = RULES[key]
                if item[key] is not None and not fits(item[key]):
                    yield f"{name}: {does} {item[key]!s:.100}"


def _is_call(target: Any) -> bool:
    """Whether a node's target is one that conversions write; names of inputs and outputs are no calls."""
    return isinstance(target, str) and bool(TARGETS.fullmatch(target) or SYMBOL.fullmatch(target))


def _is_arithmetic(text: Any) -> bool:
    """Whether an expression is arithmetic on symbols, and small."""
    if not isinstance(text, str) or len(text) > LONGEST_EXPRESSION:
        return False
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    called = {id(node.func) for node in calls}
    powers = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id in POWERS]
    return (
        all(isinstance(node, NODES) for node in nodes)
        and all(_is_known(node, id(node) in called) for node in nodes if isinstance(node, ast.Name))
        and all(_is_small(node.value) for node in nodes if isinstance(node, ast.Constant))
        and len(powers) <= MOST_POWERS
        and all(len(node.args) == 2 and _is_exponent(node.args[1]) for node in powers)
    )


def _is_known(name: ast.Name, called: bool) -> bool:
    return name.id in FUNCTIONS if called else bool(SYMBOL.fullmatch(name.id)) or name.id in ("true", "false")


def _is_small(value: Any) -> bool:
    """A number, or the name of a symbol."""
    if isinstance(value, str):
        return bool(SYMBOL.fullmatch(value) or re.fullmatch(r"-?[0-9.e+-]{1,40}", value))
    return isinstance(value, (bool, int, float)) and abs(value) < LARGEST_NUMBER


def _is_exponent(node: ast.expr) -> bool:
    """A number that is written down, and small: a power of powers is a number that no memory holds."""
    literal = node.args[0] if isinstance(node, ast.Call) and len(node.args) == 1 else node
    literal = literal.operand if isinstance(literal, ast.UnaryOp) else literal
    value = literal.value if isinstance(literal, ast.Constant) else None
    return isinstance(value, (int, float)) and abs(value) <= LARGEST_POWER


def _is_tree(text: Any) -> bool:
    """Whether the layout of inputs or outputs is made of tuples, lists and dicts with names for keys."""
    if not isinstance(text, str):
        return False
    waiting = [parse_json(text, "a layout", list)[1]]
    while waiting:
        part = waiting.pop()
        if part["type"] not in (None, *CONTAINERS):
            return False
        keys = part["context"] and parse_json(part["context"], "a layout")
        if keys is not None and not (isinstance(keys, list) and all(isinstance(key, (str, int)) for key in keys)):
            return False
        waiting += part["children_spec"]
    return True


RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "target": ("calls", _is_call),
    "as_operator": ("calls", _is_call),
    "expr_str": ("evaluates", _is_arithmetic),
    "in_spec": ("imports", _is_tree),
    "out_spec": ("imports", _is_tree),
    "guards_code": ("runs the code", lambda code: code == []),  # torch executes it as Python
}
