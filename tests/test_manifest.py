"""The manifest: wrong values are named with their keys and what is allowed, all at once, and none makes a traceback."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import class_cases
import numpy as np
import pytest
from conftest import MISSING, TEXTS, put

import sbertconv
from sbertconv import ArtifactError, SbertconvError
from sbertconv.artifact.folder import MANIFEST, read_artifact
from sbertconv.artifact.kinds import MODEL_CLASSES
from sbertconv.artifact.manifest import MOST_PARTS, problems_of
from sbertconv.runtime.maxsim import SIMILARITIES

# what is wrong -> (the keys that lead to the value, the value, what the message says)
WRONG: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    "a prompt": (("prompts", "query"), 1, "prompts.query: expected str, got int"),
    "a default prompt": (
        ("default_prompt_name",),
        "nope",
        "default_prompt_name: 'nope' is none of the prompts (",
    ),
    "a similarity": (("similarity_fn_name",), "foo", "similarity_fn_name: 'foo' (have: cosine, dot, "),
    "a dimension": (("truncate_dim",), -3, "truncate_dim: expected int >= 1"),
    "a fraction": (("truncate_dim",), 3.5, "truncate_dim: expected int"),
    "a class": (("model_class",), "Nope", "model_class: 'Nope' (have: SentenceTransformer, "),
    "a side": (
        ("graphs", 0, "tokenizer", "padding_side"),
        "zzz",
        "graphs[0].tokenizer.padding_side: 'zzz' (have: ",
    ),
    "a kind": (("graphs", 0, "tokenizer", "kind"), "slow", "graphs[0].tokenizer.kind: 'slow' (have: fast, "),
    "a tensor": (("graphs", 0, "inputs", 0, "name"), "../x", "graphs[0].inputs[0].name: '../x' is no name that"),
    "a graph's name": (("graphs", 0, "name"), "C:x", "graphs[0].name: 'C:x' is no name that a file can have"),
    "a format": (
        ("graphs", 0, "formats", "foo"),
        "x",
        "graphs[0].formats, its key 'foo': 'foo' is no known name (",
    ),
    "an engine": (("engines", "onnx", 0), "gpu", "engines.onnx[0]: 'gpu' is no known name (have: onnxruntime, "),
    "no graph": (("graphs",), [], "graphs: expected array of length >= 1"),
    "no tokenizer": (
        ("graphs", 0, "tokenizer"),
        None,
        "graphs[0].tokenizer is missing or null, and the graph takes texts",
    ),
    "no engines": (("engines",), MISSING, "engines is missing"),
    "no dimension": (("embedding_dimension",), MISSING, "embedding_dimension is missing"),
    "no limit": (("graphs", 0, "tokenizer", "max_length"), MISSING, "graphs[0].tokenizer.max_length is missing"),
    "a long prompt": (("prompts", "query"), "a" * 100_000, "prompts.query: expected str of length <= 65536"),
    "no token ids": (
        ("graphs", 0, "tokenizer", "tensors"),
        ["attention_mask"],
        "graphs[0].tokenizer.tensors has no input_ids",
    ),
    "another size": (
        ("embedding_dimension",),
        7,
        "embedding_dimension: 7, and sentence_embedding of graphs[0] has 32 numbers",
    ),
    "a size in words": (("embedding_dimension",), "dim", "embedding_dimension: 'dim', and sentence_embedding of "),
    "a size of gigabytes": (("embedding_dimension",), 2**31 - 1, "embedding_dimension: expected int <= 16777216"),
    "an expansion of gigabytes": (
        ("graphs", 0, "tokenizer", "query_expansion"),
        {"strategy": "fixed", "attend": False, "length": 2**31 - 1, "token_id": 0},
        "graphs[0].tokenizer.query_expansion.length: expected int <= 1048576",
    ),
    "a chat without templates": (
        ("graphs", 0, "tokenizer", "kind"),
        "chat",
        "graphs[0].tokenizer.templates is missing, and kind is chat",
    ),
    "half of a sparse vector": (
        ("graphs", 0, "outputs", 0, "name"),
        "values",
        "graphs[0].outputs has no indices",
    ),
    "a check": (("parity", "checks", 0, "texts"), MISSING, "parity.checks[0].texts is missing"),
    "a size of no file": (("files", "onnx/model.onnx", "size"), 10**80, "files.onnx/model.onnx.size: "),
    "a size": (("files", "onnx/model.onnx", "size"), "big", "files.onnx/model.onnx.size: expected int, got str"),
}


# the class of the model -> what is wrong with its folder, as above
OF_CLASSES: list[tuple[str, tuple[str | int, ...], Any, str]] = [
    ("MultiVectorEncoder", ("similarity_fn_name",), "cosine", "similarity_fn_name: 'cosine' (have: maxsim, "),
    ("MultiVectorEncoder", ("graphs", 0, "outputs", 1), MISSING, "graphs[0].outputs has no scoring_mask"),
    ("SparseEncoder", ("embedding_dimension",), 1, "embedding_dimension: 1, and sentence_embedding of graphs[0] has "),
    ("SparseEncoder", ("embedding_dimension",), "dim", "embedding_dimension: 'dim', and sentence_embedding of "),
]
CLASSES: dict[str, Callable[[], Any]] = {
    "MultiVectorEncoder": class_cases.colbert,
    "SparseEncoder": lambda: class_cases.splade("bert"),
}


@pytest.fixture(scope="module")
def content(static_artifact: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((static_artifact / MANIFEST).read_text(encoding="utf-8"))
    return found


def changed(content: Any, keys: tuple[str | int, ...], value: Any) -> Any:
    """A copy with one value replaced or taken out."""
    made = copy.deepcopy(content)
    put(made, keys, value)
    return made


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(
    name: str, content: dict[str, Any], static_artifact: Path, copy_of: Any
) -> None:
    keys, value, said = WRONG[name]
    folder = copy_of(static_artifact)
    (folder / MANIFEST).write_text(json.dumps(changed(content, keys, value)))
    with pytest.raises(ArtifactError) as caught:
        sbertconv.load(folder)
    assert f"  {said}" in str(caught.value)


@pytest.mark.parametrize(("name", "keys", "value", "said"), OF_CLASSES)
def test_what_a_class_of_models_does_not_have_is_named(
    name: str, keys: tuple[str | int, ...], value: Any, said: str, built_once: Any, copy_of: Any
) -> None:
    kept = built_once(f"manifest-{name}", lambda where: sbertconv.to_onnx(CLASSES[name](), where))
    wrong = changed(json.loads((kept / MANIFEST).read_text(encoding="utf-8")), keys, value)
    folder = copy_of(kept)
    (folder / MANIFEST).write_text(json.dumps(wrong))
    with pytest.raises(ArtifactError, match=f"  {re.escape(said)}"):
        sbertconv.load(folder)


def test_a_chat_names_its_slots(content: dict[str, Any]) -> None:
    section = {**content["graphs"][0]["tokenizer"], "kind": "chat", "restore_suffix": True}
    section["templates"] = [{"slots": ["text"], "pieces": ["a", {"slot": "text"}]}]
    assert not problems_of(changed(content, ("graphs", 0, "tokenizer"), section))
    section["templates"][0]["pieces"].append({"slot": "zzz"})
    (problem,) = problems_of(changed(content, ("graphs", 0, "tokenizer"), section))
    assert problem == "graphs[0].tokenizer.templates[0].pieces: zzz is none of its slots"


def test_engines_that_do_not_open_a_format_are_named(
    content: dict[str, Any], static_artifact: Path, copy_of: Any
) -> None:
    folder = copy_of(static_artifact)
    (folder / MANIFEST).write_text(json.dumps(changed(content, ("engines", "onnx"), ["keras"])))
    with pytest.raises(ArtifactError, match=r"onnx proven on keras, and none of these opens it \(have: .*onnxruntime"):
        sbertconv.load(folder)


def test_the_functions_that_compare_are_those_of_the_run_time() -> None:
    assert MODEL_CLASSES["MultiVectorEncoder"].similarities == tuple(SIMILARITIES)


def test_every_label_has_a_name(content: dict[str, Any]) -> None:
    classifier = {**content, "model_class": "TextClassifier", "num_labels": 3, "labels": ["a"], "activation": "softmax"}
    assert problems_of(classifier) == ["labels: 1 names, and num_labels is 3"]
    assert not problems_of({**classifier, "num_labels": 1})


def test_all_wrong_values_are_named_at_once(content: dict[str, Any]) -> None:
    for keys, value, _ in (WRONG["a prompt"], WRONG["a side"], WRONG["no engines"]):
        content = changed(content, keys, value)
    assert len(problems_of(content)) == 3


def test_of_a_long_list_the_first_parts_are_looked_at_one_by_one(content: dict[str, Any]) -> None:
    """A file holds millions of numbers, and each takes its time."""
    for key, many in ((("graphs", 0, "tokenizer", "special_ids"), ["x"] * 5000),
                      (("prompts",), {str(number): 1 for number in range(5000)})):  # fmt: skip
        assert 0 < len(problems_of(changed(content, key, many))) <= MOST_PARTS
    late = [*range(5000), "x"]
    (problem,) = problems_of(changed(content, ("graphs", 0, "tokenizer", "special_ids"), late))
    assert problem == "graphs[0].tokenizer.special_ids: expected int, got str"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "levels deep"),
        ('{"format_version": 1, "format_version": 1}', "stands twice"),
        ("[1, 2]", "holds a list, not an object"),
        ('"\ud800', "not readable as JSON"),
    ],
)
def test_a_file_that_is_no_manifest_is_one_clear_error(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ArtifactError, match=said):
        read_artifact(tmp_path)


def places(content: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in nested dicts and lists."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in items:
        yield (*keys, name)
        yield from places(value, (*keys, name))


@pytest.mark.parametrize(
    "value",
    [None, MISSING, -1, 10**9, "zzz", "", [], {}, True],
    ids=["null", "missing", "negative", "large", "word", "empty word", "list", "dict", "true"],
)
def test_no_value_in_any_place_makes_a_traceback(
    value: Any, content: dict[str, Any], static_artifact: Path, copy_of: Any
) -> None:
    """The folder gives the vectors that it gave, or other ones that its manifest asks for, or one clear error."""
    folder = copy_of(static_artifact)
    for keys in places({key: part for key, part in content.items() if key not in ("parity", "versions", "files")}):
        wrong = changed(content, keys, value)
        if problems_of(wrong):
            continue
        (folder / MANIFEST).write_text(json.dumps(wrong))
        try:
            model = sbertconv.load(folder)
            vectors = model.encode(TEXTS)
            model.similarity(vectors, vectors)
        except SbertconvError:
            continue
        assert len(vectors) == len(TEXTS), keys
        assert np.isfinite(vectors).all(), keys


def test_what_is_written_has_no_key_that_the_types_do_not_know(content: dict[str, Any]) -> None:
    assert not problems_of(content, closed=True)
    added = changed(content, ("graphs", 0, "colour"), "blue")
    assert problems_of(added, closed=True) == ["graphs[0].colour is no key of a manifest"]
    assert not problems_of(added), "a newer version may say more"
