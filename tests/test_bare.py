"""Plain transformers checkpoints: what they are read as, unless told otherwise. About 12 s, two conversions."""

from __future__ import annotations

from pathlib import Path

import class_cases
import numpy as np
import pytest
import tiny
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import sbertconv


def causal_checkpoint() -> Path:
    """A causal language model whose vocabulary has a yes and a no."""
    where = class_cases.saved(AutoModelForCausalLM, "qwen3", None, class_cases.YES_OR_NO)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(where), AutoTokenizer.from_pretrained(where)
    tokenizer.add_tokens(["yes", "no"])
    torch.manual_seed(7)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    own = tmp_path_factory.mktemp("own")
    tiny.architecture("bert").save_pretrained(str(own))
    return {
        "features": tiny.transformer_folder("bert"),
        "three labels": class_cases.sentiment("bert"),
        "one label": class_cases.checkpoint("bert", 1),
        "causal": causal_checkpoint(),
        "own": own,
    }


@pytest.mark.parametrize(
    ("folder", "options", "expected"),
    [
        ("features", {}, ("SentenceTransformer", "mean")),
        ("features", {"pooling": "cls"}, ("SentenceTransformer", "cls")),
        ("causal", {}, ("SentenceTransformer", "lasttoken")),
        ("three labels", {}, ("TextClassifier", None)),
        ("three labels", {"model_class": "CrossEncoder"}, ("CrossEncoder", None)),
        ("three labels", {"model_class": "SentenceTransformer", "pooling": "max"}, ("SentenceTransformer", "max")),
        ("one label", {}, ("CrossEncoder", None)),
        ("one label", {"model_class": "TextClassifier"}, ("TextClassifier", None)),
        ("own", {"model_class": "SentenceTransformer"}, ("SentenceTransformer", "mean")),
    ],
)
def test_what_a_checkpoint_is_read_as(
    folder: str, options: dict[str, str], expected: tuple[str, str | None], folders: dict[str, Path]
) -> None:
    found = sbertconv.inspect(folders[folder], **options)
    pooling = [module["settings"]["pooling_mode"] for module in found["modules"] if module["name"] == "Pooling"]
    assert (found["model_class"], *(pooling or [None])) == expected
    assert bool(found["notes"]) == (folder != "own")


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("features", {"model_class": "Reranker"}, r"Reranker.*have: SentenceTransformer, .*CrossEncoder"),
        ("features", {"model_class": "CrossEncoder"}, r"holds a BertModel \(have: SentenceTransformer"),
        (
            "causal",
            {"model_class": "TextClassifier"},
            r"holds a Qwen3ForCausalLM \(have: SentenceTransformer, CrossEnc",
        ),
        ("own", {"model_class": "CrossEncoder"}, "is a SentenceTransformer, and says so itself"),
        ("own", {"pooling": "mean"}, "a chain of its own"),
        ("one label", {"pooling": "mean"}, "is a CrossEncoder with a chain of its own"),
        ("features", {"pooling": "median"}, r"pooling='median': not known \(have: cls, max, mean"),
    ],
)
def test_what_it_cannot_be_is_refused(
    folder: str, options: dict[str, str], message: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match=message):
        sbertconv.inspect(folders[folder], **options)


def test_a_pooling_and_the_token_embeddings_below_it(folders: dict[str, Path], tmp_path: Path) -> None:
    outputs = ["sentence_embedding", "token_embeddings"]
    artifact = sbertconv.to_onnx(folders["features"], tmp_path / "onnx", pooling="max", outputs=outputs)
    module = st.Transformer(str(folders["features"]))
    model = SentenceTransformer(modules=[module, st.Pooling(32, "max")], device="cpu")
    texts = ["a text", "", "Berlin " * 60]
    converted = sbertconv.load(artifact.folder)
    np.testing.assert_allclose(converted.encode(texts), model.encode(texts), atol=1e-5, rtol=1e-5)
    hidden = module.model(**{name: model.preprocess([texts[0]])[name] for name in ("input_ids", "attention_mask")})
    (ours,) = converted.encode(texts[:1], output_value="token_embeddings")
    np.testing.assert_allclose(ours, hidden.last_hidden_state[0].detach(), atol=1e-5, rtol=1e-5)
    assert sbertconv.verify(folders["features"], artifact.folder).passed


def test_a_causal_checkpoint_as_a_reranker(folders: dict[str, Path], tmp_path: Path) -> None:
    model = CrossEncoder(str(folders["causal"]), device="cpu")
    expected = model.predict(class_cases.PAIRS)
    assert np.ptp(expected) > 0.01
    artifact = sbertconv.to_torch(folders["causal"], tmp_path / "torch", model_class="CrossEncoder")
    found = sbertconv.load(artifact.folder, format=artifact.formats[0]).predict(class_cases.PAIRS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sbertconv.verify(folders["causal"], artifact.folder).passed


def test_an_image_encoder_opens_from_its_folder(tmp_path: Path) -> None:
    """Its config names the stages whose features it gives, under a key that elsewhere holds a number."""
    import cases

    cases.dinov2().save_pretrained(str(tmp_path / "images"))
    assert sbertconv.inspect(tmp_path / "images")["modules"][0]["name"] == "Transformer"
