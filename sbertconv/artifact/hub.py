"""A converted folder onto the Hub, or another server with its interface."""

from __future__ import annotations

from pathlib import Path

from sbertconv.artifact.folder import MANIFEST, read_artifact
from sbertconv.errors import ArtifactError, error_text, require

IGNORE_NOTHING = "# A converted folder is uploaded whole\n"  # a .gitignore without a pattern


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a converted folder as one commit; its README.md is the card.

    Args:
        folder: what was converted or packed.
        repo_id: "owner/name", made if it is not there.
        private: whether a repository that is made is private.
        revision: the branch, made if it is not there; None: the default one.
        create_pr: open a pull request and leave the branch as it is.
        message: of the commit.
        token: of an account that may write; None: the one that huggingface_hub has stored.
        endpoint: another server with the Hub's interface.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        ArtifactError: for a folder that is not as it was written, or if the server refuses.
        MissingDependencyError: without huggingface_hub.
    """
    check_repository(repo_id)
    from huggingface_hub import CommitOperationAdd, HfApi

    artifact = read_artifact(folder)
    artifact.verify_hashes()
    api = HfApi(endpoint=endpoint, token=token, library_name="sbertconv")
    try:
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo, branch=revision, exist_ok=True)
        files = [CommitOperationAdd(name, artifact.folder / name) for name in (*artifact.manifest["files"], MANIFEST)]
        # Asked so first, the server says of no file that the repository's own .gitignore leaves it out, in silence
        api.preupload_lfs_files(repo, files, revision=revision, create_pr=create_pr, gitignore_content=IGNORE_NOTHING)
        commit = api.create_commit(
            repo_id=repo,
            operations=files,
            revision=revision,
            create_pr=create_pr,
            commit_message=message or f"{Path(artifact.manifest['source']['name']).name} converted by sbertconv",
        )
        names = {operation.path_in_repo for operation in files}
        there = {entry.path for entry in api.get_paths_info(repo, sorted(names), revision=commit.oid)}
    except Exception as error:  # of the server, of the connection, or of an answer that is none
        raise ArtifactError(
            f"{repo_id}: the server did not take the folder: {error_text(error, 2)}\n"
            "Log in with `hf auth login`, or pass a token that may write there."
        ) from error
    if missing := sorted(names - there):
        raise ArtifactError(
            f"{repo_id}: the server left out {', '.join(missing[:4])}, {len(missing)} of {len(names)} files, of "
            f"{commit.commit_url}.\nRemove that commit, mend the repository's .gitignore and push again."
        )
    return str(commit.pr_url or commit.commit_url)


def check_repository(repo_id: str) -> None:
    """Raise what `push` would, as far as it can be told without asking the server.

    Raises:
        ArtifactError: for what is no name of a repository, or while HF_HUB_OFFLINE is set.
        MissingDependencyError: without huggingface_hub.
    """
    require("hub", "huggingface_hub")
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ArtifactError(f"{repo_id}: not a name of a repository: {error}\nPass owner/name.") from error
    if constants.HF_HUB_OFFLINE:
        raise ArtifactError(f"{repo_id}: HF_HUB_OFFLINE is set.\nUnset it to upload.")
