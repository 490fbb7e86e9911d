"""A hook of mkdocs: the pages that are not files of docs/, and links that leave docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import sbertconv

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()([^)#\s]+)")
COMMENT = re.compile(r"\A(<!--.*?-->\s*)+", re.DOTALL)
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")  # to a file of the repository, which the site does not have


def on_files(files: Any, config: Any) -> Any:
    """Add README.md as the first page, and a page of the public names."""
    from mkdocs.structure.files import File

    readme = LINK.sub(_from_docs, (ROOT / "README.md").read_text(encoding="utf-8"))
    api = ["# Python", "", *(f"::: {module}.{name}\n" for name, module in sbertconv._PUBLIC.items())]
    for name, content in (("index.md", readme), ("api.md", "\n".join(api))):
        files.append(File.generated(config, name, content=content))
    return files


def _from_docs(link: re.Match[str]) -> str:
    """A link of README.md as a page of docs/ has it; those to other files of the repository go to the pages' names."""
    target = link[2]
    if target.startswith("docs/"):
        return f"{link[1]}{target.removeprefix('docs/')}"
    return f"{link[1]}{target}" if ":" in target else f"{link[1]}../{target}"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The names of files that the site does not have, without their links; and no comment before the title, which
    would not be taken for one.
    """
    return OUTSIDE.sub(r"`\1`", COMMENT.sub("", markdown))
