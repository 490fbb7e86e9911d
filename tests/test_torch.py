"""The parity table's PyTorch column, the module in Python, and the written program in a process that has PyTorch alone.

About two minutes of one core, most of it the rows of the table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from conftest import TEXTS, Ran, run_python, snapshot
from sentence_transformers import SentenceTransformer
from test_parity import USUAL_CHECKS

import sbertconv
from sbertconv.artifact.folder import Artifact, read_artifact
from sbertconv.converters.torch.backend import save_program
from sbertconv.corpus.texts import inputs_of

NAMES = (*cases.TORCH_ARCHITECTURES, *cases.TORCH_MODULES)
SHARED = ("graphs", "dimension", "inputs", "outputs")  # what a case expects of every backend
ALONE = ("bert", "t5", "gemma3_text")
ATOL = RTOL = 1e-6  # the conversion's own rule


@pytest.fixture(scope="session")
def converted(built_once: Any) -> Callable[[str], Artifact]:
    """`converted(name)`: that case's artifact, written once for all tests; do not write to it."""

    def convert(name: str) -> Artifact:
        case = cases.CASES[name]
        label = f"torch-{NAMES.index(name)}"
        return read_artifact(built_once(label, lambda folder: sbertconv.to_torch(case.build(), folder, **case.options)))

    return convert


def batch(embedder: sbertconv.Embedder, graph: Any) -> dict[str, np.ndarray]:
    """A padded batch for a graph."""
    if graph.section["modality"] != "text":
        return dict(graph.prepared(inputs_of(graph.section))[0][1])
    return {name: array for name, array in embedder.tokenize(TEXTS, graph.task).items() if name in graph.inputs}


def tensors(feeds: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in feeds.items()}


@pytest.mark.parametrize("name", NAMES)
def test_case_converts_and_equals_encode(name: str, converted: Callable[[str], Artifact]) -> None:
    case, artifact = cases.CASES[name], converted(name)
    report = artifact.manifest["parity"]
    assert report["passed"]
    assert "1e-06" in report["rule"]
    checked = {check["name"].split(": ")[-1] for check in report["checks"]}
    assert checked >= USUAL_CHECKS[artifact.manifest["graphs"][0]["modality"]] | set(case.checks)
    first = artifact.manifest["graphs"][0]
    found = {
        "graphs": [graph["name"] for graph in artifact.manifest["graphs"]],
        "dimension": artifact.manifest["embedding_dimension"],
        "inputs": [tensor["name"] for tensor in first["inputs"]],
        "outputs": [tensor["name"] for tensor in first["outputs"]],
    }
    expected = {key: value for key, value in case.expected.items() if key in SHARED}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_module_in_python_is_the_one_that_is_written(name: str, converted: Callable[[str], Artifact]) -> None:
    """For every route; its weights have sentence-transformers' names, and the program's are among them."""
    model, artifact = cases.CASES[name].build(), converted(name)
    embedder = sbertconv.load(artifact.folder, format="torch")
    for graph in embedder.graphs:
        pipeline = sbertconv.pipeline(model, task=graph.task, modality=graph.section["modality"], outputs=graph.outputs)
        names = set(pipeline.state_dict())
        assert names <= set(model.state_dict())
        assert len(embedder.graphs) > 1 or names == set(model.state_dict())
        program = torch.export.load(artifact.path(graph.section["formats"]["torch"]))
        assert set(program.state_dict) <= names
        feeds = batch(embedder, graph)
        expected = graph.run(feeds)
        with torch.no_grad():
            found = pipeline(**tensors(feeds))
        for output in graph.outputs:
            np.testing.assert_allclose(found[output].numpy(), expected[output], RTOL, ATOL)


# Prints the largest difference beyond the rule for each model, from texts to embeddings.
WITH_TORCH_ALONE = """
import json, sys
from pathlib import Path
for name in ("transformers", "sentence_transformers", "sbertconv", "onnxruntime", "keras"):
    sys.modules[name] = None
import numpy as np
import torch
from tokenizers import Tokenizer
texts, found = json.loads(sys.argv[2]), {}
for number, folder in json.loads(sys.argv[1]).items():
    model = torch.export.load(folder + "/torch/model.pt2").module()
    rows = Tokenizer.from_file(folder + "/tokenizer.json").encode_batch(texts)
    given = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}
    names = json.loads(Path(folder, "sbertconv.json").read_text())["graphs"][0]["inputs"]
    batch = {
        tensor["name"]: torch.tensor([getattr(row, given[tensor["name"]]) for row in rows]) for tensor in names
    }
    with torch.inference_mode():
        result = model(**batch)["sentence_embedding"].numpy()
    expected = np.load(sys.argv[3] + f"/{number}.npy")
    found[number] = float((np.abs(result - expected) - 1e-6 * np.abs(expected)).max())
print(json.dumps(found))
"""


def test_a_program_needs_torch_alone(converted: Callable[[str], Artifact], tmp_path: Path) -> None:
    folders = {}
    for number, name in enumerate(ALONE):
        folders[number] = str(converted(name).folder)
        expected = cases.CASES[name].build().encode(TEXTS, batch_size=len(TEXTS))
        np.save(tmp_path / f"{number}.npy", expected)
    ran = run_python(WITH_TORCH_ALONE, json.dumps(folders), json.dumps(TEXTS), tmp_path)
    assert ran.code == 0, ran.err[-2000:]
    excess = json.loads(ran.out.splitlines()[-1])
    assert len(excess) == len(ALONE)
    assert {ALONE[int(number)]: value for number, value in excess.items() if value > ATOL} == {}


def test_a_program_holds_no_weights_that_nothing_needs(converted: Callable[[str], Artifact]) -> None:
    """BERT's pooler behind a mean pooling; CLIP's image tower on the route of texts."""
    for name, unread in (("bert", "pooler"), ("clip", "vision")):
        artifact = converted(name)
        file = artifact.path(artifact.manifest["graphs"][0]["formats"]["torch"])
        assert [key for key in torch.export.load(file).state_dict if unread in key] == []


# The module in Python


def test_it_trains_and_its_weights_go_back(bert_folder: Path) -> None:
    pipeline = sbertconv.pipeline(bert_folder)
    embedder = SentenceTransformer(str(bert_folder), device="cpu")
    given = {name: value for name, value in embedder.preprocess(TEXTS).items() if name in pipeline.inputs}
    before = pipeline(**given)["sentence_embedding"].detach()
    assert not pipeline.training
    pipeline.train()
    torch.manual_seed(1)
    first, second = (pipeline(**given)["sentence_embedding"].detach() for _ in range(2))
    assert not torch.equal(first, second)  # its dropouts are at work
    optimizer = torch.optim.SGD(pipeline.parameters(), 0.1)
    pipeline(**given)["sentence_embedding"][:, 0].sum().backward()
    optimizer.step()
    pipeline.eval()
    after = pipeline(**given)["sentence_embedding"].detach()
    assert (after - before).abs().max() > 1e-4
    unchanged = torch.from_numpy(embedder.encode(TEXTS, batch_size=len(TEXTS)))
    torch.testing.assert_close(unchanged, before, rtol=RTOL, atol=ATOL)
    embedder.load_state_dict(pipeline.state_dict())
    torch.testing.assert_close(
        torch.from_numpy(embedder.encode(TEXTS, batch_size=len(TEXTS))), after, rtol=RTOL, atol=ATOL
    )


def test_it_has_weights_of_its_own(static_folder: Path) -> None:
    model = SentenceTransformer(str(static_folder), device="cpu")
    before = model.encode(TEXTS)
    pipeline = sbertconv.pipeline(model)
    with torch.no_grad():
        for weight in pipeline.parameters():
            weight.zero_()
    np.testing.assert_array_equal(model.encode(TEXTS), before)


def test_a_route_that_is_not_there_is_refused() -> None:
    model = cases.router()
    with pytest.raises(sbertconv.UnsupportedOptionError, match=r"(?s)'image'.*have: text for the tasks .*query"):
        sbertconv.pipeline(model, modality="image")
    with pytest.raises(sbertconv.UnsupportedOptionError, match="'answer'"):
        sbertconv.pipeline(model, task="answer")


# The command


def test_every_command_takes_the_folder(cli: Callable[..., Ran], bert_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    assert cli("to-torch", bert_folder, target).code == 0
    assert cli("verify", bert_folder, target).code == 0
    ran = cli("encode", target, "one", "--format", "torch", "--engine", "torch")
    assert ran.code == 0, ran.err
    expected = SentenceTransformer(str(bert_folder), device="cpu").encode("one")
    np.testing.assert_allclose(json.loads(ran.out), expected, RTOL, ATOL)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "int8"], 2, "No such option: --precision"),
        (["--output", "sentence_embedding", "--output", "sentence_embedding"], 1, "at most once"),
        (["--output", "token_embeddings"], 1, "gives no token_embeddings"),
        (["--atol", "0", "--rtol", "0"], 3, "Parity failed for 'torch'"),
    ],
)
def test_refused_by_name_and_nothing_written(
    arguments: list[str], code: int, message: str, cli: Callable[..., Ran], static_folder: Path, tmp_path: Path
) -> None:
    ran = cli("to-torch", static_folder, tmp_path / "model", *arguments)
    assert (ran.code, bool(re.search(message, ran.err))) == (code, True), ran.err
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("step", ["export", "save"])
def test_what_pytorch_cannot_do_is_one_line(
    step: str, static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no room for this operation\nmany more lines")

    monkeypatch.setattr(torch.export, step, fail)
    with pytest.raises(sbertconv.UnsupportedModuleError) as raised:
        sbertconv.to_torch(static_folder, tmp_path / "model")
    assert "StaticEmbedding -> Normalize" in str(raised.value)
    assert "no room for this operation" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 2
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("convert", ["to_onnx", "to_torch", "to_tf"])
def test_a_graph_that_fails_on_a_text_is_no_model_to_convert_again(
    convert: str, static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(feeds: Any) -> None:
        raise RuntimeError("the input has 5 elements where 48 are due")

    monkeypatch.setattr("sbertconv.runtime.graph.open_graph", lambda *arguments, **options: fail)
    with pytest.raises(sbertconv.UnsupportedModuleError) as raised:
        getattr(sbertconv, convert)(static_folder, tmp_path / "model")
    what, why, do = str(raised.value).splitlines()
    assert "its graph does not run on every text" in what
    assert "5 elements where 48 are due" in why
    assert "Try another backend" in do
    assert snapshot(tmp_path) == {}


def test_a_damaged_program_is_named(converted: Callable[[str], Artifact], copy_of: Any) -> None:
    folder = copy_of(converted("dropout").folder)
    file = folder / "torch" / "model.pt2"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(sbertconv.ArtifactError, match=r"model\.pt2: not a readable PyTorch program"):
        sbertconv.load(folder, format="torch").encode(TEXTS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_of_the_disk() -> None:
    """PyTorch's own writer ends the process."""
    program = torch.export.export(torch.nn.Linear(3, 3), (torch.ones(2, 3),))
    with pytest.raises(OSError, match="No space left on device"):
        save_program(program, None, Path("/dev/full"))  # type: ignore[arg-type]  # the route is for other errors
