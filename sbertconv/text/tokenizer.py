"""Compiles a tokenizer.json to tables, and runs them in any emitter's operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from sbertconv.artifact.json_reading import parse_json
from sbertconv.artifact.text_input import MAX_LENGTH, TEXT, TEXT_PAIR, TokenizerSettings
from sbertconv.artifact.tokenizer_file import rust_errors
from sbertconv.errors import TokenizationError
from sbertconv.text.added import AddedTokens
from sbertconv.text.bpe import BPE
from sbertconv.text.components import (
    ANY,
    Component,
    Json,
    NotKnownError,
    TokenizerContext,
    parts,
    problems,
    real,
    refuse,
)
from sbertconv.text.framing import SPECIAL, Framing
from sbertconv.text.normalizers import NORMALIZERS
from sbertconv.text.operations import END, Operations, Tensor
from sbertconv.text.postprocessors import PLAIN, POST_PROCESSORS
from sbertconv.text.pretokenizers import PRE_TOKENIZERS
from sbertconv.text.unigram import Unigram
from sbertconv.text.wordpiece import WordPiece

MODELS = {
    "WordPiece": Component(
        lambda model, context: WordPiece.of(model, _added_ids(context)),
        dict.fromkeys(("vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"), ANY),
    ),
    "BPE": Component(
        lambda model, context: BPE.of(model, _added_ids(context)),
        {
            **dict.fromkeys(("vocab", "merges", "unk_token"), ANY),
            **dict.fromkeys(("fuse_unk", "byte_fallback"), (True, False)),
            **dict.fromkeys(("continuing_subword_prefix", "end_of_word_suffix"), ANY),
            "dropout": (None, 0.0),
            "ignore_merges": (True, False),
        },
    ),
    "Unigram": Component(
        lambda model, context: Unigram.of(model, _added_ids(context)),
        {"vocab": ANY, "unk_id": ANY, "byte_fallback": (True, False)},
    ),
}
TABLES: Mapping[str, Mapping[str, Component]] = {
    "normalizer": NORMALIZERS,
    "pre_tokenizer": PRE_TOKENIZERS,
    "model": MODELS,
    "post_processor": POST_PROCESSORS,
}
Step = Callable[..., Any]


@dataclass(frozen=True)
class GraphTokenizer:
    """A tokenizer as tables. Called, it makes a graph's part from texts to the model's tensors.

    Attributes:
        raw: finds the tokens that are looked for in the text as it is, or None.
        normalizer: stages from code points to code points.
        normalized: finds the other added tokens, or None.
        pre_tokenizer: stages from code points and starts of words to the same.
        model: code points and starts to ids.
        framing: ids to tensors.
    """

    raw: AddedTokens | None
    normalizer: Sequence[Step]
    normalized: AddedTokens | None
    pre_tokenizer: Sequence[Step]
    model: Step
    framing: Framing

    def __call__(
        self, ops: Operations, inputs: Mapping[str, Any], steps: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """The settings' inputs [batch] -> their tensors, int64 [batch, sequence]; `steps` gets what is in between."""
        steps = {} if steps is None else steps
        codes = ops.characters([inputs[name] for name in (TEXT, TEXT_PAIR) if name in inputs])
        if self.raw is not None:
            codes = self.raw(ops, codes)
        for stage in self.normalizer:
            codes = stage(ops, codes)
        if self.normalized is not None:
            codes = self.normalized(ops, codes)
        steps["normalizer"] = codes
        special = codes >= END
        starts = special | ops.previous(special, True)
        for stage in self.pre_tokenizer:
            codes, starts = stage(ops, codes, starts)
        steps["pre_tokenizer"] = codes, starts
        limits = ops.integers(inputs[MAX_LENGTH]) if MAX_LENGTH in inputs else None
        return self.framing(ops, self.model(ops, codes, starts), limits)


def _added_ids(context: TokenizerContext) -> np.ndarray:
    return np.array([token["id"] for token in context.tokenizer["added_tokens"]], np.int32)


def _overlaps(added: Sequence[Json]) -> Iterator[str]:
    """A token that takes the spaces behind it could take the begin of one that begins with a space."""
    taking = [token["content"] for token in added if token["rstrip"]]
    losing = [token["content"] for token in added if token["content"][:1].isspace()]
    if taking and losing:
        yield f"added tokens: {taking[0]!r} takes the spaces on its right, and {losing[0]!r} begins with one"


def _equals(tokens: Mapping[int, str], added: Sequence[Json]) -> Iterator[str]:
    """Of added tokens that the normalizer makes equal the library takes any, another one each time it is loaded."""
    first: dict[str, int] = {}
    for number, text in tokens.items():
        if (other := first.setdefault(text, number)) != number:
            same = f"{added[other]['content']!r} and {added[number]['content']!r}"
            yield f"added tokens: {same} are both {text!r} once normalized"


@rust_errors("tokenizer.json", TokenizationError)
def compile_tokenizer(tokenizer_json: str, settings: TokenizerSettings, refused: Sequence[str] = ()) -> GraphTokenizer:
    """The tables of a tokenizer.

    Args:
        tokenizer_json: what `tokenizers.Tokenizer.to_str` gives; its truncation and padding are not looked at.
        settings: truncation, padding and the names of the tensors.
        refused: what else is already known not to be possible, to be named with the rest.

    Raises:
        UnsupportedOptionError: naming every component and option that is not known.
    """
    tokenizer: Json = parse_json(tokenizer_json, "tokenizer.json", dict)
    added = tokenizer["added_tokens"]
    found = [*refused, *problems(tokenizer, TABLES), *_overlaps(added)]
    context = TokenizerContext(tokenizer, 1 + len(added), settings.pair)

    def compiled(section: str) -> list[Any]:
        """What each component of a section becomes; those that are not known are left out."""
        made = []
        for part in parts(section, tokenizer):
            component = TABLES[section].get(part["type"])
            if component is None or any(component.unknown(part)):
                continue
            try:
                made.append(component.compile(part, context))
            except NotKnownError as problem:
                found.append(str(problem))
        return made

    def finder(normalized: bool) -> AddedTokens | None:
        tokens = {n: token["content"] for n, token in enumerate(added) if token["normalized"] is normalized}
        if normalized and tokens and tokenizer["normalizer"] is not None:
            function = real("normalizer", tokenizer["normalizer"]).normalize_str
            tokens = {n: function(text) for n, text in tokens.items()}
        tokens = {n: text for n, text in tokens.items() if text}
        found.extend(_equals(tokens, added))
        return AddedTokens.of(tokens, added) if tokens else None

    raw, normalized = finder(False), finder(True)
    normalizer, pre_tokenizer = (list(chain(*compiled(section))) for section in ("normalizer", "pre_tokenizer"))
    frames = [frame for frame in compiled("post_processor") if frame is not None]
    if len(frames) > 1:
        found.append("post_processor: two that add tokens")
    models = compiled("model")
    refuse(found)
    pieces = frames[0] if frames else PLAIN[: 1 + settings.pair]
    kept = tuple(piece for piece in pieces if settings.add_special_tokens or piece[0] != SPECIAL)
    framing = Framing(kept, settings)
    return GraphTokenizer(raw, normalizer, normalized, pre_tokenizer, models[0], framing)
