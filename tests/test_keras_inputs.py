"""What a Keras model takes: whatever a tokenizer gives, by name, in every way that Keras is asked."""

from __future__ import annotations

import re
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, TEXTS, run_python

import sbertconv
from sbertconv import UnsupportedOptionError
from sbertconv.runtime.engines import load_keras_model

EXTRAS: dict[str, Any] = {
    "return_special_tokens_mask": True, "return_offsets_mapping": True, "return_length": True,
}  # fmt: skip
ATOL = 1e-5


@pytest.fixture(scope="module")
def model(bert_keras: Path) -> Any:
    return load_keras_model(bert_keras / "keras/model.keras")


@pytest.fixture(scope="module")
def tokenizer(bert_folder: Path) -> Any:
    from transformers import AutoTokenizer

    model_limit = sbertconv.inspect(bert_folder)["max_seq_length"]  # transformers' own limit is another
    return AutoTokenizer.from_pretrained(bert_folder, model_max_length=model_limit)


@pytest.fixture(scope="module")
def expected(bert_folder: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(bert_folder), device="cpu").encode(TEXTS)


def encoding(tokenizer: Any, **options: Any) -> Any:
    return tokenizer(TEXTS, truncation=True, **{"padding": True, "return_tensors": "np", **options})


def ragged(encoded: Any) -> dict[str, Any]:
    import tensorflow as tf

    return {name: tf.ragged.constant(rows, dtype="int64") for name, rows in encoded.items()}


FORMS: dict[str, Callable[[Any], Any]] = {
    "BatchEncoding": encoding,
    "with extras": lambda tokenizer: encoding(tokenizer, **EXTRAS),
    "UserDict": lambda tokenizer: UserDict(encoding(tokenizer, **EXTRAS)),
    "int32": lambda tokenizer: {name: array.astype("int32") for name, array in encoding(tokenizer).items()},
    "PyTorch": lambda tokenizer: encoding(tokenizer, return_tensors="pt", return_special_tokens_mask=True),
    "lists": lambda tokenizer: encoding(tokenizer, return_tensors=None, return_special_tokens_mask=True),
    "lists of several lengths": lambda tokenizer: encoding(tokenizer, return_tensors=None, padding=False),
    "arrays of several lengths": lambda tokenizer: {
        name: [np.array(row) for row in rows]
        for name, rows in encoding(tokenizer, return_tensors=None, padding=False).items()
    },
    "ragged": lambda tokenizer: ragged(encoding(tokenizer, return_tensors=None, padding=False)),
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_a_tokenizer_gives_has_the_same_vectors(
    form: str, model: Any, tokenizer: Any, expected: np.ndarray
) -> None:
    inputs = FORMS[form](tokenizer)
    assert np.allclose(model(inputs), expected, atol=ATOL)
    assert np.allclose(model.predict(inputs, verbose=0), expected, atol=ATOL)
    assert np.allclose(model.predict_on_batch(inputs), expected, atol=ATOL)


def test_training_takes_the_same(bert_keras: Path, tokenizer: Any, expected: np.ndarray) -> None:
    import tensorflow as tf

    model = load_keras_model(bert_keras / "keras/model.keras")
    inputs = encoding(tokenizer, **EXTRAS)
    model.compile("sgd", "mse")
    assert model.evaluate(inputs, expected, verbose=0) < ATOL
    data = tf.data.Dataset.from_tensor_slices((dict(inputs), expected)).batch(4)
    assert model.evaluate(data, verbose=0) < ATOL
    assert np.allclose(model.predict(data.map(lambda x, y: x), verbose=0), expected, atol=ATOL)
    history = model.fit(inputs, expected, validation_data=(inputs, expected), epochs=2, verbose=0).history
    assert len(history["val_loss"]) == 2
    assert model.train_on_batch(inputs, expected) < 1
    assert model.test_on_batch(inputs, expected) < 1


def test_a_saved_and_an_exported_model_go_by_name_too(
    model: Any, tokenizer: Any, expected: np.ndarray, tmp_path: Path
) -> None:
    import tensorflow as tf

    inputs = encoding(tokenizer, **EXTRAS)
    model.save(tmp_path / "again.keras")
    assert np.allclose(load_keras_model(tmp_path / "again.keras")(inputs), expected, atol=ATOL)
    model.export(tmp_path / "exported", verbose=False)
    serve = tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"]
    tensors = {name: tf.constant(inputs[name], "int32") for name in model.input}
    (found,) = serve(**tensors).values()
    assert np.allclose(found, expected, atol=ATOL)
    with pytest.raises((TypeError, ValueError)):
        serve(**tensors, length=tensors["input_ids"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda inputs: {**inputs, "position_ids": inputs["input_ids"]}, "position_ids is not known"),
        (lambda inputs: {"input_ids": inputs["input_ids"]}, "attention_mask is missing"),
        (lambda inputs: list(inputs.values()), "without names"),
    ],
)
@pytest.mark.parametrize("way", ["__call__", "predict", "data"])
def test_other_inputs_are_refused(change: Any, words: str, way: str, model: Any, tokenizer: Any) -> None:
    import tensorflow as tf

    inputs = change(dict(encoding(tokenizer)))
    if way == "data":
        inputs = tf.data.Dataset.from_tensor_slices(tuple(inputs) if isinstance(inputs, list) else inputs).batch(2)
        inputs = inputs.map(lambda *parts: (parts,)) if words == "without names" else inputs
    with pytest.raises(UnsupportedOptionError, match=words):
        getattr(model, "predict" if way == "data" else way)(inputs)


BY_NAME = """
import keras
import numpy as np
from sbertconv.layers import NamedModel

names = ("input_ids", "token_type_ids")
ids, types = (keras.Input((None,), dtype="int32", name=name) for name in names)
vectors = keras.layers.Embedding(16, 4)(ids) + keras.layers.Embedding(16, 4)(types)
model = NamedModel({"input_ids": ids, "token_type_ids": types}, keras.layers.GlobalAveragePooling1D()(vectors))
inputs = {name: np.array([[1, 2, 3], [4, 5, place]]) for place, name in enumerate(names)}
extra = {**inputs, "special_tokens_mask": np.full((2, 3), 9)}  # between the two, in the order of the names


class Data(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return extra, np.zeros((2, 4), "float32")


expected = model.predict(inputs, verbose=0)
assert np.array_equal(model.predict(extra, verbose=0), expected)
assert np.array_equal(model.predict(Data(), verbose=0), expected)
assert np.array_equal(keras.ops.convert_to_numpy(model(extra)), keras.ops.convert_to_numpy(model(inputs)))
model.compile("sgd", "mse")
assert np.isclose(model.evaluate(Data(), verbose=0), np.mean(expected**2))
model.fit(Data(), verbose=0)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_go_by_name_too(backend: str) -> None:
    ran = run_python(BY_NAME, env={"KERAS_BACKEND": backend})
    assert ran.code == 0, ran.err


def test_rows_of_several_lengths_need_a_mask() -> None:
    import keras

    from sbertconv.layers import NamedModel

    ids = keras.Input((None,), dtype="int32", name="input_ids")
    model = NamedModel({"input_ids": ids}, keras.layers.Embedding(8, 2)(ids))
    assert model(np.array([[1, 2], [3, 4]])).shape == (2, 2, 2)
    for form in (list, np.array):
        with pytest.raises(UnsupportedOptionError, match="no attention_mask"):
            model({"input_ids": [form([1, 2]), form([3])]})
    for wrong in ([[[1]], [[2, 3]]], [["a"]], [[2**40]], [[1], 2]):
        with pytest.raises(UnsupportedOptionError, match="input_ids has rows that are no int32"):
            model({"input_ids": wrong})


def test_a_summary_shows_traced_layers_under_their_paths(model: Any) -> None:
    lines: list[str] = []
    model.summary(expand_nested=True, line_length=200, print_fn=lines.append)
    for path in model.get_layer("transformer").sublayers:
        assert f"└ {path} " in "\n".join(lines)


def test_the_recipe_of_the_page_runs_line_by_line(
    minilm_keras: Path, minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    page = (ROOT / "docs/tensorflow.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block
    (tmp_path / "all-MiniLM-L6-v2").symlink_to(minilm_folder)
    monkeypatch.chdir(tmp_path)
    file = minilm_keras / "keras/model.keras"  # converted once for all tests
    monkeypatch.setattr("sbertconv.api.to_keras", lambda name: load_keras_model(file))
    assert callable(sbertconv.to_keras)
    names: dict[str, Any] = {}
    for line in block[1].splitlines():
        exec(line, names)
    expected = SentenceTransformer(str(minilm_folder), device="cpu").encode(names["payload"])
    assert np.allclose(names["sentence_embedding"], expected, atol=ATOL)
