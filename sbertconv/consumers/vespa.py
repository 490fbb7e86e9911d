"""Vespa's hugging-face-embedder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import HIDDEN, SENTENCE, Consumer
from sbertconv.consumers.graphs import spread_layout
from sbertconv.consumers.reading import file_tokenizer, run
from sbertconv.consumers.refusals import all_of, has_limit, has_output, no_default_prompt

VESPA_SETTING = re.compile(r"<([\w-]+)>([^<]*)</")
VESPA_GRAPH = re.compile(r'<transformer-model path="([^"]*)"')


def vespa_layout(artifact: Artifact, staging: Staging) -> None:
    """The component of services.xml, beside the graph with the output that it pools."""
    spread_layout(artifact, staging)
    graph = artifact.manifest["graphs"][0]
    staging.write(
        "vespa/services.xml",
        f'<component id="sbertconv" type="hugging-face-embedder">\n'
        f'  <transformer-model path="{graph["formats"]["onnx"]}"/>\n'
        f'  <tokenizer-model path="tokenizer.json"/>\n'
        f"  <max-tokens>{artifact.manifest['max_seq_length']}</max-tokens>\n"
        f"  <transformer-output>{HIDDEN}</transformer-output>\n"
        f"  <pooling-strategy>cls</pooling-strategy>\n"
        f"  <normalize>false</normalize>\n"
        "</component>\n",
    )


def read_vespa(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """What services.xml names: the limit, the output, the first of its tokens."""
    services = (folder / "vespa/services.xml").read_text(encoding="utf-8")
    found = dict(VESPA_SETTING.findall(services))
    (graph,) = VESPA_GRAPH.findall(services)
    tokenizer = file_tokenizer(folder)
    tokenizer.no_padding()
    tokenizer.enable_truncation(int(found["max-tokens"]), direction=tokenizer.truncation["direction"])
    rows = [run(folder / graph, [tokenizer.encode(text)], found["transformer-output"]) for text in texts]
    return np.concatenate([row[:, 0] for row in rows])


ROWS = (
    Consumer(
        "vespa",
        f"vespa/services.xml: the graph's output {HIDDEN}, the sentence embedding at every token",
        all_of(no_default_prompt, has_limit, has_output(SENTENCE)),
        vespa_layout,
        read_vespa,
        hidden="sentence",
    ),
)
