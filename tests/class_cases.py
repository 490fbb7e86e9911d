"""The parity table of the classes of models that are not sentence-transformers' first: what a row of each is, and rows.

Every row is converted to every backend of `BACKENDS`, checked by the conversion itself, and asked once more here.
"""

from __future__ import annotations

import json
import string
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases
import tiny
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.multi_vector_encoder import modules as mv
from sentence_transformers.sentence_transformer import modules as st
from sentence_transformers.sparse_encoder import modules as sparse
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    ColPaliConfig,
    ColPaliForRetrieval,
    ColPaliProcessor,
    ColQwen2Config,
    ColQwen2ForRetrieval,
    ColQwen2Processor,
    PaliGemmaConfig,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    SiglipImageProcessor,
)

import sbertconv
from sbertconv.consumers.wordpiece import BertVocabulary

PAIRS = [
    ("How many people live in Berlin?", "About 3,850,809 people, said the city in 2024."),
    ("How many people live in Berlin?", "similar texts get similar vectors"),
    ("", "The quick brown fox " * 20),
    ("The quick brown fox " * 20, "a"),
    ("L'été dernier", ""),
]
TEXTS = [*PAIRS[0], PAIRS[1][1], "L'été dernier, nous avons mangé: des crêpes!", "a", "", "Berlin " * 80]
PUNCTUATION = [".", ",", "?", "!", ":", "'"]
YES_OR_NO = (
    "<s>{{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first | default('Judge.') }}\n"
    "Query: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "Document: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}</s>\nAnswer:"
)
BERT_SIGNS = {999: "!\"#$%&'()*+,-./", 1024: ":;<=>?@", 1031: "[\\]^_`", 1063: "{|}~"}  # number of the first -> signs
LABELS = {0: "negative", 1: "neutral", 2: "positive"}

# How a row is converted to each backend; ONNX is run by both of its engines.
BACKENDS: dict[str, Callable[[Any, Path], sbertconv.Artifact]] = {
    "onnx": lambda source, folder: sbertconv.to_onnx(source, folder, engines=["onnxruntime", "openvino"]),
    "keras": sbertconv.to_tf,
    "torch": sbertconv.to_torch,
}


@dataclass(frozen=True)
class Class:
    """The rows of one class.

    Attributes:
        theirs: source -> the library's own answers.
        ours: what `load` gives -> the same answers.
        checks: comparisons that the parity report of every row holds.
        rows: name -> a function that makes the source, a live model or a folder.
    """

    theirs: Callable[[Any], Any]
    ours: Callable[[Any], Any]
    checks: frozenset[str]
    rows: Mapping[str, Callable[[], Any]]


def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tiny-"))


def checkpoint(model_type: str, labels: int, where: Path | None = None, **config: Any) -> Path:
    """A bare transformers checkpoint with a sequence-classification head."""
    return saved(AutoModelForSequenceClassification, model_type, where, num_labels=labels, **config)


def saved(
    auto_class: Any, model_type: str, where: Path | None, chat_template: str | None = None, **config: Any
) -> Path:
    """One layer: what is around the architecture is the point here."""
    where = where or folder()
    settings, tokenizer_settings, _ = tiny.ARCHITECTURES[model_type]
    torch.manual_seed(7)
    tokenizer = tiny.tokenizer(**tokenizer_settings)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos", "cls", "sep")}
    options = ids | settings | {"num_hidden_layers": 1} | config
    found = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **options)
    auto_class.from_config(found).save_pretrained(where)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(where)
    return where


def cross_encoder(model_type: str, labels: int, **options: Any) -> CrossEncoder:
    return CrossEncoder(str(checkpoint(model_type, labels)), device="cpu", **options)


def modular_reranker() -> CrossEncoder:
    """A head of sentence-transformers' own modules on the pair."""
    transformer = tiny.transformer("distilbert")
    torch.manual_seed(3)
    norm = st.LayerNorm(32)
    torch.nn.init.normal_(norm.norm.weight)
    dense = st.Dense(32, 2, activation_function=torch.nn.Identity(), module_output_name="scores")
    return CrossEncoder(modules=[transformer, st.Pooling(32, "mean"), norm, dense], device="cpu")


def causal_reranker(model_type: str = "qwen3", chat_template: str | None = None, **config: Any) -> CrossEncoder:
    """Yes or no as the next token."""
    where = saved(AutoModelForCausalLM, model_type, None, chat_template, **config)
    module = st.Transformer(str(where), transformer_task="text-generation")
    prompts = {"web": "Does the document answer?"}
    return CrossEncoder(modules=[module, LogitScore(5, 7)], device="cpu", prompts=prompts)


def sentiment(model_type: str) -> Path:
    return checkpoint(model_type, 3, id2label=LABELS, label2id={label: index for index, label in LABELS.items()})


def splade(model_type: str, strategy: str = "max", activation: str = "relu", **options: Any) -> SparseEncoder:
    """A masked language model under SpladePooling; its logits are large enough for few of them to stay."""
    return SparseEncoder(modules=splade_modules(model_type, strategy, activation), device="cpu", **options)


def splade_modules(model_type: str, strategy: str = "max", activation: str = "relu") -> list[torch.nn.Module]:
    where = saved(AutoModelForMaskedLM, model_type, None)
    module = st.Transformer(str(where), transformer_task="fill-mask")
    return [module, sparse.SpladePooling(strategy, activation)]


def splade_of_words(strategy: str, activation: str, chunk_size: int | None) -> SparseEncoder:
    """Token embeddings in the place of logits, where the pooling is the point."""
    pooling = sparse.SpladePooling(strategy, activation, chunk_size=chunk_size)
    return SparseEncoder(modules=[cases.word_embeddings(), pooling], device="cpu")


def idf(**options: Any) -> sparse.SparseStaticEmbedding:
    tokenizer = tiny.tokenizer(**tiny.WORDPIECE)
    torch.manual_seed(9)
    return sparse.SparseStaticEmbedding(tokenizer, torch.rand(len(tokenizer.get_vocab())), **options)


def inference_free() -> SparseEncoder:
    """Queries are looked up, documents go through the model."""
    router = sparse.Router.for_query_document([idf(frozen=True)], splade_modules("bert"))
    return SparseEncoder(modules=[router], device="cpu", prompts={"query": "", "document": "text: "})


def csr(**options: Any) -> SparseEncoder:
    """A sparse autoencoder on a dense embedding."""
    torch.manual_seed(4)
    encoder = sparse.SparseAutoEncoder(32, 64, k=8, k_aux=8, normalize=True)
    torch.nn.init.normal_(encoder.pre_bias)
    torch.nn.init.normal_(encoder.latent_bias)
    return SparseEncoder(modules=[cases.static_embedding(), encoder], device="cpu", **options)


def colbert() -> MultiVectorEncoder:
    """As the original is: BERT's numbers of markers and of punctuation, which is skipped, and queries of 32 tokens."""
    place = Path(folder())
    for file in tiny.transformer_folder("bert", num_hidden_layers=1).iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    signs = {first + ord(sign) - ord(run[0]): sign for first, run in BERT_SIGNS.items() for sign in run}
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = iter([*special, *(word for word in known if word not in special and word not in string.punctuation)])
    tokens = [signs.get(number) or next(words, f"[unused{number}]") for number in range(max(signs) + 1)]
    PreTrainedTokenizerFast(
        tokenizer_object=BertVocabulary(tuple(tokens), lower=True).tokenizer(None),
        model_max_length=48,
        **{f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")},
        additional_special_tokens=special[1:3],
    ).save_pretrained(place)
    transformer = st.Transformer(str(place))
    torch.manual_seed(5)
    transformer.model.resize_token_embeddings(len(tokens), mean_resizing=False)
    return multi_vector_encoder(
        transformer,
        expansion={"strategy": "fixed", "length": 32, "attend": False},
        lengths=(32, 40),
        mask={"skiplist_words": list(string.punctuation)},
        prompts={"query": "[unused0]", "document": "[unused1]"},
    )


def multi_vector_encoder(
    base: str | st.Transformer,
    *,
    expansion: Mapping[str, Any] | None = None,
    lengths: tuple[int | None, int | None] = (None, None),
    mask: Mapping[str, Any] | None = None,
    pooling: Sequence[torch.nn.Module] = (),
    layers: int = 1,
    **options: Any,
) -> MultiVectorEncoder:
    """Transformer -> Dense -> MultiVectorMask -> Normalize -> `pooling`.

    Args:
        base: one of `tiny.ARCHITECTURES`, or the Transformer.
        expansion: `query_expansion` of the Transformer.
        lengths: its limits in tokens, of queries and of documents.
        mask: arguments of MultiVectorMask.
        pooling: modules at the end.
        layers: of the Transformer.
        options: of MultiVectorEncoder.
    """
    transformer = tiny.transformer(base, num_hidden_layers=layers) if isinstance(base, str) else base
    transformer.query_length, transformer.document_length = lengths
    transformer.query_expansion = expansion
    torch.manual_seed(3)
    identity = torch.nn.Identity()
    dense = st.Dense(32, 16, bias=False, activation_function=identity, module_input_name="token_embeddings")
    end = [mv.MultiVectorMask(**(mask or {})), st.Normalize("token_embeddings"), *pooling]
    return MultiVectorEncoder(modules=[transformer, dense, *end], device="cpu", **options)


def colpali(*, patches_alone: bool = False) -> MultiVectorEncoder:
    """Pages as images and questions as texts, with a vector for every token, or of a page for every patch."""
    tokenizer, images = tiny.tokenizer("bpe", max_length=64), SiglipImageProcessor(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = ColPaliProcessor(images, tokenizer)
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    text = {"model_type": "gemma", **cases.LANGUAGE, "vocab_size": len(processor.tokenizer)}
    vision = {"model_type": "siglip_vision_model", **cases.EYES}
    sizes = {"projection_dim": 32, "hidden_size": 32, "image_token_index": image}
    torch.manual_seed(4)
    inside = PaliGemmaConfig(text_config=text, vision_config=vision, **sizes)
    model = ColPaliForRetrieval(ColPaliConfig(vlm_config=inside, embedding_dim=8))
    module = st.Transformer(cases.with_processor(model, processor), transformer_task="retrieval")
    mask = mv.MultiVectorMask(keep_only_token_ids=[image] if patches_alone else None)
    return MultiVectorEncoder(modules=[module, mask], device="cpu")


def colqwen2(**mask: Any) -> MultiVectorEncoder:
    """Pages as images of any number of tokens, and questions as texts."""
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    names |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    tokenizer = cases.tokenizer_with(**{f"{name}_token": token for name, token in names.items()})
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    images = Qwen2VLImageProcessor(patch_size=8, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64})
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    text = {**cases.LANGUAGE, "vocab_size": len(tokenizer), "rope_parameters": rotary}
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 8, "mlp_ratio": 2}
    torch.manual_seed(5)
    inside = Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
    model = ColQwen2ForRetrieval(ColQwen2Config(vlm_config=inside, embedding_dim=8))
    folder = cases.with_processor(model, ColQwen2Processor(images, tokenizer))
    module = st.Transformer(folder, transformer_task="retrieval")
    return MultiVectorEncoder(modules=[module, mv.MultiVectorMask(**mask)], device="cpu")


def token_vectors(model: Any) -> list[Any]:
    return [vectors for encode in (model.encode_query, model.encode_document) for vectors in encode(TEXTS)]


CLASSES = {
    "CrossEncoder": Class(
        theirs=lambda model: model.predict(PAIRS),
        ours=lambda model: model.predict(PAIRS),
        checks=frozenset({"pairs: tokens", "pairs over the limit", "texts: tokens"}),
        rows={
            "bert": lambda: cross_encoder("bert", 1, prompts={"search": "query: "}),
            "roberta, 3 labels": lambda: cross_encoder("roberta", 3),
            "modernbert": lambda: cross_encoder("modernbert", 1),
            "deberta-v2, 3 labels": lambda: cross_encoder("deberta-v2", 3),
            "mpnet": lambda: cross_encoder("mpnet", 1),
            "modular head, 2 labels": modular_reranker,
            "qwen3, yes or no": causal_reranker,
            "qwen3, yes or no, chat template": lambda: causal_reranker(chat_template=YES_OR_NO),
            "gemma3_text, yes or no, capped logits of tied weights, chat template": lambda: causal_reranker(
                "gemma3_text",
                chat_template=YES_OR_NO,
                final_logit_softcapping=2.0,
                use_bidirectional_attention=False,
                layer_types=["sliding_attention"],
                tie_word_embeddings=True,
            ),
        },
    ),
    "TextClassifier": Class(
        theirs=lambda where: CrossEncoder(str(where), device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity()),
        ours=lambda model: model.logits(PAIRS),
        checks=frozenset({"pairs: tokens", "pairs over the limit", "texts: tokens"}),
        rows={name: lambda name=name: sentiment(name) for name in ("bert", "distilbert", "xlm-roberta")},
    ),
    "SparseEncoder": Class(
        theirs=lambda model: model.encode_document(TEXTS, convert_to_sparse_tensor=False),
        ours=lambda model: model.encode_document(TEXTS, convert_to_sparse_tensor=False),
        checks=frozenset({"tokens", "padded batch"}),
        rows={
            "distilbert, sum": lambda: splade("distilbert", "sum"),
            "modernbert, log1p_relu": lambda: splade("modernbert", "max", "log1p_relu"),
            "xlm-roberta, 5 active": lambda: splade("xlm-roberta", max_active_dims=5),
            "sum, log1p_relu, chunks": lambda: splade_of_words("sum", "log1p_relu", 3),
            "static queries": inference_free,
            "autoencoder": csr,
        },
    ),
    "MultiVectorEncoder": Class(
        theirs=token_vectors,
        ours=token_vectors,
        checks=frozenset({"encode_query: tokens", "encode_query: padded batch", "encode_document: over the limit"}),
        rows={
            "bert, fixed expansion, skip list, prompts, token pooling": lambda: multi_vector_encoder(
                "bert",
                expansion={"strategy": "fixed", "length": 16},
                lengths=(None, 40),
                mask={"skiplist_words": PUNCTUATION},
                pooling=[mv.HierarchicalTokenPooling(2.0)],
                prompts={"query": "query: ", "document": "passage: "},
            ),
            "xlm-roberta, expansion that is attended to, skip list of both tasks": lambda: multi_vector_encoder(
                "xlm-roberta",
                expansion={"strategy": "min", "length": 10, "attend": True},
                lengths=(20, None),
                mask={"skiplist_words": PUNCTUATION, "skiplist_tasks": ["query", "document"]},
            ),
            "modernbert, kept tokens of documents": lambda: multi_vector_encoder(
                "modernbert", mask={"keep_only_token_ids": list(range(5, 200))}, similarity_fn_name="meanmaxsim"
            ),
            "colpali, patches alone": lambda: colpali(patches_alone=True),
        },
    ),
}
