"""A converted folder -> embeddings, with numpy, tokenizers and what runs its format; no torch."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.kinds import MODEL_CLASSES
from sbertconv.artifact.manifest import TAKEN
from sbertconv.artifact.scoring import TASKS
from sbertconv.artifact.text_input import TEXT
from sbertconv.errors import UnreadableInputError, UnsupportedOptionError
from sbertconv.runtime.batches import (
    BATCH_COST,
    TOKENS_AT_ONCE,
    TOKENS_ON_GPU,
    TOKENS_PER_CORE,
    Batch,
    Room,
    answered,
    chunks,
    count_characters,
    prepared_ahead,
    token_batches,
)
from sbertconv.runtime.engines import AUTO, ENGINES, check_options, choose_engine
from sbertconv.runtime.graph import Graph
from sbertconv.runtime.inputs import is_text, modality_of, plain
from sbertconv.runtime.options import CPU, EngineOptions
from sbertconv.runtime.tokenization import Conversation, Tensors, Text

PROGRAM = "torch"
BUILT = {"tensorrt": "build it on the machine with the GPU: sbertconv build-plan {}"}  # formats that come later


def taken_unasked(artifact: Artifact) -> str:
    """The format that runs where none is asked for: the first; programs of PyTorch only where there is nothing else,
    because more of the process is in the hands of who wrote them.
    """
    return next((form for form in artifact.formats if form != PROGRAM), PROGRAM)


METHODS = ("encode", "encode_query", "encode_document", "similarity", "similarity_pairwise", "predict", "rank",
           "logits", "scores", "decode")  # fmt: skip


class NoSuchMethodError(UnsupportedOptionError, AttributeError):
    """A method that models of another class have."""


class ConvertedModel:
    """A loaded artifact: its graphs, and what brings texts to them.

    Attributes:
        prompts: prompt name -> prompt, as saved with the model.
        default_prompt_name: the prompt that encode() uses unless told otherwise, or None.
        format: which of the artifact's formats runs.
        engine: what runs it.
        because: why this engine, where none was asked for.
        options: how it computes: threads, device, batches at once.
        same_batches: whether batches are those of the library, because answers depend on the padding or because
            it is to be compared.
        proven_length: the number of tokens that texts are cut at because no longer ones were compared with the
            library, or None.
    """

    def __init__(
        self,
        artifact: Artifact,
        form: str | None = None,
        engine: str = AUTO,
        options: EngineOptions = EngineOptions(),  # noqa: B008  # frozen
        beyond_proof: bool = False,
    ) -> None:
        self.artifact = artifact
        manifest = artifact.manifest
        self.format = taken_unasked(artifact) if form is None else form
        if self.format not in artifact.formats:
            advice = BUILT.get(self.format, "convert the model again with it.").format(artifact.folder)
            raise UnsupportedOptionError(
                f"{artifact.folder}: format {form!r} is not there (have: {', '.join(artifact.formats)}).\n"
                f"Choose one of these, or {advice}"
            )
        self.engine = choose_engine(artifact, self.format, engine)
        self.because = ""
        check_options(self.engine, options)
        self.options = options
        self.same_batches: bool = manifest["sees_padding"]
        self.prompts: dict[str, str] = dict(manifest["prompts"])
        self.default_prompt_name: str | None = manifest.get("default_prompt_name")
        self.proven_length: int | None = None if beyond_proof else manifest.get("proven_length")
        self.graphs = [
            Graph(artifact, section, self.format, self.engine, options, self.proven_length)
            for section in manifest["graphs"]
        ]

    @property
    def modalities(self) -> tuple[str, ...]:
        """What some graph takes: "text", "image", "audio"."""
        found = {graph.section["modality"] for graph in self.graphs}
        return tuple(name for name in TAKEN if name in found)

    def open(self) -> None:
        """Load every graph now; otherwise each is loaded when first used.

        Raises:
            ArtifactError: if a file cannot be loaded.
        """
        for graph in self.graphs:
            _ = graph.opened

    @property
    def parallel(self) -> int:
        """How many batches run at once."""
        return self.options.parallel

    @property
    def device(self) -> str:
        """Where it computes: what was asked for, or the engine's own."""
        return self.options.device or next(iter(ENGINES[self.engine].devices))

    @property
    def max_seq_length(self) -> int | None:
        """The limit in tokens beyond which a text is cut, or None."""
        limits = (self.artifact.manifest.get("max_seq_length"), self.proven_length)
        return min((limit for limit in limits if limit is not None), default=None)

    def graph(self, modality: str, task: str | None) -> Graph:
        """The graph for this modality and task.

        Raises:
            UnsupportedOptionError: if the artifact has none.
        """
        candidates = [graph for graph in self.graphs if graph.section["modality"] == modality]
        known = {*TASKS, *(name for graph in self.graphs for name in self._tasks_of(graph) if name is not None)}
        if task is not None and task not in known:
            raise UnsupportedOptionError(
                f"task {task!r} is not known (have: {', '.join(sorted(known))}).\nChoose one of these, or leave it out."
            )
        for graph in candidates:
            if not graph.section["tasks"] or task in graph.section["tasks"]:
                return graph
        tasks = sorted({name for graph in candidates for name in graph.section["tasks"] if name is not None})
        have = (
            f"tasks: {', '.join(tasks)}" if candidates else f"{', '.join(g.section['modality'] for g in self.graphs)}"
        )
        wanted = f"task {task!r}" if candidates else f"{modality} inputs"
        raise UnsupportedOptionError(f"The model has no route for {wanted} (have: {have}).\nChoose one of these.")

    @staticmethod
    def _tasks_of(graph: Graph) -> list[str | None]:
        """The tasks that a graph, or its tokenizer, tells from others."""
        tokenizer = graph.section["tokenizer"]
        return [*graph.section["tasks"], *(tokenizer["task_max_length"] if tokenizer else ())]

    def __getattr__(self, name: str) -> Any:
        """What another class of models has: the error says what this one has.

        Raises:
            NoSuchMethodError: for a method of another class.
            AttributeError: for anything else.
        """
        if name in METHODS:
            have = ", ".join(method for method in METHODS if hasattr(type(self), method))
            article = "An" if type(self).__name__[0] in "AEIOU" else "A"
            raise NoSuchMethodError(
                f"{article} {type(self).__name__} has no {name}() (have: {have}).\nCall one of these."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def tokenize(self, texts: Sequence[Text], task: str | None = None, prompt: str | None = None) -> Tensors:
        """The tensors that the graph takes for one batch of texts or pairs, int64 [batch, sequence].

        Raises:
            UnsupportedOptionError: for anything else than a list of them.
        """
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise UnsupportedOptionError(f"{texts!r:.60} is no list of texts or pairs.\nPass a list, such as [text].")
        texts = list(texts)
        for index, text in enumerate(texts):
            if not is_text(text):
                raise not_taken(index, text, TAKEN["text"][1])
        graph = self.graph("text", task)
        prompted = [graph.tokenizer.prompted(text, prompt) for text in texts]
        rows = graph.tokenizer.limited_ids(prompted, task)
        return graph.tensors(rows, task, prompt)

    def _resolve_prompt(self, prompt: str | None, prompt_name: str | None) -> str | None:
        if prompt is not None:
            return prompt
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return None
        if name not in self.prompts:
            raise UnsupportedOptionError(
                f"Prompt {name!r} is not known (have: {', '.join(self.prompts) or 'none'}).\n"
                "Choose one of these, or pass the text itself as prompt=."
            )
        return self.prompts[name]

    def _modality(self, items: Sequence[Any]) -> str:
        """Texts, images or sounds, one kind at a time; anything else is an error with its place."""
        taken = self.modalities
        kinds = [modality_of(item, taken) for item in items]
        chosen = next((kind for kind in kinds if kind != "text"), "text")
        for index, (item, kind) in enumerate(zip(items, kinds, strict=True)):
            if item is None or kind not in taken or (kind != chosen and chosen in taken):
                names = [TAKEN[modality][1] for modality in taken]
                have = " or ".join(names) + ", one kind at a time" * (len(names) > 1)
                raise not_taken(index, item, have)
        return chosen

    def unreadable(self, inputs: Sequence[Any], task: str | None = None) -> dict[int, str]:
        """Index -> why, of the images and sounds among inputs that encode() cannot read; each is opened for that."""
        found: dict[int, str] = {}
        items, taken = self._plain(inputs), self.modalities
        kinds = [modality_of(item, taken) for item in items]
        modality = next((kind for kind in kinds if kind in taken and kind != "text"), "text")
        for index, (item, kind) in enumerate(zip(items, kinds, strict=True)):
            if item is None or kind != modality:
                found[index] = f"is {type(item).__name__}, and no {modality}"
            elif modality != "text":
                try:
                    self.graph(modality, task).prepared([item])
                except UnsupportedOptionError as error:
                    found[index] = str(error).partition("\n")[0].rstrip(".")
        return found

    def _plain(self, items: Sequence[Any]) -> list[Any]:
        """The inputs of a call without their wrapping, see `inputs.plain`.

        Raises:
            UnsupportedOptionError: for messages among texts, which the library takes for the content of a message.
        """
        taken, left = self.modalities, self.artifact.manifest.get("not_converted", [])
        if taken == ("text",) and not left and all(isinstance(item, str) for item in items):
            return list(items)
        sections = [graph.section["tokenizer"] for graph in self.graphs]
        form = next((one["message_format"] for one in sections if one and "message_format" in one), None)
        found = [plain(index, item, taken=taken, left=left, form=form) for index, item in enumerate(items)]
        if len({isinstance(item, Conversation) for item in found}) > 1:
            raise UnsupportedOptionError("Messages and texts in one call.\nPass each kind in a call of its own.")
        return found

    def _run(
        self,
        items: list[Any],
        prompt: str | None,
        batch_size: int,
        progress: bool,
        output: str | None,
        task: str | None,
        shape: Callable[[Tensors, str | None, int, Tensors], Any] | None = None,
    ) -> list[Any]:
        """One result per item, in the order given; `shape` is what makes it in place of `_row`."""
        items = self._plain(items)
        modality = self._modality(items)
        graph = self.graph(modality, task)
        if output is not None and output not in graph.outputs:
            raise UnsupportedOptionError(
                f"The graph has no output {output!r} (have: {', '.join(graph.outputs)}).\n"
                f"Choose one of these, or convert the model with to-onnx --output {output}."
            )
        lengths = [-count_characters(item) for item in items]
        order = np.argsort(lengths)  # the library's own call: where padding is seen, batches must be the same
        results: list[Any] = [None] * len(items)
        progress_of = _Progress(len(items)) if progress else contextlib.nullcontext(lambda count: None)
        room = None if output is None else self._room()  # all of a row shows the padding of its batch
        with progress_of as advance:
            batches = self._batches(graph, items, order, batch_size, prompt, task, room)
            for (chosen, tensors), found in answered(graph.run, batches, self.parallel):
                for row, index in enumerate(chosen):
                    results[index] = (shape or self._row)(found, output, row, tensors)
                advance(len(chosen))
        return results

    def _batches(
        self,
        graph: Graph,
        items: list[Any],
        order: np.ndarray,
        batch_size: int,
        prompt: str | None,
        task: str | None,
        room: Room | None,
    ) -> Iterator[Batch]:
        """Indices and tensors of each batch: of texts, where the tokenizer is in the graph, of images, or of tokens."""

        def texts(chosen: np.ndarray) -> list[Text]:
            return [graph.tokenizer.prompted(items[index], prompt) for index in chosen]

        if TEXT in graph.inputs:
            for chosen in chunks(order, batch_size):
                yield chosen, graph.text_tensors(texts(chosen), task, prompt)
        elif graph.section["modality"] != "text":
            graph.check_prompt(prompt)
            parts = chunks(order, 1 if graph.takes_one else batch_size)
            for chosen, batches in prepared_ahead(parts, lambda part: self._prepared(graph, items, part, task)):
                yield from ((chosen[places], tensors) for places, tensors in batches)
        else:
            tokenize = lambda part: graph.tokenizer.limited_ids(texts(part), task)  # noqa: E731
            for chosen, rows in token_batches(order, batch_size, tokenize, room):
                yield chosen, graph.tensors(rows, task, prompt)

    @staticmethod
    def _prepared(graph: Graph, items: list[Any], part: np.ndarray, task: str | None) -> list[Batch]:
        """The tensors of some images or sounds, see `Graph.prepared`; an error names the first that cannot be read."""
        try:
            return graph.prepared([items[index] for index in part], task)
        except UnsupportedOptionError:
            for index in sorted(map(int, part)):
                try:
                    graph.prepared([items[index]], task)
                except UnsupportedOptionError as error:
                    raise UnreadableInputError(f"Input {index}: {error}", index) from error
            raise

    def _room(self) -> Room | None:
        """What a batch has room for; None where batches are those of the library."""
        if self.same_batches:
            return None
        if not ENGINES[self.engine].on_cores or self.options.kind != CPU:
            return Room(TOKENS_ON_GPU, TOKENS_ON_GPU, self.parallel)  # no more batches than must be
        cores = max(1, self.options.cores // self.parallel)
        tokens = self.options.batch_tokens or min(TOKENS_AT_ONCE, TOKENS_PER_CORE * cores)
        return Room(tokens, BATCH_COST * cores, self.parallel)

    def _row(self, found: Mapping[str, np.ndarray], output: str | None, row: int, tensors: Tensors) -> Any:
        """One item's result: a vector, its token embeddings up to the last token, or a dict of all outputs."""
        if output is None:
            return {name: values[row] for name, values in {**tensors, **found}.items()}
        values = found[output][row]
        tokens = MODEL_CLASSES[self.artifact.manifest["model_class"]].token_outputs
        if output in tokens and "attention_mask" in tensors:
            kept = np.flatnonzero(tensors["attention_mask"][row])
            return values[: kept[-1] + 1 if len(kept) else 1]
        return values


class TaskEncoder(ConvertedModel):
    """What gives embeddings, of a text as such or of a query or a document.

    Attributes:
        similarity_fn_name: how embeddings are compared.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.similarity_fn_name: str = self.artifact.manifest["similarity_fn_name"]

    @property
    def routed_tasks(self) -> set[str]:
        """The tasks that a router tells apart."""
        return {task for graph in self.graphs for task in graph.section["tasks"] if task is not None}

    def get_embedding_dimension(self) -> int:
        """The length of a vector.

        Raises:
            UnsupportedOptionError: if it varies.
        """
        size = self.artifact.manifest["embedding_dimension"]
        if isinstance(size, str):
            raise UnsupportedOptionError(
                f"{self.artifact.folder}: the size of its vectors varies ({size}).\nTake it from what encode() gives."
            )
        return int(size)

    def token_output(self, texts: list[str], output: str, task: str | None = None) -> list[np.ndarray]:
        """An output with a row for each token, [tokens, dim] for each text, with the default prompt as `encode`."""
        return self._run(texts, self._resolve_prompt(None, None), 1, False, output, task)

    @abstractmethod
    def encode(self, inputs: Any, *args: Any, **options: Any) -> Any:
        """Embed texts."""

    def encode_query(self, inputs: Any, **options: Any) -> Any:
        """`encode` with the task "query" and, if the model has one, the prompt "query"."""
        return self._encode_task("query", ("query",), inputs, options)

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        """`encode` with the task "document" and the first of the prompts "document", "passage", "corpus"."""
        return self._encode_task("document", ("document", "passage", "corpus"), inputs, options)

    def _encode_task(self, task: str, names: Sequence[str], inputs: Any, options: dict[str, Any]) -> Any:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt_name"] = next((name for name in names if name in self.prompts), None)
        return self.encode(inputs, task=task, **options)


def not_taken(index: int, item: Any, have: str) -> UnreadableInputError:
    """The error for an input of a kind that the model does not take."""
    return UnreadableInputError(f"Input {index} is {type(item).__name__} (have: {have}).\nPass these.", index)


def check_inputs(inputs: Any, have: str = "texts") -> None:
    """Raise UnsupportedOptionError for what is no text, no dict of one and no sequence of them."""
    if not isinstance(inputs, (Iterable, Mapping)) or isinstance(inputs, bytes):
        raise UnsupportedOptionError(f"{type(inputs).__name__} is not supported (have: {have}).\nPass str.")


def check_batch_size(batch_size: int) -> None:
    """Raise UnsupportedOptionError unless it is positive."""
    if batch_size <= 0:
        raise UnsupportedOptionError(f"batch_size must be a positive integer, not {batch_size}.\nPass 32.")


def check_device(device: str | None, own: str) -> None:
    """Raise UnsupportedOptionError for any but the device that the model was loaded on."""
    if device is not None and str(device) != own:
        raise UnsupportedOptionError(
            f"device {device!r} is not supported (have: {own}).\nLeave it out, or choose it with load(folder, device=)."
        )


class _Progress:
    """A bar on stderr; entering it gives a function that takes how many more are done."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True))
        self._task = self._bar.add_task("Texts", total=total)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        return lambda count: self._bar.advance(self._task, count)

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
