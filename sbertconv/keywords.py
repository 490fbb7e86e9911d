"""The keywords of the public verbs, for type checkers: docs/generate.py writes this file from
`sbertconv.options`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

Names = Sequence[str]
Shape = tuple[int, int]


class ToOnnx(TypedDict, total=False):
    """Options of `to_onnx`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None
    allow_changed: bool
    tasks: Names
    overwrite: bool
    push_to_hub: str | None
    part: str | None
    text_input: bool
    truncate_dim: int | None
    normalize: bool
    activation: bool
    outputs: Names | None
    sparse: bool
    top_k: int | None
    token_type_ids: bool | None
    precision: str
    calibration: Names
    input_names: Names
    output_names: Names
    consumers: Names
    opset: int
    external_data: bool | None
    optimize: bool
    engines: Names | None
    target: str
    max_shape: Shape | None
    atol: float | None
    rtol: float | None
    proof_budget: float | None
    min_cosine: float | None
    min_spearman: float | None
    min_top10: float | None
    texts: Names


class ToOpenvino(TypedDict, total=False):
    """Options of `to_openvino`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None
    allow_changed: bool
    tasks: Names
    overwrite: bool
    push_to_hub: str | None
    truncate_dim: int | None
    normalize: bool
    activation: bool
    outputs: Names | None
    sparse: bool
    top_k: int | None
    token_type_ids: bool | None
    precision: str
    calibration: Names
    input_names: Names
    output_names: Names
    consumers: Names
    atol: float | None
    rtol: float | None
    proof_budget: float | None
    min_cosine: float | None
    min_spearman: float | None
    min_top10: float | None
    texts: Names


class ToTf(TypedDict, total=False):
    """Options of `to_tf`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None
    allow_changed: bool
    tasks: Names
    overwrite: bool
    push_to_hub: str | None
    text_input: bool
    truncate_dim: int | None
    normalize: bool
    activation: bool
    formats: Names
    atol: float | None
    rtol: float | None
    proof_budget: float | None


class ToKeras(TypedDict, total=False):
    """Options of `to_keras`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None
    allow_changed: bool
    tasks: Names
    activation: bool
    truncate_dim: int | None
    normalize: bool
    atol: float | None
    rtol: float | None
    proof_budget: float | None


class ToTorch(TypedDict, total=False):
    """Options of `to_torch`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None
    allow_changed: bool
    tasks: Names
    overwrite: bool
    push_to_hub: str | None
    truncate_dim: int | None
    normalize: bool
    activation: bool
    outputs: Names | None
    sparse: bool
    top_k: int | None
    atol: float | None
    rtol: float | None
    proof_budget: float | None


class ToSt(TypedDict, total=False):
    """Options of `to_st`."""

    trust_remote_code: bool
    overwrite: bool
    atol: float | None
    rtol: float | None
    part: str | None


class Trim(TypedDict, total=False):
    """Options of `trim`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None
    allow_changed: bool
    overwrite: bool
    keep: Names
    languages: Names
    sample: Names


class Shorten(TypedDict, total=False):
    """Options of `shorten`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None
    allow_changed: bool
    overwrite: bool
    layers: str
    min_cosine: float | None
    min_spearman: float | None
    min_top10: float | None
    texts: Names


class ToStatic(TypedDict, total=False):
    """Options of `to_static`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None
    allow_changed: bool
    overwrite: bool
    dim: int | None
    min_spearman: float | None
    min_top10: float | None
    texts: Names


class Pipeline(TypedDict, total=False):
    """Options of `pipeline`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None
    allow_changed: bool
    tasks: Names
    outputs: Names | None


class BuildPlan(TypedDict, total=False):
    """Options of `build_plan`."""

    atol: float | None
    rtol: float | None


class Verify(TypedDict, total=False):
    """Options of `verify`."""

    revision: str | None
    trust_remote_code: bool
    allow_changed: bool
    atol: float | None
    rtol: float | None
    by_module: bool


class Inspect(TypedDict, total=False):
    """Options of `inspect`."""

    revision: str | None
    trust_remote_code: bool
    model_class: str | None
    pooling: str | None


class Benchmark(TypedDict, total=False):
    """Options of `benchmark`."""

    revision: str | None
    trust_remote_code: bool
