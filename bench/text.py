"""The tokenizer inside the graph beside the tokenizers library, and the whole model from strings beside from tokens.

The library is asked directly (`encode_batch_fast`), which is faster than a transformers tokenizer around it. Both sides
have one thread.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import string
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bench.harness import Row, hold_to, run, worker
from sbertconv.benchmark.measuring import alternate, mixed_texts

BATCH = 32
LIMIT = 256  # tokens
TRAINED = 8_000  # tokens of the tokenizers that are trained on the shipped sentences
LARGE = 250_000  # tokens, as XLM-RoBERTa has
LONG = 100_000  # characters without a space
QUICK = 5.0  # seconds that such a text may take: with the square of its length it takes minutes
WHOLE_TEXTS = 160
SCRIPTS = ((0x61, 26), (0x430, 32), (0x5D0, 27), (0x627, 36), (0x905, 53), (0xE01, 46), (0xAC00, 800), (0x4E00, 3000))
SPEEDS = {"WordPiece": ">= 0.50", "Unigram": ">= 0.30", "BPE": ">= 0.30"}
MEGABYTES = {"WordPiece": "<= 4", "large": "<= 15"}


def sections(model: str, folder: Path, rounds: int) -> list[Iterator[Row]]:
    """What is measured, in order."""
    return [tokenizers(model, rounds), long_text(model), whole(model, folder, rounds)]


def tokenizers(model: str, rounds: int) -> Iterator[Row]:
    """Texts per second of the graph and of the library; how large the graph is, and how long its tables take."""
    section = f"Tokens of the shipped sentences, batches of {BATCH}, beside the tokenizers library"
    for name in KINDS:
        found = json.loads(run(worker("tokenizer", name, model, rounds)).stdout)
        kind = name.split(",")[0]
        yield Row(section, name, "texts/s", found["ours"], found["theirs"], SPEEDS[kind])
        size = MEGABYTES["large"] if "250,000" in name else MEGABYTES.get(kind, "")
        yield Row(section, f"{name}: size", "MB", [found["bytes"] / 1e6], [], size)
        yield Row(section, f"{name}: tables and graph", "s", [found["seconds"]], [], "<= 60")


def long_text(model: str) -> Iterator[Row]:
    """One text of many letters and no space."""
    section = f"One text of {LONG:,} letters without a space"
    for name in KINDS:
        found = json.loads(run(worker("long", name, model)).stdout)
        yield Row(section, name, "s", [found["ours"]], [], f"<= {QUICK}")


def whole(model: str, folder: Path, rounds: int) -> Iterator[Row]:
    """The model from strings, beside the same graph from the tokens of a Python tokenizer."""
    import sbertconv

    folders = [folder / "texts", folder / "tokens"]
    for place, text_input in zip(folders, (True, False), strict=True):
        sbertconv.to_onnx(model, place, text_input=text_input)
    found = json.loads(run(worker("whole", *folders, rounds)).stdout)
    section = f"The whole model, {WHOLE_TEXTS} texts of mixed lengths in batches of {BATCH}"
    yield Row(section, "strings to vectors, beside tokenizer and graph", "s", found["ours"], found["theirs"], "<= 1.05")


def own(model: str) -> str:
    """The model's own tokenizer."""
    from sentence_transformers import SentenceTransformer

    return str(SentenceTransformer(model, device="cpu").tokenizer.backend_tokenizer.to_str())


def trained(model: Any, pre_tokenizer: Any, trainer: Any) -> Any:
    """A tokenizer trained on the shipped sentences."""
    from tokenizers import Tokenizer

    from sbertconv.corpus.texts import sentences

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(sentences(), trainer)
    return tokenizer


def unigram(_: str) -> str:
    """As XLM-RoBERTa has it, without its map of characters."""
    from tokenizers import models, pre_tokenizers, trainers

    trainer = trainers.UnigramTrainer(
        vocab_size=TRAINED, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return str(trained(models.Unigram(), split, trainer).to_str())


def large_unigram(model: str) -> str:
    """The same with made-up words of several scripts beside the trained ones; of syllables, so that they begin alike as
    words do.
    """
    found = json.loads(unigram(model))
    draw, vocabulary = random.Random(0), found["model"]["vocab"]
    syllables = [
        ["".join(draw.choices([chr(first + n) for n in range(count)], k=draw.choice((1, 2, 2, 3)))) for _ in range(200)]
        for first, count in SCRIPTS
    ]
    words = dict.fromkeys(token for token, _ in vocabulary)
    while len(words) < LARGE:
        parts = draw.choices(draw.choice(syllables), k=draw.choice((1, 2, 2, 3, 3, 4)))
        words["▁" * draw.randrange(2) + "".join(parts)[:15]] = None
    made = list(words)[len(vocabulary) :]
    found["model"]["vocab"] = [*vocabulary, *([word, draw.uniform(-16, -10)] for word in made)]
    return json.dumps(found)


def bpe(expression: str | None) -> Callable[[str], str]:
    """Byte-level, by one of the known expressions; None: as Llama has it, with a text as one word."""

    def make(_: str) -> str:
        from tokenizers import Regex, models, pre_tokenizers, trainers

        options: dict[str, Any] = {"vocab_size": TRAINED, "show_progress": False}
        if expression is None:
            special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
            found = trained(
                models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True),
                pre_tokenizers.Metaspace(prepend_scheme="first"),
                trainers.BpeTrainer(special_tokens=special, **options),
            )
            plain = json.loads(found.to_str())
            plain["pre_tokenizer"]["split"] = False
            plain["added_tokens"] = plain["added_tokens"][:1]
            return json.dumps(plain)
        split = [pre_tokenizers.Split(Regex(expression), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **options)
        return str(trained(models.BPE(), pre_tokenizers.Sequence(split), trainer).to_str())

    return make


def expressions() -> list[str]:
    from sbertconv.text.words import EXPRESSIONS

    return list(EXPRESSIONS)


KINDS: Mapping[str, Callable[[str], str]] = {
    "WordPiece, the model's own": own,
    f"Unigram, {TRAINED:,} tokens": unigram,
    f"Unigram, {LARGE:,} tokens": large_unigram,
    f"BPE, GPT-2's expression, {TRAINED:,} tokens": lambda model: bpe(expressions()[0])(model),
    f"BPE, Qwen's expression, {TRAINED:,} tokens": lambda model: bpe(expressions()[1])(model),
    f"BPE, a text is one word, {TRAINED:,} tokens": bpe(None),
}


@cache
def session_of(content: bytes) -> Any:
    """A graph on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def built(name: str, model: str, limit: int | None) -> tuple[Callable[[list[str]], Any], Any, dict[str, Any]]:
    """(what runs the graph, the library's tokenizer, what to say of the graph)."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    hold_to(1)
    from sbertconv.text import TokenizerSettings, compile_tokenizer
    from sbertconv.text.onnx_graph import tokenizer_graph
    from sbertconv.text.proof import reference

    content, settings = KINDS[name](model), TokenizerSettings(max_length=limit)
    begin = time.perf_counter()
    graph = tokenizer_graph(compile_tokenizer(content, settings)).SerializeToString()
    about = {"seconds": time.perf_counter() - begin, "bytes": len(graph)}
    session = session_of(graph)
    return lambda texts: session.run(None, settings.feeds(texts)), reference(content, settings), about


def measure_tokenizer(name: str, model: str, rounds: str) -> dict[str, Any]:
    """Texts per second of CPU time on both sides, in turn. Every round has new texts of the same words, because the
    library remembers what it made of a word.
    """
    from sbertconv.corpus.texts import sentences

    graph, tokenizer, about = built(name, model, LIMIT)
    texts = sentences()

    def timed(tokenize: Callable[[list[str]], Any]) -> Callable[[], float]:
        draws = itertools.count()

        def once() -> float:
            words = [word for text in texts for word in text.split()]
            random.Random(next(draws)).shuffle(words)
            left = iter(words)
            shuffled = [" ".join(itertools.islice(left, len(text.split()))) for text in texts]
            batches = [shuffled[start : start + BATCH] for start in range(0, len(texts), BATCH)]
            begin = time.process_time()
            for batch in batches:
                tokenize(batch)
            return len(texts) / (time.process_time() - begin)

        return once

    def library(batch: list[str]) -> Any:
        import numpy as np

        found = tokenizer.encode_batch_fast(batch)
        width = max(len(encoding.ids) for encoding in found)
        ids, mask = np.zeros((len(found), width), np.int64), np.zeros((len(found), width), np.int64)
        for row, encoding in enumerate(found):
            ids[row, : len(encoding.ids)], mask[row, : len(encoding.ids)] = encoding.ids, 1
        return ids, mask

    pairs = list(alternate(int(rounds) + 2, timed(graph), timed(library)))[1:]
    return {"ours": [a for a, _ in pairs], "theirs": [b for _, b in pairs], **about}


def measure_long(name: str, model: str) -> dict[str, Any]:
    """Seconds for the long text."""
    graph, _, about = built(name, model, None)
    text = "".join(random.Random(0).choices(string.ascii_lowercase, k=LONG))
    begin = time.process_time()
    graph([text])
    return {"ours": time.process_time() - begin, **about}


def measure_whole(texts_folder: str, tokens_folder: str, rounds: str) -> dict[str, Any]:
    """Seconds of CPU time from strings to vectors, in turn."""
    import numpy as np

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    hold_to(1)
    from tokenizers import Tokenizer

    texts = mixed_texts(WHOLE_TEXTS)
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    ours, theirs = (session_of((Path(f) / "onnx/model.onnx").read_bytes()) for f in (texts_folder, tokens_folder))
    tokenizer = Tokenizer.from_file(str(Path(tokens_folder) / "tokenizer.json"))
    names = [value.name for value in theirs.get_inputs()]
    fields = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}

    def from_strings(batch: list[str]) -> Any:
        return ours.run(None, {"text": np.array(batch, object)})

    def from_tokens(batch: list[str]) -> Any:
        found = tokenizer.encode_batch(batch)
        return theirs.run(None, {n: np.array([getattr(e, fields[n]) for e in found], np.int64) for n in names})

    def timed(embed: Callable[[list[str]], Any]) -> Callable[[], float]:
        def once() -> float:
            begin = time.process_time()
            for batch in batches:
                embed(batch)
            return time.process_time() - begin

        return once

    pairs = list(alternate(int(rounds) + 1, timed(from_strings), timed(from_tokens)))[1:]
    return {"ours": [a for a, _ in pairs], "theirs": [b for _, b in pairs]}


WORKERS = {"tokenizer": measure_tokenizer, "long": measure_long, "whole": measure_whole}
