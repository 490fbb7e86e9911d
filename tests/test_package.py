"""What users rely on before anything is converted: the public names, light imports, the exception tree."""

from __future__ import annotations

import inspect
import pickle
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import COMMAND, run_process, run_python

import sbertconv
from sbertconv import errors

PUBLIC = [
    "__version__",
    "to_onnx",
    "to_openvino",
    "build_plan",
    "to_tf",
    "to_keras",
    "to_st",
    "to_torch",
    "trim",
    "shorten",
    "to_static",
    "pipeline",
    "pack",
    "push",
    "verify",
    "inspect",
    "load",
    "Embedder",
    "SparseEmbedder",
    "MultiVectorEmbedder",
    "HierarchicalTokenPooling",
    "maxsim",
    "maxsim_pairwise",
    "quantize_embeddings",
    "Reranker",
    "TextClassifier",
    "Artifact",
    "Registry",
    "Context",
    "ParityReport",
    "SbertconvError",
    "SourceError",
    "UnsupportedModuleError",
    "UnsupportedOptionError",
    "UnreadableInputError",
    "MissingDependencyError",
    "DuplicateConverterError",
    "ParityError",
    "TokenizationError",
    "ArtifactError",
]
ERRORS = {
    "SbertconvError": ("Exception", 1),
    "SourceError": ("SbertconvError", 1),
    "UnsupportedModuleError": ("SbertconvError", 1),
    "UnsupportedOptionError": ("SbertconvError", 1),
    "UnreadableInputError": ("UnsupportedOptionError", 1),
    "MissingDependencyError": ("SbertconvError", 1),
    "DuplicateConverterError": ("SbertconvError", 1),
    "ParityError": ("SbertconvError", 3),
    "TokenizationError": ("SbertconvError", 3),
    "ArtifactError": ("SbertconvError", 1),
}
COMMANDS = [
    "to-onnx",
    "build-plan",
    "pack",
    "push",
    "engines",
    "to-tf",
    "to-torch",
    "to-openvino",
    "to-st",
    "trim",
    "shorten",
    "to-static",
    "verify",
    "inspect",
    "encode",
    "predict",
    "bench",
]
# Prints which of the heavy packages the code before it has imported.
HEAVY = """
import sys
heavy = {"torch", "keras", "tensorflow", "transformers", "sentence_transformers", "onnx", "onnxruntime", "numpy"}
print("imported:", sorted(heavy & set(sys.modules)))
"""
HELP = """
import sys
from sbertconv.cli import main
try:
    main()
except SystemExit as exit_:
    assert not exit_.code, exit_.code
"""


def test_public_names_are_pinned() -> None:
    assert sbertconv.__all__ == PUBLIC
    assert dir(sbertconv) == sorted(PUBLIC)


def test_every_public_name_exists_and_is_documented() -> None:
    assert sbertconv.__version__ == version("sbertconv")
    for name in PUBLIC[1:]:
        assert inspect.getdoc(getattr(sbertconv, name)), name


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"'to_onxx'.*to_onnx"):
        sbertconv.to_onxx  # noqa: B018


def test_types_are_shipped() -> None:
    assert (Path(sbertconv.__file__).parent / "py.typed").is_file()


def test_exception_tree() -> None:
    found = {
        name: (type_.__mro__[1].__name__, type_.exit_code)
        for name, type_ in vars(errors).items()
        if isinstance(type_, type) and issubclass(type_, errors.SbertconvError)
    }
    assert found == ERRORS
    assert issubclass(sbertconv.MissingDependencyError, ImportError)
    tree = inspect.getdoc(errors)
    assert tree is not None
    assert all(f" {name}" in tree for name in ERRORS if name != "SbertconvError")


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_comes_back_from_another_process(name: str) -> None:
    kind = getattr(errors, name)
    attributes = {"ParityError": {"report": {"checks": []}}, "UnreadableInputError": {"index": 3}}.get(name, {})
    came = pickle.loads(pickle.dumps(kind("what\nwhat to do", *attributes.values())))
    assert (type(came), str(came), vars(came)) == (kind, "what\nwhat to do", attributes)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("import sbertconv; sbertconv.__all__; sbertconv.SbertconvError", []),
        ("import sbertconv.cli", []),
        (HELP, ["--help"]),
        (HELP, ["--version"]),
        *((HELP, [command, "--help"]) for command in COMMANDS),
    ],
    ids=["import", "cli", "--help", "--version", *COMMANDS],
)
def test_importing_and_help_load_no_framework(code: str, arguments: list[str]) -> None:
    ran = run_python(f"{code}\n{HEAVY}", *arguments)
    assert ran.code == 0, ran.err
    assert ran.out.endswith("imported: []\n")


@pytest.mark.parametrize("start", [(COMMAND,), (sys.executable, "-m", "sbertconv")], ids=["the script", "-m"])
def test_the_command_is_installed_and_lists_its_commands(start: tuple[str | Path, ...]) -> None:
    ran = run_process(*start, "--help")
    assert ran.code == 0
    assert all(command in ran.out for command in COMMANDS)
    assert "3 parity failed" in ran.out


def test_running_a_folder_imports_no_framework(bert_artifact: Path) -> None:
    """Keras, TensorFlow and scipy too, which nothing of an ONNX folder needs."""
    code = (
        "import sys, sbertconv\nsbertconv.load(sys.argv[1]).encode(['a'])\n"
        "print(sorted({'torch', 'keras', 'tensorflow', 'scipy', 'transformers'} & set(sys.modules)))"
    )
    assert run_python(code, bert_artifact).out == "[]\n"
