"""A built graph against the tokenizer it was made from: the shipped corpus, and many made-up texts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.artifact.json_reading import parse_json
from sbertconv.artifact.text_input import UNLIMITED, Text, TokenizerSettings
from sbertconv.artifact.tokenizer_file import read_tokenizer, rust_errors
from sbertconv.corpus.texts import CORPUS, long_text, sentences
from sbertconv.errors import TokenizationError
from sbertconv.text.components import Json, parts, real
from sbertconv.text.numpy_emitter import NumpyEmitter
from sbertconv.text.operations import END

if TYPE_CHECKING:
    from sbertconv.text.tokenizer import GraphTokenizer

Tensors = Mapping[str, np.ndarray]
Batch = Sequence[Text]
Tokenize = Callable[[Batch, int | None], Tensors]
FUZZ = 20_000
BATCH = 64
LONGEST = 24  # pieces of a made-up text
# Where tokenizers differ from each other: marks of many classes, joiners, controls, spaces, jamo, wide and small
# letters, letters that change length in lower case, astral marks, private and unassigned characters.
HOSTILE = (
    (0x00, 0x80), (0x80, 0x250), (0x2B0, 0x370), (0x370, 0x400), (0x483, 0x590), (0x591, 0x6FF), (0x900, 0x0A00),
    (0x0E00, 0x0F00), (0x0F71, 0x0F85), (0x1100, 0x1200), (0x1AB0, 0x1B00), (0x1DC0, 0x2100), (0x1E00, 0x1F00),
    (0x2000, 0x2070), (0x20D0, 0x2100), (0x2150, 0x2190), (0x3000, 0x3100), (0x302A, 0x3030), (0x3300, 0x3400),
    (0x4E00, 0x4E80), (0xAC00, 0xAC80), (0xA8E0, 0xA900), (0xE000, 0xE010), (0xF900, 0xFB50), (0xFDF0, 0xFE30),
    (0xFE00, 0xFE10), (0xFF00, 0x10000), (0x10A00, 0x10A60), (0x1D150, 0x1D190), (0x1D242, 0x1D250),
    (0x1F1E6, 0x1F200), (0x1F3FB, 0x1F400), (0x1F400, 0x1F680), (0x20000, 0x20010), (0x2F800, 0x2FA20),
    (0xE0000, 0xE0100), (0x10FFF0, 0x110000),
)  # fmt: skip
STRESSED = ("\u0307", "\u0323", "\u0327", "\u0345", "\u0334", "\u302a", "\u3099", "\u05b0", "\U0001d16d", "\U0001d165",
            "\u034f", "\u200d", "\ufe0f", "\u00ad", "\u200b", "\ufeff")  # fmt: skip
SPACES = (" ", "  ", "    ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085", "\u2581", "\n\n ")
ENGLISH = (
    "'s",
    "'T",
    "'ll",
    "n't",
    "don't",
    "I'VE",
    "3.14",
    "1,000",
    "12345678",
    "x²",
    "½",
    "--",
    "...",
    "!?",
    "@",
    "#a",
)


@dataclass(frozen=True)
class Proof:
    """What was compared: all tokens of all texts were the same.

    Attributes:
        corpus, fuzz: how many texts, or pairs, of the corpus and made up.
        tokens: how many tokens they have.
        seed: of the made-up texts.
        seconds: how long it took.
    """

    corpus: int
    fuzz: int
    tokens: int
    seed: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


@rust_errors("tokenizer.json", TokenizationError)
def prove(
    run: Tokenize,
    tokenizer_json: str,
    settings: TokenizerSettings,
    tables: GraphTokenizer,
    *,
    fuzz: int | None = None,
    seed: int = 0,
) -> Proof:
    """Compare every tensor of every text.

    Args:
        run: a batch of texts, or of pairs, and their limit -> the tensors of the settings, int64 [batch, sequence].
        tokenizer_json: the tokenizer that the tables were made from.
        settings: as they were compiled with.
        tables: to tell the component at fault.
        fuzz: how many texts to make up; default `FUZZ`.
        seed: of them.

    Raises:
        TokenizationError: with the first text that differs, both token sequences and the component at fault.
    """
    begin = time.perf_counter()
    fuzz = FUZZ if fuzz is None else fuzz
    limits = settings.limits or (settings.max_length,)
    tokenizers = {limit: reference(tokenizer_json, replace(settings, max_length=limit)) for limit in limits}
    corpus: list[Text] = [*CORPUS, *(long_text(limit) for limit in limits if limit != UNLIMITED), *sentences()]
    singles = texts(parse_json(tokenizer_json, "tokenizer.json"), seed)
    made_up: Iterator[Text] = zip(singles, singles, strict=False) if settings.pair else singles
    if settings.pair:
        corpus = _paired(corpus, long_text(settings.max_length))
    tokens = 0
    run([], limits[0])  # an empty batch must not fail
    for batch, limit in zip(_batches([*corpus, *islice(made_up, fuzz)]), cycle(limits), strict=False):
        ours, theirs = run(batch, limit), expected(tokenizers[limit], batch, settings)
        tokens += int((theirs["attention_mask"] > 0).sum())
        for row, text in enumerate(batch):
            if problem := _difference(ours, theirs, row, settings):
                raise TokenizationError(
                    _report(text, problem, tokenizers[limit], ours, theirs, row, settings, tables, limit)
                )
    return Proof(len(corpus), fuzz, tokens, seed, round(time.perf_counter() - begin, 1))


def reference(tokenizer_json: str, settings: TokenizerSettings) -> Any:
    """The library's tokenizer with these settings."""
    tokenizer = read_tokenizer(tokenizer_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if settings.max_length is not None and settings.max_length < UNLIMITED:
        tokenizer.enable_truncation(settings.max_length, direction=settings.truncation_side)
    return tokenizer


def expected(tokenizer: Any, batch: Batch, settings: TokenizerSettings) -> dict[str, np.ndarray]:
    """The tensors that the library gives for a batch; the mask always."""
    encode = tokenizer.encode_batch if settings.pair else tokenizer.encode_batch_fast  # which forgets types of pairs
    encodings = encode(list(batch), add_special_tokens=settings.add_special_tokens)
    width = max([1, *(len(encoding.ids) for encoding in encodings)])
    found = {
        "input_ids": np.full((len(batch), width), settings.pad_id, np.int64),
        "token_type_ids": np.full((len(batch), width), settings.pad_type_id, np.int64),
        "attention_mask": np.zeros((len(batch), width), np.int64),
    }
    for row, encoding in enumerate(encodings):
        count = len(encoding.ids)
        where = slice(0, count) if settings.padding_side == "right" else slice(width - count, width)
        found["input_ids"][row, where] = encoding.ids
        found["token_type_ids"][row, where] = encoding.type_ids
        found["attention_mask"][row, where] = 1
    return found


def texts(tokenizer: Json, seed: int) -> Iterator[str]:
    """Texts without end, made for this tokenizer: of its tokens, its characters, its special tokens whole and in
    parts, and of whatever is difficult anywhere.
    """
    draw = random.Random(seed)
    vocabulary = tokenizer["model"]["vocab"]
    tokens = sorted(token for token, *_ in (vocabulary if isinstance(vocabulary, list) else zip(vocabulary)))
    letters = sorted(set().union(*tokens))
    added = [token["content"] for token in tokenizer["added_tokens"]] or ["<s>"]
    words = [word for text in CORPUS for word in text.split(" ")]

    def hostile() -> str:
        low, high = draw.choice(HOSTILE)
        return chr(draw.randrange(low, high))

    def anything() -> str:
        code = draw.randrange(0x110000 - 0x800)
        return chr(code if code < 0xD800 else code + 0x800)

    makers: list[tuple[int, Callable[[], str]]] = [
        (6, lambda: draw.choice(tokens)),
        (3, lambda: draw.choice(tokens).removeprefix("##").replace("\u2581", " ").replace("\u0120", " ")),
        (3, lambda: draw.choice(letters)),
        (4, hostile),
        (1, anything),
        (3, lambda: draw.choice(STRESSED)),
        (4, lambda: draw.choice(SPACES)),
        (2, lambda: draw.choice(ENGLISH)),
        (1, lambda: draw.choice(added)),
        (1, lambda: draw.choice(added)[draw.randrange(2) :][: draw.randrange(1, 12)]),
        (2, lambda: draw.choice(words)),
        (1, lambda: draw.choice(letters) * draw.randrange(1, 40)),
        (1, lambda: draw.choice(words).swapcase()),
    ]
    weights, functions = zip(*makers, strict=True)
    while True:
        some = draw.choices(functions, weights, k=draw.randrange(1, LONGEST))
        joint = draw.choice(("", "", " ", "\u0301"))
        yield joint.join(function() for function in some)


def _paired(found: Sequence[Text], long: str) -> list[Text]:
    """Every text with another one, and a text over the limit on either side and on both."""
    short = found[0]
    pairs = [*zip(found, (*found[1:], short), strict=True), (long, short), (short, long), (long, long), (long, "")]
    return [(str(one), str(two)) for one, two in pairs]


def _batches(found: Batch) -> Iterator[Batch]:
    for start in range(0, len(found), BATCH):
        yield found[start : start + BATCH]


def _difference(ours: Tensors, theirs: Tensors, row: int, settings: TokenizerSettings) -> str | None:
    """The first tensor whose row is not the same."""
    for name in settings.tensors:
        a, b = ours[name], theirs[name]
        if a.shape != b.shape or (a[row] != b[row]).any():
            if a.shape != b.shape and _content(ours, row, name) == _content(theirs, row, name):
                continue  # another text of the batch is the longest
            return name
    return None


def _content(tensors: Tensors, row: int, name: str = "input_ids") -> list[int]:
    values = tensors[name][row]
    found: list[int] = values[tensors["attention_mask"][row] > 0].tolist() if "attention_mask" in tensors else values
    return found


def _report(
    text: Text,
    tensor: str,
    tokenizer: Any,
    ours: Tensors,
    theirs: Tensors,
    row: int,
    settings: TokenizerSettings,
    tables: GraphTokenizer,
    limit: int | None,
) -> str:
    def shown(tensors: Tensors) -> str:
        return " ".join(str(tokenizer.id_to_token(number)) for number in _content(tensors, row))

    return (
        f"The tokenizer inside the graph differs in {tensor} on text {text!r}.\n"
        f"  the graph: {shown(ours)}\n"
        f"  the tokenizer: {shown(theirs)}\n"
        f"  at fault: {at_fault(text, tables, tokenizer, settings, limit)}\n"
        "Nothing was written. Leave text_input=True out, and report the text."
    )


def at_fault(text: Text, tables: GraphTokenizer, tokenizer: Any, settings: TokenizerSettings, limit: int | None) -> str:
    """The first component whose own result differs, as far as that can be told."""
    steps: dict[str, Any] = {}
    found = tables(NumpyEmitter(), settings.feeds([text], limit), steps)
    theirs = expected(tokenizer, [text], settings)
    if all(np.array_equal(found[name].value, theirs[name]) for name in settings.tensors):
        return "not the tables, but how they are written in this graph's operations"
    described = parse_json(tokenizer.to_str(), "tokenizer.json")
    texts = (text,) if isinstance(text, str) else text
    if any(token["content"] in part for token in described["added_tokens"] for part in texts):
        return "the added tokens or what follows them"

    def component(section: str) -> Any:
        found = parts(section, described)
        return real(section, *found) if found else None

    def words(normalized: np.ndarray, codes: np.ndarray, starts: np.ndarray) -> bool:
        """Whether one text's words are those of the library's pre-tokenizer."""
        marked = "".join(f"\x00{chr(c)}" if s else chr(c) for c, s in zip(codes, starts, strict=True))
        whole = "".join(map(chr, normalized))
        split = component("pre_tokenizer")
        theirs = [whole] if split is None else [word for word, _ in split.pre_tokenize_str(whole)]
        return "\x00" in whole or theirs == marked.split("\x00")[1:]

    normalizer = component("normalizer")
    codes, starts = (x.value for x in steps["pre_tokenizer"])
    normalized = _texts(steps["normalizer"].value)
    for part, own in zip(texts, normalized, strict=True):
        if [ord(c) for c in (part if normalizer is None else normalizer.normalize_str(part))] != own.tolist():
            return "the normalizer"
    if not all(map(words, normalized, _texts(codes), _texts(codes, starts))):
        return "the pre-tokenizer"
    return "the model or the post-processor"


def _texts(codes: np.ndarray, values: np.ndarray | None = None) -> list[np.ndarray]:
    """The code points of each text, or what else there is for each character."""
    ends = np.flatnonzero(codes == END)
    return [(codes if values is None else values)[a + 1 : b] for a, b in pairwise(ends)]
