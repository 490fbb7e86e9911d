"""Elasticsearch: TorchScript with four inputs and a vocabulary, as eland uploads them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import SENTENCE, Consumer
from sbertconv.consumers.reading import from_json, keeps
from sbertconv.consumers.refusals import all_of, has_limit, has_output, no_default_prompt
from sbertconv.consumers.wordpiece import BertVocabulary, bert_vocabulary

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")  # in the order in which it feeds them
MODEL, VOCABULARY, CONFIG = (
    f"elasticsearch/{name}" for name in ("traced_pytorch_model.pt", "vocabulary.json", "config.json")
)


def elasticsearch_layout(artifact: Artifact, staging: Staging) -> None:
    """The three files of `eland_import_hub_model`.

    Raises:
        UnsupportedOptionError: if the vocabulary is not the whole tokenizer.
    """
    from sbertconv.runtime.programs import check_program

    vocabulary = bert_vocabulary(staging.folder, "elasticsearch")
    path = staging.folder / artifact.manifest["graphs"][0]["formats"]["torch"]
    check_program(path)
    (staging.folder / "elasticsearch").mkdir()
    outputs = [entry["name"] for entry in artifact.manifest["graphs"][0]["outputs"]]
    scripted(path, outputs.index(SENTENCE)).save(str(staging.folder / MODEL))
    staging.write(VOCABULARY, json.dumps({"vocabulary": vocabulary.tokens}, ensure_ascii=False) + "\n")
    tokenization = {
        "do_lower_case": vocabulary.lower,
        "with_special_tokens": True,
        "max_sequence_length": artifact.limit,
        "truncate": "first",
        "span": -1,
    }
    config = {
        "description": f"{artifact.manifest['source']['name']} by sbertconv",
        "model_type": "pytorch",
        "inference_config": {
            "text_embedding": {
                "tokenization": {"bert": tokenization},
                "embedding_size": artifact.manifest["embedding_dimension"],
            }
        },
    }
    staging.write(CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def scripted(path: Path, place: int) -> Any:
    """A program of torch.export as TorchScript, which has no sizes of its example in it as a trace would.

    Args:
        path: the .pt2 file, checked.
        place: which of its outputs it gives.
    """
    import torch

    program = torch.export.load(path).module()
    graph = program.graph
    size = torch.ops.aten.sym_size.int
    for node in list(graph.nodes):
        if node.target is size:
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_method("size", node.args))
            graph.erase_node(node)
        elif "assert" in str(node.target) or node.op == "call_module":  # the guards, which the comparison stands for
            graph.erase_node(node)
        elif hasattr(node.target, "overloadpacket"):  # TorchScript chooses among overloads by itself
            node.target = node.target.overloadpacket
    graph.set_codegen(torch.fx.graph.CodeGen())
    (output,) = [node for node in graph.nodes if node.op == "output"]
    output.args = (output.args[0][place],)
    four_inputs(graph)
    root = torch.nn.Module()
    for number, node in enumerate(node for node in graph.nodes if node.op == "get_attr"):
        weight: Any = program
        for part in node.target.split("."):
            weight = getattr(weight, part)
        root.register_buffer(f"weight_{number}", weight.detach())
        node.target = f"weight_{number}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, that there are newer ways
        return torch.jit.script(torch.fx.GraphModule(root, graph))


def four_inputs(graph: Any) -> None:
    """All four, in their order; those that the program does not take are not read."""
    old = {node.target: node for node in graph.nodes if node.op == "placeholder"}
    with graph.inserting_before(next(iter(graph.nodes))):
        for name in INPUTS:
            new = graph.placeholder(f"{name}_")
            if name in old:
                old[name].replace_all_uses_with(new)
                graph.erase_node(old[name])


@keeps(1)
def opened_script(path: Path) -> Any:
    """The TorchScript, of our own making a moment ago."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path))


def read_elasticsearch(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The vocabulary under BERT's rules, text by text, with four tensors."""
    import torch

    said = from_json(folder / CONFIG)["inference_config"]["text_embedding"]["tokenization"]["bert"]
    tokens = from_json(folder / VOCABULARY)["vocabulary"]
    tokenizer = BertVocabulary(tuple(tokens), said["do_lower_case"]).tokenizer(said["max_sequence_length"])
    model, rows = opened_script(folder / MODEL), []
    for encoding in map(tokenizer.encode, texts):
        given = (encoding.ids, encoding.attention_mask, encoding.type_ids, list(range(len(encoding))))
        with torch.inference_mode():
            rows.append(model(*(torch.tensor([row]) for row in given)).numpy())
    return np.concatenate(rows)


ROWS = (
    Consumer(
        "elasticsearch",
        "elasticsearch, uploaded with eland's PyTorchModel: TorchScript, vocabulary and config",
        all_of(no_default_prompt, has_limit, has_output(SENTENCE), form="torch"),
        elasticsearch_layout,
        read_elasticsearch,
        form="torch",
    ),
)
