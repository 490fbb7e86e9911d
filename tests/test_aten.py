"""Every row of the table of operations against PyTorch's own operation, values and dtypes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("keras")

import keras

from sbertconv.converters.keras.tracing import DTYPES, NEW_TENSORS
from sbertconv.layers.aten import ATEN, dtype_of

RANDOM = np.random.default_rng(3)
ALL = 2**63 - 1  # "to the end", in torch


def real(*shape: int, low: float = -2.0, high: float = 2.0) -> torch.Tensor:
    return torch.from_numpy(RANDOM.uniform(low, high, shape).astype("float32"))


def whole(*shape: int, low: int = -5, high: int = 6) -> torch.Tensor:
    return torch.from_numpy(RANDOM.integers(low, high, shape))


def true(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RANDOM.random(shape) < 0.5)


X = real(3, 4, 5)
POSITIVE = real(3, 4, low=0.1)
UNIT = real(3, 4, low=-0.99, high=0.99)
INT = whole(3, 4)
MASK = true(3, 4)
HALVES = torch.tensor([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5])
HEADS = [real(2, 4, 6, 8) for _ in range(3)]
FEW_HEADS = [HEADS[0], *(real(2, 2, 6, 8) for _ in range(2))]
ATTEND = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
ATTEND[1, :, :2] = False  # these may attend to nothing
F32, I64 = torch.float32, torch.int64

Args = tuple[Any, ...]
# operation -> what it is called with: positional arguments, and keyword arguments in a dict at the end.
CASES: dict[str, list[Args]] = {
    # shapes
    "view.default": [(X, [3, 20]), (X, [-1, 2, 5]), (torch.tensor(2.0), [1, 1])],
    "_unsafe_view.default": [(X, [3, 20])],
    "reshape.default": [(X, [3, 20]), (X, [-1, 2, 5])],
    "expand.default": [
        (real(3, 1, 5), [3, 4, 5]), (real(4, 1), [2, -1, 5]), (torch.tensor(1.0), [2, 3]), (real(3, 1, 0), [3, 2, 0]),
    ],
    "squeeze.default": [(real(1, 3, 1),), (X,)],
    "squeeze.dim": [(real(1, 3, 1), -1), (real(1, 3, 1), 0), (X, 1)],
    "squeeze.dims": [(real(1, 3, 1), [0, -1]), (real(1, 3, 1), [0, 1])],
    "unsqueeze.default": [(X, 0), (X, -1), (X, 2)],
    "transpose.int": [(X, 0, 2), (X, -1, -2)],
    "t.default": [(real(3, 4),), (real(3),)],
    "permute.default": [(X, [2, 0, 1]), (X, [0, -1, -2])],
    "slice.Tensor": [(X,), (X, 1), (X, 1, 1, 3), (X, -1, 1, ALL), (X, 2, -3, -1), (X, 2, 0, ALL, 2), (X, 1, 1, 99)],
    "select.int": [(X, 0, 1), (X, -1, -1), (X, 1, 2)],
    "split.Tensor": [(X, 2, -1), (X, 2, 1), (X, 1)],
    "split_with_sizes.default": [(X, [1, 4], -1), (X, [2, 1])],
    "unbind.int": [(X,), (X, -1)],
    "cat.default": [([X, X], -1), ([X, X],), ([torch.zeros(0), X], -2), ([INT, POSITIVE], 1)],
    "stack.default": [([X, X],), ([X, X], -1), ([X, X], 1)],
    "repeat.default": [(X, [1, 2, 1]), (X, [2, 1, 1, 3])],
    "repeat_interleave.self_int": [(X, 2, 1), (X, 3, -1), (X, 2)],
    "flip.default": [(X, [0]), (X, [1, -1])],
    "roll.default": [(X, [1], [-1]), (X, [1, -2], [0, 1]), (X, [3])],
    "constant_pad_nd.default": [(X, [1, 2]), (X, [0, 0, 1, 0], -3.5), (X, [-1, 2]), (X, [1, -2, -1, 0]),
        (INT, [1, 0], 7)],
    "unfold.default": [(X, 1, 3, 1), (X, -1, 2, 2), (X, 0, 3, 1)],
    "im2col.default": [(real(2, 3, 7, 1), [3, 1], [1, 1], [1, 0], [1, 1]),
        (real(2, 3, 8, 9), [2, 3], [2, 1], [0, 1], [1, 2])],
    "diagonal.default": [(X,), (X, 1, 1, 2), (X, -1, -1, 0)],
    "sym_size.int": [(X, 0), (X, -1)],
    "sym_numel.default": [(X,)],
    # lookups
    "index.Tensor": [
        (X, [torch.tensor([2, 0, -1])]),
        (X, [None, torch.tensor([[1, -1], [0, 3]])]),
        (X, [torch.arange(3)[:, None], torch.tensor([[0, 1]])]),
        (X, [None, torch.arange(4)[:, None], torch.tensor([[0, -1]])]),
        (X, [torch.arange(2), None, torch.tensor([1, -1])]),
        (real(2, 3, 4, 5), [None, torch.arange(2)[:, None], None, torch.tensor([[1, -1, 0]])]),
    ],
    "index_select.default": [(X, 1, torch.tensor([3, 0])), (X, -1, torch.tensor([0]))],
    "gather.default": [
        (X, -1, whole(3, 4, 2, low=0, high=5)),
        (X, 1, whole(3, 6, 5, low=0, high=4)),
        (X, 1, whole(2, 1, 3, low=0, high=4)),
    ],
    "embedding.default": [(real(7, 3), whole(2, 4, low=0, high=7)),
        (real(7, 3), whole(4, low=0, high=7), 0, False, False)],
    "scatter.src": [
        (X, -1, torch.tensor([[[1, 3]] * 4] * 3), real(3, 4, 2)),
        (X, 1, torch.tensor([[[2] * 5, [0] * 5]] * 3), real(3, 2, 5)),
        (real(2, 3), 1, torch.tensor([[0], [2]]), torch.tensor([[-math.inf], [math.inf]])),
        (MASK, 1, torch.tensor([[0], [2], [3]]), true(3, 1)),
    ],
    "scatter.value": [
        (X, 2, torch.tensor([[[1, 3]] * 4] * 3), -math.inf),
        (INT, 0, torch.tensor([[1, 2, 0, 0]]), 9),
        (torch.zeros(3, 4), 1, whole(3, 2, low=0, high=4), 1),
    ],
    "scatter_reduce.two": [
        (real(6), 0, torch.tensor([0, 2, 2, 2, 5]), real(5), reduce)
        for reduce in ("sum", "mean", "prod", "amax", "amin")
    ] + [(X, 1, torch.tensor([[[1, 3], [1, 0]]] * 2), real(3, 4, 5), "mean")],
    "slice_scatter.default": [
        (X, real(3, 2, 5), 1, 1, 3), (X, real(3, 4, 2), -1, 3, ALL), (X, real(2, 4, 5), 0, -2),
        (INT, whole(3, 1), 1, 0, 1),
        (X, real(3, 4, 4), 2, 0, -1),
        (X, real(3, 4, 2), 2, 1, ALL, 2), (X, real(3, 2, 5), 1, 0, 3, 2), (X, real(1, 4, 5), 0, -2, -1, 3),
        (X, real(3, 4, 0), 2, 1, 1, 3), (X, real(3, 0, 5), 1, 2, 2),
    ],
    "select_scatter.default": [(X, real(3, 5), 1, 2), (X, real(3, 4), -1, -1), (X, real(4, 5), 0, 0)],
    "index_put.default": [
        (X, [X > 1], torch.tensor(0.5)),
        (X, [torch.tensor([2, 0])], real(2, 4, 5)),
        (X, [torch.tensor([2, 0]), torch.tensor([1, -1])], real(2, 5)),
        (real(3, 4), [torch.tensor([2, 0]), torch.tensor([1, 3])], torch.tensor(7.0)),
        (INT, [MASK], torch.tensor(7)),
        (torch.zeros(3, 4), [torch.tensor([1, 1, 2])], real(3, 4), True),
    ],
    # values
    "arange.default": [(5,), (5, {"dtype": F32}), (2.5,)],
    "arange.start": [(2, 7), (-1.0, 3.0), (2, 7, {"dtype": F32})],
    "arange.start_step": [(0, 9, 2), (5, 0, -2), (0.0, 1.0, 0.25), (0, 9, 2.0, {"dtype": I64})],
    "linspace.default": [(0, 1, 5), (-2.0, 3.0, 4)],
    "eye.default": [(3,), (3, {"dtype": torch.bool})],
    "eye.m": [(3, 4)],
    "full.default": [([2, 3], 1.5), ([2], 7), ([], True), ([2], torch.finfo(F32).min), ([2], torch.iinfo(I64).min)],
    "scalar_tensor.default": [(2.5,), (3, {"dtype": I64})],
    "zeros.default": [([2, 3],), ([2], {"dtype": torch.bool})],
    "ones.default": [([2, 3],), ([2], {"dtype": I64})],
    "full_like.default": [(X, 3), (INT, 3), (X, True, {"dtype": torch.bool}), (X, -math.inf)],
    "zeros_like.default": [(X,), (X, {"dtype": I64})],
    "ones_like.default": [(MASK,), (X, {"dtype": torch.bool})],
    "new_full.default": [(X, [2], 3), (INT, [2], 3.7)],
    "new_zeros.default": [(X, [2]), (INT, [2, 1])],
    "new_ones.default": [(X, [2]), (X, [2], {"dtype": torch.bool})],
    "where.self": [(MASK, POSITIVE, UNIT), (MASK, torch.tensor(1.0), UNIT), (MASK, INT, UNIT)],
    "where.ScalarOther": [(MASK, POSITIVE, -math.inf), (MASK, INT, 0.5), (MASK, INT, 2)],
    "where.ScalarSelf": [(MASK, 1.0, UNIT), (MASK, 1, UNIT)],
    "where.Scalar": [(MASK, 1.0, 0.5), (MASK, 1, 0)],
    "masked_fill.Scalar": [(POSITIVE, MASK, -math.inf), (INT, MASK, 2.0), (X, true(4, 5), 3), (MASK, MASK, True)],
    "masked_fill.Tensor": [(POSITIVE, MASK, torch.tensor(2)), (INT, MASK, torch.tensor(4))],
    "copy.default": [(X, real(4, 1)), (INT, POSITIVE), (X, torch.tensor(3))],
    "tril.default": [(X,), (X, 1), (INT, -1), (true(4, 4),)],
    "triu.default": [(X,), (X, 1), (INT, -2), (true(4, 4), 1)],
    "_to_copy.default": [
        (X,), (X, {"dtype": I64}), (INT, {"dtype": F32}), (INT, {"dtype": torch.bool}), (MASK, {"dtype": F32}),
        (X, {"dtype": torch.bool}), (X, {"dtype": torch.complex64}),
    ],
    "type_as.default": [(INT, X), (X, MASK), (MASK, INT)],
    **{f"{name}.default": [(X,)] for name in ("clone", "alias", "lift_fresh_copy", "detach")},
    "view_as_real.default": [(torch.complex(X, X + 1),)],
    "view_as_complex.default": [(real(3, 4, 2),)],
    "polar.default": [(POSITIVE, UNIT)],
    # arithmetic
    "add.Tensor": [(X, X), (X, 2), (INT, 0.5), (INT, INT, {"alpha": 2}), (X, X, {"alpha": 0.5}), (MASK, INT),
        (MASK, MASK)],
    "add.Scalar": [(X, 1.5), (INT, 2)],
    "sub.Tensor": [(X, X.flip(0)), (INT, 0.5), (INT, INT, {"alpha": 2})],
    "sub.Scalar": [(X, 1.5), (X, 1, 2)],
    "rsub.Tensor": [(X, X.flip(0)), (INT, UNIT, {"alpha": 2})],
    "rsub.Scalar": [(X, 1.5), (X, 1, 2), (INT, 1), (INT, 1.5)],
    "mul.Tensor": [(X, X), (INT, UNIT), (MASK, MASK), (MASK, UNIT), (INT, 0.5), (MASK, INT)],
    "mul.Scalar": [(X, 2), (INT, 0.5)],
    "div.Tensor": [(X, POSITIVE[:, :, None]), (INT, 4), (INT, INT * 2 + 1), (MASK, 2)],
    "div.Scalar": [(X, 4), (INT, 4)],
    "div.Tensor_mode": [(a, b, {"rounding_mode": mode}) for a in (X, INT, whole(9, low=-(2**30), high=2**30)) for b in
                        (3, torch.tensor(-2)) for mode in ("floor", "trunc", None)],
    "div.Scalar_mode": [(X, 0.7, {"rounding_mode": "trunc"}), (INT, 3, {"rounding_mode": "floor"})],
    "floor_divide.default": [(X, 0.7), (INT, 3), (INT, torch.tensor(-2))],
    "remainder.Scalar": [(X, 0.7), (INT, 3), (INT, -3), (X, -0.7)],
    "remainder.Tensor": [(X, X.flip(0)), (INT, torch.tensor(3))],
    "fmod.Scalar": [(X, 0.7), (INT, 3), (INT, -3), (X, -0.7)],
    "fmod.Tensor": [(X, X.flip(0)), (INT, torch.tensor(-3))],
    **{f"{name}.default": [(X,), (POSITIVE,)] for name in ("neg", "abs", "sign", "square", "expm1", "exp", "sin",
        "cos", "sinh",
       "cosh", "atan", "erf", "relu", "relu6", "silu", "tanh", "sigmoid", "selu", "mish", "isnan", "isinf",
        "logical_not")},
    **{f"{name}.default": [(POSITIVE,)] for name in ("reciprocal", "sqrt", "rsqrt", "log", "log2", "log10", "log1p")},
    **{f"{name}.default": [(UNIT,)] for name in ("asin", "acos", "tan", "erfinv")},
    **{f"{name}.default": [(HALVES,)] for name in ("ceil", "floor", "round", "trunc")},
    "atan2.default": [(X, X.flip(1))],
    "pow.Tensor_Scalar": [(X, 2), (X, 3.0), (POSITIVE, -0.5), (INT, 2), (INT, 2.0)],
    "pow.Tensor_Tensor": [(POSITIVE, UNIT), (INT, torch.tensor(3)), (INT, torch.tensor(3.0))],
    "pow.Scalar": [(10000.0, UNIT), (2, whole(3, low=0)), (2.0, INT)],
    "clamp.default": [(X, -1), (X, None, 0.5), (X, -1, 1), (INT, 0, 3), (INT, 0.5), (INT, 0, ALL), (INT, -ALL, 1)],
    "clamp.Tensor": [(X, torch.tensor(0.5)), (X, None, torch.tensor(0.5)), (INT, torch.tensor(-1), torch.tensor(1))],
    "clamp_min.default": [(X, 0), (INT, 1)],
    "clamp_min.Tensor": [(X, torch.tensor(0.5))],
    "clamp_max.default": [(X, 0), (INT, 1)],
    "clamp_max.Tensor": [(X, torch.tensor(0.5))],
    "maximum.default": [(X, X.flip(0)), (INT, torch.tensor(0.5))],
    "minimum.default": [(X, X.flip(0)), (INT, torch.tensor(0.5))],
    "max.other": [(X, X.flip(0))],
    "min.other": [(X, X.flip(0))],
    # logic
    **{f"{name}.Tensor": [(INT, INT.flip(0)), (INT, torch.tensor(0.0)), (MASK, INT)] for name in ("eq", "ne", "lt",
        "le", "gt", "ge")},
    **{f"{name}.Scalar": [(INT, 2), (X, 0), (INT, 0.5), (X, -math.inf)] for name in ("eq", "ne", "lt", "le", "gt",
        "ge")},
    **{f"{name}.Tensor": [(MASK, true(3, 4)), (INT, INT.flip(0))] for name in ("__and__", "__or__", "__xor__",
       "bitwise_and", "bitwise_or", "bitwise_xor")},
    **{f"{name}.Scalar": [(INT, 3), (MASK, True)] for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    "bitwise_not.default": [(MASK,), (INT,)],
    **{f"{name}.default": [(MASK, true(3, 4)), (INT, MASK), (INT, UNIT)] for name in ("logical_and", "logical_or",
        "logical_xor")},
    # reductions
    "sum.default": [(X,), (INT,), (MASK,), (X, {"dtype": I64})],
    "sum.dim_IntList": [(X, [1]), (X, [0, -1], True), (MASK, [-1]), (X, None), (X, []), (INT, [0], {"dtype": F32})],
    "mean.default": [(X,), (INT, {"dtype": F32})],
    "mean.dim": [(X, [1]), (X, [0, -1], True), (MASK, [-1], {"dtype": F32}), (X, None, True)],
    "prod.default": [(X,), (INT,)],
    "prod.dim_int": [(X, 1), (X, -1, True), (MASK, 0)],
    "amax.default": [(X, [1]), (X, [0, -1], True), (X,), (INT, [0])],
    "amin.default": [(X, [1]), (X, [0, -1], True), (X,), (INT, [0])],
    "max.dim": [(X, 1), (X, -1, True), (INT, 0)],
    "min.dim": [(X, 1), (X, -1, True), (INT, 0)],
    "any.default": [(MASK,), (INT,)],
    "any.dim": [(MASK, -1), (INT, 0, True)],
    "any.dims": [(true(2, 3, 4), [0, -1]), (MASK, [0], True)],
    "all.default": [(MASK,), (INT,)],
    "all.dim": [(MASK, -1), (INT, 0, True)],
    "all.dims": [(true(2, 3, 4), [0, -1]), (MASK, [0], True)],
    "argmax.default": [(X,), (X, 1), (X, -1, True), (torch.tensor([[1, 3, 3]]), 1)],
    "argmin.default": [(X,), (X, 1), (X, -1, True)],
    "var.correction": [(X, [1]), (X, [-1], {"correction": 0, "keepdim": True}), (X,),
        (X, [0, 2], {"correction": 1}), (X, [])],
    "var.dim": [(X, [1]), (X, [-1], False, True), (X, None)],
    "linalg_vector_norm.default": [
        (X,), (X, 2, [-1], True), (X, 1, [0, 1]), (X, math.inf, [1]), (X, -math.inf), (X, 3, [0, 2]), (X, 2, [0, 1]),
    ],
    "norm.ScalarOpt_dim": [(X, None, [1]), (X, 2, [-1], True), (X, 2, [0, 1]), (X, 1, [1])],
    "logsumexp.default": [(X, [1]), (X, [0, -1], True)],
    "cumsum.default": [(X, 1), (X, -1), (MASK, 0), (MASK, 1, {"dtype": F32}), (INT, -1),
        (INT, 0, {"dtype": torch.int32})],
    "topk.default": [(X, 2), (X, 2, 1), (X, 3, -1, False), (X, 2, 0, False, True)],
    "sort.default": [(X,), (X, 1), (X, 0, True)],
    "_fft_c2c.default": [(torch.complex(X, X + 1), [1, 2], 0, True), (torch.complex(X, X * 0), [1], 0, True)],
    # products
    "matmul.default": [(X, real(5, 2)), (real(3, 2, 4), X), (X, real(5)), (real(5), real(5)), (real(4), X),
        (real(2, 1, 4, 5), real(3, 5, 2))],
    "mm.default": [(real(3, 4), real(4, 5)), (INT, whole(4, 2))],
    "bmm.default": [(X, real(3, 5, 2))],
    "linear.default": [(X, real(2, 5)), (X, real(2, 5), real(2)), (real(5), real(2, 5), real(2))],
    "addmm.default": [(real(5), real(3, 4), real(4, 5)), (real(3, 5), real(3, 4), real(4, 5), {"beta": 0.5,
        "alpha": 2})],
    "baddbmm.default": [(real(1, 4, 2), X, real(3, 5, 2), {"beta": 0.5, "alpha": 2}),
        (real(3, 4, 2), X, real(3, 5, 2))],
    "einsum.default": [("bij,bkj->bik", [X, X]), ("i,j->ij", [real(3), real(4)]), ("...d,de->...e", [X, real(5, 2)])],
    "outer.default": [(real(3), real(4))],
    "scaled_dot_product_attention.default": [
        (*HEADS,), (*HEADS, ATTEND), (*HEADS, None, 0.0, True), (*HEADS, real(2, 1, 6, 6), {"scale": 0.3}),
        (*HEADS, torch.zeros(2, 1, 6, 6).masked_fill(~ATTEND, torch.finfo(F32).min)),
        (*HEADS, torch.zeros(2, 1, 6, 6).masked_fill(~ATTEND, -math.inf)),
        (*FEW_HEADS, ATTEND, {"enable_gqa": True}), (HEADS[0][:, :, :3], *HEADS[1:], None, 0.0, True),
        (*(h[0] for h in FEW_HEADS), None, 0.0, True, {"enable_gqa": True}),
    ],
    "conv1d.default": [
        (real(2, 4, 9), real(6, 4, 3)), (real(2, 4, 9), real(6, 2, 3), real(6), [2], [1], [1], 2),
        (real(2, 4, 9), real(4, 1, 3), None, [1], [2], [2], 4),
    ],
    "conv1d.padding": [(real(2, 4, 9), real(6, 4, 3), real(6), [1], "same"),
        (real(2, 4, 9), real(8, 1, 3), real(8), [1], "same", [1], 4),  # channels by themselves
        (real(2, 4, 9), real(8, 1, 3), real(8), [2], "valid", [1], 4),
        (real(2, 4, 9), real(6, 2, 3), real(6), [2], "valid", [1], 2),  # few groups
        (real(2, 36, 9), real(36, 1, 3), real(36), [2], "valid", [1], 36),  # many
        (real(2, 4, 9), real(6, 4, 4), None, [1], "valid"),
                       (real(2, 4, 9), real(6, 4, 4), None, [1], "same", [2])],
    "conv2d.default": [(real(2, 3, 8, 9), real(4, 3, 2, 3), real(4), [2, 3]),
        (real(2, 3, 8, 9), real(4, 3, 2, 3), None, [1, 1], [1, 2], [2, 1])],
    "conv2d.padding": [(real(2, 3, 8, 9), real(4, 3, 3, 3), real(4), [1, 1], "same")],
    "avg_pool1d.default": [(real(2, 3, 9), [2]), (real(2, 3, 9), [3], [2], [1]), (real(2, 3, 8), [2], [2], [0])],
    "avg_pool2d.default": [(real(2, 3, 8, 9), [2, 3]), (real(2, 3, 8, 9), [3, 3], [2, 1], [1, 1]),
        (real(2, 3, 8, 9), [3, 2], [1, 2], [1, 0])],
    # normalisation and activations
    "softmax.int": [(X, -1), (X, 1), (INT, -1, {"dtype": F32})],
    "_softmax.default": [(X, 1, False)],
    "log_softmax.int": [(X, -1), (INT, 1, {"dtype": F32})],
    "_log_softmax.default": [(X, 1, False)],
    "layer_norm.default": [(X, [5], real(5), real(5), 1e-3), (X, [4, 5]), (X, [5], real(5), None, 1e-5, True)],
    "rms_norm.default": [(X, [5], real(5), 1e-3), (X, [4, 5])],
    "batch_norm.default": [
        (real(2, 4, 4), real(4), real(4), real(4), real(4, low=0.1), False, 0.1, 1e-5, False),
        (X, real(4), real(4), real(4), real(4, low=0.1), False, 0.1, 1e-5, False),
        (real(3, 4), None, None, real(4), real(4, low=0.1), False, 0.1, 1e-3, False),
    ],
    "group_norm.default": [(X, 2, real(4), real(4)), (real(2, 6, 3, 5), 3), (X, 4, real(4), None, 1e-3, True)],
    "gelu.default": [(X,), (X, {"approximate": "tanh"})],
    "log_sigmoid.default": [(X,), (X * 50,)],
    "softplus.default": [(X * 20,), (X, 2.0, 3.0)],
    "elu.default": [(X,), (X, 1.5), (X, 1.5, 2.0, 0.5)],
    "celu.default": [(X,), (X, 0.5)],
    "leaky_relu.default": [(X,), (X, 0.3)],
    "prelu.default": [(X, real(4)), (X, real(1)), (real(3, 4), real(4)), (real(2, 4, 3, 3), real(4))],
    "hardtanh.default": [(X,), (X, -0.5, 0.2)],
    "hardswish.default": [(X * 3,)],
    "hardsigmoid.default": [(X * 3,)],
}  # fmt: skip


def split_case(case: Args) -> tuple[list[Any], dict[str, Any]]:
    return (list(case[:-1]), case[-1]) if case and isinstance(case[-1], dict) else (list(case), {})


def to_row(value: Any) -> Any:
    """An argument as a row gets it."""
    if isinstance(value, torch.Tensor):
        array = value.numpy()
        return keras.ops.convert_to_tensor(array, dtype=DTYPES[value.dtype])
    if isinstance(value, (list, tuple)):
        return [to_row(item) for item in value]
    return DTYPES[value] if isinstance(value, torch.dtype) else value


def flat(value: Any) -> list[Any]:
    return [item for part in value for item in flat(part)] if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("name", CASES)
def test_row(name: str) -> None:
    packet, _, overload = name.rpartition(".")
    operation, row = getattr(getattr(torch.ops.aten, packet), overload), ATEN[f"aten.{name}"]
    for case in CASES[name]:
        args, options = split_case(case)
        expected = operation(*args, **options)
        if name.startswith(NEW_TENSORS) or "_like." in name:
            options = {**options, "dtype": expected.dtype}
        found = row(*to_row(args), **{key: to_row(value) for key, value in options.items()})
        assert len(flat(found)) == len(flat(expected)), (name, case)
        for mine, theirs in zip(flat(found), flat(expected), strict=True):
            if not isinstance(theirs, torch.Tensor):
                assert mine == theirs, (name, case)
                continue
            about = f"{name} {case}"
            assert dtype_of(mine) == DTYPES[theirs.dtype], about
            theirs = theirs.clamp(-(2**31) + 1, 2**31 - 1) if theirs.dtype == I64 else theirs
            np.testing.assert_allclose(keras.ops.convert_to_numpy(mine), theirs.numpy(), 2e-5, 2e-6, err_msg=about)


def test_empty() -> None:
    assert tuple(ATEN["aten.empty.memory_format"]([2, 3], dtype="float32").shape) == (2, 3)


@pytest.mark.filterwarnings("ignore:[\\s\\S]*tf.lite.Interpreter is deprecated")
def test_lite_rt_takes_a_slice_without_numbers() -> None:
    """As of a rotary embedding whose sections are larger than its angles: the kernels end the process there."""
    tf = pytest.importorskip("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec([None, None, 5])])
    def written(x: Any) -> Any:
        nothing = ATEN["aten.expand.default"](x[..., 1:1], [-1, -1, 0])
        return ATEN["aten.slice_scatter.default"](x * 2, nothing, 2, 7, 5, 3)

    made = tf.lite.TFLiteConverter.from_concrete_functions([written.get_concrete_function()], tf.Module()).convert()
    (found,) = tf.lite.Interpreter(model_content=made).get_signature_runner()(x=np.ones((1, 3, 5), np.float32)).values()
    np.testing.assert_array_equal(found, np.full((1, 3, 5), 2, np.float32))


def test_every_row_has_cases() -> None:
    assert set(CASES) | {"empty.memory_format"} == {name.removeprefix("aten.") for name in ATEN}
