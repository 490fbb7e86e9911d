"""A converted folder as Haystack's components, one for queries and one for documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

from haystack import Document, component, default_from_dict, default_to_dict

from sbertconv.runtime.opening import load


class Converted:
    """A folder that a pipeline can save and open again.

    Args:
        folder: the converted folder.
        options: those of `sbertconv.load`.
    """

    def __init__(self, folder: str, **options: Any) -> None:
        self.folder, self.options = str(folder), options
        self.model = load(folder, **options)

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = default_to_dict(self, folder=self.folder, **self.options)
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        found: Self = default_from_dict(cls, data)
        return found


@component
class SbertconvTextEmbedder(Converted):
    """A query, under the model's query prompt, where it has one."""

    @component.output_types(embedding=list[float])  # type: ignore[untyped-decorator]
    def run(self, text: str) -> dict[str, Any]:
        return {"embedding": self.model.encode_query(text).tolist()}


@component
class SbertconvDocumentEmbedder(Converted):
    """Documents, under the model's document prompt, where it has one."""

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(self, documents: list[Document]) -> dict[str, Any]:
        vectors = self.model.encode_document([document.content or "" for document in documents])
        return {
            "documents": [
                replace(document, embedding=vector.tolist())
                for document, vector in zip(documents, vectors, strict=True)
            ]
        }
