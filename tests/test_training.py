"""A converted model trains in plain Keras as its original does in PyTorch, and everything Keras offers works on it."""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cases
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
import torch
from conftest import ROOT, TEXTS, importable
from sentence_transformers import SentenceTransformer

import sbertconv
import sbertconv.layers
from sbertconv.converters import default_registry
from sbertconv.converters.keras.backend import build_model
from sbertconv.converters.keras.weights import Weight, weights
from sbertconv.errors import ArtifactError, UnsupportedOptionError
from sbertconv.plan.planning import plan_model
from sbertconv.runtime.engines import load_keras_model

TOLERANCE = {
    "gradient": 1e-4,  # of its own norm: float32 sums in another order
    "gradient noise": 1e-6,  # of the largest gradient's norm: where it is zero but for rounding, as of key.bias
    "ten steps": 1e-5,  # absolute and relative: the same rounding, ten times over
    "same run": 1e-6,  # the same operations, saved and loaded in between or compiled by XLA
    "merged": 1e-5,  # LoRA's product added to the kernel instead of to the output
    "half cosine": 0.999,  # 8 bits of mantissa in bfloat16, 11 in float16
    "int8 cosine": 0.99,  # one Dense in 8 bits
}
QUERY = "encoder.layer.0.attention.self.query"
LORA = {"lora_kernel_a", "lora_kernel_b", "bias"}  # what trains of a Dense with LoRA
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Trained:
    """A row: a model, and where each Keras layer's weights are in it.

    `origins` is the layer's name -> (the module's place in the chain, prefix of its weights there).
    """

    build: Callable[[], SentenceTransformer]
    origins: Mapping[str, tuple[int, str]] = field(default_factory=lambda: {"transformer": (0, "")})


TRAINED = {
    **{
        name: Trained(lambda name=name: tiny.architecture(name))
        for name in ("bert", "roberta", "mpnet", "modernbert", "t5", "qwen3", "gemma3_text")
    },
    "dense tanh": Trained(cases.CASES["dense tanh"].build, {"transformer": (0, ""), "dense": (2, "linear.")}),
    "lstm": Trained(cases.CASES["lstm"].build, {"word_embeddings": (0, ""), "lstm": (1, "")}),
}


@pytest.fixture(autouse=True)
def forget_graphs() -> Iterator[None]:
    yield
    keras.utils.clear_session(free_memory=False)  # the collection would take longer than the test


@pytest.fixture(scope="session")
def bert_file(bert_keras: Path) -> Path:
    """Transformer, Pooling, Dense, Normalize as a .keras file; do not write to it."""
    return bert_keras / "keras" / "model.keras"


@pytest.fixture(scope="session")
def minilm_file(minilm_keras: Path) -> Path:
    """The real all-MiniLM-L6-v2 as a .keras file; do not write to it."""
    return minilm_keras / "keras" / "model.keras"


@pytest.fixture(scope="session")
def example() -> Any:
    """examples/finetune_keras.py as a module."""
    with importable(ROOT / "examples", "finetune_keras"):
        return importlib.import_module("finetune_keras")


@functools.cache
def converted_once(name: str) -> tuple[SentenceTransformer, keras.Model]:
    """A row's model and its conversion, without the proof, which other tests are about."""
    original = TRAINED[name].build()
    plan = plan_model(original, "model", "keras", default_registry())
    plan.check()
    return original, build_model(plan.routes[0], original, ["sentence_embedding"])


def converted(name: str) -> tuple[SentenceTransformer, keras.Model]:
    """Copies of a row's two models, in evaluation mode and without dropout."""
    original, model = converted_once(name)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return without_dropout(copy.deepcopy(original).eval()), without_dropout(clone)


def without_dropout(model: Any) -> Any:
    """A Keras or PyTorch model whose dropouts pass everything."""
    parts = model.modules() if isinstance(model, torch.nn.Module) else model._flatten_layers()
    for part in parts:
        if isinstance(part, keras.layers.Dropout):
            part.rate = 0.0
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model


def feeds_of(model: keras.Model, features: Mapping[str, Any]) -> Feeds:
    return {tensor.name: np.asarray(features[tensor.name]).astype("int32") for tensor in model.inputs}


def tokenized(file: Path, texts: list[str] = TEXTS) -> Feeds:
    return {name: array.astype("int32") for name, array in sbertconv.load(file).tokenize(texts).items()}


def targets(model: keras.Model, rows: int = len(TEXTS)) -> np.ndarray:
    """What to learn: any vectors, the same in every run."""
    return np.random.default_rng(0).normal(size=(rows, model.output.shape[-1])).astype("float32")


def matched(
    model: keras.Model, original: SentenceTransformer, origins: Mapping[str, tuple[int, str]]
) -> Iterator[tuple[Weight, torch.nn.Parameter]]:
    """Every trainable Keras weight with its PyTorch parameter."""
    count = 0
    for layer, (place, prefix) in origins.items():
        module: Any = original[place]
        module = module.model if isinstance(module, cases.st.Transformer) else module
        parameters = dict(module.named_parameters(remove_duplicate=False))
        for weight in weights(model.get_layer(layer), prefix):
            if weight.variable.trainable:
                count += 1
                yield weight, parameters[weight.name]
    assert count == len(model.trainable_variables)


def in_torch_layout(weight: Weight, value: Any) -> np.ndarray:
    array = keras.ops.convert_to_numpy(tf.convert_to_tensor(value))
    return array.T if weight.attribute == "kernel" else array


def norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array))


def check_gradients(model: keras.Model, original: SentenceTransformer, origins: Mapping[str, tuple[int, str]]) -> None:
    """The gradients of one loss on one padded batch."""
    features = original.preprocess(TEXTS)
    embeddings = original(dict(features))["sentence_embedding"]
    wanted = targets(model)
    (embeddings * torch.from_numpy(wanted)).sum().backward()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(feeds_of(model, features), training=True) * wanted)
    pairs = list(matched(model, original, origins))
    gradients = tape.gradient(loss, [weight.variable.value for weight, _ in pairs])
    largest = max(norm(parameter.grad.numpy()) for _, parameter in pairs if parameter.grad is not None)
    assert largest > 0
    for (weight, parameter), gradient in zip(pairs, gradients, strict=True):
        theirs = parameter.grad.numpy()
        difference = norm(in_torch_layout(weight, gradient) - theirs)
        allowed = TOLERANCE["gradient"] * norm(theirs) + TOLERANCE["gradient noise"] * largest
        assert difference <= allowed, weight.name
    known = {id(parameter) for _, parameter in pairs}
    for name, parameter in original.named_parameters():
        if id(parameter) not in known:
            assert parameter.grad is None or not parameter.grad.any(), f"{name} trains in PyTorch alone"


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_equal_pytorch(name: str) -> None:
    original, model = converted(name)
    check_gradients(model, original, TRAINED[name].origins)


def test_gradients_of_the_real_model_equal_pytorch(minilm_folder: Path, minilm_file: Path) -> None:
    original = without_dropout(SentenceTransformer(str(minilm_folder), device="cpu").eval())
    check_gradients(without_dropout(load_keras_model(minilm_file)), original, {"transformer": (0, "")})


@pytest.mark.parametrize("name", ["roberta", "qwen3", "lstm", "dense tanh"])
def test_ten_steps_end_where_pytorch_ends(name: str) -> None:
    original, model = converted(name)
    features, wanted = original.preprocess(TEXTS), targets(model)
    feeds = feeds_of(model, features)
    before = original(dict(features))["sentence_embedding"].detach().numpy()
    model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
    optimizer = torch.optim.SGD(original.parameters(), lr=0.1)
    for _ in range(10):
        model.train_on_batch(feeds, wanted)
        optimizer.zero_grad()
        found = original(dict(features))["sentence_embedding"]
        torch.nn.functional.mse_loss(found, torch.from_numpy(wanted)).backward()
        optimizer.step()
    assert np.abs(found.detach().numpy() - before).max() > 0.01  # it has learnt something
    for weight, parameter in matched(model, original, TRAINED[name].origins):
        limit = TOLERANCE["ten steps"]
        np.testing.assert_allclose(weight.read(), parameter.detach(), rtol=limit, atol=limit, err_msg=weight.name)


def test_dropout_acts_in_fit_and_not_in_predict(bert_file: Path) -> None:
    model, feeds = load_keras_model(bert_file), tokenized(bert_file)
    model.compile(keras.optimizers.SGD(0.0), loss="mse", jit_compile=False)  # learns nothing: only dropout differs
    first, second = model.fit(feeds, targets(model), epochs=2, verbose=0).history["loss"]
    assert first != second
    predicted = model.predict(feeds, verbose=0)
    assert np.array_equal(predicted, model.predict(feeds, verbose=0))
    np.testing.assert_allclose(predicted, sbertconv.load(bert_file).encode(TEXTS), atol=TOLERANCE["same run"])


def test_frozen_layers_stay_and_stay_frozen(bert_file: Path, tmp_path: Path) -> None:
    model, feeds = load_keras_model(bert_file), tokenized(bert_file)
    transformer = model.get_layer("transformer")
    frozen = [path for path in transformer.sublayers if path.startswith("embeddings.")]
    for path in frozen:
        transformer.at(path).trainable = False
    for attempt in ("now", "after loading"):
        transformer = model.get_layer("transformer")
        before = {path: transformer.at(path).get_weights() for path in [*frozen, QUERY]}
        model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
        model.fit(feeds, targets(model), verbose=0)
        after = {path: transformer.at(path).get_weights() for path in before}
        for path in frozen:
            assert all(map(np.array_equal, before[path], after[path])), (attempt, path)
        assert not np.array_equal(before[QUERY][0], after[QUERY][0])
        model.save(tmp_path / "model.keras")
        model = load_keras_model(tmp_path / "model.keras")


def test_lora_leaves_the_rest_is_saved_and_merges(bert_file: Path, tmp_path: Path) -> None:
    model, feeds = load_keras_model(bert_file), tokenized(bert_file)
    transformer = model.get_layer("transformer")
    for layer in model.layers:
        layer.trainable = layer is transformer
    for path, layer in transformer.sublayers.items():
        layer.trainable = path == QUERY
    dense = transformer.at(QUERY)
    dense.enable_lora(rank=4)
    assert {variable.name for variable in model.trainable_variables} == LORA
    others = [variable for variable in model.non_trainable_variables if "seed" not in variable.path]
    kept = [np.array(variable) for variable in others]
    model.compile(keras.optimizers.SGD(1.0), loss="mse", run_eagerly=True)
    model.fit(feeds, targets(model), epochs=3, verbose=0)
    assert all(map(np.array_equal, kept, others))
    tuned = model.predict(feeds, verbose=0)
    assert np.abs(tuned - sbertconv.load(bert_file).encode(TEXTS)).max() > 1e-4

    model.save(tmp_path / "model.keras")
    loaded = load_keras_model(tmp_path / "model.keras")
    assert {variable.name for variable in loaded.trainable_variables} == LORA
    np.testing.assert_allclose(loaded.predict(feeds, verbose=0), tuned, atol=TOLERANCE["same run"])

    sbertconv.to_st(tmp_path / "model.keras", tmp_path / "st")
    merged = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    np.testing.assert_allclose(merged.encode(TEXTS), tuned, atol=TOLERANCE["merged"])


def smallest_cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).min())


def test_int8_stays_close_and_does_not_go_back(bert_file: Path, tmp_path: Path) -> None:
    model, feeds = load_keras_model(bert_file), tokenized(bert_file)
    exact = model.predict(feeds, verbose=0)
    model.get_layer("transformer").at(QUERY).quantize("int8")
    model.save(tmp_path / "model.keras")
    loaded = load_keras_model(tmp_path / "model.keras")
    assert loaded.get_layer("transformer").at(QUERY).kernel.dtype == "int8"
    assert smallest_cosine(loaded.predict(feeds, verbose=0), exact) > TOLERANCE["int8 cosine"]
    with pytest.raises(ArtifactError, match=r"query is quantized \(int8\).*\nConvert back before quantizing"):
        sbertconv.to_st(tmp_path / "model.keras", tmp_path / "st")
    assert not (tmp_path / "st").exists()


@pytest.mark.parametrize("name", ["bert", "mpnet", "qwen3", "gemma3_text"])  # whose masks hold float32's lowest value
def test_half_precision_computes_and_trains(name: str) -> None:
    for policy in ("mixed_bfloat16", "mixed_float16"):
        original, model = converted(name)
        feeds = feeds_of(model, original.preprocess(TEXTS))
        exact = keras.ops.convert_to_numpy(model(feeds))
        sbertconv.layers.set_dtype_policy(model, policy)
        tokens = model.get_layer("transformer")(feeds)["token_embeddings"]
        assert keras.backend.standardize_dtype(tokens.dtype) == policy.removeprefix("mixed_")
        found = keras.ops.convert_to_numpy(model(feeds))
        assert found.dtype == np.float32
        assert smallest_cosine(found, exact) > TOLERANCE["half cosine"]
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=TOLERANCE["same run"])
        model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
        losses = model.fit(feeds, targets(model), epochs=3, verbose=0).history["loss"]
        assert losses[-1] < losses[0]
        assert all(np.isfinite(variable).all() for variable in model.trainable_variables)


def test_policy_is_saved_and_can_be_taken_back(bert_file: Path, tmp_path: Path) -> None:
    model, feeds = load_keras_model(bert_file), tokenized(bert_file)
    exact = model.predict(feeds, verbose=0)
    sbertconv.layers.set_dtype_policy(model, "mixed_bfloat16")
    half = model.predict(feeds, verbose=0)
    assert not np.array_equal(half, exact)
    model.save(tmp_path / "model.keras")
    loaded = load_keras_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(feeds, verbose=0), half, atol=TOLERANCE["same run"])
    sbertconv.layers.set_dtype_policy(loaded, "float32")
    np.testing.assert_allclose(loaded.predict(feeds, verbose=0), exact, atol=TOLERANCE["same run"])


@pytest.mark.parametrize("back", ["to_st", "to_onnx"])
def test_a_model_of_half_precision_goes_back_as_float32(back: str, bert_file: Path, tmp_path: Path) -> None:
    model, feeds = load_keras_model(bert_file), tokenized(bert_file)
    exact = model.predict(feeds, verbose=0)
    sbertconv.layers.set_dtype_policy(model, "mixed_bfloat16")
    model.save(tmp_path / "model.keras")
    before = (tmp_path / "model.keras").read_bytes()
    getattr(sbertconv, back)(tmp_path / "model.keras", tmp_path / "back")
    loaded = SentenceTransformer(str(tmp_path / "back")) if back == "to_st" else sbertconv.load(tmp_path / "back")
    np.testing.assert_allclose(loaded.encode(TEXTS), exact, atol=TOLERANCE["same run"])
    assert (tmp_path / "model.keras").read_bytes() == before


def test_policy_that_changes_the_weights_is_refused(bert_file: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"'bfloat16' is not supported \(have: float32, mixed_bfloat16"):
        sbertconv.layers.set_dtype_policy(load_keras_model(bert_file), "bfloat16")


def test_conversion_is_float32_whatever_the_users_policy() -> None:
    original = cases.chain(cases.static_embedding(), cases.dense())
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = sbertconv.to_keras(original)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert {model.get_layer(name).compute_dtype for name in ("static_embedding", "dense")} == {"float32"}


def test_xla_gives_the_same_losses(bert_file: Path) -> None:
    losses = []
    for jit_compile in (False, True):
        model, feeds = without_dropout(load_keras_model(bert_file)), tokenized(bert_file)
        model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit_compile)
        losses.append(model.fit(feeds, targets(model), epochs=3, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=TOLERANCE["same run"] * 10)


def test_resumed_training_ends_where_unbroken_training_ends(bert_file: Path, tmp_path: Path) -> None:
    feeds = tokenized(bert_file)
    model = without_dropout(load_keras_model(bert_file))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse", run_eagerly=True)
    wanted = targets(model)
    model.fit(feeds, wanted, epochs=3, verbose=0)
    model.save(tmp_path / "halfway.keras")
    model.fit(feeds, wanted, epochs=3, verbose=0)
    resumed = keras.saving.load_model(tmp_path / "halfway.keras")
    assert resumed.optimizer.iterations == 3
    resumed.fit(feeds, wanted, epochs=3, verbose=0)
    for one, other in zip(model.trainable_variables, resumed.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE["same run"], err_msg=one.path)


@pytest.mark.parametrize(("loss", "steps"), [("mnrl", 6), ("cosine", 24)])
def test_example_learns_what_was_held_out(loss: str, steps: int, example: Any, minilm_file: Path) -> None:
    encoder = load_keras_model(minilm_file)
    task = example.Task(loss, sbertconv.load(minilm_file))
    words = np.array(encoder.get_layer("transformer").at("embeddings.word_embeddings").embeddings)
    before = task.evaluate(encoder)
    task.fit(encoder, steps, verbose=0)
    assert task.evaluate(encoder) > before + 0.01
    assert np.array_equal(words, encoder.get_layer("transformer").at("embeddings.word_embeddings").embeddings)
