"""The tokenizer inside the graph: exact for every kind of tokenizer, in every emitter; what is not known is refused."""

from __future__ import annotations

import json
import random
import unicodedata
from dataclasses import replace as altered
from functools import cache
from typing import Any

import cases
import numpy as np
import pytest
import tiny
from class_cases import PAIRS, cross_encoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

import sbertconv
from sbertconv.artifact.text_input import UNLIMITED
from sbertconv.errors import TokenizationError, UnsupportedOptionError
from sbertconv.plan.preprocessing import SECTION, tokenizer_json
from sbertconv.runtime.tokenization import FastTokenizer
from sbertconv.text import TokenizerSettings as Settings
from sbertconv.text import compile_tokenizer, prove
from sbertconv.text.charsmap import Charsmap, read_charsmap, write_charsmap
from sbertconv.text.components import real
from sbertconv.text.numpy_emitter import NumpyEmitter
from sbertconv.text.onnx_emitter import OnnxEmitter, encoded, murmur_hash
from sbertconv.text.onnx_graph import session_runner, tokenizer_graph
from sbertconv.text.proof import expected, reference
from sbertconv.text.storage import dumps, loads
from sbertconv.text.words import CLIP, EXPRESSIONS

ALL = ("input_ids", "token_type_ids", "attention_mask")
FUZZ = 500  # a conversion runs 20,000


def changed(tokenizer: str, **sections: Any) -> str:
    """A tokenizer.json with other sections; a mapping is merged into the section that is there."""
    found = json.loads(tokenizer)
    for name, section in sections.items():
        found[name] = {**found[name], **section} if isinstance(section, dict) and found.get(name) else section
    return json.dumps(found)


def with_tokens(tokenizer: str, *tokens: dict[str, Any]) -> str:
    """With added tokens after those that are there."""
    found = json.loads(tokenizer)
    flags = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
    first = Tokenizer.from_str(tokenizer).get_vocab_size()
    found["added_tokens"] += [{"id": first + n, **flags, **token} for n, token in enumerate(tokens)]
    return json.dumps(found)


def sequence(*normalizers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(normalizers)}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


UNCASED = tiny.backend_tokenizer("wordpiece")
FLAGGED = (
    {"content": "[SPACED]", "lstrip": True, "rstrip": True, "special": True},
    {"content": "word", "single_word": True, "normalized": True},
    {"content": "[SPACED][SPACED]"},
    {"content": "Fuchs", "normalized": True, "lstrip": True},
)
TOKENIZERS: dict[str, tuple[str, Settings]] = {
    "wordpiece": (UNCASED, Settings(ALL, 48)),
    "wordpiece, cased, left": (
        tiny.backend_tokenizer("wordpiece", lowercase=False),
        Settings(ALL, 12, truncation_side="left", padding_side="left", pad_id=3, pad_type_id=1),
    ),
    "wordpiece, accents": (changed(UNCASED, normalizer={"strip_accents": False}), Settings()),
    "wordpiece, nothing normalized": (
        changed(UNCASED, normalizer=None),
        Settings(add_special_tokens=False),
    ),
    "wordpiece, added tokens": (with_tokens(UNCASED, *FLAGGED), Settings(max_length=30)),
}


@cache
def sentencepiece_bpe() -> str:
    """As Llama has it: a text is one word, bytes stand for unknown characters, and a token's every way to be cut in two
    is a merge, which puts some merges before those that make their parts.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(tiny.LINES * 3, trainers.BpeTrainer(vocab_size=900, special_tokens=special))
    found = json.loads(tokenizer.to_str())
    found["pre_tokenizer"]["split"] = False
    found["added_tokens"] = found["added_tokens"][:3]
    vocabulary = found["model"]["vocab"]
    found["model"]["merges"] = [
        [token[:cut], token[cut:]]
        for token in sorted(vocabulary, key=vocabulary.get)
        for cut in range(1, len(token))
        if token not in special and token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    found["post_processor"] = json.loads(processor.__getstate__())
    return json.dumps(found)


UNIGRAM = tiny.backend_tokenizer("unigram")
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
XLM_R = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}
DEBERTA = [
    {"type": "Lowercase"},
    replace({"Regex": " {2,}"}, " "),
    {"type": "NFC"},
    {"type": "Strip", "strip_left": False, "strip_right": True},
]
ISOLATED = {"type": "Punctuation", "behavior": "Isolated"}
TOKENIZERS |= {
    "unigram, nfkc": (UNIGRAM, Settings(max_length=48)),
    "unigram, words of white space": (
        with_tokens(changed(UNIGRAM, normalizer=None, pre_tokenizer=None), *FLAGGED).replace(
            '"pre_tokenizer": null', f'"pre_tokenizer": {json.dumps(XLM_R)}'
        ),
        Settings(max_length=64),
    ),
    "unigram, like deberta": (
        changed(
            changed(UNIGRAM, normalizer=None, pre_tokenizer=None),
            normalizer=sequence(*DEBERTA),
            pre_tokenizer={"type": "Sequence", "pretokenizers": [ISOLATED, METASPACE]},
        ),
        Settings(padding_side="left"),
    ),
}


BYTES = tiny.backend_tokenizer("bpe")
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def by_expression(tokenizer: str, expression: str) -> str:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    sequence = {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]}
    return changed(changed(tokenizer, pre_tokenizer=None, normalizer=None), pre_tokenizer=sequence, normalizer=NFC)


NFC = {"type": "NFC"}
SPACE_RUNS = [{"content": " " * count, "normalized": True} for count in range(2, 9)]
TOKENIZERS |= {
    "bpe, like roberta": (
        with_tokens(
            changed(BYTES, pre_tokenizer={"add_prefix_space": True}),
            {"content": "<blank>", "lstrip": True, "special": True},
        ),
        Settings(max_length=48),
    ),
    "bpe, like modernbert": (with_tokens(changed(BYTES, normalizer=NFC), *SPACE_RUNS), Settings(max_length=48)),
    "bpe, lower-cased by sentence-transformers": (
        changed(changed(BYTES, normalizer=None), normalizer=sequence({"type": "Lowercase"}, NFC)),
        Settings(max_length=48),
    ),
    "bpe, like qwen": (by_expression(BYTES, list(EXPRESSIONS)[1]), Settings(max_length=64, padding_side="left")),
    "bpe, numbers of three digits": (by_expression(BYTES, list(EXPRESSIONS)[2]), Settings()),
    "bpe, like llama": (sentencepiece_bpe(), Settings(max_length=64)),
    "bpe, like gemma": (
        changed(
            changed(sentencepiece_bpe(), pre_tokenizer=None),
            normalizer=replace({"String": " "}, "▁"),
            pre_tokenizer={
                "type": "Split",
                "pattern": {"String": " "},
                "behavior": "MergedWithPrevious",
                "invert": False,
            },
        ),
        Settings(max_length=64),
    ),
    "bpe, like the first llama": (
        changed(
            changed(sentencepiece_bpe(), pre_tokenizer=None),
            normalizer=sequence({"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁")),
        ),
        Settings(max_length=64),
    ),
    "bpe, unknown characters": (
        changed(sentencepiece_bpe(), model={"byte_fallback": False, "fuse_unk": True}),
        Settings(),
    ),
    "bpe, unknown characters one by one": (
        changed(sentencepiece_bpe(), model={"byte_fallback": False, "fuse_unk": False}),
        Settings(),
    ),
}


def word_end_bpe(**options: str) -> str:
    """As GPT-1 and CLIP have it: a word's last character, or all but its first, has a form of its own."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", **options))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        [line.lower() for line in tiny.LINES], trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], **options)
    )
    return str(tokenizer.to_str())


def clip() -> str:
    """With every byte as a token, alone and at a word's end, and merges from the lines."""
    found = json.loads(changed(word_end_bpe(end_of_word_suffix="</w>"), normalizer=None))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = dict.fromkeys([*alphabet, *(f"{c}</w>" for c in alphabet)])
    merges = [
        pair for pair in found["model"]["merges"] if all(set(p.removesuffix("</w>")) <= {*alphabet} for p in pair)
    ]
    vocabulary |= dict.fromkeys(["".join(pair) for pair in merges])
    ids = {token: number for number, token in enumerate([*vocabulary, "<|startoftext|>", "<|endoftext|>"])}
    found["model"] |= {"vocab": ids, "merges": merges, "unk_token": "<|endoftext|>"}
    found["added_tokens"] = []
    split = {"type": "Split", "pattern": {"Regex": CLIP}, "behavior": "Removed", "invert": True}
    found["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL | {"use_regex": True}]}
    found["normalizer"] = sequence(NFC, replace({"Regex": r"\s+"}, " "), {"type": "Lowercase"})
    start, end = (["<|startoftext|>", len(ids) - 2], ["<|endoftext|>", len(ids) - 1])
    found["post_processor"] = {"type": "RobertaProcessing", "sep": end, "cls": start, "trim_offsets": False,
                               "add_prefix_space": False}  # fmt: skip
    ends = [{"id": number, "content": content, "special": True} for content, number in (start, end)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    found["added_tokens"] = [flags | token for token in ends[:1]]  # the other one may be typed in the text
    return json.dumps(found)


def like_llama_3() -> str:
    """Many tokens without a merge that makes them; they are found all the same where they are whole words."""
    found = json.loads(by_expression(BYTES, list(EXPRESSIONS)[2]))
    found["normalizer"] = None
    merges = found["model"]["merges"]
    found["model"] |= {"ignore_merges": True, "merges": merges[: len(merges) // 2]}
    begin = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
             {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens":
             {"<s>": {"id": "<s>", "ids": [2], "tokens": ["<s>"]}}}  # fmt: skip
    found["post_processor"] = {"type": "Sequence", "processors": [BYTE_LEVEL, begin]}
    return json.dumps(found)


TOKENIZERS |= {
    "bpe, like the first gpt": (
        changed(word_end_bpe(end_of_word_suffix="</w>"), normalizer=json.loads(UNCASED)["normalizer"]),
        Settings(max_length=64),
    ),
    "bpe, words go on with a sign": (word_end_bpe(continuing_subword_prefix="##"), Settings()),
    "bpe, words go on and end with a sign": (
        changed(word_end_bpe(continuing_subword_prefix="##", end_of_word_suffix="</w>"), model={"fuse_unk": True}),
        Settings(),
    ),
    "bpe, like clip": (clip(), Settings(max_length=77)),
    "bpe, like llama 3": (like_llama_3(), Settings(max_length=64, padding_side="left")),
}


@cache
def charsmap() -> dict[str, str]:
    """Like SentencePiece's nmt_nfkc: compatibility forms, controls and spaces; composed keys, one of them against all
    sense, which must win over nothing longer and lose to nothing shorter.
    """
    letters = map(chr, (*range(0xA0, 0xD800), *range(0xE000, 0x30000)))
    forms = {c: form for c in letters if (form := unicodedata.normalize("NFKC", c)) != c}
    composed = {form: chr(c) for c in range(0xC0, 0x250) if len(form := unicodedata.normalize("NFD", chr(c))) == 2}
    spaces = dict.fromkeys("\t\n\r\u2028\u3000\u200b\ufeff", " ")
    controls = dict.fromkeys(map(chr, (1, 2, 0x7F, 0x8F, 0xAD)), "")
    odd = {"\r\n": "<nl>", "x\u0301\u0302": "<x>", "\u0600a": "<sign a>", "©": "(c)", "क": "k", "ㄱ": "g", "q": "Q"}
    return forms | composed | spaces | controls | odd


def unigram(normalizer: Any, pre_tokenizer: Any, **sections: Any) -> str:
    bare = changed(UNIGRAM, normalizer=None, pre_tokenizer=None)
    return changed(bare, normalizer=normalizer, pre_tokenizer=pre_tokenizer, **sections)


def with_bytes() -> str:
    """Bytes stand for unknown characters, and the unknown token may be typed in the text."""
    found = json.loads(UNIGRAM)
    found["model"]["vocab"] += [[f"<0x{byte:02X}>", -30.0] for byte in range(256)]
    found["model"]["byte_fallback"] = True
    found["added_tokens"] = [token for token in found["added_tokens"] if token["content"] != "<unk>"]
    return json.dumps(found)


PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": write_charsmap(charsmap())}
QUOTES = [replace({"String": "``"}, '"'), replace({"String": "''"}, '"')]
ALBERT = [*QUOTES, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, PRECOMPILED,
          replace({"Regex": " {2,}"}, " ")]  # fmt: skip
LINES = replace({"Regex": r"\s{2,}|[\n\r\t]"}, " ")
TEMPLATE = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 2}}],
            "pair": [], "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]}
                                           for name, number in (("</s>", 3), ("<s>", 2))}}  # fmt: skip
TOKENIZERS |= {
    "unigram, like xlm-roberta": (unigram(PRECOMPILED, XLM_R), Settings(max_length=48)),
    "unigram, like t5": (
        changed(
            tiny.backend_tokenizer("unigram", add_eos_only=True),
            normalizer=None,
            pre_tokenizer=XLM_R["pretokenizers"][1],
        ),
        Settings(max_length=48),
    ),
    "unigram, like bge-m3": (
        unigram(sequence(PRECOMPILED, replace({"Regex": " {2,}"}, " ")), METASPACE),
        Settings(max_length=48),
    ),
    "unigram, like albert and xlnet": (
        changed(unigram(sequence(*ALBERT), XLM_R, post_processor=None), post_processor=TEMPLATE),
        Settings(ALL, 48, padding_side="left", pad_type_id=3),
    ),
    "unigram, like deberta in transformers 5": (
        unigram(
            sequence(LINES, {"type": "NFC"}, {"type": "Strip", "strip_left": False, "strip_right": True}), METASPACE
        ),
        Settings(max_length=48),
    ),
    "unigram, bytes": (with_bytes(), Settings(max_length=64)),
}


ROBERTA = {"type": "RobertaProcessing", "sep": ["</s>", 3], "cls": ["<s>", 2], "trim_offsets": True,
           "add_prefix_space": False}  # fmt: skip
BERT = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
TOKENIZERS |= {
    "wordpiece, of other components": (
        changed(
            changed(UNCASED, normalizer=None, pre_tokenizer=None, post_processor=None),
            normalizer=sequence(
                {"type": "Strip", "strip_left": True, "strip_right": True},
                {"type": "NFKD"},
                {"type": "StripAccents"},
                {"type": "Lowercase"},
                replace({"String": "ß"}, "ss"),
                replace({"Regex": " {2,}"}, ""),
            ),
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [{"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}],
            },
            post_processor=BERT,
        ),
        Settings(ALL, 40),
    ),
}


TOKENIZERS |= {
    "wordpiece, pairs": (UNCASED, Settings(ALL, 30, pair=True)),
    "wordpiece, pairs, left": (
        changed(changed(UNCASED, post_processor=None), post_processor=BERT),
        Settings(ALL, 17, truncation_side="left", padding_side="left", pair=True),
    ),
    "wordpiece, pairs, nothing added": (changed(UNCASED, post_processor=None), Settings(ALL, 24, pair=True)),
    "bpe, pairs": (
        changed(changed(BYTES, post_processor=None), post_processor=ROBERTA),
        Settings(ALL, 33, pair=True),
    ),
    "unigram, pairs of any length": (UNIGRAM, Settings(ALL, pair=True)),
    "wordpiece, a limit for each task": (UNCASED, Settings(ALL, 24, limits=(1, 8, 24, UNLIMITED))),
    "wordpiece, pairs, a limit for each task": (UNCASED, Settings(ALL, 24, pair=True, limits=(2, 7, 24))),
    "wordpiece, no room for the special tokens": (UNCASED, Settings(ALL, 1)),
}


def numpy_runner(tables: Any) -> Any:
    settings = tables.framing.settings
    return lambda texts, limit: {
        name: tensor.value for name, tensor in tables(NumpyEmitter(), settings.feeds(texts, limit)).items()
    }


def onnx_runner(tables: Any) -> Any:
    return session_runner(tokenizer_graph(tables).SerializeToString(), tables.framing.settings)


def tensorflow_runner(tables: Any) -> Any:
    """As a Keras layer inside a functional model."""
    import keras
    import tensorflow as tf

    from sbertconv.layers import TextInput

    settings = tables.framing.settings
    dtypes = {name: "string" if dtype == "string" else "int32" for name, dtype in settings.inputs.items()}
    inputs = {name: keras.Input(shape=(), dtype=dtype, name=name) for name, dtype in dtypes.items()}
    model = keras.Model(inputs, TextInput(settings.tensors, tables)(inputs))
    run = tf.function(model, input_signature=[{name: tf.TensorSpec([None], dtype) for name, dtype in dtypes.items()}])

    def tokens(batch: Any, limit: Any) -> Any:
        feeds = settings.feeds(batch, limit)
        made = run({name: tf.constant(feeds[name].tolist(), dtype, [len(batch)]) for name, dtype in dtypes.items()})
        return {name: value.numpy() for name, value in made.items()}

    return tokens


RUNNERS = {"onnx": onnx_runner, "tensorflow": tensorflow_runner}


@cache
def compiled(kind: str) -> Any:
    return compile_tokenizer(*TOKENIZERS[kind])


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("emitter", RUNNERS)
def test_tokens_are_those_of_the_tokenizer(kind: str, emitter: str) -> None:
    tokenizer, settings = TOKENIZERS[kind]
    tables = loads(dumps(compiled(kind)))  # as a .keras file holds them
    proof = prove(RUNNERS[emitter](tables), tokenizer, settings, tables, fuzz=FUZZ, seed=1)
    assert proof.fuzz == FUZZ
    assert proof.tokens > 5 * FUZZ


def test_scores_are_those_of_the_model_to_the_last_bit(tmp_path: Any) -> None:
    """The last bit decides between ways of the same sum, and the library misreads it in a tokenizer.json."""
    rounded = np.linspace(-13, -3, 500, dtype=np.float32).tolist()  # as SentencePiece has them
    scores = {"<unk>": -20.0, "a": -6.1, "a" * 16: -9.7} | {f"b{n}": score for n, score in enumerate(rounded)}
    own = Tokenizer(models.Unigram(list(scores.items()), 0))
    section = {**SECTION, "add_special_tokens": False}
    written = tokenizer_json(own, section, None)
    (tmp_path / "tokenizer.json").write_text(written, encoding="utf-8")
    settings = Settings()
    read = FastTokenizer(section, tmp_path / "tokenizer.json").backend
    for found in (read, reference(written, settings)):
        assert dict(json.loads(found.to_str())["model"]["vocab"]) == scores
    texts = ["a" * count for count in range(200)]
    made = numpy_runner(compile_tokenizer(written, settings))(texts, None)
    np.testing.assert_array_equal(made["input_ids"], expected(own, texts, settings)["input_ids"])


def test_every_character_is_read_back_from_its_hash() -> None:
    import onnx
    import onnxruntime

    emitter = OnnxEmitter()
    codes = emitter.characters(["text"])
    graph = onnx.helper.make_graph(
        emitter.nodes,
        "characters",
        [onnx.helper.make_tensor_value_info("text", onnx.TensorProto.STRING, ["n"])],
        [onnx.helper.make_tensor_value_info(codes.value, onnx.TensorProto.INT32, ["m"])],
        emitter.initializers,
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    every = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    (found,) = session.run(None, {"text": np.array(["".join(map(chr, every)), "", "\x00a"], object)})
    end = 0x110000
    assert found.tolist() == [end, *every, end, end, 0, 97, end]


def test_hashes_are_murmur_hashes() -> None:
    assert murmur_hash(ord("a"), 1, 0) == 1009084850
    assert [len(encoded(count)) for count in (1, 2, 3, 4)] == [0x80, 0x780, 0xF000, 0x100000]


@pytest.mark.parametrize("kind", ["wordpiece", "unigram, nfkc", "bpe, like qwen", "bpe, like llama"])
def test_a_long_text_without_spaces_and_an_empty_batch(kind: str) -> None:
    tokenizer, settings = TOKENIZERS[kind]
    unlimited = altered(settings, max_length=None)
    tables = altered(compiled(kind), framing=altered(compiled(kind).framing, settings=unlimited))
    run = onnx_runner(tables)
    empty = run([], None)
    assert [tensor.shape for tensor in empty.values()] == [(0, empty["input_ids"].shape[1])] * len(settings.tensors)
    draw = random.Random(0)
    texts = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=100_000)), "a"]
    theirs = expected(reference(tokenizer, unlimited), texts, unlimited)
    for name, tensor in run(texts, None).items():
        np.testing.assert_array_equal(tensor, theirs[name])


JOINING = [
    *"axq©®☺👍🏻\u200d\u0301\u0302\u0327\u0345\u0e33\u0903कতকক়্্ि\u0600\u110bd\r\n\u200b\x00각가각🇦\ufe0f\u1160㋿é"
]


def test_clusters_are_those_of_the_library() -> None:
    normalizer = {"type": "Precompiled", "precompiled_charsmap": write_charsmap(charsmap())}
    assert read_charsmap(normalizer["precompiled_charsmap"]) == charsmap()
    function = real("normalizer", normalizer).normalize_str
    draw = random.Random(0)
    texts = ["".join(draw.choices(JOINING, k=draw.randrange(1, 8))) for _ in range(20_000)]
    ops = NumpyEmitter()
    found = Charsmap.of(normalizer["precompiled_charsmap"], 1)(ops, ops.characters([texts])).value
    expected = [0x110000, *(code for text in texts for code in (*map(ord, function(text)), 0x110000))]
    assert found.tolist() == expected


UNKNOWN = {
    "spaces that become several characters": (
        changed(UNIGRAM, normalizer=replace({"Regex": " {2,}"}, "__")).replace('"type": "NFKC", ', ""),
        ('"__" (have: one character)',),
    ),
    "every unknown component is named": (
        changed(UNCASED, normalizer=[], pre_tokenizer={"type": "UnicodeScripts"})
        .replace('"normalizer": []', '"normalizer": {"type": "ByteLevel"}'),
        ("normalizer ByteLevel", "pre_tokenizer UnicodeScripts", "have: BertNormalizer"),
    ),
    "added tokens that overlap": (
        with_tokens(UNCASED, {"content": "[RIGHT]", "rstrip": True}, {"content": "  "}),
        ("'[RIGHT]' takes the spaces on its right, and '  ' begins with one",),
    ),
    "added tokens that the normalizer makes equal": (
        with_tokens(UNCASED, *({"content": content, "normalized": True} for content in ("Wort", "WÖRT", "wort"))),
        ("'Wort' and 'WÖRT' are both 'wort' once normalized", "'Wort' and 'wort' are both"),
    ),
    "an unknown token that is none, wordpiece": (
        changed(UNCASED, model={"unk_token": "<none>"}),
        ('model WordPiece: unk_token "<none>" is not in the vocabulary',),
    ),
    "an unknown token that is none, bpe": (
        changed(BYTES, model={"unk_token": ""}),
        ('model BPE: unk_token "" is not in the vocabulary',),
    ),
    "an expression that is like a known one": (
        by_expression(BYTES, list(EXPRESSIONS)[1].replace("]?\\p{L}+", "]?[\\p{L}\\p{M}]+")),
        ("]?[\\\\p{L}\\\\p{M}]+|", "]?\\\\p{L}+|"),
    ),
    "everything at once": (
        with_tokens(
            changed(
                changed(UNCASED, normalizer=None),
                normalizer=sequence({"type": "ByteLevel"}, replace({"Regex": r"\s+"}, "ab")),
                pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
                model={"max_input_chars_per_word": 100, "unheard_of": 1},
            ),
            {"content": "[RIGHT]", "rstrip": True},
            {"content": "  "},
        ),
        ("normalizer ByteLevel", '"ab" (have: one character)', "prepend_scheme='first'", "unheard_of=1", "'[RIGHT]'"),
    ),
    "an unknown option": (
        changed(UNCASED, model={"byte_fallback": True}),
        ("model WordPiece: option byte_fallback=true",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known_is_refused(case: str) -> None:
    tokenizer, messages = UNKNOWN[case]
    with pytest.raises(UnsupportedOptionError) as caught:
        compile_tokenizer(tokenizer, Settings())
    for message in messages:
        assert message in str(caught.value)


def test_a_differing_token_is_an_error_that_names_the_fault() -> None:
    settings = Settings()
    other = compile_tokenizer(changed(UNCASED, normalizer={"lowercase": False}), settings)
    with pytest.raises(TokenizationError) as caught:
        prove(numpy_runner(other), UNCASED, settings, other, fuzz=0)
    assert "at fault: the normalizer" in str(caught.value)
    assert "the tokenizer: [CLS] the quick" in str(caught.value)


def test_a_converted_model_takes_texts(bert_text_artifact: Any, bert_folder: Any) -> None:
    import onnxruntime
    from sentence_transformers import SentenceTransformer

    model = sbertconv.load(bert_text_artifact)
    manifest = model.artifact.manifest
    assert manifest["text_input"]
    assert manifest["graphs"][0]["inputs"] == [{"name": "text", "dtype": "string", "shape": ["batch"]}]
    assert manifest["graphs"][0]["text"]["fuzz"] == 20_000

    session = onnxruntime.InferenceSession(bert_text_artifact / "onnx/model.onnx")
    texts = ["query: one text", "query: Ünïcödé and [SEP] typed", "query: "]
    (vectors,) = session.run(None, {"text": np.array(texts, object)})
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    bare = [text.removeprefix("query: ") for text in texts]
    np.testing.assert_allclose(model.encode(bare, "query"), expected, atol=1e-5)


def test_a_keras_model_takes_texts(tmp_path: Any, bert_folder: Any, monkeypatch: Any) -> None:
    import tensorflow as tf

    monkeypatch.setattr("sbertconv.text.proof.FUZZ", FUZZ)
    artifact = sbertconv.to_tf(bert_folder, tmp_path / "model", text_input=True)
    texts = ["one text", "Ünïcödé and [SEP] typed", ""]
    expected = sbertconv.load(artifact.folder).encode(texts)
    serve = tf.saved_model.load(str(artifact.folder / "saved_model")).signatures["serving_default"]
    vectors = serve(text=tf.constant(texts))["sentence_embedding"].numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    with pytest.raises(UnsupportedOptionError, match="litert has no operations on strings"):
        sbertconv.to_tf(bert_folder, tmp_path / "other", text_input=True, formats=["litert"])


@pytest.fixture(scope="module")
def reranker() -> Any:
    return cross_encoder("bert", 1, prompts={"search": "query: "})


@pytest.mark.parametrize("convert", [sbertconv.to_onnx, sbertconv.to_tf])
def test_a_reranker_takes_pairs_of_texts(convert: Any, reranker: Any, tmp_path: Any, monkeypatch: Any) -> None:
    import onnxruntime

    monkeypatch.setattr("sbertconv.text.proof.FUZZ", FUZZ)
    options = {"activation": True} if convert is sbertconv.to_onnx else {"formats": ["saved_model"]}
    converted = sbertconv.load(convert(reranker, tmp_path / "model", text_input=True, **options).folder)
    inputs = converted.artifact.manifest["graphs"][0]["inputs"]
    assert inputs == [{"name": name, "dtype": "string", "shape": ["batch"]} for name in ("text", "text_pair")]
    for prompt in (None, "search"):
        expected = reranker.predict(PAIRS, prompt_name=prompt)
        np.testing.assert_allclose(converted.predict(PAIRS, prompt_name=prompt), expected, atol=1e-5)
    documents = [document for _, document in PAIRS]
    best = [row["corpus_id"] for row in reranker.rank("people in Berlin", documents)]
    assert [row["corpus_id"] for row in converted.rank("people in Berlin", documents)] == best
    with pytest.raises(UnsupportedOptionError, match="takes pairs, and 'one text' is one text"):
        converted.predict("one text")
    if convert is sbertconv.to_onnx:
        session = onnxruntime.InferenceSession(converted.artifact.folder / "onnx/model.onnx")
        columns = (np.array(column, object) for column in zip(*PAIRS, strict=True))
        (scores,) = session.run(["scores"], dict(zip(("text", "text_pair"), columns, strict=True)))
        np.testing.assert_allclose(scores[:, 0], reranker.predict(PAIRS), atol=1e-5)


@pytest.mark.parametrize("convert", [sbertconv.to_onnx, sbertconv.to_tf])
def test_queries_and_documents_have_limits_of_their_own(convert: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("sbertconv.text.proof.FUZZ", FUZZ)
    module = cases.st.Transformer(str(tiny.transformer_folder("bert")), query_length=8, document_length=20)
    model = cases.chain(module, cases.pooling("mean"), prompts={"query": "query: "})
    converted = sbertconv.load(convert(model, tmp_path / "model", text_input=True).folder)
    inputs = converted.artifact.manifest["graphs"][0]["inputs"]
    assert [entry["name"] for entry in inputs] == ["text", "max_length"]
    for method in ("encode", "encode_query", "encode_document"):
        theirs, ours = (getattr(one, method)(tiny.LINES) for one in (model, converted))
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_functional_model_with_the_tokenizer_saves_reloads_and_exports(tmp_path: Any) -> None:
    import keras
    import tensorflow as tf

    from sbertconv.layers import TextInput

    tables = compiled("wordpiece")
    texts = keras.Input(shape=(), dtype="string")
    tokens = TextInput(tables.framing.settings.tensors, tables)(texts)
    rows = keras.layers.Embedding(500, 8)(tokens["input_ids"])
    mask = keras.ops.cast(tokens["attention_mask"], "bool")
    model = keras.Model(texts, keras.layers.GlobalAveragePooling1D()(rows, mask=mask))
    batch = tf.constant(["a quick fox", "[SEP] ü and more"])
    expected = model(batch).numpy()

    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(reloaded(batch), expected)
    reloaded.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.serve(batch), expected, atol=1e-6)


def test_options_that_do_not_go_with_text_input(tmp_path: Any, bert_folder: Any) -> None:
    with pytest.raises(UnsupportedOptionError, match="Leave outputs=, token_type_ids= out"):
        sbertconv.to_onnx(
            bert_folder, tmp_path / "model", text_input=True, outputs=["token_embeddings"], token_type_ids=True
        )
