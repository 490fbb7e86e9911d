"""A converted folder -> scores of pairs and labels of texts, with numpy, tokenizers and what runs its format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sbertconv.artifact.kinds import ACTIVATIONS
from sbertconv.errors import CONVERT_AGAIN, ArtifactError, UnsupportedOptionError, require
from sbertconv.runtime.inputs import is_conversation
from sbertconv.runtime.keywords import checked
from sbertconv.runtime.model import ConvertedModel, check_batch_size, check_device, check_inputs
from sbertconv.runtime.tokenization import Conversation

Activation = Callable[[Any], Any]


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(x_i) / sum_j exp(x_j) along the last axis, shifted by the largest so that nothing overflows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return found


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), by the power that does not overflow."""
    power = np.exp(-np.abs(logits))
    found: np.ndarray = np.where(logits >= 0, 1 / (1 + power), power / (1 + power))
    return found


BY_NAME: dict[str, Activation] = dict(
    zip(ACTIVATIONS, (lambda x: x, sigmoid, softmax, np.tanh, lambda x: np.maximum(x, 0)), strict=True)
)


class Predictor(ConvertedModel):
    """What a reranker and a classifier have in common: logits.

    Attributes:
        num_labels: how many logits an input has.
        labels: their names, in order.
        activation: the name of the model's own activation of its logits.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        manifest = self.artifact.manifest
        self.num_labels: int = manifest["num_labels"]
        self.labels: list[str] = list(manifest["labels"])
        self.activation: str = manifest["activation"]

    def logits(self, inputs: Sequence[Any], **options: Any) -> np.ndarray:
        """What the model's head gives for texts or pairs, float32 [n, num_labels].

        Args:
            inputs: texts, or tuples or lists of two texts.
            options: prompt_name, prompt, batch_size and show_progress_bar of `Reranker.predict`.

        Raises:
            UnsupportedOptionError: for anything else, or an unknown prompt name.
        """
        return self._rows("logits", inputs, **options)

    def scores(self, inputs: Sequence[Any], **options: Any) -> np.ndarray:
        """The model's own activation of its logits, float32 [n, num_labels]: the graph's where that has it.

        Args and Raises: see `logits`.
        """
        if "scores" in self.graphs[0].outputs:
            return self._rows("scores", inputs, **options)
        found: np.ndarray = activation_of(self.activation)(self.logits(inputs, **options))
        return found

    @abstractmethod
    def predict_all(self, inputs: Sequence[Any], **options: Any) -> Any:
        """The answer of `predict` for each text or pair of a list, where a list of two texts is no pair."""

    @checked
    def _rows(
        self,
        output: str,
        inputs: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        check_batch_size(batch_size)
        items = listed(inputs)
        if not items:
            return np.zeros((0, self.num_labels), np.float32)
        resolved = self._resolve_prompt(prompt, prompt_name)
        found = np.stack(self._run(items, resolved, batch_size, bool(show_progress_bar), output, None))
        if found.shape[1:] != (self.num_labels,):
            raise ArtifactError(
                f"{self.artifact.folder}: its graph gives {list(found.shape[1:])} numbers for a text, and it has "
                f"{self.num_labels} labels.\n{CONVERT_AGAIN}"
            )
        return found

    def _plain(self, items: Sequence[Any]) -> list[Any]:
        return [as_input(index, item) for index, item in enumerate(super()._plain(items))]

    def _modality(self, items: Sequence[Any]) -> str:
        return "text"


class Reranker(Predictor):
    """A converted CrossEncoder; `predict` and `rank` have the keywords and results of the library's."""

    def predict_all(self, inputs: Sequence[Any], **options: Any) -> Any:
        """Scores under the model's own activation, float32 [n] or [n, num_labels]; args and raises: see `logits`."""
        found = self.scores(inputs, **options)
        return found[:, 0] if self.num_labels == 1 else found

    @checked
    def predict(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: str | Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
    ) -> Any:
        """Score pairs of texts, as `CrossEncoder.predict` does.

        Args:
            inputs: a list of pairs (query, document), or one pair; also one text.
            prompt_name: the name of a saved prompt, which goes before the first text of a pair.
            {keywords}

        Returns:
            A float32 array [n], or [n, num_labels] where there are several labels; its first row for one pair.

        Raises:
            UnsupportedOptionError: for an unknown activation, prompt name or device, or an input that is no text.
        """
        check_device(device, self.device)
        items = listed(inputs)
        one = isinstance(inputs, (str, Mapping)) or is_conversation(inputs)
        single = one or (bool(items) and not isinstance(items[0], (list, tuple)))
        if single and not one:
            items = [items]  # the two texts of one pair
        options = dict(
            prompt_name=prompt_name, prompt=prompt, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        if activation_fn is None:
            found = self.scores(items, **options)
        else:
            found = np.asarray(activation_of(activation_fn)(self.logits(items, **options)))
        if self.num_labels == 1 and found.ndim > 1:
            found = found[:, 0]
        if apply_softmax and found.ndim > 1:
            found = softmax(found)
        if not items:
            found = np.array([])  # as the library has it, whatever its labels
        if convert_to_numpy and not convert_to_tensor:
            return found[0] if single else found
        require("onnx", "torch")
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(found, np.float32))
        rows = tensor if convert_to_tensor else list(tensor)
        return rows[0] if single else rows

    @checked
    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: str | Activation | None = None,
        device: str | None = None,
    ) -> list[dict[str, Any]]:
        """Sort documents by their score with a query, as `CrossEncoder.rank` does; options as in `predict`.

        Returns:
            {"corpus_id": place among the documents, "score": float} from the best on, at most `top_k`; with
            `return_documents` also "text".

        Raises:
            UnsupportedOptionError: for a model with several labels, and what `predict` raises.
        """
        if self.num_labels != 1:
            raise UnsupportedOptionError(
                f"rank() needs a model with one score, this one has {self.num_labels} labels.\nCall predict()."
            )
        check_inputs(documents)
        scores = self.predict(
            [(query, document) for document in documents],
            prompt_name,
            prompt,
            batch_size,
            show_progress_bar,
            activation_fn,
            device=device,
        )
        rows = []
        for place in np.argsort(-scores, kind="stable")[:top_k]:
            text = {"text": documents[place]} if return_documents else {}
            rows.append({"corpus_id": int(place), "score": float(scores[place]), **text})
        return rows


class TextClassifier(Predictor):
    """A converted sequence classifier; `predict` gives what transformers' text-classification pipeline gives."""

    def predict_all(self, inputs: Sequence[Any], **options: Any) -> Any:
        """The likeliest label of each text or pair; args and raises: see `logits`."""
        found: list[dict[str, Any]] = self.predict(inputs, **options)
        return found

    @checked
    def predict(
        self,
        inputs: Any,
        top_k: int | None = 1,
        function_to_apply: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        **options: Any,
    ) -> Any:
        """Label texts. Unlike the pipeline, a text over the limit is cut.

        Args:
            inputs: a text, or a list of texts; instead of a text also a tuple of two.
            top_k: how many labels of each text, from the likeliest on; None: all.
            options: prompt_name and prompt of `Reranker.predict`.
            {keywords}

        Returns:
            A list with {"label": str, "score": float} for each text, or with a list of them unless `top_k` is 1.

        Raises:
            UnsupportedOptionError: for an unknown function or prompt name, or an input that is no text.
        """
        items = [inputs] if isinstance(inputs, tuple) else listed(inputs)
        options |= {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
        if function_to_apply is None:
            found = self.scores(items, **options)
        else:
            name = {"none": "identity"}.get(function_to_apply.lower(), function_to_apply.lower())
            found = activation_of(name)(self.logits(items, **options))
        rows = [
            [{"label": self.labels[place], "score": float(row[place])} for place in np.argsort(-row, kind="stable")]
            for row in found
        ]
        return [row[0] for row in rows] if top_k == 1 else [row[:top_k] for row in rows]


def listed(inputs: Any) -> list[Any]:
    """Texts and pairs as a list: of one text or conversation, of any sequence, or of an array of strings [n] or [n, 2].

    Raises:
        UnsupportedOptionError: for what is none of these.
    """
    check_inputs(inputs, "texts, pairs of texts")
    if isinstance(inputs, (str, Mapping)) or is_conversation(inputs):
        return [inputs]
    return list(inputs.tolist() if isinstance(inputs, np.ndarray) else inputs)


def as_input(index: int, item: Any) -> str | Conversation | tuple[str, str]:
    """A text or a conversation, or a pair as a tuple.

    Raises:
        UnsupportedOptionError: for anything else, with its place.
    """
    if isinstance(item, (str, Conversation)):
        return item
    if isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(part, str) for part in item):
        return (item[0], item[1])
    raise UnsupportedOptionError(f"Input {index} is {item!r:.60} (have: a text, a pair of texts).\nPass one of these.")


def activation_of(activation: str | Activation) -> Activation:
    """The function of an activation on arrays.

    Raises:
        UnsupportedOptionError: for a name that is not one of `ACTIVATIONS`, or what is no function.
    """
    if not isinstance(activation, str) and not callable(activation):
        raise UnsupportedOptionError(
            f"activation_fn={activation!r:.40}: no function (have: {', '.join(BY_NAME)}, or a function).\nPass one."
        )
    if isinstance(activation, str):
        if activation not in BY_NAME:
            raise UnsupportedOptionError(
                f"activation {activation!r} is not known (have: {', '.join(BY_NAME)}).\n"
                "Choose one of these, pass a function, or convert the model with activation=True."
            )
        return BY_NAME[activation]
    if hasattr(activation, "forward"):  # a torch module, as CrossEncoder takes it
        import torch

        return lambda logits: activation(torch.from_numpy(logits)).numpy()
    return activation
