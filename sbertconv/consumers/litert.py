"""LiteRT on devices: shapes that are fixed, which accelerators ask for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.manifest import limit_of, not_null
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import SENTENCE, Consumer, Manifest
from sbertconv.consumers.reading import file_tokenizer, keeps
from sbertconv.consumers.refusals import all_of, has_limit, no_default_prompt
from sbertconv.errors import UnsupportedOptionError, error_text
from sbertconv.frameworks import import_tensorflow

LENGTHS = (128, 256, 512)
FILE, SMALL = "litert/model_1x{length}.tflite", "litert/model_int8_1x{length}.tflite"


def lengths_for(manifest: Manifest) -> list[int]:
    """The lengths that a file is written for; the last one holds every text."""
    limit = not_null(limit_of(manifest))
    return [*(length for length in LENGTHS if length < limit), limit]


def small_layout(artifact: Artifact, staging: Staging) -> None:
    """The same with weights of 8 bits, which are widened or multiplied by activations that are rounded on the way."""
    fixed_layout(artifact, staging, SMALL)


def fixed_layout(artifact: Artifact, staging: Staging, file: str = FILE) -> None:
    """A file for each length, one text at a time.

    Args:
        artifact: with a SavedModel.
        staging: the folder.
        file: its place, with {length}; of SMALL weights have 8 bits.

    Raises:
        UnsupportedOptionError: if LiteRT cannot hold one.
    """
    from sbertconv.converters.traced import quiet
    from sbertconv.runtime.saved_models import check_saved_model

    tf = import_tensorflow(["litert"])
    graph = artifact.manifest["graphs"][0]
    path = staging.folder / graph["formats"]["saved_model"]
    check_saved_model(path)
    with quiet():
        loaded = tf.saved_model.load(str(path.parent))
    serve = loaded.signatures["serving_default"]
    for length in lengths_for(artifact.manifest):
        specs = {entry["name"]: tf.TensorSpec([1, length], "int32", entry["name"]) for entry in graph["inputs"]}
        with quiet():
            fixed = tf.function(lambda **given: serve(**given)).get_concrete_function(**specs)
            converter = tf.lite.TFLiteConverter.from_concrete_functions([fixed], loaded)
            converter.optimizations = [tf.lite.Optimize.DEFAULT] if file == SMALL else []
            try:
                written = converter.convert()
            except Exception as error:
                raise UnsupportedOptionError(
                    f"LiteRT cannot hold [1, {length}]: {error_text(error, 3)}\nLeave the consumer out."
                ) from error
        target = staging.folder / file.format(length=length)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(written)


@keeps(4)
def interpreter(path: Path) -> Any:
    """A LiteRT interpreter with its buffers."""
    from sbertconv.runtime.saved_models import check_litert

    check_litert(path)
    tf = import_tensorflow(["litert"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this interpreter will move to a package of its own
        return tf.lite.Interpreter(str(path)).get_signature_runner()


def read_small(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The same with the files of 8 bits."""
    return read_fixed(folder, texts, SMALL)


def read_fixed(folder: Path, texts: Sequence[str], file: str = FILE) -> np.ndarray:
    """Text by text, padded to the shortest length that holds it."""
    tokenizer = file_tokenizer(folder)
    files = {int(path.stem.rpartition("x")[2]): path for path in folder.glob(file.format(length="*"))}
    return np.concatenate([fixed_answer(tokenizer, files, text) for text in texts])


def fixed_answer(tokenizer: Any, files: Mapping[int, Path], text: str) -> np.ndarray:
    padding = tokenizer.padding
    tokenizer.no_padding()
    length = min(size for size in files if size >= len(tokenizer.encode(text)))
    tokenizer.enable_padding(**{**padding, "length": length})
    encoding, runner = tokenizer.encode(text), interpreter(files[length])
    fed = {
        "input_ids": encoding.ids,
        "attention_mask": encoding.attention_mask,
        "token_type_ids": encoding.type_ids,
    }
    found = runner(**{name: np.array([fed[name]], np.int32) for name in runner.get_input_details()})
    return np.asarray(found[SENTENCE])


def has_saved_model(manifest: Manifest) -> Iterable[str]:
    if "saved_model" not in manifest["engines"]:
        yield "is made of the SavedModel; convert with formats=['saved_model', 'litert']."


ROWS = (
    Consumer(
        "litert",
        "litert/model_1xN.tflite, int32, the shortest N that holds a text; the client has tokenizer.json",
        all_of(no_default_prompt, has_limit, has_saved_model, form="litert"),
        fixed_layout,
        read_fixed,
        form="litert",
    ),
    Consumer(
        "litert-int8",
        "litert/model_int8_1xN.tflite, weights of 8 bits, int32, the shortest N that holds a text; the client has "
        "tokenizer.json",
        all_of(no_default_prompt, has_limit, has_saved_model, form="litert"),
        small_layout,
        read_small,
        form="litert",
        gate="int8",
    ),
)
