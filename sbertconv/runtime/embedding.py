"""A converted SentenceTransformer: dense embeddings of texts and images."""

from __future__ import annotations

from typing import Any

import numpy as np

from sbertconv.errors import UnsupportedOptionError, require
from sbertconv.runtime import similarity as similarity_functions
from sbertconv.runtime.heads import SHAPED
from sbertconv.runtime.inputs import as_list, is_single, task_of
from sbertconv.runtime.keywords import checked
from sbertconv.runtime.model import TaskEncoder, check_batch_size, check_device
from sbertconv.runtime.tokenization import Tensors


class Embedder(TaskEncoder):
    """A converted SentenceTransformer; `encode` has the keywords and results of `SentenceTransformer.encode`.

    Attributes:
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan".
        truncate_dim: how many dimensions the graph gives, if not all.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.truncate_dim: int | None = self.artifact.manifest.get("truncate_dim")
        self._unweighted = frozenset(self.artifact.manifest.get("unweighted_ids", ()))  # looked up for every token

    @checked
    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        task: str | None = None,
    ) -> Any:
        """Embed texts (or images), as `SentenceTransformer.encode` does.

        Args:
            inputs: one text or a sequence of texts; for an image model also Pillow images, arrays, paths of image
                files, or their bytes; instead of a text {"text": text}, or messages for a chat template.
            {keywords}

        Returns:
            A float32 array [n, dim], or [dim] for a single input; lists of arrays [tokens, dim] for
            "token_embeddings" and "colbert_vecs"; dicts of token ids and weights for "lexical_weights".

        Raises:
            UnsupportedOptionError: for an unknown prompt name, output, precision, device or task.
        """
        check_batch_size(batch_size)
        if truncate_dim is not None and truncate_dim <= 0:
            raise UnsupportedOptionError(
                f"truncate_dim must be a positive integer, not {truncate_dim}.\nLeave it out to keep every dimension."
            )
        check_device(device, self.device)
        if precision not in similarity_functions.PRECISIONS:
            similarity_functions.quantize_embeddings([], precision)
        single, items = is_single(inputs), as_list(inputs)
        if not items:
            return self._as_asked(np.array([]), convert_to_numpy, convert_to_tensor)
        if task is None and (task := task_of(items, self.routed_tasks)) is not None:
            items = [item[task] for item in items]
        asked, progress = self._resolve_prompt(prompt, prompt_name), bool(show_progress_bar)
        rows = self._run(items, asked, batch_size, progress, output_value, task, self._shaped)
        if output_value != "sentence_embedding":
            if precision != "float32":
                rows = list(similarity_functions.quantize_embeddings(rows, precision))
            return rows[0] if single else rows
        vectors = self._truncate(np.stack(rows), truncate_dim)
        if normalize_embeddings:
            vectors = similarity_functions.normalize(vectors)
        vectors = np.asarray(similarity_functions.quantize_embeddings(vectors, precision))
        return self._as_asked(vectors[0] if single else vectors, convert_to_numpy, convert_to_tensor)

    def _shaped(self, found: Tensors, output: str | None, row: int, tensors: Tensors) -> Any:
        """One item's result: outputs of further heads without padding and special tokens."""
        if output is not None and output not in SHAPED:
            return self._row(found, output, row, tensors)
        heads = {}
        for name in SHAPED.keys() & found.keys() & ({output} if output else found.keys()):
            kept = np.flatnonzero(tensors["attention_mask"][row])
            heads[name] = SHAPED[name](found[name][row][kept], tensors["input_ids"][row][kept], self._unweighted)
        return {**self._row(found, None, row, tensors), **heads} if output is None else heads[output]

    @staticmethod
    def _as_asked(vectors: np.ndarray, convert_to_numpy: bool, convert_to_tensor: bool) -> Any:
        """The container that `SentenceTransformer.encode` returns for these two options."""
        if convert_to_numpy and not convert_to_tensor:
            return vectors
        require("onnx", "torch")
        import torch

        tensor = torch.from_numpy(vectors.astype(np.float32) if vectors.dtype == np.float64 else vectors)
        return tensor if convert_to_tensor or (vectors.ndim == 1 and len(vectors)) else list(tensor)

    def similarity(self, embeddings1: np.ndarray, embeddings2: np.ndarray) -> np.ndarray:
        """All pairs under the model's similarity function: [n, dim], [m, dim] -> [n, m].

        Whole numbers, as precision int8 and uint8 give them, are compared as float64. The numbers of binary and ubinary
        are eight dimensions each, packed: to this function they look like the same kinds, and what it says of them
        means nothing. Compare those by their Hamming distance.
        """
        return similarity_functions.similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: np.ndarray, embeddings2: np.ndarray) -> np.ndarray:
        """Row by row under the model's similarity function: [n, dim], [n, dim] -> [n]; of two vectors [].
        Whole numbers: see `similarity`.
        """
        return similarity_functions.similarity_pairwise(self.similarity_fn_name, embeddings1, embeddings2)

    def _truncate(self, vectors: np.ndarray, truncate_dim: int | None) -> np.ndarray:
        if truncate_dim is None:
            return vectors
        if self.truncate_dim is not None and truncate_dim > self.truncate_dim:
            raise UnsupportedOptionError(
                f"truncate_dim={truncate_dim}: the graph gives the first {self.truncate_dim} dimensions only.\n"
                "Raise truncate_dim in config_sentence_transformers.json and convert the model again."
            )
        return vectors[:, :truncate_dim]
