"""Private names of sentence-transformers, each looked for before it is used."""

from __future__ import annotations

from typing import Any

from sbertconv.frameworks import private

LIBRARY = "sentence-transformers"


def resolved_route(router: Any, task: str | None, modality: str | None) -> str:
    """The name of the route that a Router itself takes for a task and a modality."""
    return str(private(router, "_resolve_route", LIBRARY)(task=task, modality=modality))


def model_config(model: Any) -> dict[str, Any]:
    """The content of config_sentence_transformers.json as the library would write it."""
    config: dict[str, Any] = private(model, "_get_model_config", LIBRARY)()
    return config


def template_declares_task(module: Any) -> bool:
    """Whether the chat template of a Transformer asks for the task."""
    return bool(private(module, "_chat_template_declares_task", LIBRARY)())


def skipped_ids(mask: Any) -> tuple[int, ...]:
    """The ids of the tokens that a MultiVectorMask leaves out."""
    ids = private(mask, "_skiplist_ids", LIBRARY)
    return () if ids is None else tuple(ids.tolist())
