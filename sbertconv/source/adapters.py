"""The file of an adapter beside the model that was loaded with it: of weights passed over the libraries say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbertconv.source.files import ADAPTER_CONFIG

WEIGHTS = "adapter_model.safetensors"
OF_PEFT = (".modules_to_save.default", ".default")  # in the names of a model, and not in those of its file


def passed_over(model: Any, folder: Path | None) -> list[str]:
    """The weights of an adapter's file that the model has other numbers for.

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
    for module in model.modules():
        if isinstance(getattr(module, "peft_config", None), Mapping):
            own |= {_plain(name): weight for name, weight in module.state_dict().items()}
    found = []
    with safe_open(file, "pt") as stored:
        for key in stored.keys():  # noqa: SIM118  # no dict
            weight, numbers = _of_model(own, key), stored.get_tensor(key).float()
            if weight is not None and not (weight.shape == numbers.shape and torch.equal(weight.float(), numbers)):
                found.append(key)
    return found


def _plain(name: str) -> str:
    for part in OF_PEFT:
        name = name.replace(part, "")
    return name


def _of_model(own: Mapping[str, Any], key: str) -> Any | None:
    """The weight of a name in the file, which begins with the names of what was around the model there."""
    parts = key.split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    return next((own[name] for end in ends for name in (end, f"{end}.weight") if name in own), None)
