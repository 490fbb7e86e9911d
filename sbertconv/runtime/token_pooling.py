"""Token pooling in numpy: fewer vectors for a document, as HierarchicalTokenPooling of sentence-transformers gives.

Tokens are clustered by Ward's method on their cosine distances, and each cluster becomes its mean. The clustering is
that of `scipy.cluster.hierarchy` to the last bit, cluster numbers included, because rows come in their order: the chain
of nearest neighbours of D. Müllner, "Modern hierarchical, agglomerative clustering algorithms"
(https://arxiv.org/abs/1109.2378, section 3.2), and the flat clusters of fcluster(criterion="maxclust").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sbertconv.errors import UnsupportedOptionError
from sbertconv.runtime.keywords import check_fields
from sbertconv.runtime.similarity import normalize


@dataclass
class HierarchicalTokenPooling:
    """Keep about 1 / `pool_factor` of a text's token vectors.

    Attributes:
        pool_factor: at least 1, which merges nothing.
        num_protected_tokens: leading tokens that are not merged.
        normalize_embeddings: divide every vector by its length in the end.
        tasks: those in which it applies; no task counts as "document".

    Raises:
        UnsupportedOptionError: for impossible numbers.
    """

    pool_factor: float = 1.0
    num_protected_tokens: int = 1
    normalize_embeddings: bool = True
    tasks: str | Sequence[str] = ("document",)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.pool_factor < 1 or self.num_protected_tokens < 0:
            raise UnsupportedOptionError(
                f"pool_factor {self.pool_factor}, num_protected_tokens {self.num_protected_tokens} "
                "(have: at least 1, at least 0).\nPass these."
            )
        self.tasks = [self.tasks] if isinstance(self.tasks, str) else list(self.tasks)

    def applies_to(self, task: str | None) -> bool:
        """Whether it pools what is embedded for this task."""
        return (task or "document") in self.tasks

    def pool(self, embeddings: Sequence[np.ndarray], task: str | None = None) -> list[np.ndarray]:
        """Pool each text's vectors: float32 [tokens, dim] -> [fewer, dim]; as they are for another task."""
        if not self.applies_to(task):
            return list(embeddings)
        return [self.pool_one(vectors) for vectors in embeddings]

    def pool_one(self, vectors: np.ndarray) -> np.ndarray:
        """Pool the vectors of one text: float32 [tokens, dim] -> [fewer, dim]."""
        protected, rest = vectors[: self.num_protected_tokens], vectors[self.num_protected_tokens :]
        count = max(int(len(rest) // self.pool_factor), 1)
        if count < len(rest):
            distances = np.clip(1 - rest @ rest.T, 0, 2)
            labels = flat_clusters(ward(distances), count)
            sums = np.zeros((labels.max() + 1, vectors.shape[1]), vectors.dtype)
            np.add.at(sums, labels, rest)
            means = sums / np.bincount(labels)[:, None].astype(vectors.dtype)
            vectors = np.concatenate([protected, means])
        return normalize(vectors) if self.normalize_embeddings else vectors


@np.errstate(invalid="ignore")  # infinity less infinity, at places that become infinity again
def ward(distances: np.ndarray) -> np.ndarray:
    """Ward's hierarchical clustering.

    Args:
        distances: [n, n], of which the upper triangle is read; n >= 2.

    Returns:
        float64 [n - 1, 3]: the two clusters that merge, the smaller number first, and their distance, by distance.
        Numbers below n are the points, n + i is what row i merges.
    """
    count = len(distances)
    far = np.triu(distances, 1).astype(np.float64)
    far += far.T
    np.fill_diagonal(far, np.inf)
    sizes = np.ones(count)
    merges = np.empty((count - 1, 3))
    chain: list[int] = []
    for step in range(count - 1):
        if not chain:
            chain.append(int(np.flatnonzero(sizes)[0]))
        while True:
            last = chain[-1]
            nearest = int(np.argmin(far[last]))
            if len(chain) > 1 and far[last, chain[-2]] <= far[last, nearest]:
                break  # the two are each other's nearest
            chain.append(nearest)
        one, other = sorted((chain.pop(), chain.pop()))
        merges[step] = one, other, far[one, other]
        _merge(far, sizes, one, other)
    return _numbered(merges[np.argsort(merges[:, 2], kind="stable")], count)


def _merge(far: np.ndarray, sizes: np.ndarray, one: int, other: int) -> None:
    """Put `one` into `other`; distances to it by the formula of Lance and Williams for Ward's method. What is gone is
    infinitely far from everything.
    """
    merged, both = far[one, other], sizes[one] + sizes[other]
    share = 1 / (both + sizes)
    x, y = far[one], far[other]
    new = (sizes + sizes[one]) * share * x * x + (sizes + sizes[other]) * share * y * y
    far[other] = far[:, other] = np.sqrt(new - sizes * share * merged * merged)
    far[one] = far[:, one] = np.inf
    far[other, other] = np.inf
    sizes[one], sizes[other] = 0, both


def _numbered(merges: np.ndarray, count: int) -> np.ndarray:
    """Points as the numbers of the clusters that they are in by then."""
    parents = list(range(2 * count - 1))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    for step, row in enumerate(merges):
        pair = root(int(row[0])), root(int(row[1]))
        row[:2] = sorted(pair)
        parents[pair[0]] = parents[pair[1]] = count + step
    return merges


def flat_clusters(merges: np.ndarray, wanted: int) -> np.ndarray:
    """The number of each point's cluster, int64 [n], from 0 on, where at most `wanted` < n clusters are left.

    As in scipy, clusters that merge at one distance all merge, and they are numbered as a walk from the root finds
    them: of a cluster's two parts a larger one before a single point, and otherwise the first before the second.
    """
    count = len(merges) + 1
    heights = np.maximum.accumulate(merges[:, 2])
    left = count - np.searchsorted(heights, heights, side="right")
    limit = heights[np.argmax(left <= wanted)]
    labels = np.zeros(count, np.int64)
    number = -1
    waiting = [(2 * count - 2, False)]
    while waiting:
        cluster, inside = waiting.pop()
        row = cluster - count
        if row >= 0:
            begins = not inside and heights[row] <= limit
            number += begins
            parts = sorted((int(part) for part in merges[row, :2]), key=lambda part: part < count)
            waiting += [(part, inside or begins) for part in reversed(parts)]
        else:
            number += not inside
            labels[cluster] = number
    return labels
