"""Fuses a graph into ONNX Runtime's own operators (domain com.microsoft).

onnxscript's fusions do most of it, on the forms in which most models write attention and normalisation.
The rules below bring other forms into those (`PREPARING`) and fuse what is left afterwards (`FINISHING`).
They look at operations and shapes, never at which architecture the graph came from.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from onnxscript.rewriter import pattern
from onnxscript.rewriter.ort_fusions import optimize_for_ort
from onnxscript.rewriter.ort_fusions.sdpa import fuse_sdpa
from onnxscript.rewriter.rules.common import expand_before_binary_op_rules

from sbertconv.converters.onnx.fusion.heads import (
    AttentionAsRows,
    NormBetweenTransposes,
    PackedHeads,
    RepeatedHeads,
    SumOfBranches,
)
from sbertconv.converters.onnx.fusion.norms import NormOfSum, SplitSkipNorm
from sbertconv.converters.onnx.fusion.products import BatchTransposed, LinearOnRows, PairEinsum
from sbertconv.converters.onnx.fusion.rotary import Rotary
from sbertconv.converters.onnx.fusion.scores import AttentionWithoutKernel, OneBias, UnmergedValues
from sbertconv.converters.onnx.fusion.shapes import GatheredMask, GatheredRange, InputShape, ReshapedBack
from sbertconv.converters.onnx.fusion.weights import share_equal_weights, slice_weights, transpose_weights


def fuse(model: ir.Model, tied: bool = True) -> None:
    """Replace attention, normalisation, activations and rotary embeddings by ONNX Runtime's operators, in place.

    Args:
        model: a graph as it was traced, float32, its batch and sequence dynamic.
        tied: whether a weight that is used as it is and transposed is written once.

    Raises:
        ValueError: for a graph whose shapes cannot be inferred.
    """
    inputs, names = list(model.graph.inputs), [str(value.name) for value in model.graph.outputs]
    slice_weights(model, tied)
    transpose_weights(model, tied)
    passes.ShapeInferencePass()(model)
    optimizer.optimize(model)
    for rule in PREPARING:
        rule.apply_to_model(model)
    # Before the optimizer runs again: it merges transposes into forms that the attention fusion does not know.
    passes.RemoveUnusedNodesPass()(model)
    fuse_sdpa(model)
    optimize_for_ort(model, clear_metadata=True)
    for rule in FINISHING:
        rule.apply_to_model(model)
    passes.IdentityEliminationPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.DeduplicateInitializersPass()(model)
    share_equal_weights(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    name_outputs(model, names)
    if list(model.graph.inputs) != inputs:  # an inference that fails leaves weights there
        raise ValueError("its shapes cannot be inferred")


def name_outputs(model: ir.Model, names: Sequence[str]) -> None:
    """Give the outputs these names; outputs that rules have made one tensor, as of a copy, are several again."""
    outputs = model.graph.outputs
    for place, name in enumerate(names):
        if (value := outputs[place]) in outputs[:place]:
            copied = ir.node("Identity", [value])
            model.graph.append(copied)
            outputs[place] = copied.outputs[0]
            outputs[place].type, outputs[place].shape = value.type, value.shape
        outputs[place].name = name


# Both in this order, each rule on what the ones before left.
PREPARING: tuple[pattern.RewriteRule, ...] = tuple(
    rule.rule()
    for rule in (
        LinearOnRows,
        PairEinsum,
        SumOfBranches,
        PackedHeads,
        UnmergedValues,
        OneBias,
        Rotary,
        GatheredMask,
        GatheredRange,
        InputShape,
    )
)
FINISHING: tuple[pattern.RewriteRule, ...] = (
    AttentionWithoutKernel.rule(),
    AttentionAsRows.rule("MultiHeadAttention"),
    AttentionAsRows.rule("Attention"),
    AttentionAsRows.rule("GroupQueryAttention"),
    BatchTransposed.rule(),
    NormBetweenTransposes.rule(),
    RepeatedHeads.rule(),
    ReshapedBack.rule(),
    *expand_before_binary_op_rules,
    SplitSkipNorm.rule("SkipNorm", "LayerNormalization", bias=4),
    SplitSkipNorm.rule("SkipRMSNorm", "SimplifiedLayerNormalization", bias=3),
    NormOfSum.rule("NormOfSum", "LayerNormalization"),
    NormOfSum.rule("RMSNormOfSum", "SimplifiedLayerNormalization"),
)
