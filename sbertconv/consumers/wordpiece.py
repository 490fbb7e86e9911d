"""A tokenizer of which a consumer takes the vocabulary alone, and does the rest as BERT does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbertconv.artifact.tokenizer_file import rust_errors
from sbertconv.consumers.reading import file_tokenizer, from_json
from sbertconv.corpus.texts import CORPUS, sentences
from sbertconv.errors import ArtifactError, UnsupportedOptionError

SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]")
NEVER_SPLIT = (*SPECIAL, "[MASK]")  # typed in a text too


@dataclass(frozen=True)
class BertVocabulary:
    """The tokens in the order of their numbers, and whether texts are lowered and lose their accents."""

    tokens: tuple[str, ...]
    lower: bool

    def tokenizer(self, limit: int | None) -> Any:
        """BERT's rules over the vocabulary."""
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

        numbers = {token: number for number, token in enumerate(self.tokens)}
        found = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
        found.normalizer = normalizers.BertNormalizer(lowercase=self.lower)
        found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        found.post_processor = processors.BertProcessing(("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"]))
        found.decoder = decoders.WordPiece()
        found.add_special_tokens([token for token in NEVER_SPLIT if token in numbers])
        if limit is not None:
            found.enable_truncation(limit)
        return found


def bert_vocabulary(folder: Path, consumer: str) -> BertVocabulary:
    """The vocabulary of a folder whose tokenizer is BERT's and nothing else.

    Raises:
        UnsupportedOptionError: if it is another one, with the text that it splits otherwise.
    """
    content = from_json(folder / "tokenizer.json")
    numbers = content["model"].get("vocab")
    if content["model"]["type"] != "WordPiece" or not isinstance(numbers, dict) or set(SPECIAL) - set(numbers):
        raise UnsupportedOptionError(
            f"{folder}: {consumer} has a tokenizer of its own, BERT's WordPiece, and this model's is "
            f"{content['model']['type']}.\nLeave the consumer out."
        )
    full = {**numbers, **{token["content"]: token["id"] for token in content["added_tokens"]}}
    tokens = tuple(token for token, _ in sorted(full.items(), key=lambda item: item[1]))
    found = BertVocabulary(tokens, bool((content.get("normalizer") or {}).get("lowercase")))
    own, theirs = file_tokenizer(folder), found.tokenizer(None)
    own.no_padding()
    own.no_truncation()
    with rust_errors(folder, ArtifactError):
        for text in (*CORPUS, *sentences()):
            if own.encode(text).ids != theirs.encode(text).ids:
                raise UnsupportedOptionError(
                    f"{folder}: {consumer} splits texts by BERT's own rules, and this model otherwise: {text[:60]!r}.\n"
                    "Leave the consumer out."
                )
    return found
