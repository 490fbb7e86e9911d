"""Long texts: what a model does beyond a number of its config is proven, or the model is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tiny import DECODER, LEFT, SMALL, WORDPIECE, tokenizer
from transformers import AutoConfig, AutoModel

import sbertconv
from sbertconv import ParityError, UnsupportedModuleError
from sbertconv.corpus.texts import long_text
from sbertconv.parity.lengths import ALL_TOKENS, lengths_to_ask, texts_of_lengths, whole_numbers

LIMIT = 2048
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
    """A tiny model with a limit of 2,048 tokens."""
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
    texts = [long_text(count) for count in (20, 300, 700, LIMIT)]
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
    assert [len(text.split()) for text in texts] == [0, 3, 28]
