"""The parity table: every architecture and every module setting, as a function that builds the model.

A row is a name, a builder and, where the default does not do, the options of the conversion. Backends
iterate over the same rows.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tiny
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from sentence_transformers.sentence_transformer.modules.tokenizer import PhraseTokenizer, WhitespaceTokenizer
from tokenizers import Tokenizer
from transformers import (
    Aimv2Config,
    Aimv2Model,
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    AutoConfig,
    AutoModel,
    BitImageProcessor,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPProcessor,
    ConvNextConfig,
    ConvNextImageProcessor,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Gemma3Config,
    Gemma3ImageProcessor,
    Gemma3Model,
    Gemma3Processor,
    LlavaConfig,
    LlavaModel,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
    SeamlessM4TFeatureExtractor,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Processor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers import CLIPModel as TransformersCLIPModel
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.video_processing_utils import VideoProcessorMixin

DIM = 32
VOCABULARY = [
    "<pad>",
    "the",
    "quick",
    "brown",
    "fox",
    "Berlin",
    "people",
    "over",
    "of",
    "word",
    "a",
    "New_York",
    "limit",
]
BERT_INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
PROMPTS = {"query": "query: ", "passage": "passage: what follows is a document. "}


@dataclass(frozen=True)
class Case:
    """One row: how to build the model, how to convert it, and what its manifest must say then.

    `checks` are comparisons that the parity report must hold beside the usual ones; `engines`, what an ONNX graph is
    proven on.
    """

    build: Callable[[], SentenceTransformer]
    options: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[str, ...] = ()
    engines: tuple[str, ...] = ("onnxruntime", "openvino")


def chain(*modules: torch.nn.Module, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(modules=list(modules), device="cpu", **options)


def bert(*modules: torch.nn.Module, config: Mapping[str, Any] | None = None, **options: Any) -> SentenceTransformer:
    """One layer is enough where a module after it is the point; the rows of architectures have more."""
    return chain(tiny.transformer("bert", **({"num_hidden_layers": 1} | dict(config or {}))), *modules, **options)


def pooling(mode: str | tuple[str, ...] = "mean", *, include_prompt: bool = True, dim: int = DIM) -> st.Pooling:
    return st.Pooling(dim, mode, include_prompt=include_prompt)


def dense(size: int = 16, **options: Any) -> st.Dense:
    torch.manual_seed(3)
    return st.Dense(options.pop("in_features", DIM), size, **options)


def word_embeddings(tokenizer: Any = None, max_seq_length: int = 24) -> st.WordEmbeddings:
    tokenizer = tokenizer or WhitespaceTokenizer(VOCABULARY, stop_words=["the"], do_lower_case=False)
    rows = len(tokenizer.get_vocab()) if hasattr(tokenizer, "get_vocab") else len(VOCABULARY)
    weights = np.random.default_rng(1).normal(size=(rows, DIM)).astype(np.float32)
    return st.WordEmbeddings(tokenizer, weights, max_seq_length=max_seq_length)


def words(*modules: torch.nn.Module, **options: Any) -> SentenceTransformer:
    """Token embeddings without a transformer, where a module after them is the point."""
    return chain(word_embeddings(tiny.tokenizer("wordpiece")), *modules, **options)


def static(*modules: torch.nn.Module) -> SentenceTransformer:
    """Sentence embeddings without a transformer, where a module after them is the point."""
    return chain(static_embedding(), *modules)


def seeded(module: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(5)
    return module()


def weighted_layers() -> SentenceTransformer:
    layers = st.WeightedLayerPooling(
        DIM, num_hidden_layers=2, layer_start=1, layer_weights=torch.nn.Parameter(torch.tensor([0.3, 1.7]))
    )
    return bert(layers, pooling(), config={"num_hidden_layers": 2, "output_hidden_states": True})


def layer_norm() -> st.LayerNorm:
    module = st.LayerNorm(DIM)
    torch.manual_seed(6)
    torch.nn.init.normal_(module.norm.weight)
    torch.nn.init.normal_(module.norm.bias)
    return module


def static_embedding(max_length: int | None = None) -> st.StaticEmbedding:
    backend = Tokenizer.from_str(tiny.backend_tokenizer("wordpiece"))
    if max_length is not None:
        backend.enable_truncation(max_length)
    torch.manual_seed(2)
    return st.StaticEmbedding(backend, embedding_dim=DIM)


def router(*, default: str | None = "document") -> SentenceTransformer:
    query = [tiny.transformer("bert", num_hidden_layers=1), pooling("cls")]
    document = [tiny.transformer("roberta", num_hidden_layers=1), pooling("mean")]
    module = st.Router.for_query_document(query, document, default_route=default, allow_empty_key=default is not None)
    return chain(module, st.Normalize(), prompts=PROMPTS)


def static_router() -> SentenceTransformer:
    return chain(
        st.Router.for_query_document([static_embedding()], [tiny.transformer("bert"), pooling()]), st.Normalize()
    )


def clip_folder(folder: str) -> str:
    """A tiny CLIP checkpoint with its processor."""
    text_tokenizer = tiny.tokenizer("bpe", max_length=16)
    text = dict(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(text_tokenizer),
        max_position_embeddings=16,
        eos_token_id=text_tokenizer.eos_token_id,
        bos_token_id=text_tokenizer.bos_token_id,
        pad_token_id=text_tokenizer.pad_token_id,
    )
    vision = dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
    )
    torch.manual_seed(11)
    TransformersCLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, text_tokenizer).save_pretrained(folder)
    return folder


def clip(module_type: type = st.CLIPModel) -> SentenceTransformer:
    return chain(module_type(clip_folder(tempfile.mkdtemp(prefix="tiny-clip-"))))


VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}


def siglip() -> SentenceTransformer:
    """A dual encoder that pools by attention and warps its images."""
    folder, text_tokenizer = tempfile.mkdtemp(prefix="tiny-siglip-"), tiny.tokenizer("bpe", max_length=16)
    size = {"intermediate_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {f"{name}_token_id": getattr(text_tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    text = {**size, **ids, "vocab_size": len(text_tokenizer), "max_position_embeddings": 16, "projection_size": 32}
    torch.manual_seed(12)
    SiglipModel(SiglipConfig(text_config=text, vision_config={**size, **VISION})).save_pretrained(folder)
    images = SiglipImageProcessor(size={"height": 32, "width": 32})
    SiglipProcessor(images, text_tokenizer).save_pretrained(folder)
    return chain(st.Transformer(folder))


def aimv2(**options: Any) -> SentenceTransformer:
    """A dual encoder whose text tower is causal, but for batches without padding under PyTorch's attention."""
    tokenizer = tiny.tokenizer("bpe", max_length=16)
    size = {"intermediate_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    places = {"max_position_embeddings": 16, "eos_token_id": tokenizer.eos_token_id}
    text = {**size, **places, "vocab_size": len(tokenizer)}
    torch.manual_seed(25)
    model = Aimv2Model(Aimv2Config(text_config=text, vision_config={**size, **VISION}, projection_dim=24))
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    folder = with_processor(model, CLIPProcessor(images, tokenizer))
    return chain(st.Transformer(folder, **options), st.Normalize())


def siglip2(**processing: Any) -> SentenceTransformer:
    """A dual encoder of images in patches of any number, with places that are resized to each image."""
    tokenizer = tiny.tokenizer("bpe", max_length=64)
    size = {"intermediate_size": 48, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    text = {**size, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "projection_size": 32}
    torch.manual_seed(23)
    model = Siglip2Model(Siglip2Config(text_config=text, vision_config={**size, "num_patches": 16, "patch_size": 16}))
    torch.nn.init.normal_(model.vision_model.embeddings.position_embedding.weight)
    folder = with_processor(model, Siglip2Processor(Siglip2ImageProcessor(), tokenizer))
    return chain(st.Transformer(folder, processing_kwargs=processing or None))


def image_encoder(model: Any, processor: Any) -> SentenceTransformer:
    """A model of images alone: the mean of its patches, or of its channels' places."""
    folder = tempfile.mkdtemp(prefix="tiny-images-")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    module = st.Transformer(folder)
    return chain(module, st.Pooling(module.get_embedding_dimension(), "mean"))


# What it makes of an image is a place, and text around it
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}PLACE{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
)
LANGUAGE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 256,
}  # fmt: skip
EYES = VISION | {"intermediate_size": 48}


def tokenizer_with(**tokens: str) -> PreTrainedTokenizerFast:
    """A tokenizer with further special tokens, which it has as attributes of these names."""
    plain = tiny.tokenizer("bpe", max_length=64)
    named = {f"{name}_token": getattr(plain, f"{name}_token") for name in ("pad", "unk", "bos", "eos", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, model_max_length=64, extra_special_tokens=tokens, **named
    )


def with_processor(model: Any, processor: Any) -> str:
    """The folder of a model and its processor."""
    folder = tempfile.mkdtemp(prefix="tiny-vision-language-")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava(**options: Any) -> SentenceTransformer:
    """A language model that reads the patches of an image among its tokens, in a message."""
    tokenizer = tokenizer_with(image_token="<image>")
    image = tokenizer.convert_tokens_to_ids("<image>")
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("PLACE", "<image>"),
    )
    torch.manual_seed(21)
    text = {"model_type": "llama", **LANGUAGE, "vocab_size": len(tokenizer)}
    vision = {"model_type": "clip_vision_model", **EYES}
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=image)
    module = st.Transformer(with_processor(LlavaModel(config), processor))
    return chain(module, pooling("lasttoken"), st.Normalize(), **options)


def gemma3() -> SentenceTransformer:
    """A language model in which the tokens of an image attend to one another."""
    tokens = {"image_token": "<image>", "boi_token": "<begin>", "eoi_token": "<end>"}
    tokenizer = tokenizer_with(**tokens)
    template = TEMPLATE.replace("PLACE", "<begin>")
    images = Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = Gemma3Processor(images, tokenizer, image_seq_length=4, chat_template=template)
    torch.manual_seed(22)
    text = {**LANGUAGE, "vocab_size": len(tokenizer), "layer_types": ["full_attention"]}
    vision = {"model_type": "siglip_vision_model", **EYES}
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return chain(st.Transformer(with_processor(Gemma3Model(config), processor)), pooling())


class NoVideos(VideoProcessorMixin):
    """What stands in the place of the part of a processor that is for videos, which needs torchvision."""


@contextlib.contextmanager
def processors_without_videos() -> Iterator[None]:
    """Processors that have a part for videos are made and read without torchvision."""
    with (
        mock.patch.object(transformers, "VideoProcessorMixin", VideoProcessorMixin, create=True),
        mock.patch.object(AutoVideoProcessor, "from_pretrained", return_value=NoVideos()),
    ):
        yield


LOOKS = {"hidden_size": 32, "num_heads": 4, "patch_size": 8, "initializer_range": 0.3}
STACKED = {"depth": 2, "intermediate_size": 48, "out_hidden_size": 32}
# Model type -> its processor, and the settings of its encoder of images
QWEN_VL: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "qwen2_vl": (Qwen2VLProcessor, {"depth": 1, "embed_dim": 32, "mlp_ratio": 2}),
    # Windows of two groups of patches on each side, then all of them
    "qwen2_5_vl": (Qwen2_5_VLProcessor, {**STACKED, "window_size": 32, "fullatt_block_indexes": [1]}),
    "qwen3_vl": (Qwen3VLProcessor, {**STACKED, "num_position_embeddings": 36, "deepstack_visual_indexes": [0]}),
}


# Models whose images are tokens of any number -> the formats that the tests convert them to; the others of `BACKENDS`
# want sizes beforehand, and refuse them by name.
GRIDDED: Mapping[str, tuple[str, ...]] = {
    "colqwen2": ("onnx", "torch"),
    "qwen2_vl": ("torch",),
    "qwen2_5_vl": ("onnx",),
    "qwen3_vl": ("onnx",),
}


def qwen_vl(model_type: str, **options: Any) -> SentenceTransformer:
    """A language model that reads an image as tokens of any number, which have a row and a column."""
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    names |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    tokenizer = tokenizer_with(**{f"{name}_token": token for name, token in names.items()})
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    images = Qwen2VLImageProcessor(patch_size=8, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64})
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    text = {**LANGUAGE, "vocab_size": len(tokenizer), "rope_parameters": rotary, "num_hidden_layers": 2}
    make, looks = QWEN_VL[model_type]
    torch.manual_seed(23)
    config = AutoConfig.for_model(model_type, text_config=text, vision_config={**LOOKS, **looks}, **ids)
    model = AutoModel.from_config(config)
    template = TEMPLATE.replace("PLACE", "<|vision_start|><|image_pad|><|vision_end|>")
    with processors_without_videos():
        module = st.Transformer(with_processor(model, make(images, tokenizer, NoVideos(), chat_template=template)))
    return chain(module, pooling("lasttoken"), st.Normalize(), **options)


def dinov2() -> SentenceTransformer:
    torch.manual_seed(13)
    return image_encoder(
        Dinov2Model(Dinov2Config(**VISION)),
        BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
    )


def convnext() -> SentenceTransformer:
    torch.manual_seed(14)
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32)
    return image_encoder(ConvNextModel(config), ConvNextImageProcessor(size={"shortest_edge": 32}))


SPEECH = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}


def sound_encoder(model: Any, processor: Any) -> SentenceTransformer:
    """A model of sounds: the mean of its frames, or a vector of its own."""
    folder = tempfile.mkdtemp(prefix="tiny-sounds-")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    module = st.Transformer(folder)
    pools = module.module_output_name == "token_embeddings"
    return chain(module, *([st.Pooling(module.get_embedding_dimension(), "mean")] if pools else []))


def whisper() -> SentenceTransformer:
    torch.manual_seed(15)
    config = WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=16, max_source_positions=100, max_target_positions=16,
        vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    # Its encoder alone, as it is taken from a checkpoint
    return sound_encoder(WhisperModel(config).encoder, WhisperFeatureExtractor(feature_size=16, chunk_length=2))


def spectrogram_transformer() -> SentenceTransformer:
    torch.manual_seed(16)
    config = ASTConfig(**SPEECH, num_mel_bins=16, max_length=64, patch_size=8, frequency_stride=8, time_stride=8)
    return sound_encoder(ASTModel(config), ASTFeatureExtractor(num_mel_bins=16, max_length=64))


def clap(truncation: str = "rand_trunc") -> SentenceTransformer:
    """A dual encoder of texts and sounds."""
    tokenizer = tiny.tokenizer("bpe", max_length=16)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    text = {**SPEECH, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "projection_dim": 24}
    audio = {
        "window_size": 4, "num_mel_bins": 16, "spec_size": 64, "patch_size": 4, "patch_stride": (4, 4),
        "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 32,
        "projection_dim": 24, "enable_fusion": False,
    }  # fmt: skip
    torch.manual_seed(17)
    extractor = ClapFeatureExtractor(
        feature_size=16, sampling_rate=16000, hop_length=160, max_length_s=2, fft_window_size=512, frequency_min=50,
        frequency_max=7000, truncation=truncation,
    )  # fmt: skip
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=24)
    return sound_encoder(ClapModel(config), ClapProcessor(extractor, tokenizer))


STACK = {"conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
WAVE = {
    **SPEECH, **STACK, "num_hidden_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    "vocab_size": 8,
}  # fmt: skip


def wave_encoder(model: type[Any], extractor: Any = None, **settings: Any) -> SentenceTransformer:
    """A model of sounds as waves, with random weights, two convolutions and two layers."""
    torch.manual_seed(18)
    extractor = extractor or Wav2Vec2FeatureExtractor(return_attention_mask=True)
    encoder = model(model.config_class(**{**WAVE, **settings})).eval()
    is_alone = model.config_class.model_type == "data2vec-audio"  # of which the library opens the extractor alone
    return sound_encoder(encoder, extractor if is_alone else Wav2Vec2Processor(extractor, letters()))


def letters() -> Wav2Vec2CTCTokenizer:
    """The tokenizer that the library asks for beside a feature extractor, and never uses."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-words-"))
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}), encoding="utf-8")
    return Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))


def wav2vec2_bert(extractor: Any = None, **settings: Any) -> SentenceTransformer:
    """A model of sounds as rows of a spectrogram, with random weights and two layers."""
    torch.manual_seed(24)
    extractor = extractor or SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20, padding_value=1.0)
    sizes = {"feature_projection_input_dim": 40, "conv_depthwise_kernel_size": 7, "output_hidden_size": 32}
    sizes |= {"left_max_position_embeddings": 5, "right_max_position_embeddings": 3, "initializer_range": 0.2}
    config = Wav2Vec2BertConfig(**{**SPEECH, "num_hidden_layers": 2, **sizes, **settings})
    return sound_encoder(Wav2Vec2BertModel(config).eval(), Wav2Vec2BertProcessor(extractor, letters()))


def truncated() -> SentenceTransformer:
    return words(pooling(), st.Normalize(), truncate_dim=12)


def lowercased() -> SentenceTransformer:
    """A tokenizer that keeps case, over a module that does not."""
    return chain(st.Transformer(str(tiny.transformer_folder("roberta")), do_lower_case=True), pooling())


def task_lengths(pooled: torch.nn.Module | None = None, query_length: int = 8) -> SentenceTransformer:
    folder = tiny.transformer_folder("bert", num_hidden_layers=1)
    module = st.Transformer(str(folder), query_length=query_length, document_length=20)
    return chain(module, pooled or pooling(), prompts=PROMPTS)


# What an architecture's manifest says where it differs from the others, and why.
DIFFERENT = {
    "xlnet": {"tracer": "TorchScript"},  # torch.export puts a guard on the sequence length
}
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")  # a config's name for it


def attentions(name: str) -> dict[str, int]:
    """How many attentions an architecture has, one per layer; all of them are fused."""
    config = tiny.ARCHITECTURES[name][0]
    layers = next(config[key] for key in LAYERS if key in config)
    return {"found": layers, "fused": layers}


ARCHITECTURES = {
    name: Case(
        lambda name=name: tiny.architecture(name), expected={"attention": attentions(name)} | DIFFERENT.get(name, {})
    )
    for name in tiny.ARCHITECTURES
}

POOLING_MODES = ("max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
ALL_MODES = ("lasttoken", "mean", "max", "weightedmean", "cls", "mean_sqrt_len_tokens")

MODULES = {
    "pooling cls": Case(lambda: bert(pooling("cls"))),
    **{f"pooling {mode}": Case(lambda mode=mode: words(pooling(mode))) for mode in POOLING_MODES},
    "pooling all modes": Case(lambda: bert(pooling(ALL_MODES)), expected={"dimension": 6 * DIM, "inputs": BERT_INPUTS}),
    "pooling without prompt": Case(
        lambda: bert(pooling(ALL_MODES, include_prompt=False), prompts=PROMPTS),
        expected={"inputs": [*BERT_INPUTS, "prompt_length"]},
        checks=("prompt query", "prompt passage"),
    ),
    "pooling without prompt, padded left": Case(
        lambda: chain(
            tiny.transformer("qwen2", num_hidden_layers=1),
            pooling(ALL_MODES, include_prompt=False),
            prompts=PROMPTS,
            default_prompt_name="query",
        )
    ),
    "pooling without prompt, which is longer than a query": Case(
        lambda: task_lengths(pooling(include_prompt=False), query_length=4),
        expected={"inputs": [*BERT_INPUTS, "prompt_length"]},
        checks=("encode_query",),
    ),
    "pooling without prompt, which word embeddings do not count": Case(
        lambda: words(pooling(include_prompt=False), prompts=PROMPTS),
        expected={"inputs": ["input_ids", "attention_mask"]},
        checks=("prompt query", "prompt passage"),
    ),
    "dense tanh": Case(lambda: bert(pooling(), dense())),
    "dense without bias": Case(lambda: static(dense(bias=False, activation_function=torch.nn.Identity()))),
    "dense gelu residual": Case(lambda: static(dense(use_residual=True, activation_function=torch.nn.GELU()))),
    "dense same size residual": Case(
        lambda: static(dense(DIM, use_residual=True, activation_function=torch.nn.ReLU()), st.Normalize())
    ),
    "dense on tokens": Case(lambda: words(dense(module_input_name="token_embeddings"), pooling(dim=16))),
    "dense to another name": Case(
        lambda: static(
            dense(20, module_output_name="projected", activation_function=torch.nn.SiLU()),
            dense(12, in_features=20, module_input_name="projected", module_output_name="sentence_embedding"),
        )
    ),
    **{
        f"dense {activation.__name__}": Case(
            lambda activation=activation: static(dense(activation_function=activation()))
        )
        for activation in (
            torch.nn.Sigmoid,
            torch.nn.LogSigmoid,
            torch.nn.ELU,
            torch.nn.LeakyReLU,
            torch.nn.Mish,
            torch.nn.Softplus,
            torch.nn.Hardswish,
        )
    },
    "layer norm": Case(lambda: static(layer_norm(), st.Normalize())),
    "dropout": Case(lambda: static(st.Dropout(0.5))),
    "weighted layers": Case(weighted_layers),
    "cnn": Case(lambda: words(seeded(lambda: st.CNN(DIM, 8, [1, 3, 5])), pooling(dim=24))),
    "cnn with strides": Case(lambda: words(seeded(lambda: st.CNN(DIM, 8, [1, 3], [2, 2])), pooling("max", dim=16))),
    "lstm": Case(lambda: chain(word_embeddings(), seeded(lambda: st.LSTM(DIM, 8, num_layers=2)), pooling(dim=16))),
    "lstm one direction, maximum of no tokens": Case(
        lambda: chain(word_embeddings(), seeded(lambda: st.LSTM(DIM, 8, bidirectional=False)), pooling("max", dim=8)),
        engines=("onnxruntime",),  # OpenVINO's maximum of minus infinities is the lowest finite number
    ),
    "word embeddings": Case(lambda: chain(word_embeddings(), pooling("mean"))),
    "word embeddings, phrases": Case(
        lambda: chain(word_embeddings(PhraseTokenizer(VOCABULARY, stop_words=["the"])), pooling("mean"))
    ),
    "word embeddings, subwords": Case(lambda: chain(word_embeddings(tiny.tokenizer("wordpiece")), pooling("mean"))),
    "word weights": Case(
        lambda: chain(
            word_embeddings(),
            st.WordWeights(VOCABULARY, {"fox": 2.5, "berlin": 0.25}, unknown_word_weight=0.5),
            pooling(("mean", "mean_sqrt_len_tokens", "weightedmean")),
        )
    ),
    "bag of words": Case(lambda: chain(st.BoW(VOCABULARY, {"fox": 2.5, "people": 3}))),
    "bag of words, once each": Case(
        lambda: chain(
            st.BoW(VOCABULARY, {"fox": 2.5}, unknown_word_weight=0.5, cumulative_term_frequency=False),
            dense(in_features=len(VOCABULARY), activation_function=torch.nn.Softsign()),  # which Keras traces
        )
    ),
    "static embedding": Case(lambda: chain(static_embedding(), st.Normalize())),
    "static embedding, truncated": Case(lambda: chain(static_embedding(max_length=10), st.Normalize())),
    "router": Case(
        router, expected={"graphs": ["document", "query"]}, checks=("encode_query", "encode_document", "prompt passage")
    ),
    "router without a default": Case(lambda: router(default=None), checks=("encode_query", "encode_document")),
    "router with a static route": Case(static_router, checks=("encode_query", "encode_document")),
    "clip": Case(clip, expected={"graphs": ["text", "image"], "dimension": 24}, checks=("images",)),
    "siglip": Case(siglip),
    "aimv2": Case(aimv2, expected={"graphs": ["text", "image"], "dimension": 24}, checks=("images",)),
    "siglip2": Case(siglip2, expected={"graphs": ["text", "image"]}, checks=("images",)),
    "dinov2": Case(dinov2),
    "convnext": Case(convnext),
    "llava": Case(
        lambda: llava(prompts=PROMPTS, default_prompt_name="query"),
        expected={"graphs": ["text", "image"]},
        checks=("images", "images in other modes", "over the limit"),
    ),
    "gemma3": Case(gemma3, expected={"graphs": ["text", "image"]}, checks=("images",)),
    "whisper": Case(whisper, checks=("sounds",)),
    "ast": Case(spectrogram_transformer, checks=("sounds",)),
    "clap": Case(clap, expected={"graphs": ["text", "audio"], "dimension": 24}, checks=("sounds",)),
    "wav2vec2": Case(lambda: wave_encoder(Wav2Vec2Model), checks=("sounds", "sounds of one length")),
    "wav2vec2-bert": Case(wav2vec2_bert, checks=("sounds", "sounds of one length")),
    "clip as a transformer": Case(
        lambda: clip(st.Transformer), expected={"graphs": ["text", "image"]}, checks=("images",)
    ),
    "prompts, padded left": Case(
        lambda: chain(
            tiny.transformer("qwen3", num_hidden_layers=1),
            pooling("lasttoken"),
            st.Normalize(),
            prompts=PROMPTS,
            default_prompt_name="query",
        ),
        checks=("prompt query",),
    ),
    "truncate_dim": Case(truncated, expected={"dimension": 12}),
    "lower case": Case(lowercased),
    "lengths by task": Case(task_lengths, checks=("encode_query", "encode_document")),
    "token embeddings": Case(
        lambda: bert(pooling(), st.Normalize()),
        {"outputs": ["token_embeddings", "sentence_embedding"]},
        {"outputs": ["token_embeddings", "sentence_embedding"]},
        ("token embeddings",),
    ),
    "token embeddings alone": Case(
        lambda: bert(pooling()), {"outputs": ["token_embeddings"]}, {"outputs": ["token_embeddings"], "dimension": DIM}
    ),
    "token types never": Case(
        lambda: bert(pooling()), {"token_type_ids": False}, {"inputs": ["input_ids", "attention_mask"]}
    ),
    "token types always": Case(lambda: tiny.architecture("roberta"), {"token_type_ids": True}, {"inputs": BERT_INPUTS}),
    "not optimized": Case(
        lambda: bert(pooling()),
        {"optimize": False},
        {"domains": [""], "optimized": False, "attention": {"found": 1, "fused": 0}},
    ),
    "external data": Case(lambda: bert(pooling()), {"external_data": True}, {"data": ["onnx/model.onnx_data"]}),
    "opset 20": Case(lambda: tiny.architecture("modernbert"), {"opset": 20}, {"opset": 20}),
}

# What is also converted to PyTorch, where a module is mostly its own step: each mechanism once.
TORCH_ARCHITECTURES = (
    "bert", "mpnet", "deberta-v2", "modernbert", "t5", "qwen3", "gemma3_text", "qwen3_moe", "xlnet",
)  # fmt: skip
TORCH_MODULES = (
    "pooling max", "pooling without prompt", "dense gelu residual", "dense on tokens", "layer norm", "dropout",
    "weighted layers", "cnn", "cnn with strides", "lstm", "word embeddings, subwords", "word weights",
    "bag of words, once each", "static embedding, truncated", "router with a static route", "clip", "llava", "siglip2",
    "aimv2", "ast", "wav2vec2", "wav2vec2-bert", "truncate_dim", "token embeddings",
)  # fmt: skip

CASES: OrderedDict[str, Case] = OrderedDict({**ARCHITECTURES, **MODULES})
