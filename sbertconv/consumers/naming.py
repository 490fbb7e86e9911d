"""Names as servers take them."""

from __future__ import annotations

import re
from pathlib import Path

from sbertconv.artifact.folder import Artifact


def server_name(artifact: Artifact) -> str:
    """The source's name as servers take it."""
    return re.sub(r"\W+", "_", Path(artifact.manifest["source"]["name"]).name)
