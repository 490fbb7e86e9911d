"""What encode() and predict() take in the place of a text: dicts of one modality, and messages of a chat."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sbertconv.artifact.manifest import TAKEN
from sbertconv.errors import UnsupportedOptionError
from sbertconv.runtime.media import ENDINGS, named_medium, names_medium
from sbertconv.runtime.sounds import is_sound
from sbertconv.runtime.tokenization import PROMPT, Conversation

MEDIA = {"image": "an image", "video": "a video", "audio": "a sound"}
ROLES = {"user": "text", "query": "query", "document": "document", "system": PROMPT}  # role -> slot of a template
ORDERS = (("user",), ("query", "document"))  # of the messages of an input, behind one of the role "system" or alone


class SaidText(str):
    """What was passed as {"text": ...}: a text, whatever it names."""


def modality_of(item: Any, taken: Collection[str]) -> str:
    """The modality of an input, by its type and its name, for a model that takes these; what is nothing known counts
    as an image or a sound, whose reader says what it has.
    """
    if isinstance(item, (Conversation, SaidText)):
        return "text"
    if isinstance(item, str):
        return named_medium(item, taken) or "text"
    others = [modality for modality in ENDINGS if modality in taken]
    return "audio" if is_sound(item) and "audio" in taken else next(iter(others), "image")


def is_text(item: Any) -> bool:
    """Whether a tokenizer takes this: a text, a pair of texts, or messages of a chat."""
    pair = isinstance(item, (list, tuple)) and len(item) == 2 and all(isinstance(part, str) for part in item)
    return pair or isinstance(item, (str, Conversation))


def is_message(value: Any) -> bool:
    """Whether this is one message of a chat."""
    return isinstance(value, Mapping) and "role" in value and "content" in value


def is_conversation(value: Any) -> bool:
    """Whether this is a list of messages, which is one input."""
    return isinstance(value, list) and bool(value) and is_message(value[0])


def is_single(inputs: Any) -> bool:
    """Whether this is one input and not a sequence of them, as the library sees it."""
    if isinstance(inputs, (str, bytes, Mapping)) or not isinstance(inputs, Iterable):
        return True
    return is_conversation(inputs) or (
        isinstance(inputs, np.ndarray) and (inputs.ndim in (0, 3) or (inputs.ndim == 1 and inputs.dtype.kind == "f"))
    )


def as_list(inputs: Any) -> list[Any]:
    """The inputs of a call as a list."""
    return [inputs] if is_single(inputs) else list(inputs)


def task_of(inputs: Sequence[Any], tasks: Iterable[str]) -> str | None:
    """The task that dicts like {"query": text} name, all of them the same one; None where the first is no such dict.

    Raises:
        UnsupportedOptionError: if they name several.
    """
    first = inputs[0] if inputs else None
    if not isinstance(first, Mapping) or len(first) != 1 or not set(first) <= set(tasks):
        return None
    (task,) = first
    if not all(isinstance(item, Mapping) and set(item) == {task} for item in inputs):
        raise UnsupportedOptionError(
            f"inputs of several kinds in one call, the first of the task {task!r}.\nCall encode() once for each task."
        )
    return str(task)


def plain(index: int, item: Any, *, taken: Sequence[str], left: Collection[str], form: str | None) -> Any:
    """An input without its wrapping: a text, a pair, an image, a sound, or a conversation.

    Args:
        index: its place, for messages.
        item: what was passed.
        taken: the modalities that the model takes.
        left: those that the model took before it was converted, and no graph does.
        form: of a model with a chat template, how it has the content of messages: "flat" or "structured".

    Raises:
        UnsupportedOptionError: for a dict, a message or the name of a medium that the model does not take.
    """
    if isinstance(item, str) and (medium := named_medium(item, left)):
        instead = "one of its pictures" if (medium, "image" in taken) == ("video", True) else TAKEN[taken[0]][1]
        raise UnsupportedOptionError(
            f"Input {index}: {item!r:.60} names {MEDIA[medium]} (have: {' or '.join(map(repr, taken))}; {medium!r} is "
            f"not converted).\nPass {instead}."
        )
    if is_message(item) or is_conversation(item):
        return conversation(index, item if isinstance(item, list) else [item], form)
    if isinstance(item, Mapping) and not isinstance(item, Conversation) and not ("audio" in taken and is_sound(item)):
        if len(item) != 1 or not set(item) <= set(taken):
            raise UnsupportedOptionError(
                f"Input {index} is a dict of {', '.join(map(repr, item)) or 'nothing'} (have: "
                f"{' or '.join(map(repr, taken))} alone{', messages' * (form is not None)}).\nPass the text itself."
            )
        ((modality, item),) = item.items()
        if modality in ENDINGS and isinstance(item, str) and not names_medium(item, modality):
            raise UnsupportedOptionError(f"Input {index}: {item!r:.60} is no {modality} file.\nCheck the path.")
        if modality == "text" and isinstance(item, str):
            return SaidText(item)
        return tuple(item) if isinstance(item, list) else item
    return item


def conversation(index: int, messages: Sequence[Any], form: str | None) -> Conversation:
    """Messages as texts for the slots of a chat template.

    Raises:
        UnsupportedOptionError: for a model without a template, and for messages that it was not compiled for.
    """
    if form is None:
        raise UnsupportedOptionError(
            f"Input {index} is messages, and the model has no chat template.\nPass the text itself."
        )
    roles = tuple(message.get("role") if isinstance(message, Mapping) else None for message in messages)
    if roles[roles[:1] == ("system",) :] not in ORDERS:
        raise UnsupportedOptionError(
            f"Input {index} is messages of the roles {', '.join(map(str, roles))} (have: "
            f"{'; '.join(' and '.join(order) for order in ORDERS)}; each also behind system).\n"
            "Render others with transformers' apply_chat_template, and convert the model without its template."
        )
    return Conversation({ROLES[message["role"]]: content_of(index, message, form) for message in messages})


def content_of(index: int, message: Mapping[str, Any], form: str) -> str:
    """The text of a message.

    Raises:
        UnsupportedOptionError: for a message with anything else, or in the other form.
    """
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    is_plain = len(parts) == 1 and isinstance(parts[0], Mapping) and set(parts[0]) == {"type", "text"}
    if set(message) != {"role", "content"} or not is_plain or not isinstance(parts[0]["text"], str):
        raise UnsupportedOptionError(
            f"Input {index}: a message with {message!r:.80} (have: a role and the content of one text).\n"
            "Pass one text for each message."
        )
    if isinstance(content, list) is not (form == "structured"):
        due = {"flat": "a text", "structured": '[{"type": "text", "text": ...}]'}[form]
        raise UnsupportedOptionError(
            f"Input {index}: the model's chat template takes the content of a message as {due}.\nPass it so."
        )
    return str(parts[0]["text"])
