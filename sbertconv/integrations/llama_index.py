"""A converted folder as LlamaIndex's `BaseEmbedding`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from sbertconv.runtime.opening import load


class SbertconvEmbedding(BaseEmbedding):
    """Texts under the model's document prompt and queries under its query prompt, where it has them.

    Args:
        folder: the converted folder.
        options: those of `sbertconv.load`.
    """

    _model: Any = PrivateAttr()

    def __init__(self, folder: str | Path, **options: Any) -> None:
        super().__init__(model_name=str(folder))
        self._model = load(folder, **options)

    def _get_query_embedding(self, query: str) -> list[float]:
        found: list[float] = self._model.encode_query(query).tolist()
        return found

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = self._model.encode_document(texts).tolist()
        return found
