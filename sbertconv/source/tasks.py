"""Tasks that choose within a module: the names of its adapters, or what its forward takes as `task`.

Each module that a task chooses in becomes a router of the library, with a copy for each task that shares all weights:
so a task is a route like any other, and `encode(task=)` of both sides takes it.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sbertconv.errors import SourceError, UnsupportedOptionError, error_text

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TASK = "task"
NAMED_BY = ("lora_adaptations", "task_names")  # of a config, where models with adapters of their own list them
OWN_TYPES = "sentence_transformers."


@contextmanager
def tasks_apart(model: SentenceTransformer, tasks: Sequence[str], name: str) -> Iterator[None]:
    """The model, in here with a router in the place of each module that a task chooses in; as it is without tasks.

    Raises:
        UnsupportedOptionError: if no module has such an adapter or takes a task.
    """
    chosen = {label: module for label, module in model.named_children() if _chooses(model, label, tasks)}
    if tasks and not chosen:
        raise UnsupportedOptionError(
            f"tasks={list(tasks)}: {name} has no such adapters, and none of its modules takes a task (have: "
            f"{', '.join(adapters(model)) or 'no adapters'}).\nLeave it out."
        )
    trained = [(weight, weight.requires_grad) for weight in model.parameters()]  # which a choice of adapters changes
    try:
        for label, module in chosen.items():
            setattr(model, label, _router(model, label, module, tasks))
        yield
    finally:
        for label, module in chosen.items():
            setattr(model, label, module)
        for weight, value in trained:
            weight.requires_grad_(value)


def adapters(model: Any) -> dict[str, bool]:
    """The adapters that PEFT has in a model, and whether each is active."""
    found: dict[str, bool] = {}
    for holder in _holders(model):
        try:
            active = holder.active_adapters
            active = active() if callable(active) else active
        except Exception as error:  # of a kind of adapter that transformers takes and does not know
            raise SourceError(
                f"its adapters cannot be asked for: {error_text(error)}\n"
                "Merge them with PEFT: PeftModel.from_pretrained(base, folder).merge_and_unload()."
            ) from error
        found |= {name: name in active for name in holder.peft_config}
    return found


def adapters_note(model: Any) -> Iterator[str]:
    """Which of several adapters is converted, in words."""
    known = adapters(model)
    if len(known) > 1:
        active = ", ".join(name for name, is_active in known.items() if is_active) or "none"
        yield f"Of its adapters {', '.join(known)} this is with {active}; tasks= makes a graph for each that it names."


def check_tasks(model: SentenceTransformer) -> None:
    """Raise UnsupportedOptionError for a module that takes a task, and is given none: it would choose by itself."""
    taking = [label for label, _ in model.named_children() if _takes_task(model, label)]
    if taking:
        label = taking[0]
        known = ", ".join(_known(model)) or "see the model's card"
        raise UnsupportedOptionError(
            f"[{label}] {type(getattr(model, label)).__name__} takes a task, and computes otherwise for each (have: "
            f"{known}).\nPass tasks=: each becomes a graph, which encode(task=) takes."
        )


def _known(model: SentenceTransformer) -> list[str]:
    """The tasks that a model names somewhere: as adapters, in a config, as prompts."""
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    lists = [getattr(config, key, None) for config in configs for key in NAMED_BY]
    named = [str(name) for names in lists if isinstance(names, (list, tuple)) for name in names]
    return list(dict.fromkeys([*adapters(model), *named])) or [name for name, text in model.prompts.items() if text]


def _holders(module: Any) -> Iterator[Any]:
    """The outermost modules that hold adapters."""
    for found in module.children():
        if isinstance(getattr(found, "peft_config", None), Mapping) and hasattr(found, "set_adapter"):
            yield found
        else:
            yield from _holders(found)


def _chooses(model: SentenceTransformer, label: str, tasks: Sequence[str]) -> bool:
    """Whether tasks choose within a module."""
    if not tasks:
        return False
    known = [set(holder.peft_config) for holder in _holders(getattr(model, label))]
    return _takes_task(model, label) or any(set(tasks) <= names for names in known)


def _takes_task(model: SentenceTransformer, label: str) -> bool:
    """Whether the library hands the task of encode() to a module's forward, and that does something with it."""
    module: Any = getattr(model, label)
    own = type(module).__module__.startswith(OWN_TYPES)  # of which each has a converter that knows of tasks
    keys = {*(model.module_kwargs or {}).get(label, ()), *(() if own else getattr(module, "forward_kwargs", ()))}
    return TASK in keys and (not own or TASK in _parameters(getattr(module, "model", None)))


def _parameters(model: Any) -> Mapping[str, Any]:
    """What the forward of a transformers model takes by name: the library gives it nothing else."""
    return inspect.signature(model.forward).parameters if hasattr(model, "forward") else {}


def _router(model: SentenceTransformer, label: str, module: Any, tasks: Sequence[str]) -> Any:
    from sentence_transformers.base.modules import Router

    by_keyword = _takes_task(model, label)
    routes = {task: re.sub(r"[^\w-]", "_", task) for task in tasks}
    if len(set(routes.values())) < len(routes):
        raise UnsupportedOptionError(f"tasks={list(tasks)}: two of them have one name as files.\nPass one of the two.")
    return Router(
        {route: [_bound(module, task, by_keyword)] for task, route in routes.items()},
        allow_empty_key=False,
        route_mappings={(task, None): route for task, route in routes.items()},
    )


def _bound(module: Any, task: str, by_keyword: bool) -> Any:
    """A copy of a module for one task; its weights and its tokenizer are those of the module."""
    shared = [*module.parameters(), *module.buffers(), getattr(module, "processor", None)]
    found = copy.deepcopy(module, {id(one): one for one in shared if one is not None})
    if not by_keyword:
        for holder in _holders(found):
            holder.set_adapter(task)
    elif type(module).__module__.startswith(OWN_TYPES):
        found.model.forward = partial(found.model.forward, task=task)
    else:
        found.forward = partial(found.forward, task=task)
    return found
