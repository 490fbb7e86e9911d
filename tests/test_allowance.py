"""Settings that ask for more than a model's files hold: memory, tensors, code, places."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LongformerConfig, LongformerModel

import sbertconv
from sbertconv import SourceError
from sbertconv.source import allowance
from sbertconv.source.allowance import Allowance
from sbertconv.source.files import read_json
from sbertconv.source.opening import open_source
from sbertconv.source.weights import refuse_excess


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers: 1000000000"),
        ("config.json", {"a": [{"b": {"num_layers": 1001}}]}, "num_layers: 1001"),
        ("config.json", {"depths": [1, 30_000_000]}, r"depths: \[1, 30000000\]"),
        ("config.json", {"b": {"num_layers": [[1], [1000]]}}, r"num_layers: \[\[1\], \[1000\]\]"),
        ("config.json", {"block_repeats": [1, 10**8]}, "block_repeats"),
        ("config.json", {"stage_num_blocks": [10**8]}, "stage_num_blocks"),
        ("config.json", {"num_feat_extract_layers": 10**8}, "num_feat_extract_layers: 100000000"),
        ("config.json", {"num_self_attends_per_block": 10**8}, "num_self_attends_per_block"),
        ("config.json", {"L_cycles": 10**8}, "L_cycles"),
        ("config.json", {"num_local_experts": 10**8}, "num_local_experts"),
        ("config.json", {"vision_config": {"num_labels": 10**9}}, "num_labels: 1000000000"),
        ("config.json", {"num_labels": 10**9}, "num_labels: 1000000000"),
        ("config.json", {"max_position_embeddings": 10**12}, "max_position_embeddings: 1000000000000"),
        ("config.json", {"text_config": {"_attn_implementation": "a/b"}}, "without a slash"),
        ("sentence_bert_config.json", {"model_args": {"attn_implementation": "a/b"}}, "without a slash"),
        (
            "sentence_bert_config.json",
            {"model_args": {"weights_only": False}},
            "an object without keywords that unpickle",
        ),
        ("sentence_bert_config.json", {"model_kwargs": {"allow_all_kernels": True}}, "keywords that unpickle"),
        ("sentence_bert_config.json", {"tokenizer_args": {"vocab_file": "/etc/passwd"}}, "keywords that unpickle"),
        ("sentence_bert_config.json", {"config_args": {"num_labels": 10**9}}, "num_labels: 1000000000"),
        ("sentence_bert_config.json", {"tokenizer_name_or_path": "a/b"}, "a model has its own tokenizer"),
        ("config.json", {"path": "/etc/weights.json"}, "a module has its own weights"),
        ("tokenizer_config.json", {"extra_ids": 60_000_000}, "extra_ids: 60000000"),
        ("tokenizer_config.json", {"max_depth": 10**9, "model_max_length": 10**30}, "max_depth: 1000000000"),
    ],
)
def test_a_setting_that_asks_for_too_much_is_named(
    file: str, change: dict[str, Any], said: str, bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_folder)
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps({**content, **change}), encoding="utf-8")
    with pytest.raises(SourceError, match=said):
        sbertconv.inspect(folder)
    (folder / "modules.json").unlink()  # the same of a checkpoint without files of sentence-transformers
    with pytest.raises(SourceError, match=said):
        sbertconv.inspect(folder)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came of: transformers' own report of weights replaces ours."""
    while error is not None:
        yield error
        error = error.__context__


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"intermediate_size": 10**7}),
        ("config.json", {"vocab_size": 10**7}),
        ("2_Dense/config.json", {"in_features": 60_000, "out_features": 60_000}),
    ],
)
def test_a_weight_that_no_file_holds_is_not_made(
    file: str, change: dict[str, Any], bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_folder)
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps({**content, **change}), encoding="utf-8")
    with pytest.raises(SourceError) as raised, open_source(folder).loaded():
        pass
    assert any("ask for more than its files hold" in str(error) for error in causes(raised.value))


def test_more_tensors_than_models_have_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "MOST_TENSORS", 10)
    with pytest.raises(SourceError, match="11 tensors"), Allowance(None):
        torch.nn.ModuleList(torch.nn.Linear(1, 1, device="meta") for _ in range(20))


def test_views_and_changes_in_place_are_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "FREE", 4000)
    with Allowance(Path("nowhere")):
        one = torch.zeros(1000)
        for _ in range(10):
            one.view(10, 100).add_(1)
        with pytest.raises(SourceError, match=r"of 8,000 bytes"):
            torch.zeros(1000)


def test_a_tensor_that_is_too_large_is_never_made() -> None:
    one = torch.zeros(1 << 20)
    held = Allowance(Path("nowhere"))
    for make in (
        lambda: torch.empty(1 << 50),
        lambda: one[:, None] + one,
        lambda: torch.nn.functional.pad(one, (0, 1 << 50)),
        lambda: torch.arange(1 << 50),
    ):
        with pytest.raises(SourceError, match="ask for more than its files hold"), held:
            make()
    assert held.taken == 0


def test_memory_that_was_let_go_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "FREE", 20_000)
    with Allowance(Path("nowhere")) as held:
        for _ in range(10):
            first, _ = torch.zeros(1000).sort()
            del first, _
    assert (held.taken, held.count) == (0, 20)


def test_what_only_numbers_tell_is_counted_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "FREE", 4000)
    counts = torch.tensor([1000])
    with pytest.raises(SourceError, match="8,000 bytes"), Allowance(Path("nowhere")):
        counts.repeat_interleave(counts)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"FREE": 10, "TIMES": 0}, "of [0-9,]+ bytes"), ({"MOST_TENSORS": 3}, "4 tensors")],
)
def test_the_first_answer_of_a_model_is_bounded(
    changed: dict[str, int], said: str, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_source(bert_folder).loaded() as model:
        for name, value in changed.items():
            monkeypatch.setattr(allowance, name, value)
        with pytest.raises(SourceError, match=f"mine: its settings .*{said}"):
            refuse_excess(model, bert_folder, "mine")


def test_what_is_made_of_an_input_before_the_model_gets_it_is_bounded(
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_source(bert_folder).loaded() as model:
        monkeypatch.setattr(model, "preprocess", lambda inputs: np.zeros(1 << 31, np.uint8))
        with pytest.raises(SourceError, match="mine: its settings make more than 512 MiB of one text"):
            refuse_excess(model, bert_folder, "mine")


def test_settings_that_only_a_forward_reads_are_bounded(
    bert_folder: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(bert_folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = LongformerConfig(
        **sizes, vocab_size=settings["vocab_size"], max_position_embeddings=66, attention_window=[2_000_000]
    )
    LongformerModel(config).save_pretrained(folder)
    pooling = json.loads((folder / "1_Pooling/config.json").read_text(encoding="utf-8"))
    settings = {**pooling, "word_embedding_dimension": 16, "embedding_dimension": 16}
    (folder / "1_Pooling/config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(SourceError, match="ask for more than its files hold"), open_source(folder).loaded():
        pass


@pytest.mark.parametrize("name", ["vocab.json", "added_tokens.json"])
def test_a_token_of_a_vocabulary_is_no_setting(name: str, bert_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert_folder)
    (folder / name).write_text(json.dumps({"path": 22_609, "depth": 18_053, "num_layers": 9999}), encoding="utf-8")
    assert sbertconv.inspect(folder)


@pytest.mark.parametrize(("words", "value"), [("word_weights", 6.5), ("label2id", 31_000), ("prompts", "query: ")])
def test_a_word_is_no_setting(words: str, value: Any, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({words: {"num_layers": value, "depth": value}}), encoding="utf-8")
    assert read_json(file)


def test_a_token_is_no_setting(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": {"vocab": {"num_layers": 31_000}}}), encoding="utf-8")
    assert read_json(file)["model"]["vocab"] == {"num_layers": 31_000}
