"""The gate before a .keras file is opened: Keras looks up, by names in the file, what it builds a model of. Its safe
mode refuses what could run code; the gate depends on neither its version nor that mode.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sbertconv.artifact.json_reading import parse_json
from sbertconv.errors import ArtifactError
from sbertconv.frameworks import import_keras

CONFIG = "config.json"
OWN = "sbertconv>"  # how the registered names of our layers begin
# Classes of Keras that carry code, or the path of a file that is loaded
REFUSED = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__", "__typespec__"}


def check_keras(archive: zipfile.ZipFile, file: Path) -> None:
    """Refuse a .keras file with classes that carry code, or that are neither of Keras, ours, nor registered here.

    Raises:
        ArtifactError: naming every such class, or if the file has no config.
    """
    config = parse_json(archive.read(CONFIG), file, dict)
    if problems := sorted(set(_strangers(config))):
        raise ArtifactError(
            f"{file}: holds layers that could run code:\n"
            + "\n".join(f"  {problem:.200}" for problem in problems[:10])
            + "\nImport the module that registers them, if they are yours; otherwise do not use this file."
        )


def _strangers(config: Any) -> Iterator[str]:
    registered = import_keras().saving.get_registered_object
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict) and "class_name" in item:
            kind, module, known = (item.get(key) for key in ("class_name", "module", "registered_name"))
            ours = isinstance(known, str) and (known.startswith(OWN) or registered(known) is not None)
            keras = module is None or str(module).split(".")[0] in ("keras", "builtins")
            if str(kind) in REFUSED or not (ours or keras):
                yield f"{module}.{kind}"
        if isinstance(item, (dict, list)):
            waiting += item.values() if isinstance(item, dict) else item
