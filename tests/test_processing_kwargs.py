"""The processing_kwargs of a Transformer: the library's own tokens and pixels, or a refusal by name. About 10 s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import tiny
from class_cases import causal_reranker
from PIL import Image
from sentence_transformers.base.modality import InputFormatter
from sentence_transformers.sentence_transformer import modules as st

import sbertconv
from sbertconv.errors import UnsupportedOptionError
from sbertconv.plan.preprocessing import describe_input, token_limit
from sbertconv.runtime.tokenization import load_tokenizer

TEXTS = ["", "a fox", "How many people live in Berlin? [SEP] </s> " * 12, "The quick brown fox jumps over the dog."]


def transformer(model_type: str = "bert", **kwargs: Any) -> Any:
    config = {"num_hidden_layers": 1} if model_type != "t5" else {}
    return st.Transformer(str(tiny.transformer_folder(model_type, **config)), processing_kwargs=kwargs)


HONOURED: dict[str, dict[str, dict[str, Any]]] = {
    "a limit": {"text": {"max_length": 9}},
    "a limit that is null": {"text": {"max_length": None}},
    "a limit of common": {"common": {"max_length": 7}},
    "common wins": {"text": {"max_length": 20}, "common": {"max_length": 7}},
    "longest first": {"text": {"truncation": "longest_first", "padding": "longest"}},
    "not cut": {"text": {"truncation": False}},
    "not cut, with a limit": {"text": {"truncation": "do_not_truncate", "max_length": 9}},
    "no special tokens": {"text": {"add_special_tokens": False, "max_length": 12}},
    "padded on the left": {"text": {"padding_side": "left"}},
    "padded on the right": {"common": {"padding_side": "right"}},
    "special tokens split": {"text": {"split_special_tokens": True}},
    "no types": {"text": {"return_token_type_ids": False}},
    "what changes nothing": {
        "text": {"stride": 0, "return_length": False, "pad_to_multiple_of": None, "verbose": True}
    },
    "of other modalities": {"audio": {"padding": "max_length"}, "video": {"fps": 2}},
}


@pytest.mark.filterwarnings("ignore:`max_length` is ignored")  # transformers, of what is not cut
@pytest.mark.parametrize("task", [None, "query"])
@pytest.mark.parametrize("model_type", ["bert", "qwen3"])
@pytest.mark.parametrize("name", HONOURED)
def test_tokens_are_the_librarys(name: str, model_type: str, task: str | None, tmp_path: Path) -> None:
    kwargs = HONOURED[name]
    if model_type == "qwen3" and "return_token_type_ids" in kwargs.get("text", {}):
        pytest.skip("a tokenizer without types")
    module = transformer(model_type, **kwargs)
    module.query_length = 6
    described = describe_input(module)
    for file, text in described.files.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    texts = [text for text in TEXTS if text or described.section["add_special_tokens"]]
    ours = load_tokenizer(described.section, tmp_path)(texts, task)
    theirs = module.preprocess(texts, task=task)
    assert set(ours) == {key for key, value in theirs.items() if hasattr(value, "shape")}
    for key, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[key], err_msg=key)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"text": {"padding": "max_length"}}, "padding='max_length' is not supported .have: True, 'longest'"),
        ({"text": {"padding": False}}, "padding=False"),
        ({"common": {"pad_to_multiple_of": 8}}, "pad_to_multiple_of=8 .*have: None"),
        ({"text": {"truncation": "only_first"}}, "truncation='only_first'"),
        ({"text": {"stride": 4}}, "stride=4"),
        ({"text": {"return_token_type_ids": 1}}, "return_token_type_ids=1"),
        ({"text": {"return_attention_mask": False}}, "return_attention_mask=False"),
        ({"text": {"text_pair": "b", "max_length": 4}}, "text_pair is not supported for texts .have: max_length"),
        ({"common": {"do_resize": True}}, "do_resize is not supported for texts"),
    ],
    ids=str,
)
def test_what_is_not_honoured_is_refused_by_name(kwargs: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=reason):
        describe_input(transformer(**kwargs))


def test_what_a_template_has_itself_is_refused() -> None:
    module: Any = causal_reranker(num_hidden_layers=1)[0]
    module.tokenizer.chat_template = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}"
    module.input_formatter = InputFormatter(module.config.model_type, processor=module.tokenizer)
    entry = module.modality_config["text"]
    module.modality_config = {"text": entry, "message": {**entry, "format": "flat"}}
    for kwargs, reason in (
        ({"text": {"add_special_tokens": True}}, "add_special_tokens is not supported for messages"),
        ({"text": {"logits_to_keep": 0}}, r"logits_to_keep=0 is not supported \(have: 1\)"),
        ({"chat_template": {"max_length": 9}}, "chat_template: max_length is not supported"),
    ):
        module.processing_kwargs = kwargs
        with pytest.raises(UnsupportedOptionError, match=reason):
            describe_input(module)


def test_expanded_queries_keep_their_widths() -> None:
    module = transformer(text={"truncation": True})
    module.query_expansion = {"strategy": "fixed", "attend": False, "length": 9, "token": None}
    with pytest.raises(UnsupportedOptionError, match="truncation is not supported beside query_expansion"):
        describe_input(module)


def test_a_folder_keeps_them(tmp_path: Path) -> None:
    """All the way: saved by the library, converted, and equal to encode()."""
    kwargs = {"text": {"return_token_type_ids": False, "max_length": 11}, "common": {"padding_side": "left"}}
    model = cases.chain(transformer(**kwargs), cases.pooling("mean"))
    model.save_pretrained(str(tmp_path / "saved"))
    converted: Any = sbertconv.load(sbertconv.to_onnx(tmp_path / "saved", tmp_path / "model").folder)
    np.testing.assert_allclose(converted.encode(TEXTS[1:]), model.encode(TEXTS[1:]), atol=1e-5, rtol=1e-5)
    assert converted.max_seq_length == 11


@pytest.mark.parametrize(
    "kwargs",
    [
        {"image": {"do_normalize": False}},
        {"image": {"image_mean": [0.1, 0.2, 0.3]}, "common": {"do_rescale": True}},
        {"image": {"size": {"shortest_edge": 40}}, "text": {"max_length": 9}},
    ],
    ids=str,
)
def test_pixels_are_the_librarys(kwargs: dict[str, Any], tmp_path: Path) -> None:
    from sbertconv.plan.images import describe_image
    from sbertconv.runtime.images import pixel_values
    from sbertconv.source.routes import find_routes

    model = cases.MODULES["clip as a transformer"].build()
    model[0].processing_kwargs = kwargs
    (route,) = [route for route in find_routes(model) if route.modality == "image"]
    section: Any = describe_image(route.modules[0][1])
    noise = np.random.default_rng(4).integers(0, 255, (50, 34, 3), dtype=np.uint8)
    theirs = model.preprocess([Image.fromarray(noise)])["pixel_values"]
    np.testing.assert_allclose(pixel_values([noise], section), theirs, atol=1e-5)
    model[0].processing_kwargs = {"image": {"do_pad": True}}
    with pytest.raises(UnsupportedOptionError, match="do_pad is not supported for images"):
        describe_image(route.modules[0][1])


@pytest.mark.parametrize("length", ["9", float("nan"), {}, [9], 0])
def test_a_limit_that_is_no_number_of_tokens_is_refused(length: Any) -> None:
    module = transformer(text={"max_length": length})
    with pytest.raises(UnsupportedOptionError, match="tokens leaves nothing of a text"):
        token_limit(module, module.tokenizer)


@pytest.mark.parametrize("kwargs", [{"audio": None}, {"text": [1]}, [], "x", {"common": 5}])
def test_what_is_no_object_of_keywords_is_refused(kwargs: Any, bert_folder: Path, copy_of: Any) -> None:
    file = copy_of(bert_folder) / "sentence_bert_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, "processing_kwargs": kwargs}), encoding="utf-8")
    with pytest.raises(sbertconv.SourceError, match=r"processing_kwargs: .* an object of objects"):
        sbertconv.inspect(file.parent)
