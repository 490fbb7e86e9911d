"""The classes of models that are converted: one row each, in which every stage looks up what differs between them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sbertconv.errors import SourceError, UnsupportedOptionError

EXACT = "fp32"  # the precision that is held to the last bits of float32
ACTIVATIONS = ("identity", "sigmoid", "softmax", "tanh", "relu")  # of logits, which the run time computes with numpy
CLASSIFIER_HEAD = "ForSequenceClassification"
OWN_MARKS = ("sentence_transformers", "sbert_ce_default_activation_function")  # what CrossEncoder writes to config.json


@dataclass(frozen=True)
class ModelOutput:
    """One output that a graph can have.

    Attributes:
        feature: the feature of the library's chain that it is made of.
        finish: model -> what is done to that tensor.
    """

    feature: str
    finish: Callable[[Any], Callable[[Any], Any]]


@dataclass(frozen=True)
class ModelClass:
    """What is particular to one class of models. Places in the code are `module:name`, imported when needed.

    Attributes:
        name: what the manifest says.
        library: the class of sentence_transformers that loads it.
        method: its method that a converted model is equal to.
        claims: config.json -> whether a checkpoint without any file of sentence-transformers is one of these.
        prepare: what is done to the model once it is loaded.
        outputs: what a graph can give, by name; the first is the default.
        content: model, graphs -> the manifest's keys that only this class has, `keys`.
        chain: config.json -> the modules that the library puts around a bare checkpoint, and notes.
        description: source -> what `inspect` says of this class alone.
        runtime: what `load` gives.
        original: the library's side of a comparison.
        questions: what both sides are asked.
        precisions: those that can be measured; None: all.
        pairs: whether two texts make one input, told apart by their token types.
        no_text_input: why the tokenizer cannot be inside the graph; empty: it can.
        whole: whether a graph gives all of the outputs or is of no use.
        also: other names that files call the class by.
    """

    name: str
    library: str
    method: str
    claims: Callable[[Mapping[str, Any]], bool]
    prepare: Callable[[Any], None]
    outputs: Mapping[str, ModelOutput]
    content: Callable[[Any, Sequence[Mapping[str, Any]]], dict[str, Any]]
    keys: tuple[str, ...]
    chain: str
    description: str
    runtime: str
    original: str
    questions: str
    precisions: tuple[str, ...] | None = (EXACT,)
    pairs: bool = True
    no_text_input: str = "takes pairs of texts, and one text is what such a graph takes"
    whole: bool = False
    also: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        return next(iter(self.outputs))

    def part(self, name: str) -> Any:
        """What the place in the attribute `name` holds."""
        module, _, attribute = getattr(self, name).partition(":")
        return getattr(importlib.import_module(module), attribute)

    def choose_outputs(self, asked: Sequence[str] | None, activation: bool = False) -> tuple[str, ...]:
        """The names asked for, or the default; `activation` adds the last one that a class of logits has.

        Raises:
            UnsupportedOptionError: for an unknown name, one that is there twice, or none.
        """
        names = (tuple(self.outputs) if self.whole else (self.output,)) if asked is None else tuple(asked)
        if activation and "scores" not in self.outputs:
            raise UnsupportedOptionError(f"--activation: a {self.name} has no activation.\nLeave the option out.")
        names += ("scores",) if activation and "scores" not in names else ()
        if not names or set(names) - set(self.outputs) or len(set(names)) < len(names):
            raise UnsupportedOptionError(
                f"outputs {', '.join(names) or 'none'}: each of {', '.join(self.outputs)} at most once.\n"
                "Choose among these."
            )
        if self.whole and len(names) < len(self.outputs):
            raise UnsupportedOptionError(
                f"outputs {', '.join(names)}: a {self.name} needs all of {', '.join(self.outputs)}.\nLeave them out."
            )
        return names

    def check_precision(self, precision: str) -> None:
        """Raise UnsupportedOptionError for a precision whose quality cannot be measured on this class."""
        if self.precisions is not None and precision not in self.precisions:
            raise UnsupportedOptionError(
                f"precision {precision!r} is not supported for a {self.name} (have: {', '.join(self.precisions)}).\n"
                "Leave it out."
            )

    def check_text_input(self) -> None:
        """Raise UnsupportedOptionError where the tokenizer cannot be inside the graph."""
        if self.no_text_input:
            have = ", ".join(row.name for row in MODEL_CLASSES.values() if not row.no_text_input)
            raise UnsupportedOptionError(
                f"--text-input: a {self.name} {self.no_text_input} (have: {have}).\nLeave the option out."
            )


def _nothing(model: Any) -> None:
    return None


def _as_it_is(model: Any) -> Callable[[Any], Any]:
    return lambda tensor: tensor


def _truncated(model: Any) -> Callable[[Any], Any]:
    size = model.truncate_dim
    return lambda tensor: tensor[:, :size]


def _activated(model: Any) -> Callable[[Any], Any]:
    activation: Callable[[Any], Any] = model.activation_fn
    return activation


def _embedding_content(model: Any, graphs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    outputs = graphs[0]["outputs"]
    output = next((output for output in outputs if output["name"] == "sentence_embedding"), outputs[0])
    return {
        "embedding_dimension": output["shape"][-1],
        "truncate_dim": model.truncate_dim,
        "similarity_fn_name": model.similarity_fn_name,
    }


def _prediction_content(model: Any, graphs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    name = activation_name(model.activation_fn)
    outputs = {output["name"] for output in graphs[0]["outputs"]}
    if name not in ACTIVATIONS and "scores" not in outputs:
        raise UnsupportedOptionError(
            f"The model's activation {name} is not known (have: {', '.join(ACTIVATIONS)}).\n"
            "Pass --activation, which puts it into the graph."
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


def _classifies(config: Mapping[str, Any]) -> bool:
    return str((config.get("architectures") or [""])[0]).endswith(CLASSIFIER_HEAD)


def _scores_pairs(config: Mapping[str, Any]) -> bool:
    """One score, or written by CrossEncoder: transformers itself knows no difference to a classifier of texts."""
    return _classifies(config) and (_label_count(config) == 1 or any(config.get(mark) for mark in OWN_MARKS))


def _label_count(config: Mapping[str, Any]) -> int:
    """Transformers leaves the labels out of config.json where there are two."""
    return len(config.get("id2label") or ()) or int(config.get("num_labels", 2))


def _as_in_pipeline(model: Any) -> None:
    """The activation of transformers' text-classification pipeline."""
    import torch

    kinds = {"regression": torch.nn.Identity(), "multi_label_classification": torch.nn.Sigmoid()}
    model.activation_fn = kinds.get(model.config.problem_type, torch.nn.Softmax(dim=-1))


def _as_numbers(model: Any) -> Callable[[Any], Any]:
    import torch

    return lambda tensor: tensor.to(torch.int64, copy=True)  # an input may be the mask: an output is not one


def _token_content(model: Any, graphs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from sbertconv.routes import live_modules

    poolings = [module.get_config_dict() for _, module in live_modules(model) if type(module).__name__ == POOLING]
    return {
        "embedding_dimension": graphs[0]["outputs"][0]["shape"][-1],
        "similarity_fn_name": model.similarity_fn_name,
        "token_pooling": poolings,
    }


def _late_interaction(config: Mapping[str, Any]) -> bool:
    """What Stanford's ColBERT writes; see `MultiVectorEncoder._get_model_type`."""
    return "HF_ColBERT" in (config.get("architectures") or [])


POOLING = "HierarchicalTokenPooling"
LOGITS = {"logits": ModelOutput("scores", _as_it_is), "scores": ModelOutput("scores", _activated)}
CROSS_ENCODER = ModelClass(
    name="CrossEncoder",
    library="CrossEncoder",
    method="predict",
    claims=_scores_pairs,
    prepare=_nothing,
    outputs=LOGITS,
    content=_prediction_content,
    keys=("num_labels", "labels", "activation"),
    chain="sbertconv.source:bare_reranker",
    description="sbertconv.inspection:about_predictions",
    runtime="sbertconv.predicting:Reranker",
    original="sbertconv.questions:OriginalPredictions",
    questions="sbertconv.questions:about_predictions",
)
MODEL_CLASSES = {
    row.name: row
    for row in (
        ModelClass(
            name="SentenceTransformer",
            library="SentenceTransformer",
            method="encode",
            claims=lambda config: not (_classifies(config) or _late_interaction(config)),
            prepare=_nothing,
            outputs={
                "sentence_embedding": ModelOutput("sentence_embedding", _truncated),
                "token_embeddings": ModelOutput("token_embeddings", _as_it_is),
            },
            content=_embedding_content,
            keys=("embedding_dimension", "similarity_fn_name"),
            chain="sbertconv.source:bare_embedder",
            description="sbertconv.inspection:about_embeddings",
            runtime="sbertconv.runtime:Embedder",
            original="sbertconv.questions:Original",
            questions="sbertconv.questions:about_embeddings",
            precisions=None,
            pairs=False,
            no_text_input="",
        ),
        CROSS_ENCODER,
        replace(
            CROSS_ENCODER,
            name="TextClassifier",
            claims=lambda config: _classifies(config) and not _scores_pairs(config),
            prepare=_as_in_pipeline,
            chain="sbertconv.source:bare_classifier",
            runtime="sbertconv.predicting:TextClassifier",
        ),
        ModelClass(
            name="MultiVectorEncoder",
            library="MultiVectorEncoder",
            method="encode",
            claims=_late_interaction,
            prepare=_nothing,
            outputs={
                "token_embeddings": ModelOutput("token_embeddings", _as_it_is),
                "scoring_mask": ModelOutput("attention_mask", _as_numbers),
            },
            content=_token_content,
            keys=("embedding_dimension", "similarity_fn_name", "token_pooling"),
            chain="sbertconv.source:bare_late_interaction",
            description="sbertconv.inspection:about_token_embeddings",
            runtime="sbertconv.late_interaction:MultiVectorEmbedder",
            original="sbertconv.questions:Original",
            questions="sbertconv.questions:about_token_embeddings",
            precisions=None,
            pairs=False,
            no_text_input="pads queries in a way of its own, which such a graph does not",
            whole=True,
            also=("ColBERT",),
        ),
    )
}


def class_named(name: str, where: object, error: type[Exception] = SourceError) -> ModelClass:
    """The row of this name.

    Raises:
        error: if there is none.
    """
    for row in MODEL_CLASSES.values():
        if name in (row.name, *row.also):
            return row
    raise error(
        f"{where}: models of the class {name} are not converted (have: {', '.join(MODEL_CLASSES)}).\n"
        "Choose another model."
    )


def class_of(model: Any) -> ModelClass | None:
    """The first row whose library class a live model is of, or None."""
    import sentence_transformers

    for row in MODEL_CLASSES.values():
        if isinstance(model, getattr(sentence_transformers, row.library)):
            return row
    return None
