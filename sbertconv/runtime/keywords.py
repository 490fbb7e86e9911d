"""The options of encode(), predict() and rank(): of which type each is, in one table."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Any, TypeVar, cast

import numpy as np

from sbertconv.errors import UnsupportedOptionError

AnyMethod = TypeVar("AnyMethod", bound=Callable[..., Any])
TEXT, TEXT_OR_NONE = ("text", (str,)), ("text, None", (str, type(None)))
FLAG, FLAG_OR_NONE = ("True, False", (bool, np.bool_)), ("True, False, None", (bool, np.bool_, type(None)))
NUMBER = ("a whole number", (Integral,))
NUMBER_OR_NONE = ("a whole number, None", (Integral, type(None)))

OPTIONS: dict[str, tuple[str, tuple[type, ...]]] = {
    **dict.fromkeys(("prompt_name", "prompt", "output_value", "task", "function_to_apply"), TEXT_OR_NONE),
    **dict.fromkeys(("precision",), TEXT),
    **dict.fromkeys(("show_progress_bar", "apply_softmax"), FLAG_OR_NONE),
    **dict.fromkeys(
        ("convert_to_numpy", "convert_to_tensor", "convert_to_sparse_tensor", "save_to_cpu", "normalize_embeddings",
         "return_documents"), FLAG
    ),
    **dict.fromkeys(("batch_size",), NUMBER),
    **dict.fromkeys(("truncate_dim", "max_active_dims", "top_k"), NUMBER_OR_NONE),
}  # fmt: skip


def checked(method: AnyMethod) -> AnyMethod:
    """The same method; options that are given a value of another type than theirs are an UnsupportedOptionError."""
    names = list(inspect.signature(method).parameters)

    @functools.wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        for name, value in [*zip(names, args, strict=False), *options.items()]:
            check_option(name, value)
        return method(*args, **options)

    return cast(AnyMethod, call)


def check_option(name: str, value: Any) -> None:
    """Raise UnsupportedOptionError for a value of another type than the option's."""
    due, types = OPTIONS.get(name, ("anything", (object,)))
    if not isinstance(value, types) or (isinstance(value, bool) and Integral in types):
        raise UnsupportedOptionError(
            f"{name}={value!r:.60} is {type(value).__name__} (have: {due}).\nPass one of these."
        )
