"""TensorFlow Serving and what opens a SavedModel like it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, link_or_copy
from sbertconv.artifact.publishing import Staging
from sbertconv.artifact.text_input import TEXT
from sbertconv.consumers.consumer import SENTENCE, Consumer
from sbertconv.consumers.naming import server_name
from sbertconv.consumers.reading import file_tokenizer, keeps, tensors_of
from sbertconv.consumers.refusals import all_of, no_default_prompt
from sbertconv.frameworks import import_tensorflow


def serving_layout(artifact: Artifact, staging: Staging) -> None:
    """The SavedModel under the number of a version, as a model server looks for it."""
    source = (staging.folder / artifact.manifest["graphs"][0]["formats"]["saved_model"]).parent
    for path in sorted(source.rglob("*")):
        if path.is_file():
            link_or_copy(path, staging.folder / f"serving/{server_name(artifact)}/1" / path.relative_to(source))


def read_serving(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The signature of the one version, fed with strings, or by a client with tokenizer.json."""
    (path,) = folder.glob("serving/*/1")
    serve = served(path).signatures["serving_default"]
    wanted = serve.structured_input_signature[1]
    if TEXT in wanted:
        return read_strings(path, texts)
    fed = tensors_of(file_tokenizer(folder).encode_batch(list(texts)))
    return np.asarray(serve(**{name: fed[name].astype(np.int32) for name in wanted})[SENTENCE])


def read_strings(path: Path, texts: Sequence[str]) -> np.ndarray:
    """The signature serving_default on strings."""
    serve = served(path).signatures["serving_default"]
    return np.asarray(serve(text=import_tensorflow(["text input"]).constant(list(texts)))[SENTENCE])


@keeps(1)
def served(path: Path) -> Any:
    """A SavedModel, checked before it is opened."""
    from sbertconv.runtime.saved_models import check_saved_model

    check_saved_model(path / "saved_model.pb")
    return import_tensorflow(["saved_model"]).saved_model.load(str(path))


ROWS = (
    Consumer(
        "tensorflow-serving",
        "serving/NAME/1, the signature serving_default, from strings of a model with text_input=True, else from a "
        "client's tokens",
        all_of(no_default_prompt, form="saved_model", text=None),
        serving_layout,
        read_serving,
        form="saved_model",
    ),
)
