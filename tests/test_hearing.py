"""What the libraries say while a model loads is heard: notes of the conversion, or the end of it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from conftest import TEXTS, Ran
from safetensors.numpy import load_file, save_file

import sbertconv
from sbertconv import SourceError
from sbertconv.parity.comparison import Reference
from sbertconv.parity.questions import Question
from sbertconv.source.adapters import passed_over
from sbertconv.source.hearing import listening
from sbertconv.source.opening import open_source


@pytest.fixture(scope="session")
def dense_folder(built_once: Any) -> Path:
    def build(folder: Path) -> None:
        cases.chain(cases.static_embedding(), cases.dense()).save_pretrained(str(folder))

    return Path(built_once("static-dense", build))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def notes(folder: Path, **options: Any) -> list[str]:
    """What is noted once the model was loaded."""
    source = open_source(folder, **options)
    with source.loaded():
        return source.heard


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation_function": "acme.layers.Snake"}, "'acme.layers.Snake' is not trusted"),
        ({"temperature": 2.0}, r"unrecognized Dense config key.*'temperature'"),
    ],
)
def test_a_setting_that_the_library_leaves_out_stops_the_conversion(
    settings: dict[str, Any], said: str, dense_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(dense_folder)
    change(folder / "1_Dense/config.json", **settings)
    with pytest.raises(SourceError, match=rf"does not load as its files describe it:\n  .*{said}.*\n.*allow_changed="):
        sbertconv.to_onnx(folder, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_what_was_allowed_is_noted_and_verified(
    dense_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    folder = copy_of(dense_folder)
    change(folder / "1_Dense/config.json", activation_function="acme.layers.Snake")
    ran = cli("to-onnx", folder, tmp_path / "onnx", "--allow-changed")
    assert ran.code == 0, ran.err
    assert "Note: Converted all the same: Activation function path 'acme.layers.Snake'" in ran.out
    model = sbertconv.load(tmp_path / "onnx")
    (note,) = model.artifact.manifest["notes"]
    assert "Tanh" in note
    assert np.abs(model.encode(TEXTS)).max() <= 1
    assert cli("verify", folder, tmp_path / "onnx").code == 1
    assert cli("verify", folder, tmp_path / "onnx", "--allow-changed").code == 0


def test_weights_of_a_part_that_the_model_has_are_not_left_out(
    bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_folder)
    change(folder / "config.json", num_hidden_layers=1)
    with pytest.raises(SourceError, match=r"weights that are left out: encoder\.layer\.1\.[^\n]*, \.\.\. \(16\)\n"):
        notes(folder)
    assert any("left out: encoder.layer.1" in note for note in notes(folder, allow_changed=True))


def test_weights_of_a_head_are_a_note(bert_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert_folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "cls.predictions.bias": np.zeros(3, np.float32)}, folder / "model.safetensors", {"format": "pt"}
    )
    assert notes(folder) == ["Weights of a head that the model does not have: cls.predictions.bias."]
    assert notes(bert_folder) == []


def test_what_a_library_warns_of_is_a_note(static_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(static_folder)
    change(folder / "config_sentence_transformers.json", __version__={"sentence_transformers": "99.0.0"})
    (note,) = notes(folder)
    assert note.startswith("Said while loading: This model was created with Sentence Transformers version 99.0.0")


# What the file of an adapter holds -> what the library made up or left out of it, without saying so
READ_IN_PART = {
    "all of it": ({"query.lora_A.weight": 1.0, "query.lora_B.weight": 2.0}, []),
    "one weight": ({"query.lora_A.weight": 1.0}, ["query.lora_B.default.weight"]),
    "other numbers": ({"query.lora_A.weight": 3.0, "query.lora_B.weight": 2.0}, ["query.lora_A.weight"]),
    "names of a live model": (
        {"query.lora_A.default.weight": 1.0, "query.lora_B.weight": 2.0},
        ["query.lora_A.default.weight", "query.lora_A.default.weight"],
    ),
    "a head, too": ({"query.lora_A.weight": 1.0, "query.lora_B.weight": 2.0, "classifier.weight": 0.0}, []),
}


@pytest.mark.parametrize("name", READ_IN_PART)
def test_the_weights_of_an_adapter_are_those_of_its_file(name: str, tmp_path: Path) -> None:
    stored, expected = READ_IN_PART[name]
    base = "base_model.model."
    save_file({f"{base}{key}": np.full((2, 2), value, np.float32) for key, value in stored.items()},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    model = torch.nn.Module()
    model.peft_config = {"default": None}  # type: ignore[assignment]
    model.query = torch.nn.Module()
    for part, value in (("lora_A", 1.0), ("lora_B", 2.0)):
        layer = torch.nn.Linear(2, 2, bias=False)
        torch.nn.init.constant_(layer.weight, value)
        model.query.add_module(part, torch.nn.ModuleDict({"default": layer}))
    assert [key.removeprefix(base) for key in passed_over(model, tmp_path)] == expected


def test_a_model_without_an_answer_that_is_a_number_is_refused() -> None:
    """NaN is equal to NaN: nothing would be compared."""
    rows = [np.array([np.nan, np.inf]), np.array([-np.inf, np.nan])]
    with pytest.raises(SourceError, match="2 in all, is NaN or infinite"):
        Reference([Question("each text alone", ["a", "b"])], [rows]).check_numbers()
    Reference([Question("each text alone", ["a", "b"])], [[rows[0], np.array([0.0, np.nan])]]).check_numbers()


def test_tokens_without_a_row_of_the_table_are_a_note(static_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(static_folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    rows = len(vocabulary)
    vocabulary["beyond"] = rows
    file.write_text(json.dumps(content), encoding="utf-8")
    assert notes(folder) == [f"[0] The embedding table has {rows:,} rows, and none for the tokens 'beyond'."]


@pytest.mark.parametrize(
    "silence",
    [
        lambda: logging.disable(logging.CRITICAL),
        lambda: logging.getLogger("sentence_transformers.base.model").setLevel(logging.CRITICAL),
        lambda: setattr(logging.getLogger("sentence_transformers.base.model"), "disabled", True),
        lambda: setattr(logging.getLogger("sentence_transformers.base.model"), "propagate", False),
        lambda: logging.getLogger("sentence_transformers").addFilter(lambda record: False),
    ],
    ids=["all logging", "a level", "a logger", "its way up", "a filter"],
)
def test_what_a_process_has_silenced_is_heard(
    silence: Callable[[], Any], static_folder: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(static_folder)
    change(folder / "config_sentence_transformers.json", __version__={"sentence_transformers": "99.0.0"})
    loggers = [logging.getLogger(name) for name in ("sentence_transformers", "sentence_transformers.base.model")]
    for logger in loggers:
        for name in ("level", "disabled", "propagate", "filters"):
            monkeypatch.setattr(logger, name, getattr(logger, name))
    monkeypatch.setattr(loggers[0], "filters", [])
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    silence()
    before = [dict(vars(logger)) for logger in loggers]
    assert len(notes(folder)) == 1
    state = ("level", "disabled", "propagate", "filters", "handlers")
    assert [[vars(logger)[name] for name in state] for logger in loggers] == [
        [was[name] for name in state] for was in before
    ]


def test_listening_shows_nothing_and_leaves_everything_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    before = [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    with listening() as heard:
        logging.getLogger("transformers.deep.inside").warning("one  thing\n twice")
        logging.getLogger("transformers.deep.inside").warning("one thing twice")
        logging.getLogger("sentence_transformers").info("nothing")
        warnings.warn("another", UserWarning, stacklevel=1)
        warnings.warn("old", FutureWarning, stacklevel=1)
    assert heard.warnings == ["one thing twice", "another"]
    assert [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers] == before
    assert capsys.readouterr() == ("", "")
