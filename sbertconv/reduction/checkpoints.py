"""A loaded model that is changed in place, written as a folder of sentence-transformers, and read back."""

from __future__ import annotations

import contextlib
import copy
import shutil
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.json_reading import parse_json
from sbertconv.errors import SbertconvError, SourceError, UnsupportedModuleError, UnsupportedOptionError, error_text
from sbertconv.source.files import HEAD_FILES, WEIGHT_FILES
from sbertconv.source.hearing import listening

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sbertconv.artifact.publishing import Staging
    from sbertconv.source.opening import Source

NARROW = {"F16": "float16", "BF16": "bfloat16"}  # types of weights that float32 holds exactly
COPIED = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt")
LONGEST_HEADER = 1 << 26  # bytes


def refuse_class(source: Source, kinds: tuple[str, ...], verb: str, reason: str) -> None:
    """Raise UnsupportedOptionError for a model of a class that a verb does not take."""
    if source.model_class.name not in kinds:
        raise UnsupportedOptionError(
            f"{source.name}: {verb} does not take a {source.model_class.name} (have: {', '.join(kinds)}): {reason}.\n"
            "Convert it as it is."
        )


@contextlib.contextmanager
def changeable(source: Source) -> Iterator[SentenceTransformer]:
    """The loaded model, or a copy of a live one; its weights lie in memory as those of any other model.

    A file that is mapped has them at odd addresses, where the same products may end in another last bit.

    Raises:
        UnsupportedModuleError: for an adapter.
    """
    with source.loaded() as loaded:
        if any(getattr(module, "peft_config", None) for module in loaded.modules()):
            raise UnsupportedModuleError(
                f"{source.name}: an adapter, whose base would be written without it.\n"
                "Merge it into its base (merge_and_unload), and pass what that saves."
            )
        model = copy.deepcopy(loaded) if source.live is not None else loaded
        settle(model)
        yield model


def settle(model: SentenceTransformer) -> None:
    """Give every weight memory of its own; those that are one stay one."""
    import torch

    moved: dict[tuple[int, torch.Size], torch.Tensor] = {}
    for weight in (*model.parameters(), *model.buffers()):
        place = weight.data_ptr(), weight.shape
        if place not in moved:
            moved[place] = weight.data.clone()
        weight.data = moved[place]


def stored_dtype(source: Source) -> str:
    """The type that a model's files have their weights in, if that is one and the same; else float32."""
    if source.folder is None:
        return "float32"
    folders = {source.folder / spec.path for spec in source.modules}
    files = [file for here in folders for pattern in WEIGHT_FILES for file in here.glob(pattern) if file.is_file()]
    found = {dtype for file in files for dtype in _dtypes(file)}
    return NARROW.get(next(iter(found)), "float32") if len(found) == 1 else "float32"


def _dtypes(file: Path) -> set[str]:
    """The types of the numbers in a file of weights; of one that cannot be told, float32."""
    try:
        with file.open("rb") as opened:
            (size,) = struct.unpack("<Q", opened.read(8))
            text = opened.read(min(size, LONGEST_HEADER)).decode() if file.suffix == ".safetensors" else "{}"
        header = parse_json(text, file, dict)
        types = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, SbertconvError, ValueError, LookupError, TypeError, AttributeError, struct.error):
        types = set()
    return {name for name in types if "F" in name} or {"F32"}


@dataclass(frozen=True)
class Size:
    """What a model takes.

    Attributes:
        parameters: its numbers.
        bytes: of its weights as they are stored, and of its tokenizers.
    """

    parameters: int
    bytes: int

    @classmethod
    def of(cls, model: SentenceTransformer, dtype: str) -> Size:
        """Measure a loaded model whose weights are stored in this type."""
        weights = sum(weight.numel() for weight in model.parameters())
        texts = sum(len(backend.to_str().encode()) for backend in backends(model))
        return cls(weights, weights * (4 if dtype == "float32" else 2) + texts)


def backends(model: SentenceTransformer) -> list[Any]:
    """The tokenizers of the tokenizers library in a model's modules, each once."""
    found = {}
    for module in model.modules():
        if (backend := backend_of(module)) is not None:
            found[id(backend)] = backend
    return list(found.values())


def backend_of(module: Any) -> Any | None:
    """The tokenizer of the tokenizers library that a module has, or None."""
    from tokenizers import Tokenizer

    tokenizer = getattr(module, "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return backend if isinstance(backend, Tokenizer) else None


def save(
    model: SentenceTransformer, source: Source, staging: Staging, dtype: str, heads: Iterable[str] = HEAD_FILES.values()
) -> None:
    """Write the model into the staged folder in the type that its files had, with the card and licence of the original,
    and the heads beside it.

    Raises:
        SourceError: if the library cannot save it.
    """
    import torch

    try:
        with listening():  # to the library's progress bar
            model.to(getattr(torch, dtype)).save_pretrained(str(staging.folder), create_model_card=False)
    except OSError:
        raise
    except Exception as error:
        raise SourceError(
            f"{source.name}: cannot be saved: {error_text(error, 3)}\nSave it again, or report it."
        ) from error
    files = [] if source.folder is None else [source.folder / name for name in (*COPIED, *heads)]
    for file in files:
        if file.is_file() and (source.revision or not file.is_symlink()):  # the Hub's cache is made of links
            shutil.copyfile(file, staging.folder / file.name)


def reopened(source: Source, staging: Staging) -> Source:
    """What was written, as a model."""
    from sbertconv.source.opening import open_source

    return open_source(
        staging.folder,
        trust_remote_code=source.trust_remote_code,
        model_class=source.model_class.name,
        allow_changed=source.allow_changed,
    )
