"""What both sides of a comparison are asked: the same texts, in the same batches, with the same options.

The original model answers first, so that it can be let go before the converted one is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sbertconv.artifact.kinds import EXACT, HEAD_OUTPUTS, HEADS, MODEL_CLASSES, NORMALIZES
from sbertconv.artifact.manifest import not_null, shortest_sound
from sbertconv.artifact.scoring import TASKS
from sbertconv.corpus.texts import (
    BATCH_SIZE,
    CORPUS,
    images_to_convert,
    inputs_of,
    long_text,
    sentences,
    sound_lengths,
    sounds_of,
)
from sbertconv.errors import SourceError
from sbertconv.memory import trim_heap
from sbertconv.parity.lengths import (
    LONGEST_BATCH,
    LONGEST_FORWARD,
    SHORT,
    asked_limit,
    lengths_to_ask,
    texts_of_lengths,
    whole_numbers,
)
from sbertconv.parity.quality import RANKED
from sbertconv.source.transformers_compat import causal_masks_written_out

if TYPE_CHECKING:
    from sbertconv.runtime.graph import Graph
    from sbertconv.runtime.model import ConvertedModel

SMALL_BATCH = 8
POOLED = 40  # sentences whose pooled tokens are compared
COMPANY = 3  # texts in a call of its own: one of a length of the ladder, between two short ones
TOKEN_OUTPUT = "token_output"
OWN_TOKENS = ("last_hidden_state", "logits", *HEAD_OUTPUTS)  # of the Transformer, and not of encode()
TOKENS, ALONE, BATCH, SENTENCES = "tokens", "each text alone", "padded batch", "sentences"
LENGTHS_ALONE, LENGTHS_MIXED = "each length alone", "mixed lengths"


@dataclass(frozen=True)
class Question:
    """One list of inputs and how they are passed.

    Attributes:
        name: what is compared, e.g. "padded batch".
        inputs: texts, pairs of texts or images.
        method: "encode", "encode_query", "encode_document", "logits" or "scores"; "tokens" for what the graph is given;
            "token_output" for what a Transformer itself gives, by the name of the converted model's "output".
        options: keywords of the method; for "tokens" the task.
        padding_side: where to pad, if not where the model does.
        pooled: whether token pooling pools; see `about_token_embeddings`.
        together: how many of the inputs go into one call, if not all of them: encode() sorts the texts of a call by
            length, so that only neighbours meet in a batch.
        missing: lengths in tokens that should be among the inputs and are not.
    """

    name: str
    inputs: Sequence[Any]
    method: str = "encode"
    options: Mapping[str, Any] = field(default_factory=dict)
    padding_side: str | None = None
    pooled: bool = True
    together: int | None = None
    missing: tuple[int, ...] = ()

    def calls(self) -> Iterator[Question]:
        """The same as one question for each call."""
        step = self.together or len(self.inputs)
        for start in range(0, len(self.inputs), step):
            yield replace(self, inputs=self.inputs[start : start + step], together=None)

    @property
    def task(self) -> str | None:
        """The task whose route answers: said, or implied by encode_query and encode_document."""
        implied = self.method.removeprefix("encode_") if self.method.startswith("encode_") else None
        task: str | None = self.options.get("task", implied)
        return task


class Side(Protocol):
    """One of the two sides of a comparison."""

    @property
    def owner(self) -> str:
        """Whose methods are called, before their names in a report: "", or like "the keras model's "."""

    def call(self, question: Question) -> Sequence[Any]:
        """The results of a method, one for each input."""

    def tokens(self, text: Any, task: str | None) -> Mapping[str, Any]:
        """The tensors of one text or pair."""

    def tokenizers(self) -> Sequence[Any]:
        """The objects that say `padding_side`."""

    def poolings(self) -> Sequence[Any]:
        """The objects that say in which `tasks` the vectors of tokens are pooled."""

    def prompts(self) -> Mapping[str, str]:
        """Prompt name -> prompt."""

    def numbers(self) -> Sequence[int]:
        """The whole numbers of the configs of its transformers."""

    def written_out(self) -> AbstractContextManager[bool]:
        """In here, its causal masks are those of a padded batch; gives whether it may have any."""


@dataclass(frozen=True)
class Original:
    """The model of sentence-transformers."""

    model: Any
    owner: str = ""

    def call(self, question: Question) -> Sequence[Any]:
        if question.method == TOKEN_OUTPUT:
            return [self._own_tokens(text, question) for text in question.inputs]
        method = getattr(self.model, question.method)
        options = dict(question.options)
        if getattr(self.model, NORMALIZES, False) and options.get("output_value") in (None, "sentence_embedding"):
            options[NORMALIZES] = True
        results: Sequence[Any] = method(list(question.inputs), show_progress_bar=False, **options)
        return results

    def _own_tokens(self, text: str, question: Question) -> Any:
        """What the Transformer gives for each token of one text, whatever the modules after it make of that."""
        given: list[Mapping[str, Any]] = []
        transformers = [module for module in self.model.modules() if type(module).__name__ == "Transformer"]
        hooks = [
            module.register_forward_hook(lambda module, taken, found: given.append(dict(found)))
            for module in transformers
        ]
        options = {"task": question.task} if question.task else {}
        try:
            self.model.encode(text, show_progress_bar=False, **options)
        finally:
            for hook in hooks:
                hook.remove()
        found = given[-1]
        kept = np.flatnonzero(np.asarray(found["attention_mask"][0]))
        tokens = found["token_embeddings"][:, : kept[-1] + 1 if len(kept) else 1]
        head = getattr(self.model, HEADS, {}).get(question.options["output"])
        if head is None:
            return tokens[0]
        import torch

        with torch.inference_mode():
            return head(tokens)[0]

    def tokens(self, text: Any, task: str | None) -> Mapping[str, Any]:
        tensors: Mapping[str, Any] = self.model.preprocess([text], **({"task": task} if task else {}))
        return tensors

    def tokenizers(self) -> Sequence[Any]:
        tokenizer = getattr(self.model, "tokenizer", None)
        return [tokenizer] if hasattr(tokenizer, "padding_side") else []

    def poolings(self) -> Sequence[Any]:
        return [module for module in self.model.modules() if hasattr(module, "pool_one")]

    def prompts(self) -> Mapping[str, str]:
        prompts: Mapping[str, str] = self.model.prompts
        return prompts

    def numbers(self) -> Sequence[int]:
        configs = [getattr(module, "config", None) for module in self.model.modules()]
        described = [config.to_dict() for config in configs if config is not None and hasattr(config, "to_dict")]
        return sorted(set(whole_numbers(described)))

    def written_out(self) -> AbstractContextManager[bool]:
        return causal_masks_written_out(self.model)


class OriginalPredictions(Original):
    """A CrossEncoder, through its public `predict`."""

    def call(self, question: Question) -> Sequence[Any]:
        activation = {"logits": _as_it_is, "scores": None}[question.method]
        predict = partial(self.model.predict, activation_fn=activation, show_progress_bar=False, **question.options)
        if all(isinstance(item, tuple) for item in question.inputs):
            found = predict(list(question.inputs))
        else:  # predict takes a list of texts for one pair
            found = np.stack([predict(text) for text in question.inputs])
        return list(found.reshape(len(question.inputs), -1))


def _as_it_is(logits: Any) -> Any:
    return logits


@dataclass(frozen=True)
class Converted:
    """The converted folder."""

    embedder: ConvertedModel

    @property
    def owner(self) -> str:
        return f"the {self.embedder.format} model's "

    def call(self, question: Question) -> Sequence[Any]:
        with _changed([self.embedder], "same_batches", True):  # otherwise hardly anything would be padded
            if question.method == TOKEN_OUTPUT:
                found: list[Any] = self.embedder.token_output(
                    list(question.inputs), question.options["output"], question.task
                )
                return found
            results: Sequence[Any] = getattr(self.embedder, question.method)(list(question.inputs), **question.options)
        return results

    def tokens(self, text: Any, task: str | None) -> Mapping[str, Any]:
        return self.embedder.tokenize([text], task)

    def tokenizers(self) -> Sequence[Any]:
        return [graph.tokenizer for graph in self.embedder.graphs if graph.section["tokenizer"]]

    def poolings(self) -> Sequence[Any]:
        return getattr(self.embedder, "token_pooling", ())

    def prompts(self) -> Mapping[str, str]:
        return self.embedder.prompts

    def numbers(self) -> Sequence[int]:
        return ()

    def written_out(self) -> AbstractContextManager[bool]:
        return nullcontext(False)


def ask(side: Side, question: Question) -> list[Any]:
    """One answer per input: arrays, or for "tokens" a dict of arrays."""
    pooled = _changed(side.poolings(), "tasks", None if question.pooled else ())
    with pooled, _changed(side.tokenizers(), "padding_side", question.padding_side):
        if question.method == TOKENS:
            return [_as_arrays(side.tokens(text, question.task)) for text in question.inputs]
        answers = [np.asarray(result) for call in question.calls() for result in side.call(call)]
    trim_heap()  # every shape of a batch leaves buffers behind
    return answers


@contextmanager
def answering(embedder: ConvertedModel) -> Iterator[None]:
    """In here, whatever the original of a converted folder raises is one kind of error.

    Raises:
        SourceError: with the library's words.
    """
    try:
        yield
    except Exception as error:
        row = MODEL_CLASSES[embedder.artifact.manifest["model_class"]]
        raise SourceError(
            f"{row.method}() of the model itself fails: {type(error).__name__}: {error}\n"
            f"Mend the model: {row.library} must be able to take every text."
        ) from error


def _as_arrays(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in tensors.items() if hasattr(value, "shape")}


@contextmanager
def _changed(objects: Sequence[Any], attribute: str, value: Any) -> Iterator[None]:
    """An attribute of some objects set to a value for a while, unless that is None."""
    before = [getattr(one, attribute) for one in objects]
    try:
        for one, own in zip(objects, before, strict=True):
            setattr(one, attribute, own if value is None else value)
        yield
    finally:
        for one, own in zip(objects, before, strict=True):
            setattr(one, attribute, own)


def questions(original: Side, embedder: ConvertedModel, texts: Sequence[str] = ()) -> list[Question]:
    """Everything to ask, graph by graph; nothing of it runs a graph. `texts` are the user's own, for the quality."""
    found: list[Question] = []
    from sbertconv.parity.kinds import CLASS_PARITY

    kind = CLASS_PARITY[embedder.artifact.manifest["model_class"]]
    several = len(embedder.graphs) > 1
    for graph in embedder.graphs:
        label = f"{graph.section['name']}: " if several else ""
        if graph.section["modality"] != "text":
            found += about_others(label, graph)
        else:
            found += kind.questions(label, graph, original, embedder)
            if embedder.artifact.manifest["precision"] != EXACT:
                found.append(kind.quality_question(label, graph, embedder, texts))
    return found


def about_others(label: str, graph: Graph) -> Iterator[Question]:
    """encode() on images or sounds."""
    if graph.section["modality"] == "audio":
        # The library pads sounds of several lengths, with what its answers may depend on
        if shortest_sound(graph.section) is not None:
            yield Question(f"{label}sounds", inputs_of(graph.section), options={"batch_size": 1})
            lengths = sound_lengths(graph.section)[:5]
            alike = [sound for length in lengths for sound in sounds_of(graph.section, length, 3)]
            yield Question(f"{label}sounds of one length", alike, options={"batch_size": 3}, together=3)
            return
        yield Question(f"{label}sounds", inputs_of(graph.section), options={"batch_size": 3})
        return
    yield Question(f"{label}images", inputs_of(graph.section), options={"batch_size": 3})
    if not_null(graph.section["image"])["do_convert_rgb"]:
        yield Question(f"{label}images in other modes", images_to_convert(), options={"batch_size": 3})


def about_embeddings(label: str, graph: Graph, original: Side, embedder: ConvertedModel) -> Iterator[Question]:
    """encode() on texts, and each further output of the graph."""
    asked = [name for name in graph.outputs if name not in OWN_TOKENS]
    output = "sentence_embedding" if "sentence_embedding" in asked else next(iter(asked), None)
    if output is not None:
        yield from _about_encode(label, graph, original, embedder, {"output_value": output})
    yield from about_own_tokens(label, graph)
    for other in asked:
        if other != output:
            options = {"output_value": other, **_task(graph), "batch_size": SMALL_BATCH}
            yield Question(f"{label}{other.replace('_', ' ')}", CORPUS, options=options)


def about_own_tokens(label: str, graph: Graph) -> Iterator[Question]:
    """What the Transformer gives for each token, text by text: a batch of it may be larger than the weights."""
    for name in graph.outputs:
        if name in OWN_TOKENS:
            options = {"output": name, **_task(graph)}
            yield Question(f"{label}{name.replace('_', ' ')}", CORPUS, TOKEN_OUTPUT, options)


def about_sparse_embeddings(label: str, graph: Graph, original: Side, embedder: ConvertedModel) -> Iterator[Question]:
    """encode() on texts, as arrays. A weight near 0 has the rounding of its logit, which is far larger: so the batches
    are the same on both sides.
    """
    yield from _about_encode(label, graph, original, embedder, _arrays(embedder), BATCH_SIZE)
    yield from about_own_tokens(label, graph)


def _about_encode(
    label: str,
    graph: Graph,
    original: Side,
    embedder: ConvertedModel,
    given: Mapping[str, Any],
    usual_batch: int = SMALL_BATCH,
) -> Iterator[Question]:
    """encode() on texts, with every option of the model that changes what it gives; `given` goes with each."""
    task, name = _task(graph), graph.task
    long = long_text(graph.tokenizer.max_length(name))

    def encode(what: str, inputs: Sequence[str] = CORPUS, batch_size: int = usual_batch, **options: Any) -> Question:
        options = {**given, **task, "batch_size": batch_size, **options}
        return Question(f"{label}{what}", inputs, options=options)

    yield Question(f"{label}{TOKENS}", [*CORPUS, long], TOKENS, task)
    yield encode(ALONE, batch_size=1)
    yield encode(BATCH, batch_size=BATCH_SIZE)
    if embedder.tokenize([long], name)["input_ids"].shape[1] <= longest_batch(graph):
        yield encode("over the limit", [long, *CORPUS[:3]])
    yield from by_length(encode, ladder(graph, original, embedder, name))
    if side := _other_side(original, embedder):
        yield replace(encode(f"padded on the {side}", batch_size=BATCH_SIZE), padding_side=side)
    for prompt, text in original.prompts().items():
        if text:
            yield encode(f"prompt {prompt}", prompt_name=prompt)
    for own in TASKS:
        if own in graph.section["tasks"] or own in not_null(graph.section["tokenizer"])["task_max_length"]:
            options = {"batch_size": usual_batch, **given}
            yield Question(f"{label}encode_{own}", CORPUS, f"encode_{own}", options)


def about_token_embeddings(label: str, graph: Graph, original: Side, embedder: ConvertedModel) -> Iterator[Question]:
    """encode() on texts alone and in batches, over the limit and with every prompt; then each of its tasks, which has a
    limit, an expansion and tokens that count of its own.

    Which tokens a pooling merges is up to rounding where their vectors are nearly the same ("aaaa"), in the library
    from batch to batch too. So the vectors before it are compared on all texts, and the pooled ones on sentences.
    """
    tasks = graph.section["tasks"] or (None, *TASKS)
    default, *others = [task for task in (None, *TASKS) if task in tasks]

    def ask_for(what: str, task: str | None, inputs: Sequence[str] = CORPUS, **options: Any) -> Question:
        method, name = ("encode", label) if task is None else (f"encode_{task}", f"{label}encode_{task}: ")
        return Question(f"{name}{what}", inputs, method, {"batch_size": BATCH_SIZE, **options}, pooled=False)

    yield ask_for(ALONE, default, batch_size=1)
    for task in (default, *others):
        long = long_text(graph.tokenizer.max_length(task))
        yield replace(ask_for(TOKENS, task, [*CORPUS, long]), method=TOKENS, options={"task": task})
        yield ask_for(BATCH, task)
        if embedder.tokenize([long], task)["input_ids"].shape[1] <= longest_batch(graph):
            yield ask_for("over the limit", task, [long, *CORPUS[:3]])
        yield from by_length(partial(ask_for, task=task), ladder(graph, original, embedder, task))
        if Converted(embedder).poolings():
            yield replace(ask_for("token pooling", task, sentences()[:POOLED]), pooled=True)
    if side := _other_side(original, embedder):
        yield replace(ask_for(f"padded on the {side}", default), padding_side=side)
    for prompt, text in original.prompts().items():
        if text:
            yield ask_for(f"prompt {prompt}", default, batch_size=SMALL_BATCH, prompt_name=prompt)


def about_predictions(label: str, graph: Graph, original: Side, embedder: ConvertedModel) -> Iterator[Question]:
    """predict() on pairs made of the corpus, either text over the limit and both, and on single texts; as logits, and
    with the model's own activation. Padding stays where it is: heads of transformers read a fixed position.
    """
    pairs = list(zip(CORPUS, (*CORPUS[1:], CORPUS[0]), strict=True))
    long = long_text(graph.tokenizer.max_length(None))
    cut = [(long, CORPUS[4]), (CORPUS[4], long), (long, long), (long, "")]

    def ask_for(what: str, inputs: Sequence[Any], method: str = "logits", **options: Any) -> Question:
        return Question(f"{label}{what}", inputs, method, {"batch_size": BATCH_SIZE, **options})

    manifest = embedder.artifact.manifest
    text_input, takes_pairs = manifest.get("text_input"), MODEL_CLASSES[manifest["model_class"]].text_pair
    single = text_input and not takes_pairs
    kind, inputs, limited = ("texts", CORPUS, [long]) if single else ("pairs", pairs, cut)
    yield Question(f"{label}{kind}: {TOKENS}", [*inputs, *limited], TOKENS)
    yield ask_for(f"{kind}: {ALONE}", inputs, batch_size=1)
    yield ask_for(f"{kind}: {BATCH}", inputs)
    if not single and embedder.tokenize([(long, long)])["input_ids"].shape[1] <= longest_batch(graph):
        yield ask_for("pairs over the limit", [*cut, *pairs[:3]])
    made = ladder(graph, original, embedder, None, None if single else CORPUS[4])
    yield from by_length(lambda what, **options: ask_for(f"{kind}: {what}", **options), made)
    for prompt, text in original.prompts().items():
        if text:
            yield ask_for(f"{kind}, prompt {prompt}", inputs, prompt_name=prompt)
    yield ask_for(f"{kind}, activation", inputs, "scores")
    if graph.tokenizer.takes_single and not text_input:
        yield Question(f"{label}texts: {TOKENS}", [*CORPUS, long], TOKENS)
        yield ask_for(f"texts: {ALONE}", CORPUS, batch_size=1)


def embedded_sentences(label: str, graph: Graph, embedder: ConvertedModel, texts: Sequence[str]) -> Question:
    """Enough texts to tell whether the nearest neighbours stay; in batches of mixed lengths, as users have them."""
    options = {"batch_size": BATCH_SIZE, **_task(graph), **_arrays(embedder)}
    return Question(f"{label}{SENTENCES}", [*sentences(), *texts], options=options, pooled=False)


def _arrays(embedder: ConvertedModel) -> Mapping[str, Any]:
    """The keywords with which both sides give arrays."""
    from sbertconv.parity.kinds import CLASS_PARITY

    return CLASS_PARITY[embedder.artifact.manifest["model_class"]].arrays


@dataclass(frozen=True)
class Ladder:
    """Texts of every length that may matter.

    Attributes:
        items: number of tokens -> text or pair, ascending.
        missing: lengths that may matter too, and that no text has or there is no time for.
    """

    items: Mapping[int, Any]
    missing: tuple[int, ...]

    @property
    def in_company(self) -> list[Any]:
        """Each of them but the short ones between the first and the last of those: an answer may depend on the longest
        text of its batch.
        """
        short = [item for length, item in self.items.items() if length <= SHORT] or list(self.items.values())[:1]
        long = [item for item in self.items.values() if item not in short] or short[-1:]
        return [item for text in long for item in (short[0], text, short[-1])]


def by_length(ask_for: Callable[..., Question], made: Ladder) -> Iterator[Question]:
    """Each length alone, and between short ones in a call of its own."""
    yield replace(ask_for(LENGTHS_ALONE, inputs=list(made.items.values()), batch_size=1), missing=made.missing)
    yield replace(ask_for(LENGTHS_MIXED, inputs=made.in_company, batch_size=COMPANY), together=COMPANY)


def ladder(
    graph: Graph, original: Side, embedder: ConvertedModel, task: str | None, first: str | None = None
) -> Ladder:
    """The ladder up to the limit, or to the largest number of the config where there is none; `first` is the other text
    of its pairs, whose tokens count.
    """

    def item(text: str) -> Any:
        return text if first is None else (first, text)

    def count(text: str) -> int:
        return int(embedder.tokenize([item(text)], task)["input_ids"].shape[1])

    numbers = [*original.numbers(), *graph.section.get("guarded", ())]
    limit = min(asked_limit(graph.tokenizer.max_length(task), numbers), longest_forward(graph))
    found = texts_of_lengths(lengths_to_ask(limit, numbers), count)
    wanted = lengths_to_ask(limit, numbers, None)
    missing = tuple(length for length in wanted if length > min(found) and length not in found)
    return Ladder({length: item(text) for length, text in found.items()}, missing)


def longest_batch(graph: Graph) -> int:
    """The tokens of the longest text that is compared in one batch with short ones, cut at the limit."""
    return min(LONGEST_BATCH, longest_forward(graph))


def longest_forward(graph: Graph) -> int:
    """The tokens of the longest text with a result that is compared."""
    return min([graph.artifact.manifest.get("proven_length") or LONGEST_FORWARD, *profiled(graph)])


def profiled(graph: Graph) -> list[int]:
    """The tokens of the longest text that a plan takes, if the graph is for one."""
    shapes = graph.section.get("profile", {}).get("input_ids")
    return shapes["max"][1:2] if shapes else []


def ranked_pairs(label: str, graph: Graph, embedder: ConvertedModel, texts: Sequence[str]) -> Question:
    """Queries with a list of documents each; the user's texts are documents of every query."""
    found = sentences()
    queries = len(found) // (RANKED + 1)
    documents = [found[queries + place * RANKED :][:RANKED] for place in range(queries)]
    pairs = [(query, text) for query, own in zip(found, documents, strict=False) for text in (*own, *texts)]
    return Question(f"{label}{SENTENCES}", pairs, "logits", {"batch_size": BATCH_SIZE})


def classified_sentences(label: str, graph: Graph, embedder: ConvertedModel, texts: Sequence[str]) -> Question:
    """Texts to classify."""
    return Question(f"{label}{SENTENCES}", [*sentences(), *texts], "logits", {"batch_size": BATCH_SIZE})


def _task(graph: Graph) -> dict[str, str]:
    """The keyword that leads to a graph, where one is needed."""
    return {"task": graph.task} if graph.task else {}


def _other_side(original: Side, embedder: ConvertedModel) -> str | None:
    """The side that is not the model's own, where both sides have one tokenizer that can pad there."""
    if embedder.artifact.manifest.get("text_input"):  # the graph pads where the model does
        return None
    theirs, ours = original.tokenizers(), Converted(embedder).tokenizers()
    sides = {tokenizer.padding_side for tokenizer in (*theirs, *ours)}
    if len(theirs) != 1 or len(ours) != 1 or len(sides) != 1:
        return None
    return "left" if sides == {"right"} else "right"
