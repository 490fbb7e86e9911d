"""Folders as other software reads them: each reader's own rule, in Python, on the files that we write."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cases
import class_cases
import numpy as np
import pytest
import tiny
from conftest import importable, snapshot
from sentence_transformers.sentence_transformer import modules as st
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

import sbertconv
from sbertconv.artifact.folder import described
from sbertconv.artifact.publishing import stage
from sbertconv.consumers import ROWS, default_consumers
from sbertconv.converters.writing import write_module_configs
from sbertconv.corpus.texts import CORPUS
from sbertconv.plan.preprocessing import describe_input
from sbertconv.runtime.tokenization import load_tokenizer

LONG = "How many people live in Berlin, said the city, and over the lazy dog " * 12
TEXTS = [*tiny.LINES[:6], "one", "a MASK of <mask> words, [MASK] too", LONG, LONG[7:]]
# What a call or a loading leaves behind, which is no setting of a tokenizer
STRAY = {"max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "is_local", "local_files_only", "backend"}

EMBEDDING = [row for row in ROWS if row.model_class == "SentenceTransformer"]
OTHERWISE = {"chroma", "oracle", "duckdb", "postgresql", "clickhouse"}  # read other folders: test_consumer_rows.py
TOGETHER = [
    row.name for row in EMBEDDING if row.form == "onnx" and row.hidden != "sentence" and row.name not in OTHERWISE
]
Rows = list[list[int]]


def with_settings_of_a_call() -> Any:
    """A tokenizer.json that cuts and pads as its last caller did, the model otherwise: as all-MiniLM-L6-v2 has it."""
    folder = Path(class_cases.folder())
    for file in tiny.transformer_folder("bert", num_hidden_layers=1).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16, pad_to_multiple_of=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    return cases.chain(st.Transformer(str(folder)), cases.pooling())


def with_text_options() -> Any:
    folder = str(tiny.transformer_folder("bert", num_hidden_layers=1))
    module = st.Transformer(folder, processing_kwargs={"text": {"max_length": 20, "truncation": True}})
    return cases.chain(module, cases.pooling())


def without_a_limit() -> Any:
    """The position table alone says where it ends."""
    folder = str(tiny.transformer_folder("bert", num_hidden_layers=1))
    return cases.chain(st.Transformer(folder, processor_kwargs={"model_max_length": 10**30}), cases.pooling())


# What a source is -> the limit that its folder says
MODELS: dict[str, tuple[Callable[[], Any], int | None]] = {
    **{
        name: (lambda name=name: cases.chain(tiny.transformer(name, num_hidden_layers=1), cases.pooling()), 48)
        for name in ("bert", "roberta", "xlm-roberta", "mpnet", "modernbert", "qwen3")
    },
    "t5": (lambda: tiny.architecture("t5"), 48),
    "settings of a call": (with_settings_of_a_call, 48),
    "text options": (with_text_options, 20),
    "no limit": (without_a_limit, None),
    "lower case": (cases.lowercased, 48),
    "lengths by task": (cases.task_lengths, 48),
    "static": (cases.static, None),
    "static, truncated": (lambda: cases.chain(cases.static_embedding(max_length=10)), 10),
    "CrossEncoder": (lambda: class_cases.cross_encoder("roberta", 1), 48),
    "SparseEncoder": (lambda: class_cases.splade("distilbert"), 48),
    "SparseEncoder, static": (lambda: class_cases.SparseEncoder(modules=[class_cases.idf()], device="cpu"), 48),
    "MultiVectorEncoder": (lambda: class_cases.multi_vector_encoder("bert"), 48),
}


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def rows(tokenizer: Tokenizer, texts: Sequence[str]) -> Rows:
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def as_tokenizers(folder: Path, texts: Sequence[str]) -> Rows:
    return rows(Tokenizer.from_file(str(folder / "tokenizer.json")), texts)


def as_fastembed(folder: Path, texts: Sequence[str]) -> Rows:
    """`fastembed.common.preprocessor_utils.load_tokenizer`."""
    config = read(folder, "tokenizer_config.json")
    known = [config[key] for key in ("model_max_length", "max_length") if 0 < (config.get(key) or 0) < 2**63]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(min(known), direction=config.get("truncation_side", "right"))
    special = folder / "special_tokens_map.json"
    for token in json.loads(special.read_text(encoding="utf-8")).values() if special.is_file() else ():
        for each in token if isinstance(token, list) else [token]:
            tokenizer.add_special_tokens([AddedToken(**each) if isinstance(each, dict) else each])
    padding = tokenizer.padding or {}
    tokenizer.enable_padding(
        direction=config.get("padding_side") or padding.get("direction", "right"),
        pad_id=padding["pad_id"],
        pad_token=padding.get("pad_token") or config.get("pad_token"),
        pad_to_multiple_of=padding.get("pad_to_multiple_of"),
    )
    return rows(tokenizer, texts)


def as_inference_server(folder: Path, texts: Sequence[str]) -> Rows:
    """text-embeddings-inference: the limit of sentence_bert_config.json, which it requires; rows without padding."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    direction = (tokenizer.truncation or {}).get("direction", "right")
    tokenizer.enable_truncation(read(folder, "sentence_bert_config.json")["max_seq_length"], direction=direction)
    side = read(folder, "tokenizer_config.json")["padding_side"]
    found, (pad,) = rows(tokenizer, texts), {as_tokenizers(folder, ["", LONG])[0][0 if side == "left" else -1]}
    longest = max(map(len, found))
    return [[pad] * (longest - len(r)) + r if side == "left" else r + [pad] * (longest - len(r)) for r in found]


def as_transformers(folder: Path, texts: Sequence[str]) -> Rows:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    padded = tokenizer(list(texts), padding=tokenizer.pad_token is not None, truncation=True)
    return padded["input_ids"]


def as_transformers_js(folder: Path, texts: Sequence[str]) -> Rows:
    """Its cut falls on the special tokens too: equal up to the limit."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    return [ids[: read(folder, "tokenizer_config.json")["model_max_length"]] for ids in rows(tokenizer, texts)]


READERS = {
    "tokenizers": as_tokenizers,
    "fastembed": as_fastembed,
    "text-embeddings-inference": as_inference_server,
    "transformers": as_transformers,
}


def written(model: Any, target: Path) -> tuple[Path, Any]:
    """The files beside the graph, and the run time's own tokenizer over them."""
    described = describe_input(next(iter(model.children())))
    with stage(target) as staging:
        for name, text in described.files.items():
            staging.write(name, text)
        write_module_configs(model, staging)
        staging.publish()
    return target, load_tokenizer(described.section, target)


@pytest.mark.parametrize("name", MODELS)
def test_every_reader_cuts_and_pads_as_the_model(name: str, tmp_path: Path) -> None:
    build, length = MODELS[name]
    folder, tokenizer = written(build(), tmp_path / "model")
    expected = tokenizer(TEXTS)["input_ids"]
    assert tokenizer.section["max_length"] == length
    config = read(folder, "tokenizer_config.json")
    assert not STRAY & config.keys()
    assert config["padding_side"] == tokenizer.section["padding_side"]
    assert config["truncation_side"] == tokenizer.section["truncation_side"]
    assert config["model_max_length"] == (length or int(1e30))
    within = [text for text in TEXTS if len(tokenizer([text])["input_ids"][0]) < (length or len(LONG))]
    np.testing.assert_array_equal(as_transformers_js(folder, within), tokenizer(within)["input_ids"])
    readers = dict(READERS)
    if length is None:
        readers.pop("fastembed")  # refuses a model without a limit, aloud
        readers.pop("text-embeddings-inference")  # has another one to go by, below
    if not (folder / "sentence_bert_config.json").is_file():
        readers.pop("text-embeddings-inference", None)
    for reader, ids in readers.items():
        found = ids(folder, TEXTS)
        if reader == "transformers" and len({len(row) for row in found}) > 1:  # without a token for padding
            found = [row + expected[i, len(row) :].tolist() for i, row in enumerate(found)]
        np.testing.assert_array_equal(found, expected, err_msg=reader)


@pytest.mark.parametrize("name", [name for name in MODELS if "static" not in name])
def test_a_transformer_says_its_limit_to_old_readers(name: str, tmp_path: Path) -> None:
    build, length = MODELS[name]
    model = build()
    folder, _ = written(model, tmp_path / "model")
    settings, config = read(folder, "sentence_bert_config.json"), read(folder, "config.json")
    table = config.get("max_position_embeddings")
    assert settings["max_seq_length"] == (length or table)
    assert table is None or settings["max_seq_length"] <= table
    assert settings["do_lower_case"] is bool(model[0].do_lower_case)


def test_a_limit_that_is_no_cut_of_the_tokenizer_is_not_said(tmp_path: Path) -> None:
    """WordEmbeddings cut after the special tokens, which no reader does: one that needs a limit stops."""
    embeddings = cases.word_embeddings(tiny.tokenizer("wordpiece"), max_seq_length=24)
    folder, _ = written(cases.chain(embeddings, cases.pooling()), tmp_path / "model")
    assert read(folder, "tokenizer_config.json")["model_max_length"] == int(1e30)
    assert read(folder, "tokenizer.json")["truncation"] is None


def test_the_real_model_says_one_limit(minilm_folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder, _ = written(SentenceTransformer(str(minilm_folder), device="cpu"), tmp_path / "model")
    assert not STRAY & read(folder, "tokenizer_config.json").keys()
    assert read(folder, "tokenizer_config.json")["model_max_length"] == 256
    assert read(folder, "tokenizer.json")["truncation"]["max_length"] == 256
    assert read(folder, "sentence_bert_config.json")["max_seq_length"] == 256
    assert [len(row) for row in as_fastembed(folder, [LONG * 3])] == [256]


def feeds_of(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The texts as tensors of int64, and the folder's own answer."""
    model = sbertconv.load(folder)
    return load_tokenizer(model.artifact.manifest["graphs"][0]["tokenizer"], folder)(TEXTS), model.encode(
        TEXTS, batch_size=len(TEXTS)
    )


def test_a_saved_model_takes_the_integers_of_tokenizers(bert_keras: Path) -> None:
    import tensorflow as tf

    feeds, expected = feeds_of(bert_keras)
    loaded = tf.saved_model.load(str(bert_keras / "saved_model"))
    wide = {name: tf.constant(tensor) for name, tensor in feeds.items()}
    narrow = {name: tf.cast(tensor, "int32") for name, tensor in wide.items()}
    assert {tensor.dtype for tensor in wide.values()} == {tf.int64}
    for found in (
        loaded.signatures["serving_default"](**narrow),
        loaded.signatures["serving_int64"](**wide),
        loaded.serve(narrow),
        loaded.serve(wide),
    ):
        np.testing.assert_allclose(found["sentence_embedding"], expected, atol=1e-5)


def test_a_saved_model_is_a_layer_of_keras(bert_keras: Path) -> None:
    import keras

    feeds, expected = feeds_of(bert_keras)
    layer = keras.layers.TFSMLayer(str(bert_keras / "saved_model"))
    np.testing.assert_allclose(layer(feeds)["sentence_embedding"], expected, atol=1e-5)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in feeds}
    model = keras.Model(inputs, layer(inputs)["sentence_embedding"])
    narrow = {name: tensor.astype("int32") for name, tensor in feeds.items()}
    np.testing.assert_allclose(model.predict(narrow, verbose=0), expected, atol=1e-5)


@pytest.fixture(scope="module")
def pooled_artifact(built_once: Any) -> Path:
    """Transformer, Pooling, Normalize: what consumers that pool themselves can be right for; do not write to it."""
    outputs = ["sentence_embedding", "token_embeddings"]
    return Path(
        built_once("pooled-onnx", lambda where: sbertconv.to_onnx(tiny.architecture("bert"), where, outputs=outputs))
    )


def test_a_folder_is_packed_for_every_consumer(pooled_artifact: Path, tmp_path: Path, cli: Any) -> None:
    names = [argument for name in TOGETHER for argument in ("--for", name)]
    ran = cli("pack", pooled_artifact, tmp_path / "packed", *names)
    assert ran.code == 0, ran.err
    manifest = read(tmp_path / "packed", "sbertconv.json")
    assert list(manifest["consumers"]) == TOGETHER
    for name, proof in manifest["consumers"].items():
        assert proof["max_abs_diff"] < 1e-5, name
        assert f"{name}: {proof['texts']} texts" in ran.out
    assert manifest["consumers"]["fastembed"]["texts"] == len(CORPUS) + 5
    assert not manifest["consumers"]["langchain4j"]["over_limit"]
    expected = sbertconv.load(pooled_artifact).encode(TEXTS)
    np.testing.assert_array_equal(sbertconv.load(tmp_path / "packed").encode(TEXTS), expected)
    config = next((tmp_path / "packed/model_repository").glob("*/config.pbtxt")).read_text(encoding="utf-8")
    assert "data_type: TYPE_INT64 dims: [ -1 ]" in config
    assert 'name: "sentence_embedding" data_type: TYPE_FP32 dims: [ 32 ]' in config


def test_packing_leaves_the_folder_as_it_was(pooled_artifact: Path, tmp_path: Path) -> None:
    before = snapshot(pooled_artifact)
    sbertconv.pack(pooled_artifact, tmp_path / "packed", TOGETHER)
    assert snapshot(pooled_artifact) == before


@pytest.mark.parametrize("name", [row.name for row in EMBEDDING if row.hidden == "sentence"])
def test_a_consumer_that_can_only_pool_is_right_for_a_model_with_dense(
    name: str, bert_artifact: Path, tmp_path: Path
) -> None:
    packed = sbertconv.pack(bert_artifact, tmp_path / "packed", [name, "opensearch", "triton"])
    assert packed.manifest["consumers"][name]["max_abs_diff"] < 1e-5
    expected = sbertconv.load(bert_artifact).encode(TEXTS)
    np.testing.assert_array_equal(sbertconv.load(packed.folder).encode(TEXTS), expected)


def test_two_consumers_of_other_tensors_under_one_name_are_refused(pooled_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match="sentence-transformers and vespa: they read other"):
        sbertconv.pack(pooled_artifact, tmp_path / "packed", ["sentence-transformers", "vespa"])


def test_a_file_that_a_search_may_take_instead_gives_the_same(pooled_artifact: Path, tmp_path: Path) -> None:
    """optimum takes the first model.onnx that the disk lists below the folder, in an order that nobody chose."""
    names = ["triton", "semantic-kernel", "sentence-transformers"]
    packed = sbertconv.pack(pooled_artifact, tmp_path / "packed", names).folder
    graphs = [file.relative_to(packed).as_posix() for file in packed.rglob("model.onnx")]
    assert len(graphs) == 3
    (triton,) = (name for name in graphs if name.startswith("model_repository"))
    assert (packed / triton).samefile(packed / "onnx/model.onnx")
    both = ["sentence-transformers", "langchain4j"]
    summed = cases.bert(cases.pooling("mean_sqrt_len_tokens"), st.Normalize())
    sbertconv.to_onnx(summed, tmp_path / "summed", consumers=both)
    assert sbertconv.load(tmp_path / "summed").artifact.manifest["consumers"].keys() == set(both)
    several = cases.bert(cases.pooling(("cls", "mean")), st.Normalize())
    with pytest.raises(sbertconv.ParityError, match=r"sentence-transformers by langchain4j/model\.onnx does not give"):
        sbertconv.to_onnx(several, tmp_path / "several", consumers=both)
    assert not (tmp_path / "several").exists()


def test_what_is_registered_describes_the_zip(pooled_artifact: Path, tmp_path: Path) -> None:
    folder = sbertconv.pack(pooled_artifact, tmp_path / "packed", ["opensearch"]).folder
    body = read(folder, "opensearch/register.json")
    assert body["model_config"]["embedding_dimension"] == 32
    assert json.loads(body["model_config"]["all_config"])["model_type"] == "bert"
    assert body["model_content_size_in_bytes"] == (folder / "opensearch/model.zip").stat().st_size


def test_a_keras_folder_is_packed_for_a_model_server(bert_keras: Path, tmp_path: Path) -> None:
    packed = sbertconv.pack(bert_keras, tmp_path / "packed", ["tensorflow-serving"])
    assert packed.manifest["consumers"]["tensorflow-serving"]["max_abs_diff"] < 1e-5
    assert (packed.folder / "serving").is_dir()


@pytest.mark.parametrize(
    ("artifact", "name", "expected"),
    [
        ("bert_artifact", "sentence-transformers", "pools token vectors itself, and Dense would be left out"),
        ("static_artifact", "fastembed", "stops without a limit in tokens"),
        ("static_artifact", "triton", "puts no prompt before a text, and encode() puts 'document'"),
        ("bert_keras", "transformers.js", "takes ONNX graphs"),
        ("bert_text_artifact", "fastembed", "convert without text_input=True"),
        ("bert_artifact", "chromadb", "not known (have: fastembed, "),
    ],
)
def test_a_consumer_that_would_be_wrong_is_refused(
    artifact: str, name: str, expected: str, tmp_path: Path, request: Any
) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError) as caught:
        sbertconv.pack(request.getfixturevalue(artifact), tmp_path / "packed", [name])
    assert expected in str(caught.value)
    assert name in str(caught.value)
    assert not (tmp_path / "packed").exists()


def test_a_folder_that_a_consumer_cuts_otherwise_is_not_published(pooled_artifact: Path, tmp_path: Path) -> None:
    """The limit of a call in tokenizer_config.json, which only fastembed reads."""
    folder = tmp_path / "model"
    shutil.copytree(pooled_artifact, folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**read(folder, config.name), "max_length": 16}), encoding="utf-8")
    manifest = read(folder, "sbertconv.json")
    manifest["files"] = described(folder)
    (folder / "sbertconv.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(sbertconv.ParityError, match="fastembed does not give the vectors of encode") as caught:
        sbertconv.pack(folder, tmp_path / "packed", ["fastembed", "triton"])
    assert [check.passed for check in caught.value.report.checks] == [False, True]
    assert not (tmp_path / "packed").exists()


PLUGIN = """
from sbertconv.consumers.consumer import Consumer, as_it_is
from sbertconv.consumers.fastembed import read_fastembed

def register(consumers):
    consumers.add(Consumer("mine", "the first output", lambda manifest: [], as_it_is, read_fastembed))
"""


def test_a_plugin_adds_a_consumer(pooled_artifact: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "mine-0.1.0.dist-info"
    info.mkdir(parents=True)
    (site / "mine_consumer.py").write_text(PLUGIN, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 0.1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[sbertconv.consumers]\nmine = mine_consumer:register\n", encoding="utf-8")
    with importable(site, "mine_consumer"):
        packed = sbertconv.pack(pooled_artifact, tmp_path / "packed", ["mine"])
        assert packed.manifest["consumers"]["mine"]["max_abs_diff"] < 1e-5
        (site / "mine_consumer.py").write_text(PLUGIN.replace('"mine"', '"fastembed"'), encoding="utf-8")
        sys.modules.pop("mine_consumer")
        importlib.invalidate_caches()
        shutil.rmtree(site / "__pycache__", ignore_errors=True)
        with pytest.raises(sbertconv.DuplicateConverterError, match=r"plugin 'mine' .* failed: A consumer 'fastembed'"):
            default_consumers()
