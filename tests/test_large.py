"""What a large model's conversion relies on: no weight is widened, turned or rounded before it is written, and each one
is written once. How much memory that takes is measured by `python -m bench.large`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import tiny
import torch
from conftest import TEXTS

import sbertconv
from sbertconv.converters.onnx.fusion import fuse
from sbertconv.converters.onnx.precision import as_bfloat16, as_float16, in_blocks
from sbertconv.converters.onnx.saving import save_graph
from sbertconv.converters.onnx.writer import FORMS
from sbertconv.runtime.openvino_compat import keep_bfloat16
from sbertconv.source import widening
from sbertconv.source.opening import open_source

SHARED = """<ir_version: 10, opset_import: ["" : 18]>
agraph (float[batch,64] x, int64[batch] ids) => (float[batch,192] y) {
    turned = Transpose <perm = [1, 0]> (weight)  other = Transpose <perm = [1, 0]> (weight)
    rows = Gather <axis = 0> (table, ids)  again = Gather <axis = 0> (table, ids)
    a = MatMul (x, turned)  b = MatMul (rows, other)  c = Add (a, b)  d = Add (rows, again)
    y = Concat <axis = 1> (c, d)
}"""


@pytest.fixture
def shared() -> onnx_ir.Model:
    """A graph with a product and a lookup, each of them twice with one weight."""
    model = onnx_ir.from_onnx_text(SHARED)
    random = np.random.default_rng(0)
    for name, rows in (("weight", 128), ("table", 80)):
        value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == name)
        value.const_value = onnx_ir.tensor(random.normal(size=(rows, 64)).astype(np.float32), name=name)
        value.type, value.shape = onnx_ir.TensorType(onnx_ir.DataType.FLOAT), value.const_value.shape
        model.graph.register_initializer(value)
    fuse(model)
    return model


WEIGHTS = (128 + 80) * 64
# Recipe -> bytes of the weights, scales included, each of them stored once.
RECIPES: dict[str, tuple[Callable[[onnx_ir.Model], onnx_ir.Model], int]] = {
    "fp32": (lambda model: model, 4 * WEIGHTS),
    "bf16": (lambda model: as_bfloat16(model, dict), 2 * WEIGHTS),
    "fp16": (lambda model: as_float16(model, dict), 2 * WEIGHTS),
    "int8": (lambda model: in_blocks(model, dict, bits=8, block=32), WEIGHTS + 4 * WEIGHTS // 32),
    "int4": (lambda model: in_blocks(model, dict, bits=4, block=32), WEIGHTS // 2 + 4 * WEIGHTS // 32),
}


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_openvino_keeps_bfloat16_weights_as_they_are(form: str, shared: onnx_ir.Model, tmp_path: Path) -> None:
    """In its file, and in memory, where it would hold a copy in float32 that is twice as large as the file."""
    import openvino

    draft, made = tmp_path / "draft.onnx", tmp_path / "made.onnx"
    save_graph(shared, draft, external_data=False)
    save_graph(as_bfloat16(onnx_ir.load(draft), dict), made, external_data=False)
    path = tmp_path / "made.xml" if form == "openvino" else made
    FORMS[form].write(made, path)
    core = openvino.Core()
    compiled = core.compile_model(keep_bfloat16(core.read_model(path)), "CPU")
    found = Counter()
    for node in compiled.get_runtime_model().get_ops():
        if node.get_rt_info()["layerType"].value == "Const":
            found[node.get_rt_info()["outputPrecisions"].value] += np.prod(node.get_output_shape(0))
    assert found["f32"] == 0 < found["bf16"]
    weights = path.with_suffix(".bin") if form == "openvino" else path
    assert 2 * WEIGHTS <= weights.stat().st_size < 2 * WEIGHTS + 4000


@pytest.mark.parametrize("name", RECIPES)
def test_a_shared_weight_is_made_when_it_is_written_and_stored_once(
    name: str, shared: onnx_ir.Model, tmp_path: Path
) -> None:
    recipe, expected = RECIPES[name]
    draft = tmp_path / "draft.onnx"
    save_graph(shared, draft, external_data=True)
    model = recipe(onnx_ir.load(draft))
    weights = [value.const_value for value in model.graph.initializers.values()]
    assert {type(weight) for weight in weights} <= {onnx_ir.LazyTensor, onnx_ir.ExternalTensor}
    assert sum(weight.nbytes for weight in weights) == expected
    for external_data, file in ((True, "made.onnx_data"), (False, "whole.onnx")):
        path = tmp_path / file.removesuffix("_data")
        save_graph(model, path, external_data)
        assert expected <= (tmp_path / file).stat().st_size < expected + 4000
    whole, parts = (onnx_ir.load(tmp_path / name).graph.initializers for name in ("whole.onnx", "made.onnx"))
    assert {name: value.const_value.tobytes() for name, value in whole.items()} == {
        name: value.const_value.tobytes() for name, value in parts.items()
    }


@pytest.fixture
def half_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A checkpoint in bfloat16 of an architecture, all of its weights large enough to be left there."""
    monkeypatch.setattr(widening, "SMALLEST", 1)

    def build(name: str) -> Path:
        model = tiny.architecture(name)
        model[0].to(torch.bfloat16)
        model.save_pretrained(str(tmp_path / name))
        return tmp_path / name

    return build


# A table of positions that no module looks up, a projection that asks for its weight's dtype, scaled embeddings.
@pytest.mark.parametrize("name", ["deberta-v2", "t5", "gemma3_text"])
def test_weights_left_in_half_precision_give_the_embeddings_of_float32(
    name: str, half_folder: Callable[[str], Path]
) -> None:
    found = []
    for late in (True, False):
        with open_source(half_folder(name)).loaded(widened_late=late) as model:
            left = [isinstance(weight, widening.Widened) for weight in model.parameters()]
            assert (all if late else (lambda states: not any(states)))(left)
            assert {weight.dtype for weight in model.parameters()} == {torch.float32}
            found.append(model.encode(TEXTS))
    np.testing.assert_array_equal(*found)


def test_a_weight_that_is_written_to_keeps_what_was_written() -> None:
    half = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    weight = torch.nn.Parameter(widening.Widened([half]))
    with torch.no_grad():
        weight.mul_(0.1)
        weight.data += 1 / 3
    assert torch.equal(weight + 0, half.float() * 0.1 + 1 / 3)


def test_a_half_precision_checkpoint_is_converted_without_being_widened_at_once(
    half_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widening, "widen", pytest.fail)  # for TorchScript alone
    artifact = sbertconv.to_onnx(half_folder("albert"), tmp_path / "out", external_data=True)  # its layers share theirs
    graph = onnx.load(artifact.folder / "onnx/model.onnx")
    large = [tensor.raw_data for tensor in graph.graph.initializer if len(tensor.raw_data) > 1024]
    assert len(large) == len(set(large)) > 5
    with open_source(tmp_path / "albert").loaded() as model:
        np.testing.assert_allclose(sbertconv.load(artifact.folder).encode(TEXTS), model.encode(TEXTS), atol=1e-5)
