"""What a server of the Hub says of a file: the library takes it for the name of a file in its cache, as it comes, and
asks for files of a model again while it loads it.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote

from sbertconv.errors import SourceError
from sbertconv.frameworks import Replaced
from sbertconv.source.files import HEAD_FILES

DESCRIPTION = ["*.json", "*.txt", "*.model", "*.py", *HEAD_FILES.values()]  # files that are looked at before all others
NAME = re.compile("[A-Za-z0-9_-]+"), "letters, digits, - and _"  # of a blob: a hash in all that the Hub itself says
# of a commit, whose files in the cache the library does not ask for again
COMMIT = re.compile("[0-9a-f]{40}"), "40 hexadecimal digits"
LOOKED_AT: defaultdict[str, set[Path]] = defaultdict(set)  # repository -> folders of the cache, named by commits
LOOKING: Counter[str] = Counter()  # repositories whose descriptions are on the way


def looked_at(repo: str, fetch: Callable[[], str]) -> Path:
    """The folder of the cache that `fetch` puts the description of a repository into, for it to be looked at; nothing
    more of such descriptions is taken afterwards.
    """
    LOOKING[repo] += 1
    try:
        with checked_answers:
            folder = Path(fetch())
    finally:
        LOOKING[repo] -= 1
    LOOKED_AT[repo].add(folder)
    return folder


def _check(where: str, what: str, value: object, rule: tuple[re.Pattern[str], str] = NAME) -> None:
    pattern, has = rule
    if value is not None and not pattern.fullmatch(str(value)):
        _refuse(where, f"{what} {value!r:.80} (have: {has})")


def _check_known(url: str, commit: str | None) -> None:
    """A file that says how a model is made is one of those that were looked at."""
    from huggingface_hub import constants

    repo, _, rest = url.removeprefix(f"{constants.ENDPOINT}/").partition("/resolve/")
    file = unquote(rest.partition("/")[2])
    if repo not in LOOKED_AT or LOOKING[repo] or not any(fnmatchcase(file, pattern) for pattern in DESCRIPTION):
        return
    if not any(folder.name == commit and (folder / file).is_file() for folder in LOOKED_AT[repo]):
        have = ", ".join(sorted(folder.name for folder in LOOKED_AT[repo]))
        _refuse(url, f"a file at {commit} that was not there when the model was looked at (have: {have})")


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
            _check(url, "the commit", error.response.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT), COMMIT)
        raise
    _check(url, "the commit", found.commit_hash, COMMIT)
    _check(url, "the ETag", found.etag)
    _check_known(url, found.commit_hash)
    return found


def _info(function: Callable[..., Any], api: Any, repo_id: str, *args: Any, **given: Any) -> Any:
    """What `function`, the library's, learns of a repository."""
    found = function(api, repo_id, *args, **given)
    _check(f"{api.endpoint}/{repo_id}", "the commit", getattr(found, "sha", None), COMMIT)
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

    yield file_download, "get_hf_file_metadata", method(_metadata, file_download.get_hf_file_metadata)
    yield HfApi, "repo_info", method(_info, HfApi.repo_info)
    yield HfApi, "list_repo_tree", method(_listed, HfApi.list_repo_tree)


# In here, whatever downloads from the Hub, the answers are checked before the library makes paths of them; one that
# leads elsewhere is a SourceError.
checked_answers = Replaced(_others)
