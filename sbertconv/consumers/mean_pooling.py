"""Software that takes last_hidden_state and its mean under the mask, whatever the model does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, link_or_copy
from sbertconv.artifact.manifest import not_null
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import HIDDEN, SENTENCE, TOKEN_INPUTS, Consumer, Manifest
from sbertconv.consumers.graphs import spread_layout, spread_variant
from sbertconv.consumers.reading import file_tokenizer, run
from sbertconv.consumers.refusals import all_of, ends_normalized, has_limit, has_output, no_default_prompt
from sbertconv.consumers.wordpiece import BertVocabulary, bert_vocabulary
from sbertconv.errors import UnsupportedOptionError

CHROMA_LENGTH = 256
CHROMA_FILES = ("config.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt")
KERNEL_LIMIT = re.compile(r"MaximumTokens = (\d+)")


def read_spring(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """last_hidden_state, its mean under the mask, not normalised."""
    return mean(folder / "onnx/model.onnx", file_tokenizer(folder).encode_batch(list(texts)))


def mean(path: Path, encodings: Sequence[Any]) -> np.ndarray:
    """The mean of last_hidden_state under the mask."""
    tokens = run(path, encodings, HIDDEN)
    mask = np.array([encoding.attention_mask for encoding in encodings], np.float32)[:, :, None]
    return np.asarray((tokens * mask).sum(1) / np.maximum(mask.sum(1), 1e-9))


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Divided by their length."""
    found: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def java_layout(artifact: Artifact, staging: Staging) -> None:
    """One output, which OnnxEmbeddingModel takes as token vectors, and tokenizer.json beside it."""
    spread_variant(artifact, staging, "langchain4j/model.onnx")
    link_or_copy(staging.folder / "tokenizer.json", staging.folder / "langchain4j/tokenizer.json")


def read_java(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Text by text; the mean, normalised."""
    tokenizer = file_tokenizer(folder / "langchain4j")
    path = folder / "langchain4j/model.onnx"
    return normalized(np.concatenate([mean(path, [tokenizer.encode(text)]) for text in texts]))


def kernel_layout(artifact: Artifact, staging: Staging) -> None:
    """A graph of three inputs and vocab.txt.

    Raises:
        UnsupportedOptionError: if the vocabulary is not the whole tokenizer.
    """
    spread_variant(artifact, staging, "semantic-kernel/model.onnx", TOKEN_INPUTS)
    found = bert_vocabulary(staging.folder, "semantic-kernel")
    staging.write("semantic-kernel/vocab.txt", "".join(f"{token}\n" for token in found.tokens))
    staging.write(
        "semantic-kernel/embed.cs",
        "// Microsoft.SemanticKernel.Connectors.Onnx\n"
        'var service = await BertOnnxTextEmbeddingGenerationService.CreateAsync("model.onnx", "vocab.txt",\n'
        f"    new() {{ CaseSensitive = {str(not found.lower).lower()}, "
        f"MaximumTokens = {artifact.manifest['max_seq_length']} }});\n",
    )


def read_kernel(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """vocab.txt with BERT's own rules, text by text; the mean."""
    said = (folder / "semantic-kernel/embed.cs").read_text(encoding="utf-8")
    (limit,) = KERNEL_LIMIT.findall(said)
    tokens = (folder / "semantic-kernel/vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    tokenizer = BertVocabulary(tuple(tokens), "CaseSensitive = false" in said).tokenizer(int(limit))
    path = folder / "semantic-kernel/model.onnx"
    return np.concatenate([mean(path, [tokenizer.encode(text)]) for text in texts])


def chroma_layout(artifact: Artifact, staging: Staging) -> None:
    """The folder that its default embedding function looks for the six files in.

    Raises:
        UnsupportedOptionError: if the tokenizer pads with another token than it writes.
    """
    spread_variant(artifact, staging, "chroma/onnx/model.onnx", TOKEN_INPUTS)
    if not_null(artifact.manifest["graphs"][0]["tokenizer"])["pad_id"] != 0:
        raise UnsupportedOptionError(
            f"{artifact.folder}: chroma pads with token 0, and this model with another.\nLeave the consumer out."
        )
    for name in CHROMA_FILES:
        if (staging.folder / name).is_file():
            link_or_copy(staging.folder / name, staging.folder / "chroma/onnx" / name)
        else:
            staging.write(f"chroma/onnx/{name}", "" if name.endswith("txt") else "{}\n")


def read_chroma(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Cut and padded at 256; the mean, normalised."""
    tokenizer = file_tokenizer(folder / "chroma/onnx")
    tokenizer.enable_truncation(max_length=CHROMA_LENGTH)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]", length=CHROMA_LENGTH)
    return normalized(mean(folder / "chroma/onnx/model.onnx", [tokenizer.encode(text) for text in texts]))


def chroma_cut(manifest: Manifest) -> Iterable[str]:
    if manifest["max_seq_length"] != CHROMA_LENGTH:
        yield (
            f"cuts every text at {CHROMA_LENGTH} tokens, and this model at {manifest['max_seq_length']}; set "
            "max_seq_length and convert again, or write an embedding function of your own over sbertconv.load."
        )


ROWS = (
    Consumer(
        "spring-ai",
        f"onnx/model.onnx, its output {HIDDEN}, the sentence embedding at every token",
        all_of(no_default_prompt, has_output(SENTENCE)),
        spread_layout,
        read_spring,
        hidden="sentence",
    ),
    Consumer(
        "langchain4j",
        "langchain4j/model.onnx and tokenizer.json, with PoolingMode.MEAN; texts up to the limit",
        all_of(no_default_prompt, ends_normalized, has_output(SENTENCE)),
        java_layout,
        read_java,
        over_limit=False,
    ),
    Consumer(
        "semantic-kernel",
        "semantic-kernel/model.onnx and vocab.txt, as embed.cs opens them",
        all_of(no_default_prompt, has_limit, has_output(SENTENCE)),
        kernel_layout,
        read_kernel,
    ),
    Consumer(
        "chroma",
        "chroma, as the DOWNLOAD_PATH of a subclass of ONNXMiniLM_L6_V2",
        all_of(no_default_prompt, ends_normalized, chroma_cut, has_output(SENTENCE)),
        chroma_layout,
        read_chroma,
    ),
)
