"""What a server of the Hub says of a file: the library takes it for the name of a file in its cache, as it comes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from sbertconv.errors import SourceError
from sbertconv.frameworks import Replaced

NAME = re.compile("[A-Za-z0-9_-]+")  # of a blob or a commit: a hash in all that the Hub itself says


def _check(where: str, what: str, value: object) -> None:
    if value is not None and not NAME.fullmatch(str(value)):
        _refuse(where, f"{what} {value!r:.80} (have: letters, digits, - and _)")


def _check_path(where: str, path: str) -> None:
    windows = PureWindowsPath(path)
    if not path or windows.anchor or PurePosixPath(path).is_absolute() or ".." in windows.parts:
        _refuse(where, f"a file {path!r:.80}, which leaves the folder")


def _refuse(where: str, problem: str) -> None:
    raise SourceError(f"{where}: the server names {problem}.\nCheck HF_ENDPOINT; do not use this server.")


def _metadata(function: Callable[..., Any], url: str, *args: Any, **given: Any) -> Any:
    """What `function`, the library's, learns of the file at `url`."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = function(url, *args, **given)
    except HfHubHTTPError as error:  # the library notes for a commit that it lacks a file
        if error.response is not None:
            _check(url, "the commit", error.response.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT))
        raise
    _check(url, "the commit", found.commit_hash)
    _check(url, "the ETag", found.etag)
    return found


def _info(function: Callable[..., Any], api: Any, repo_id: str, *args: Any, **given: Any) -> Any:
    """What `function`, the library's, learns of a repository."""
    found = function(api, repo_id, *args, **given)
    _check(f"{api.endpoint}/{repo_id}", "the commit", getattr(found, "sha", None))
    return found


def _listed(function: Callable[..., Any], api: Any, repo_id: str, *args: Any, **given: Any) -> Iterator[Any]:
    """The files and folders that `function`, the library's, finds in a repository."""
    where = f"{api.endpoint}/{repo_id}"
    for entry in function(api, repo_id, *args, **given):
        _check_path(where, str(entry.path))
        lfs = getattr(entry, "lfs", None)
        _check(f"{where}: {entry.path}", "the hash", None if lfs is None else lfs.sha256)
        yield entry


def _others() -> Iterator[tuple[Any, str, Any]]:
    from huggingface_hub import HfApi, file_download

    def method(check: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(own)(lambda *args, **given: check(own, *args, **given))

    places = ((file_download, "get_hf_file_metadata", _metadata), (HfApi, "repo_info", _info))
    for owner, name, check in (*places, (HfApi, "list_repo_tree", _listed)):
        yield owner, name, method(check, getattr(owner, name))


# In here, whatever downloads from the Hub, the answers are checked before the library makes paths of them; one that
# leads elsewhere is a SourceError.
checked_answers = Replaced(_others)
