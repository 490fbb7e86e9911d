"""What a user calls a model, before any library is loaded: a folder, a Hub id, an address of the Hub, or a mistake."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sbertconv.artifact.folder import KERAS_SUFFIX
from sbertconv.errors import SourceError, require

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
ADDRESS = re.compile(r"(?P<host>https?://[^/]+)/(?P<id>[\w.-]+/[\w.-]+)(/tree/(?P<revision>[^/?#]+))?/?([?#].*)?")
CACHED = "models--"  # how huggingface_hub's cache calls the folder of a model


def model_name(model: Any) -> Any:
    """The model as it was given, and of an address of the Hub the id.

    Raises:
        SourceError: for a path that is not there and cannot be a Hub id, or the address of something else.
        MissingDependencyError: for an address, if huggingface-hub is not installed.
    """
    if not isinstance(model, (str, Path)) or path_is_there(model):
        return model
    name = str(model)
    if "://" in name:
        return _id_of(name)
    if not HUB_ID.fullmatch(name) or name.startswith((".", "~")) or name.endswith(KERAS_SUFFIX):
        raise SourceError(f"{name}: no such folder, and not a Hub id (owner/name).{like(name)}\nCheck the path.")
    return model


def path_is_there(name: str | Path) -> bool:
    """Whether there is such a path; a name that no file can have is not, nor the home of a user who is not there."""
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, TypeError, ValueError):
        return False


def _id_of(address: str) -> str:
    require("onnx", "huggingface_hub")
    from huggingface_hub import constants

    found = ADDRESS.fullmatch(address)
    if found is None or found["host"].lower() != constants.ENDPOINT.lower():
        raise SourceError(
            f"{address}: not the address of a model on {constants.ENDPOINT}.\nPass its id (owner/name), or a folder."
        )
    if found["revision"] not in (None, "main"):
        raise SourceError(
            f"{address}: names a revision.\nPass {found['id']} and revision={found['revision']!r} instead."
        )
    return found["id"]


def cached_models() -> list[str]:
    """The ids of the models in the Hub's cache on this machine."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    hub = os.environ.get("HF_HOME") or Path(home, "huggingface")
    folder = Path(os.environ.get("HF_HUB_CACHE") or Path(hub, "hub")).expanduser()
    found = folder.glob(f"{CACHED}*") if folder.is_dir() else ()
    return sorted(path.name.removeprefix(CACHED).replace("--", "/") for path in found)


def like(name: str) -> str:
    """A question after a name that is not there, by folders beside it and models in the cache; empty: nothing is like
    it.
    """
    return did_you_mean(name, [*_beside(name), *cached_models(), *(one.rpartition("/")[2] for one in cached_models())])


def _beside(name: str) -> Iterator[str]:
    """The folders and .keras files where a path would lie, named as that is."""
    if not path_is_there(Path(name).parent) or not (parent := Path(name).expanduser().parent).is_dir():
        return
    for path in sorted(parent.iterdir()):
        if path.is_dir() or path.suffix == KERAS_SUFFIX:
            yield f"{name[: len(name) - len(Path(name).name)]}{path.name}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A question with the name that is most like a mistaken one, or nothing."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(names)), n=1, cutoff=0.7)
    return f" Did you mean {close[0]!r}?" if close else ""
