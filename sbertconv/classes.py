"""The classes of models that are converted: one row each, in which every stage looks up what differs between them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sbertconv.errors import SourceError, UnsupportedOptionError

EXACT = "fp32"  # the precision that is held to the last bits of float32
ACTIVATIONS = ("identity", "sigmoid", "softmax", "tanh", "relu")  # of logits, which the run time computes with numpy
CLASSIFIER_HEAD = "ForSequenceClassification"
SPARSE_OUTPUTS = ("indices", "values")
NOT_ZERO = "nonzero"  # the axis of what is not 0
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


def _save_as_the_library(model: Any, folder: str) -> None:
    model.save_pretrained(folder, create_model_card=False)


def _save_as_transformers(model: Any, folder: str) -> None:
    """The checkpoint as it was, with nothing in it of sentence-transformers."""
    model[0].model.save_pretrained(folder)
    model[0].tokenizer.save_pretrained(folder)


EMBEDDINGS = ("sbertconv.questions:embedded_sentences", "sbertconv.quality:measure_quality", "sbertconv.quality:Gate")


@dataclass(frozen=True)
class ModelClass:
    """What is particular to one class of models. Places in the code are `module:name`, imported when needed.

    Attributes:
        name: what the manifest says.
        library: the class of sentence_transformers that loads it.
        method: its method that a converted model is equal to.
        claims: config.json -> whether a checkpoint without any file of sentence-transformers is one of these.
        takes: config.json -> whether such a checkpoint can be read as one of these.
        prepare: what is done to the model once it is loaded.
        outputs: what a graph can give, by name; the first is the default.
        content: model, graphs -> the manifest's keys that only this class has, `keys`.
        chain: config.json -> the modules that the library puts around a bare checkpoint, and notes.
        description: source -> what `inspect` says of this class alone.
        runtime: what `load` gives.
        original: the library's side of a comparison.
        questions: what both sides are asked.
        quality: below float32, what they are asked besides, how the answers are measured, and what holds for a single
            answer.
        arrays: keywords with which its method gives arrays, or tensors that are as easily made into them.
        pairs: whether two texts make one input, told apart by their token types.
        no_text_input: why the tokenizer cannot be inside the graph; empty: it can.
        text_pair: whether a graph with its tokenizer inside takes two texts; else it takes one.
        whole: whether a graph gives all of the outputs or is of no use.
        also: other names that files call the class by.
        save: model, folder -> the model's own files, for the way back.
        loads: what opens them in Python.
    """

    name: str
    library: str
    method: str
    claims: Callable[[Mapping[str, Any]], bool]
    takes: Callable[[Mapping[str, Any]], bool]
    prepare: Callable[[Any], None]
    outputs: Mapping[str, ModelOutput]
    content: Callable[[Any, Sequence[Mapping[str, Any]]], dict[str, Any]]
    keys: tuple[str, ...]
    chain: str
    description: str
    runtime: str
    original: str
    questions: str
    arrays: Mapping[str, Any] = field(default_factory=dict)
    quality: tuple[str, str, str] = EMBEDDINGS
    pairs: bool = True
    no_text_input: str = ""
    text_pair: bool = False
    whole: bool = False
    also: tuple[str, ...] = ()
    save: Callable[[Any, str], None] = _save_as_the_library
    loads: str = "{library}({folder!r})"

    @property
    def output(self) -> str:
        return next(iter(self.outputs))

    def part(self, name: str) -> Any:
        """What the place in the attribute `name` holds."""
        return _at(getattr(self, name))

    def quality_question(self, label: str, graph: Any, embedder: Any, texts: Sequence[str]) -> Any:
        """What both sides are asked below float32; see `sbertconv.questions`."""
        return _at(self.quality[0])(label, graph, embedder, texts)

    def measure_quality(self, *answers: Any) -> Any:
        """What of the answers is lost; see `sbertconv.quality`."""
        return _at(self.quality[1])(*answers)

    def gate(self, numbers: Mapping[str, Any]) -> Any:
        """The gate with these numbers; see `sbertconv.quality`."""
        return _at(self.quality[2])(**numbers)

    def choose_outputs(
        self, asked: Sequence[str] | None, activation: bool = False, sparse: bool = False
    ) -> tuple[str, ...]:
        """The names asked for, or the default; `activation` adds the last one that a class of logits has, `sparse`
        asks for those of a class of sparse vectors.

        Raises:
            UnsupportedOptionError: for an unknown name, one that is there twice, one without its other half, or none.
        """
        if activation and "scores" not in self.outputs:
            raise UnsupportedOptionError(f"--activation: a {self.name} has no activation.\nLeave the option out.")
        if sparse:
            self.check_sparse("--sparse")
        default = () if sparse else tuple(self.outputs) if self.whole else (self.output,)
        names = default if asked is None else tuple(asked)
        names += ("scores",) if activation and "scores" not in names else ()
        names += tuple(name for name in SPARSE_OUTPUTS if sparse and name not in names)
        if not names or set(names) - set(self.outputs) or len(set(names)) < len(names):
            raise UnsupportedOptionError(
                f"outputs {', '.join(names) or 'none'}: each of {', '.join(self.outputs)} at most once.\n"
                "Choose among these."
            )
        if len(set(names) & set(SPARSE_OUTPUTS)) == 1:
            raise UnsupportedOptionError(
                f"outputs {', '.join(names)}: {' and '.join(SPARSE_OUTPUTS)} say nothing without each other.\n"
                "Pass --sparse, which is both."
            )
        if self.whole and len(names) < len(self.outputs):
            raise UnsupportedOptionError(
                f"outputs {', '.join(names)}: a {self.name} needs all of {', '.join(self.outputs)}.\nLeave them out."
            )
        return names

    def check_sparse(self, option: str) -> None:
        """Raise UnsupportedOptionError for an option of sparse vectors, unless this class gives those."""
        if not set(SPARSE_OUTPUTS) <= set(self.outputs):
            have = ", ".join(row.name for row in MODEL_CLASSES.values() if set(SPARSE_OUTPUTS) <= set(row.outputs))
            raise UnsupportedOptionError(
                f"{option}: a {self.name} gives no sparse vectors (have: {have}).\nLeave the option out."
            )

    def check_text_input(self) -> None:
        """Raise UnsupportedOptionError where the tokenizer cannot be inside the graph."""
        if self.no_text_input:
            have = ", ".join(row.name for row in MODEL_CLASSES.values() if not row.no_text_input)
            raise UnsupportedOptionError(
                f"--text-input: a {self.name} {self.no_text_input} (have: {have}).\nLeave the option out."
            )


def _at(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _nothing(model: Any) -> None:
    return None


def _as_it_is(model: Any) -> Callable[[Any], Any]:
    return lambda tensor: tensor


def _truncated(model: Any) -> Callable[[Any], Any]:
    size = model.truncate_dim
    return lambda tensor: tensor[:, :size]


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


def architecture(config: Mapping[str, Any]) -> str:
    """The class that a config.json names, or "" where it names none."""
    return str((config.get("architectures") or [""])[0])


def continues_texts(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is a causal language model with its head."""
    return architecture(config).endswith("ForCausalLM")


def masks_words(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has a head for masked words."""
    return architecture(config).endswith("ForMaskedLM")


def _classifies(config: Mapping[str, Any]) -> bool:
    return architecture(config).endswith(CLASSIFIER_HEAD)


def _scores_pairs(config: Mapping[str, Any]) -> bool:
    """One score, or written by CrossEncoder: transformers itself knows no difference to a classifier of texts."""
    return _classifies(config) and (_label_count(config) == 1 or any(config.get(mark) for mark in OWN_MARKS))


def _label_count(config: Mapping[str, Any]) -> int:
    """Transformers leaves the labels out of config.json where there are two."""
    return len(config.get("id2label") or ()) or int(config.get("num_labels", 2))


def _as_in_pipeline(model: Any) -> None:
    """The activation of transformers' text-classification pipeline, which knows no chat template either."""
    import torch

    model[0].modality_config.pop("message", None)
    kinds = {"regression": torch.nn.Identity(), "multi_label_classification": torch.nn.Sigmoid()}
    model.activation_fn = kinds.get(model.config.problem_type, torch.nn.Softmax(dim=-1))


LOGIT_LISTS = ("sbertconv.questions:ranked_pairs", "sbertconv.quality:measure_ranking", "sbertconv.quality:RankingGate")


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


def stanford_colbert(config: Mapping[str, Any]) -> bool:
    """What Stanford's ColBERT writes; see `MultiVectorEncoder._get_model_type`."""
    return "HF_ColBERT" in (config.get("architectures") or [])


POOLING = "HierarchicalTokenPooling"
LOGITS = {"logits": ModelOutput("scores", _as_it_is), "scores": ModelOutput("scores", _activated)}
CROSS_ENCODER = ModelClass(
    name="CrossEncoder",
    library="CrossEncoder",
    method="predict",
    claims=_scores_pairs,
    takes=lambda config: _classifies(config) or continues_texts(config),
    prepare=_nothing,
    outputs=LOGITS,
    content=_prediction_content,
    keys=("num_labels", "labels", "activation"),
    chain="sbertconv.source:bare_reranker",
    description="sbertconv.inspection:about_predictions",
    runtime="sbertconv.predicting:Reranker",
    original="sbertconv.questions:OriginalPredictions",
    questions="sbertconv.questions:about_predictions",
    quality=LOGIT_LISTS,
    text_pair=True,
)
MODEL_CLASSES = {
    row.name: row
    for row in (
        ModelClass(
            name="SentenceTransformer",
            library="SentenceTransformer",
            method="encode",
            claims=lambda config: not (_classifies(config) or stanford_colbert(config)),
            takes=lambda config: True,
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
            pairs=False,
        ),
        ModelClass(
            name="SparseEncoder",
            library="SparseEncoder",
            method="encode",
            claims=lambda config: False,  # a head for masked words says nothing about SPLADE
            takes=masks_words,
            prepare=_nothing,
            outputs={
                "sentence_embedding": ModelOutput("sentence_embedding", _limited),
                "indices": ModelOutput("sentence_embedding", _places),
                "values": ModelOutput("sentence_embedding", _values),
            },
            content=_sparse_content,
            keys=("embedding_dimension", "max_active_dims", "similarity_fn_name"),
            chain="sbertconv.source:bare_sparse_encoder",
            description="sbertconv.inspection:about_sparse_embeddings",
            runtime="sbertconv.sparse:SparseEmbedder",
            original="sbertconv.questions:Original",
            questions="sbertconv.questions:about_sparse_embeddings",
            arrays={"convert_to_sparse_tensor": False},
            pairs=False,
        ),
        CROSS_ENCODER,
        replace(
            CROSS_ENCODER,
            name="TextClassifier",
            claims=lambda config: _classifies(config) and not _scores_pairs(config),
            takes=_classifies,
            prepare=_as_in_pipeline,
            chain="sbertconv.source:bare_classifier",
            runtime="sbertconv.predicting:TextClassifier",
            quality=("sbertconv.questions:classified_sentences", *LOGIT_LISTS[1:]),
            text_pair=False,
            save=_save_as_transformers,
            loads="transformers.pipeline('text-classification', {folder!r})",
        ),
        ModelClass(
            name="MultiVectorEncoder",
            library="MultiVectorEncoder",
            method="encode",
            claims=stanford_colbert,
            takes=stanford_colbert,
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
