"""A functional model that takes its inputs by name, from whatever a tokenizer gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from sbertconv.errors import UnsupportedOptionError

# What tokenizers and sentence-transformers give beside a model's inputs, and no embedding depends on.
IGNORED = {
    "special_tokens_mask": "which tokens the tokenizer added",
    "offset_mapping": "where in the text each token stands",
    "overflow_to_sample_mapping": "which text each row came from",
    "overflowing_tokens": "the tokens that were cut off",
    "num_truncated_tokens": "how many tokens were cut off",
    "length": "how many tokens each text has",
    "token_type_ids": "zeros, where the model has no types of tokens",
    "prompt_length": "tokens of the prompt, where the pooling includes it",
    "modality": "what kind of input this is",
}
MASK = "attention_mask"


@keras.saving.register_keras_serializable("sbertconv")
class NamedModel(keras.Model):
    """A functional `keras.Model` whose inputs are a dict, taken by name and never by position.

    Its call, `fit`, `evaluate` and `predict` take any mapping (dict, UserDict, transformers' BatchEncoding) of integers
    int32 or int64 as numpy arrays, tensors, or lists; rows of several lengths are padded where the model has an
    attention mask. The names of `IGNORED` may be there too; others are refused, as keras.Model, which goes by the
    order of the names, would not do.
    """

    def __call__(self, inputs: Any, *args: Any, **options: Any) -> Any:
        return super().__call__(self.named(inputs), *args, **options)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None, **options: Any) -> Any:
        """What JAX's training calls past `__call__`."""
        return super().call(self.named(inputs), training=training, mask=mask, **options)

    def named(self, inputs: Any) -> Any:
        """The model's own inputs, a dict in its order.

        Raises:
            UnsupportedOptionError: for names that are missing or not known, and for more than one tensor without names.
        """
        expected = self.input
        if not isinstance(expected, Mapping):
            return inputs
        if not isinstance(inputs, Mapping):
            tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            if len(tensors) != len(expected) or len(expected) != 1:
                raise UnsupportedOptionError(
                    f"{self.name}: {type(inputs).__name__} without names for the inputs (have: {', '.join(expected)})."
                    "\nPass a dict, or what a tokenizer gives."
                )
            inputs = dict(zip(expected, tensors, strict=True))
        missing = [name for name in expected if name not in inputs]
        unknown = [name for name in inputs if name not in expected and name not in IGNORED]
        if missing or unknown:
            found = [f"{name} is missing" for name in missing] + [f"{name} is not known" for name in unknown]
            raise UnsupportedOptionError(
                f"{self.name}: the inputs do not fit: {', '.join(found)} (have: {', '.join(expected)}; ignored: "
                f"{', '.join(IGNORED)}).\nPass what the model's own tokenizer gives."
            )
        return {name: self._dense(name, inputs[name]) for name in expected}

    def _dense(self, name: str, value: Any) -> Any:
        """One tensor as this backend takes it; rows of several lengths with zeros behind them."""
        if hasattr(value, "to_tensor") and hasattr(value, "row_splits"):  # tf.RaggedTensor
            self._check_mask(name)
            return value.to_tensor()
        if hasattr(value, "detach") and keras.backend.backend() != "torch":
            return value.detach().cpu().numpy()
        if not isinstance(value, (list, tuple)) or not value or np.ndim(value[0]) == 0:
            return np.asarray(value) if isinstance(value, (list, tuple)) else value
        dtype = self.input[name].dtype
        try:
            rows = [np.asarray(row, dtype) for row in value]
            longest = max(map(len, rows))
            if any(row.shape != (longest,) for row in rows) and all(row.ndim == 1 for row in rows):
                self._check_mask(name)
                rows = [np.pad(row, (0, longest - len(row))) for row in rows]
            return np.stack(rows)
        except (TypeError, ValueError, OverflowError) as error:
            raise UnsupportedOptionError(
                f"{self.name}: {name} has rows that are no {dtype}, or of several shapes: {error}.\n"
                "Pass what the model's own tokenizer gives."
            ) from error

    def _check_mask(self, name: str) -> None:
        if MASK not in self.input:
            raise UnsupportedOptionError(
                f"{self.name}: {name} has rows of several lengths, and no {MASK} tells padding from text.\n"
                "Pad the rows as the model's own tokenizer does."
            )

    def _data(self, x: Any) -> Any:
        """What is trained or predicted on: a mapping as the model takes it; data sets are mappings one by one."""
        return self.named(x) if isinstance(x, Mapping) else x

    def fit(self, x: Any = None, *args: Any, **options: Any) -> Any:
        held_out = options.get("validation_data")
        if isinstance(held_out, tuple):
            options["validation_data"] = (self._data(held_out[0]), *held_out[1:])
        return super().fit(self._data(x), *args, **options)

    def evaluate(self, x: Any = None, *args: Any, **options: Any) -> Any:
        return super().evaluate(self._data(x), *args, **options)

    def predict(self, x: Any, *args: Any, **options: Any) -> Any:
        return super().predict(self._data(x), *args, **options)

    def train_on_batch(self, x: Any, *args: Any, **options: Any) -> Any:
        return super().train_on_batch(self._data(x), *args, **options)

    def test_on_batch(self, x: Any, *args: Any, **options: Any) -> Any:
        return super().test_on_batch(self._data(x), *args, **options)

    def predict_on_batch(self, x: Any) -> Any:
        return super().predict_on_batch(self._data(x))
