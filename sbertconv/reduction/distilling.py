"""Token vectors alone: a model asked for every token of its vocabulary, as a StaticEmbedding behind a quality gate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.errors import SourceError, UnsupportedModuleError, error_text
from sbertconv.options import LikenessOptions, StaticOptions
from sbertconv.reduction.checkpoints import Size, changeable, refuse_class, reopened, save, stored_dtype
from sbertconv.reduction.likeness import embedded, gate_texts, held
from sbertconv.reduction.reports import Figure, Reduction
from sbertconv.reduction.trimming import Holder, described_tokenizer, holder_of, numbers_of, whole_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from sbertconv.artifact.publishing import Staging
    from sbertconv.source.opening import Source

DIM = 256
BATCH = 512  # tokens that are asked at once
SIF = 1e-4  # a token of this share of all tokens weighs half as much as a rare one
ANY_TEXT = "a"
NEVER = re.compile(r"\[unused\d+\]|<extra_id_\d+>|<unused\d+>")  # places that vocabularies keep free


def to_static(
    source: Source, how: StaticOptions, gate: LikenessOptions, staging: Staging, on_stage: Callable[[str], None]
) -> Reduction:
    """Write a model of token vectors, and hold its similarities to the original's.

    Raises:
        UnsupportedModuleError: if the model has no vocabulary that can be asked.
        ParityError: if it stays below the gate.
    """
    refuse_class(source, ("SentenceTransformer",), "to-static", "token vectors have a mean, and nothing else")
    texts = gate_texts(gate.texts)
    on_stage("loading the model")
    with changeable(source) as model:
        holder = holder_of(model, source)
        before, own = Size.of(model, stored_dtype(source)), model.get_embedding_dimension()
        described = described_tokenizer(holder, source)
        numbers = tokens_of(described, holder.rows)
        if not numbers:
            raise UnsupportedModuleError(
                f"{source.name}: its vocabulary has no tokens of texts, special ones alone.\n"
                "No vectors of single tokens can be asked of it."
            )
        on_stage("asking the original")
        theirs, slow = embedded(model, source, texts)
        on_stage(f"asking for {len(numbers):,} tokens")
        vectors = token_vectors(model, holder, numbers, source)
        on_stage("writing")
        dim = min(how.dim or DIM, vectors.shape[1], len(numbers))
        counts, weights = counted(holder, numbers, gate.texts), zipf_weights(len(numbers))
        table = np.zeros((max(numbers) + 1, dim), np.float32)
        table[numbers] = principal(vectors, counts, dim) * weights[:, None]
        static = static_model(model, described, table)
        save(static, source, staging, "float32", heads=())
    on_stage("comparing with encode()")
    with reopened(source, staging).loaded() as written:
        after = Size.of(written, "float32")
        ours, fast = embedded(written, source, texts, smaller=True)
    report = held(texts, theirs, ours, gate, one_space=False)
    figures = (
        Figure("dim", own, dim),
        Figure("parameters", before.parameters, after.parameters),
        Figure("bytes", before.bytes, after.bytes),
        Figure("seconds", slow, fast),
    )
    centre = f"the mean in {len(gate.texts):,} texts" if gate.texts else "their mean"
    notes = (*source.notes, f"{len(numbers):,} tokens, less {centre}; rare ones weigh more, by their places.")
    return Reduction(staging.target, "to_static", figures, report, notes)


def tokens_of(described: Mapping[str, Any], rows: int) -> list[int]:
    """The numbers of the tokens that a text can have: no special ones, nor places that are kept free."""
    vocabulary = described["model"]["vocab"]
    names = vocabulary.items() if isinstance(vocabulary, Mapping) else (
        (entry[0], number) for number, entry in enumerate(vocabulary))  # fmt: skip
    added = {entry["id"]: entry for entry in described.get("added_tokens") or ()}
    special = {number for number, entry in added.items() if entry.get("special")}
    found = {number for name, number in names if not NEVER.fullmatch(name)} | {*added}
    return sorted(number for number in found - special if number < rows)


def token_vectors(model: SentenceTransformer, holder: Holder, numbers: Sequence[int], source: Source) -> np.ndarray:
    """The model's vector of each token as a text of its own, float32 [tokens, dim].

    Raises:
        SourceError: if the model fails on one.
    """
    import torch

    features, at = example(model, holder, source)
    found = []
    try:
        with torch.inference_mode():
            for start in range(0, len(numbers), BATCH):
                part = torch.tensor(numbers[start : start + BATCH])
                batch = {name: _repeated(value, len(part)) for name, value in features.items()}
                batch["input_ids"][:, at] = part
                found.append(model(batch)["sentence_embedding"].float().numpy())
    except Exception as error:
        raise SourceError(f"{source.name}: fails on a text of one token: {error_text(error, 3)}\nMend it.") from error
    return np.concatenate(found)


def _repeated(value: Any, times: int) -> Any:
    """A tensor of one text as that of several; anything else as it is."""
    import torch

    alone = isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == 1
    return value.repeat(times, *[1] * (value.ndim - 1)) if alone else value


def example(model: SentenceTransformer, holder: Holder, source: Source) -> tuple[dict[str, Any], int]:
    """What the model makes of a text, with one token in the place of the text's own; and that place in `input_ids`.

    Raises:
        UnsupportedModuleError: if the model takes its tokens in another form.
    """
    import torch

    with whole_texts(holder.backend):
        own = holder.backend.encode(ANY_TEXT, add_special_tokens=False).ids
    features = dict(model.preprocess([ANY_TEXT]))
    ids: Any = features.get("input_ids")
    row = ids[0].tolist() if isinstance(ids, torch.Tensor) and ids.ndim == 2 else []
    found = [at for at in range(len(row)) if own and row[at : at + len(own)] == own]
    if not found:
        raise UnsupportedModuleError(
            f"{source.name}: its module takes no rows of tokens in input_ids (have: {', '.join(features)}).\n"
            "No vectors of single tokens can be asked of it."
        )
    kept = [at for at in range(len(row)) if not found[0] < at < found[0] + len(own)]
    short = {name: value[:, kept] if getattr(value, "shape", ())[:2] == ids.shape else value
             for name, value in features.items()}  # fmt: skip
    return short, found[0]


def zipf_weights(count: int) -> np.ndarray:
    """The weight of each of so many tokens, a / (a + p), float64 [tokens]; p, its share of all tokens, is as Zipf's law
    has it, for vocabularies have frequent tokens first.

    Shares counted in a user's texts would weigh their own words least, which tell them apart: measured, that is worse.
    """
    shares = 1.0 / np.arange(2, count + 2)
    weights: np.ndarray = SIF / (SIF + shares / shares.sum())
    return weights


def counted(holder: Holder, numbers: Sequence[int], texts: Sequence[str]) -> np.ndarray:
    """How often each token comes in the texts, once more than that so that none is without; float64 [tokens]."""
    counts = np.ones(max(numbers) + 1)
    for found in numbers_of(holder.backend, texts):
        np.add.at(counts, [number for number in found if number < len(counts)], 1)
    return counts[list(numbers)]


def principal(vectors: np.ndarray, counts: np.ndarray, dim: int) -> np.ndarray:
    """The vectors less their mean, in which each counts so often, in their main directions, float32 [tokens, dim]."""
    centred = vectors - np.average(vectors, axis=0, weights=counts).astype(np.float32)
    _, directions = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    chosen = directions[:, ::-1][:, :dim]
    largest = np.abs(chosen).argmax(axis=0)
    signed = chosen * np.sign(chosen[largest, np.arange(dim)])  # whichever way round a library gives them
    found: np.ndarray = (centred @ signed).astype(np.float32)
    return found


def static_model(model: SentenceTransformer, described: Mapping[str, Any], table: np.ndarray) -> SentenceTransformer:
    """The token vectors as a model, whose prompts have the names of the original's and no text."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    plain = {**described, "post_processor": None, "truncation": None, "padding": None}
    modules: list[Any] = [StaticEmbedding(Tokenizer.from_str(json.dumps(plain)), embedding_weights=table)]
    if any(type(module).__name__ == "Normalize" for module in model.children()):
        modules.append(Normalize())
    return SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=dict.fromkeys(model.prompts, ""),
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
    )
