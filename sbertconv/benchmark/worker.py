"""One contestant in a process of its own: commands as JSON lines on stdin, answers as JSON lines on stdout.

A command is {"do": <name in COMMANDS>, ...keywords}. Whatever goes wrong ends the process; the last lines on stderr
say why.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbertconv.artifact.kinds import MODEL_CLASSES, ModelClass
from sbertconv.benchmark.measuring import hold_to, texts_of
from sbertconv.errors import SbertconvError
from sbertconv.frameworks import imports_told
from sbertconv.parity.kinds import CLASS_PARITY
from sbertconv.runtime.batches import usable_cores

MATMUL_SIZES = (512, 1024, 2048)  # rows and columns; which is fastest depends on the caches
MATMUL_CALLS = 3
FLOP_TOKENS = 128  # that, half and a quarter: what is linear, what attention adds, what a text costs at least
PEAK = "VmHWM:"
QUERY = "How do I do it?"  # to which the texts are documents, where a model takes pairs


def load_pytorch(path: str, library: str, **options: Any) -> tuple[Any, ModelClass]:
    """The original, in float32 as the conversions are; `library` is its class. It is the only one of its process, which
    stays within bounds.
    """
    import sentence_transformers
    import torch

    from sbertconv.source.description import description_on_hub
    from sbertconv.source.hub_answers import checked_answers
    from sbertconv.source.rendering import bounded_templates

    bounded_templates.__enter__()
    checked_answers.__enter__()
    torch.set_num_threads(usable_cores())
    if not Path(path).is_dir():  # nothing else of the Hub is taken than was looked at
        description_on_hub(path, options["revision"])
    load = getattr(sentence_transformers, library)
    model = load(path, device="cpu", model_kwargs={"dtype": torch.float32}, **options)
    return model, next(row for row in MODEL_CLASSES.values() if row.library == library)


def load_artifact(path: str, **options: Any) -> tuple[Any, ModelClass]:
    """A converted folder, as `sbertconv.load` opens it."""
    from sbertconv.runtime.opening import load

    model = load(path, **options)
    return model, MODEL_CLASSES[model.artifact.manifest["model_class"]]


LOADERS: dict[str, Callable[..., tuple[Any, ModelClass]]] = {"pytorch": load_pytorch, "sbertconv": load_artifact}


def embed(model: Any, inputs: Any, options: Mapping[str, Any]) -> Any:
    """One vector for a text, or one for each of several."""
    return model.encode(inputs, convert_to_numpy=True, **options)


def embed_sparsely(model: Any, inputs: Any, options: Mapping[str, Any]) -> Any:
    """The same in the form that the model itself gives, or as the options say."""
    return model.encode(inputs, **options)


def paired(text: str) -> tuple[str, str]:
    """A text as the document of a query."""
    return (QUERY, text)


def score(model: Any, inputs: Any, options: Mapping[str, Any]) -> Any:
    """The logits of the pair of a text with the query, or of several such pairs."""
    import numpy as np

    texts = [inputs] if isinstance(inputs, str) else inputs
    pairs = [paired(text) for text in texts]
    if hasattr(model, "logits"):
        found = model.logits(pairs, **options)
    else:
        found = model.predict(pairs, activation_fn=lambda logits: logits, **options)
    rows = np.reshape(found, (len(pairs), -1))
    return rows[0] if isinstance(inputs, str) else rows


# Class of models -> what makes a text an input, and how the model is asked.
ASKED: dict[str, tuple[Callable[[str], Any], Callable[..., Any]]] = {
    "SentenceTransformer": (str, embed),
    "MultiVectorEncoder": (str, embed),
    "SparseEncoder": (str, embed_sparsely),
    "CrossEncoder": (paired, score),
    "TextClassifier": (paired, score),
}


def matmul_rate(dtype: str) -> float:
    """The best rate of a matrix product of this torch dtype on the usable cores, in operations per second."""
    import torch

    torch.set_num_threads(usable_cores())
    best = 0.0
    for size in MATMUL_SIZES:
        a, b = (torch.rand(size, size).to(getattr(torch, dtype)) for _ in range(2))
        out = torch.mm(a, b)
        for _ in range(MATMUL_CALLS):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


class Contest:
    """What the commands share: the loaded model and its class."""

    model: Any = None
    model_class: ModelClass

    @property
    def asked(self) -> tuple[Callable[[str], Any], Callable[..., Any]]:
        return ASKED[self.model_class.name]

    def load(self, loader: str, path: str, options: Mapping[str, Any], text: str) -> dict[str, Any]:
        """Load the model and ask it one text: the time it was there, in seconds since 1970, and its dimension."""
        self.model, self.model_class = LOADERS[loader](path, **options)
        vector = self._encode(text)
        return {"time": time.time(), "dimension": vector.shape[-1]}

    def encode(self, texts: Sequence[str], batch_size: int, calls: int) -> list[float]:
        """The seconds that each of these calls of the model took; a single text is passed as such."""
        inputs = texts if len(texts) > 1 else texts[0]
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            self._encode(inputs, batch_size=batch_size)
            seconds.append(time.perf_counter() - start)
        return seconds

    def vectors(self, texts: Sequence[str], batch_size: int, path: str) -> None:
        """Save the embeddings or logits, float32 [texts or all their tokens, dim], as an .npy file."""
        import numpy as np

        found = self._encode(texts, batch_size=batch_size, **CLASS_PARITY[self.model_class.name].arrays)
        np.save(path, np.concatenate(found) if isinstance(found, list) else np.asarray(found, np.float32))

    def peak_memory(self) -> int:
        """The largest resident set of this process so far, in bytes."""
        status = Path("/proc/self/status")
        if status.exists():  # getrusage counts what the process was before exec, too
            (line,) = (line for line in status.read_text().splitlines() if line.startswith(PEAK))
            return int(line.split()[1]) * 2**10
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)

    def matmul_rate(self) -> float:
        """The best rate of a float32 matrix product on these cores, in operations per second."""
        return matmul_rate("float32")

    def limit(self) -> float | None:
        """Tokens beyond which a text is cut; None or infinity: never. Of the original, as all that follow."""
        found: float | None = self.model.max_seq_length
        return found

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, special ones and the query included."""
        return [self._tokens(text) for text in texts]

    def texts_of(self, tokens: int, count: int) -> list[str]:
        """Different texts of so many tokens."""
        return texts_of(tokens, count, self._tokens)

    def flops(self) -> list[float]:
        """What one text of n tokens costs in matrix products, as coefficients of a polynomial in n, highest first."""
        import numpy as np
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        longest = int(min(self.limit() or FLOP_TOKENS, FLOP_TOKENS))
        found = {}
        for part in (4, 2, 1):
            (text,) = self.texts_of(longest // part, 1)
            features = self.model.preprocess([self.asked[0](text)])
            # the counter knows the operations that attention is made of, and not the fused one of the CPU
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                self.model(features)
            found[self._tokens(text)] = counter.get_total_flops()
        return [float(value) for value in np.polyfit([*found], [*found.values()], len(found) - 1)]

    def _encode(self, inputs: Any, **options: Any) -> Any:
        return self.asked[1](self.model, inputs, {"show_progress_bar": False, **options})

    def _tokens(self, text: str) -> int:
        features = self.model.preprocess([self.asked[0](text)])
        return int(features["input_ids"].numel()) if "input_ids" in features else len(text.split())


COMMANDS = ("load", "encode", "vectors", "peak_memory", "matmul_rate", "limit", "count_tokens", "texts_of", "flops")


def main() -> None:
    """Answer until stdin ends. The only argument is the number of cores."""
    hold_to(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    contest = Contest()
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        if name not in COMMANDS:
            sys.exit(f"{name!r} is no command (have: {', '.join(COMMANDS)}).")
        try:
            with imports_told():
                answer = getattr(contest, name)(**command)
        except SbertconvError as error:
            sys.exit(str(error))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
