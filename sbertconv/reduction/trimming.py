"""Fewer tokens: the rows of the embedding table and the tokenizer that texts need, proven to the last bit."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.artifact.json_reading import parse_json, read_json
from sbertconv.artifact.tokenizer_file import read_tokenizer
from sbertconv.corpus.texts import sentences
from sbertconv.errors import ParityError, SourceError, UnsupportedModuleError, UnsupportedOptionError
from sbertconv.options import TrimOptions
from sbertconv.parity.comparison import Check, shorten
from sbertconv.reduction.checkpoints import (
    Size,
    backend_of,
    changeable,
    refuse_class,
    reopened,
    save,
    settle,
    stored_dtype,
)
from sbertconv.reduction.reports import Figure, Proof, Reduction, proof
from sbertconv.reduction.scripts import scripts_of
from sbertconv.reduction.vocabularies import Pieces
from sbertconv.source.routes import live_modules, modalities_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sbertconv.artifact.publishing import Staging
    from sbertconv.source.opening import Source

CLASSES = ("SentenceTransformer", "CrossEncoder")
NUMBERS_OF_TOKENS = {"LogitScore": "it scores by the logits of two tokens"}  # modules that know tokens by number
BLOCK = 4096  # texts that are cut at once
RULE = "a == b, to the last bit"
VOCABULARY_FILES = ("vocab.txt", "vocab.json", "merges.txt", "*.model", "tokenizer.json")
TOKENIZER_CONFIG = "tokenizer_config.json"
ID_KEYS = ("_token_id", "_token_ids", "_token_index")
NO_TOKEN = -1
SURROGATE = re.compile("[\ud800-\udfff]")
ANY_TEXT = ("a",)


@dataclass(frozen=True)
class Holder:
    """The module of a chain that has the vocabulary.

    Attributes:
        label: its place in the chain.
        module: it.
        path: its folder below the model's.
        table: its embedding table, a module with a weight [tokens, dim].
        backend: its tokenizer, of the tokenizers library.
    """

    label: str
    module: Any
    path: str
    table: Any
    backend: Any

    @property
    def rows(self) -> int:
        return len(self.table.weight)


def trim(source: Source, options: TrimOptions, staging: Staging, on_stage: Callable[[str], None]) -> Reduction:
    """Write the model with the tokens that the texts and languages need, and prove it.

    Returns:
        What became of it; the staged folder is complete but for its manifest.

    Raises:
        UnsupportedOptionError, UnsupportedModuleError: if there is nothing to keep, or no vocabulary that can be cut.
        ParityError: if a kept text has another embedding, in one bit.
    """
    scripts = scripts_of(options.languages)
    if not options.keep and not scripts:
        raise UnsupportedOptionError("keep=, languages=: neither says which tokens stay.\nPass one of them, or both.")
    refuse_class(source, CLASSES, "trim", "its answers have a place for every token, or rules for some by number")
    on_stage("loading the model")
    with changeable(source) as model:
        holder = holder_of(model, source)
        dtype, rows = stored_dtype(source), holder.rows
        before = Size.of(model, dtype)
        on_stage("choosing the tokens")
        sample = options.sample or sentences()
        prompts = [prompt for prompt in dict.fromkeys(["", *model.prompts.values()]) if prompt is not None]
        choice = Choice.of(holder, source, options, scripts, model, prompts)
        changed = [not same for same in choice.unchanged(holder.backend, sample)]
        kept = list(dict.fromkeys(options.keep)) or [
            text for text, differs in zip(sample, changed, strict=True) if not differs
        ]
        if not kept:
            raise UnsupportedOptionError(
                f"languages={list(options.languages)}: no text of the sample keeps its tokens, so that nothing could "
                "be proven.\nPass texts of these languages with keep= or sample=."
            )
        on_stage("asking the original")
        theirs = answers(model, source, kept)
        on_stage("writing")
        cut_rows(holder, choice.new, source)
        save(model, source, staging, dtype)
    smaller = reopened(source, staging)
    path = next(spec.path for spec in smaller.modules if spec.label == holder.label)
    write_tokenizer(staging.folder / path, choice)
    on_stage(f"comparing with {source.model_class.method}()")
    with smaller.loaded() as written:
        settle(written)
        again = holder_of(written, source)
        after, left = Size.of(written, dtype), again.rows
        report = compared(choice, kept, prompts, theirs, again, written, source)
    share = sum(changed) / len(changed)
    figures = (
        Figure("rows", rows, left),
        Figure("parameters", before.parameters, after.parameters),
        Figure("bytes", before.bytes, after.bytes),
        Figure("kept_texts", None, len(kept)),
        Figure("sample_texts", None, len(sample)),
        Figure("changed_share", None, share),
    )
    example = next((text for text, differs in zip(sample, changed, strict=True) if differs), "")
    return Reduction(staging.target, "trim", figures, report, source.notes, example)


def holder_of(model: SentenceTransformer, source: Source) -> Holder:
    """The one module of the chain with a tokenizer and an embedding table.

    Raises:
        UnsupportedModuleError: if there is none, several, or a module that knows tokens by their numbers, or for a
            model that takes no texts.
    """
    if "text" not in model.modalities:
        raise UnsupportedModuleError(
            f"{source.name}: takes {', '.join(sorted(modalities_of(model) - {'text'}))} and no texts alone.\n"
            "It has no vocabulary that could be cut."
        )
    paths = {spec.label: spec.path for spec in source.modules}
    found, chain = [], []
    for label, module in live_modules(model):
        name = type(module).__name__
        chain.append(f"[{label}] {name}")
        if name in NUMBERS_OF_TOKENS:
            raise UnsupportedModuleError(
                f"{source.name}: [{label}] {name}: {NUMBERS_OF_TOKENS[name]}.\nIts vocabulary cannot be cut."
            )
        table, backend = table_of(module), backend_of(module)
        if table is not None and backend is not None:
            found.append(Holder(label, module, paths.get(label, ""), table, backend))
    if len(found) != 1:
        raise UnsupportedModuleError(
            f"{source.name}: {len(found)} modules with a tokenizer of the tokenizers library and a table of its "
            f"tokens, where one is due (have: {', '.join(chain)}).\nIts vocabulary cannot be cut: convert it as it is."
        )
    return found[0]


def table_of(module: Any) -> Any | None:
    """The embedding table of a module, or None."""
    inner = getattr(module, "model", None)
    if inner is not None and hasattr(inner, "get_input_embeddings"):
        with contextlib.suppress(NotImplementedError, AttributeError):
            return inner.get_input_embeddings()
        return None
    return getattr(module, "embedding", None) if type(module).__name__ == "StaticEmbedding" else None


@contextlib.contextmanager
def whole_texts(backend: Any) -> Iterator[None]:
    """In here a tokenizer neither cuts texts off nor fills them up."""
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        yield
    finally:
        if truncation:
            backend.enable_truncation(**truncation)
        if padding:
            backend.enable_padding(**padding)


def numbers_of(backend: Any, texts: Iterable[str]) -> Iterator[list[int]]:
    """The tokens of each text in full length, with the special ones.

    Raises:
        UnsupportedOptionError: for a text with half a character, which no tokenizer takes.
    """
    texts = list(texts)
    if halves := next((text for text in texts if SURROGATE.search(text)), None):
        raise UnsupportedOptionError(f"{shorten(halves)!r}: holds half a character.\nMend the text, or leave it out.")
    with whole_texts(backend):
        for start in range(0, len(texts), BLOCK):
            yield from (encoding.ids for encoding in backend.encode_batch_fast(texts[start : start + BLOCK]))


@dataclass(frozen=True)
class Choice:
    """The tokens that stay.

    Attributes:
        tokenizer: the tokenizer.json of them.
        new: old number -> new one.
    """

    tokenizer: Mapping[str, Any]
    new: Mapping[int, int]

    @classmethod
    def of(
        cls,
        holder: Holder,
        source: Source,
        options: TrimOptions,
        scripts: frozenset[str],
        model: SentenceTransformer,
        prompts: Sequence[str],
    ) -> Choice:
        """Choose the tokens of the texts, of the scripts, and those without which they could not be told.

        Raises:
            UnsupportedModuleError: if a text has other tokens even with every piece that occurs in it.
        """
        pieces = Pieces(described_tokenizer(holder, source), source.name)
        texts = [f"{prompt}{text}" for prompt in prompts for text in dict.fromkeys(options.keep)]
        kept = {number for numbers in numbers_of(holder.backend, [*prompts, *texts]) for number in numbers}
        kept |= {*pieces.always(), *numbers_of_config(holder), *asked(model, options.keep[:8] or ANY_TEXT)}
        kept |= pieces.of_scripts(scripts) if scripts else set()
        known = {*pieces.names, *pieces.added}
        for _ in range(2):
            closed = pieces.closed(kept) & known
            choice = cls(*pieces.cut(closed))
            other = [
                text for text, same in zip(texts, choice.unchanged(holder.backend, texts), strict=True) if not same
            ]
            if not other:
                return choice
            kept = closed | pieces.inside(words_of(holder.backend, other))
        raise UnsupportedModuleError(
            f"{source.name}: the smaller tokenizer gives other tokens for {shorten(other[0])!r}.\n"
            "Its vocabulary cannot be cut: report it with the model."
        )

    @cached_property
    def opened(self) -> Any:
        """The smaller tokenizer; a large vocabulary takes seconds to read."""
        return read_tokenizer(json.dumps(self.tokenizer, ensure_ascii=False))

    def unchanged(self, backend: Any, texts: Sequence[str]) -> list[bool]:
        """Whether the smaller tokenizer gives the same tokens for each text."""
        theirs, ours = numbers_of(backend, texts), numbers_of(self.opened, texts)
        return [self.translated(one) == other for one, other in zip(theirs, ours, strict=True)]

    def translated(self, numbers: Iterable[int]) -> list[int]:
        """The new numbers of tokens; `NO_TOKEN` for one that is gone."""
        return [self.new.get(number, NO_TOKEN) for number in numbers]


def described_tokenizer(holder: Holder, source: Source) -> dict[str, Any]:
    """The tokenizer.json of a module, with the scores as the model's file has them: the library misreads the last bit
    of some, and would misread that again.
    """
    found: dict[str, Any] = parse_json(holder.backend.to_str(), "tokenizer.json", dict, SourceError)
    file = None if source.folder is None else source.folder / holder.path / "tokenizer.json"
    if found["model"].get("type") == "Unigram" and file is not None and file.is_file():
        own = (read_json(file, dict, SourceError, unique=False).get("model") or {}).get("vocab") or []
        if [entry[0] for entry in own] == [entry[0] for entry in found["model"]["vocab"]]:
            found["model"]["vocab"] = own
    return found


def words_of(backend: Any, texts: Iterable[str]) -> Iterator[str]:
    """The words of texts as the tokenizer's model gets them."""
    for text in texts:
        normalized = backend.normalizer.normalize_str(text) if backend.normalizer else text
        before = backend.pre_tokenizer
        yield from [word for word, _ in before.pre_tokenize_str(normalized)] if before else [normalized]


def asked(model: SentenceTransformer, texts: Sequence[str]) -> set[int]:
    """The tokens that the model itself makes of some texts, those of a template included."""
    tensors = model.preprocess(list(texts))
    return {int(number) for number in np.asarray(tensors["input_ids"]).ravel()} if "input_ids" in tensors else set()


def configs_of(holder: Holder) -> Iterator[Any]:
    """The config of a module's transformer, those inside it, and that of its generation."""
    inner = getattr(holder.module, "model", None)
    waiting = [getattr(inner, "config", None), getattr(inner, "generation_config", None)]
    while waiting:
        if (config := waiting.pop()) is not None:
            yield config
            waiting += [getattr(config, name, None) for name in getattr(config, "sub_configs", {}) or {}]


def token_settings(config: Any) -> Iterator[tuple[str, Any]]:
    """The settings of a config that hold numbers of tokens."""
    for key, value in list(vars(config).items()):
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if key.endswith(ID_KEYS) and all(type(number) is int for number in numbers):
            yield key, value


def numbers_of_config(holder: Holder) -> Iterator[int]:
    """The tokens that configs name by their numbers; and those up to the padding's, where the model has its positions
    counted from that number, as RoBERTa does.
    """
    import torch

    for config in configs_of(holder):
        for _, value in token_settings(config):
            yield from value if isinstance(value, (list, tuple)) else [value]
    tables = [module for module in holder.module.modules() if isinstance(module, torch.nn.Embedding)]
    for table in tables:
        if table.padding_idx is not None and len(table.weight) != holder.rows:
            yield from range(table.padding_idx + 1)


def cut_rows(holder: Holder, new: Mapping[int, int], source: Source) -> None:
    """Leave the rows of the tokens that stay, in their new order, in every table of the module; settings follow.

    Raises:
        UnsupportedModuleError: for a table that would keep its rows.
    """
    import torch

    rows, inner = holder.rows, getattr(holder.module, "model", None)
    kept = torch.tensor([old for old in new if old < rows])
    with torch.no_grad():
        if inner is None:  # a StaticEmbedding
            holder.table.weight = torch.nn.Parameter(holder.table.weight[kept].clone())
            holder.table.num_embeddings = holder.module.num_embeddings = len(kept)
            return
        head = inner.get_output_embeddings()
        parts = [holder.table.weight, *([] if head is None else [head.weight, getattr(head, "bias", None)])]
        for weight in {part.data_ptr(): part for part in parts if part is not None}.values():  # tied ones are one
            weight[: len(kept)] = weight[kept]
    own = {id(part) for part in parts}
    tables = ((name, module.weight) for name, module in inner.named_modules() if isinstance(module, torch.nn.Embedding))
    others = [name for name, weight in tables if len(weight) == rows and id(weight) not in own]
    if others:
        raise UnsupportedModuleError(
            f"{source.name}: {', '.join(others)}: a second table with {rows:,} rows.\nIts vocabulary cannot be cut."
        )
    padding = holder.table.padding_idx
    for config in configs_of(holder):
        for key, value in token_settings(config):
            several = isinstance(value, (list, tuple))
            moved = [new.get(n, n if n >= rows else None) for n in (value if several else [value])]
            setattr(config, key, [n for n in moved if n is not None] if several else moved[0])
    inner.resize_token_embeddings(len(kept))
    inner.get_input_embeddings().padding_idx = None if padding is None else new.get(padding)


def write_tokenizer(folder: Path, choice: Choice) -> None:
    """Put the smaller tokenizer in the place of the one that the model was saved with."""
    for pattern in VOCABULARY_FILES:
        for file in folder.glob(pattern):
            file.unlink()
    text = json.dumps(choice.tokenizer, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    file = folder / TOKENIZER_CONFIG
    if file.is_file():
        settings = read_json(file, dict, SourceError)
        if isinstance(decoder := settings.get("added_tokens_decoder"), dict):
            numbers = {old: choice.new.get(int(old)) for old in decoder if old.isdecimal()}
            settings["added_tokens_decoder"] = {
                str(new): decoder[old] for old, new in numbers.items() if new is not None
            }
            file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def answers(model: SentenceTransformer, source: Source, texts: Sequence[str]) -> np.ndarray:
    """encode() of every text; of a CrossEncoder, the scores of each with the one after it.

    Raises:
        SourceError: if the model cannot answer.
    """
    try:
        if source.model_class.name == "CrossEncoder":
            pairs = list(zip(texts, [*texts[1:], texts[0]], strict=True)) if texts else []
            return np.asarray(model.predict(pairs, show_progress_bar=False)) if pairs else np.empty(0)
        return np.asarray(model.encode(list(texts), show_progress_bar=False))
    except Exception as error:
        raise SourceError(
            f"{source.name}: its {source.model_class.method}() fails: {error}\nMend the model."
        ) from error


def compared(
    choice: Choice,
    kept: Sequence[str],
    prompts: Sequence[str],
    theirs: np.ndarray,
    again: Holder,
    written: SentenceTransformer,
    source: Source,
) -> Proof:
    """Hold what was read back to the original: the vocabulary, and the answer for every kept text.

    Raises:
        ParityError: if one bit differs.
    """
    ours = answers(written, source, kept)
    texts = [f"{prompt}{text}" for prompt in prompts for text in kept]
    due = numbers_of(choice.opened, texts)
    tokens = [one == other for one, other in zip(due, numbers_of(again.backend, texts), strict=True)]
    equal = ours.shape == theirs.shape and ours.dtype == theirs.dtype
    same = [bool(np.array_equal(one, other)) for one, other in zip(theirs, ours, strict=True)] if equal else [False]
    diff = float(np.abs(theirs - ours).max()) if equal and len(kept) else 0.0
    method = source.model_class.method
    checks = [
        check("tokens", texts, tokens, 0.0, "int64", (len(texts),)),
        check(f"{method}() of every kept text", kept, same, diff, str(ours.dtype), ours.shape),
    ]
    report = proof(checks, (), RULE, method)
    if not report.passed:
        raise ParityError(f"{report.failure} Nothing was written.\nReport it with the model.", report)
    return report


def check(
    name: str, texts: Sequence[str], same: Sequence[bool], diff: float, dtype: str, shape: tuple[int, ...]
) -> Check:
    """One line of the proof."""
    worst = next((text for text, equal in zip(texts, same, strict=False) if not equal), "")
    return Check(name, len(texts), diff, worst, 0, 1.0, 0, shape, dtype, all(same),
                 "" if all(same) else "another answer than the original's")  # fmt: skip
