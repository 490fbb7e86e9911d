"""The classes of models that are converted: a row of facts each. What a stage does with a class is in that stage's own
table: `source/kinds.py`, `plan/outputs.py`, `plan/inspection.py`, `parity/kinds.py` and `runtime/opening.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sbertconv.errors import SourceError, UnsupportedOptionError

NORMALIZES = "normalize_embeddings"  # a keyword of encode(); of a model while it is converted, an attribute
EXACT = "fp32"  # the precision that is held to the last bits of float32
ACTIVATIONS = ("identity", "sigmoid", "softmax", "tanh", "relu")  # of logits, which the run time computes with numpy
SPARSE_OUTPUTS = ("indices", "values")
HEAD_OUTPUTS = (LEXICAL_WEIGHTS, COLBERT_VECS) = ("lexical_weights", "colbert_vecs")  # of further heads beside a model
HEADS = "heads"  # of a model while it is converted, an attribute: output -> its head
NOT_ZERO = "nonzero"  # the axis of what is not 0


@dataclass(frozen=True, kw_only=True)
class ModelClass:
    """The facts of one class of models.

    Attributes:
        name: its name in the manifest.
        library: the class of sentence_transformers that loads it.
        method: the method of that class that a converted model is equal to.
        outputs: the names of the outputs that a graph can give; the first is the default.
        keys: the manifest's keys that only this class has.
        token_outputs: those of the outputs that have a row for each token.
        pairs: whether two texts make one input, told apart by their token types.
        no_text_input: why the tokenizer cannot be inside the graph; empty: it can.
        text_pair: whether a graph with its tokenizer inside takes two texts; else it takes one.
        whole: whether a graph gives all of the outputs or is of no use.
        similarities: the functions that alone compare its vectors; empty: any.
        also: other names that files call the class by.
        loads: the Python expression that opens a folder of this class; `{library}` and `{folder}` are filled in.
    """

    name: str
    library: str
    method: str
    outputs: tuple[str, ...]
    keys: tuple[str, ...]
    pairs: bool
    no_text_input: str = ""
    text_pair: bool = False
    whole: bool = False
    similarities: tuple[str, ...] = ()
    token_outputs: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    loads: str = "{library}({folder!r})"

    @property
    def output(self) -> str:
        """The default output."""
        return self.outputs[0]

    def choose_outputs(
        self, asked: Sequence[str] | None, activation: bool = False, sparse: bool = False
    ) -> tuple[str, ...]:
        """The names asked for, or the default; `activation` adds the last one that a class of logits has, `sparse`
        asks for those of a class of sparse vectors.

        Raises:
            UnsupportedOptionError: for an unknown name, one that is there twice, one without its other half, or none.
        """
        if activation and "scores" not in self.outputs:
            raise UnsupportedOptionError(f"activation=True: a {self.name} has no activation.\nLeave the option out.")
        if sparse:
            self.check_sparse("sparse=True")
        default = () if sparse else self.outputs if self.whole else (self.output,)
        names = default if asked is None else tuple(asked)
        names += ("scores",) if activation and "scores" not in names else ()
        names += tuple(name for name in SPARSE_OUTPUTS if sparse and name not in names)
        if not names or set(names) - set(self.outputs) or len(set(names)) < len(names):
            raise UnsupportedOptionError(
                f"outputs={list(names)}: each of {', '.join(self.outputs)} at most once.\nChoose among these."
            )
        if len(set(names) & set(SPARSE_OUTPUTS)) == 1:
            raise UnsupportedOptionError(
                f"outputs={list(names)}: {' and '.join(SPARSE_OUTPUTS)} say nothing without each other.\n"
                "Pass sparse=True, which is both."
            )
        if set(SPARSE_OUTPUTS) <= set(self.outputs) and set(names) <= set(self.token_outputs):
            raise UnsupportedOptionError(
                f"outputs {', '.join(names)}: say nothing of the vectors of a {self.name}.\nAsk for {self.output} too."
            )
        if self.whole and len(names) < len(self.outputs):
            raise UnsupportedOptionError(
                f"outputs={list(names)}: a {self.name} needs all of {', '.join(self.outputs)}.\nLeave them out."
            )
        return names

    def check_sparse(self, option: str) -> None:
        """Raise UnsupportedOptionError for an option of sparse vectors, unless this class gives those."""
        if not set(SPARSE_OUTPUTS) <= set(self.outputs):
            have = ", ".join(row.name for row in MODEL_CLASSES.values() if set(SPARSE_OUTPUTS) <= set(row.outputs))
            raise UnsupportedOptionError(
                f"{option}: a {self.name} gives no sparse vectors (have: {have}).\nLeave the option out."
            )

    def check_dense(self, option: str) -> None:
        """Raise UnsupportedOptionError for an option of dense vectors of texts, unless this class gives those."""
        if self.output != "sentence_embedding" or set(SPARSE_OUTPUTS) <= set(self.outputs):
            raise UnsupportedOptionError(
                f"{option}: a {self.name} gives no dense vector of a text (have: SentenceTransformer).\n"
                "Leave the option out."
            )

    def check_text_input(self) -> None:
        """Raise UnsupportedOptionError where the tokenizer cannot be inside the graph."""
        if self.no_text_input:
            have = ", ".join(row.name for row in MODEL_CLASSES.values() if not row.no_text_input)
            raise UnsupportedOptionError(
                f"text_input=True: a {self.name} {self.no_text_input} (have: {have}).\nLeave the option out."
            )


CROSS_ENCODER = ModelClass(
    name="CrossEncoder",
    library="CrossEncoder",
    method="predict",
    outputs=("logits", "scores"),
    keys=("num_labels", "labels", "activation"),
    pairs=True,
    text_pair=True,
)
MODEL_CLASSES = {
    row.name: row
    for row in (
        ModelClass(
            name="SentenceTransformer",
            library="SentenceTransformer",
            method="encode",
            outputs=("sentence_embedding", "token_embeddings", "last_hidden_state", *HEAD_OUTPUTS),
            token_outputs=("token_embeddings", "last_hidden_state", *HEAD_OUTPUTS),
            keys=("embedding_dimension", "similarity_fn_name"),
            pairs=False,
        ),
        ModelClass(
            name="SparseEncoder",
            library="SparseEncoder",
            method="encode",
            outputs=("sentence_embedding", *SPARSE_OUTPUTS, "logits"),
            token_outputs=("logits",),
            keys=("embedding_dimension", "max_active_dims", "similarity_fn_name"),
            pairs=False,
        ),
        CROSS_ENCODER,
        replace(
            CROSS_ENCODER,
            name="TextClassifier",
            text_pair=False,
            loads="transformers.pipeline('text-classification', {folder!r})",
        ),
        ModelClass(
            name="MultiVectorEncoder",
            library="MultiVectorEncoder",
            method="encode",
            outputs=("token_embeddings", "scoring_mask"),
            token_outputs=("token_embeddings",),
            keys=("embedding_dimension", "similarity_fn_name", "token_pooling"),
            pairs=False,
            no_text_input="pads queries in a way of its own, which such a graph does not",
            whole=True,
            similarities=("maxsim", "meanmaxsim"),
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
