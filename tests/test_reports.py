"""What people report of converters and of what runs their files: each row is a small reproduction, and what is right.

Rows that have a home of their own are tested there: the limits of every file, consumers, SavedModel and TFSMLayer in
test_consumers.py, links of the Hub's cache in test_hostile.py, processes and pickles in test_travel.py, long texts in
test_lengths.py, rows of padding in test_padding.py, modular heads of rerankers in test_cross_encoder.py, memory that
grows with shapes in test_engine_options.py, what a tokenizer gives to a Keras model, other keys and BatchEncoding, in
test_keras_inputs.py, tensors that an engine should refuse in test_feeds.py.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cases
import class_cases
import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from cases import st
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

import sbertconv
from sbertconv import SbertconvError, UnsupportedOptionError
from sbertconv.corpus.texts import CORPUS
from sbertconv.source.opening import open_source

TEXTS = ["The quick brown fox", "a", "Berlin 2024: crêpes"]


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a table of 64 positions, on both engines."""
    folder = tmp_path_factory.mktemp("gpt2") / "model"
    sbertconv.to_onnx(tiny.architecture("gpt2"), folder, engines=["onnxruntime", "openvino"])
    return folder


def ones(length: int, rows: int = 1, mask: int | None = None) -> dict[str, np.ndarray[Any, Any]]:
    shape = (rows, length)
    return {"input_ids": np.full(shape, 7, np.int64), "attention_mask": np.ones((rows, mask or length), np.int64)}


WRONG_FEEDS = {
    "more tokens than positions": ones(74),
    "a mask shorter than the ids": ones(12, mask=9),
}


@pytest.mark.parametrize("feeds", WRONG_FEEDS.values(), ids=WRONG_FEEDS)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_refuses_tensors_that_the_model_cannot_take(
    engine: str, feeds: dict[str, np.ndarray[Any, Any]], gpt2_folder: Path
) -> None:
    (graph,) = sbertconv.load(gpt2_folder, engine=engine).graphs
    graph.run(ones(12))  # after a good call
    with pytest.raises(SbertconvError):
        graph.run(feeds)
    assert np.isfinite(graph.run(ones(12))["sentence_embedding"]).all()


CLASSES = ("BertTokenizer", "LlamaTokenizer", None)


@pytest.mark.parametrize("name", CLASSES)
def test_a_tokenizer_of_another_class_gives_the_tokens_of_encode(name: str | None, tmp_path: Path) -> None:
    """The library may make a tokenizer of its class and vocabulary and leave tokenizer.json aside."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny.transformer_folder("xlm-roberta"), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key != "tokenizer_class"}
    config |= {"tokenizer_class": name} if name else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        module = st.Transformer(str(folder))
        model = SentenceTransformer(modules=[module, cases.pooling()], device="cpu")
        expected = model.encode(TEXTS)
    except Exception as error:
        pytest.skip(f"the library itself cannot: {type(error).__name__}")
    converted = sbertconv.load(sbertconv.to_onnx(model, tmp_path / "model").folder)
    np.testing.assert_allclose(converted.encode(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_a_tokenizer_that_leaves_its_file_aside_is_said(name: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny.transformer_folder("xlm-roberta"), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": name}), encoding="utf-8")
    source = open_source(folder)
    with source.loaded() as model:
        file = Tokenizer.from_file(str(folder / "tokenizer.json"))
        file.no_padding()
        file.no_truncation()
        same = all(file.encode(text).ids == model.tokenizer(text)["input_ids"] for text in CORPUS)
    said = [note for note in source.heard if "gives other tokens than encode() uses" in note]
    assert bool(said) is not same


def test_token_types_are_taken_and_ignored_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = sbertconv.to_onnx(tiny.architecture("distilbert"), tmp_path / "model", token_type_ids=True).folder
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["input_ids", "token_type_ids", "attention_mask"]
    feeds = {**ones(9, rows=2), "token_type_ids": np.zeros((2, 9), np.int64)}
    (one,) = session.run(None, feeds)
    (other,) = session.run(None, {**feeds, "token_type_ids": np.ones((2, 9), np.int64)})
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("normalized", [True, False])
def test_a_vector_cut_by_its_config_is_as_long_as_the_library_leaves_it(normalized: bool, tmp_path: Path) -> None:
    modules = [cases.static_embedding(), *([st.Normalize()] if normalized else [])]
    model = cases.chain(*modules, truncate_dim=12, similarity_fn_name="dot")
    embedder = sbertconv.load(sbertconv.to_onnx(model, tmp_path / "model").folder)
    for options in (
        {},
        {"truncate_dim": 5},
        {"normalize_embeddings": True},
        {"truncate_dim": 5, "normalize_embeddings": True},
    ):
        found, expected = embedder.encode(TEXTS, **options), model.encode(TEXTS, **options)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(embedder.similarity(found, found), model.similarity(expected, expected), atol=1e-5)


@pytest.mark.parametrize(
    ("convert", "more"),
    [
        (sbertconv.to_onnx, {}),
        (sbertconv.to_onnx, {"precision": "int8"}),
        (sbertconv.to_openvino, {}),
        (sbertconv.to_torch, {}),
        (sbertconv.to_tf, {"formats": ["keras", "saved_model"]}),
    ],
)
def test_a_graph_cuts_and_normalizes_where_it_is_asked_to(
    convert: Any, more: Mapping[str, Any], tmp_path: Path
) -> None:
    model = cases.chain(cases.static_embedding(), st.Normalize())
    artifact = convert(model, tmp_path / "model", truncate_dim=12, normalize=True, **more)
    folder = artifact.folder
    assert model.truncate_dim is None
    assert not hasattr(model, "normalize_embeddings")
    embedder = sbertconv.load(folder, format=artifact.formats[0])
    found = embedder.graphs[0].run(embedder.tokenize(TEXTS))["sentence_embedding"]
    expected = model.encode(TEXTS, truncate_dim=12, normalize_embeddings=True)
    bound = 0.05 if more.get("precision") else 1e-6
    np.testing.assert_allclose(found, expected, atol=bound)
    np.testing.assert_allclose(embedder.encode(TEXTS), expected, atol=bound)
    assert embedder.get_embedding_dimension() == 12
    assert sbertconv.verify(model, folder).passed


def test_a_normalized_keras_model_comes_back(tmp_path: Path) -> None:
    model = cases.chain(cases.static_embedding())
    folder = sbertconv.to_tf(model, tmp_path / "keras", formats=["keras"], truncate_dim=12, normalize=True).folder
    assert sbertconv.to_st(folder, tmp_path / "back").passed
    back = SentenceTransformer(str(tmp_path / "back"))
    expected = model.encode(TEXTS, truncate_dim=12, normalize_embeddings=True)
    np.testing.assert_allclose(back.encode(TEXTS, normalize_embeddings=True), expected, atol=1e-6)


@pytest.mark.parametrize("options", [{"truncate_dim": 4}, {"normalize": True}])
def test_only_dense_vectors_are_cut_or_normalized(options: Mapping[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=next(iter(options))):
        sbertconv.to_onnx(class_cases.inference_free(), tmp_path / "model", **options)


def test_a_chain_of_denses_is_the_whole_answer_of_its_graph(tmp_path: Path) -> None:
    """Who pools token vectors by himself has no token vectors to pool."""
    model = cases.bert(cases.pooling(), cases.dense(16), cases.dense(8, in_features=16), st.Normalize())
    artifact = sbertconv.to_onnx(model, tmp_path / "model")
    session = onnxruntime.InferenceSession(artifact.folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape[1:]) for value in session.get_outputs()] == [("sentence_embedding", [8])]
    np.testing.assert_allclose(sbertconv.load(artifact.folder).encode(TEXTS), model.encode(TEXTS), atol=1e-5)


def test_every_length_and_one_long_among_short_ones_keep_the_vectors(bert_artifact: Path) -> None:
    embedder = sbertconv.load(bert_artifact)
    texts = [" ".join(["fox"] * count) for count in (*range(1, 40), 1, 2, 3)]
    together = embedder.encode(texts)
    np.testing.assert_allclose(together, np.stack([embedder.encode(text) for text in texts]), atol=1e-5)


def adapted(weight: torch.Tensor, rank: int = 4) -> torch.nn.Module:
    """What PEFT puts in the place of a linear layer that it adapts: the layer, and two small ones beside it."""
    rows, columns = weight.shape

    class Adapted(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(columns, rows)
            self.down = torch.nn.Linear(columns, rank, bias=False)
            self.up = torch.nn.Linear(rank, rows, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + self.up(self.down(x)) * 2.0

    return Adapted()


def test_adapters_that_are_not_merged_are_fused(tmp_path: Path) -> None:
    model = tiny.architecture("bert")
    torch.manual_seed(2)
    for layer in model[0].model.encoder.layer:
        for name in ("query", "value"):
            setattr(layer.attention.self, name, adapted(getattr(layer.attention.self, name).weight))
    artifact = sbertconv.to_onnx(model, tmp_path / "model")
    assert artifact.manifest["optimized"]
    assert artifact.manifest["graphs"][0]["attention"] == {"found": 2, "fused": 2}


def adapter_folder(folder: Path, **changes: Any) -> Path:
    """An adapter alone, as PEFT saves it, and the tokenizer beside it."""
    base = tiny.transformer_folder("bert")
    shutil.copytree(
        base, folder, ignore=lambda _, names: [n for n in names if n in ("config.json", "model.safetensors")]
    )
    content = {"base_model_name_or_path": str(base), "peft_type": "LORA", **changes}
    (folder / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_an_adapter_is_refused_by_name_where_it_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter_folder(tmp_path / "adapter")
    monkeypatch.setattr("sbertconv.source.opening.missing_packages", lambda *names: list(names))
    with pytest.raises(sbertconv.SourceError, match=r"an adapter \(LORA\) for .* needs the package peft"):
        sbertconv.to_onnx(folder, tmp_path / "model")
    folder = adapter_folder(tmp_path / "without", base_model_name_or_path=None)
    with pytest.raises(sbertconv.SourceError, match="no base_model_name_or_path"):
        sbertconv.to_onnx(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_alone_is_converted_with_its_base(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModel

    folder = adapter_folder(tmp_path / "adapter")
    base = AutoModel.from_pretrained(tiny.transformer_folder("bert"))
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(folder)
    artifact = sbertconv.to_onnx(folder, tmp_path / "model")
    assert artifact.manifest["optimized"]
    assert any(note.startswith("An adapter, converted with its base") for note in artifact.manifest["notes"])
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(sbertconv.load(artifact.folder).encode(TEXTS), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_that_the_library_reads_in_part_is_refused(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModel

    folder = adapter_folder(tmp_path / "adapter")
    base = AutoModel.from_pretrained(tiny.transformer_folder("bert"))
    options = {"target_modules": ["query", "value"], "use_dora": True, "init_lora_weights": False}
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, **options))
    model.save_pretrained(folder)
    first, second = (SentenceTransformer(str(folder), device="cpu").encode("a text") for _ in range(2))
    assert np.abs(first - second).max() > 0.01  # where this fails, the library has learnt to read it
    with pytest.raises(sbertconv.SourceError, match=r"makes up anew.*merge_and_unload.*lora_magnitude_vector"):
        sbertconv.to_onnx(folder, tmp_path / "model")
    merged = adapter_folder(tmp_path / "merged")
    (merged / "adapter_config.json").unlink()
    model.merge_and_unload().save_pretrained(merged)
    expected = SentenceTransformer(str(merged), device="cpu").encode(TEXTS)
    artifact = sbertconv.to_onnx(merged, tmp_path / "model")
    np.testing.assert_allclose(sbertconv.load(artifact.folder).encode(TEXTS), expected, atol=1e-5)


def test_heads_that_no_module_reads_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny.transformer_folder("xlm-roberta"), folder)
    for name in ("sparse_linear.pt", "colbert_linear.pt", "other_linear.pt"):
        torch.save({}, folder / name)
    artifact = sbertconv.to_onnx(folder, tmp_path / "model")
    said = [
        "No module reads other_linear.pt: what they are for is not converted.",
        "sparse_linear.pt and colbert_linear.pt beside it: lexical_weights and colbert_vecs are given where outputs= "
        "asks for them.",
    ]
    assert set(said) <= set(artifact.manifest["notes"])
    assert set(said) <= set(sbertconv.inspect(folder)["notes"])


def test_a_folder_names_what_it_was_proven_on(bert_artifact: Path, cli: Any) -> None:
    """Other providers and engines may compute otherwise without an error, and int8 does."""
    manifest = json.loads((bert_artifact / "sbertconv.json").read_text(encoding="utf-8"))
    assert manifest["proven_on"] == {
        "onnxruntime": f"{onnxruntime.__version__} on CPU, {platform.machine()}",
    }
    assert sbertconv.inspect(bert_artifact)["proven_on"] == manifest["proven_on"]
    assert "other engines, versions, devices and providers are unproven" in cli("inspect", bert_artifact).out
