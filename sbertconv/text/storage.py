"""Tables as bytes and back, for what must be loaded where the tokenizer is not."""

from __future__ import annotations

import io
import json
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from sbertconv.artifact.json_reading import parse_json
from sbertconv.artifact.text_input import TokenizerSettings
from sbertconv.text.added import AddedTokens
from sbertconv.text.bpe import BPE, WholeWords
from sbertconv.text.bytes import ByteLevel, SpacePrefix
from sbertconv.text.characters import CharacterMap, Composition, Reordering
from sbertconv.text.charsmap import Charsmap
from sbertconv.text.framing import Framing
from sbertconv.text.normalizers import Prefix, SpaceRuns, Stripping
from sbertconv.text.pretokenizers import AfterSpace, Metaspace, Splitting
from sbertconv.text.tables import PageTable, SparseTable, Trie
from sbertconv.text.tokenizer import GraphTokenizer
from sbertconv.text.unigram import Unigram
from sbertconv.text.wordpiece import WordPiece
from sbertconv.text.words import Family, WordExpression

CLASSES = (AddedTokens, AfterSpace, BPE, ByteLevel, CharacterMap, Charsmap, Composition, Family, Framing, Metaspace,
           PageTable, Prefix, Reordering, TokenizerSettings, SpacePrefix, SpaceRuns, SparseTable, Splitting, Stripping,
           GraphTokenizer, Trie, Unigram, WholeWords, WordExpression, WordPiece)  # fmt: skip
# Class -> its name in a file, where that is another one
NAMES: dict[type, str] = {GraphTokenizer: "TextTokenizer", TokenizerSettings: "Settings"}
STORED = {NAMES.get(cls, cls.__name__): cls for cls in CLASSES}
CLASS, ARRAY = "class", "array"


def dumps(tables: GraphTokenizer) -> bytes:
    """A numpy .npz archive: the arrays by number, and how they hang together as JSON in `tree`."""
    arrays: list[np.ndarray] = []

    def plain(value: Any) -> Any:
        if is_dataclass(value):
            kept = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
            return {CLASS: NAMES.get(type(value), type(value).__name__), **kept}
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return {ARRAY: len(arrays) - 1}
        return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value

    tree = json.dumps(plain(tables))
    buffer = io.BytesIO()
    named = {str(number): array for number, array in enumerate(arrays)}
    np.savez_compressed(buffer, tree=np.frombuffer(tree.encode(), np.uint8), **named)  # type: ignore[arg-type]
    return buffer.getvalue()


def loads(content: bytes) -> GraphTokenizer:
    """What `dumps` wrote."""
    with np.load(io.BytesIO(content)) as archive:

        def whole(value: Any) -> Any:
            if isinstance(value, list):
                return tuple(whole(part) for part in value)
            if isinstance(value, dict) and ARRAY in value:
                return archive[str(value[ARRAY])]
            if isinstance(value, dict):
                return STORED[value[CLASS]](**{name: whole(part) for name, part in value.items() if name != CLASS})
            return value

        found: GraphTokenizer = whole(parse_json(archive["tree"].tobytes(), "the tokenizer's tables"))
        return found
