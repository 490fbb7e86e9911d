"""A converted SparseEncoder -> sparse vectors, with numpy, tokenizers and what runs its format; scipy for matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbertconv.errors import CONVERT_AGAIN, ArtifactError, UnsupportedOptionError, require
from sbertconv.runtime import similarity as similarity_functions
from sbertconv.runtime.inputs import as_list, is_single, task_of
from sbertconv.runtime.keywords import checked
from sbertconv.runtime.model import TaskEncoder, check_batch_size, check_device, check_inputs
from sbertconv.runtime.tokenization import FastTokenizer, Tensors

Weights = list[tuple[str | None, float]]
VECTOR = "sentence_embedding"


@dataclass(frozen=True)
class SparseRow:
    """What is not 0 of one vector: columns, int64 [k], ascending, and values, float32 [k]."""

    columns: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray, values: np.ndarray) -> SparseRow:
        """From columns in any order, some of whose values may be 0."""
        kept = np.flatnonzero(values)
        order = kept[np.argsort(columns[kept], kind="stable")]
        return cls(columns[order].astype(np.int64, copy=False), values[order])

    def largest(self, count: int | None) -> SparseRow:
        """The `count` largest by absolute value, or all."""
        if count is None or count >= len(self.values):
            return self
        return SparseRow.of(*(part[np.argsort(-np.abs(self.values), kind="stable")[:count]] for part in self))

    def __iter__(self) -> Any:
        return iter((self.columns, self.values))


def check_row(row: Any) -> None:
    """Raise UnsupportedOptionError for anything else than a row that `rows` gave."""
    if not isinstance(row, SparseRow):
        raise UnsupportedOptionError(f"{type(row).__name__} is no row of values.\nPass one that rows() gave.")


class SparseEmbedder(TaskEncoder):
    """A converted SparseEncoder; its methods have the keywords and values of the library's.

    A matrix is a `scipy.sparse.csr_array` [n, dim]; a single vector is such an array [dim], a text's own.

    Attributes:
        similarity_fn_name: "dot", "cosine", "euclidean" or "manhattan".
        max_active_dims: how many values of a vector the graph leaves, if not all.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.max_active_dims: int | None = self.artifact.manifest["max_active_dims"]

    @checked
    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = True,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: str | None = None,
        max_active_dims: int | None = None,
        task: str | None = None,
    ) -> Any:
        """Embed texts, as `SparseEncoder.encode` does.

        Args:
            inputs: one text or a sequence of texts.
            convert_to_tensor: one matrix; False: a list of its rows.
            {keywords}

        Returns:
            A float32 array [n, dim], or [dim] for a single text.

        Raises:
            UnsupportedOptionError: for an unknown prompt name, device or task, or more active dimensions than the
                graph leaves.
            MissingDependencyError: if scipy is not installed, and not told to do without.
        """
        if convert_to_sparse_tensor:
            require("sparse", "scipy")  # before the work
        rows = self.rows(
            inputs,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            device=device,
            max_active_dims=max_active_dims,
            task=task,
        )
        matrix = (self.matrix if convert_to_sparse_tensor else self._dense)(rows)
        if is_single(inputs):
            return matrix[[0], :].reshape(-1) if convert_to_sparse_tensor else matrix[0]
        if convert_to_tensor:
            return matrix
        return [matrix[[row], :].reshape(-1) for row in range(len(rows))] if convert_to_sparse_tensor else list(matrix)

    @checked
    def rows(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        device: str | None = None,
        max_active_dims: int | None = None,
        task: str | None = None,
    ) -> list[SparseRow]:
        """What is not 0 of each text's vector, as an index takes it; needs no scipy. Args and raises: see `encode`."""
        check_batch_size(batch_size)
        check_device(device, self.device)
        limit = self._limit(max_active_dims)
        check_inputs(inputs)
        items = as_list(inputs)
        if not items:
            return []
        if task is None and (task := task_of(items, self.routed_tasks)) is not None:
            items = [item[task] for item in items]
        resolved = self._resolve_prompt(prompt, prompt_name)
        output = VECTOR if VECTOR in self.graphs[0].outputs else "values"
        rows = self._run(items, resolved, batch_size, bool(show_progress_bar), output, task)
        self._check_columns(rows)
        return [row.largest(limit) for row in rows]

    def _check_columns(self, rows: Sequence[SparseRow]) -> None:
        """Raise ArtifactError for a column that no vector of this size has: scipy writes there without looking."""
        size = self.get_embedding_dimension()
        ends = {int(row.columns[end]) for row in rows if len(row.columns) for end in (0, -1)}  # they are in order
        if strange := [column for column in sorted(ends) if not 0 <= column < size]:
            raise ArtifactError(
                f"{self.artifact.folder}: its graph gives a value in column {strange[0]}, and its vectors have {size} "
                f"numbers.\n{CONVERT_AGAIN}"
            )

    def _limit(self, asked: int | None) -> int | None:
        """How many values stay of what the graph gives."""
        if asked is None:
            return None
        if asked <= 0:
            raise UnsupportedOptionError(
                f"max_active_dims must be a positive integer, not {asked}.\nLeave it out to keep every dimension."
            )
        if self.max_active_dims is not None and asked > self.max_active_dims:
            raise UnsupportedOptionError(
                f"max_active_dims={asked}: the graph leaves {self.max_active_dims} values of a vector.\n"
                f"Convert the model with top_k={asked}."
            )
        return asked

    def _row(self, found: Mapping[str, np.ndarray], output: str | None, row: int, tensors: Tensors) -> Any:
        if output == "logits":
            return super()._row(found, output, row, tensors)
        if output == VECTOR:
            columns = np.flatnonzero(found[VECTOR][row])
            return SparseRow(columns, found[VECTOR][row][columns])
        indices, values = found["indices"], found["values"]
        if values.ndim == 2:
            return SparseRow.of(indices[row], values[row])
        own = slice(*np.searchsorted(indices[:, 0], [row, row + 1]))
        return SparseRow.of(indices[own, 1], values[own])

    def matrix(self, rows: Sequence[SparseRow]) -> Any:
        """Vectors as one `scipy.sparse.csr_array` [n, dim].

        Raises:
            UnsupportedOptionError: for anything else than rows that `rows` gave.
            MissingDependencyError: if scipy is not installed.
        """
        require("sparse", "scipy")
        from scipy.sparse import csr_array

        if not isinstance(rows, (list, tuple)):
            raise UnsupportedOptionError(f"{type(rows).__name__} is no list of rows.\nPass what rows() gave.")
        for row in rows:
            check_row(row)
        ends = np.cumsum([0, *(len(row.columns) for row in rows)])
        columns = np.concatenate([np.zeros(0, np.int64), *(row.columns for row in rows)])
        values = np.concatenate([np.zeros(0, np.float32), *(row.values for row in rows)])
        return csr_array((values, columns, ends), shape=(len(rows), self.get_embedding_dimension()))

    def _dense(self, rows: Sequence[SparseRow]) -> np.ndarray:
        found = np.zeros((len(rows), self.get_embedding_dimension()), np.float32)
        for vector, row in zip(found, rows, strict=True):
            vector[row.columns] = row.values
        return found

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """All pairs under the model's similarity function: [n, dim], [m, dim] or lists of rows, sparse or not ->
        float32 [n, m]; of whole numbers float64.

        Raises:
            UnsupportedOptionError: for anything else than vectors, or vectors of two lengths.
        """
        a, b = (similarity_functions.floating(_stacked(embeddings)) for embeddings in (embeddings1, embeddings2))
        if self.similarity_fn_name == "dot":  # without the zeros
            a, b = _matrix(a), _matrix(b)
            similarity_functions.check_shapes(a.shape, b.shape)
            return _array(a @ b.T)
        return similarity_functions.similarity(self.similarity_fn_name, _array(a), _array(b))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Row by row under the model's similarity function: [n, dim], [n, dim] or lists of rows, sparse or not ->
        float32 [n]; of two single vectors [].
        """
        rows = (_array(_stacked(embeddings)) for embeddings in (embeddings1, embeddings2))
        return similarity_functions.similarity_pairwise(self.similarity_fn_name, *rows)

    @staticmethod
    def intersection(embeddings_1: Any, embeddings_2: Any) -> Any:
        """What two texts have in common: the products of their values, where those are positive.

        Args:
            embeddings_1: sparse or not, [dim].
            embeddings_2: sparse or not, [dim], [n, dim] or a list of rows.

        Returns:
            A `scipy.sparse.csr_array` of the shape of `embeddings_2`, which `decode` takes.

        Raises:
            UnsupportedOptionError: for other shapes, vectors of two lengths, or anything else than vectors.
            MissingDependencyError: if scipy is not installed.
        """
        require("sparse", "scipy")
        from scipy.sparse import csr_array

        given = _stacked(embeddings_1), _stacked(embeddings_2)
        shapes = given[0].shape, given[1].shape
        if len(shapes[0]) != 1 or len(shapes[1]) not in (1, 2) or shapes[0][-1] != shapes[1][-1]:
            raise UnsupportedOptionError(
                f"{shapes[0]} and {shapes[1]} have no intersection (have: [dim] and [dim] or [n, dim]).\n"
                "Pass one vector first."
            )
        one, others = (csr_array(_matrix(embeddings)) for embeddings in given)
        common = csr_array(others.multiply(one))
        common.data[common.data < 0] = 0
        common.eliminate_zeros()
        return common.reshape(shapes[1])

    @checked
    def decode(self, embeddings: Any, top_k: int | None = None) -> Weights | list[Weights]:
        """The tokens of a vocabulary's vector with their weights, the heaviest first.

        Args:
            embeddings: sparse or not, [dim], [n, dim] or a list of rows.
            top_k: how many at most; None: all.

        Returns:
            (token, weight) pairs, which `dict` makes a mapping of; of a matrix, a list of them for each row. A column
            beyond the vocabulary has no token (None).

        Raises:
            UnsupportedOptionError: for a `top_k` that is not positive, a tensor of another rank, or a model whose
                tokenizer knows no tokens by number.
        """
        if top_k is not None and top_k <= 0:
            raise UnsupportedOptionError(f"top_k must be a positive integer, not {top_k}.\nLeave it out for all.")
        embeddings = _stacked(embeddings)
        found = [self._decoded(row, top_k) for row in _rows(embeddings)]
        return found[0] if embeddings.ndim == 1 else found

    def tokens(self, row: SparseRow) -> dict[str | None, float]:
        """Token -> weight of one text, the heaviest first.

        Raises:
            UnsupportedOptionError: for anything else than a row that `rows` gave, and what `decode` raises.
        """
        check_row(row)
        return dict(self._decoded(row, None))

    def _decoded(self, row: SparseRow, top_k: int | None) -> Weights:
        tokenizer = self.graphs[0].tokenizer
        if not isinstance(tokenizer, FastTokenizer):
            raise UnsupportedOptionError(f"{type(tokenizer).__name__} has no tokens by number.\nUse the columns.")
        order = np.argsort(-row.values, kind="stable")[:top_k]
        token = tokenizer.backend.id_to_token
        return [(token(int(row.columns[place])), float(row.values[place])) for place in order]

    @staticmethod
    def sparsity(embeddings: Any) -> dict[str, float]:
        """How many values of the vectors are not 0 on average, and the share of those that are.

        Args:
            embeddings: sparse or not, [dim], [n, dim] or a list of rows.

        Returns:
            {"active_dims": float, "sparsity_ratio": float}.
        """
        embeddings = _stacked(embeddings)
        counts = [len(columns) for columns, _ in _rows(embeddings)]
        size = embeddings.shape[-1]
        if not counts or not size:
            return {"active_dims": 0.0, "sparsity_ratio": 1.0}
        active = float(np.mean(counts, dtype=np.float32))
        return {"active_dims": active, "sparsity_ratio": 1.0 - active / size}


def _stacked(vectors: Any) -> Any:
    """A list of rows as one matrix, sparse if they are; anything else as it is.

    Raises:
        UnsupportedOptionError: for anything else than vectors, or vectors of several lengths.
    """
    if hasattr(vectors, "tocsr"):
        return vectors
    if not (isinstance(vectors, list) and vectors and all(hasattr(row, "tocsr") for row in vectors)):
        return similarity_functions.array_of(vectors)
    similarity_functions.check_lengths({row.shape[-1] for row in vectors})
    from scipy.sparse import vstack

    return vstack([_matrix(row) for row in vectors], format="csr")


def _matrix(vectors: Any) -> Any:
    """[n, dim], sparse or not."""
    return vectors.reshape(1, -1) if vectors.ndim == 1 else vectors


def _array(vectors: Any) -> np.ndarray:
    """As a numpy array."""
    found: np.ndarray = vectors.toarray() if hasattr(vectors, "toarray") else np.asarray(vectors)
    return found


def _rows(vectors: Any) -> list[SparseRow]:
    """The rows of a vector or a matrix, sparse or not.

    Raises:
        UnsupportedOptionError: for a tensor of another rank.
    """
    if vectors.ndim not in (1, 2):
        raise UnsupportedOptionError(f"{vectors.ndim} dimensions (have: [dim], [n, dim]).\nPass one of these.")
    if not hasattr(vectors, "tocsr"):
        return [SparseRow.of(np.arange(len(row)), row) for row in np.atleast_2d(np.asarray(vectors))]
    matrix = _matrix(vectors).tocsr()
    bounds = zip(matrix.indptr, matrix.indptr[1:], strict=False)
    return [SparseRow.of(matrix.indices[start:end], matrix.data[start:end]) for start, end in bounds]
