"""A converted folder as LangChain's `Embeddings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings

from sbertconv.runtime.opening import load


class SbertconvEmbeddings(Embeddings):
    """Texts under the model's document prompt and queries under its query prompt, where it has them.

    Args:
        folder: the converted folder.
        options: those of `sbertconv.load`.
    """

    def __init__(self, folder: str | Path, **options: Any) -> None:
        self.model = load(folder, **options)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = self.model.encode_document(texts).tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        found: list[float] = self.model.encode_query(text).tolist()
        return found
