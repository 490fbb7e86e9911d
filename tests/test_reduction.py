"""Smaller models: fewer tokens, equal to the last bit; fewer layers and token vectors, behind a gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import Ran, snapshot
from safetensors import safe_open
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import sbertconv
from sbertconv.errors import ArtifactError, ParityError, SourceError, UnsupportedModuleError, UnsupportedOptionError
from sbertconv.reduction import trimming
from sbertconv.reduction.distilling import principal
from sbertconv.reduction.layers import chosen
from sbertconv.reduction.scripts import is_within, script_of, scripts_of
from sbertconv.reduction.vocabularies import Pieces

KEPT = ["The quick brown fox jumps over the lazy dog.", "Die Vögel zwitschern.", "", "vector 3,850 🎉"]
OTHER = ["مرحبا بالعالم", "How many people live in Berlin?"]
MANY = [f"{one} {other}" for one in tiny.LINES for other in tiny.LINES[:6]]
LOOSE = {"min_spearman": 0.0, "min_top10": 0.0}


@pytest.fixture(scope="module")
def folder_of(built_once: Any) -> Callable[[str], Path]:
    def build(kind: str) -> Path:
        return Path(built_once(f"reduce-{kind}", lambda folder: tiny.architecture(kind).save_pretrained(str(folder))))

    return build


def rows_of(model: SentenceTransformer) -> int:
    return len(model[0].model.get_input_embeddings().weight)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "qwen2", "roberta", "t5", "mpnet"])
def test_kept_texts_have_the_same_embedding_to_the_last_bit(
    kind: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folder_of(kind)
    made = sbertconv.trim(folder, tmp_path / "out", keep=KEPT, sample=OTHER)
    before, after = (SentenceTransformer(str(place), device="cpu") for place in (folder, made.folder))
    assert np.array_equal(before.encode(KEPT), after.encode(KEPT))
    assert rows_of(after) == after[0].model.config.vocab_size == made["rows"].after < rows_of(before)
    assert len(after.tokenizer) == rows_of(after)
    for name in ("pad", "unk", "cls", "sep", "mask"):
        number = getattr(after.tokenizer, f"{name}_token_id")
        row, own = (m[0].model.get_input_embeddings().weight for m in (after, before))
        assert torch.equal(row[number], own[getattr(before.tokenizer, f"{name}_token_id")])
    assert made["changed_share"].after == sum(
        before.tokenizer.tokenize(text) != after.tokenizer.tokenize(text) for text in OTHER
    ) / len(OTHER)
    assert made["bytes"].after < made["bytes"].before
    assert made.example == OTHER[0]
    assert OTHER[0] not in (made.folder / "sbertconv.json").read_text(encoding="utf-8")
    assert after.encode(OTHER).shape == (2, 32)
    assert sbertconv.inspect(made.folder)["model_class"] == "SentenceTransformer"  # what every command opens


def test_positions_that_are_counted_from_the_padding_stay(
    folder_of: Callable[[str], Path], copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(folder_of("roberta"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 12}))
    made = sbertconv.trim(folder, tmp_path / "out", keep=KEPT)
    before, after = (SentenceTransformer(str(place), device="cpu") for place in (folder, made.folder))
    assert np.array_equal(before.encode(KEPT), after.encode(KEPT))
    assert after[0].model.config.pad_token_id == 12


def test_half_precision_prompts_and_other_modules_stay(tmp_path: Path) -> None:
    import cases

    model = cases.bert(cases.pooling(), cases.dense(), prompts={"query": "frage: "})
    model.half().save_pretrained(str(tmp_path / "model"))
    (tmp_path / "model/README.md").write_text("the card")
    torch.save(torch.nn.Linear(32, 1).state_dict(), tmp_path / "model/sparse_linear.pt")  # as beside BGE-M3
    made = sbertconv.trim(tmp_path / "model", tmp_path / "out", keep=KEPT)
    assert (made.folder / "sparse_linear.pt").read_bytes() == (tmp_path / "model/sparse_linear.pt").read_bytes()
    with safe_open(made.folder / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}  # noqa: SIM118
    before, after = (SentenceTransformer(str(tmp_path / name), device="cpu") for name in ("model", "out"))
    assert np.array_equal(*(m.float().encode(KEPT, prompt_name="query") for m in (before, after)))
    assert (made.folder / "README.md").read_text() == "the card"


def test_a_live_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = tiny.architecture("bert")
    before, rows = model.encode(KEPT), rows_of(model)
    sbertconv.trim(model, tmp_path / "out", keep=KEPT)
    assert rows_of(model) == rows
    assert np.array_equal(model.encode(KEPT), before)


def test_a_static_model_and_a_reranker_are_trimmed_too(static_folder: Path, tmp_path: Path) -> None:
    texts = ["the quick fox", "one"]
    made = sbertconv.trim(static_folder, tmp_path / "static", keep=texts)
    before, after = (SentenceTransformer(str(place), device="cpu") for place in (static_folder, made.folder))
    assert np.array_equal(before.encode(texts), after.encode(texts))
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    words = tiny.tokenizer("wordpiece", token_type_ids=True)
    config = AutoConfig.for_model("bert", vocab_size=len(words), num_labels=1, **tiny.SMALL)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "pairs")
    words.save_pretrained(tmp_path / "pairs")
    sbertconv.trim(tmp_path / "pairs", tmp_path / "reranker", keep=KEPT, model_class="CrossEncoder")
    one, other = (CrossEncoder(str(tmp_path / name), device="cpu") for name in ("pairs", "reranker"))
    assert np.array_equal(*(m.predict([(KEPT[0], KEPT[1])]) for m in (one, other)))


def cut(tokenizer: Tokenizer, texts: list[str]) -> tuple[Tokenizer, dict[int, int]]:
    """The tokenizer with what these texts need."""
    holder = trimming.Holder("0", torch.nn.Module(), "", torch.nn.Embedding(1, 1), tokenizer)
    source: Any = type("Source", (), {"folder": None, "name": "it"})()
    model: Any = type("Model", (), {"preprocess": lambda self, texts: {}})()
    options = trimming.TrimOptions(keep=tuple(texts))
    choice = trimming.Choice.of(holder, source, options, frozenset(), model, [""])
    return choice.opened, dict(choice.new)


def test_a_word_that_was_unknown_stays_so() -> None:
    """WordPiece takes the longest piece and finds no rest; without that piece a shorter one would have one."""
    vocabulary = {"[UNK]": 0, "ab": 1, "abc": 2, "##cx": 3, "z": 4, "q": 5}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert tokenizer.encode("abcx").tokens == ["[UNK]"]
    smaller, _ = cut(tokenizer, ["abcx", "ab", "zcx"])
    assert [smaller.encode(text).tokens for text in ("abcx", "ab", "zcx")] == [["[UNK]"], ["ab"], ["z", "##cx"]]
    assert set(smaller.get_vocab()) == set(vocabulary) - {"q"}


def test_merges_are_closed_and_bytes_stay() -> None:
    tokenizer = Tokenizer.from_str(tiny.backend_tokenizer("bpe"))
    texts = [KEPT[0], "embeddings ok"]
    smaller, numbers = cut(tokenizer, texts)
    model = json.loads(smaller.to_str())["model"]
    assert all({first, second, first + second} <= set(model["vocab"]) for first, second in model["merges"])
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(model["vocab"])
    assert len(model["vocab"]) < tokenizer.get_vocab_size()
    for text in texts:
        assert [numbers[number] for number in tokenizer.encode(text).ids] == smaller.encode(text).ids
    assert smaller.decode(smaller.encode("机器 🎉").ids) == "机器 🎉"  # in bytes, and nothing unknown


def test_scores_and_the_score_of_the_unknown_stay() -> None:
    """An unknown character is scored below the worst piece, so that piece stays; so do the pieces of bytes."""
    vocabulary = [
        ("<unk>", 0.0),
        ("<0x41>", -9.0),
        ("a", -2.0),
        ("b", -3.0),
        ("ab", -4.0000001),
        ("zz", -20.0),
        ("c", -1),
    ]
    smaller, numbers = cut(Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True)), ["ab", "a?"])
    kept = json.loads(smaller.to_str())["model"]
    assert [tuple(entry) for entry in kept["vocab"]] == [entry for entry in vocabulary if entry[0] != "c"]
    assert numbers == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}


def test_a_table_of_words_is_cut_and_another_kind_is_refused_by_name() -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "one": 1, "two": 2, "three": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    smaller, _ = cut(tokenizer, ["two four"])
    assert smaller.get_vocab() == {"<unk>": 0, "two": 1}
    with pytest.raises(UnsupportedModuleError, match=r"its tokenizer is a Lattice \(have: WordPiece, Unigram"):
        Pieces({"model": {"type": "Lattice"}}, "it")


def test_a_language_keeps_every_piece_of_its_letters(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    before = set(SentenceTransformer(str(folder_of("xlm-roberta")), device="cpu").tokenizer.get_vocab())
    made = sbertconv.trim(folder_of("xlm-roberta"), tmp_path / "out", languages=["de"], sample=KEPT[:2] + OTHER[:1])
    after = set(SentenceTransformer(str(made.folder), device="cpu").tokenizer.get_vocab())
    letters = {piece: [script_of(letter) for letter in piece] for piece in before - {"▁"}}
    assert {piece for piece, scripts in letters.items() if set(scripts) <= {"Latin", ""}} <= after
    assert not [piece for piece in after if {"Arabic", "Thai", "Han"} & set(letters.get(piece, ()))]
    assert (made["changed_share"].after, made["kept_texts"].after) == (1 / 3, 2)  # the texts that keep their tokens


def test_scripts_are_told_by_letters() -> None:
    assert scripts_of(["ja", "Cyrillic"]) == {"Han", "Hiragana", "Katakana", "Cyrillic"}
    assert is_within("Straße, 3!", scripts_of(["de"]))
    assert not is_within("straßeж", scripts_of(["latin"]))
    with pytest.raises(UnsupportedOptionError, match=r"languages=\['xx'\]: not known \(have: Latin, .*Han; af, am"):
        scripts_of(["de", "xx"])


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, UnsupportedOptionError, "neither says which tokens stay"),
        ({"keep": KEPT, "languages": ["tlh"]}, UnsupportedOptionError, "not known"),
        ({"languages": ["th"], "sample": KEPT[:2]}, UnsupportedOptionError, "nothing could be proven"),
    ],
)
def test_nothing_is_left_behind_by_what_is_refused(
    options: dict[str, Any], error: type[Exception], said: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        sbertconv.trim(folder_of("bert"), tmp_path / "out", **options)
    assert not any(tmp_path.iterdir())


def test_one_other_bit_publishes_nothing(
    folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = trimming.cut_rows

    def wrong(holder: trimming.Holder, *more: Any) -> None:
        honest(holder, *more)
        with torch.no_grad():
            holder.module.model.get_input_embeddings().weight.mul_(1 + 2**-20)

    monkeypatch.setattr(trimming, "cut_rows", wrong)
    with pytest.raises(ParityError, match=r"another answer than the original's in 'encode\(\) of every kept text'"):
        sbertconv.trim(folder_of("bert"), tmp_path / "out", keep=KEPT)
    assert not any(tmp_path.iterdir())


def test_a_model_without_one_vocabulary_is_refused_with_its_chain(tmp_path: Path) -> None:
    import cases

    with pytest.raises(UnsupportedModuleError, match=r"0 modules with a tokenizer.*\(have: \[0\] WordEmbeddings"):
        sbertconv.trim(cases.chain(cases.word_embeddings(), cases.pooling()), tmp_path / "out", keep=["the fox"])
    assert not any(tmp_path.iterdir())


def test_layers_are_left_out_and_the_gate_sees_it(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    made = sbertconv.shorten(folder_of("bert"), tmp_path / "out", layers="1,", texts=MANY, **LOOSE)
    before, after = (SentenceTransformer(str(place), device="cpu") for place in (folder_of("bert"), made.folder))
    assert after[0].model.config.num_hidden_layers == len(after[0].model.encoder.layer) == 1
    one, other = before[0].model.encoder.layer[1].state_dict(), after[0].model.encoder.layer[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    (quality,) = made.parity.quality
    cosines = (before.encode(MANY) * after.encode(MANY)).sum(1)
    assert quality.min_cosine == pytest.approx(cosines.min(), abs=1e-5)
    assert (made["layers"].before, made["layers"].after) == (2, 1)
    folder, seen = made.folder, snapshot(made.folder)
    with pytest.raises(ParityError, match=r"min_cosine=.*Nothing was written"):
        sbertconv.shorten(folder_of("bert"), folder, layers="1", texts=MANY, min_cosine=1.0, overwrite=True)
    assert snapshot(folder) == seen
    with pytest.raises(ArtifactError, match="exists already"):
        sbertconv.shorten(folder_of("bert"), folder, layers="1", texts=MANY)


def test_what_a_config_says_of_each_layer_is_cut_along(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    made = sbertconv.shorten(folder_of("gemma3_text"), tmp_path / "out", layers="1", texts=MANY, **LOOSE)
    config = json.loads((made.folder / "config.json").read_text())
    assert config["layer_types"] == ["sliding_attention"]


@pytest.mark.parametrize("verb", ["trim", "shorten", "to_static"])
def test_a_model_of_sounds_is_refused(verb: str, tmp_path: Path) -> None:
    import cases

    options = {"trim": {"keep": ("a text",)}, "shorten": {"layers": "0"}, "to_static": {}}[verb]
    with pytest.raises(UnsupportedModuleError, match="takes audio"):
        getattr(sbertconv, verb)(cases.whisper(), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_layer_that_cannot_stand_elsewhere_is_refused(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises((UnsupportedModuleError, SourceError), match=r"would be another one at place 0|missing"):
        sbertconv.shorten(folder_of("t5"), tmp_path / "out", layers="1,", texts=MANY, **LOOSE)
    assert not any(tmp_path.iterdir())


def test_layers_are_numbers_that_the_model_has() -> None:
    assert (chosen("3", 6), chosen("0, 2,5", 6), chosen("4,", 6)) == ([0, 1, 2], [0, 2, 5], [4])
    for wrong in ("", "x", "-1", "6", "0", "5,6", "2,1", "1,1", "999999999", "9" * 5000):  # more than fills the memory
        with pytest.raises(UnsupportedOptionError, match=f"^layers='{wrong[:90]}.*1 to 5"):
            chosen(wrong, 6)


def test_token_vectors_are_a_model_of_their_own(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    made = sbertconv.to_static(folder_of("bert"), tmp_path / "out", dim=8, texts=MANY, **LOOSE)
    after = SentenceTransformer(str(made.folder), device="cpu")
    assert [type(module).__name__ for module in after] == ["StaticEmbedding", "Normalize"]
    assert after.get_embedding_dimension() == made["dim"].after == 8
    vectors = after.encode(["the fox", "fox the", "people", "[CLS]"])
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)
    assert not vectors[3].any()  # no vector of a special token
    (quality,) = json.loads((made.folder / "sbertconv.json").read_text())["parity"]["quality"]
    assert "min_cosine" not in quality
    assert quality["spearman"] > 0
    modules = sbertconv.inspect(made.folder)["modules"]
    assert not any(result["problem"] for module in modules for result in module["backends"].values())


def test_main_directions_keep_all_distances_and_the_largest_first() -> None:
    vectors = (np.random.default_rng(0).normal(size=(50, 6)) * np.arange(1, 7)).astype(np.float32)
    found = principal(vectors, np.ones(50), 6)
    for side in (vectors, found):
        side -= side.mean(0)
    assert found @ found.T == pytest.approx(vectors @ vectors.T, abs=1e-3)
    assert (np.diff(found.var(0)) < 0).all()


def test_a_gate_has_enough_texts_to_choose_neighbours_among(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=r"texts=: 4 different texts \(have: 50 and more\)"):
        sbertconv.to_static(folder_of("bert"), tmp_path / "out", texts=KEPT)
    assert not any(tmp_path.iterdir())


def test_the_commands_print_what_became_smaller(
    folder_of: Callable[[str], Path], tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    (tmp_path / "keep.txt").write_text("\n".join(KEPT) + "\n", encoding="utf-8")
    (tmp_path / "many.txt").write_text("\n".join(MANY) + "\n", encoding="utf-8")
    ran = cli("trim", folder_of("bert"), tmp_path / "small", "--keep", tmp_path / "keep.txt")
    assert (ran.code, ran.said) == (0, "")
    assert all(word in ran.out for word in ("encode() of every kept text", "exact", "change their tokens", "Load it"))
    assert "yardstick" not in ran.out
    before = sorted(tmp_path.iterdir())
    ran = cli("trim", folder_of("bert"), tmp_path / "other", "--keep", tmp_path / "keep.txt", "--dry-run")
    assert (ran.code, ran.said) == (0, "")
    assert all(word in ran.out for word in ("encode() of every kept text", "exact", "Nothing was written."))
    assert "Load it" not in ran.out
    assert sorted(tmp_path.iterdir()) == before
    ran = cli("to-static", folder_of("bert"), tmp_path / "s", "--eval", tmp_path / "many.txt", "--json", "--dim", "4")
    printed = json.loads(ran.out)
    assert printed["figures"]["dim"] == {"before": 32, "after": 4} if not ran.code else printed["folder"] is None
    command = ("shorten", folder_of("bert"), tmp_path / "x", "--layers", "1", "--eval", tmp_path / "many.txt")
    ran = cli(*command, "--min-spearman", "1")
    assert ran.code == 3
    assert "below the gate" in ran.out + ran.err
    assert "--min-spearman" in ran.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "marks", [{"end_of_word_suffix": "</w>"}, {"continuing_subword_prefix": "##"}, {"byte_fallback": True}, {}]
)
def test_merges_with_marks_of_words_are_closed(marks: dict[str, Any]) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", **marks))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marked = {key: value for key, value in marks.items() if key != "byte_fallback"}
    tokenizer.train_from_iterator(
        tiny.LINES, trainers.BpeTrainer(vocab_size=300, show_progress=False, special_tokens=["<unk>"], **marked)
    )
    texts = [tiny.LINES[1], "vectors of people ☃"]
    smaller, numbers = cut(tokenizer, texts)
    assert smaller.get_vocab_size() < tokenizer.get_vocab_size()
    for text in texts:
        assert [numbers[number] for number in tokenizer.encode(text).ids] == smaller.encode(text).ids


@pytest.mark.parametrize(("row", "said"), [("clip", "takes image too"), ("weighted layers", "A module of its chain")])
def test_layers_of_images_or_for_other_modules_are_no_layers_to_leave_out(row: str, said: str, tmp_path: Path) -> None:
    import cases

    model = {"clip": cases.clip, "weighted layers": cases.weighted_layers}[row]()
    with pytest.raises(sbertconv.SbertconvError, match=said):
        sbertconv.shorten(model, tmp_path / "out", layers="1", texts=MANY, **LOOSE)
    assert not any(tmp_path.iterdir())


def test_a_text_with_half_a_character_is_refused(static_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match="half a character"):
        sbertconv.trim(static_folder, tmp_path / "out", keep=["fine", "\ud800"])
    assert not any(tmp_path.iterdir())


def test_files_beside_the_weights_do_not_decide_their_type(
    folder_of: Callable[[str], Path], copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(folder_of("bert"))
    (folder / "junk.safetensors").write_bytes(b"\x01")
    assert sbertconv.trim(folder, tmp_path / "out", keep=KEPT)["rows"].after > 0


def test_a_vocabulary_without_words_gives_no_token_vectors(
    folder_of: Callable[[str], Path], copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(folder_of("bert"))
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = settings["model"]["vocab"]
    special = {entry["content"] for entry in settings["added_tokens"]}
    settings["model"]["vocab"] = {token: number for token, number in vocabulary.items() if token in special}
    (folder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(UnsupportedModuleError, match="its vocabulary has no tokens of texts"):
        sbertconv.to_static(folder, tmp_path / "out", texts=MANY, **LOOSE)
    assert not (tmp_path / "out").exists()
