"""Long texts: what a model does beyond a number of its config is proven, or the model is refused."""

from __future__ import annotations

import json
import tempfile
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cases
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tiny import DECODER, LEFT, SMALL, WORDPIECE, tokenizer
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel

import sbertconv
from sbertconv import ParityError, UnsupportedModuleError, UnsupportedOptionError
from sbertconv.corpus.texts import long_text
from sbertconv.parity.budget import cut_note, fitting_length
from sbertconv.parity.comparison import Reference, _missing
from sbertconv.parity.lengths import ALL_TOKENS, LONGEST_FORWARD, lengths_to_ask, texts_of_lengths, whole_numbers
from sbertconv.parity.questions import LENGTHS_ALONE, Question
from sbertconv.runtime.batches import chunks

LIMIT = 512
LATENT = dict(
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
    num_key_value_heads=4,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    first_k_dense_replace=2,
    n_group=1,
    topk_group=1,
    index_topk=200,
    index_n_heads=2,
    index_head_dim=16,
)
ROPE = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0] * 4, long_factor=[4.0] * 4)
# model type -> (config, tokenizer): each changes what it does beyond a length
CHANGING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "deepseek_v32": (DECODER | LATENT, LEFT),
    "glm_moe_dsa": (DECODER | LATENT, LEFT),
    "phi3": (DECODER | dict(original_max_position_embeddings=256, rope_parameters=ROPE), LEFT),
    "big_bird": (SMALL | dict(attention_type="block_sparse", block_size=16, num_random_blocks=2), WORDPIECE),
}


def long_model(model_type: str) -> SentenceTransformer:
    """A tiny model with a limit of `LIMIT` tokens."""
    config_kwargs, tokenizer_kwargs = CHANGING[model_type]
    torch.manual_seed(7)
    text_tokenizer = tokenizer(**tokenizer_kwargs, max_length=LIMIT)
    pad = {"pad_token_id": text_tokenizer.pad_token_id}
    given = config_kwargs | pad | {"max_position_embeddings": LIMIT, "vocab_size": len(text_tokenizer)}
    return saved_and_loaded(AutoModel.from_config(AutoConfig.for_model(model_type, **given)), text_tokenizer)


def saved_and_loaded(model: Any, text_tokenizer: Any) -> SentenceTransformer:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        text_tokenizer.save_pretrained(folder)
        module = st.Transformer(folder, max_seq_length=LIMIT)
    mode = "lasttoken" if text_tokenizer.padding_side == "left" else "mean"
    return SentenceTransformer(
        modules=[module, st.Pooling(module.get_embedding_dimension(), mode), st.Normalize()], device="cpu"
    )


@pytest.mark.parametrize("model_type", CHANGING)
def test_a_model_that_changes_beyond_a_length_is_right_there_or_refused(model_type: str, tmp_path: Path) -> None:
    model = long_model(model_type)
    texts = [long_text(count) for count in (20, 220, 300, LIMIT)]
    before = model.encode(texts[:1])
    try:
        folder = sbertconv.to_onnx(model, tmp_path / "onnx").folder
    except (ParityError, UnsupportedModuleError):
        assert not (tmp_path / "onnx").exists()
        np.testing.assert_array_equal(model.encode(texts[:1]), before)  # nothing of the tracer stays in the model
        return
    for batch in ([text] for text in texts):
        np.testing.assert_allclose(sbertconv.load(folder).encode(batch), model.encode(batch), atol=1e-5)
    np.testing.assert_allclose(sbertconv.load(folder).encode(texts), model.encode(texts), atol=1e-5)


def test_every_number_of_a_config_is_asked_with_the_lengths_beside_it() -> None:
    config = {"window": 100, "nested": {"chunks": [37, {"original": 256}]}, "flag": True, "rate": 0.5, "vocab": 30_000}
    assert set(whole_numbers(config)) == {100, 37, 256, 30_000}
    asked = lengths_to_ask(512, whole_numbers(config))
    assert asked == sorted(asked)
    assert {*range(1, 17), 36, 37, 38, 99, 100, 101, 255, 256, 257, 32, 64, 128, 511, 512} == set(asked)


@pytest.mark.parametrize("limit", [1, 2, 17, 4096])
def test_lengths_keep_to_the_limit_and_cost_little(limit: int) -> None:
    asked = lengths_to_ask(limit, range(100_000))
    assert asked[-1] == limit
    assert asked[0] == 1
    assert sum(asked) <= ALL_TOKENS + limit


def test_texts_have_the_lengths_that_words_can_make() -> None:
    texts = texts_of_lengths([1, 2, 5, 30], lambda text: len(text.split()) + 2)  # two special tokens
    assert {length: len(text.split()) for length, text in texts.items()} == {2: 0, 5: 3, 30: 28}


def test_gaps_between_the_tokens_of_words_are_filled_with_short_ones() -> None:
    texts = texts_of_lengths(range(1, 17), lambda text: sum(4 if len(word) > 1 else 1 for word in text.split()))
    assert list(texts) == list(range(1, 17))


class Switching:
    """A side whose answers switch where the longest text of a batch has more than N tokens, which are its words."""

    owner = ""

    def __init__(self, beyond: int) -> None:
        self.beyond = beyond

    def call(self, question: Question) -> list[np.ndarray]:
        lengths = np.array([words_of(item) for item in question.inputs])
        found: list[np.ndarray] = [np.zeros(1, np.float32)] * len(lengths)
        for batch in chunks(np.argsort(-lengths), question.options["batch_size"]):
            for place in batch:
                found[place] = np.float32([lengths[batch].max() > self.beyond])
        return found

    def tokens(self, text: Any, task: str | None) -> dict[str, np.ndarray]:
        return {"input_ids": np.zeros((1, words_of(text)), np.int64)}

    def tokenizers(self) -> list[Any]:
        return []

    def poolings(self) -> list[Any]:
        return []

    def prompts(self) -> dict[str, str]:
        return {}

    def numbers(self) -> list[int]:
        return [self.beyond, 30_000]

    def written_out(self) -> Any:
        return nullcontext(False)


def words_of(item: Any) -> int:
    return len(" ".join(item).split() if isinstance(item, tuple) else item.split()) + 2


@pytest.mark.parametrize("limit", [300, 2048])
@pytest.mark.parametrize("model_class", ["SentenceTransformer", "MultiVectorEncoder", "CrossEncoder", "TextClassifier"])
def test_a_switch_by_the_longest_text_of_a_batch_is_seen_wherever_it_is(model_class: str, limit: int) -> None:
    tokenizer = SimpleNamespace(max_length=lambda task: limit, padding_side="right", takes_single=True)
    section = {"name": "text", "modality": "text", "tasks": [], "tokenizer": {"task_max_length": {}}}
    graph = SimpleNamespace(section=section, tokenizer=tokenizer, task=None, outputs=["sentence_embedding"])
    graph.artifact = SimpleNamespace(manifest={"model_class": model_class, "precision": "fp32"})
    section["guarded"] = [201]
    for beyond in range(65, 77):
        side = Switching(beyond)
        embedder: Any = SimpleNamespace(
            graphs=[graph],
            artifact=graph.artifact,
            tokenize=lambda texts, task=None, side=side: side.tokens(texts[0], task),
        )
        reference = Reference.of(side, embedder)
        assert reference.sees_padding
        asked = [question for question in reference.questions if question.name.endswith(LENGTHS_ALONE)]
        assert all(not question.missing for question in asked)
        lengths = {words_of(item) for question in asked for item in question.inputs}
        assert {beyond - 1, beyond, beyond + 1, 200, 201, 202, limit - 1, limit} <= lengths


def test_lengths_that_words_cannot_make_are_said() -> None:
    question = Question(LENGTHS_ALONE, [], missing=(17, 33))
    assert _missing(question) == "each length alone: not compared at 17, 33 tokens."
    assert _missing(replace(question, missing=tuple(range(20)))) == (
        "each length alone: not compared at 0, 1, 2, 3, 4, 5, 6, 7 and 12 more tokens."
    )
    assert _missing(Question(LENGTHS_ALONE, [])) is None


@pytest.mark.parametrize(
    ("per_token", "seconds", "fits"), [(0.0, 0.0, 8192), (0.001, 1e6, 8192), (0.001, 40.0, 1024), (1.0, 10.0, 0)]
)
def test_the_length_that_fits_is_found_with_few_forwards(per_token: float, seconds: float, fits: int) -> None:
    timed: list[int] = []

    def seconds_of(length: int) -> float:
        timed.append(length)
        return per_token * length

    assert fitting_length(8192, (100, 3000), seconds_of, seconds) == fits
    assert timed == sorted(timed)
    assert sum(timed) <= 8 * max(fits, 64)


@pytest.fixture(scope="module")
def cut_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose limit of 400 tokens is beyond its budget."""
    model = cases.chain(cases.static_embedding(400), st.Normalize())
    folder = tmp_path_factory.mktemp("cut") / "model"
    sbertconv.to_onnx(model, folder, proof_budget=0)
    return folder


LONG_TEXTS = [" ".join(["Berlin"] * 80 + ["people"] * 150 + ["fox"] * 100), "short"]


def test_no_text_longer_than_proven_is_answered_without_a_flag(cut_folder: Path) -> None:
    model = cases.chain(cases.static_embedding(400), st.Normalize())
    expected = model.encode(LONG_TEXTS)
    embedder = sbertconv.load(cut_folder)
    proven = embedder.artifact.manifest["proven_length"]
    assert 64 <= proven < 330
    assert embedder.max_seq_length == proven
    assert any(f"Proven up to {proven} tokens" in note for note in embedder.artifact.manifest["notes"])
    with pytest.warns(UserWarning, match=rf"cut at {proven} tokens.*limit: 400.*beyond_proof=True"):
        found = embedder.encode(LONG_TEXTS)
    assert embedder.tokenize(LONG_TEXTS)["input_ids"].shape[1] == proven
    assert np.abs(found - expected)[0].max() > 0.01
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedder.encode(LONG_TEXTS)  # once is enough
        whole = sbertconv.load(cut_folder, beyond_proof=True)
        np.testing.assert_allclose(whole.encode(LONG_TEXTS), expected, atol=1e-6)
        sbertconv.load(cut_folder).encode(" ".join(["fox"] * proven))  # just as long as proven
    assert whole.max_seq_length == 400
    with pytest.raises(UnsupportedOptionError):
        embedder.graphs[0].run(whole.tokenize(LONG_TEXTS))


def test_other_readers_of_a_cut_folder_cut_there_too(cut_folder: Path, tmp_path: Path) -> None:
    proven = sbertconv.load(cut_folder).artifact.limit
    assert Tokenizer.from_file(str(cut_folder / "tokenizer.json")).truncation["max_length"] == proven
    assert json.loads((cut_folder / "tokenizer_config.json").read_text())["model_max_length"] == proven
    model = cases.bert(cases.pooling("cls"), config={"max_position_embeddings": 300})
    folder = sbertconv.to_onnx(model, tmp_path / "model", proof_budget=0).folder
    proven = sbertconv.load(folder).artifact.limit
    assert proven is not None
    assert proven < 300
    assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == proven
    assert f"up to {proven}" in (folder / "README.md").read_text()


def test_a_cut_folder_is_verified_up_to_where_it_is_proven(cut_folder: Path) -> None:
    report = sbertconv.verify(cases.chain(cases.static_embedding(400), st.Normalize()), cut_folder)
    assert report.passed
    assert any("compared by their tokens alone" in note for note in report.notes)


def test_encode_lifts_the_cut_with_an_option(cut_folder: Path, cli: Any) -> None:
    expected = sbertconv.load(cut_folder, beyond_proof=True).encode(LONG_TEXTS[0])
    ran = cli("encode", cut_folder, LONG_TEXTS[0], "--beyond-proof")
    assert ran.code == 0
    np.testing.assert_allclose(json.loads(ran.out), expected, atol=1e-6)


def test_a_limit_within_the_budget_is_no_cut(tmp_path: Path) -> None:
    model = cases.chain(cases.static_embedding(5000), st.Normalize())
    manifest = sbertconv.to_onnx(model, tmp_path / "default").manifest
    assert manifest["proven_length"] == LONGEST_FORWARD
    manifest = sbertconv.to_onnx(model, tmp_path / "budget", proof_budget=1000).manifest
    assert manifest["proven_length"] == 5000
    assert not any("Proven up to" in note for note in manifest["notes"])
    assert not any("tokens alone" in note for note in manifest["parity"]["notes"])


def test_text_input_is_refused_where_its_limit_is_not_proven() -> None:
    tokenizer = SimpleNamespace(max_length=lambda task: 400)
    graph = SimpleNamespace(section={"modality": "text"}, tokenizer=tokenizer)
    embedder: Any = SimpleNamespace(graphs=[graph], artifact=SimpleNamespace(manifest={"text_input": True}))
    assert cut_note(embedder, 400) is None
    with pytest.raises(UnsupportedOptionError, match=r"limit of 400 tokens.*up to 92[^$]*proof_budget="):
        cut_note(embedder, 92)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_budget_is_no_negative_number(seconds: float, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match="proof_budget="):
        sbertconv.to_onnx(cases.static(), tmp_path / "model", proof_budget=seconds)


def test_a_limit_of_no_tokens_is_refused_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModuleError, match="a limit of 0 tokens leaves nothing"):
        sbertconv.to_onnx(cases.chain(cases.static_embedding(max_length=0)), tmp_path / "model")
