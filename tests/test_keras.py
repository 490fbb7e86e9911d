"""What a user of a Keras artifact relies on: its files, its layers, the ways back, and clear errors."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import tiny
import torch
from conftest import TEXTS, Ran, run_python, snapshot

import sbertconv
from sbertconv import ArtifactError, MissingDependencyError, UnsupportedModuleError, UnsupportedOptionError
from sbertconv.artifact.folder import read_artifact
from sbertconv.runtime.engines import load_keras_model

FILES = {
    "keras": ["keras/model.keras"],
    "saved_model": [
        "saved_model/fingerprint.pb",
        "saved_model/saved_model.pb",
        "saved_model/variables/variables.data-00000-of-00001",
        "saved_model/variables/variables.index",
    ],
    "litert": ["litert/model.tflite"],
    "onnx": ["onnx/model.onnx"],
}
ATOL = 1e-5  # the conversion's own rule
LARGEST_COPY = 1.1  # of the weights: a format that holds them twice would be at 2


def shrink(path: Path) -> Any:
    """What a user's training does, made short: every weight changes and the file is saved again."""
    import keras

    model = load_keras_model(path)
    for variable in model.trainable_variables:
        variable.assign(keras.ops.convert_to_numpy(variable) * 0.9)
    model.save(path)
    return model


# Files


def test_the_default_formats_and_their_files(static_folder: Path, tmp_path: Path) -> None:
    artifact = sbertconv.to_tf(static_folder, tmp_path / "model")
    assert artifact.formats == ("keras", "saved_model")
    models = [name for name in artifact.manifest["files"] if name.split("/")[0] in ("keras", "saved_model", "onnx")]
    assert models == sorted(FILES["keras"] + FILES["saved_model"])


@pytest.mark.parametrize("form", FILES)
def test_every_format_encodes(form: str, bert_folder: Path, bert_keras: Path) -> None:
    from sentence_transformers import SentenceTransformer

    embedder = sbertconv.load(bert_keras, format=form, verify=True)
    assert all((bert_keras / name).is_file() for name in FILES[form])
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode(TEXTS)
    assert np.allclose(embedder.encode(TEXTS), expected, atol=ATOL)
    checks = {check["name"] for check in embedder.artifact.manifest["parity"]["checks"]}
    assert f"{form}: padded batch" in checks


def test_weights_are_written_once_per_format(minilm_keras: Path) -> None:
    artifact = read_artifact(minilm_keras)
    sizes = artifact.manifest["files"]
    model = load_keras_model(artifact.path("keras/model.keras"))
    weights = 4 * model.count_params()
    for form in ("keras", "saved_model"):
        assert sum(sizes[name]["size"] for name in FILES[form]) < LARGEST_COPY * weights, form


def test_the_saved_model_takes_named_int32_tensors(bert_keras: Path) -> None:
    import tensorflow as tf

    serve = tf.saved_model.load(str(bert_keras / "saved_model")).signatures["serving_default"]
    inputs = serve.structured_input_signature[1]
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in inputs.items()} == {
        name: ("int32", [None, None]) for name in cases.BERT_INPUTS
    }
    assert list(serve.structured_outputs) == ["sentence_embedding"]


def test_the_onnx_graph_takes_int64_with_open_sizes(bert_keras: Path) -> None:
    import onnx

    graph = onnx.load(bert_keras / "onnx/model.onnx").graph
    found = {
        value.name: (value.type.tensor_type.elem_type, [dim.dim_param for dim in value.type.tensor_type.shape.dim])
        for value in graph.input
    }
    assert found == {name: (onnx.TensorProto.INT64, ["batch", "sequence"]) for name in cases.BERT_INPUTS}


# Layers


def test_the_model_reads_like_modules_json(bert_keras: Path) -> None:
    import keras

    model = load_keras_model(bert_keras / "keras/model.keras")
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    assert [layer.name for layer in layers] == ["transformer", "pooling", "dense", "normalize", "sentence_embedding"]
    kinds = (keras.layers.Dense, keras.layers.UnitNormalization)
    assert [isinstance(layer, kind) for layer, kind in zip(layers[2:4], kinds, strict=True)] == [True, True]
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert all(layer.name in "\n".join(lines) for layer in layers)


def test_layers_are_stock_ones_under_the_paths_of_pytorch() -> None:
    import keras

    source = tiny.architecture("bert")
    transformer = sbertconv.to_keras(source).get_layer("transformer")
    kinds = {
        torch.nn.Linear: keras.layers.Dense,
        torch.nn.Embedding: keras.layers.Embedding,
        torch.nn.LayerNorm: keras.layers.LayerNormalization,
        torch.nn.Dropout: keras.layers.Dropout,
    }
    found = 0
    for path, module in source[0].model.named_modules():
        if type(module) in kinds and not path.startswith("pooler") and path in transformer.sublayers:
            layer = transformer.at(path)
            assert isinstance(layer, kinds[type(module)]), path
            if isinstance(module, torch.nn.Dropout):
                assert layer.rate == module.p, path
            found += 1
    stock = [module for module in source[0].model.modules() if type(module) in kinds]
    assert found == len(stock) - 1  # all but the pooler's linear, which nothing uses


def test_a_shared_module_is_one_layer() -> None:
    source = tiny.architecture("albert")
    transformer = sbertconv.to_keras(source).get_layer("transformer")
    path = "encoder.albert_layer_groups.0.albert_layers.0.ffn"
    calls = [node for node in transformer.graph["nodes"] if node.get("layer") == path]
    assert len(calls) == source[0].model.config.num_hidden_layers > 1
    assert len({id(layer) for layer in transformer.sublayers.values()}) == len(transformer.sublayers)


def test_an_unknown_path_names_close_ones(bert_keras: Path) -> None:
    transformer = load_keras_model(bert_keras / "keras/model.keras").get_layer("transformer")
    with pytest.raises(KeyError, match=r"encoder\.layer\.0\.attention\.self\.query"):
        transformer.at("encoder.layer.0.attention.query")


def test_the_graph_is_plain_json(bert_keras: Path) -> None:
    with zipfile.ZipFile(bert_keras / "keras/model.keras") as archive:
        config = json.loads(archive.read("config.json"))
    layers = {layer["config"]["name"]: layer["config"] for layer in config["config"]["layers"]}
    graph = layers["transformer"]["graph"]
    assert {"mode", "inputs", "weights", "nodes", "outputs"} == graph.keys()
    assert graph["mode"] == "training"
    assert sum(node.get("op") == "aten.scaled_dot_product_attention.default" for node in graph["nodes"]) == 2


class Fft(torch.nn.Module):
    """An operation that no table has."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        spectrum = torch.fft.hfft(torch.complex(features["sentence_embedding"], features["sentence_embedding"]))
        return {**features, "sentence_embedding": spectrum}


def test_an_operation_without_a_line_stops_the_plan(tmp_path: Path) -> None:
    model = cases.bert(cases.pooling(), Fft())
    with pytest.raises(UnsupportedModuleError) as raised:
        sbertconv.to_tf(model, tmp_path / "out")
    message = str(raised.value)
    for words in ("[2] Fft", "aten.complex.default", "Add a line to sbertconv/layers/aten.py"):
        assert words in message
    assert snapshot(tmp_path) == {}


def test_a_live_model_is_left_as_it_was(tmp_path: Path) -> None:
    source = cases.bert(cases.pooling(), cases.dense())
    before = source.encode(TEXTS)
    model = sbertconv.to_keras(source.train())
    assert all(module.training for module in source.modules())
    assert np.array_equal(source.eval().encode(TEXTS), before)
    assert model.trainable_variables


def test_the_route_of_a_task() -> None:
    routes = [cases.static_embedding()], [cases.static_embedding()]
    source = cases.chain(cases.st.Router.for_query_document(*routes, default_route="document"))
    query, default = sbertconv.to_keras(source, task="query"), sbertconv.to_keras(source)
    assert (query.name, default.name) == ("query", "document")


# There and back


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_changed_model_becomes_an_onnx_graph(what: str, bert_keras: Path, copy_of: Any, tmp_path: Path) -> None:
    folder = copy_of(bert_keras)
    path = folder / "keras/model.keras"
    shrink(path)
    artifact = sbertconv.to_onnx(folder if what == "folder" else path, tmp_path / "onnx")
    assert artifact.manifest["parity"]["method"] == "the keras model's encode"
    expected = sbertconv.load(path).encode(TEXTS)
    assert np.allclose(sbertconv.load(artifact.folder, verify=True).encode(TEXTS), expected, atol=ATOL)
    assert not np.allclose(sbertconv.load(bert_keras, format="onnx").encode(TEXTS), expected, atol=1e-3)
    assert artifact.manifest["prompts"] == sbertconv.load(bert_keras).prompts
    assert (artifact.folder / "tokenizer.json").is_file()


def test_a_keras_file_alone_encodes(bert_keras: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(bert_keras / "keras/model.keras", tmp_path / "tuned.keras"))
    ours, whole = sbertconv.load(alone), sbertconv.load(bert_keras)
    options = {"prompt_name": "query"}
    assert np.array_equal(ours.encode(TEXTS, **options), whole.encode(TEXTS, **options))


def test_the_way_back_on_the_command_line(
    bert_keras: Path, bert_folder: Path, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    from sentence_transformers import SentenceTransformer

    ran = cli("to-st", bert_keras, tmp_path / "back")
    assert ran.code == 0, ran.err
    assert "padded batch" in ran.out
    assert str(tmp_path / "back") in ran.out
    back, original = (SentenceTransformer(str(f), device="cpu") for f in (tmp_path / "back", bert_folder))
    assert np.array_equal(back.encode(TEXTS), original.encode(TEXTS))
    assert back.state_dict().keys() == original.state_dict().keys()
    assert cli("to-st", bert_keras, tmp_path / "back").code == 1
    assert cli("to-st", bert_keras, tmp_path / "back", "--overwrite").code == 0


def other_layer(path: Path) -> None:
    """The Dense is replaced by a larger one."""
    import keras

    model = load_keras_model(path)
    dense = keras.layers.Dense(20, name="dense")(model.get_layer("pooling").output)
    output = model.get_layer("sentence_embedding")
    keras.Model(model.inputs, output(model.get_layer("normalize")(dense))).save(path)


def no_layer(path: Path) -> None:
    """The Dense is taken out."""
    import keras

    model = load_keras_model(path)
    output = model.get_layer("sentence_embedding")
    pooled = model.get_layer("pooling").output
    keras.Model(model.inputs, output(model.get_layer("normalize")(pooled))).save(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_layer, ["dense: linear.weight is [20, 32] instead of [16, 32]", "linear.bias"]),
        (no_layer, ["dense: the layer is missing"]),
    ],
)
def test_a_model_of_another_shape_does_not_go_back(
    change: Callable[[Path], None], words: list[str], bert_keras: Path, copy_of: Any, tmp_path: Path
) -> None:
    path = copy_of(bert_keras) / "keras/model.keras"
    change(path)
    before = snapshot(tmp_path)
    with pytest.raises(ArtifactError) as raised:
        sbertconv.to_st(path, tmp_path / "back")
    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert snapshot(tmp_path) == before


def test_verify_tells_a_changed_file(
    bert_keras: Path, bert_folder: Path, copy_of: Any, cli: Callable[..., Ran]
) -> None:
    assert cli("verify", bert_folder, bert_keras).code == 0
    folder = copy_of(bert_keras)
    shrink(folder / "keras/model.keras")
    ran = cli("verify", bert_folder, folder)
    assert ran.code == 1
    assert "keras/model.keras: its sha256 is not that of the manifest" in ran.err


# Bad input


def plain_keras(tmp_path: Path) -> Path:
    import keras

    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "plain.keras")
    return tmp_path / "plain.keras"


def noise(tmp_path: Path) -> Path:
    (tmp_path / "noise.keras").write_bytes(b"no zip")
    return tmp_path / "noise.keras"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (plain_keras, ["plain.keras: holds no sbertconv.json", "to-tf"]),
        (noise, ["noise.keras: not a readable archive"]),
        (lambda tmp_path: tmp_path / "none.keras", ["none.keras", "Check the path"]),
    ],
)
@pytest.mark.parametrize("command", ["to-st", "to-onnx"])
def test_a_file_that_is_no_converted_model(
    make: Callable[[Path], Path], words: list[str], command: str, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    path = make(tmp_path)
    ran = cli(command, path, tmp_path / "out")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert all(word in ran.err for word in words), ran.err
    assert not (tmp_path / "out").exists()


def test_an_onnx_artifact_does_not_go_back(static_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds onnx and no \.keras file"):
        sbertconv.to_st(static_artifact, tmp_path / "back")


def test_a_folder_written_back_says_what_opens_it(bert_keras: Path, tmp_path: Path) -> None:
    sbertconv.to_st(bert_keras, tmp_path / "back")
    with pytest.raises(ArtifactError, match="Open it with SentenceTransformer"):
        sbertconv.load(tmp_path / "back")


def test_an_artifact_of_another_version(bert_keras: Path, copy_of: Any) -> None:
    folder = copy_of(bert_keras)
    manifest = json.loads((folder / "sbertconv.json").read_text(encoding="utf-8"))
    (folder / "sbertconv.json").write_text(json.dumps(manifest | {"format_version": 99}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="format version 99"):
        sbertconv.to_st(folder, folder.parent / "back")


@pytest.mark.parametrize("formats", [[], ["keras", "keras"], ["tflite"]])
def test_unknown_formats(formats: list[str], static_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"^formats=.*\(have: keras, saved_model, litert, onnx\)"):
        sbertconv.to_tf(static_folder, tmp_path / "out", formats=formats)


def test_a_format_that_was_not_written(static_artifact: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"format 'keras' is not there \(have: onnx\)"):
        sbertconv.load(static_artifact, format="keras")


@pytest.mark.parametrize("package", ["keras", "torch"])
def test_a_missing_package_names_the_extra(
    package: str, static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    with pytest.raises(MissingDependencyError, match=rf'{package}\.\n.*pip install "sbertconv\[tf\]"'):
        sbertconv.to_tf(static_folder, tmp_path / "out")


CONVERT = "import sys; from sbertconv.cli import main; sys.argv[0] = 'sbertconv'; main()"
NO_TENSORFLOW = f"import sys; sys.modules['tensorflow'] = None\n{CONVERT}"


@pytest.mark.parametrize(
    ("code", "env", "options", "words"),
    [
        (CONVERT, {"TF_USE_LEGACY_KERAS": "1"}, [], ["TF_USE_LEGACY_KERAS is set", "Unset it"]),
        (CONVERT, {"KERAS_BACKEND": "jax"}, [], ["saved_model: only TensorFlow", "KERAS_BACKEND is 'jax'"]),
        (CONVERT, {"KERAS_BACKEND": "torch"}, ["--format", "onnx"], ["onnx: only TensorFlow", "'torch'"]),
        (CONVERT, {"KERAS_BACKEND": "acme"}, [], ["acme", "KERAS_BACKEND"]),
        (NO_TENSORFLOW, {}, [], ["tensorflow", 'pip install "sbertconv[tf]"']),
    ],
)
def test_the_wrong_keras_is_said_before_work_starts(
    code: str, env: dict[str, str], options: list[str], words: list[str], static_folder: Path, tmp_path: Path
) -> None:
    ran = run_python(code, "to-tf", static_folder, tmp_path / "out", *options, env=env)
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert all(word in ran.err for word in words), ran.err
    assert snapshot(tmp_path) == {}


def test_a_keras_file_can_be_made_on_another_backend(static_folder: Path, tmp_path: Path) -> None:
    arguments = ("to-tf", static_folder, tmp_path / "out", "--format", "keras")
    ran = run_python(CONVERT, *arguments, env={"KERAS_BACKEND": "torch"})
    assert ran.code == 0, ran.err
    assert sbertconv.load(tmp_path / "out").encode(TEXTS).shape == (len(TEXTS), cases.DIM)
