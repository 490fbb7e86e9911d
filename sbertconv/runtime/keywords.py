"""The keywords of encode(), predict() and rank(), each written once: its sentence of help and its type.

The methods have the signatures of the library's own, positions included; what they share is here.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar, cast, get_args, get_type_hints

import numpy as np

from sbertconv.errors import UnsupportedOptionError

AnyMethod = TypeVar("AnyMethod", bound=Callable[..., Any])
TEXT, FLAG, NUMBER, NONE = (str,), (bool, np.bool_), (Integral,), (type(None),)
PLAIN: dict[Any, Any] = {str: str, bool: bool, int: Integral, float: Real, type(None): type(None)}  # hint -> type
DUE: dict[tuple[type, ...], str] = {TEXT: "text", FLAG: "True, False", NUMBER: "a whole number"}


@dataclass(frozen=True)
class Keyword:
    """The facts of a keyword.

    Attributes:
        help: one sentence.
        types: those of its values; empty: any.
        optional: whether it may be None.
    """

    help: str
    types: tuple[type, ...] = ()
    optional: bool = False

    @property
    def due(self) -> str:
        """What it may be, in words."""
        return DUE[self.types] + ", None" * self.optional


KEYWORDS = {
    "prompt_name": Keyword("the name of a saved prompt.", TEXT, True),
    "prompt": Keyword("a prompt as text; wins over `prompt_name`.", TEXT, True),
    "batch_size": Keyword("inputs per batch; texts are sorted by length first.", NUMBER),
    "show_progress_bar": Keyword("whether to show one; None is no.", FLAG, True),
    "output_value": Keyword(
        '"sentence_embedding", "token_embeddings", "lexical_weights", "colbert_vecs", another output of the graph, or '
        "None for a dict of everything per input.",
        TEXT,
        True,
    ),
    "precision": Keyword('"float32", "int8", "uint8", "binary" or "ubinary".', TEXT),
    "convert_to_numpy": Keyword("False gives a list of torch tensors (torch must be installed).", FLAG),
    "convert_to_tensor": Keyword("one torch tensor (torch must be installed).", FLAG),
    "convert_to_sparse_tensor": Keyword(
        "as scipy's CSR arrays (scipy must be installed); False: as numpy arrays.", FLAG
    ),
    "save_to_cpu": Keyword("here for the same signature: arrays are always there.", FLAG),
    "device": Keyword("that of `load()`; here for the same signature."),
    "normalize_embeddings": Keyword("divide each vector by its Euclidean length.", FLAG),
    "truncate_dim": Keyword("keep this many leading dimensions.", NUMBER, True),
    "max_active_dims": Keyword(
        "leave so many values of a vector, the largest by absolute value; None: as the model does.", NUMBER, True
    ),
    "task": Keyword("the task that a router chooses its route by.", TEXT, True),
    "activation_fn": Keyword(
        "None for the model's own; a name of `ACTIVATIONS`; a torch module, or a function of a float32 array [n, "
        "num_labels]."
    ),
    "apply_softmax": Keyword("for several labels, softmax of what the activation gives.", FLAG, True),
    "function_to_apply": Keyword(
        '"sigmoid", "softmax" or "none", in any case; None: softmax, or sigmoid for a model with several true labels '
        "at once.",
        TEXT,
        True,
    ),
    "top_k": Keyword("how many, from the best on; None: all.", NUMBER, True),
    "format": Keyword("which format of the folder runs.", TEXT, True),
    "engine": Keyword("what runs it.", TEXT),
    "threads": Keyword("that compute.", NUMBER, True),
    "parallel": Keyword("how many batches run at once.", NUMBER, True),
    "many": Keyword("whether many texts are to be answered rather than one.", FLAG),
    "batch_tokens": Keyword("tokens of a batch, padding included.", NUMBER, True),
    "verify": Keyword("compare every file with its sha256 first.", FLAG),
    "beyond_proof": Keyword("answer texts longer than those that were compared.", FLAG),
    "part": Keyword("of a Keras model that contains a converted one, that one.", TEXT, True),
    "return_documents": Keyword("whether the documents' texts are given too.", FLAG),
}


def checked(method: AnyMethod) -> AnyMethod:
    """The same method; a keyword that it does not have, or a value of another type, is an UnsupportedOptionError. The
    place `{keywords}` of its docstring is filled with those that the docstring does not describe itself.
    """
    parameters = inspect.signature(method).parameters
    names, open_ended = list(parameters), any(one.kind is one.VAR_KEYWORD for one in parameters.values())

    @functools.wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        if unknown := [name for name in options if name not in names and not open_ended]:
            raise UnsupportedOptionError(
                f"{unknown[0]}=: {method.__name__}() has no such option (have: {', '.join(names)}).\nLeave it out."
            )
        for name, value in [*zip(names, args, strict=False), *options.items()]:
            check_keyword(name, value)
        return method(*args, **options)

    doc, indent = method.__doc__ or "", " " * 12
    shared = [name for name in names if name in KEYWORDS and f"{indent}{name}: " not in doc]
    lines = [
        textwrap.fill(f"{name}: {KEYWORDS[name].help}", 120, initial_indent=indent, subsequent_indent=indent + " " * 4)
        for name in shared
    ]
    call.__doc__ = doc.replace("{keywords}", "\n".join(lines).strip())
    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]  # what inspect reads
    del call.__wrapped__  # it has not this docstring, and tools would look there
    return cast(AnyMethod, call)


def check_fields(instance: Any) -> None:
    """Raise UnsupportedOptionError for values of a dataclass that are of another plain type than their fields, all at
    once; other types are left to those who use them.
    """
    wrong = []
    for name, hint in get_type_hints(type(instance)).items():
        types, value = get_args(hint) or (hint,), getattr(instance, name)
        allowed = tuple(PLAIN[one] for one in types if one in PLAIN)
        fits = isinstance(value, allowed) and (bool in types or not isinstance(value, bool))
        if len(allowed) == len(types) and not fits:
            due = " or ".join(getattr(one, "__name__", str(one)) for one in types)
            wrong.append(f"{name}={value!r:.60} is {type(value).__name__} (have: {due}).")
    if wrong:
        raise UnsupportedOptionError("\n".join(wrong) + "\nPass values of these types.")


def check_keyword(name: str, value: Any) -> None:
    """Raise UnsupportedOptionError for a value of another type than the keyword's."""
    keyword = KEYWORDS.get(name)
    if keyword is None or not keyword.types:
        return
    allowed = keyword.types + NONE * keyword.optional
    if not isinstance(value, allowed) or (isinstance(value, bool) and keyword.types == NUMBER):
        raise UnsupportedOptionError(
            f"{name}={value!r:.60} is {type(value).__name__} (have: {keyword.due}).\nPass one of these."
        )
