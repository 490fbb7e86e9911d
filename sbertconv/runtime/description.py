"""A converted folder or a .keras file in plain types: what `inspect` shows of it, with nothing but its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sbertconv.artifact.folder import KERAS_SUFFIX, TO_ST, Artifact, converted_file, read_artifact, unpacked
from sbertconv.artifact.kinds import class_named
from sbertconv.errors import ArtifactError
from sbertconv.runtime.engines import engine_states
from sbertconv.runtime.parts import layers_around

LIMITS = ("max_seq_length", "padding_side", "do_lower_case", "truncate_dim", "prompts", "default_prompt_name")
OPTIONAL = ("top_k", "text_input", "target", "opset", "optimized", "block_size", "plan")  # where a folder has them


def is_converted(model: Any) -> bool:
    """Whether this is the path of a .keras file, or of a folder with a manifest that to-st did not write."""
    file = converted_file(model)
    if file is None or file.suffix == KERAS_SUFFIX:
        return file is not None
    try:
        return f'"backend": "{TO_ST}"' not in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def describe_converted(model: str | Path) -> dict[str, Any]:
    """What a converted folder or a .keras file is.

    Returns:
        path, model_class, source, precision, formats (files, size in bytes, engines that it was proven on, and those of
        them that are installed), proven_on (the engines' versions and processor), graphs (inputs and outputs with dtype
        and shape), limits, prompts, what its class has, consumers, parity, quality, size, versions, notes; of a .keras
        file also `around`, the layers not ours.

    Raises:
        ArtifactError: if it cannot be read, or does not come from a converted model.
    """
    path = Path(model).expanduser()
    packed = path.suffix == KERAS_SUFFIX and path.is_file()
    artifact = read_artifact(unpacked(path) if packed else path)
    manifest: Mapping[str, Any] = artifact.manifest
    own = class_named(manifest["model_class"], path, ArtifactError).keys
    return {
        "path": str(model),
        **({"around": layers_around(path)} if packed else {}),
        **{key: manifest.get(key) for key in ("model_class", "source", "architecture", "chain", "precision")},
        "formats": {form: _format(artifact, form) for form in artifact.formats},
        "graphs": [
            {key: graph[key] for key in ("name", "modality", "tasks", "inputs", "outputs")}
            for graph in manifest["graphs"]
        ],
        "proven_on": dict(manifest.get("proven_on", {})),
        **{key: manifest.get(key) for key in (*own, *LIMITS)},
        **{key: manifest[key] for key in OPTIONAL if key in manifest},
        "consumers": dict(manifest.get("consumers", {})),
        "parity": _parity(manifest.get("parity") or {}),
        "quality": list((manifest.get("parity") or {}).get("quality", [])),
        "size": path.stat().st_size if packed else sum(file["size"] for file in manifest["files"].values()),
        "sbertconv": manifest.get("sbertconv"),
        "versions": manifest.get("versions", {}),
        "notes": list(manifest.get("notes", ())),
    }


def _format(artifact: Artifact, form: str) -> dict[str, Any]:
    """One format: its graphs' files, the size of everything in their folders, and what runs it."""
    files = [graph["formats"][form] for graph in artifact.manifest["graphs"]]
    folders = {PurePosixPath(name).parts[0] for name in files}
    sizes = [f["size"] for name, f in artifact.manifest["files"].items() if PurePosixPath(name).parts[0] in folders]
    proven = artifact.engines(form)
    installed = [state["engine"] for state in engine_states() if state["version"] and state["engine"] in proven]
    return {"files": files, "size": sum(sizes), "engines": list(proven), "installed": installed}


def _parity(report: Mapping[str, Any]) -> dict[str, Any]:
    """The proof in four figures; empty where the file does not hold it."""
    differences = [check["max_abs_diff"] for check in report.get("checks", ()) if check["max_abs_diff"] is not None]
    if not differences:
        return {}
    return {
        "method": report["method"],
        "rule": report["rule"],
        "checks": len(report["checks"]),
        "max_abs_diff": max(differences),
        "wobble": report["wobble"],
    }
