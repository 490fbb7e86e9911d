"""A converted MultiVectorEncoder -> a vector for each token, and their MaxSim, with numpy; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sbertconv.artifact.scoring import TASKS
from sbertconv.errors import UnsupportedOptionError, require
from sbertconv.runtime.inputs import as_list, is_single
from sbertconv.runtime.keywords import checked
from sbertconv.runtime.maxsim import SIMILARITIES, maxsim, maxsim_pairwise
from sbertconv.runtime.model import TaskEncoder, check_batch_size, check_device, check_inputs
from sbertconv.runtime.options import CPU
from sbertconv.runtime.similarity import normalize
from sbertconv.runtime.token_pooling import HierarchicalTokenPooling
from sbertconv.runtime.tokenization import Tensors

MASK = "scoring_mask"
VECTORS = "token_embeddings"


class MultiVectorEmbedder(TaskEncoder):
    """A converted MultiVectorEncoder; its methods have the keywords and values of the library's, as numpy arrays.

    Attributes:
        similarity_fn_name: "maxsim" or "meanmaxsim".
        token_pooling: what the model itself does to the vectors of a text, in order.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.token_pooling = [HierarchicalTokenPooling(**one) for one in self.artifact.manifest["token_pooling"]]

    @checked
    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = VECTORS,
        convert_to_numpy: bool = True,
        device: str | None = None,
        normalize_embeddings: bool = False,
        token_pooling: HierarchicalTokenPooling | None = None,
        task: str | None = None,
    ) -> Any:
        """Embed the tokens of texts (or images), as `MultiVectorEncoder.encode` does. `encode_query` and
        `encode_document` say the task and choose its prompt.

        Args:
            inputs: one text or a sequence of texts; for a model of images also Pillow images, arrays, paths of image
                files, or their bytes.
            output_value: "token_embeddings", or None for a dict of everything per input, nothing left out: padding
                too, which `attention_mask` tells from the tokens that count.
            convert_to_numpy: False gives torch tensors (torch must be installed).
            token_pooling: pool once more, after what the model does itself.
            task: "query", "document" or None: how long a text may be, what it is expanded with, which tokens count.
            {keywords}

        Returns:
            A list of float32 arrays [tokens that count, dim]; one array for a single text.

        Raises:
            UnsupportedOptionError: for an unknown prompt name, output, pooling, device or task.
        """
        check_batch_size(batch_size)
        check_device(device, self.device)
        if output_value not in (VECTORS, None):
            raise UnsupportedOptionError(
                f"output_value {output_value!r} is not known (have: {VECTORS}, None).\nChoose one of these."
            )
        if task not in (None, *TASKS):
            raise UnsupportedOptionError(
                f"task {task!r} is not known (have: {', '.join(TASKS)}).\nChoose one of these."
            )
        if not isinstance(token_pooling, HierarchicalTokenPooling | None):
            raise UnsupportedOptionError(
                f"token_pooling is a {type(token_pooling).__name__} (have: sbertconv.HierarchicalTokenPooling).\n"
                "Pass that."
            )
        if self.modalities == ("text",):
            check_inputs(inputs)
        single, items = is_single(inputs), as_list(inputs)
        if not items:
            return []
        resolved = self._resolve_prompt(prompt, prompt_name)
        rows = self._run(items, resolved, batch_size, bool(show_progress_bar), output_value, task)
        for pooling in self.token_pooling:
            rows = _pooled(pooling, rows, task)
        if normalize_embeddings and output_value is not None:
            rows = [normalize(row) for row in rows]
        if token_pooling is not None:
            rows = _pooled(token_pooling, rows, task)
        if not convert_to_numpy and output_value is not None:
            require("onnx", "torch")
            import torch

            rows = [torch.from_numpy(np.ascontiguousarray(row)) for row in rows]
        return rows[0] if single else rows

    def _row(self, found: Mapping[str, np.ndarray], output: str | None, row: int, tensors: Tensors) -> Any:
        """One text's vectors of the tokens that count, or a dict of all that there is, the mask under the library's
        name.
        """
        if output is None:
            given = {name: values[row] for name, values in {**tensors, **found}.items()}
            return {**given, "attention_mask": given.pop(MASK) != 0}
        return found[VECTORS][row][found[MASK][row] != 0]

    def similarity(self, embeddings1: Any, embeddings2: Any, **options: Any) -> np.ndarray:
        """All pairs under the model's similarity function, float32 [n, m]; arguments: see `sbertconv.scores.maxsim`."""
        return maxsim(embeddings1, embeddings2, **self._normalised(options))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any, **options: Any) -> np.ndarray:
        """Query i with document i, float32 [n]; arguments: see `sbertconv.scores.maxsim_pairwise`."""
        return maxsim_pairwise(embeddings1, embeddings2, **self._normalised(options))

    def _normalised(self, options: dict[str, Any]) -> dict[str, Any]:
        check_device(options.pop("device", None), CPU)
        return {"length_normalize": SIMILARITIES[self.similarity_fn_name], **options}


def _pooled(pooling: HierarchicalTokenPooling, rows: list[Any], task: str | None) -> list[Any]:
    """The vectors of each text pooled, or in each dict of everything the vectors and their mask."""
    whole = bool(rows) and isinstance(rows[0], dict)
    if not whole or not pooling.applies_to(task):
        return rows if whole else pooling.pool(rows, task)
    vectors = pooling.pool([row[VECTORS][row["attention_mask"]] for row in rows], task)
    return [
        {**row, VECTORS: found, "attention_mask": np.ones(len(found), bool)}
        for row, found in zip(rows, vectors, strict=True)
    ]
