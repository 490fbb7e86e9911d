"""What the readers of several consumers share: files, sessions, tokens, pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sbertconv.artifact.json_reading import read_json
from sbertconv.artifact.text_input import TEXT
from sbertconv.frameworks import import_openvino

T = TypeVar("T")
KEPT: list[Any] = []  # caches of what is open


def keeps(count: int) -> Callable[[Callable[[Path], T]], Callable[[Path], T]]:
    """Keeps what a function opens, until `forget`."""

    def keep(function: Callable[[Path], T]) -> Callable[[Path], T]:
        KEPT.append(lru_cache(maxsize=count)(function))
        opened: Callable[[Path], T] = KEPT[-1]
        return opened

    return keep


def forget() -> None:
    """Let go what is open: a file that is, cannot be renamed everywhere."""
    for cache in KEPT:
        cache.cache_clear()


def from_json(path: Path) -> Any:
    return read_json(path, unique=False)


@keeps(8)
def opened(path: Path) -> Any:
    """A session in ONNX Runtime; `pack` lets them go."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: it warns of every constant that it folds
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path: Path, encodings: Sequence[Any], output: str | None, typed: bool = True) -> np.ndarray:
    """One output of a graph, None: its first, from what the tokenizers library gives."""
    session = opened(path)
    fed = tensors_of(encodings, typed)
    found = session.run([output] if output else None, {value.name: fed[value.name] for value in session.get_inputs()})
    return np.asarray(found[0])


def run_texts(path: Path, texts: Sequence[str], output: str) -> np.ndarray:
    """One output of a graph that takes strings."""
    return np.asarray(opened(path).run([output], {TEXT: np.array(list(texts), object)})[0])


def tensors_of(encodings: Sequence[Any], typed: bool = True) -> dict[str, np.ndarray]:
    """The three tensors that a graph may take, int64 [batch, sequence]; untyped: its token types are zeros."""
    fed = {
        "input_ids": [encoding.ids for encoding in encodings],
        "attention_mask": [encoding.attention_mask for encoding in encodings],
        "token_type_ids": [encoding.type_ids if typed else [0] * len(encoding.ids) for encoding in encodings],
    }
    return {name: np.array(rows, np.int64) for name, rows in fed.items()}


@keeps(2)
def compiled(path: Path) -> Any:
    """A model of OpenVINO, ready to run."""
    return import_openvino().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def file_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def pooled(tokens: np.ndarray, mask: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Pooling by the flags that every version reads, in that order."""
    rows, count = np.arange(len(tokens)), np.maximum(mask.sum(1), 1e-9)
    last = (mask[:, :, 0] * np.arange(1, mask.shape[1] + 1)).argmax(1)
    first = mask[:, :, 0].argmax(1)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "pooling_mode_cls_token": lambda: tokens[rows, first],
        "pooling_mode_max_tokens": lambda: np.where(mask > 0, tokens, -np.inf).max(1),
        "pooling_mode_mean_tokens": lambda: (tokens * mask).sum(1) / count,
        "pooling_mode_mean_sqrt_len_tokens": lambda: (tokens * mask).sum(1) / np.sqrt(count),
        "pooling_mode_lasttoken": lambda: tokens[rows, last],
    }
    return np.concatenate([way() for flag, way in ways.items() if config[flag]], axis=1)
