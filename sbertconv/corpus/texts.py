"""The texts and images that every conversion is checked on, chosen to be difficult."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from itertools import cycle, islice
from typing import Any

import numpy as np

from sbertconv.artifact.manifest import GraphSection, not_null, rate_of, shortest_sound

BATCH_SIZE = 32


CORPUS = (
    "word",
    "",
    "   \t\n ",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "How many people live in New York and in Berlin? About 3,850,809, said the city on 2024-06-30.",
    "UPPER and lower and Ünïcödé ça où naïve Straße",
    "機械学習モデルは文章をベクトルに変換します。",
    "机器学习把文本变成向量，句子越相似，向量越接近。",
    "기계 학습 모델은 문장을 벡터로 바꿉니다",
    "مرحبا بالعالم، كيف حالك اليوم؟",
    "สวัสดีชาวโลก วันนี้อากาศดีมาก",
    "नमस्ते दुनिया, आज मौसम अच्छा है।",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flag 👍🏽 thumb é e\u0301 ﬁ",
    "control\x00\x01\x1f\x7f\u200b\u200d\ufeff characters",
    "[CLS] typed [SEP] by [MASK] a </s> user <s> <pad> [PAD] <unk> <|endoftext|>",
    "https://example.org/?q=a%20b&x=1#top user@example.org C:\\path\\file.txt",
    "def f(x):\n    return {'a': x ** 2, \"b\": [1, 2.5e-3]}  # code",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Sentence embeddings map a text to a vector, so that similar texts get similar vectors, and search, clustering "
    "and paraphrase mining become questions of distance in that space rather than of words that happen to match.",
)  # fmt: skip
LONG_WORDS = ("over", "the", "limit", "of", "every", "model", "go", "these", "words", "Berlin", "3.5", "naïve")


@cache
def sentences() -> tuple[str, ...]:
    """1,200 sentences of Python's manual and docstrings (see README.md), for what needs many texts."""
    return tuple(files("sbertconv").joinpath("corpus/sentences.txt").read_text(encoding="utf-8").splitlines())


SECONDS = (0.05, 0.3, 0.71, 1.3, 2.9)  # of sounds
MOST_FRAMES = 1000  # of a sound that is made up: what attention takes grows with the square of their number
MOST_WORDS = 1 << 18  # of a text that is made up; no longer one is cut to see where


def long_text(limit: int | None) -> str:
    """A text with more tokens than the limit, or than 512 where there is none; at most 262,144 words."""
    return " ".join(islice(cycle(LONG_WORDS), min((limit or 512) + 8, MOST_WORDS)))


def random_images() -> list[np.ndarray]:
    """Images of several shapes and colours, uint8 [height, width, 3]."""
    random = np.random.default_rng(0)
    shapes = ((64, 64), (48, 80), (90, 30), (33, 47))
    noisy = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    return [*noisy, np.full((40, 40, 3), 255, np.uint8), np.zeros((50, 20, 3), np.uint8)]


def images_to_convert() -> list[Any]:
    """Pillow images of modes that become RGB: transparent ones, of a palette, in grey, of four inks."""
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 4), dtype=np.uint8), "RGBA")
    palette = image.convert("RGB").convert("P")
    palette.info["transparency"] = 7
    return [image, image.convert("LA"), palette, *(image.convert("RGB").convert(mode) for mode in ("L", "1", "CMYK"))]


def random_sounds(rate: int, longest: int) -> list[np.ndarray]:
    """Noise with a tone, of several lengths up to so many samples, float32 [n]. Of a tone alone the float32 arithmetic
    of the library would not be its own answer again: its logarithm enlarges the rounding of what is nearly silent.
    """
    random = np.random.default_rng(2)
    lengths = dict.fromkeys(max(min(int(part * rate), longest), 1) for part in SECONDS)
    found = [(0.1 * random.normal(size=size) + 0.1 * np.sin(np.arange(size) / 9)) for size in (*lengths, longest)]
    return [sound.astype(np.float32) for sound in found]


def sound_lengths(section: GraphSection) -> list[int]:
    """The lengths in samples at which sounds of any length are asked: the fewest, those at which a trace could end,
    some that sounds have, and the most, ascending.
    """
    least = not_null(shortest_sound(section))
    most = min(section.get("longest", MOST_FRAMES * least), MOST_FRAMES * least)
    found = {least, least + 1, most, *section.get("guarded", ())}
    found |= {least + int(part * rate_of(section)) for part in SECONDS}
    return sorted(length for length in found if length <= most)


def sounds_of(section: GraphSection, length: int, count: int) -> list[dict[str, Any]]:
    """So many sounds of one length, as a library takes them."""
    rate = rate_of(section)
    random = np.random.default_rng(length)
    tone = 0.1 * np.sin(np.arange(length) / 9)
    found = [(0.1 * random.normal(size=length) + tone).astype(np.float32) for _ in range(count)]
    return [{"array": array, "sampling_rate": rate} for array in found]


def inputs_of(section: GraphSection) -> list[Any]:
    """What a graph of images or sounds is asked: images, or sounds up to the longest and, where that is cut, beyond."""
    if section["modality"] == "image":
        return list(random_images())
    if shortest_sound(section) is not None:
        return [sound for length in sound_lengths(section) for sound in sounds_of(section, length, 1)]
    sound = section["sound"]
    rate, hop = sound["sampling_rate"], sound["hop_length"]
    longest = sound["samples"] or hop * not_null(sound["frames"]) + sound["frame_length"]
    found = random_sounds(rate, longest)
    if sound["longer"] == "cut":
        found.append(np.concatenate([found[-1], found[0]]))
    return [{"array": array, "sampling_rate": rate} for array in found]
