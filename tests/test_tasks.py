"""Tasks that choose within a model: adapters and modules that take a task, one graph each. About 80 s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import tiny
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from transformers import BertModel

import sbertconv

TEXTS = ["", "a fox", "How many people live in Berlin? " * 12]
TASKS = ("retrieval.query", "retrieval.passage", "matching")


class Switched(torch.nn.Module):
    """A projection of low rank beside the identity, another one for each task; none without a task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.down, self.up = (torch.nn.Parameter(torch.randn(len(TASKS), 32, 4) / 2) for _ in range(2))

    def forward(self, tokens: torch.Tensor, task: str | None) -> torch.Tensor:
        if task is None:
            return tokens
        place = TASKS.index(task)
        return tokens + tokens @ self.down[place] @ self.up[place].T


class Custom(st.Transformer):
    """The form of Jina v3: a Transformer of one's own, whose forward takes the task."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.switched = Switched()
        self.config.lora_adaptations = list(TASKS)

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:  # type: ignore[override]
        found = super().forward(features)
        return {**found, "token_embeddings": self.switched(found["token_embeddings"], task)}


class TaskBert(BertModel):
    """The form that the library foresees: a transformers model whose forward names `task`."""

    def forward(self, input_ids: Any, attention_mask: Any = None, task: str | None = None, **options: Any) -> Any:
        found = super().forward(input_ids, attention_mask, **options)
        found.last_hidden_state = self.switched(found.last_hidden_state, task)
        return found


def of_the_library() -> Any:
    """A Transformer of the library around such a model."""
    module: Any = st.Transformer(str(tiny.transformer_folder("bert", num_hidden_layers=1)))
    module.model.__class__ = TaskBert
    module.model.switched = Switched()
    module._declared_forward_params = {"input_ids", "attention_mask", "task", "options"}
    return module


FORMS = {
    "a module": lambda: Custom(str(tiny.transformer_folder("bert", num_hidden_layers=1))),
    "a model": of_the_library,
}


def taking_tasks(form: str) -> SentenceTransformer:
    model = cases.chain(FORMS[form](), cases.pooling(), prompts={"matching": "match: "})
    model.module_kwargs = {"0": ["task"]}
    return model


def assert_tasks(converted: Any, expected: dict[str, np.ndarray]) -> None:
    """Each task has its own vectors, and no task none."""
    for task, vectors in expected.items():
        np.testing.assert_allclose(converted.encode(TEXTS, task=task), vectors, atol=1e-5, rtol=1e-5, err_msg=task)
    with pytest.raises(sbertconv.UnsupportedOptionError, match="no route for task None"):
        converted.encode(TEXTS)
    with pytest.raises(sbertconv.UnsupportedOptionError, match="is not known"):
        converted.encode(TEXTS, task="another")


@pytest.mark.parametrize("form", FORMS)
def test_a_module_that_takes_a_task_becomes_a_graph_for_each(form: str, tmp_path: Path) -> None:
    model = taking_tasks(form)
    expected = {task: model.encode(TEXTS, task=task) for task in TASKS[:2]}
    base, before = model.encode(TEXTS), list(model.named_children())
    assert min(np.abs(base - vectors).max() for vectors in expected.values()) > 0.1
    artifact = sbertconv.to_onnx(model, tmp_path / "model", tasks=TASKS[:2])
    assert [graph["tasks"][0] for graph in artifact.manifest["graphs"]] == sorted(TASKS[:2])
    assert_tasks(sbertconv.load(artifact.folder), expected)
    assert list(model.named_children()) == before
    np.testing.assert_array_equal(model.encode(TEXTS), base)
    assert sbertconv.verify(model, artifact.folder).passed


@pytest.mark.parametrize("form", FORMS)
def test_without_tasks_it_is_refused_by_name(form: str, tmp_path: Path) -> None:
    known = ", ".join(TASKS) if form == "a module" else "matching"
    for convert in (sbertconv.to_onnx, sbertconv.to_torch):
        with pytest.raises(sbertconv.UnsupportedOptionError, match=rf"\[0\] \w+ takes a task.*have: {known}"):
            convert(taking_tasks(form), tmp_path / "model")
    with pytest.raises(sbertconv.SbertconvError, match="tracing it failed: ValueError"):
        sbertconv.to_torch(taking_tasks("a module"), tmp_path / "model", tasks=["another"])
    assert not (tmp_path / "model").exists()


def test_tasks_of_a_model_without_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match=r"has no such adapters.*have: no adapters"):
        sbertconv.to_onnx(tiny.architecture("bert"), tmp_path / "model", tasks=["query"])


def test_pipelines_and_programs_have_tasks_too(tmp_path: Path) -> None:
    model = taking_tasks("a module")
    expected = {task: model.encode(TEXTS, task=task) for task in TASKS}
    artifact = sbertconv.to_torch(model, tmp_path / "model", tasks=TASKS)
    assert_tasks(sbertconv.load(artifact.folder, format="torch"), expected)
    found = sbertconv.pipeline(model, tasks=TASKS, task="matching")
    tokens = model.preprocess(TEXTS)
    ours = found(**{name: tokens[name] for name in found.inputs})["sentence_embedding"]
    np.testing.assert_allclose(ours.detach().numpy(), expected["matching"], atol=1e-5, rtol=1e-5)


HEAD = """
import torch
from sentence_transformers.base.modules import Module

class Head(Module):
    config_keys = ["tasks"]

    def __init__(self, tasks):
        super().__init__()
        self.tasks = tasks
        self.weights = torch.nn.Parameter(1.5 + torch.arange(len(tasks)))

    def forward(self, features, task=None):
        if task is not None:
            features["sentence_embedding"] = features["sentence_embedding"] * self.weights[self.tasks.index(task)]
        return features

    @classmethod
    def load(cls, model_name_or_path, subfolder="", **options):
        return cls(**cls.load_config(model_name_or_path, subfolder=subfolder))

    def save(self, output_path, *args, **options):
        self.save_config(output_path)
"""


def test_a_folder_with_code_of_its_own_says_what_it_takes(tmp_path: Path, cli: Any) -> None:
    """A module in the middle of the chain, by `kwargs` of modules.json."""
    folder = tmp_path / "saved"
    cases.static(st.Normalize()).save_pretrained(str(folder))
    (folder / "custom_st.py").write_text(HEAD, encoding="utf-8")
    (folder / "2_Head").mkdir()
    (folder / "2_Head" / "config.json").write_text(json.dumps({"tasks": ["a/b", "c"]}), encoding="utf-8")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules.insert(1, {"idx": 2, "name": "head", "path": "2_Head", "type": "custom_st.Head", "kwargs": ["task"]})
    (folder / "modules.json").write_text(json.dumps(modules[:2]), encoding="utf-8")
    refused = cli("to-onnx", folder, tmp_path / "onnx", "--trust-remote-code")
    assert refused.code == 1
    assert "[head] Head takes a task" in refused.err
    assert "--task" in refused.err
    ran = cli("to-onnx", folder, tmp_path / "onnx", "--trust-remote-code", "--task", "a/b", "--task", "c")
    assert ran.code == 0, ran.err
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    assert_tasks(sbertconv.load(tmp_path / "onnx"), {task: model.encode(TEXTS, task=task) for task in ("a/b", "c")})


def adapted(**names: float) -> SentenceTransformer:
    """A BERT with an adapter of each name, the last one active."""
    peft = pytest.importorskip("peft")
    module: Any = st.Transformer(str(tiny.transformer_folder("bert")))
    for seed, (name, alpha) in enumerate(names.items()):
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=["query", "value"], init_lora_weights=False)
        module.model.add_adapter(config, name)
    module.model.set_adapter(list(names)[-1])
    return cases.chain(module, cases.pooling())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Already found a `peft_config`")
def test_live_adapters_become_a_graph_for_each(tmp_path: Path) -> None:
    model = adapted(legal=8, medical=16, unused=4)
    inner: Any = model[0].model
    expected = {}
    for name in ("legal", "medical"):
        inner.set_adapter(name)
        expected[name] = model.encode(TEXTS)
    assert np.abs(expected["legal"] - expected["medical"]).max() > 0.1
    trained = [weight.requires_grad for weight in model.parameters()]
    artifact = sbertconv.to_onnx(model, tmp_path / "model", tasks=["legal", "medical"])
    assert_tasks(sbertconv.load(artifact.folder), expected)
    assert inner.active_adapters() == ["medical"]
    assert [weight.requires_grad for weight in model.parameters()] == trained
    assert sbertconv.verify(model, artifact.folder).passed
    with pytest.raises(sbertconv.UnsupportedOptionError, match=r"no such adapters.*have: legal, medical, unused"):
        sbertconv.to_onnx(model, tmp_path / "other", tasks=["legal", "financial"])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Already found a `peft_config`")
def test_of_several_adapters_the_active_one_is_said(tmp_path: Path) -> None:
    model = adapted(legal=8, medical=16)
    artifact = sbertconv.to_torch(model, tmp_path / "model")
    said = "Of its adapters legal, medical this is with medical; tasks= makes a graph for each that it names."
    assert said in artifact.manifest["notes"]
    ours = sbertconv.load(artifact.folder, format="torch").encode(TEXTS)
    np.testing.assert_allclose(ours, model.encode(TEXTS), atol=1e-5)
