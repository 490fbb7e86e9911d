"""One graph of a converted folder: tensors in, outputs out, in whatever process and thread."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.graph_inputs import PROMPT_LENGTH, TYPES, media_inputs
from sbertconv.artifact.manifest import GraphSection, not_null
from sbertconv.artifact.naming import Run
from sbertconv.artifact.scoring import IS_QUERY
from sbertconv.artifact.text_input import TEXT_PAIR, TokenizerSettings
from sbertconv.errors import CONVERT_AGAIN, ArtifactError, SbertconvError, UnsupportedOptionError, engine_text
from sbertconv.runtime.batches import Batch
from sbertconv.runtime.engines import open_graph
from sbertconv.runtime.feeds import checked_answer, checked_feeds, longest
from sbertconv.runtime.images import image_tensors
from sbertconv.runtime.options import EngineOptions
from sbertconv.runtime.sounds import sound_tensors
from sbertconv.runtime.tokenization import Tensors, Text, TextTokenizer, Tokens, load_tokenizer, refuse_surrogates


class Graph:
    """One graph of an artifact: tensors in, outputs out. It is opened when first used, once for all threads.

    A pickled or copied graph is opened again where it arrives, from the folder that it came from. So is one that a
    `fork` has brought into a child: the threads of an engine stay behind in the parent, and its session would wait
    for them for ever.
    """

    def __init__(
        self,
        artifact: Artifact,
        section: GraphSection,
        form: str,
        engine: str,
        options: EngineOptions,
        proven_length: int | None = None,
    ) -> None:
        self.artifact = artifact
        self.options = options
        self.proven_length = proven_length
        self.section = section
        self.form = form
        self.engine = engine
        self.inputs = [tensor["name"] for tensor in section["inputs"]]
        self.outputs = [tensor["name"] for tensor in section["outputs"]]
        self._close()
        self._moved = False

    def _close(self) -> None:
        self._lock = threading.RLock()
        self._run: Run | None = None
        self._tokenizer: TextTokenizer | None = None
        _GRAPHS.add(self)

    def prepared(self, items: Sequence[Any], task: str | None = None) -> list[Batch]:
        """The tensors of images or sounds, and the places of those in them: all together, or sounds of one length each,
        where the graph takes any length.
        """
        section = self.section
        if section["modality"] == "image":
            arrays = list(image_tensors(items, not_null(section["image"])).values())
            places = np.arange(len(items))
            return [(places, self._named(arrays, places, task))]
        alike: dict[tuple[int, ...], list[int]] = {}
        found = sound_tensors(items, section)
        for place, (tensor, *_) in enumerate(found):
            alike.setdefault(tensor.shape, []).append(place)
        batches = []
        for group in alike.values():
            arrays = [np.stack(tensors) for tensors in zip(*(found[place] for place in group), strict=True)]
            batches.append((np.array(group), self._named(arrays, np.array(group), task)))
        return batches

    def _named(self, arrays: Sequence[np.ndarray], places: np.ndarray, task: str | None) -> Tensors:
        """The arrays of images or sounds by the names of the graph's inputs, and what is said once for each of them."""
        return {**dict(zip(media_inputs(self.section), arrays, strict=True)), **self._per_text(len(places), task, None)}

    @property
    def takes_one(self) -> bool:
        """Whether it takes one input for each run: an image of any number of tokens."""
        return "grid" in (self.section["image"] or {})

    def check_prompt(self, prompt: str | None) -> None:
        """Raise UnsupportedOptionError for another prompt before images or sounds than the graph holds, where the
        library sends it with them.
        """
        section = self.section["image"]
        if section is None or "prompt" not in section:
            return
        own = section["prompt"]
        if (prompt or None) != (own or None):
            raise UnsupportedOptionError(
                f"The prompt {prompt or ''!r:.80} before an image (have: {own or ''!r:.80}, which is in the graph).\n"
                "Pass that, or convert the model again with another default_prompt_name."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in OPENED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._close()
        self._moved = True

    def _forked(self) -> None:
        """Forget what a fork has copied. It is kept in memory, since its end would wait for its threads too."""
        for opened in (self._run, self._tokenizer):
            if opened is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened))
        self._close()
        self._moved = True

    def _arrive(self) -> None:
        """Read the artifact again, if this is another process than that which loaded it."""
        if self._moved:
            self.artifact = self.artifact.reopened()
            self._moved = False

    @property
    def task(self) -> str | None:
        """The first of the tasks that lead here, or None where none is named."""
        name: str | None = next(iter(self.section["tasks"]), None)
        return name

    @property
    def tokenizer(self) -> TextTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._arrive()
                section = not_null(self.section["tokenizer"])
                self.artifact.path(section["file"])
                self._tokenizer = load_tokenizer(section, self.artifact.folder)
                self._tokenizer.proven_length = self.proven_length
            return self._tokenizer

    @property
    def opened(self) -> Run:
        with self._lock:
            if self._run is None:
                self._arrive()
                self._run = open_graph(self.artifact, self.section, self.form, self.engine, self.options)
            return self._run

    def tensors(self, rows: Sequence[Tokens], task: str | None, prompt: str | None) -> Tensors:
        """What the graph takes, of texts that are token ids already."""
        tensors = self.tokenizer.padded(rows, task)
        if TYPES in self.inputs and TYPES not in tensors:
            tensors[TYPES] = np.zeros_like(tensors["input_ids"])
        return tensors | self._per_text(len(rows), task, prompt)

    def text_tensors(self, texts: Sequence[Text], task: str | None, prompt: str | None) -> Tensors:
        """What a graph with its tokenizer inside takes.

        Raises:
            UnsupportedOptionError: for a pair where it takes one text, or the other way around.
        """
        pair = TEXT_PAIR in self.inputs
        for text in texts:
            if isinstance(text, str) is pair:
                due, passed = ("pairs", "one text") if pair else ("one text each", "a pair")
                raise UnsupportedOptionError(
                    f"A graph with its tokenizer inside takes {due}, and {text!r:.60} is {passed}.\n"
                    "Convert the model without text_input=True to run both."
                )
        refuse_surrogates(texts)
        settings = TokenizerSettings.of(not_null(self.section["tokenizer"]), pair)
        feeds = settings.feeds(texts, self.tokenizer.max_length(task) if settings.limits else None)
        return {**feeds, **self._per_text(len(texts), task, prompt)}

    def _per_text(self, count: int, task: str | None, prompt: str | None) -> Tensors:
        """What the graph takes of that which is said once for each of so many texts, int64 [batch]."""
        said: dict[str, Callable[[], int]] = {
            PROMPT_LENGTH: lambda: self.tokenizer.prompt_length(prompt) if prompt else 0,
            IS_QUERY: lambda: task == "query",
        }
        return {name: np.full(count, value(), np.int64) for name, value in said.items() if name in self.inputs}

    def run_with(self, run: Run | None) -> None:
        """Compute with another function than the engine's, one that looks inside say; None: with the engine's again."""
        with self._lock:
            self._run = run

    def run(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """Run one batch.

        Args:
            tensors: name -> what `ConvertedModel.tokenize` gives; others than the graph takes are left out.

        Raises:
            UnsupportedOptionError: for tensors that do not fit the graph, or more tokens than it was proven on.
            ArtifactError: if the graph fails on it, or its answer is not one to these tensors.
        """
        limits = [longest(self.section["tokenizer"]), self.proven_length]
        limit = min((number for number in limits if number is not None), default=None)
        feeds = checked_feeds(self.section["inputs"], tensors, limit)
        run = self.opened
        file = self.section["formats"][self.form]
        try:
            found = run(feeds)
        except SbertconvError:
            raise
        except Exception as error:
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in feeds.items())
            raise ArtifactError(f"{file} failed on {shapes}: {engine_text(error)}\n{CONVERT_AGAIN}") from error
        checked_answer(self.section["outputs"], found, feeds, file)
        return found


OPENED = ("_lock", "_run", "_tokenizer")  # of a graph, what stays in its process
_GRAPHS: weakref.WeakSet[Graph] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child, before anything else runs there: a lock may be held by a thread that is not there any more."""
    for graph in list(_GRAPHS):
        graph._forked()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
