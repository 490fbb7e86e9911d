"""Late interaction: what the run time gives is the library's, value by value. About 25 s, most of it conversions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from class_cases import CLASSES, PUNCTUATION, TEXTS, multi_vector_encoder
from conftest import Ran, run_python
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder import modules as mv
from sentence_transformers.util import similarity as theirs_similarity

import sbertconv
import sbertconv.layers
from sbertconv import HierarchicalTokenPooling, MultiVectorEmbedder
from sbertconv.artifact.scoring import ScoringRule
from sbertconv.converters.torch.multi_vector_mask import MultiVectorMaskStep
from sbertconv.plan.preprocessing import describe_input
from sbertconv.runtime.engines import load_keras_model
from sbertconv.runtime.maxsim import SIMILARITIES
from sbertconv.runtime.token_pooling import flat_clusters, ward
from sbertconv.runtime.tokenization import load_tokenizer
from sbertconv.source.st_compat import skipped_ids

ROW = "bert, fixed expansion, skip list, prompts, token pooling"
FIXED, AT_LEAST = {"strategy": "fixed", "length": 12}, {"strategy": "min", "length": 12}
ATTENDED = AT_LEAST | {"attend": True}
Converted = tuple[MultiVectorEncoder, Path, MultiVectorEmbedder]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """A row of the parity table, its folder, and what it was converted to."""
    here = tmp_path_factory.mktemp("bert")
    model = CLASSES["MultiVectorEncoder"].rows[ROW]()
    model.save_pretrained(str(here / "saved"))
    return model, here / "saved", sbertconv.load(sbertconv.to_onnx(model, here / "onnx").folder)


def same(ours: Any, theirs: Any) -> None:
    """Ragged arrays: shapes, dtypes and values."""
    assert [(one.shape, one.dtype) for one in ours] == [(tuple(one.shape), np.float32) for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, np.asarray(other), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_encode_has_the_keywords_and_values_of_the_library(bert: Converted, method: str) -> None:
    model, _, converted = bert
    ours, theirs = getattr(converted, method), getattr(model, method)
    pool = {"pool_factor": 1.5, "num_protected_tokens": 0, "tasks": ["query", "document"]}
    for options in (
        {},
        {"batch_size": 2},
        {"prompt": "a prompt "},
        {"prompt_name": "document"},
        {"normalize_embeddings": True},
        *([{"task": task} for task in ("query", "document")] if method == "encode" else []),
    ):
        same(ours(TEXTS, **options), theirs(TEXTS, **options))
    same(
        ours(TEXTS, token_pooling=HierarchicalTokenPooling(**pool)),
        theirs(TEXTS, token_pooling=mv.HierarchicalTokenPooling(**pool)),
    )
    same([ours(TEXTS[0])], [theirs(TEXTS[0])])
    assert ours([]) == theirs([]) == []
    assert torch.equal(ours(TEXTS[0], convert_to_numpy=False), torch.from_numpy(ours(TEXTS[0])))


def test_everything_of_a_text_holds_its_padding_and_its_mask(bert: Converted) -> None:
    model, _, converted = bert
    for method in ("encode_query", "encode_document"):
        ours, theirs = (getattr(one, method)(TEXTS, output_value=None) for one in (converted, model))
        for one, other in zip(ours, theirs, strict=True):
            kept = other["attention_mask"].bool().numpy()
            same([one["token_embeddings"][one["attention_mask"]]], [other["token_embeddings"][kept]])
            width = len(one["input_ids"])
            assert list(one["input_ids"]) == other["input_ids"][:width].tolist()


def test_similarity_is_the_library_s(bert: Converted) -> None:
    model, _, converted = bert
    queries, documents = converted.encode_query(TEXTS), converted.encode_document(TEXTS[:4])
    for options in ({}, {"length_normalize": True}, {"chunk_elements": 100}):
        ours, theirs = (one.similarity(queries, documents, **options) for one in (converted, model))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        ours, theirs = (one.similarity_pairwise(queries[:4], documents, **options) for one in (converted, model))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert converted.similarity_fn_name == "maxsim"


def vectors(*counts: int) -> list[np.ndarray]:
    draw = np.random.default_rng(sum(counts))
    return [draw.normal(size=(count, 8)).astype(np.float32) for count in counts]


PADDED = np.stack([np.pad(rows, ((0, 6 - len(rows)), (0, 0))) for rows in vectors(6, 2, 4)])
MASK = np.array([[1, 1, 0, 1, 0, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize(
    ("queries", "documents", "masks"),
    [
        (vectors(3, 1, 5), vectors(4, 9, 1, 2), {}),
        (vectors(3, 0), vectors(4, 0), {}),  # texts without a token that counts
        (vectors(3, 5, 4), PADDED, {}),
        (PADDED, PADDED, {"a_mask": MASK, "b_mask": MASK}),
        (PADDED, vectors(6, 2, 4), {"b_mask": list(MASK)}),
        (vectors(3)[0], vectors(4)[0], {}),
        (vectors(3)[0], vectors(4)[0], {"b_mask": np.array([1, 0, 1, 0])}),
        ([], [], {}),
    ],
    ids=["ragged", "empty", "padded", "masked", "list of masks", "single", "single masked", "none"],
)
def test_maxsim_is_the_library_s(name: str, queries: Any, documents: Any, masks: dict[str, Any]) -> None:
    prefix = {"maxsim": "maxsim", "meanmaxsim": "mean_maxsim"}[name]
    options = {"length_normalize": SIMILARITIES[name]}
    for suffix in ("", "_pairwise"):
        if suffix and len(queries) != len(documents):
            continue
        ours = getattr(sbertconv, f"maxsim{suffix}")(queries, documents, **options, **masks)
        theirs = getattr(theirs_similarity, f"{prefix}{suffix}")(queries, documents, **masks).numpy()
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


NO_TOKENS = [None, "a", b"a", 3, {"a": 1}, [1, 2], ["a"], [None], np.ones(8), np.ones((1, 2, 3, 8)), [np.ones((3, 7))],
             [[[1.0] * 8, [1.0]]]]  # fmt: skip


@pytest.mark.parametrize("other", NO_TOKENS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("function", [sbertconv.maxsim, sbertconv.maxsim_pairwise])
def test_anything_else_than_vectors_of_tokens_is_one_error(function: Any, other: Any) -> None:
    for pair in ((vectors(3), other), (other, vectors(3))):
        with pytest.raises(sbertconv.UnsupportedOptionError):
            function(*pair)
    for mask in (1, "a", [[[1]]], [None], [[1], [1]]):
        with pytest.raises(sbertconv.UnsupportedOptionError):
            function(vectors(3), vectors(3), a_mask=mask)


@pytest.mark.parametrize("digits", [7, 1], ids=["distinct", "ties"])
@pytest.mark.parametrize("count", [2, 3, 7, 60])
def test_the_clusters_are_those_of_scipy(count: int, digits: int) -> None:
    rows = np.random.default_rng(count).normal(size=(count, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = np.round(np.clip(1 - rows @ rows.T, 0, 2), digits)
    expected = hierarchy.linkage(squareform(distances, checks=False), method="ward")
    merges = ward(distances)
    np.testing.assert_array_equal(merges, expected[:, :3])
    for wanted in range(1, count):
        labels = hierarchy.fcluster(expected, t=wanted, criterion="maxclust")
        np.testing.assert_array_equal(flat_clusters(merges, wanted), np.unique(labels, return_inverse=True)[1])


@pytest.mark.parametrize("options", [{}, {"num_protected_tokens": 0}, {"normalize_embeddings": False}])
@pytest.mark.parametrize("factor", [1, 1.5, 4])
def test_token_pooling_is_the_library_s(factor: float, options: dict[str, Any]) -> None:
    ours, theirs = (one(factor, **options) for one in (HierarchicalTokenPooling, mv.HierarchicalTokenPooling))
    given = [rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in vectors(1, 2, 3, 40)]
    same(ours.pool(given), theirs.pool([torch.from_numpy(rows) for rows in given]))
    assert ours.pool(given, task="query")[3] is given[3]


@pytest.mark.parametrize("task", [None, "query", "document"])
@pytest.mark.parametrize(
    ("model_type", "expansion", "lengths", "kwargs"),
    [
        ("bert", FIXED, (None, 8), {}),
        ("bert", AT_LEAST, (16, None), {}),
        ("roberta", ATTENDED, (None, 20), {}),
        ("roberta", FIXED | {"token": "</s>"}, (None, None), {"max_length": 9}),
        ("qwen3", FIXED, (None, None), {}),
        ("bert", None, (6, 8), {"max_length": 10}),
    ],
)
def test_queries_and_documents_are_tokenized_as_in_the_library(
    model_type: str, expansion: Any, lengths: Any, kwargs: dict[str, Any], task: str | None, tmp_path: Path
) -> None:
    model = multi_vector_encoder(model_type, expansion=expansion, lengths=lengths)
    model[0].processing_kwargs = {"text": kwargs}
    described = describe_input(model[0])
    for name, text in described.files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    texts = [*TEXTS, "The quick brown fox " * 9]
    ours = load_tokenizer(described.section, tmp_path)(texts, task)
    theirs = model.preprocess(texts, task=task)
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)


@pytest.mark.parametrize("expanded", [0, 5])
@pytest.mark.parametrize("kept", [None, [3, 4, 5]])
@pytest.mark.parametrize("skipping", [[], ["document"], ["query"], ["query", "document"]])
def test_the_mask_of_queries_and_documents(skipping: list[str], kept: list[int] | None, expanded: int) -> None:
    module = mv.MultiVectorMask(skiplist_tasks=skipping, keep_only_token_ids=kept)
    module._skiplist_ids = torch.tensor([4, 7])
    transformer = torch.nn.Module()
    transformer.query_expansion = {"length": expanded, "attend": False} if expanded else None
    rule = ScoringRule.of(module, [transformer, module], skipped_ids(module))
    ids = torch.arange(2, 10).repeat(2, 1)
    attention = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0]])
    places = (attention == 0) & (torch.arange(8) < expanded)
    step, layer = MultiVectorMaskStep(rule), sbertconv.layers.MultiVectorMask(**vars(rule))
    layer = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    for task in (None, "query", "document"):
        given = {"input_ids": ids, "attention_mask": attention}
        expected = module({**given, **({"query_expansion_positions": places} if task == "query" else {})}, task=task)
        given["is_query"] = torch.full((2,), int(task == "query"))
        np.testing.assert_array_equal(step(given)["attention_mask"], expected["attention_mask"])
        found = layer({name: tensor.numpy() for name, tensor in given.items()})
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), expected["attention_mask"])


def test_a_graph_asks_for_the_task_only_where_it_matters() -> None:
    plain = multi_vector_encoder("bert", mask={"skiplist_words": PUNCTUATION, "skiplist_tasks": ["query", "document"]})
    assert "is_query" not in sbertconv.pipeline(plain).inputs
    skipping = sbertconv.pipeline(multi_vector_encoder("bert", mask={"skiplist_words": PUNCTUATION}))
    assert "is_query" in skipping.inputs
    assert skipping.outputs == ("token_embeddings", "scoring_mask")


def older_folder(kind: str, where: Path) -> Path:
    """A checkpoint as PyLate up to 3, or as Stanford's ColBERT saves it."""
    if kind == "Stanford":
        shutil.copytree(tiny.transformer_folder("bert", num_hidden_layers=1), where)
        held = safetensors.torch.load_file(where / "model.safetensors")
        held = {f"bert.{name}": tensor for name, tensor in held.items()} | {"linear.weight": torch.randn(16, 32)}
        safetensors.torch.save_file(held, where / "model.safetensors", {"format": "pt"})
        changes = {"config.json": {"architectures": ["HF_ColBERT"]}}
        (where / "artifact.metadata").write_text(json.dumps({"query_maxlen": 12, "doc_maxlen": 20}), encoding="utf-8")
    else:
        multi_vector_encoder("bert").save_pretrained(str(where))
        modules = json.loads((where / "modules.json").read_text(encoding="utf-8"))[:2]
        modules[1]["type"] = "pylate.models.Dense.Dense"
        (where / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        saved = {"model_type": "ColBERT", "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 12}
        changes = {"config_sentence_transformers.json": saved | {"similarity_fn_name": "MaxSim"}}
    for name, entries in changes.items():
        content = json.loads((where / name).read_text(encoding="utf-8"))
        (where / name).write_text(json.dumps(content | entries), encoding="utf-8")
    return where


@pytest.mark.parametrize("kind", ["PyLate", "Stanford"])
def test_older_checkpoints_are_what_the_library_makes_of_them(kind: str, tmp_path: Path) -> None:
    folder = older_folder(kind, tmp_path / "model")
    described = sbertconv.inspect(folder)
    assert (described["model_class"], described["similarity_fn_name"]) == ("MultiVectorEncoder", "maxsim")
    assert [module["name"] for module in described["modules"]] == [
        "Transformer",
        "Dense",
        "MultiVectorMask",
        "Normalize",
    ]
    assert kind in described["notes"][0]
    model = MultiVectorEncoder(str(folder), device="cpu")
    for task, method in (("query", model.encode_query), ("document", model.encode_document)):
        pipe = sbertconv.pipeline(folder)
        given = model.preprocess(TEXTS, prompt=model.prompts[task], task=task)
        tensors = {name: given[name] for name in pipe.inputs if name in given}
        with torch.no_grad():
            found = pipe(**tensors, is_query=torch.full((len(TEXTS),), int(task == "query")))
        rows = zip(found["token_embeddings"].numpy(), found["scoring_mask"].bool().numpy(), strict=True)
        same([row[mask] for row, mask in rows], method(TEXTS))


def test_what_cannot_be_asked_is_an_error(bert: Converted, tmp_path: Path) -> None:
    _, folder, converted = bert
    behind = [mv.HierarchicalTokenPooling(2.0), torch.nn.Identity()]
    for message, wrong in {
        "'cuda'": lambda: converted.encode("a", device="cuda"),
        "NoneType is not supported": lambda: converted.encode(None),
        "dict of 'image'": lambda: converted.encode({"image": "a"}),
        "'rank' is not known": lambda: converted.encode("a", task="rank"),
        "'sentence_embedding' is not known": lambda: converted.encode("a", output_value="sentence_embedding"),
        "is a HierarchicalTokenPooling": lambda: converted.encode("a", token_pooling=mv.HierarchicalTokenPooling()),
        "at least 1": lambda: HierarchicalTokenPooling(0.5),
        "no pairs": lambda: sbertconv.maxsim_pairwise(vectors(1, 2), vectors(1)),
        "b_mask has another length": lambda: sbertconv.maxsim(vectors(3), vectors(4), b_mask=np.ones((1, 3))),
        "needs all of": lambda: sbertconv.to_onnx(folder, tmp_path / "x", outputs=["token_embeddings"]),
        "text_input=True: a MultiVectorEncoder": lambda: sbertconv.to_onnx(folder, tmp_path / "x", text_input=True),
        "Identity behind it": lambda: sbertconv.pipeline(multi_vector_encoder("bert", pooling=behind)),
        "longest of its batch": lambda: sbertconv.pipeline(multi_vector_encoder("qwen3", expansion=AT_LEAST)),
    }.items():
        with pytest.raises((sbertconv.UnsupportedOptionError, sbertconv.UnsupportedModuleError), match=message):
            wrong()


def test_the_command_line(bert: Converted, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    model, folder, converted = bert
    here = converted.artifact.folder
    ran = cli("encode", here, TEXTS[0], "--task", "query", "--prompt-name", "query")
    assert ran.err == ""
    same([np.array(json.loads(ran.out), np.float32)], [model.encode_query(TEXTS[0])])
    pq = pytest.importorskip("pyarrow.parquet")
    assert cli("encode", here, *TEXTS[:3], "--output", tmp_path / "found.parquet").code == 0
    rows = pq.read_table(tmp_path / "found.parquet")["embedding"].to_pylist()
    same([np.array(row, np.float32) for row in rows], model.encode(TEXTS[:3]))
    for arguments, message in (
        (["--output", tmp_path / "found.npy"], "have: .parquet"),
        (["--truncate-dim", "3"], "--truncate-dim: a MultiVectorEncoder has no such option"),
    ):
        ran = cli("encode", here, "a", *arguments)
        assert ran.code == 1
        assert message in ran.err
    ran = cli("verify", folder, here)
    assert (ran.code, ran.said) == (0, "")
    assert "encode_document: token pooling" in ran.out
    code = (
        "import sys, sbertconv\nmodel = sbertconv.load(sys.argv[1])\n"
        "print(model.similarity(model.encode_query('a'), model.encode_document('b')).shape)\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'scipy'} & set(sys.modules)))"
    )
    assert run_python(code, here).out == "(1, 1)\n[]\n"


def test_keras_trains_and_comes_back(bert: Converted, tmp_path: Path) -> None:
    model, folder, converted = bert
    artifact = sbertconv.to_tf(folder, tmp_path / "keras", formats=["keras"])
    path = artifact.path(artifact.manifest["graphs"][0]["formats"]["keras"])
    trained = load_keras_model(path)
    sides = [
        {name: tensor.astype(np.int32) for name, tensor in converted.tokenize(TEXTS, task).items()}
        for task in ("query", "document")
    ]
    scores = sbertconv.layers.maxsim(*(trained(side) for side in sides))
    unpooled = [
        [one["token_embeddings"][one["attention_mask"]] for one in found]
        for found in (converted.encode_query(TEXTS, prompt="", output_value=None), _unpooled(converted))
    ]
    np.testing.assert_allclose(scores, sbertconv.maxsim(*unpooled), rtol=1e-4)

    import tensorflow as tf

    optimizer, losses = keras.optimizers.SGD(0.001), []
    for _ in range(3):
        with tf.GradientTape() as tape:
            found = sbertconv.layers.maxsim(*(trained(side) for side in sides))
            wanted = np.arange(len(TEXTS))
            loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(wanted, found, from_logits=True))
        weights = [variable.value for variable in trained.trainable_variables]
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), trained.trainable_variables, strict=True))
        losses.append(float(loss))
    assert losses[0] > losses[1] > losses[2]
    trained.save(tmp_path / "trained.keras")
    assert sbertconv.to_st(tmp_path / "trained.keras", tmp_path / "back").passed
    back = MultiVectorEncoder(str(tmp_path / "back"), device="cpu")
    assert not np.allclose(back.encode_query("a").numpy(), model.encode_query("a").numpy(), atol=1e-4)
    tuned = sbertconv.load(tmp_path / "trained.keras")
    same(tuned.encode_document(TEXTS), back.encode_document(TEXTS))


def _unpooled(converted: MultiVectorEmbedder) -> Any:
    plain = sbertconv.load(converted.artifact.folder)
    plain.token_pooling = []
    return plain.encode_document(TEXTS, prompt="", output_value=None)
