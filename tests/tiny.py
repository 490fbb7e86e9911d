"""Tiny models with random weights, made offline: every architecture and every module of the parity table.

A tokenizer is trained on the lines below, a transformers config is filled with small numbers, and the
weights are drawn from a fixed seed. `initializer_range` is far above the usual 0.02, so that attention
really attends and a wrong mask, position or layer shows up in the embedding.
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast, T5EncoderModel

LINES = """
The quick brown fox jumps over the lazy dog while the cat sleeps.
Sentence embeddings map a text to a vector; similar texts get similar vectors.
How many people live in Berlin? About 3,850,809 people, said the city in 2024.
query: what is the capital of France? passage: Paris is the capital of France.
Die Vögel zwitschern über den Dächern der schönen, alten Straße.
L'été dernier, nous avons mangé des crêpes à Saint-Malo.
機械学習 模型 把 文本 变成 向量 。
مرحبا بالعالم ، كيف حالك اليوم
สวัสดีชาวโลก नमस्ते दुनिया
Emoji 👩‍👩‍👧 🎉 and tabs\tand\u00a0spaces, e.g. x = y_1 + 2 * f(z) # code!
""".strip().splitlines()

SPECIAL = {
    "wordpiece": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "bpe": ("<pad>", "<unk>", "<s>", "</s>", "<mask>"),
    "unigram": ("<pad>", "<unk>", "<s>", "</s>", "<mask>"),
}


# Models are written by one process of the suite and compared in another, so both must train the same
# vocabulary. The library's trainers go through hash maps, whose order is another one in every process.


def _train_wordpiece(tokenizer: Tokenizer) -> None:
    """Letters inside words get their numbers in a map's order, and merges of equal count follow those numbers.

    As special tokens, for the training alone, they have theirs beforehand.
    """
    special = SPECIAL["wordpiece"]
    normalized = [tokenizer.normalizer.normalize_str(line) for line in LINES]
    words = [word for line in normalized for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(line)]
    inside = sorted({f"##{letter}" for word in words for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(vocab_size=400, show_progress=False, special_tokens=[*special, *inside])
    trained = Tokenizer(models.WordPiece(unk_token=special[1]))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trained.train_from_iterator(words, trainer)
    tokenizer.model = models.WordPiece(trained.get_vocab(), unk_token=special[1])
    tokenizer.add_special_tokens(list(special))


def _train_unigram(tokenizer: Tokenizer) -> None:
    """Letters that no line needs get scores 1e-4 apart in a map's order; here in the order of the letters."""
    special = SPECIAL["unigram"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, show_progress=False, special_tokens=list(special), unk_token=special[1]
    )
    tokenizer.train_from_iterator(LINES, trainer)
    pieces = dict(json.loads(tokenizer.to_str())["model"]["vocab"][len(special) :])
    names = sorted(pieces, key=lambda piece: (-round(pieces[piece], 2), piece))
    scores = sorted((round(score, 6) for score in pieces.values()), reverse=True)
    vocabulary = [*((token, 0.0) for token in special), *zip(names, scores, strict=True)]
    tokenizer.model = models.Unigram(vocabulary, unk_id=1, byte_fallback=False)


@functools.cache
def backend_tokenizer(kind: str, *, lowercase: bool = True, add_eos_only: bool = False) -> str:
    """The JSON of a tokenizer of this kind trained on LINES; `add_eos_only` is how decoder models end a text."""
    _, unk, bos, eos, _ = SPECIAL[kind]
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=unk))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        _train_wordpiece(tokenizer)
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, show_progress=False, special_tokens=list(SPECIAL[kind]), initial_alphabet=alphabet
        )
        tokenizer.train_from_iterator(LINES, trainer)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        _train_unigram(tokenizer)
    ids = {token: tokenizer.token_to_id(token) for token in (bos, eos)}
    single, pair = (
        (f"$A {eos}", f"$A {eos} $B:1 {eos}:1") if add_eos_only else (f"{bos} $A {eos}", f"{bos} $A {eos} $B:1 {eos}:1")
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(ids.items()))
    return str(tokenizer.to_str())


def tokenizer(
    kind: str, *, max_length: int = 48, token_type_ids: bool = False, padding_side: str = "right", **options: bool
) -> PreTrainedTokenizerFast:
    """A transformers tokenizer of this kind that truncates at `max_length` tokens."""
    pad, unk, bos, eos, mask = SPECIAL[kind]
    names = ["input_ids", "token_type_ids", "attention_mask"] if token_type_ids else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(backend_tokenizer(kind, **options)),
        model_max_length=max_length,
        padding_side=padding_side,
        model_input_names=names,
        pad_token=pad,
        unk_token=unk,
        bos_token=bos,
        eos_token=eos,
        mask_token=mask,
        cls_token=bos,
        sep_token=eos,
    )


SMALL = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    initializer_range=0.3,
    max_position_embeddings=64,
    hidden_act="gelu",
)
DECODER = SMALL | dict(num_key_value_heads=2, head_dim=8, hidden_act="silu")
LIKE_ANOTHER = dict(num_hidden_layers=1)  # layers as in a row above, where two of them are proven
WORDPIECE = dict(kind="wordpiece", token_type_ids=True)
BPE = dict(kind="bpe")
UNIGRAM = dict(kind="unigram")
LEFT = dict(kind="bpe", padding_side="left", add_eos_only=True)

# model type -> (config, tokenizer, pooling mode)
ARCHITECTURES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "bert": (SMALL, WORDPIECE, "mean"),
    "roberta": (SMALL, BPE, "mean"),
    "xlm-roberta": (SMALL | LIKE_ANOTHER, UNIGRAM, "cls"),
    "camembert": (SMALL | LIKE_ANOTHER, UNIGRAM, "mean"),
    "mpnet": (SMALL, dict(kind="wordpiece"), "mean"),
    "distilbert": (
        dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48, initializer_range=0.3, max_position_embeddings=64),
        dict(kind="wordpiece"),
        "mean",
    ),
    "albert": (SMALL | dict(embedding_size=16), dict(kind="unigram", token_type_ids=True), "mean"),
    "electra": (SMALL | LIKE_ANOTHER | dict(embedding_size=16), WORDPIECE, "mean"),
    "deberta-v2": (
        SMALL
        | dict(
            relative_attention=True,
            position_buckets=8,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            max_relative_positions=-1,
        ),
        dict(kind="unigram", token_type_ids=True),
        "mean",
    ),
    "modernbert": (
        SMALL | dict(local_attention=8, global_attn_every_n_layers=2, hidden_activation="gelu"),
        BPE,
        "cls",
    ),
    "nomic_bert": (SMALL, WORDPIECE, "mean"),
    "gte": (SMALL, WORDPIECE, "cls"),
    "t5": (
        dict(
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            initializer_factor=2.0,  # sharper attention is ill-conditioned: float32 then rounds by more than 1e-5
            relative_attention_num_buckets=8,
            relative_attention_max_distance=16,
        ),
        dict(kind="unigram", add_eos_only=True),
        "mean",
    ),
    "qwen2": (DECODER, LEFT, "lasttoken"),
    "qwen3": (DECODER, LEFT, "lasttoken"),
    "llama": (DECODER | LIKE_ANOTHER, LEFT, "lasttoken"),
    "mistral": (DECODER | LIKE_ANOTHER | dict(sliding_window=8), LEFT, "lasttoken"),
    "gemma3_text": (
        DECODER
        | dict(
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            use_bidirectional_attention=True,
            hidden_activation="gelu_pytorch_tanh",
            query_pre_attn_scalar=8,
        ),
        LEFT,
        "lasttoken",
    ),
    # Named nowhere else; each needs another part of the mechanism.
    "gpt2": (dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3), LEFT, "weightedmean"),
    "bloom": (DECODER | LIKE_ANOTHER, LEFT, "weightedmean"),
    "qwen3_moe": (DECODER | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16), LEFT, "lasttoken"),
    "xlnet": (dict(d_model=32, n_layer=2, n_head=4, d_inner=48, initializer_range=0.3), UNIGRAM, "mean"),
}


@functools.cache
def transformer_folder(model_type: str, **changes: Any) -> Path:
    """A saved tiny checkpoint (weights, config, tokenizer) of this architecture; `changes` go into its config."""
    config_kwargs, tokenizer_kwargs, _ = ARCHITECTURES[model_type]
    torch.manual_seed(7)
    text_tokenizer = tokenizer(**tokenizer_kwargs)
    ids = {
        f"{name}_token_id": getattr(text_tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos", "cls", "sep")
    }
    config = AutoConfig.for_model(model_type, vocab_size=len(text_tokenizer), **ids, **(config_kwargs | changes))
    model = (T5EncoderModel if model_type == "t5" else AutoModel.from_config)(config)
    folder = Path(tempfile.mkdtemp(prefix=f"tiny-{model_type}-"))
    model.save_pretrained(folder)
    text_tokenizer.save_pretrained(folder)
    return folder


def transformer(model_type: str, **changes: Any) -> st.Transformer:
    """The tiny checkpoint as a sentence-transformers module."""
    return st.Transformer(str(transformer_folder(model_type, **changes)))


def architecture(model_type: str, **options: Any) -> SentenceTransformer:
    """Transformer -> Pooling -> Normalize for this architecture."""
    module = transformer(model_type)
    pooling = st.Pooling(module.get_embedding_dimension(), ARCHITECTURES[model_type][2])
    return SentenceTransformer(modules=[module, pooling, st.Normalize()], device="cpu", **options)
