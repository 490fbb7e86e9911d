"""The file of an adapter beside the model that was loaded with it: of weights passed over, left out or made up the
libraries say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbertconv.source.files import ADAPTER_CONFIG

WEIGHTS = "adapter_model.safetensors"
OF_PEFT = (".modules_to_save.default", ".default")  # in the names of a model, and not in those of its file


def passed_over(model: Any, folder: Path | None) -> list[str]:
    """The weights of an adapter's file that the model has other numbers for, or no place in a part that it has; and
    those of the model's adapter that the file does not have.

    Args:
        model: the model as it was loaded, in float32.
        folder: where its files lie; None: nowhere.
    """
    file = Path(folder or "") / WEIGHTS
    if folder is None or not file.is_file() or not (folder / ADAPTER_CONFIG).is_file():
        return []
    import torch
    from safetensors import safe_open

    own: dict[str, Any] = {}
    parts: set[str] = set()
    adapted: dict[str, str] = {}  # the plain name of an adapter's weight -> that of the model
    for module in model.modules():
        if isinstance(getattr(module, "peft_config", None), Mapping):
            own |= {_plain(name): weight for name, weight in module.state_dict().items()}
            parts |= {name for name, _ in module.named_modules() if name}
            adapted |= {_plain(name): name for name, _ in module.named_parameters() if _plain(name) != name}
    found = []
    with safe_open(file, "pt") as stored:
        for key in stored.keys():  # noqa: SIM118  # no dict
            name, numbers = _name_in(own, key), stored.get_tensor(key).float()
            adapted.pop(name or "", None)
            if name is None:
                found += [key] if _is_of_a_part(parts, key) else []
            elif own[name].shape != numbers.shape or not torch.equal(own[name].float(), numbers):
                found.append(key)
    return [*found, *adapted.values()]


def _plain(name: str) -> str:
    for part in OF_PEFT:
        name = name.replace(part, "")
    return name


def _name_in(own: Mapping[str, Any], key: str) -> str | None:
    """The model's name of a weight of the file, whose name begins with those of what was around the model there."""
    parts = key.split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    return next((name for end in ends for name in (end, f"{end}.weight") if name in own), None)


def _is_of_a_part(parts: set[str], key: str) -> bool:
    """Whether a weight of the file belongs to a part that the model has; that of a head that was left off does not."""
    names = key.split(".")
    return any(".".join(names[start:end]) in parts for end in range(len(names)) for start in range(end))
