"""OpenVINO GenAI and Model Server: the model in the root, beside a tokenizer of OpenVINO's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.naming import in_graph
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import HIDDEN, SENTENCE, Consumer
from sbertconv.consumers.reading import compiled, file_tokenizer
from sbertconv.consumers.refusals import all_of, has_config, has_output, no_default_prompt
from sbertconv.corpus.texts import CORPUS, long_text
from sbertconv.errors import UnsupportedOptionError, error_text, require
from sbertconv.frameworks import import_openvino

MODEL, TOKENIZER = "openvino_model.xml", "openvino_tokenizer.xml"
TYPED = "token_type_ids"


def genai_layout(artifact: Artifact, staging: Staging) -> None:
    """The sentence embedding as the one token of a 3-D output, which the pooling "cls" takes, and the tokenizer.

    Raises:
        MissingDependencyError: without openvino-tokenizers.
        UnsupportedOptionError: if OpenVINO's tokenizer gives other tokens.
    """
    require("genai", "openvino_tokenizers", "transformers")
    openvino = import_openvino()
    from openvino import opset13 as ops

    graph = artifact.manifest["graphs"][0]
    model = openvino.Core().read_model(staging.folder / graph["formats"]["openvino"])
    (sentence,) = [model.output(in_graph(entry)) for entry in graph["outputs"] if in_graph(entry) == SENTENCE]
    one = ops.unsqueeze(sentence.get_node().input_value(0), np.array([1], np.int64))
    one.output(0).get_tensor().set_names({HIDDEN})
    whole = openvino.Model([ops.result(one)], model.get_parameters(), "sbertconv")
    openvino.save_model(whole, staging.folder / MODEL, compress_to_fp16=False)
    tokenizer = converted_tokenizer(staging.folder, artifact.limit)
    openvino.save_model(tokenizer, staging.folder / TOKENIZER, compress_to_fp16=False)
    check_tokens(artifact, staging.folder)


def converted_tokenizer(folder: Path, limit: int | None) -> Any:
    """The folder's tokenizer as a model of OpenVINO.

    Raises:
        UnsupportedOptionError: if it cannot be converted.
    """
    import_openvino()
    from openvino_tokenizers import convert_tokenizer
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return convert_tokenizer(
            tokenizer, with_detokenizer=False, **({"truncation": True, "max_length": limit} if limit else {})
        )
    except Exception as error:
        raise UnsupportedOptionError(
            f"{folder}: openvino-tokenizers cannot convert its tokenizer: {error_text(error)}\nLeave the consumer out."
        ) from error


def check_tokens(artifact: Artifact, folder: Path) -> None:
    """Raise UnsupportedOptionError for a text that OpenVINO's tokenizer splits otherwise."""
    own, texts = file_tokenizer(folder), [*CORPUS, long_text(artifact.limit)]
    own.no_padding()
    for text in texts:
        found = tokens_of(folder, [text])["input_ids"][0].tolist()
        if found != own.encode(text).ids:
            raise UnsupportedOptionError(
                f"{artifact.folder}: OpenVINO's tokenizer gives other tokens than the model's for {text[:60]!r}.\n"
                "Leave the consumer out; sbertconv.load runs the model on OpenVINO with its own tokenizer."
            )


def tokens_of(folder: Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """What OpenVINO's tokenizer gives, whose operations are known once openvino_tokenizers is imported."""
    import openvino_tokenizers  # noqa: F401

    found = compiled(folder / TOKENIZER)(list(texts))
    return {output.any_name: np.asarray(array) for output, array in found.items()}


def read_genai(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Its tokenizer, its model, the first token."""
    model, tokens = compiled(folder / MODEL), tokens_of(folder, texts)
    tokens.setdefault(TYPED, np.zeros_like(tokens["input_ids"]))
    wanted = {name for value in model.inputs for name in value.get_names()}
    found = model({name: array for name, array in tokens.items() if name in wanted})
    return np.asarray(found[model.outputs[0]])[:, 0]


def row(name: str, reads: str) -> Consumer:
    """Both read one folder."""
    check = all_of(no_default_prompt, has_config, has_output(SENTENCE), form="openvino")
    return Consumer(name, reads, check, genai_layout, read_genai, form="openvino")


ROWS = (
    row(
        "openvino-genai",
        f"{MODEL} and {TOKENIZER}, with pooling_type CLS, normalize=False and INFERENCE_PRECISION_HINT f32",
    ),
    row("openvino-model-server", f"{MODEL} and {TOKENIZER}, with --pooling CLS --normalize false"),
)
