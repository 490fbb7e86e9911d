"""A Keras model that contains a converted one: the whole ships as a classifier, the part as what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS, Ran, snapshot

import sbertconv
from sbertconv import ArtifactError, UnsupportedOptionError
from sbertconv.runtime.engines import load_keras_model

ATOL = 1e-5


def inline(model: Any) -> Any:
    """As docs/tensorflow.md builds it: the layers of both lie side by side."""
    import keras

    return keras.Model(model.inputs, keras.layers.Dense(2, name="head")(model.output))


def named(model: Any) -> Any:
    """The same, taking its inputs by name."""
    import keras

    from sbertconv.layers import NamedModel

    return NamedModel(model.input, keras.layers.Dense(2, name="head")(model.output))


def nested(model: Any) -> Any:
    """The converted model is one layer of another."""
    import keras

    hidden = keras.layers.Dropout(0.1, name="drop")(model(model.input))
    return keras.Model(model.input, keras.layers.Dense(3, activation="softmax", name="logits")(hidden))


BUILDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "inline": (inline, "head"),
    "named": (named, "head"),
    "nested": (nested, "drop, logits"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, bert_keras: Path) -> dict[str, Path]:
    """Each way of containing it, trained a little, so that neither part is what it was."""
    folder = tmp_path_factory.mktemp("parts")
    found = {}
    for name, (build, _) in BUILDS.items():
        import keras

        model = load_keras_model(bert_keras / "keras/model.keras")
        whole = build(model)
        for variable in whole.trainable_variables:
            variable.assign(keras.ops.convert_to_numpy(variable) * 0.9)
        whole.save(folder / f"{name}.keras")
        model.save(folder / f"{name}-part.keras")
        found |= {name: folder / f"{name}.keras", f"{name} part": folder / f"{name}-part.keras"}
    return found


@pytest.mark.parametrize("name", BUILDS)
def test_the_whole_predicts_and_ships(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    loaded = sbertconv.load(files[name])
    expected = load_keras_model(files[name]).predict(loaded.tokenize(TEXTS), verbose=0)
    assert np.allclose(loaded.logits(TEXTS), expected, atol=ATOL)
    artifact = sbertconv.to_onnx(files[name], tmp_path / "onnx")
    assert artifact.manifest["model_class"] == "TextClassifier"
    assert BUILDS[name][1] in artifact.manifest["notes"][-1]
    shipped = sbertconv.load(artifact.folder, verify=True)
    assert np.allclose(shipped.logits(TEXTS), expected, atol=ATOL)
    best = int(expected[0].argmax())
    assert shipped.predict(TEXTS)[0] == {"label": f"LABEL_{best}", "score": pytest.approx(expected[0, best], abs=ATOL)}
    assert not {"modules.json", "config_sentence_transformers.json"} & set(artifact.manifest["files"])


def test_one_that_goes_by_name_takes_what_a_tokenizer_gives(files: dict[str, Path], bert_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert_folder, model_max_length=32)
    encoded = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="np", return_special_tokens_mask=True)
    whole = load_keras_model(files["named"])
    assert np.allclose(whole.predict(encoded, verbose=0), whole.predict(dict(encoded), verbose=0))
    whole.compile("sgd", "mse")
    assert "loss" in whole.fit(encoded, np.zeros((len(TEXTS), 2)), verbose=0).history


@pytest.mark.parametrize("name", BUILDS)
def test_the_part_is_what_it_was(name: str, files: dict[str, Path], tmp_path: Path, cli: Callable[..., Ran]) -> None:
    from sentence_transformers import SentenceTransformer

    expected = sbertconv.load(files[f"{name} part"]).encode(TEXTS)
    assert np.allclose(sbertconv.load(files[name], part="encoder").encode(TEXTS), expected, atol=ATOL)
    ran = cli("to-st", files[name], tmp_path / "st", "--part", "encoder")
    assert ran.code == 0, ran.err
    assert np.allclose(SentenceTransformer(str(tmp_path / "st"), device="cpu").encode(TEXTS), expected, atol=ATOL)


def test_the_part_of_a_model_that_is_no_more_than_it(files: dict[str, Path]) -> None:
    alone, same = (sbertconv.load(files["inline part"], part=part) for part in (None, "encoder"))
    assert np.array_equal(alone.encode(TEXTS), same.encode(TEXTS))


@pytest.mark.parametrize("name", BUILDS)
def test_the_whole_does_not_go_back(name: str, files: dict[str, Path], tmp_path: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("to-st", files[name], tmp_path / "st")
    assert ran.code == 1
    assert f"its other layers are {BUILDS[name][1]}.\nPass --part encoder" in ran.err
    assert snapshot(tmp_path) == {}


def test_encode_names_the_part(files: dict[str, Path], cli: Callable[..., Ran]) -> None:
    assert cli("encode", files["inline"], "a text").code == 1
    ran = cli("encode", files["inline"], "a text", "--part", "encoder")
    assert (ran.code, ran.out.count("\n")) == (0, 1)


def test_a_whole_that_is_no_classifier_names_its_layers(bert_keras: Path, tmp_path: Path) -> None:
    import keras

    model = load_keras_model(bert_keras / "keras/model.keras")
    heads = [keras.layers.Dense(2, name=name)(model.output) for name in ("first", "second")]
    keras.Model(model.inputs, heads).save(tmp_path / "two.keras")
    with pytest.raises(ArtifactError, match=r"(?s)first, second\. As a whole it is no classifier.*part='encoder'"):
        sbertconv.load(tmp_path / "two.keras")
    assert sbertconv.load(tmp_path / "two.keras", part="encoder").encode(TEXTS).shape == (len(TEXTS), 16)


def test_a_whole_that_gives_a_number_for_each_token_is_no_classifier(bert_keras: Path, tmp_path: Path) -> None:
    import keras

    model = load_keras_model(bert_keras / "keras/model.keras")
    tokens = keras.layers.Rescaling(1.0)(model.inputs[0])
    added = keras.layers.Add(name="added")([keras.layers.Dense(1, name="score")(model.output), tokens])
    keras.Model(model.inputs, added).save(tmp_path / "tokens.keras")
    with pytest.raises(ArtifactError, match="As a whole it is no classifier"):
        sbertconv.load(tmp_path / "tokens.keras")


def test_two_converted_models_in_one_are_refused(bert_keras: Path, tmp_path: Path) -> None:
    import keras

    one, other = (load_keras_model(bert_keras / "keras/model.keras") for _ in range(2))
    other.name = "other"
    both = keras.layers.Concatenate(name="both")([one(one.input), other(one.input)])
    keras.Model(one.input, both).save(tmp_path / "both.keras")
    for part in (None, "encoder"):
        with pytest.raises(ArtifactError, match="contains 2 converted models"):
            sbertconv.load(tmp_path / "both.keras", part=part)


def test_another_part_is_refused(bert_keras: Path, static_folder: Path, static_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"part='encoder': .* is no \.keras file"):
        sbertconv.load(static_artifact, part="encoder")
    with pytest.raises(UnsupportedOptionError, match=r"part='head' is not known \(have: encoder\)"):
        sbertconv.load(bert_keras / "keras/model.keras", part="head")
    with pytest.raises(UnsupportedOptionError, match="no Keras model of to-tf"):
        sbertconv.to_onnx(static_folder, tmp_path / "out", part="encoder")
