"""Post-processors: the special tokens around one text, or around two."""

from __future__ import annotations

from sbertconv.text.components import ANY, Component, Json, TokenizerContext
from sbertconv.text.framing import SPECIAL, Piece

PLAIN: tuple[Piece, ...] = ((0, 0, 0), (1, 0, 1))  # without any post-processor


def template(component: Json, context: TokenizerContext) -> list[Piece]:
    """TemplateProcessing's template for a single text, [CLS] $A [SEP], or for a pair."""
    ids = {name: special["ids"] for name, special in component["special_tokens"].items()}
    pieces: list[Piece] = []
    for part in component["pair" if context.pair else "single"]:
        ((kind, piece),) = part.items()
        if kind == "Sequence":
            pieces.append((("A", "B").index(piece["id"]), 0, piece["type_id"]))
        else:
            pieces += [(SPECIAL, number, piece["type_id"]) for number in ids[piece["id"]]]
    return pieces


def bert(component: Json, context: TokenizerContext) -> list[Piece]:
    """BertProcessing: cls, text, sep; and text, sep of the other type."""
    cls, sep = component["cls"][1], component["sep"][1]
    pieces = [(SPECIAL, cls, 0), (0, 0, 0), (SPECIAL, sep, 0), (1, 0, 1), (SPECIAL, sep, 1)]
    return pieces if context.pair else pieces[:3]


def roberta(component: Json, context: TokenizerContext) -> list[Piece]:
    """RobertaProcessing: cls, text, sep; and sep, text, sep; all of one type."""
    cls, sep = component["cls"][1], component["sep"][1]
    pieces = [(SPECIAL, cls, 0), (0, 0, 0), (SPECIAL, sep, 0), (SPECIAL, sep, 0), (1, 0, 0), (SPECIAL, sep, 0)]
    return pieces if context.pair else pieces[:3]


def nothing(component: Json, context: TokenizerContext) -> None:
    """A post-processor that mends offsets alone."""


POST_PROCESSORS = {
    "TemplateProcessing": Component(template, {"single": ANY, "pair": ANY, "special_tokens": ANY}),
    "BertProcessing": Component(bert, {"cls": ANY, "sep": ANY}),
    "RobertaProcessing": Component(roberta, {"cls": ANY, "sep": ANY, "trim_offsets": ANY, "add_prefix_space": ANY}),
    "ByteLevel": Component(nothing, {"add_prefix_space": ANY, "trim_offsets": ANY, "use_regex": ANY}),
}
