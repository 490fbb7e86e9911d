"""The parity table's Keras column: every row passes its own conversion's check, and every way of running agrees.

The check reloads the .keras file (through tf.function); here the same file also runs eagerly. The main rows, which have
every kind of layer, are checked as a SavedModel too, and run under XLA, on Keras' other backends, and as a SavedModel
in a process that has TensorFlow alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES
from conftest import run_python

import sbertconv
from sbertconv.artifact.folder import Artifact, read_artifact
from sbertconv.corpus.texts import inputs_of
from sbertconv.runtime.engines import load_keras_model, narrow

KERAS_CASES = {name: case for name, case in CASES.items() if not case.options}  # options are those of ONNX graphs
TEXTS = ["A text of several words, and of a few more.", "short", "one, two, three and four"]
ATOL = RTOL = 1e-5  # the conversion's own rule: float32 sums in another order
SHARED = ("graphs", "dimension", "inputs")  # what a case expects of every backend
BACKENDS = ("jax", "torch")
MAIN = ("bert", "mpnet", "deberta-v2", "modernbert", "t5", "qwen3", "gemma3_text", "weighted layers", "lstm")
FORMATS = {name: ["keras", "saved_model"] if name in MAIN else ["keras"] for name in KERAS_CASES}


@pytest.fixture(autouse=True)
def forget_graphs() -> Iterator[None]:
    """Functions compiled for one model are of no use to the next."""
    yield
    import keras

    keras.utils.clear_session(free_memory=False)  # the collection would take longer than the test


def batch(embedder: sbertconv.Embedder, graph: Any) -> dict[str, np.ndarray]:
    """A padded batch for a graph."""
    if graph.section["modality"] != "text":
        tensors = graph.prepared(inputs_of(graph.section))[-1][1]
    else:
        tensors = embedder.tokenize(TEXTS, next(iter(graph.section["tasks"]), None))
    return {name: narrow(tensors[name]) for name in graph.inputs}


def eager(model: Any) -> Callable[..., Any]:
    return lambda feeds: model(feeds, training=False)


def xla(model: Any) -> Callable[..., Any]:
    import tensorflow as tf

    return tf.function(lambda feeds: model(feeds, training=False), jit_compile=True)


@pytest.fixture(scope="session")
def converted(built_once: Any) -> Callable[[str], Artifact]:
    """`converted(name)`: that case's artifact, written once for all tests; do not write to it."""

    def convert(name: str) -> Artifact:
        label = f"keras-{list(KERAS_CASES).index(name)}"
        build = KERAS_CASES[name].build
        return read_artifact(built_once(label, lambda folder: sbertconv.to_tf(build(), folder, formats=FORMATS[name])))

    return convert


USUAL_CHECKS = {"text": ("each text alone", "padded batch"), "image": ("images",), "audio": ("sounds",)}


@pytest.mark.parametrize("name", KERAS_CASES)
def test_case_converts_and_equals_encode(name: str, converted: Callable[[str], Artifact]) -> None:
    case, artifact = KERAS_CASES[name], converted(name)
    report = artifact.manifest["parity"]
    assert report["passed"]
    checked = {check["name"] for check in report["checks"]}
    for form in FORMATS[name]:
        label = form if len(FORMATS[name]) > 1 else ""
        for wanted in (*USUAL_CHECKS[artifact.manifest["graphs"][0]["modality"]], *case.checks):
            assert any(check.startswith(label) and check.endswith(wanted) for check in checked), (form, wanted)
    found = {
        "graphs": [graph["name"] for graph in artifact.manifest["graphs"]],
        "dimension": artifact.manifest["embedding_dimension"],
        "inputs": [tensor["name"] for tensor in artifact.manifest["graphs"][0]["inputs"]],
    }
    assert {k: v for k, v in case.expected.items() if k in SHARED} == {
        k: found[k] for k in case.expected if k in SHARED
    }
    embedder = sbertconv.load(artifact.folder)
    for graph in embedder.graphs:
        feeds = batch(embedder, graph)
        expected = graph.run(feeds)["sentence_embedding"]
        model = load_keras_model(artifact.path(graph.section["formats"]["keras"]))
        for mode in (eager, xla) if name in MAIN else (eager,):
            result = np.asarray(mode(model)(feeds))
            np.testing.assert_allclose(result, expected, ATOL, RTOL, err_msg=f"{mode.__name__} {graph.section['name']}")


@pytest.fixture(scope="session")
def main_models(built_once: Any, converted: Callable[[str], Artifact]) -> Path:
    """The main cases converted, each with a padded batch and what it gives."""

    def build(folder: Path) -> None:
        folder.mkdir()
        for index, name in enumerate(MAIN):
            shutil.copytree(converted(name).folder, folder / str(index))
            embedder = sbertconv.load(folder / str(index))
            feeds = batch(embedder, embedder.graphs[0])
            result = embedder.graphs[0].run(feeds)["sentence_embedding"]
            np.savez(folder / str(index) / "batch.npz", expected=result, **feeds)

    return Path(built_once("main-keras-models", build))


# Prints the largest difference beyond the rule for each model, and what was imported.
ON_BACKEND = """
import json, sys
from pathlib import Path
import numpy as np
import keras
import sbertconv.layers
found = {}
for folder in sorted(Path(sys.argv[1]).iterdir(), key=lambda path: int(path.name)):
    batch = dict(np.load(folder / "batch.npz"))
    expected = batch.pop("expected")
    model = keras.saving.load_model(folder / "keras/model.keras", compile=False)
    result = model.predict_on_batch(batch)
    found[folder.name] = float((np.abs(result - expected) - 1e-5 * np.abs(expected)).max())
print(json.dumps([found, keras.backend.backend(), sorted({name.partition(".")[0] for name in sys.modules})]))
"""

WITHOUT_KERAS = """
import json, sys
from pathlib import Path
for name in ("torch", "keras", "transformers", "sentence_transformers", "sbertconv"):
    sys.modules[name] = None
import numpy as np
import tensorflow as tf
found = {}
for folder in sorted(Path(sys.argv[1]).iterdir(), key=lambda path: int(path.name)):
    batch = dict(np.load(folder / "batch.npz"))
    expected = batch.pop("expected")
    serve = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    result = serve(**{name: tf.constant(value) for name, value in batch.items()})["sentence_embedding"].numpy()
    found[folder.name] = float((np.abs(result - expected) - 1e-5 * np.abs(expected)).max())
print(json.dumps([found, "tensorflow", []]))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_file_runs_on_other_backends(backend: str, main_models: Path) -> None:
    pytest.importorskip(backend)
    ran = run_python(ON_BACKEND, main_models, env={"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"})
    assert ran.code == 0, ran.err[-2000:]
    found, used, imported = json.loads(ran.out.splitlines()[-1])
    assert used == backend
    assert not {"transformers", "sentence_transformers"} & set(imported)
    assert backend == "torch" or "torch" not in imported
    assert {MAIN[int(index)]: excess for index, excess in found.items() if excess > ATOL} == {}


def test_a_saved_model_needs_tensorflow_alone(main_models: Path) -> None:
    ran = run_python(WITHOUT_KERAS, main_models, env={"TF_CPP_MIN_LOG_LEVEL": "3"})
    assert ran.code == 0, ran.err[-2000:]
    found, _, _ = json.loads(ran.out.splitlines()[-1])
    assert {MAIN[int(index)]: excess for index, excess in found.items() if excess > ATOL} == {}


# There and back

ROUND_TRIPS = (
    "bert", "albert", "t5", "gpt2", "qwen3_moe", "modernbert", "dense gelu residual", "weighted layers", "layer norm",
    "cnn", "lstm", "word embeddings", "word weights", "bag of words", "static embedding", "router", "clip",
    "lower case",
)  # fmt: skip


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_changed_weights_come_back_to_sentence_transformers(
    name: str, tmp_path: Path, converted: Callable[[str], Artifact]
) -> None:
    """Every weight shrinks in Keras; SentenceTransformer then gives what the Keras model gives."""
    import keras
    from sentence_transformers import SentenceTransformer

    original = KERAS_CASES[name].build()
    artifact = Artifact(Path(shutil.copytree(converted(name).folder, tmp_path / "model")), converted(name).manifest)
    trained = False
    for graph in artifact.manifest["graphs"]:
        path = artifact.path(graph["formats"]["keras"])
        model = load_keras_model(path)
        trained = trained or bool(model.trainable_variables)
        for variable in model.trainable_variables:
            variable.assign(keras.ops.convert_to_numpy(variable) * 0.9)
        model.save(path)
    report = sbertconv.to_st(artifact.folder, tmp_path / "back")
    assert report.passed
    back = SentenceTransformer(str(tmp_path / "back"), device="cpu")
    before, after = original.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    moved = [key for key in before if not np.array_equal(before[key], after[key])]
    assert bool(moved) == trained
    assert (back.prompts, back.truncate_dim) == (original.prompts, original.truncate_dim)
