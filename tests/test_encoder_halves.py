"""The encoders of encoder-decoders, from checkpoints of the whole model: equal to encode(), or a refusal where the
library's own encoder is random. About 40 s, most of it conversions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import tiny
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

import sbertconv

TEXTS = ["", "a fox", "How many people live in Berlin? " * 12]
LAYERS = 2
T5 = {name: value for name, value in tiny.ARCHITECTURES["t5"][0].items() if name != "num_layers"}
T5 |= {"num_layers": LAYERS, "num_decoder_layers": 1}
BART = {
    "d_model": 32, "encoder_layers": LAYERS, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "init_std": 0.3,
}  # fmt: skip
GEMMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8, "initializer_range": 0.3,
    "max_position_embeddings": 64,
}  # fmt: skip
LOADED = {"mt5": T5, "umt5": T5, "t5gemma": {"encoder": GEMMA, "decoder": GEMMA | {"num_hidden_layers": 1}}}
RANDOM = {"m2m_100": BART, "pegasus": BART, "marian": BART,
          "pegasus_x": BART | {"block_size": 8, "num_global_tokens": 4}}  # fmt: skip


def checkpoint(folder: Path, model_type: str, config: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The whole model, encoder, decoder and head, and its tokenizer, as people publish it."""
    tokenizer = tiny.tokenizer("unigram", add_eos_only=True)
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    parts = {name: {**value, **ids} if isinstance(value, dict) else value for name, value in config.items()}
    torch.manual_seed(7)
    made = AutoConfig.for_model(model_type, **parts, **ids, decoder_start_token_id=0)
    AutoModelForSeq2SeqLM.from_config(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("model_type", LOADED)
def test_the_encoder_of_a_whole_model_is_converted(model_type: str, tmp_path: Path) -> None:
    checkpoint(tmp_path / "whole", model_type, LOADED[model_type])
    model = SentenceTransformer(str(tmp_path / "whole"), device="cpu")
    artifact = sbertconv.to_onnx(tmp_path / "whole", tmp_path / "model")
    assert artifact.manifest["graphs"][0]["attention"]["found"] == LAYERS  # no decoder's
    ours = sbertconv.load(artifact.folder).encode(TEXTS)
    np.testing.assert_allclose(ours, model.encode(TEXTS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", RANDOM)
def test_an_encoder_that_the_library_makes_up_is_refused_with_a_way_out(model_type: str, tmp_path: Path) -> None:
    tokenizer = checkpoint(tmp_path / "whole", model_type, RANDOM[model_type])
    first, second = (SentenceTransformer(str(tmp_path / "whole"), device="cpu").encode("a fox") for _ in range(2))
    assert np.abs(first - second).max() > 0.1  # where this fails, the library has learnt to load it
    with pytest.raises(sbertconv.SourceError, match=r"in model\.encoder, where \w+Encoder does not look"):
        sbertconv.to_onnx(tmp_path / "whole", tmp_path / "model")
    whole: Any = AutoModel.from_pretrained(tmp_path / "whole")
    whole.get_encoder().save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    found = sbertconv.pipeline(tmp_path / "encoder")
    tokens = tokenizer(TEXTS[1:], return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        vectors = whole.get_encoder().eval()(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        expected = (vectors * mask).sum(1) / mask.sum(1)
        ours = found(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    torch.testing.assert_close(ours["sentence_embedding"], expected, atol=1e-5, rtol=1e-5)


def test_an_encoder_of_sound_is_refused_by_name(tmp_path: Path) -> None:
    config = WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8, vocab_size=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(tmp_path / "whole")
    WhisperFeatureExtractor(feature_size=8).save_pretrained(tmp_path / "whole")
    model = cases.chain(st.Transformer(str(tmp_path / "whole")), st.Pooling(32))
    with pytest.raises(sbertconv.SbertconvError, match=r"takes audio.*\(have: text, image\)"):
        sbertconv.to_onnx(model, tmp_path / "model")
