"""An option is written once: what Python, the command line, the manifest and the messages make of it."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import sbertconv
from sbertconv import api, benchmark
from sbertconv.api import KERAS_TO_ONNX
from sbertconv.cli import app
from sbertconv.console.options import flags_of, in_command_words
from sbertconv.errors import UnsupportedOptionError
from sbertconv.options import (
    GRAPH_ENGINES,
    KERAS_FORMATS,
    PRECISIONS,
    VERBS,
    GateOptions,
    ModelOptions,
    fields_of,
    flag_of,
    of_field,
)

PYTHON_ALONE = {"to_keras", "pipeline"}  # give an object of this process
COMMANDS: dict[str, Any] = {"benchmark": "bench"}
GROUP: Any = typer.main.get_command(app)


@pytest.mark.parametrize("verb", sorted(set(VERBS) - PYTHON_ALONE))
def test_every_option_of_a_verb_is_one_of_its_command(verb: str) -> None:
    command = GROUP.commands[COMMANDS.get(verb, verb.replace("_", "-"))]
    shown = {parameter.opts[0]: parameter for parameter in command.params}
    for entry, _ in fields_of(verb).values():
        assert shown[flag_of(entry)].help == of_field(entry).help


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verb_shows_its_options_to_python(verb: str) -> None:
    function = getattr(benchmark if verb == "benchmark" else api, verb)
    parameters = inspect.signature(function).parameters
    for name, (entry, _) in fields_of(verb).items():
        assert parameters[name].default == entry.default
        assert f" {name}: " in (inspect.getdoc(function) or "")


def test_the_choices_are_what_the_backends_have() -> None:
    from sbertconv.converters.keras.formats import FORMATS
    from sbertconv.converters.onnx.precision import RECIPES
    from sbertconv.runtime.engines import ENGINES

    assert set(PRECISIONS) == set(RECIPES)
    assert set(KERAS_FORMATS) == set(FORMATS)
    assert set(GRAPH_ENGINES) == {name for name, engine in ENGINES.items() if "onnx" in engine.opens}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precison": "int8"}, r"^precison=: to_onnx\(\) has no such option. Did you mean precision\?\nLeave out"),
        ({"opset": "18"}, r"^opset='18' is str \(have: a whole number\)\.\nPass"),
        ({"opset": 17}, r"^opset=17 is not known \(have: 18, 19, 20, 21, 22\)"),
        ({"overwrite": 1}, r"^overwrite=1 is int \(have: True, False\)"),
        ({"outputs": "logits"}, r"^outputs='logits' is one text \(have: a sequence of them\)\.\nPut"),
        ({"texts": [1]}, r"^texts=\[1\] is list \(have: a sequence of texts\)"),
        ({"min_cosine": 1.5}, r"^min_cosine=1.5 \(have: 0 to 1\)"),
        ({"atol": float("inf")}, r"^atol=inf is no number"),
        ({"proof_budget": float("inf")}, r"^proof_budget=inf is no number"),
        ({"rtol": float("nan")}, r"^rtol=nan"),
        ({"top_k": 0}, r"^top_k=0 \(have: 1 and more\)"),
        ({"max_shape": (1, 2, 3)}, r"^max_shape=\(1, 2, 3\) is tuple \(have: two whole numbers, None\)"),
        ({"precision": "int3", "target": "tpu"}, r"(?s)precision='int3'.*target='tpu'"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_may_be(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=said):
        sbertconv.to_onnx("nowhere", tmp_path / "out", **options)
    assert not any(tmp_path.iterdir())


def test_numbers_of_numpy_and_any_sequence_are_taken(static_folder: Path, tmp_path: Path) -> None:
    artifact = sbertconv.to_onnx(
        static_folder, tmp_path / "out", opset=np.int64(19), outputs=iter(["sentence_embedding"]), atol=np.float32(1e-4)
    )
    assert artifact.manifest["opset"] == 19


def test_the_manifest_names_the_options_and_none_of_the_texts(static_folder: Path, tmp_path: Path) -> None:
    artifact = sbertconv.to_onnx(
        static_folder, tmp_path / "out", overwrite=True, precision="int8", min_top10=0.1, texts=["a secret"]
    )
    assert artifact.manifest["options"] == {"precision": "int8", "min_top10": 0.1, "texts": 1}
    assert "secret" not in (artifact.folder / "sbertconv.json").read_text()


@pytest.mark.parametrize("name", sorted(set(fields_of("to_onnx")) - KERAS_TO_ONNX))
def test_no_option_is_ignored_where_the_model_is_a_keras_model(name: str, tmp_path: Path) -> None:
    entry, kind = fields_of("to_onnx")[name]
    choices = [choice for choice in of_field(entry).choices if choice != entry.default]
    first = choices[0] if choices else "a text"
    values: dict[Any, Any] = {str: first, int: first if choices else 1, bool: not entry.default, float: 0.5}
    kinds = getattr(kind, "__args__", (kind,))
    value = values.get(kind) or next((values[part] for part in kinds if part in values and kind is not tuple), None)
    value = {
        "max_shape": (1, 8),
        "texts": ["a"],
        "calibration": ["a"],
        "input_names": ["a=b"],
        "output_names": ["a=b"],
        "consumers": ["triton"],
        "outputs": ["logits"],
        "tasks": ["a"],
        "engines": ["openvino"],
    }.get(name, value)
    (tmp_path / "model.keras").write_bytes(b"")
    with pytest.raises(UnsupportedOptionError, match=f"^{name}=: .* is a Keras model"):
        sbertconv.to_onnx(tmp_path / "model.keras", tmp_path / "out", **{name: value})


@pytest.mark.parametrize(
    ("python", "command_line"),
    [
        ("top_k=5 is too many", "--top-k 5 is too many"),
        ("Pass overwrite=True to", "Pass --overwrite to"),
        ("optimize=False: no", "--no-optimize: no"),
        ("model_class='CrossEncoder': no", "--class CrossEncoder: no"),
        ("outputs=['logits', 'scores']: no", "--output logits --output scores: no"),
        ("max_shape=(32, 256): no", "--max-shape 32x256: no"),
        ("texts=, min_cosine=: no", "--eval, --min-cosine: no"),
        ("keep='a b': no", "--keep 'a b': no"),
        ("cosine 0.9 < 0.99 (min_cosine=)", "cosine 0.9 < 0.99 (--min-cosine)"),
        ("normalize_embeddings=: no", "--normalize: no"),
        ("KERAS_BACKEND=torch", "KERAS_BACKEND=torch"),
        ("top_k=[a]/top_k=064/x.txt, truncate_dim=064: no", "top_k=[a]/top_k=064/x.txt, truncate_dim=064: no"),
        ("proof_budget=-0.5 (have: 0 and more)", "--proof-budget -0.5 (have: 0 and more)"),
    ],
)
def test_the_command_line_prints_its_own_words(python: str, command_line: str) -> None:
    assert in_command_words(python, flags_of(GROUP.commands["encode"])) == command_line


def test_no_two_subjects_share_a_name() -> None:
    names = [entry.name for kind in (ModelOptions, GateOptions) for entry in fields(kind)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "method",
    [
        sbertconv.Embedder.encode,
        sbertconv.SparseEmbedder.encode,
        sbertconv.MultiVectorEmbedder.encode,
        sbertconv.Reranker.predict,
        sbertconv.TextClassifier.predict,
    ],
)
def test_every_keyword_of_a_method_is_described_once(method: Any) -> None:
    described = (inspect.getdoc(method) or "").partition("Returns:")[0]
    names = [name for name in inspect.signature(method).parameters if name != "self"]
    assert [described.count(f"\n    {name}: ") for name in names] == [1] * len(names)
