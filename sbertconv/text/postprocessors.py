"""Post-processors: the special tokens before and after one text."""

from __future__ import annotations

from sbertconv.text.components import ANY, Component, Context, Json

Tokens = list[tuple[int, int]]
Frame = tuple[Tokens, int, Tokens]


def template(component: Json, context: Context) -> Frame:
    """TemplateProcessing's template for a single text: [CLS] $A [SEP]."""
    ids = {name: special["ids"] for name, special in component["special_tokens"].items()}
    before: Tokens = []
    after: Tokens = []
    type_id, side = 0, before
    for part in component["single"]:
        ((kind, piece),) = part.items()
        if kind == "Sequence":
            type_id, side = piece["type_id"], after
        else:
            side += [(number, piece["type_id"]) for number in ids[piece["id"]]]
    return before, type_id, after


def bert(component: Json, context: Context) -> Frame:
    """BertProcessing: cls, text, sep."""
    return [(component["cls"][1], 0)], 0, [(component["sep"][1], 0)]


def nothing(component: Json, context: Context) -> None:
    """A post-processor that mends offsets alone."""


POST_PROCESSORS = {
    "TemplateProcessing": Component(template, {"single": ANY, "pair": ANY, "special_tokens": ANY}),
    "BertProcessing": Component(bert, {"cls": ANY, "sep": ANY}),
    "RobertaProcessing": Component(bert, {"cls": ANY, "sep": ANY, "trim_offsets": ANY, "add_prefix_space": ANY}),
    "ByteLevel": Component(nothing, {"add_prefix_space": ANY, "trim_offsets": ANY, "use_regex": ANY}),
}
