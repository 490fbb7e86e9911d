"""A loaded model in other processes and in many threads: it opens itself again and gives the same answers."""

from __future__ import annotations

import copy
import importlib.util
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import TEXTS, run_python

import sbertconv
from sbertconv import ArtifactError
from sbertconv.artifact.kinds import MODEL_CLASSES
from sbertconv.tables.embedding import EmbedTable

WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
if importlib.util.find_spec("cloudpickle"):
    import cloudpickle

    WAYS["cloudpickle"] = lambda model: pickle.loads(cloudpickle.dumps(model))

ENGINES = [("onnx", "onnxruntime"), ("onnx", "openvino")]
NO_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

FORK = """
import os, sys, warnings
import numpy as np
import sbertconv
warnings.simplefilter("ignore")
folder, form, engine, first = sys.argv[1:]
texts = ["one", "the second text is longer", ""]
model = sbertconv.load(folder, format=form, engine=engine)
expected = model.encode(texts) if first == "used" else None
if first not in ("new", "used"):
    sbertconv.load(folder, format=first).encode(texts)
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    import faulthandler
    faulthandler.dump_traceback_later(60, exit=True)
    os.write(writing, model.encode(texts).tobytes())
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
found = np.frombuffer(os.read(reading, 1 << 16), np.float32).reshape(3, -1)
assert np.array_equal(found, model.encode(texts))
assert expected is None or np.array_equal(found, expected)
"""


@pytest.fixture
def bert(bert_artifact: Path) -> sbertconv.Embedder:
    return sbertconv.load(bert_artifact, engine="onnxruntime")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize(("form", "engine"), ENGINES)
def test_a_copy_gives_the_same_answers(way: str, used: bool, form: str, engine: str, bert_artifact: Path) -> None:
    pytest.importorskip(engine)
    model = sbertconv.load(bert_artifact, format=form, engine=engine, parallel=2)
    model.prompts["own"] = "my own: "
    if used:
        model.encode(TEXTS)
    other = WAYS[way](model)
    assert (other.format, other.engine, other.parallel) == (form, engine, 2)
    assert other.prompts == model.prompts
    assert np.array_equal(other.encode(TEXTS, prompt_name="own"), model.encode(TEXTS, prompt_name="own"))


# What each class is asked: a method, its argument and its keywords.
PAIRS = [("a query", text) for text in TEXTS]
QUESTIONS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "SentenceTransformer": ("encode", TEXTS, {}),
    "CrossEncoder": ("predict", PAIRS, {}),
    "TextClassifier": ("logits", PAIRS, {}),
    "SparseEncoder": ("encode", TEXTS, {"task": "document", "convert_to_sparse_tensor": False}),
    "MultiVectorEncoder": ("encode", TEXTS, {"task": "document"}),
}


def asked(model: Any, name: str) -> np.ndarray:
    """The answers of a model of this class, as one row of numbers."""
    method, items, options = QUESTIONS[name]
    found = getattr(model, method)(items, **options)
    return np.concatenate([np.ravel(row) for row in found])


@pytest.fixture(scope="module")
def folders(built_once: Any, bert_artifact: Path) -> dict[str, Path]:
    """A converted folder of every class."""
    import class_cases

    assert set(QUESTIONS) == set(MODEL_CLASSES)
    found = {"SentenceTransformer": bert_artifact}
    for name, row in class_cases.CLASSES.items():
        source = next(iter(row.rows.values()))
        found[name] = built_once(f"travel-{name}", lambda folder, source=source: sbertconv.to_onnx(source(), folder))
    return found


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_class_travels(name: str, folders: dict[str, Path]) -> None:
    """Before its first answer and after it, to a copy and, where there is fork, to a child."""
    new, used = (sbertconv.load(folders[name], engine="onnxruntime") for _ in range(2))
    expected = asked(used, name)
    for way, copied in WAYS.items():
        for model in (new, used):
            assert np.array_equal(asked(copied(model), name), expected), way
    for model in (new, used) if hasattr(os, "fork") else ():
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if np.array_equal(asked(model, name), expected) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


SPAWNED = """
import pickle, sys
import numpy as np
for name, content, (method, items, options), expected in pickle.load(open(sys.argv[1], "rb")):
    found = getattr(pickle.loads(content), method)(items, **options)
    assert np.array_equal(np.concatenate([np.ravel(row) for row in found]), expected), name
assert "torch" not in sys.modules
"""


def test_every_class_travels_to_a_process_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    sent = []
    for name, folder in folders.items():
        model = sbertconv.load(folder, engine="onnxruntime")
        before = pickle.dumps(model)
        expected = asked(model, name)
        sent += [(name, content, QUESTIONS[name], expected) for content in (before, pickle.dumps(model))]
    (tmp_path / "sent.pkl").write_bytes(pickle.dumps(sent))
    ran = run_python(SPAWNED, tmp_path / "sent.pkl")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("name", QUESTIONS)
def test_many_threads_get_the_answers_of_one_from_every_class(name: str, folders: dict[str, Path]) -> None:
    expected = asked(sbertconv.load(folders[name], engine="onnxruntime"), name)
    model = sbertconv.load(folders[name], engine="onnxruntime")  # opened by all of them at once
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: asked(model, name), range(16)))
    assert all(np.array_equal(one, expected) for one in found)


def test_a_keras_file_travels_as_itself(bert_keras: Path, tmp_path: Path) -> None:
    """Its unpacked folder is gone with the process that unpacked it."""
    file = Path(shutil.copy(next(bert_keras.rglob("*.keras")), tmp_path / "own.keras"))
    model = sbertconv.load(file)
    expected = model.encode(TEXTS)
    code = (
        "import pickle, sys, numpy as np\n"
        "model = pickle.load(open(sys.argv[1], 'rb'))\n"
        "np.save(sys.argv[2], model.encode(pickle.load(open(sys.argv[3], 'rb'))))\n"
    )
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    (tmp_path / "texts.pkl").write_bytes(pickle.dumps(TEXTS))
    shutil.rmtree(model.artifact.folder)
    ran = run_python(code, tmp_path / "model.pkl", tmp_path / "found.npy", tmp_path / "texts.pkl")
    assert ran.code == 0, ran.err
    assert np.load(tmp_path / "found.npy") == pytest.approx(expected, abs=1e-6)


def test_a_relative_path_is_the_same_place_in_another_folder(
    static_artifact: Path, bert_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sbertconv.load(static_artifact).encode("text")
    monkeypatch.chdir(static_artifact.parent)
    model = sbertconv.load(static_artifact.name)
    table = EmbedTable(folder=static_artifact.name)
    content = pickle.dumps(model)
    shutil.copytree(bert_artifact, tmp_path / static_artifact.name)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(pickle.loads(content).encode("text"), expected)
    assert np.array_equal(model.encode("text"), expected)
    assert np.array_equal(table(pa.table({"text": ["text"]}))["embedding"].to_pylist(), [expected])


def test_a_folder_that_is_not_there_is_said(static_artifact: Path, copy_of: Any) -> None:
    folder = copy_of(static_artifact)
    model = sbertconv.load(folder)
    model.encode("text")
    content = pickle.dumps(model)
    shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match=rf"(?s){folder}.*cannot be opened again.*no such folder"):
        pickle.loads(content).encode("text")


def test_another_folder_in_its_place_is_said(static_artifact: Path, bert_artifact: Path, copy_of: Any) -> None:
    folder = copy_of(static_artifact)
    content = pickle.dumps(sbertconv.load(folder))
    shutil.rmtree(folder)
    shutil.copytree(bert_artifact, folder)
    with pytest.raises(ArtifactError, match="not the files that the model was loaded from"):
        pickle.loads(content).encode("text")


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_spawned_processes(used: bool, bert: sbertconv.Embedder) -> None:
    expected = bert.encode(TEXTS)
    model = bert if used else sbertconv.load(bert.artifact.folder, engine="onnxruntime")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply_async(model.encode, (TEXTS,)).get(timeout=120)
    assert np.array_equal(found, expected)


@NO_FORK
@pytest.mark.parametrize("first", ["new", "used"])
def test_forked_processes(first: str, bert_artifact: Path) -> None:
    ran = run_python(FORK, bert_artifact, "onnx", "onnxruntime", first)
    assert ran.code == 0, ran.err


@NO_FORK
@pytest.mark.parametrize(
    ("folder", "form", "engine"),
    [("bert_artifact", "onnx", "openvino"), ("bert_keras", "saved_model", "tensorflow")],
)
def test_an_engine_that_cannot_start_again_says_so(folder: str, form: str, engine: str, request: Any) -> None:
    """OpenVINO and TensorFlow would wait for threads that stayed in the parent, the first of them now and then."""
    pytest.importorskip(engine)
    converted = request.getfixturevalue(folder)
    ran = run_python(FORK, converted, form, engine, "new")
    assert ran.code == 0, ran.err
    ran = run_python(FORK, converted, form, engine, "used")
    assert f"{engine} has run before this process was forked" in ran.err
    assert "spawn" in ran.err


@NO_FORK
def test_engines_of_one_library_say_so_too(bert_keras: Path) -> None:
    """Keras runs on the threads of TensorFlow, which a SavedModel has started."""
    pytest.importorskip("tensorflow")
    ran = run_python(FORK, bert_keras, "keras", "keras", "saved_model")
    assert "tensorflow has run before this process was forked" in ran.err


CONVERTING = """
import os, signal, sys, threading
import sbertconv
from sbertconv.memory import settled_heap

model, converted, folder = sys.argv[1:]
verbs = {
    "to_onnx": lambda: sbertconv.to_onnx(model, folder),
    "to_openvino": lambda: sbertconv.to_openvino(model, folder),
    "to_torch": lambda: sbertconv.to_torch(model, folder),
    "to_tf": lambda: sbertconv.to_tf(model, folder, formats=["keras"]),
    "trim": lambda: sbertconv.trim(model, folder, keep=["a"]),
    "shorten": lambda: sbertconv.shorten(model, folder, layers="1"),
    "to_static": lambda: sbertconv.to_static(model, folder),
    "verify": lambda: sbertconv.verify(model, converted),
    "pipeline": lambda: sbertconv.pipeline(model),
}

def converting(held, done):
    with settled_heap():
        held.set()
        done.wait()

sbertconv.pipeline(model)
held, done = threading.Event(), threading.Event()
threading.Thread(target=converting, args=(held, done), daemon=True).start()
held.wait()  # a conversion is at work in a thread of the parent
for name, verb in verbs.items():
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            verb()
        except sbertconv.UnsupportedOptionError as error:
            os._exit(0 if str(error).startswith("torch has run before this process was forked") else 2)
        except sbertconv.MissingDependencyError:
            os._exit(0)
        os._exit(3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, (name, code)
done.set()
"""


@NO_FORK
def test_a_conversion_in_a_child_of_one_that_converted_says_so(
    bert_folder: Path, bert_artifact: Path, tmp_path: Path
) -> None:
    """PyTorch would wait for threads that stayed in the parent, and the child for the parent's own conversion."""
    ran = run_python(CONVERTING, bert_folder, bert_artifact, tmp_path / "new")
    assert ran.code == 0, ran.err
    assert list(tmp_path.iterdir()) == []


@NO_FORK
def test_a_session_is_never_run_in_a_child(bert: sbertconv.Embedder) -> None:
    """The child opens its own, whatever the parent's threads hold at that moment."""
    bert.encode(TEXTS)
    graph = bert.graphs[0]
    session = graph.opened
    with graph._lock:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if graph.opened is not session and graph.tokenizer is not None else 2
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert graph.opened is session


@pytest.mark.parametrize(("form", "engine"), [*ENGINES, ("litert", "litert")])
def test_many_threads_give_the_answers_of_one(form: str, engine: str, bert_artifact: Path, request: Any) -> None:
    pytest.importorskip("tensorflow" if engine == "litert" else engine)
    folder = request.getfixturevalue("bert_keras") if engine == "litert" else bert_artifact
    texts = [f"{text} {number}" for number in range(8) for text in TEXTS]
    expected = [sbertconv.load(folder, format=form, engine=engine).encode(text) for text in texts[:12]]
    model = sbertconv.load(folder, format=form, engine=engine)  # opened by all of them at once
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(model.encode, texts[:12] * 4))
    for vector, due in zip(found, expected * 4, strict=True):
        assert vector == pytest.approx(due, abs=1e-6)


def test_threads_with_different_limits_cut_as_one_does(bert: sbertconv.Embedder) -> None:
    """A limit is a state of the tokenizer, which all threads share."""
    tokenizer = bert.graphs[0].tokenizer
    text = "one two three four five six seven eight nine ten " * 20
    limits = [3, 5, 9, 17, None]
    due = {limit: tokenizer.ids([text], limit) for limit in limits}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda limit: (limit, tokenizer.ids([text], limit)), limits * 60))
    assert all(ids == due[limit] for limit, ids in found)
