"""The outputs that a graph of each class of models can have, and the manifest's keys that only that class has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sbertconv.artifact.kinds import ACTIVATIONS, HEAD_OUTPUTS, HEADS, LEXICAL_WEIGHTS, NORMALIZES
from sbertconv.errors import UnsupportedOptionError
from sbertconv.source.routes import live_modules

TOKEN_POOLING = "HierarchicalTokenPooling"


@dataclass(frozen=True)
class ModelOutput:
    """One output that a graph can have.

    Attributes:
        feature: the feature of the library's chain that it is made of.
        finish: model -> what is done to that tensor.
    """

    feature: str
    finish: Callable[[Any], Callable[[Any], Any]]


def _save_as_the_library(model: Any, folder: str) -> None:
    model.save_pretrained(folder, create_model_card=False)


def _save_as_transformers(model: Any, folder: str) -> None:
    """The checkpoint as it was, with nothing in it of sentence-transformers."""
    model[0].model.save_pretrained(folder)
    model[0].tokenizer.save_pretrained(folder)


def _as_it_is(model: Any) -> Callable[[Any], Any]:
    return lambda tensor: tensor


def _computed(model: Any) -> Callable[[Any], Any]:
    """What is too large to compute unasked is a function."""
    return lambda tensor: tensor()


def _own_copy(model: Any) -> Callable[[Any], Any]:
    """A tensor that is another output too, where no module comes between: a graph has no output twice."""
    return lambda tensor: tensor.clone()


def _truncated(model: Any) -> Callable[[Any], Any]:
    size, normalizes = model.truncate_dim, getattr(model, NORMALIZES, False)

    def truncate(tensor: Any) -> Any:
        import torch

        cut = tensor[:, :size]
        return torch.nn.functional.normalize(cut, dim=-1) if normalizes else cut

    return truncate


def _limited(model: Any) -> Callable[[Any], Any]:
    """All but the `max_active_dims` largest values are 0, as `select_max_active_dims` of the library leaves them."""
    size = model.max_active_dims

    def limit(tensor: Any) -> Any:
        places, values = _largest(tensor, size)
        return tensor.new_zeros(tensor.shape).scatter(-1, places, values)

    return _as_it_is(model) if size is None else limit


def _largest(tensor: Any, count: int) -> tuple[Any, Any]:
    """The places and the values of the largest, by absolute value, of each row; the largest first."""
    places = tensor.abs().topk(min(count, tensor.shape[-1]), dim=-1).indices
    return places, tensor.gather(-1, places)


def _places(model: Any) -> Callable[[Any], Any]:
    """Of the values that are not 0: the columns [batch, k] where their number is limited, or row and column [n, 2]."""
    size = model.max_active_dims
    return lambda tensor: tensor.nonzero() if size is None else _largest(tensor, size)[0]


def _values(model: Any) -> Callable[[Any], Any]:
    """The values at `_places`."""
    size = model.max_active_dims

    def values(tensor: Any) -> Any:
        if size is not None:
            return _largest(tensor, size)[1]
        rows, columns = tensor.nonzero(as_tuple=True)
        return tensor[rows, columns]

    return values


def _by_head(output: str) -> Callable[[Any], Callable[[Any], Any]]:
    def finish(model: Any) -> Callable[[Any], Any]:
        head: Callable[[Any], Any] = getattr(model, HEADS)[output]
        return head

    return finish


def _activated(model: Any) -> Callable[[Any], Any]:
    """The scores; of an activation that gives its logits back a copy, for a graph has no output twice."""
    activation: Callable[[Any], Any] = model.activation_fn

    def activate(logits: Any) -> Any:
        scores = activation(logits)
        return scores.clone() if scores is logits else scores

    return activate


def _embedding_content(model: Any, graphs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    outputs = graphs[0]["outputs"]
    output = next((output for output in outputs if output["name"] == "sentence_embedding"), outputs[0])
    return {
        "embedding_dimension": output["shape"][-1],
        "truncate_dim": model.truncate_dim,
        **({"normalized": True} if getattr(model, NORMALIZES, False) else {}),
        **({"unweighted_ids": _unweighted(model)} if LEXICAL_WEIGHTS in {output["name"] for output in outputs} else {}),
        "similarity_fn_name": model.similarity_fn_name,
    }


def _unweighted(model: Any) -> list[int]:
    """The tokens that have no lexical weight: those that FlagEmbedding leaves out."""
    named = (getattr(model.tokenizer, f"{name}_token_id", None) for name in ("cls", "eos", "pad", "unk"))
    return sorted({number for number in named if number is not None})


def _sparse_content(model: Any, graphs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    task = next(iter(graphs[0]["tasks"]), None)
    options = {"task": task} if task else {}
    vector = model.encode("", convert_to_sparse_tensor=False, show_progress_bar=False, **options)
    return {
        "embedding_dimension": len(vector),  # which modules know only once they ran
        "max_active_dims": model.max_active_dims,
        "similarity_fn_name": model.similarity_fn_name,
    }


def _prediction_content(model: Any, graphs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    name = activation_name(model.activation_fn)
    outputs = {output["name"] for output in graphs[0]["outputs"]}
    if name not in ACTIVATIONS and "scores" not in outputs:
        raise UnsupportedOptionError(
            f"The model's activation {name} is not known (have: {', '.join(ACTIVATIONS)}).\n"
            "Pass activation=True, which puts it into the graph."
        )
    return {"num_labels": model.num_labels, "labels": label_names(model), "activation": name}


def activation_name(activation: Any) -> str:
    """The name of one of `ACTIVATIONS`, or of the class in full."""
    kind = type(activation)
    known = kind.__module__.startswith("torch.nn.") and kind.__name__.lower() in ACTIVATIONS
    return kind.__name__.lower() if known else f"{kind.__module__}.{kind.__qualname__}"


def label_names(model: Any) -> list[str]:
    """The labels in the order of the logits: the checkpoint's names, where its own head gives the logits."""
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    if len(names) != model.num_labels:
        return [f"LABEL_{index}" for index in range(model.num_labels)]
    return [str(names[index]) for index in range(model.num_labels)]


def _as_numbers(model: Any) -> Callable[[Any], Any]:
    import torch

    return lambda tensor: tensor.to(torch.int64, copy=True)  # an input may be the mask: an output is not one


def _token_content(model: Any, graphs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    poolings = [module.get_config_dict() for _, module in live_modules(model) if type(module).__name__ == TOKEN_POOLING]
    return {
        "embedding_dimension": graphs[0]["outputs"][0]["shape"][-1],
        "similarity_fn_name": model.similarity_fn_name,
        "token_pooling": poolings,
    }


@dataclass(frozen=True)
class ClassOutputs:
    """The outputs of one class of models.

    Attributes:
        outputs: output name -> the feature that it is made of.
        content: model, graphs of the manifest -> the manifest's keys that only this class has, see `ModelClass.keys`.
        save: model, folder -> the model's own files, for the way back from Keras.
    """

    outputs: Mapping[str, ModelOutput]
    content: Callable[[Any, Sequence[Mapping[str, Any]]], dict[str, Any]]
    save: Callable[[Any, str], None] = _save_as_the_library


LOGITS = {"logits": ModelOutput("scores", _as_it_is), "scores": ModelOutput("scores", _activated)}
OUTPUTS = {
    "SentenceTransformer": ClassOutputs(
        {
            "sentence_embedding": ModelOutput("sentence_embedding", _truncated),
            "token_embeddings": ModelOutput("token_embeddings", _as_it_is),
            "last_hidden_state": ModelOutput("last_hidden_state", _own_copy),
            **{name: ModelOutput("last_hidden_state", _by_head(name)) for name in HEAD_OUTPUTS},
        },
        _embedding_content,
    ),
    "SparseEncoder": ClassOutputs(
        {
            "sentence_embedding": ModelOutput("sentence_embedding", _limited),
            "indices": ModelOutput("sentence_embedding", _places),
            "values": ModelOutput("sentence_embedding", _values),
            "logits": ModelOutput("token_logits", _computed),
        },
        _sparse_content,
    ),
    "CrossEncoder": ClassOutputs(LOGITS, _prediction_content),
    "TextClassifier": ClassOutputs(LOGITS, _prediction_content, _save_as_transformers),
    "MultiVectorEncoder": ClassOutputs(
        {
            "token_embeddings": ModelOutput("token_embeddings", _as_it_is),
            "scoring_mask": ModelOutput("attention_mask", _as_numbers),
        },
        _token_content,
    ),
}
