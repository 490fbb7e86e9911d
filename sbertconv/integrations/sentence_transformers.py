"""A converted folder as a model of sentence-transformers, for its evaluators, MTEB and `util.semantic_search`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule

from sbertconv.errors import UnsupportedOptionError
from sbertconv.runtime.opening import load


class ConvertedModule(InputModule):
    """The whole chain as one module, which runs outside of PyTorch and cannot be trained.

    Args:
        folder: the converted folder, of a SentenceTransformer.
        options: those of `sbertconv.load`.
    """

    def __init__(self, folder: str | Path, **options: Any) -> None:
        super().__init__()
        self.model = load(folder, **options)
        self.tokenizer = None

    @property
    def max_seq_length(self) -> int | None:
        """The limit in tokens."""
        found: int | None = self.model.max_seq_length
        return found

    def get_embedding_dimension(self) -> int:
        """The length of a vector."""
        return int(self.model.get_embedding_dimension())

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **options: Any) -> dict[str, Any]:
        """The texts themselves: the folder has its tokenizer."""
        return {"texts": list(inputs), "prompt": prompt or "", "task": options.get("task")}

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Adds "sentence_embedding", float32 [batch, dim]."""
        texts, prompt = features["texts"], features["prompt"]
        found = self.model.encode(texts, prompt=prompt, batch_size=max(len(texts), 1), task=features["task"])
        return {**features, "sentence_embedding": torch.from_numpy(found)}

    def save(self, output_path: str, *args: Any, **options: Any) -> None:
        """Raise UnsupportedOptionError: the folder is the saved form."""
        raise UnsupportedOptionError(f"{self.model.artifact.folder}: a converted folder is not saved again.\nCopy it.")


def sentence_transformer(folder: str | Path, **options: Any) -> SentenceTransformer:
    """A SentenceTransformer with the folder's prompts and similarity.

    Args:
        folder: the converted folder.
        options: those of `sbertconv.load`.
    """
    module = ConvertedModule(folder, **options)
    return SentenceTransformer(
        modules=[module],
        device="cpu",
        prompts=module.model.prompts,
        default_prompt_name=module.model.artifact.manifest["default_prompt_name"],
        similarity_fn_name=module.model.similarity_fn_name,
    )
