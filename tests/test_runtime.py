"""`Embedder` beside `SentenceTransformer`: the same keywords give the same results, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from conftest import PROMPTS, TEXTS, run_python
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

import sbertconv
from sbertconv import Embedder, UnsupportedOptionError
from sbertconv.benchmark.measuring import mixed_texts
from sbertconv.runtime.graph import Graph

CLOSE = {"abs": 1e-5, "rel": 1e-5}


@dataclass(frozen=True)
class Pair:
    """The original and its artifact."""

    model: SentenceTransformer
    embedder: Embedder


@pytest.fixture(scope="module")
def bert(bert_folder: Path, bert_artifact: Path) -> Pair:
    """Prompts, token embeddings, four modules."""
    return Pair(SentenceTransformer(str(bert_folder), device="cpu"), sbertconv.load(bert_artifact))


@pytest.fixture(scope="module")
def static(static_folder: Path, static_artifact: Path) -> Pair:
    """A default prompt and another similarity function."""
    return Pair(SentenceTransformer(str(static_folder), device="cpu"), sbertconv.load(static_artifact))


@pytest.fixture(params=["bert", "static"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return request.getfixturevalue(request.param)


def assert_same(ours: Any, theirs: Any) -> None:
    """The same container, the same shape and type, the same numbers; quantized values may differ by one step."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
        return
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    if theirs.dtype.kind == "f":
        assert ours == pytest.approx(theirs, **CLOSE)
    else:
        assert np.abs(ours.astype(int) - theirs.astype(int)).max(initial=0) <= 1


OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "prompt": {"prompt": "a prompt of my own: "},
    "empty prompt": {"prompt": ""},
    "prompt_name": {"prompt_name": "query"},
    "prompt wins over prompt_name": {"prompt": "x: ", "prompt_name": "query"},
    "batch_size 1": {"batch_size": 1},
    "batch_size 2": {"batch_size": 2},
    "show_progress_bar": {"show_progress_bar": True},
    "no progress bar": {"show_progress_bar": False},
    "normalize_embeddings": {"normalize_embeddings": True},
    "truncate_dim": {"truncate_dim": 5},
    "truncate_dim larger than the embedding": {"truncate_dim": 500},
    "truncate_dim, then normalize": {"truncate_dim": 5, "normalize_embeddings": True},
    **{f"precision {name}": {"precision": name} for name in ("float32", "int8", "uint8", "binary", "ubinary")},
    "precision binary, truncated": {"precision": "ubinary", "truncate_dim": 12},
    "convert_to_tensor": {"convert_to_tensor": True},
    "convert_to_numpy False": {"convert_to_numpy": False},
    "convert_to_tensor, binary": {"convert_to_tensor": True, "precision": "binary"},
    "device": {"device": "cpu"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_keyword_means_the_same(name: str, pair: Pair) -> None:
    assert_same(pair.embedder.encode(TEXTS, **OPTIONS[name]), pair.model.encode(TEXTS, **OPTIONS[name]))


@pytest.mark.parametrize("precision", ["int8", "ubinary"])
def test_the_vectors_of_tokens_are_quantized_together(precision: str, bert: Pair) -> None:
    options = {"output_value": "token_embeddings", "precision": precision}
    for ours, theirs in zip(*(one.encode(TEXTS, **options) for one in (bert.embedder, bert.model)), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize("options", [{}, {"prompt": "x: "}, {"prompt_name": "document"}], ids=str)
def test_every_method_chooses_the_same_prompt(method: str, options: dict[str, Any], pair: Pair) -> None:
    ours, theirs = getattr(pair.embedder, method), getattr(pair.model, method)
    assert_same(ours(TEXTS, **options), theirs(TEXTS, **options))


def test_prompts_matter(pair: Pair) -> None:
    """Otherwise the tests above prove nothing."""
    found = [pair.embedder.encode("a text", prompt=prompt) for prompt in ("", *PROMPTS.values())]
    assert all(np.abs(found[i] - found[j]).max() > 1e-2 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_progress_bar_stays_out_of_stdout(static: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    """What a script prints may be somebody's input."""
    static.embedder.encode(TEXTS, show_progress_bar=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Texts" in err


INPUTS: dict[str, Any] = {
    "one text": "a single text",
    "an empty text": "",
    "a list of one": ["a single text"],
    "a tuple": ("a", "tuple"),
    "an array": np.array(["an", "array of texts"]),
    "the same text twice": ["twice", "twice"],
    "nothing": [],
    "longer than the limit": ["word " * 500, "short"],
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("options", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}], ids=str)
def test_every_kind_of_input(name: str, options: dict[str, Any], pair: Pair) -> None:
    assert_same(pair.embedder.encode(INPUTS[name], **options), pair.model.encode(INPUTS[name], **options))


@pytest.mark.parametrize(("count", "most"), [(1000, 0.03), (16, 0.10)])
def test_hardly_anything_that_is_computed_is_padding(
    count: int, most: float, bert: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = []
    run = Graph.run
    monkeypatch.setattr(
        Graph, "run", lambda self, tensors: masks.append(tensors["attention_mask"]) or run(self, tensors)
    )
    bert.embedder.encode(mixed_texts(1000)[:count])
    assert max(len(mask) for mask in masks) <= 32
    assert 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks) < most


@pytest.mark.parametrize("inputs", ["a single text", TEXTS, []], ids=["one", "list", "nothing"])
def test_token_embeddings(inputs: Any, bert: Pair) -> None:
    ours = bert.embedder.encode(inputs, output_value="token_embeddings")
    theirs = bert.model.encode(inputs, output_value="token_embeddings")
    ours, theirs = ([ours], [theirs]) if isinstance(inputs, str) else (ours, theirs)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == tuple(other.shape)  # without the padding
        assert one == pytest.approx(other.numpy(), **CLOSE)


@pytest.mark.parametrize("inputs", ["a single text", TEXTS], ids=["one", "list"])
def test_all_outputs_as_dicts(inputs: Any, bert: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sbertconv.runtime.model.BATCH_COST", 0)  # as if a batch of each text were the cheapest
    ours = bert.embedder.encode(inputs, output_value=None, batch_size=2)
    theirs = bert.model.encode(inputs, output_value=None, batch_size=2)
    ours, theirs = ([ours], [theirs]) if isinstance(inputs, str) else (ours, theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == {"input_ids", "token_type_ids", "attention_mask", "sentence_embedding", "token_embeddings"}
        for name, value in one.items():
            assert value == pytest.approx(other[name].numpy(), **CLOSE), name


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("shapes", [(4, 3), (1, 3), (4, 1), (None, 3), (None, None)], ids=str)
def test_similarity(name: str, shapes: tuple[int | None, int | None], bert: Pair, monkeypatch: Any) -> None:
    random = np.random.default_rng(6)
    a, b = (random.normal(size=8 if n is None else (n, 8)).astype(np.float32) for n in shapes)
    monkeypatch.setattr(bert.model, "similarity_fn_name", name)
    monkeypatch.setattr(bert.embedder, "similarity_fn_name", name)
    assert bert.embedder.similarity(embeddings1=a, embeddings2=b) == pytest.approx(
        bert.model.similarity(a, b).numpy(), **CLOSE
    )
    same = random.normal(size=a.shape).astype(np.float32)
    expected = bert.model.similarity_pairwise(a, same).numpy()
    found = bert.embedder.similarity_pairwise(embeddings1=a, embeddings2=same)
    assert found == pytest.approx(expected, **CLOSE)
    assert found.shape == expected.shape
    with pytest.raises(UnsupportedOptionError, match="5 embeddings are no pairs"):
        bert.embedder.similarity_pairwise(a, random.normal(size=(5, 8)))
    with pytest.raises(UnsupportedOptionError, match=r"where .* are due"):
        bert.embedder.similarity(a, random.normal(size=(5, 7)))
    with pytest.raises(UnsupportedOptionError):
        bert.embedder.encode(np.array("a text"))


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("kind", [np.int8, np.uint8, list, bool])
def test_the_similarity_of_whole_numbers_is_that_of_the_same_floats(
    name: str, kind: Any, bert: Pair, monkeypatch: Any
) -> None:
    monkeypatch.setattr(bert.embedder, "similarity_fn_name", name)
    lowest = -128 if kind is np.int8 else 0
    given = np.random.default_rng(6).integers(lowest, lowest + 256, (3, 8))
    whole = given.tolist() if kind is list else given.astype(kind)
    wide = np.asarray(whole, np.float64)
    for method in (bert.embedder.similarity, bert.embedder.similarity_pairwise):
        assert method(whole, whole[::-1]) == pytest.approx(method(wide, wide[::-1]), rel=1e-12)


def test_similarity_uses_what_the_model_was_saved_with(static: Pair) -> None:
    vectors = static.embedder.encode(TEXTS)
    assert static.embedder.similarity_fn_name == static.model.similarity_fn_name == "euclidean"
    expected = static.model.similarity(vectors, vectors).numpy()
    assert static.embedder.similarity(vectors, vectors) == pytest.approx(expected, abs=1e-4)
    assert static.embedder.similarity(vectors, vectors)[0, 0] == 0


def test_properties_agree(pair: Pair) -> None:
    for name in ("prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim"):
        assert getattr(pair.embedder, name) == getattr(pair.model, name), name
    assert pair.embedder.get_embedding_dimension() == pair.model.get_embedding_dimension()


def test_the_length_limit_agrees(bert: Pair) -> None:
    assert bert.embedder.max_seq_length == bert.model.max_seq_length == 48


def test_a_saved_truncate_dim_is_honoured(tmp_path: Path) -> None:
    model = cases.chain(cases.static_embedding(), st.Normalize(), truncate_dim=12)
    embedder = sbertconv.load(sbertconv.to_onnx(model, tmp_path / "out").folder)
    assert embedder.get_embedding_dimension() == 12
    for options in ({}, {"truncate_dim": 5}, {"truncate_dim": 12}, {"normalize_embeddings": True}):
        assert_same(embedder.encode(TEXTS, **options), model.encode(TEXTS, **options))
    with pytest.raises(UnsupportedOptionError, match="first 12 dimensions only"):
        embedder.encode(TEXTS, truncate_dim=20)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt_name": "passage"}, r"Prompt 'passage' is not known \(have: .*query"),
        ({"precision": "int4"}, r"precision 'int4' is not known \(have: float32, int8"),
        ({"output_value": "logits"}, r"no output 'logits' \(have: sentence_embedding, token_embeddings\)"),
        ({"device": "cuda"}, r"device 'cuda' is not supported \(have: cpu\)"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"truncate_dim": 0}, "truncate_dim must be a positive integer, not 0"),
        ({"truncate_dim": -3}, "truncate_dim must be a positive integer, not -3"),
        ({"precision": "int8", "inputs": ["only one"]}, "one text gives none"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_said(options: dict[str, Any], words: str, bert: Pair) -> None:
    inputs = options.pop("inputs", TEXTS) if "inputs" in options else TEXTS
    with pytest.raises(UnsupportedOptionError, match=words):
        bert.embedder.encode(inputs, **options)


def test_an_output_that_was_not_converted_names_the_option(static: Pair) -> None:
    with pytest.raises(UnsupportedOptionError, match="--output token_embeddings"):
        static.embedder.encode("a text", output_value="token_embeddings")


def test_unknown_similarity_functions_are_refused(bert: Pair, monkeypatch: Any) -> None:
    monkeypatch.setattr(bert.embedder, "similarity_fn_name", "jaccard")
    with pytest.raises(UnsupportedOptionError, match=r"'jaccard' is not known \(have: cosine, dot"):
        bert.embedder.similarity(np.ones(3), np.ones(3))


# Everything but numpy, tokenizers, onnxruntime and what the command line needs is out of reach.
BLOCKED = """
import json, sys
for name in ("torch", "transformers", "sentence_transformers", "onnx", "onnx_ir", "onnxscript", "safetensors",
             "huggingface_hub", "tensorflow", "keras", "scipy", "sklearn", "pandas", "pyarrow", "PIL", "nltk"):
    sys.modules[name] = None
import numpy as np
import sbertconv
texts, folders, out = json.loads(sys.argv[1]), sys.argv[3:], sys.argv[2]
found = {}
for index, folder in enumerate(folders):
    model = sbertconv.load(folder, verify=True)
    found[f"{index} encode"] = model.encode(texts)
    found[f"{index} query"] = model.encode_query(texts, normalize_embeddings=True)
    found[f"{index} similarity"] = model.similarity(found[f"{index} encode"], found[f"{index} query"])
np.savez(out, **found)
try:
    model.encode(texts, convert_to_tensor=True)
except sbertconv.MissingDependencyError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def words(built_once: Any) -> Pair:
    """Whitespace tokens: a tokenizer of the artifact's own kind."""
    model = cases.chain(cases.word_embeddings(), cases.pooling("mean"))
    folder = built_once("words-onnx", lambda folder: sbertconv.to_onnx(model, folder))
    return Pair(model, sbertconv.load(folder))


def test_an_artifact_runs_where_nothing_else_is_installed(
    bert: Pair, static: Pair, words: Pair, tmp_path: Path
) -> None:
    pairs = (bert, static, words)
    folders = [pair.embedder.artifact.folder for pair in pairs]
    ran = run_python(BLOCKED, json.dumps(TEXTS), tmp_path / "found.npz", *folders)
    assert ran.code == 0, ran.err
    assert 'pip install "sbertconv[onnx]"' in ran.out
    with np.load(tmp_path / "found.npz") as found:
        for index, pair in enumerate(pairs):
            expected = pair.model.encode(TEXTS)
            query = pair.model.encode_query(TEXTS, normalize_embeddings=True)
            assert found[f"{index} encode"] == pytest.approx(expected, **CLOSE)
            assert found[f"{index} query"] == pytest.approx(query, **CLOSE)
            similarity = pair.model.similarity(torch.as_tensor(expected), torch.as_tensor(query)).numpy()
            assert found[f"{index} similarity"] == pytest.approx(similarity, abs=1e-3)
