"""What the package's metadata takes from elsewhere: the README as a page of an index, and the project's addresses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?!\w+://|#)(?P<path>[^)\s]+)\)")
URLS = {
    "Repository": "{}",
    "Documentation": "{}/tree/main/docs",
    "Changelog": "{}/blob/main/CHANGELOG.md",
    "Issues": "{}/issues",
}


def with_absolute_links(text: str, repository: str) -> str:
    """Links into the repository as addresses; without an address as their text, since an index has no such files."""
    return LINK.sub(rf"[\g<text>]({repository}/blob/main/\g<path>)" if repository else r"\g<text>", text)


class CustomMetadataHook(MetadataHookInterface):
    """`repository` of pyproject.toml, one address or empty, is what all others are made of."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme and, where the repository has an address, the URLs."""
        repository = self.config.get("repository", "").rstrip("/")
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_absolute_links(text, repository)}
        if repository:
            metadata["urls"] = {name: form.format(repository) for name, form in URLS.items()}
