"""Compiles a tokenizer.json to tables, and runs them in any emitter's operations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbertconv.errors import UnsupportedOptionError
from sbertconv.text.added import AddedTokens
from sbertconv.text.bpe import BPE
from sbertconv.text.components import ANY, Component, Context, Json, check, parts, real
from sbertconv.text.framing import Framing
from sbertconv.text.normalizers import NORMALIZERS
from sbertconv.text.operations import END, Operations, Tensor
from sbertconv.text.postprocessors import POST_PROCESSORS
from sbertconv.text.pretokenizers import PRE_TOKENIZERS
from sbertconv.text.settings import Settings
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
            **dict.fromkeys(("continuing_subword_prefix", "end_of_word_suffix"), (None, "")),
            "dropout": (None,),
            "ignore_merges": (False,),
        },
    ),
    "Unigram": Component(
        lambda model, context: Unigram.of(model, _added_ids(context)),
        {"vocab": ANY, "unk_id": ANY, "byte_fallback": (False,)},
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
class TextTokenizer:
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

    def __call__(self, ops: Operations, texts: Any, steps: dict[str, Any] | None = None) -> dict[str, Tensor]:
        """Strings [batch] -> the settings' tensors, int64 [batch, sequence]; `steps` is given what is in between."""
        steps = {} if steps is None else steps
        codes = ops.characters(texts)
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
        return self.framing(ops, self.model(ops, codes, starts))


def _added_ids(context: Context) -> np.ndarray:
    return np.array([token["id"] for token in context.tokenizer["added_tokens"]], np.int32)


def _check_overlaps(added: Sequence[Json]) -> None:
    """A token that takes the spaces behind it could take the begin of one that begins with a space."""
    taking = [token["content"] for token in added if token["rstrip"]]
    losing = [token["content"] for token in added if token["content"][:1].isspace()]
    if taking and losing:
        raise UnsupportedOptionError(
            f"Text input is not possible with these added tokens: {taking[0]!r} takes the spaces on its right, and "
            f"{losing[0]!r} begins with one.\nLeave --text-input out."
        )


def compile_tokenizer(tokenizer_json: str, settings: Settings) -> TextTokenizer:
    """The tables of a tokenizer.

    Args:
        tokenizer_json: what `tokenizers.Tokenizer.to_str` gives; its truncation and padding are not looked at.
        settings: truncation, padding and the names of the tensors.

    Raises:
        UnsupportedOptionError: naming every component and option that is not known.
    """
    tokenizer: Json = json.loads(tokenizer_json)
    check(tokenizer, TABLES)
    added = tokenizer["added_tokens"]
    _check_overlaps(added)
    context = Context(tokenizer, 1 + len(added))

    def compiled(section: str) -> list[Any]:
        found = ((TABLES[section][part["type"]], part) for part in parts(section, tokenizer))
        return [stage for component, part in found for stage in component.compile(part, context)]

    def finder(normalized: bool) -> AddedTokens | None:
        tokens = {n: token["content"] for n, token in enumerate(added) if token["normalized"] is normalized}
        if normalized and tokens and tokenizer["normalizer"] is not None:
            function = real("normalizer", tokenizer["normalizer"]).normalize_str
            tokens = {n: function(text) for n, text in tokens.items()}
        tokens = {n: text for n, text in tokens.items() if text}
        return AddedTokens.of(tokens, added) if tokens else None

    before: list[tuple[int, int]] = []
    after: list[tuple[int, int]] = []
    type_id = 0
    if settings.add_special_tokens:
        for processor in parts("post_processor", tokenizer):
            frame = POST_PROCESSORS[processor["type"]].compile(processor, context)
            if frame is not None:
                if before or after:
                    raise UnsupportedOptionError(
                        "Text input is not possible with two post-processors that add tokens.\nLeave --text-input out."
                    )
                before, type_id, after = frame
    framing = Framing(tuple(before), tuple(after), type_id, settings)
    model = MODELS[tokenizer["model"]["type"]].compile(tokenizer["model"], context)
    return TextTokenizer(finder(False), compiled("normalizer"), finder(True), compiled("pre_tokenizer"), model, framing)
