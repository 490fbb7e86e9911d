"""SentencePiece's precompiled map of characters: a trie of texts of one character or a few, and what becomes of them.

The library cuts a text into grapheme clusters. In one of up to five bytes, the shortest key that it begins with
decides: the whole cluster becomes what the map has for that key. Any other cluster is mapped character by character.
Format: https://github.com/s-yata/darts-clone; https://github.com/google/sentencepiece/blob/master/src/normalizer.cc.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from sbertconv.text.bytes import byte_counts
from sbertconv.text.characters import CharacterMap, alphabet, changes, numbered
from sbertconv.text.components import real
from sbertconv.text.operations import END, INT, Operations, Tensor
from sbertconv.text.tables import PageTable, Trie, every

LONGEST = 5  # bytes of a cluster that is looked up as a whole
BLOCK = 256  # units of a node's children
FAR = 1 << 21  # units that an offset reaches
LEAF, VALUE = 1 << 8, 1 << 31


def read_charsmap(encoded: str) -> dict[str, str]:
    """The keys of a map and what they become."""
    content = base64.b64decode(encoded)
    size = int.from_bytes(content[:4], "little")
    units, texts = np.frombuffer(content[4 : 4 + size], "<u4").tolist(), content[4 + size :]

    def offset(unit: int) -> int:
        shifted: int = (unit >> 10) << ((unit & 1 << 9) >> 6)
        return shifted

    found: dict[str, str] = {}
    stack = [(offset(units[0]), b"")]
    while stack:
        base, key = stack.pop()
        for label in range(1, 256):
            place = base ^ label
            if place < len(units) and units[place] & (VALUE | 0xFF) == label:
                below = place ^ offset(units[place])
                if units[place] & LEAF:
                    start = units[below] & (VALUE - 1)
                    found[(key + bytes([label])).decode()] = texts[start : texts.index(0, start)].decode()
                stack.append((below, key + bytes([label])))
    return found


def write_charsmap(mapping: Mapping[str, str]) -> str:
    """A map of these keys, none of them empty or with NUL; every node's children have a block of their own."""
    starts: dict[str, int] = {}
    texts = b""
    for text in dict.fromkeys(mapping.values()):
        starts[text] = len(texts)
        texts += text.encode() + b"\x00"
    tree: dict[int, Any] = {}
    for key, text in mapping.items():
        node = tree
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = starts[text]
    units = [0] * BLOCK
    units[0] = BLOCK << 10  # the root's children
    blocks: list[tuple[int, dict[int, Any]]] = [(BLOCK, tree)]
    units += [0] * BLOCK
    values: dict[int, int] = {}
    for base, node in blocks:
        for label, child in node.items():
            if label == 0:
                units[base] = VALUE | child
                continue
            place = base ^ label
            if child.keys() == {0}:  # a leaf: its value may be anywhere
                if child[0] not in values:
                    values[child[0]] = len(units)
                    units += [VALUE | child[0], *[0] * (BLOCK - 1)]
                below = values[child[0]]
            else:
                below = len(units)
                units += [0] * BLOCK
                blocks.append((below, child))
            distance = place ^ below
            far = distance >= FAR
            if far and distance & 0xFF:
                raise ValueError("the map is too large")
            units[place] = (
                label | (LEAF if 0 in child else 0) | ((distance >> 8) << 10 | 1 << 9 if far else distance << 10)
            )
    trie = np.array(units, "<u4").tobytes()
    return base64.b64encode(len(trie).to_bytes(4, "little") + trie + texts).decode()


SIGN, ACUTE, JOINER, HEART, KA, VIRAMA = "!", "\u0301", "\u200d", "\u00a9", "\u0915", "\u094d"
JAMO = {"L": "\u1100", "V": "\u1161", "T": "\u11a8", "LV": "\uac00", "LVT": "\uac01"}
# Hangul syllables: what may follow each kind (Unicode Standard Annex 29, rules GB6 to GB8).
SYLLABLES = {"L": ("L", "V", "LV", "LVT"), "V": ("V", "T"), "T": ("T",), "LV": ("V", "T"), "LVT": ("T",)}


def asked() -> Iterator[str]:
    """The characters that are asked about: those of the planes that have any which join others."""
    for start, end in ((1, 0xD800), (0xE000, 0x20000), (0xE0000, 0xE1000)):
        yield from map(chr, range(start, end))


@cache
def cluster_classes() -> dict[str, np.ndarray]:
    """Which code points join others in clusters: property -> a number for each, 0 for those that have it not.

    Read from how the library cuts texts: with a map that makes every character a sign, a short cluster becomes one
    sign, and the characters of a long one a sign each. Characters of which nothing shorter than a long cluster can be
    made need not be known.
    """
    normalizer = {"type": "Precompiled", "precompiled_charsmap": write_charsmap(dict.fromkeys(asked(), SIGN))}
    function = real("normalizer", normalizer).normalize_str

    def which(before: str, after: str, signs: int, longest: int = 4) -> np.ndarray:
        """The characters, of at most so many bytes, that give so many signs between these texts."""
        values = every()
        for c in asked():
            if len(c.encode()) <= longest and len(function(f"{before}{c}{after}")) == signs:
                values[ord(c)] = 1
        return values

    extending = which("a", "", 1)
    starting = which("", ACUTE, 1, 3)
    starting[0x10000:] = 1
    return {
        "extending": extending,
        "control": 1 - starting,
        "prefix": which("", "a", 1),
        "pictograph": which(f"{HEART}{JOINER}", "", 3) * (1 - extending),
        "between": which(HEART, f"{JOINER}{HEART}{ACUTE}", 5) * extending,
        "consonant": which("", f"{VIRAMA}{KA}{ACUTE}", 4),
        "linker": which(KA, f"{KA}{ACUTE}", 4) * extending,
        "conjoining": which(KA, f"{VIRAMA}{KA}{ACUTE}", 5) * extending,
        "syllable": _syllables(lambda text: len(function(f"{text}{ACUTE}")) == 3),
    }


def _syllables(joined: Callable[[str], bool]) -> np.ndarray:
    """The kind of every part of a Hangul syllable, numbered from 1 on, by what it joins on either side."""
    kinds = {
        (tuple(kind in SYLLABLES[other] for other in JAMO), tuple(other in SYLLABLES[kind] for other in JAMO)): number
        for number, kind in enumerate(JAMO, 1)
    }
    values = every()
    for start, end in ((0x1100, 0x1200), (0xA960, 0xA980), (0xAC00, 0xD800)):
        for c in map(chr, range(start, end)):
            sides = tuple(joined(x + c) for x in JAMO.values()), tuple(joined(c + x) for x in JAMO.values())
            values[ord(c)] = kinds.get(sides, 0)
    return values


@dataclass(frozen=True)
class Charsmap:
    """Replaces short clusters that begin with a key; what is left is a map of single characters.

    Attributes:
        classes: code point -> its class.
        properties: class -> each of the properties of `cluster_classes`, int32 [properties, classes].
        keys: code point -> 1 if it is a key alone.
        letters: code point -> its number in the trie.
        trie: the keys of several characters.
        final: the map; a key of several characters is a pseudo character behind all others.
        first: the first of these.
    """

    classes: PageTable
    properties: np.ndarray
    keys: PageTable
    letters: PageTable
    trie: Trie
    final: CharacterMap
    first: int

    @classmethod
    def of(cls, encoded: str, pseudo: int) -> Charsmap:
        """Of the map as a tokenizer.json has it."""
        mapping = read_charsmap(encoded)
        several = {key: text for key, text in mapping.items() if len(key) > 1}
        found = np.stack([cluster_classes()[name] for name in PROPERTIES])
        properties, classes = np.unique(found, axis=1, return_inverse=True)
        broken = np.zeros((len(found), 1), np.int64)
        broken[PROPERTIES.index("control")] = 1
        properties = np.concatenate([properties, broken], axis=1)
        keys = every()
        keys[[ord(key) for key in mapping if len(key) == 1]] = 1
        numbers = alphabet(list(several) or ["?"])
        final = CharacterMap.of(_changes(encoded), pseudo, list(several.values()))
        return cls(
            PageTable.of(classes.reshape(-1), [properties.shape[1] - 1] * pseudo),
            properties.astype(np.int32),
            PageTable.of(keys, [0] * pseudo),
            PageTable.of(numbered(numbers), [0] * pseudo),
            Trie.of((0, [numbers[c] for c in key], number) for number, key in enumerate(several)),
            final,
            END + pseudo,
        )

    def __call__(self, ops: Operations, codes: Tensor) -> Tensor:
        starts = ~self._joined(ops, codes)
        size = ops.size(codes)
        first = ops.nonzero(starts)
        behind = ops.concat([first[1:], ops.reshape(size, [1])])
        bytes_ = ops.concat([ops.constant([0]), ops.cumsum(byte_counts(ops, codes))])
        short = (behind - first > 1) & (bytes_[behind] - bytes_[first] <= LONGEST)
        first, behind = ops.compress(first, short), ops.compress(behind, short)
        # The shortest key: the first character, or else a text of the trie.
        letters = ops.scatter(ops.fill(size, 0), first, self.letters(ops, codes[first]))
        inner = ops.where(starts, 0, self.letters(ops, codes))
        begins, ends, values = self.trie.matches(
            ops, ops.where(starts, letters, inner), ops.fill(size, self.trie.root(0)), starts
        )
        own = starts[begins]
        begins, ends, values = (ops.compress(x, own) for x in (begins, ends, values))
        shortest = ops.scatter(ops.fill(size, END), begins, ends, "min")
        best = ops.nonzero(ends == shortest[begins])
        becomes = ops.scatter(ops.fill(size, -1), begins[best], values[best] + self.first)
        becomes = ops.where(self.keys(ops, codes) > 0, codes, becomes)[first]
        hit = ops.nonzero(becomes >= 0)
        one = ops.fill(ops.size(hit), 1)
        nothing = ops.fill(size + 1, 0)
        inside = ops.cumsum(ops.scatter(nothing, first[hit] + 1, one) - ops.scatter(nothing, behind[hit], one))[:-1]
        codes = ops.compress(ops.scatter(codes, first[hit], becomes[hit]), inside < 1)
        return self.final(ops, codes)

    def _joined(self, ops: Operations, codes: Tensor) -> Tensor:
        """Whether a character belongs to the cluster of the one before it.

        Source: https://www.unicode.org/reports/tr29/, rules GB3 to GB11.
        """
        classes = self.classes(ops, codes)
        here = {name: ops.constant(row)[classes] for name, row in zip(PROPERTIES, self.properties, strict=True)}
        before = {name: ops.previous(value, int(name == "control")) for name, value in here.items()}
        has = {name: value > 0 for name, value in here.items()}
        had = {name: value > 0 for name, value in before.items()}

        def base(passed: Tensor) -> Tensor:
            """The last place before this one that is none of these; the first place of all is an END."""
            others = ops.nonzero(~passed)
            number = ops.previous(ops.cumsum((~passed).number), 1)
            return others[ops.apply("max", [number - 1, ops.constant(0)], INT)]

        syllable = ops.constant(ALLOWED)[before["syllable"] * (len(JAMO) + 1) + here["syllable"]] > 0
        joiner = codes == ord(JOINER)
        pictographs = has["pictograph"] & ops.previous(joiner & has["pictograph"][base(has["between"])], False)
        # A consonant behind a consonant, with nothing between but marks that conjoin, one of them a linker.
        marks = has["linker"] | has["conjoining"]
        at = base(marks)
        linkers = ops.cumsum(here["linker"])
        conjunct = has["consonant"] & has["consonant"][at] & (ops.previous(linkers, 0) > linkers[at])
        lines = (codes == ord("\n")) & ops.previous(codes == ord("\r"), False)
        joined = has["extending"] | had["prefix"] | syllable | pictographs | conjunct
        return lines | (joined & ~has["control"] & ~had["control"])


@cache
def _changes(encoded: str) -> dict[int, str]:
    normalizer = {"type": "Precompiled", "precompiled_charsmap": encoded}
    return changes(real("normalizer", normalizer).normalize_str)


PROPERTIES = (
    "extending",
    "control",
    "prefix",
    "pictograph",
    "between",
    "consonant",
    "linker",
    "conjoining",
    "syllable",
)
ALLOWED = np.array(
    [int(a in SYLLABLES and b in SYLLABLES[a]) for a in ("", *JAMO) for b in ("", *JAMO)], np.int32
)  # of two kinds of parts of syllables, whether they join
