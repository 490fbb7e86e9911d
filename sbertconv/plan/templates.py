"""A tokenizer's chat template -> literal pieces with slots for the texts, so that the run time needs no Jinja.

sentence-transformers sends a text as a message of the role "user", a pair as messages of the roles "query" and
"document", and a prompt as a "system" message before them (`InputFormatter` of sentence_transformers.base.modality).
Rendering words that occur nowhere else tells where each of them lands; whether the template does nothing else with
them is then proven on texts made to make it show.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.scoring import TASKS
from sbertconv.corpus.texts import CORPUS
from sbertconv.errors import SourceError, UnsupportedOptionError, error_text
from sbertconv.runtime.tokenization import PROMPT, SLOTS, render
from sbertconv.source.rendering import bounded_templates, room_of_templates
from sbertconv.source.st_compat import template_declares_task

if TYPE_CHECKING:
    import torch

# What a template might look at, or change: white space at the ends, quotes, markup, its own syntax, length, emptiness.
HOSTILE = (
    " both ends \n",
    "\n",
    "'\"\\/&<>`",
    "<think>a</think>\n\nb",
    "{{ x }}{% y %}{# z #}",
    "None",
    "0",
    "x" * 5000,
)
OF_TOKENIZING = ("padding", "truncation", "max_length", "return_tensors", "restore_suffix")  # not of rendering
MOST_STRINGS = 150  # of a template's expressions: they are tried in pairs, and 150 take 10 seconds
TEXT = SLOTS[0][0]
CLOCK = "strftime_now"  # what transformers calls it in a template


def compiled_templates(module: torch.nn.Module) -> list[dict[str, Any]]:
    """What the chat template makes of a text and of a pair, each without and with a prompt.

    Returns:
        For every way that the library takes: {"slots": [name], "pieces": [a string, or {"slot": name}]}.

    Raises:
        UnsupportedOptionError: if the library does not take what the model is for, texts or pairs, or a template does
            more than to put them between pieces of its own, or is no template.
        SourceError: if it takes too much memory, or writes too much.
    """
    import jinja2

    try:
        with bounded_templates, room_of_templates(_template(module)):
            return _compiled(module)
    except (jinja2.TemplateError, SyntaxError, RecursionError) as error:  # Python's own, of blocks nested too deep
        raise UnsupportedOptionError(f"its chat template cannot be read: {error_text(error)}") from error


def _compiled(module: torch.nn.Module) -> list[dict[str, Any]]:
    """See `compiled_templates`.

    Raises:
        MemoryError, SyntaxError, RecursionError, TemplateError: of Python, and of Jinja.
    """
    options = _rendering_options(module)
    constants = _constants(module)
    needed = SLOTS[module.transformer_task != "feature-extraction"]
    found = []
    for slots in (names for case in SLOTS for names in (case, (PROMPT, *case))):
        try:
            pieces = _pieces(module, slots, options)
        except (MemoryError, SourceError):
            raise
        except Exception as error:  # templates raise what they like for a role that they do not know
            if slots == needed:
                raise UnsupportedOptionError(
                    f"its chat template cannot carry a {' and a '.join(slots)}: {error_text(error)}"
                ) from error
            continue
        _prove(module, slots, pieces, options, constants)
        found.append({"slots": list(slots), "pieces": pieces})
    return found


def adds_special_tokens(module: Any, templates: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what a template gives gains the special tokens of the tokenizer. That of a tokenizer never does; that of
    a processor does where it does not begin with the first of them.

    Raises:
        UnsupportedOptionError: if that differs from template to template, or a text decides on it.
    """
    if module.processor is module.tokenizer:
        return False
    if not (first := module.tokenizer.bos_token):
        return True
    heads = [next(iter(template["pieces"]), "") for template in templates]
    found = {isinstance(head, str) and head.startswith(first) for head in heads}
    if len(found) > 1 or not all(isinstance(head, str) for head in heads):
        raise UnsupportedOptionError("its chat template begins with a special token for some inputs alone")
    return not found.pop()


def framed_texts(module: Any) -> list[dict[str, Any]]:
    """What a processor with no chat template writes around a text, as those of page-image models do.

    Returns:
        As `compiled_templates`, for a text without and with a prompt, which the library writes before the text.

    Raises:
        UnsupportedOptionError: if it does anything else with a text, or cuts at another length than its tokenizer.
    """
    mark = f"\ue000{TEXT}\ue001"
    before, found, behind = _sent(module, mark).partition(mark)
    for text in dict.fromkeys([*HOSTILE, *CORPUS]):
        if not found or _sent(module, text) != f"{before}{text}{behind}":
            raise UnsupportedOptionError(
                f"{type(module.processor).__name__} does more with a text than to put it between pieces of its own, "
                f"e.g. with {text!r:.60}"
            )
    ways = ((TEXT,), (PROMPT, TEXT))
    pieces = ([piece for piece in (before, *({"slot": slot} for slot in way), behind) if piece] for way in ways)
    return [{"slots": list(way), "pieces": own} for way, own in zip(ways, pieces, strict=True)]


def _sent(module: Any, text: str) -> str:
    """The string that a module's processor gives its tokenizer for a text."""
    processor = module.processor
    tokenizer = processor.tokenizer
    heard = processor.tokenizer = _Heard(tokenizer)
    try:
        for task in (None, *TASKS):
            module.preprocess([text], task=task)
    finally:
        processor.tokenizer = tokenizer
    if limits := {limit for _, limit in heard.given} - {None, tokenizer.model_max_length}:
        raise UnsupportedOptionError(
            f"{type(processor).__name__} cuts texts at {', '.join(map(str, limits))} tokens (have: "
            f"{tokenizer.model_max_length}, the tokenizer's own limit, for queries and documents alike)"
        )
    found = {sent for sent, _ in heard.given}
    return found.pop() if len(found) == 1 else ""


class _Heard:
    """A tokenizer that keeps the strings and the limits which it is called with.

    Attributes:
        given: a string and `max_length` of each call.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.given: list[tuple[str, int | None]] = []

    def __call__(self, text: Any, *args: Any, **options: Any) -> Any:
        self.given += [(sent, options.get("max_length")) for sent in ([text] if isinstance(text, str) else text)]
        return self.tokenizer(text, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def _rendering_options(module: Any) -> dict[str, Any]:
    """The options that a model passes to its template."""
    if template_declares_task(module):
        raise UnsupportedOptionError("its chat template asks for the task, which an artifact cannot tell it")
    options = dict(module.processing_kwargs.get("chat_template", {}))
    if sizes := [name for name in OF_TOKENIZING[:-1] if name in options]:
        raise UnsupportedOptionError(f"processing_kwargs: chat_template: {', '.join(sizes)} is not supported")
    return {name: value for name, value in options.items() if name not in OF_TOKENIZING}


def _rendered(module: Any, values: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """The library's own way from texts to one string.

    Raises:
        Exception: whatever the template or the library raises.
    """
    formatter = module.input_formatter
    texts = [text for slot, text in values.items() if slot != PROMPT]
    given = {"text": [texts[0] if len(texts) == 1 else tuple(texts)]}
    messages = formatter.batch_to_message("text", given)[1]["message"]
    if formatter.has_pair_roles(messages) and (failure := formatter.pair_roles_failure(dict(options))):
        raise UnsupportedOptionError(failure)
    if PROMPT in values:
        messages = formatter.prepend_prompt_to_messages(messages, values[PROMPT])
    found: str = module.processor.apply_chat_template(messages[0], tokenize=False, **options)
    return found


def _pieces(module: Any, slots: Sequence[str], options: Mapping[str, Any]) -> list[Any]:
    """Literal strings, and slots between them."""
    marks = {slot: f"\ue000{slot}\ue001" for slot in slots}  # private characters: in no template
    pieces: list[Any] = [_rendered(module, marks, options)]
    for slot, mark in marks.items():
        split: list[Any] = []
        for piece in pieces:
            parts = piece.split(mark) if isinstance(piece, str) else [piece]
            split += [part for pair in zip(parts, itertools.repeat({"slot": slot})) for part in pair][:-1]
        pieces = split
    return [piece for piece in pieces if piece != ""]


def _prove(
    module: Any, slots: Sequence[str], pieces: Sequence[Any], options: Mapping[str, Any], constants: Sequence[str]
) -> None:
    """Raise UnsupportedOptionError if the pieces give another string than the template for any of the texts."""
    for values in _hostile(slots, constants):
        try:
            expected = _rendered(module, values, options)
        except Exception as error:
            expected = error_text(error)
        if render(pieces, values) != expected:
            slot = next((slot for slot, text in values.items() if text != slot), slots[0])
            raise UnsupportedOptionError(
                f"its chat template does more with a {slot} than to put it between pieces of its own, e.g. with "
                f"{values[slot]!r:.60}; an artifact can do no more than that"
            )


def _hostile(slots: Sequence[str], constants: Sequence[str]) -> Iterator[dict[str, str]]:
    """Each text in each slot while the others hold their names, and the same text in all of them."""
    plain = {slot: slot for slot in slots}
    around = [f"{before} {after}" for before, after in itertools.product(constants, repeat=2)]
    for text in dict.fromkeys([*HOSTILE, *CORPUS, *constants, *around]):
        yield from ({**plain, slot: text} for slot in slots)
        yield dict.fromkeys(slots, text)


def _template(module: Any) -> str:
    """The source of the chat template that a tokenizer, or a processor of several modalities, takes."""
    processor, chosen = module.processor, module.processing_kwargs.get("chat_template", {}).get("chat_template")
    if hasattr(processor, "get_chat_template"):
        return str(processor.get_chat_template(chosen))
    own = processor.chat_template
    return str(own.get(chosen or "default", chosen) if isinstance(own, dict) else chosen or own)


def _constants(module: Any) -> list[str]:
    """The strings in a template's expressions, which are what a text might be compared with."""
    import jinja2

    tokens = [(token.type, token.value) for token in jinja2.Environment().lexer.tokenize(_template(module))]
    if ("name", CLOCK) in tokens:
        raise UnsupportedOptionError("its chat template writes the date of the day, which an artifact does not know")
    found = sorted({value for kind, value in tokens if kind == "string"} - {""})
    if len(found) > MOST_STRINGS:
        raise UnsupportedOptionError(
            f"its chat template compares or writes {len(found):,} strings (have: up to {MOST_STRINGS})"
        )
    return found
