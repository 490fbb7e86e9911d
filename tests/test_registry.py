"""The table of converters: exact classes, string keys, duplicates, and plugins of other packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import torch
from conftest import PLUGIN, TEXTS, Ran, importable, install_plugin, snapshot
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

import sbertconv
from sbertconv import DuplicateConverterError, Registry, SbertconvError, UnsupportedModuleError
from sbertconv.converters import default_registry


class Base(torch.nn.Module):
    pass


class Child(Base):
    pass


def one(module: Any, context: Any) -> Any:
    return lambda features: features


def two(module: Any, context: Any) -> Any:
    return lambda features: features


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add("onnx", Base, one)
    return registry


@pytest.mark.parametrize("key", [Base, "acme.nn.Whiten"])
def test_a_duplicate_raises_unless_override_is_said(key: type | str) -> None:
    registry = Registry()
    registry.add("onnx", key, one)
    with pytest.raises(DuplicateConverterError, match=r"(Base|Whiten) to 'onnx'.*\n.*override=True"):
        registry.add("onnx", key, two)
    registry.add("onnx", key, two, override=True)
    registry.add("other", key, one)
    assert list(registry.supported("onnx").values()) == [two]
    assert registry.backends == ("onnx", "other")


def test_the_exact_class_is_found_and_a_subclass_is_not(registry: Registry) -> None:
    assert registry.find("onnx", Base) is one
    assert registry.find("onnx", Base()) is one
    assert registry.find("onnx", Child()) is None
    assert registry.find("other", Base()) is None


@pytest.mark.parametrize(
    ("key", "module", "name"),
    [
        (f"{__name__}.Base", __name__, "Base"),
        ("own_modules.Whiten", "transformers_modules._2Fsome_2Ffolder.own_modules", "Whiten"),
    ],
)
def test_a_string_key_names_a_class_that_cannot_be_imported_beforehand(key: str, module: str, name: str) -> None:
    registry = Registry()
    registry.add("onnx", key, one)
    own = type(name, (torch.nn.Module,), {"__module__": module})
    stranger = type(name, (torch.nn.Module,), {"__module__": "elsewhere"})
    assert registry.find("onnx", own()) is one
    assert registry.find("onnx", stranger()) is None


def test_supported_is_the_table_by_name_and_cannot_be_changed() -> None:
    supported = default_registry().supported("onnx")
    own_modules = {
        "BoW", "CLIPModel", "CNN", "Dense", "Dropout", "LayerNorm", "LSTM", "Normalize", "Pooling", "Router",
        "StaticEmbedding", "Transformer", "WeightedLayerPooling", "WordEmbeddings", "WordWeights",
    }  # fmt: skip
    assert {name.rsplit(".", 1)[-1] for name in supported} >= own_modules
    assert all(name.startswith("sentence_transformers.") for name in supported)
    with pytest.raises(TypeError):
        supported["x"] = one  # type: ignore[index]


class DoubledNormalize(st.Normalize):
    """A subclass that overrides forward: Normalize's converter would give vectors of length 1."""

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        features = super().forward(features)
        features["sentence_embedding"] = 2 * features["sentence_embedding"]
        return features


def test_a_subclass_of_a_known_module_is_traced_and_converts_right(tmp_path: Path) -> None:
    model = cases.chain(cases.static_embedding(), DoubledNormalize())
    embedder = sbertconv.load(sbertconv.to_onnx(model, tmp_path / "model").folder)
    embeddings = embedder.encode(["a text"])
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx([2])
    assert embeddings == pytest.approx(model.encode(["a text"]), abs=1e-5)


def whitened_model(whiten: Any) -> SentenceTransformer:
    random = np.random.default_rng(4)
    return cases.chain(cases.static_embedding(), whiten.Whiten(random.normal(size=32), random.normal(size=(32, 8))))


def test_the_plugin_is_needed_and_passes_parity(whiten_site: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    with importable(PLUGIN, "sbertconv_whiten"):  # the module, but no entry point
        import sbertconv_whiten

        model = whitened_model(sbertconv_whiten)
        with pytest.raises(UnsupportedModuleError, match=r"1 of 2 modules is unsupported[\s\S]*\[1\] Whiten: no conv"):
            sbertconv.to_onnx(model, target)
    assert not target.exists()
    with importable(whiten_site, "sbertconv_whiten"):
        import sbertconv_whiten

        model = whitened_model(sbertconv_whiten)
        artifact = sbertconv.to_onnx(model, target)
    assert artifact.manifest["parity"]["passed"]
    assert artifact.manifest["embedding_dimension"] == 8
    assert sbertconv.load(target).encode(TEXTS) == pytest.approx(model.encode(TEXTS), abs=1e-5)


def test_the_plugin_converts_to_keras_and_its_file_loads_without_it(whiten_site: Path, tmp_path: Path) -> None:
    with importable(whiten_site, "sbertconv_whiten"):
        import sbertconv_whiten

        model = whitened_model(sbertconv_whiten)
        sbertconv.to_tf(model, tmp_path / "model", formats=["keras"])
        expected = model.encode(TEXTS)
    assert sbertconv.load(tmp_path / "model").encode(TEXTS) == pytest.approx(expected, abs=1e-5)


def test_the_plugin_converts_a_saved_model_on_the_command_line(
    whiten_site: Path, tmp_path: Path, cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with importable(whiten_site, "sbertconv_whiten"):
        import sbertconv_whiten

        model = whitened_model(sbertconv_whiten)
        model.save_pretrained("saved")
        refused = cli("to-onnx", "saved")
        ran = cli("to-onnx", "saved", "--trust-remote-code")
    assert refused.code == 1
    assert "sbertconv_whiten.Whiten" in refused.err
    assert ran.code == 0, ran.err
    found = sbertconv.load(tmp_path / "saved-onnx", verify=True).encode(TEXTS)
    assert found == pytest.approx(model.encode(TEXTS), abs=1e-5)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("def register(registry):\n    raise RuntimeError('the disk of acme is full')\n", "the disk of acme is full"),
        ("import acme_is_not_installed\n", "acme_is_not_installed"),
        ("", "register"),
        (
            "def register(registry):\n"
            "    from sentence_transformers.sentence_transformer.modules import Normalize\n"
            "    registry.add('onnx', Normalize, lambda module, context: None)\n",
            "registered already",
        ),
    ],
    ids=["raises", "not importable", "no register", "duplicate"],
)
def test_a_broken_plugin_is_named(
    module: str, reason: str, tmp_path: Path, static_folder: Path, cli: Callable[..., Ran]
) -> None:
    install_plugin(tmp_path, "acme-converters", module, {"acme": "acme_converters:register"})
    with importable(tmp_path, "acme_converters"):
        before = snapshot(tmp_path)
        with pytest.raises(SbertconvError, match=rf"(?s)acme.*{reason}|{reason}.*acme"):
            default_registry()
        ran = cli("to-onnx", static_folder, tmp_path / "model")
    assert ran.code == 1
    assert "acme" in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "model").exists()
    assert {name for name in snapshot(tmp_path) if "__pycache__" not in name} == set(before)
