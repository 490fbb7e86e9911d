"""Sparse encoders beside the parity table: the run time, sparse outputs, the command line, training. About 40 s, most
of it conversions.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from class_cases import TEXTS, csr, idf, splade, splade_of_words
from conftest import Ran, run_python
from scipy.sparse import csr_array, load_npz
from sentence_transformers import SentenceTransformer, SparseEncoder

import sbertconv
from sbertconv.converters.torch import splade_pooling
from sbertconv.runtime.engines import load_keras_model
from sbertconv.runtime.sparse import SparseEmbedder

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
PROMPTS = {"query": "query: ", "document": ""}


def dense(vectors: Any) -> np.ndarray:
    """A library's tensor or a converted model's array as a numpy array."""
    return np.asarray(vectors.to_dense()) if hasattr(vectors, "to_dense") else vectors.toarray()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[SparseEncoder, Path, SparseEmbedder]:
    """A saved SPLADE model with a prompt, its folder, and what it was converted to."""
    here = tmp_path_factory.mktemp("splade")
    model = splade("bert", prompts=PROMPTS)
    model.save_pretrained(str(here / "saved"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splade_pooling, "COLUMNS", 100)
        artifact = sbertconv.to_onnx(here / "saved", here / "onnx")
    return model, here / "saved", sbertconv.load(artifact.folder)


@pytest.mark.parametrize("convert", [sbertconv.to_onnx, sbertconv.to_tf], ids=["onnx", "tf"])
def test_a_model_that_takes_no_text_without_tokens_is_one_error(
    convert: Callable[..., Any], bert: tuple[SparseEncoder, Path, SparseEmbedder], copy_of: Any, tmp_path: Path
) -> None:
    folder = copy_of(bert[1])
    file = folder / "tokenizer.json"
    described = {**json.loads(file.read_text(encoding="utf-8")), "post_processor": None}
    file.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(sbertconv.UnsupportedModuleError, match=r"Cannot convert .*\n.* takes every text, an empty one"):
        convert(folder, tmp_path / "converted")


def test_logits_are_pooled_some_columns_at_a_time(bert: tuple[SparseEncoder, Path, SparseEmbedder]) -> None:
    graph = onnx.load(bert[2].artifact.folder / "onnx/model.onnx").graph
    assert sum(node.op_type == "ReduceMax" for node in graph.node) == 4
    pipeline = sbertconv.pipeline(bert[0])
    assert pipeline.state_dict().keys() == bert[0].state_dict().keys()


def test_the_table_that_is_the_head_too_is_written_once(bert: tuple[SparseEncoder, Path, SparseEmbedder]) -> None:
    graph = onnx.load(bert[2].artifact.folder / "onnx/model.onnx").graph
    table = bert[0][0].model.get_input_embeddings().weight
    sizes = [math.prod(weight.dims) for weight in graph.initializer]
    assert [size for size in sizes if size >= 100 * table.shape[1]] == [table.numel()]


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 2}, {"prompt": "a prompt "}, {"prompt_name": "query"}, {"max_active_dims": 5}]
)
def test_encode_has_the_keywords_and_values_of_sparse_encoder(
    method: str, options: dict[str, Any], bert: tuple[SparseEncoder, Path, SparseEmbedder]
) -> None:
    model, _, converted = bert
    theirs, ours = (getattr(one, method)(TEXTS, **options) for one in (model, converted))
    assert isinstance(ours, csr_array)
    assert (ours.shape, ours.dtype) == (tuple(theirs.shape), np.float32)
    np.testing.assert_allclose(dense(ours), dense(theirs), **CLOSE)
    np.testing.assert_array_equal(
        getattr(converted, method)(TEXTS, convert_to_sparse_tensor=False, **options), dense(ours)
    )


def test_one_text_a_list_of_rows_and_no_text(bert: tuple[SparseEncoder, Path, SparseEmbedder]) -> None:
    model, _, converted = bert
    together = dense(converted.encode(TEXTS))
    for sparse in (True, False):
        rows = converted.encode(TEXTS, convert_to_tensor=False, convert_to_sparse_tensor=sparse)
        assert len(rows) == len(TEXTS)
        np.testing.assert_array_equal([row.toarray() if sparse else row for row in rows], together)
        alone = converted.encode(TEXTS[0], convert_to_sparse_tensor=sparse)
        assert alone.shape == tuple(model.encode(TEXTS[0]).shape)
        assert converted.encode([], convert_to_sparse_tensor=sparse).shape == (0, converted.get_embedding_dimension())


def test_decode_sparsity_and_similarity_are_the_library_s(bert: tuple[SparseEncoder, Path, SparseEmbedder]) -> None:
    model, _, converted = bert
    theirs, ours = model.encode(TEXTS), converted.encode(TEXTS)
    for k in (None, 3):
        expected, found = model.decode(theirs, top_k=k), converted.decode(ours, top_k=k)
        assert [len(row) for row in found] == [len(row) for row in expected]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose([weight for _, weight in one], [weight for _, weight in other], **CLOSE)
            assert dict(one) == pytest.approx(dict(other), abs=1e-5)
    assert converted.decode(ours[[0], :].reshape(-1), top_k=3) == converted.decode(ours, top_k=3)[0]
    assert converted.decode(dense(ours), top_k=3) == converted.decode(ours, top_k=3)
    assert converted.sparsity(ours) == pytest.approx(model.sparsity(theirs))
    assert converted.sparsity(dense(ours)[0]) == pytest.approx(model.sparsity(theirs[0]))
    np.testing.assert_allclose(converted.similarity(ours, ours), model.similarity(theirs, theirs), rtol=1e-5)
    pairwise = model.similarity_pairwise(theirs.to_dense(), theirs.to_dense())
    np.testing.assert_allclose(converted.similarity_pairwise(ours, ours), pairwise, rtol=1e-5)
    for name in ("cosine", "euclidean", "manhattan"):
        other = SparseEncoder(modules=list(model), device="cpu", similarity_fn_name=name)
        converted.similarity_fn_name = name
        try:
            found = converted.similarity(ours[[0], :], ours)
        finally:
            converted.similarity_fn_name = "dot"
        expected = other.similarity(theirs.to_dense()[:1], theirs.to_dense())
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["dot", "cosine"])
@pytest.mark.parametrize("kind", [np.array, csr_array, lambda rows: [csr_array(rows)]])
def test_whole_numbers_are_compared_as_floats(name: str, kind: Any, bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = bert[2]
    monkeypatch.setattr(converted, "similarity_fn_name", name)
    rows = np.array([[100, 100, 0], [100, 0, 100]], np.int8)
    expected = converted.similarity(rows.astype(np.float32), rows.astype(np.float32))
    assert converted.similarity(kind(rows), kind(rows)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["dot", "cosine"])
def test_anything_else_than_vectors_is_one_error(name: str, bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = bert[2]
    monkeypatch.setattr(converted, "similarity_fn_name", name)
    ours = converted.encode(TEXTS[:2])
    with pytest.raises(sbertconv.UnsupportedOptionError, match="no row of values"):
        converted.tokens("a text")
    for top_k in ("x", 1.5, []):
        with pytest.raises(sbertconv.UnsupportedOptionError, match="top_k="):
            converted.decode(ours, top_k=top_k)
    strange = (None, "a", 3, {}, np.ones((1, 2, 3)), [1, [2]], [ours[[0], :], None], ours[:, :7], np.ones((2, 7)))
    for other in strange:
        for pair in ((ours, other), (other, ours)):
            for function in (converted.similarity, converted.similarity_pairwise):
                with pytest.raises(sbertconv.UnsupportedOptionError):
                    function(*pair)


@pytest.mark.parametrize("name", ["dot", "cosine", "euclidean", "manhattan"])
@pytest.mark.parametrize("sparse", [True, False])
def test_lists_of_rows_are_compared_as_a_matrix_is(
    name: str, sparse: bool, bert: tuple[SparseEncoder, Path, SparseEmbedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = bert[2]
    monkeypatch.setattr(converted, "similarity_fn_name", name)
    matrix = converted.encode(TEXTS)
    rows = converted.encode(TEXTS, convert_to_tensor=False, convert_to_sparse_tensor=sparse)
    for method in (converted.similarity, converted.similarity_pairwise):
        np.testing.assert_allclose(method(embeddings1=rows, embeddings2=rows), method(matrix, matrix), **CLOSE)
    assert converted.similarity_pairwise(rows[0], rows[0]).shape == ()
    assert converted.decode(rows) == converted.decode(matrix)
    assert converted.sparsity(rows) == converted.sparsity(matrix)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # the library's own call of torch
def test_an_intersection_is_the_library_s(bert: tuple[SparseEncoder, Path, SparseEmbedder]) -> None:
    model, _, converted = bert
    for others in (TEXTS[1], TEXTS):
        theirs = model.intersection(model.encode(TEXTS[0]), model.encode(others))
        for sparse in (True, False):
            one, other = (converted.encode(text, convert_to_sparse_tensor=sparse) for text in (TEXTS[0], others))
            ours = converted.intersection(one, other)
            assert (ours.shape, ours.dtype) == (tuple(theirs.shape), np.float32)
            np.testing.assert_allclose(dense(ours), dense(theirs), **CLOSE)
    for form in (np.array, list):
        signed = converted.intersection(form([1.0, -1, 0]), form([[-1.0, -2, 3]]))
        np.testing.assert_array_equal(signed.toarray(), [[0, 2, 0]])
        assert signed.nnz == 1


def test_what_cannot_be_asked_is_an_error(
    bert: tuple[SparseEncoder, Path, SparseEmbedder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder, converted = bert
    for wrong, message in (
        (lambda: converted.encode(TEXTS, max_active_dims=0), "max_active_dims must be"),
        (lambda: converted.encode(TEXTS, prompt_name="no"), "'no'.*have: query, document"),
        (lambda: converted.encode(["a", 1]), "Input 1"),
        (lambda: converted.encode(TEXTS, device="cuda"), "'cuda'"),
        (lambda: converted.decode(np.zeros((1, 1, 1))), "3 dimensions"),
        (lambda: converted.intersection(np.zeros(3), np.zeros(2)), "no intersection"),
        (lambda: converted.intersection(np.zeros((1, 3)), np.zeros(3)), "no intersection"),
        (lambda: converted.intersection(None, None), "no array of numbers"),
        (lambda: converted.intersection(1, 2), "no intersection"),
        (lambda: converted.matrix([1]), "int is no row"),
        (lambda: converted.matrix(None), "NoneType is no list"),
        (lambda: converted.decode(np.zeros(3), top_k=0), "top_k must be"),
        (lambda: sbertconv.to_onnx(folder, tmp_path / "x", outputs=["indices"]), "nothing without each other"),
        (lambda: sbertconv.to_onnx(folder, tmp_path / "x", top_k=-1), "top_k=-1"),
        (lambda: sbertconv.to_onnx(folder, tmp_path / "x", activation=True), "activation=True"),
    ):
        with pytest.raises(sbertconv.UnsupportedOptionError, match=message):
            wrong()
    embedder = SentenceTransformer(modules=list(csr())[:1], device="cpu")
    for options in ({"sparse": True}, {"top_k": 3}):
        with pytest.raises(sbertconv.UnsupportedOptionError, match=r"no sparse vectors \(have: SparseEncoder\)"):
            sbertconv.to_torch(embedder, tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(sbertconv.MissingDependencyError, match=r"sbertconv\[sparse\]"):
        converted.encode(TEXTS)
    assert converted.encode(TEXTS, convert_to_sparse_tensor=False).shape == (len(TEXTS), 381)


def static() -> SparseEncoder:
    return SparseEncoder(modules=[idf()], device="cpu")


def graph_outputs(artifact: sbertconv.Artifact, texts: list[str]) -> dict[str, np.ndarray]:
    """What ONNX Runtime itself gives."""
    import onnxruntime

    model = sbertconv.load(artifact.folder)
    session = onnxruntime.InferenceSession(artifact.folder / "onnx/model.onnx")
    feeds = model.tokenize(texts)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: feeds[name] for name in model.graphs[0].inputs}), strict=True))


def test_the_graph_gives_rows_and_columns_of_what_is_not_0(tmp_path: Path) -> None:
    model = static()
    artifact = sbertconv.to_onnx(model, tmp_path / "onnx", sparse=True, engines=["onnxruntime", "openvino"])
    assert artifact.manifest["graphs"][0]["outputs"] == [
        {"name": "indices", "dtype": "int64", "shape": ["nonzero", 2]},
        {"name": "values", "dtype": "float32", "shape": ["nonzero"]},
    ]
    found = graph_outputs(artifact, TEXTS)
    rows, columns = found["indices"].T
    expected = dense(model.encode(TEXTS))
    together = csr_array((found["values"], (rows, columns)), shape=expected.shape).toarray()
    np.testing.assert_allclose(together, expected, **CLOSE)
    assert found["values"].all()
    np.testing.assert_allclose(dense(sbertconv.load(artifact.folder).encode(TEXTS)), expected, **CLOSE)


def test_a_column_that_no_vector_has_is_one_error(tmp_path: Path) -> None:
    """scipy writes where a column says, without looking."""
    folder = sbertconv.to_onnx(static(), tmp_path / "onnx", sparse=True).folder
    content = json.loads((folder / "sbertconv.json").read_text(encoding="utf-8"))
    (folder / "sbertconv.json").write_text(json.dumps({**content, "embedding_dimension": 7}), encoding="utf-8")
    model = sbertconv.load(folder)
    for asked in (model.rows, model.encode):
        with pytest.raises(sbertconv.ArtifactError, match=r"a value in column .* its vectors have 7 numbers"):
            asked(TEXTS)


def test_a_limit_of_values_is_encode_s_own_and_pads(tmp_path: Path) -> None:
    model = static()
    model.save_pretrained(str(tmp_path / "saved"))
    for convert in (sbertconv.to_onnx, sbertconv.to_torch):
        artifact = convert(model, tmp_path / convert.__name__, sparse=True, top_k=3)
        outputs = artifact.manifest["graphs"][0]["outputs"]
        assert [(o["name"], o["shape"]) for o in outputs] == [("indices", ["batch", 3]), ("values", ["batch", 3])]
        converted = sbertconv.load(artifact.folder, format=artifact.formats[0])
        expected = dense(model.encode(TEXTS, max_active_dims=3))
        np.testing.assert_allclose(dense(converted.encode(TEXTS)), expected, **CLOSE)
        with pytest.raises(sbertconv.UnsupportedOptionError, match=r"leaves 3 values.*\n.*top_k=4"):
            converted.encode(TEXTS, max_active_dims=4)
        assert model.max_active_dims is None
        assert sbertconv.verify(tmp_path / "saved", artifact.folder).passed
    found = graph_outputs(sbertconv.load(tmp_path / "to_onnx").artifact, TEXTS)
    assert (np.diff(found["values"]) <= 0).all()  # the heaviest first
    assert not found["values"][TEXTS.index("")].any()


def test_a_padding_token_in_a_text_counts_as_it_does_in_the_library(tmp_path: Path) -> None:
    model = static()
    converted = sbertconv.load(sbertconv.to_torch(model, tmp_path / "torch").folder, format="torch")
    for texts in (["a [PAD]"], ["a [PAD]", "a longer text than the other"], ["[PAD] [PAD]", ""]):
        np.testing.assert_array_equal(dense(converted.encode(texts)), dense(model.encode(texts)))


def test_the_command_line(
    bert: tuple[SparseEncoder, Path, SparseEmbedder], tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    model, folder, converted = bert
    here = converted.artifact.folder
    expected = dense(model.encode(TEXTS[:2]))
    lines = [json.loads(line) for line in cli("encode", here, *TEXTS[:2]).out.splitlines()]
    for line, vector in zip(lines, expected, strict=True):
        assert line["indices"] == np.flatnonzero(vector).tolist()
        np.testing.assert_allclose(line["values"], vector[line["indices"]], **CLOSE)
    (line,) = cli("encode", here, "--tokens", "--max-active-dims", 4, TEXTS[0]).out.splitlines()
    assert json.loads(line) == pytest.approx(dict(model.decode(model.encode(TEXTS[0]), top_k=4)), abs=1e-5)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS[:2]), encoding="utf-8")
    ran = cli("encode", here, "--input", tmp_path / "texts.txt", "--output", tmp_path / "vectors.npz")
    assert (ran.code, ran.err) == (0, "")
    np.testing.assert_allclose(load_npz(tmp_path / "vectors.npz").toarray(), expected, **CLOSE)
    for wrong, message in (
        (("--normalize", "a"), "--normalize: a SparseEncoder has no such option"),
        (("--input", tmp_path / "texts.txt", "--output", tmp_path / "vectors.npy"), "have: .npz"),
        (("--input", tmp_path / "texts.txt", "--output", tmp_path / "v.npz", "--tokens"), "a matrix has columns"),
    ):
        ran = cli("encode", here, *wrong)
        assert ran.code == 1
        assert message in ran.err
    described = json.loads(cli("inspect", folder, "--json").out)
    said = {key: described[key] for key in ("model_class", "embedding_dimension", "similarity_fn_name")}
    assert said == {"model_class": "SparseEncoder", "embedding_dimension": 381, "similarity_fn_name": "dot"}
    assert cli("verify", folder, here).code == 0


def test_what_inspect_says_without_weights(tmp_path: Path) -> None:
    for name, model, dimension, limit in (
        ("autoencoder", csr(), 64, 8),
        ("limited", csr(max_active_dims=3), 64, 3),
        ("static", static(), 381, None),
    ):
        model.save_pretrained(str(tmp_path / name))
        for source in (tmp_path / name, model):
            described = sbertconv.inspect(source)
            assert (described["embedding_dimension"], described["max_active_dims"]) == (dimension, limit)


def test_a_bare_checkpoint_is_no_sparse_encoder_unless_it_says_so(tmp_path: Path) -> None:
    model = splade("distilbert")
    model[0].model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    described = sbertconv.inspect(tmp_path)
    assert described["model_class"] == "SentenceTransformer"
    assert any("model_class='SparseEncoder'" in note for note in described["notes"])
    said = sbertconv.inspect(tmp_path, model_class="SparseEncoder")
    (tmp_path / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}', encoding="utf-8")
    for described in (said, sbertconv.inspect(tmp_path)):
        assert (described["model_class"], described["embedding_dimension"]) == ("SparseEncoder", 381)
        assert [module["name"] for module in described["modules"]] == ["Transformer", "SpladePooling"]


@pytest.mark.parametrize("build", [lambda: splade("distilbert"), csr, static])
def test_a_keras_model_trains_and_comes_back(build: Callable[[], SparseEncoder], tmp_path: Path) -> None:
    """Every weight has a gradient; what it is then goes back into a SparseEncoder."""
    import tensorflow as tf

    artifact = sbertconv.to_tf(build(), tmp_path / "keras", formats=["keras"])
    path = artifact.folder / "keras/model.keras"
    model = load_keras_model(path)
    feeds = sbertconv.load(artifact.folder).tokenize(TEXTS)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model({name: feeds[name] for name in model.input}, training=True) ** 2)
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables]), strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(np.asarray(tf.convert_to_tensor(gradient))).all()
        variable.assign(variable.value * 0.9)
    model.save(path)
    assert sbertconv.to_st(path, tmp_path / "back").passed
    back = SparseEncoder(str(tmp_path / "back"), device="cpu")
    assert back.state_dict().keys() == build().state_dict().keys()
    changed = sbertconv.load(path).encode(TEXTS, convert_to_sparse_tensor=False)
    np.testing.assert_allclose(dense(back.encode(TEXTS)), changed, **CLOSE)
    assert not np.allclose(changed, dense(build().encode(TEXTS)), **CLOSE)


def test_litert_and_onnx_of_keras_have_the_operations(tmp_path: Path) -> None:
    for name, model in (("splade", splade_of_words("max", "log1p_relu", None)), ("limited", csr(max_active_dims=3))):
        assert sbertconv.to_tf(model, tmp_path / name, formats=["litert", "onnx"]).manifest["parity"]["passed"]


def test_running_needs_neither_torch_nor_transformers(bert: tuple[SparseEncoder, Path, SparseEmbedder]) -> None:
    _, _, converted = bert
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sentence_transformers'):\n"
        "    sys.modules[name] = None\n"
        "import sbertconv\n"
        "model = sbertconv.load(sys.argv[1])\n"
        "print(model.decode(model.encode(['a text']), top_k=1)[0][0][0])\n"
    )
    ran = run_python(code, converted.artifact.folder)
    assert ran.code == 0, ran.err[-2000:]
    assert ran.out.strip() == converted.decode(converted.encode(["a text"]), top_k=1)[0][0][0]
