"""The README.md of a converted folder, which the Hub shows as its card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbertconv.artifact.manifest import GraphSection, limit_of, rate_of, shortest_sound
from sbertconv.errors import visible

CARD = "README.md"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LICENSE = re.compile(r"^license:[ \t]*[\"']?([\w.-]{1,60})[\"']?[ \t]*$", re.M)
LARGEST = 2**20  # bytes of a README that are looked at
TAG = re.compile("<(?=[A-Za-z/!?])")
PLAIN = re.compile(r"[A-Za-z][\w./-]*")  # what YAML takes as it is
PIPELINES = {
    "SentenceTransformer": "sentence-similarity",
    "SparseEncoder": "feature-extraction",
    "MultiVectorEncoder": "feature-extraction",
    "CrossEncoder": "text-ranking",
    "TextClassifier": "text-classification",
}
CALLS = {
    "SentenceTransformer": "vectors = model.encode({})",
    "SparseEncoder": "vectors = model.encode({})",
    "MultiVectorEncoder": "vectors = model.encode_document({})",
    "CrossEncoder": 'scores = model.predict([("a question", "a text")])',
    "TextClassifier": "scores = model.predict({})",
}
# Modality -> two inputs
EXAMPLES = {
    "text": '["a text", "another"]',
    "image": '["one.png", "another.jpg"]',
    "audio": '["one.wav", "another.wav"]',
}


def license_in(folder: Path | None) -> str | None:
    """The license that the front matter of a folder's README.md names, or None."""
    try:
        with (folder / CARD).open(encoding="utf-8", errors="replace") as file:  # type: ignore[operator]
            text = file.read(LARGEST)
    except (OSError, TypeError):
        return None
    front = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    found = LICENSE.search(front)
    return found[1] if found else None


def card(manifest: Mapping[str, Any]) -> str:
    """Front matter, what the folder is, its proof, and how to open it.

    Args:
        manifest: the content of a manifest with its parity.
    """
    name = manifest["source"]["name"]
    hub = HUB_ID.fullmatch(name) is not None
    title = Path(name).name or "model"
    source = f"[{name}](https://huggingface.co/{name})" if hub else code(title)
    revision = manifest["source"]["revision"]
    at = f" at revision {code(revision)}" if revision else ""
    formats = ", ".join(manifest["engines"])
    sections = [
        front_matter(manifest, name if hub else None),
        f"# {prose(title)}, converted",
        f"{source}{at} ({manifest['model_class']}: {prose(' → '.join(manifest['chain']))}) as {formats}, in "
        f"{manifest['precision']}, written by sbertconv {prose(manifest['sbertconv'])}.",
        "\n".join(facts(manifest)),
        "## Proof",
        proof(manifest["parity"]),
        "## Use",
        f'```python\nimport sbertconv\n\nmodel = sbertconv.load("path/to/this/folder")\n'
        f"{CALLS[manifest['model_class']].format(EXAMPLES[manifest['graphs'][0]['modality']])}\n```",
    ]
    if proven := manifest.get("consumers"):
        sections += ["## Other software", consumers(proven)]
    if notes := manifest["notes"]:
        sections += ["## Notes", "\n".join(f"- {cell(note)}" for note in notes)]
    return "\n\n".join(sections) + "\n"


def front_matter(manifest: Mapping[str, Any], base_model: str | None) -> str:
    """What the Hub files the model under."""
    said: dict[str, Any] = {
        "library_name": "sbertconv",
        "pipeline_tag": PIPELINES[manifest["model_class"]],
        "base_model": base_model,
        "license": manifest["source"].get("license"),
    }
    tags = ["sentence-transformers", "sbertconv", *manifest["engines"], manifest["architecture"], manifest["precision"]]
    lines = [f"{key}: {scalar(value)}" for key, value in said.items() if value is not None]
    return "\n".join(["---", *lines, "tags:", *(f"- {scalar(tag)}" for tag in dict.fromkeys(tags) if tag), "---"])


def scalar(text: str) -> str:
    """A text as YAML reads it back, in one line."""
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def facts(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What is asked of a model first."""
    if size := manifest.get("embedding_dimension"):
        yield f"- vectors of {prose(str(size))} numbers, compared by {manifest['similarity_fn_name']}"
    if labels := manifest.get("num_labels"):
        yield f"- {labels} label{'s' if labels > 1 else ''}, activation {prose(manifest['activation'])}"
    yield from dict.fromkeys(taken(manifest, graph) for graph in manifest["graphs"])
    for name, prompt in manifest["prompts"].items():
        default = ", the default" if name == manifest["default_prompt_name"] else ""
        yield f"- prompt {prose(name)}: {code(prompt)}{default}"


def taken(manifest: Mapping[str, Any], graph: GraphSection) -> str:
    """What a graph takes."""
    if graph["modality"] == "image":
        return "- images"
    if graph["modality"] == "text":
        limit = limit_of(manifest)
        return f"- texts up to {limit} tokens" if limit else "- texts of any length"
    least = shortest_sound(graph)
    return f"- sounds of {rate_of(graph):,} samples per second" + (f", of {least:,} samples and more" if least else "")


def proof(parity: Mapping[str, Any]) -> str:
    """The comparison as a table."""
    checks = parity.get("checks", ())
    rows = [[check["name"], check["texts"], difference(check["max_abs_diff"])] for check in checks]
    method = parity.get("method", "encode")
    said = f"Compared with {code(f'{method}()')} of the original before it was published. "
    said += f"Rule: {prose(parity.get('rule', ''))}."
    return f"{said}\n\n{table(['compared', 'texts', 'largest difference'], rows)}"


def consumers(proven: Mapping[str, Mapping[str, Any]]) -> str:
    """What opens the folder as well, each proven by its own rules."""
    rows = [[name, one["reads"], held(one), difference(one["max_abs_diff"])] for name, one in proven.items()]
    more = [
        [name, precision, code(variant["file"]), f"{variant['min_cosine']:.4f}" if "min_cosine" in variant else ""]
        for name, one in proven.items()
        for precision, variant in one.get("precisions", {}).items()
    ]
    found = table(["software", "reads", "", "largest difference"], rows)
    found += f"\n\n{table(['software', 'precision', 'file', 'cosine with the original'], more)}" if more else ""
    lines = [
        f"### {name}\n\n{one['opens'].replace('FOLDER', 'this-folder')}"
        for name, one in proven.items()
        if "opens" in one
    ]
    return "\n\n".join([found, *lines])


def held(one: Mapping[str, Any]) -> str:
    """What it was held to, where that is less than every text to the last bits."""
    if "min_cosine" in one:
        return f"cosine {one['min_cosine']:.4f} and more"
    return "" if one["over_limit"] else "texts up to the limit"


def difference(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value else "0"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(str(value)) for value in line)} |" for line in lines)


def cell(text: str) -> str:
    """A text in one line, without what ends a cell."""
    return prose(text).replace("|", "\\|")


def prose(text: str) -> str:
    """A text in one line, without tags of HTML."""
    return TAG.sub("&lt;", visible(" ".join(text.split())))


def code(text: str) -> str:
    """A text in one line as code, within more backticks than it has."""
    line = visible(" ".join(text.split()))
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"
