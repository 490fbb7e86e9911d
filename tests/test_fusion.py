"""Fusion on graphs of one attention, written in every way that the rules know, and on a converted model.

That every attention of every architecture is fused is part of the parity table (`cases.attentions`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import openvino
import pytest
from onnxscript import optimizer

import sbertconv
from sbertconv.converters.onnx import fusion
from sbertconv.converters.onnx.backend import name_axes
from sbertconv.converters.onnx.compat import exact_constants
from sbertconv.converters.onnx.fusion import fuse
from sbertconv.converters.onnx.fusion.counting import count_attention
from sbertconv.converters.onnx.fusion.padding import zero_unattended
from sbertconv.converters.onnx.saving import save_graph
from sbertconv.converters.onnx.writer import _unfused

BATCH, HEADS, LENGTH, SIZE = 3, 2, 5, 4
INPUTS = {
    "q": f"float[{BATCH},{HEADS},{LENGTH},{SIZE}]",
    "k": f"float[{BATCH},{HEADS},{LENGTH},{SIZE}]",
    "v": f"float[{BATCH},{HEADS},{LENGTH},{SIZE}]",
    "bias": f"float[1,{HEADS},{LENGTH},{LENGTH}]",
    "angles": f"float[1,1,{LENGTH},{SIZE // 2}]",
    "hidden": f"bool[{BATCH},1,1,{LENGTH}]",
}
CONSTANTS = """float half = {0.5}, float lowest = {-3.0e38}, float little = {-9.0}, float zero = {0.0},
    float[4, 4] square = {1, 2, 0, 0, 0, 1, 3, 0, 0, 0, 1, 4, 5, 0, 0, 1},
    int64[3] merged = {-1, 5, 4}, int64[3] merged_scores = {-1, 5, 5}, int64[4] split = {-1, 2, 5, 5},
    int64[4] result_shape = {-1, 2, 5, 4}, int64[1] first = {0}, int64[1] middle = {2}, int64[1] last = {4},
    int64[1] axis = {3}, int64[1] step = {1}, int64[3] joined = {3, 5, 8}, int64[4] heads = {3, 5, 2, 4},
    int64[2] as_rows = {-1, 4}"""
KEYS = "kt = Transpose <perm = [0, 1, 3, 2]> (k)"
VALUES = "weights = Softmax <axis = -1> (scores)  result = MatMul (weights, v)"

FUSED = {
    "plain": f"{KEYS} scores = MatMul (q, kt) {VALUES}",
    "scaled keys": f"{KEYS} ks = Mul (kt, half) scores = MatMul (q, ks) {VALUES}",
    "scaled, then a bias": f"{KEYS} p = MatMul (q, kt) s = Div (p, half) scores = Add (s, bias) {VALUES}",
    "a bias, then scaled": f"{KEYS} p = MatMul (q, kt) s = Add (bias, p) scores = Mul (s, half) {VALUES}",
    "two biases": f"{KEYS} p = MatMul (q, kt) s = Add (p, bias) t = Mul (s, half) scores = Add (t, bias) {VALUES}",
    "a bias subtracted": f"{KEYS} p = MatMul (q, kt) scores = Sub (p, bias) {VALUES}",
    "hidden": f"{KEYS} p = MatMul (q, kt) scores = Where (hidden, lowest, p) {VALUES}",
    "seen": f"{KEYS} p = MatMul (q, kt) seen = Not (hidden) scores = Where (seen, p, lowest) {VALUES}",
    "a bias, then hidden": f"{KEYS} p = MatMul (q, kt) s = Add (p, bias) scores = Where (hidden, lowest, s) {VALUES}",
    "heads merged": """
        qm = Reshape (q, merged) km = Reshape (k, merged) vm = Reshape (v, merged)
        kt = Transpose <perm = [0, 2, 1]> (km) ks = Mul (kt, half) p = MatMul (qm, ks) u = Add (bias, hidden_bias)
        um = Reshape (u, merged_scores) s = Add (p, um) scores = Reshape (s, split)
        weights = Softmax <axis = -1> (scores)
        wm = Reshape (weights, merged_scores) rm = MatMul (wm, vm) result = Reshape (rm, result_shape)""",
    "heads merged, then scaled, a bias of one row": f"""
        qm = Reshape (q, merged) km = Reshape (k, merged) kt = Transpose <perm = [0, 2, 1]> (km) p = MatMul (qm, kt)
        u = Add (bias, hidden_bias) um = Reshape (u, merged_scores) row = ReduceMax (um, step)
        s = Mul (p, half) t = Add (s, row) scores = Reshape (t, split) {VALUES}""",
    "einsum": """
        qe = Transpose <perm = [2, 0, 1, 3]> (q) ke = Transpose <perm = [2, 0, 1, 3]> (k)
        ve = Transpose <perm = [2, 0, 1, 3]> (v) p = Einsum <equation = "ibnd,jbnd->bnij"> (qe, ke)
        s = Add (p, bias) scores = Mul (s, half) weights = Softmax <axis = 3> (scores)
        re = Einsum <equation = "bnij,jbnd->ibnd"> (weights, ve) result = Transpose <perm = [1, 2, 0, 3]> (re)""",
    "heads joined into rows of tokens": """
        qt = Transpose <perm = [0, 2, 1, 3]> (q) kt = Transpose <perm = [0, 2, 1, 3]> (k)
        vt = Transpose <perm = [0, 2, 1, 3]> (v) qj = Reshape (qt, joined) kj = Reshape (kt, joined)
        vj = Reshape (vt, joined) qr = Relu (qj) kr = Relu (kj) vr = Relu (vj) qs = Reshape (qr, heads)
        ks = Reshape (kr, heads) vs = Reshape (vr, heads) qh = Transpose <perm = [0, 2, 1, 3]> (qs)
        kh = Transpose <perm = [0, 2, 1, 3]> (ks) vh = Transpose <perm = [0, 2, 1, 3]> (vs)
        khh = Transpose <perm = [0, 1, 3, 2]> (kh) scores = MatMul (qh, khh) weights = Softmax <axis = -1> (scores)
        a = MatMul (weights, vh) at = Transpose <perm = [0, 2, 1, 3]> (a) rows = Reshape (at, as_rows)
        mixed = Gemm (rows, square) back = Reshape (mixed, heads) result = Transpose <perm = [0, 2, 1, 3]> (back)""",
}
# What would give other numbers in a fused operator, or was never attention.
NOT_FUSED = {
    "hidden by little": f"{KEYS} p = MatMul (q, kt) scores = Where (hidden, little, p) {VALUES}",
    "a factor for each score": f"{KEYS} p = MatMul (q, kt) scores = Mul (p, bias) {VALUES}",
}
ROTARY = """
    cos = Cos (both) sin = Sin (both) x = Slice (q, first, middle, axis, step) y = Slice (q, middle, last, axis, step)
    minus = Neg (y) turned = Concat <axis = -1> (minus, x) a = Mul (q, cos) b = Mul (turned, sin) result = Add (a, b)"""
# Other graphs: what they compute, and an operator that they then have or lack.
OTHERS = {
    "rotary": (f"both = Concat <axis = -1> (angles, angles) {ROTARY}", "RotaryEmbedding", 1),
    "two kinds of angles": (
        f"others = Neg (angles) both = Concat <axis = -1> (angles, others) {ROTARY}",
        "RotaryEmbedding",
        0,
    ),
    "rows of every text, and a matrix": (
        """turned = Transpose <perm = [1, 2, 0, 3]> (q) p = MatMul (turned, square) s = Div (p, half)
        result = Transpose <perm = [2, 0, 1, 3]> (s)""",
        "FusedMatMul",
        1,
    ),
    "a part of a weight, without its steps": (
        "part = Slice (square, first, last, first) result = MatMul (q, part)",
        "Slice",
        0,
    ),
    "einsum with broadcasting": ('result = Einsum <equation = "bhtu,bhus->bhts"> (bias, v)', "Einsum", 1),
    "einsum that sums alone": ('result = Einsum <equation = "bhts,bhus->bhts"> (q, k)', "Einsum", 1),
    "rows and columns": (
        'p = Einsum <equation = "bhts,bhus->bhut"> (q, k) result = Einsum <equation = "bhut,bhts->bhus"> (p, v)',
        "Einsum",
        0,
    ),
}


def one_attention(body: str) -> onnx.ModelProto:
    inputs = ", ".join(f"{type_} {name}" for name, type_ in INPUTS.items())
    body = f"hidden_bias = Where (hidden, lowest, zero) {body}"
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
        attention ({inputs}) => ({INPUTS["q"]} result) <{CONSTANTS}> {{ {body} }}"""
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    onnx.checker.check_model(model)
    return model


def tensors() -> dict[str, Any]:
    random = np.random.default_rng(4)
    feed: dict[str, Any] = {name: random.normal(size=(BATCH, HEADS, LENGTH, SIZE)).astype(np.float32) for name in "qkv"}
    feed["bias"] = random.normal(size=(1, HEADS, LENGTH, LENGTH)).astype(np.float32)
    feed["angles"] = random.normal(size=(1, 1, LENGTH, SIZE // 2)).astype(np.float32)
    feed["hidden"] = np.arange(LENGTH) >= np.array([5, 3, 1]).reshape(BATCH, 1, 1, 1)
    return feed


def run(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    used = {value.name for value in session.get_inputs()}
    return np.asarray(session.run(None, {name: value for name, value in tensors().items() if name in used})[0])


@pytest.mark.parametrize("name", [*FUSED, *NOT_FUSED])
def test_one_attention(name: str) -> None:
    original = one_attention((FUSED | NOT_FUSED)[name])
    expected, model = run(original), onnx_ir.from_proto(original)
    assert count_attention(model) == {"found": 1, "fused": 0}
    fuse(model)
    assert count_attention(model) == {"found": 1, "fused": int(name in FUSED)}
    np.testing.assert_allclose(run(onnx_ir.to_proto(model)), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_other_graphs(name: str) -> None:
    body, operator, count = OTHERS[name]
    original = one_attention(body)
    expected, model = run(original), onnx_ir.from_proto(original)
    fuse(model)
    assert sum(node.op_type == operator for node in model.graph) == count
    np.testing.assert_allclose(run(onnx_ir.to_proto(model)), expected, atol=1e-6, rtol=1e-5)


def test_a_factor_transposed_with_its_first_axis_is_the_same_in_openvino() -> None:
    original = one_attention(
        """rows = Transpose <perm = [1, 2, 0, 3]> (q) columns = Transpose <perm = [1, 2, 3, 0]> (k)
        values = Transpose <perm = [1, 2, 0, 3]> (v) p = MatMul (rows, columns) s = Div (p, half)
        mixed = MatMul (s, values) result = Transpose <perm = [2, 0, 1, 3]> (mixed)"""
    )
    model = onnx_ir.from_proto(original)
    fuse(model)
    made = onnx_ir.to_proto(model)
    assert "FusedMatMul" in {node.op_type for node in made.graph.node}
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(made.SerializeToString()), "CPU", exact)
    found = compiled({name: tensor for name, tensor in tensors().items() if name in "qkv"})[0]
    np.testing.assert_allclose(found, run(original), atol=1e-6, rtol=1e-5)


def test_a_softmax_that_weighs_nothing_is_no_attention() -> None:
    model = onnx_ir.from_proto(
        one_attention(f"{KEYS} p = MatMul (q, kt) w = Softmax (p) r = Mul (w, w) result = Relu (q)")
    )
    assert count_attention(model) == {"found": 0, "fused": 0}


SMALL_NUMBERS = """<ir_version: 10, opset_import: ["" : 18]> agraph (float[batch,4] x) => (float[batch,4] y)
    <float epsilon = {1e-8}, float factor = {1.000005}, float zero = {0.0}, float one = {1.0}>
    { a = Add (x, epsilon)  b = Mul (factor, a)  c = Add (zero, b)  y = Mul (c, one) }"""


def test_an_epsilon_is_not_taken_for_zero_nor_a_factor_for_one() -> None:
    model, other = onnx_ir.from_onnx_text(SMALL_NUMBERS), onnx_ir.from_onnx_text(SMALL_NUMBERS)
    with exact_constants():
        optimizer.optimize(model)
    assert [node.op_type for node in model.graph] == ["Add", "Mul"]
    optimizer.optimize(other)
    assert [node.op_type for node in other.graph] == ["Identity"], "the optimizer is as it was"


def test_unfused_attentions_are_noted() -> None:
    graph = {"name": "text", "attention": {"found": 12, "fused": 12}}
    assert _unfused(graph) is None
    graph["attention"] = {"found": 12, "fused": 11}
    assert _unfused(graph) == "text: 1 of 12 attentions are not fused."


def stop(model: onnx_ir.Model, tied: bool) -> None:
    raise ValueError("nothing fits")


def spoil(model: onnx_ir.Model, tied: bool) -> None:
    weight = next(value for value in model.graph.initializers.values() if value.dtype == onnx_ir.DataType.FLOAT)
    weight.const_value = onnx_ir.tensor(-weight.const_value.numpy(), name=weight.name)


@pytest.mark.parametrize(
    ("wrong", "why"), [(stop, "The graph cannot be fused: "), (spoil, "Parity failed for 'onnx': ")]
)
def test_a_graph_that_cannot_be_fused_is_written_without_and_says_why(
    wrong: Any, why: str, static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion, "fuse", wrong)
    manifest = sbertconv.to_onnx(static_folder, tmp_path / "model").manifest
    assert manifest["parity"]["passed"]
    assert not manifest["optimized"]
    assert any(f"without fused operators. With them: {why}" in note for note in manifest["notes"])


def test_what_a_fused_model_consists_of(bert_artifact: Path) -> None:
    nodes = onnx.load(bert_artifact / "onnx" / "model.onnx").graph.node
    counts = Counter(node.op_type for node in nodes)
    layers = 2
    assert counts["Attention"] == counts["BiasGelu"] == layers
    assert counts["LayerNormalization"] == 2 * layers + 1
    assert counts["Where"] == 1  # one mask for all layers, read from the input and not looked up
    assert not {"Softmax", "Erf", "GatherND", "SkipLayerNormalization", "Constant"} & set(counts)
    made_by = {output: node.op_type for node in nodes for output in node.output}
    sums = [made_by.get(node.input[0]) for node in nodes if node.op_type == "LayerNormalization"]
    assert set(sums) == {"Sum"}  # which the loader leaves as it is
    shapes = [node.input[0] for node in nodes if node.op_type == "Shape"]
    assert not set(shapes) & set(made_by)  # of inputs only


UNTYPED = """<ir_version: 10, opset_import: ["" : 18]> g
    (float[b, h, q, k] x, bool[b, h, q, k] mask, float[b, h, k, d] v) => (float[b, h, q, d] y)
    <float none = {0.0}, float lowest = {-1e30}>
    { bias = Where (mask, none, lowest) total = Add (x, bias) share = Softmax (total) odd = IsNaN (share)
      kept = Where (odd, none, share) mixed = MatMul (kept, v) y = Identity (mixed) }"""  # as TorchScript leaves it


def test_a_rule_on_values_of_no_known_type_leaves_a_graph_that_is_written(tmp_path: Path) -> None:
    model = onnx_ir.from_onnx_text(UNTYPED)
    zero_unattended(model)
    save_graph(model, tmp_path / "model.onnx", None)
    mask = np.array([[[[True, False], [False, False]]]])
    feeds = {"x": np.zeros((1, 1, 2, 2), np.float32), "mask": mask, "v": np.ones((1, 1, 2, 1), np.float32)}
    (found,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, feeds)
    assert found.ravel().tolist() == [1, 0]


@pytest.mark.parametrize("beside", [True, False], ids=["weights beside it", "one file"])
def test_a_graph_that_cannot_be_written_is_an_error_that_says_so(beside: bool, tmp_path: Path) -> None:
    model = onnx_ir.from_onnx_text(UNTYPED)
    model.graph[0].outputs[0].dtype = None
    with pytest.raises(sbertconv.ArtifactError, match=r"^The graph cannot be written: .+\nPass optimize=False\.$"):
        save_graph(model, tmp_path / "model.onnx", beside)


def test_an_axis_without_a_name_gets_none() -> None:
    """Two axes of one name are of one size to an engine, which reuses memory by it."""
    text = """<ir_version: 9, opset_import: ["" : 18]> g (int64[s1, s2] input_ids) => (int64[s2] y)
        { one = Constant <value_int = 1> () some = Range (one, one, one) shape = Shape (input_ids)
          last = Slice (shape, axis, two) y = Expand (one, last) axis = Constant <value_ints = [1]> ()
          two = Constant <value_ints = [2]> () }"""
    model = onnx_ir.from_proto(onnx.parser.parse_model(text))
    made = {value.name: value for node in model.graph for value in node.outputs}
    made["some"].shape, made["y"].shape = onnx_ir.Shape([None]), onnx_ir.Shape(["s2"])
    name_axes(model)
    assert (made["some"].shape, made["y"].shape) == (onnx_ir.Shape([None]), onnx_ir.Shape(["sequence"]))
