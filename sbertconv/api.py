"""The five stages of a conversion, in order: load, plan, convert, compare, publish."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.folder import (
    KERAS_SUFFIX,
    Artifact,
    folder_name,
    is_keras_artifact,
    link_or_copy,
    read_artifact,
)
from sbertconv.artifact.publishing import Staging, stage
from sbertconv.artifact.scratch import scratch_folder
from sbertconv.errors import (
    ArtifactError,
    SourceError,
    UnsupportedModuleError,
    UnsupportedOptionError,
    option_name,
    require,
)
from sbertconv.frameworks import float32_policy
from sbertconv.memory import keep_nothing_freed, release_memory, settled_heap
from sbertconv.parity.quality import GATES
from sbertconv.runtime.description import describe_converted, is_converted
from sbertconv.runtime.engines import load_keras_model
from sbertconv.runtime.opening import open_model
from sbertconv.source.naming import like, model_name, path_is_there

if TYPE_CHECKING:
    import keras
    from sentence_transformers import SentenceTransformer

    from sbertconv.converters.onnx.backend import OnnxOptions
    from sbertconv.converters.torch.backend import Pipeline
    from sbertconv.converters.writing import Finish
    from sbertconv.parity.comparison import ParityReport, Reference
    from sbertconv.plan.registry import Registry
    from sbertconv.source.opening import Source

OnStage = Callable[[str], None]
# (source, model, plan, staging=...) -> the manifest's content, and the ways to write the rest without the original
Write = Callable[..., "tuple[dict[str, Any], Sequence[Finish]]"]


@dataclass(frozen=True)
class Bounds:
    """What a conversion must keep: the user's own numbers, for what the precision is held to, and the seconds that the
    comparison of long texts may take.

    Raises:
        UnsupportedOptionError: for numbers that do not apply to the precision.
    """

    precision: str
    tolerances: Mapping[str, float | None]
    gate: Mapping[str, float | None] = field(default_factory=dict)
    texts: Sequence[str] = ()
    proof_budget: float | None = None

    def __post_init__(self) -> None:
        if self.proof_budget is not None and not self.proof_budget >= 0:
            raise UnsupportedOptionError(
                f"--proof-budget {self.proof_budget}: must be 0 or more seconds.\nLeave it out for the default."
            )
        exact = self.precision not in GATES
        idle = [name for name, value in (self.gate if exact else self.tolerances).items() if value is not None]
        idle += ["texts"] if exact and self.texts else []
        if idle:
            names = ", ".join(map(option_name, idle))
            raise UnsupportedOptionError(
                f"{names}: {self.precision} is held to "
                + ("|a - b|, see --atol and --rtol." if exact else "a quality gate, see --min-cosine.")
                + "\nLeave the option out."
            )

    def to_json(self) -> dict[str, Any]:
        """What the manifest says about it."""
        return {"gate": asdict(GATES[self.precision].changed(self.gate))} if self.precision in GATES else {}


# What to_onnx has a use for where the model is a Keras model of to_tf.
KERAS_TO_ONNX = {"model", "directory", "overwrite", "atol", "rtol", "part", "on_stage"}


def _refuse_idle(function: Callable[..., Any], arguments: Mapping[str, Any], used: Collection[str], model: Any) -> None:
    """Raise UnsupportedOptionError for every argument that differs from its default and would not be used."""
    given = [
        option_name(name)
        for name, parameter in signature(function).parameters.items()
        if name not in used and arguments[name] != parameter.default
    ]
    if given:
        raise UnsupportedOptionError(
            f"{model}: {', '.join(given)}: a Keras model has its inputs and outputs already, and is written with "
            "opset 18 in fp32.\nLeave the options out."
        )


def _say_nothing(stage_name: str) -> None:
    return None


def to_onnx(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    model_class: str | None = None,
    pooling: str | None = None,
    allow_changed: bool = False,
    overwrite: bool = False,
    opset: int = 18,
    outputs: Sequence[str] | None = None,
    activation: bool = False,
    sparse: bool = False,
    top_k: int | None = None,
    external_data: bool | None = None,
    token_type_ids: bool | None = None,
    optimize: bool = True,
    precision: str = "fp32",
    engines: Sequence[str] | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    min_cosine: float | None = None,
    min_spearman: float | None = None,
    min_top10: float | None = None,
    texts: Sequence[str] = (),
    proof_budget: float | None = None,
    calibration: Sequence[str] = (),
    text_input: bool = False,
    target: str = "onnxruntime",
    max_shape: tuple[int, int] | None = None,
    part: str | None = None,
    registry: Registry | None = None,
    on_stage: OnStage = _say_nothing,
) -> Artifact:
    """Convert a model to a folder with one ONNX graph per route, proven equal to encode().

    Below fp32 no graph can be equal; it must then pass a quality gate on 1,200 sentences and the texts given.

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer; or a folder that `to_tf` wrote, or a .keras file
            that began as one: then the graph is proven equal to that Keras model, and of the options below only
            overwrite, atol, rtol, part and on_stage apply.
        directory: where to write; default `<model's name>-onnx` in the current folder.
        revision: a Hub branch, tag or commit.
        trust_remote_code: whether code that comes with the model may run.
        model_class: what a checkpoint without files of sentence-transformers is read as, a name of
            `MODEL_CLASSES`; None: what its config.json tells.
        pooling: how the token embeddings of such a checkpoint become one: "mean", "cls", "lasttoken", "max",
            "weightedmean", "mean_sqrt_len_tokens"; None: as SentenceTransformer does.
        allow_changed: convert a model that does not load as its files describe it, because the library leaves out a
            setting or weights of theirs: what encode() computes all the same.
        overwrite: replace an existing artifact.
        opset: version of the ai.onnx operators, 18 to 22.
        outputs: "sentence_embedding" (default) and "token_embeddings", in the graph's order; of a CrossEncoder or a
            classifier "logits" (default) and "scores"; of a SparseEncoder "sentence_embedding", "indices" and "values";
            of a MultiVectorEncoder always "token_embeddings" and "scoring_mask".
        activation: of a CrossEncoder or a classifier, the model's own activation of the logits as a second output
            named "scores".
        sparse: of a SparseEncoder, what is not 0 of the vectors, as `indices` and `values`, in place of the vectors.
        top_k: of a SparseEncoder, how many values of a vector stay (encode()'s `max_active_dims`); None: as the model
            does.
        external_data: weights in `model.onnx_data`; None: only past 2 GB.
        token_type_ids: None: as the tokenizer emits; True: always an input; False: never one.
        optimize: use ONNX Runtime's fused operators where they keep the parity; False: ai.onnx only.
        precision: "fp32"; "bf16" (half the size, computed as the engine can), "fp16" (for accelerators), "int8" or
            "int4" (weights and embedding tables in blocks).
        engines: what the graph is proven on, and so what `load` may take by itself: "onnxruntime", "openvino"; None:
            onnxruntime, and for bf16 also openvino where it is installed, because only that computes in bfloat16.
        atol: absolute term of the rule |a - b| <= atol + rtol * |b|; default 1e-5.
        rtol: relative term of the rule; default 1e-5.
        min_cosine: below fp32, the smallest cosine of a text's vector with encode()'s; defaults in
            `sbertconv.parity.quality.GATES`.
        min_spearman: the smallest rank correlation of all pairwise similarities.
        min_top10: the smallest share of the ten nearest neighbours that stay.
        texts: your own texts, which the gate then includes.
        proof_budget: seconds that the comparison of all lengths up to the model's limit may take; where that is not
            enough, the folder is proven and cut at a shorter length, `proven_length` in its manifest. None: as long as
            the conversion took until then, at least 60 seconds, and no text of more than 4,096 tokens.
        calibration: your own texts for fp16, which keeps in float32 whatever leaves its range on them.
        text_input: put the tokenizer into the graph, which then takes `text`, strings [batch], and nothing else. The
            tokenizer in the graph is first proven equal to the model's, token by token, on 20,000 texts.
        target: "onnxruntime", or "tensorrt": a graph of the operators that TensorRT's parser takes, with the shapes of
            a plan in the manifest and a script that builds it; `build_plan` does so too, and proves it.
        max_shape: for "tensorrt", the largest batch and sequence of a plan; None: the model's limit, and 32 texts or as
            many as make 16,384 tokens.
        part: of a .keras file whose model contains a converted one, "encoder": the converted model inside; None: the
            whole, a classifier of texts, whose folder has `predict`.
        registry: converters; default the built-in ones and those of installed plugins.
        on_stage: called with the name of each stage as it starts.

    Returns:
        The published artifact; its manifest holds the parity report, with the measured quality.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError, ArtifactError:
            see `sbertconv.errors`. Nothing is written then.
        ParityError: if the written graph differs from encode(), or fails the gate. Nothing is published then.
        TokenizationError: if the tokenizer in the graph gives one other token. Nothing is written then.
    """
    arguments = dict(locals())
    if is_keras_artifact(model):
        _refuse_idle(to_onnx, arguments, KERAS_TO_ONNX, model)
        return _keras_to_onnx(model, directory, overwrite, (atol, rtol), part, on_stage)
    if part is not None:
        raise UnsupportedOptionError(f"--part {part}: {model} is no Keras model of to-tf.\nLeave the option out.")
    model = model_name(model)
    require("onnx", "torch", "sentence_transformers", "onnx", "onnxscript", "onnxruntime")
    on_stage("loading libraries")
    from sbertconv.converters.onnx.backend import OnnxOptions

    if engines is None:
        engines = ["onnxruntime", "openvino"][: 1 + (precision == "bf16" and bool(find_spec("openvino")))]
    options = OnnxOptions(
        opset,
        None if outputs is None else tuple(outputs),
        activation,
        sparse,
        top_k,
        external_data,
        token_type_ids,
        optimize,
        precision,
        engines=tuple(engines),
        calibration=tuple(calibration),
        text_input=text_input,
        target=target,
        max_shape=max_shape,
    )
    wanted = {"min_cosine": min_cosine, "min_spearman": min_spearman, "min_top10": min_top10}
    bounds = Bounds(precision, {"atol": atol, "rtol": rtol}, wanted, texts, proof_budget)
    opened = partial(_open, model, revision, trust_remote_code, registry, model_class, pooling, allow_changed)
    return _convert_graph(opened, directory, overwrite, options, bounds, on_stage)


def to_openvino(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    model_class: str | None = None,
    pooling: str | None = None,
    allow_changed: bool = False,
    overwrite: bool = False,
    activation: bool = False,
    sparse: bool = False,
    top_k: int | None = None,
    outputs: Sequence[str] | None = None,
    token_type_ids: bool | None = None,
    precision: str = "fp32",
    atol: float | None = None,
    rtol: float | None = None,
    min_cosine: float | None = None,
    min_spearman: float | None = None,
    min_top10: float | None = None,
    texts: Sequence[str] = (),
    proof_budget: float | None = None,
    calibration: Sequence[str] = (),
    registry: Registry | None = None,
    on_stage: OnStage = _say_nothing,
) -> Artifact:
    """Convert a model to a folder with one graph per route in OpenVINO's intermediate representation, proven equal to
    encode() on OpenVINO. The arguments are those of `to_onnx`; so are the result and the errors.
    """
    model = model_name(model)
    require("openvino", "openvino")
    require("onnx", "torch", "sentence_transformers", "onnx", "onnxscript", "onnxruntime")
    on_stage("loading libraries")
    from sbertconv.converters.onnx.backend import OnnxOptions

    options = OnnxOptions(
        outputs=None if outputs is None else tuple(outputs),
        activation=activation,
        sparse=sparse,
        top_k=top_k,
        token_type_ids=token_type_ids,
        precision=precision,
        form="openvino",
        engines=("openvino",),
        calibration=tuple(calibration),
    )
    wanted = {"min_cosine": min_cosine, "min_spearman": min_spearman, "min_top10": min_top10}
    bounds = Bounds(precision, {"atol": atol, "rtol": rtol}, wanted, texts, proof_budget)
    opened = partial(_open, model, revision, trust_remote_code, registry, model_class, pooling, allow_changed)
    return _convert_graph(opened, directory, overwrite, options, bounds, on_stage)


def _convert_graph(
    opened: Callable[[], tuple[Source, Registry]],
    directory: str | Path | None,
    overwrite: bool,
    options: OnnxOptions,
    bounds: Bounds,
    on_stage: OnStage,
) -> Artifact:
    """Convert to a graph with fused operators, or without them where those fail."""
    from sbertconv.converters.onnx.writer import write_onnx

    options.check()
    source, registry = opened()
    options = options.of(source.model_class)
    source = _with_top_k(source, options.top_k)
    target = _target(directory, source.name, options.kind)
    with settled_heap(), stage(target, overwrite=overwrite) as staging:
        report, reason = None, ""
        for variant in (options, replace(options, optimize=False)) if options.optimize else (options,):
            write = partial(write_onnx, options=variant)
            try:
                content, report = _convert_and_compare(source, registry, "onnx", write, staging, bounds, on_stage)
            except ArtifactError as error:  # the graph cannot be fused, loaded or run
                reason = str(error).splitlines()[0].replace(f"{staging.folder}{os.sep}", "")
                continue
            if report.passed:
                break
            reason = report.failure
        if report is None:
            raise UnsupportedModuleError(
                f"Cannot convert {source.name!r} to {options.form!r}: its graph does not run on every text of the "
                f"corpus:\n"
                f"  {reason}\nRegister a converter: docs/extending.md"
            )
        if variant is not options:
            content["notes"].append(f"Written without fused operators. With them: {reason}")
        return _publish(staging, content, report, on_stage)


def build_plan(
    directory: str | Path,
    *,
    atol: float | None = None,
    rtol: float | None = None,
    on_stage: OnStage = _say_nothing,
) -> Artifact:
    """Build a TensorRT plan of every graph of a folder, for the GPU of this machine, and prove it equal to the graph.

    The graph runs in ONNX Runtime on the CPU for that; `verify` compares the plan with the model itself.

    Args:
        directory: what `to_onnx(target="tensorrt")` wrote; a plan that it holds already is replaced.
        atol: absolute term of the rule |a - b| <= atol + rtol * |b|; default 1e-5. Below fp32 the gate of the
            precision holds, as `to_onnx` was given it.
        rtol: relative term of the rule; default 1e-5.
        on_stage: called with the name of each stage as it starts.

    Returns:
        The artifact, now with the format "tensorrt"; `plan` in its manifest says with what and for which GPU it was
        built, and holds the parity report.

    Raises:
        MissingDependencyError: if TensorRT or a GPU is not there, with what to do.
        ArtifactError, UnsupportedOptionError, UnsupportedModuleError: see `sbertconv.errors`. The folder is unchanged.
        ParityError: if a plan differs from its graph. The folder is unchanged then.
    """
    from sbertconv.converters.onnx.tensorrt_plan import write_plan
    from sbertconv.runtime.tensorrt import gpu_name, import_tensorrt

    on_stage("checking the files")
    artifact = read_artifact(directory)
    if artifact.manifest.get("target") != "tensorrt":
        raise UnsupportedOptionError(
            f"{directory}: not written for TensorRT.\nConvert the model with to-onnx --target tensorrt."
        )
    artifact.verify_hashes()
    bounds = Bounds(artifact.manifest["precision"], {"atol": atol, "rtol": rtol})
    trt, cuda = import_tensorrt(artifact.folder)
    on_stage("loading libraries")
    from sbertconv.parity.comparison import Reference, compare
    from sbertconv.parity.questions import Converted

    with stage(artifact.folder, overwrite=True) as staging:
        plans = {graph["formats"].get("tensorrt") for graph in artifact.manifest["graphs"]}
        for name in artifact.manifest["files"]:
            if name not in plans:
                link_or_copy(artifact.path(name), staging.folder / name)
        on_stage("building")
        graphs = []
        for graph in artifact.manifest["graphs"]:
            file = graph["formats"]["onnx"]
            plan = f"tensorrt/{Path(file).stem}.plan"
            write_plan(trt, artifact.path(file), graph["profile"], staging.folder / plan)
            graphs.append({**graph, "formats": {"onnx": file, "tensorrt": plan}})
        made = {"tensorrt": trt.__version__, "gpu": gpu_name(cuda)}
        engines = {**artifact.manifest["engines"], "tensorrt": ["tensorrt"]}
        content = {**artifact.manifest, "graphs": graphs, "engines": engines, "plan": made}
        written = staging.manifest(content)
        on_stage("comparing with the graph")
        planned = open_model(written, "tensorrt", beyond_proof=True)
        graphs_alone = open_model(written, "onnx", "onnxruntime", beyond_proof=True)
        reference = Reference.of(Converted(graphs_alone), planned)
        report = replace(compare(reference, planned, **bounds.tolerances), backend="tensorrt")
        staging.manifest({**content, "plan": {**made, "parity": report.to_json()}})
        report.raise_if_failed()
        on_stage("publishing")
        staging.publish()
        return read_artifact(staging.target)


def to_tf(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    model_class: str | None = None,
    pooling: str | None = None,
    allow_changed: bool = False,
    overwrite: bool = False,
    formats: Sequence[str] = ("keras", "saved_model"),
    activation: bool = False,
    atol: float | None = None,
    rtol: float | None = None,
    proof_budget: float | None = None,
    text_input: bool = False,
    registry: Registry | None = None,
    on_stage: OnStage = _say_nothing,
) -> Artifact:
    """Convert a model to a folder with one Keras model per route, proven equal to encode().

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer.
        directory: where to write; default `<model's name>-keras` in the current folder.
        revision: a Hub branch, tag or commit.
        trust_remote_code: whether code that comes with the model may run.
        model_class: see `to_onnx`.
        pooling: see `to_onnx`.
        allow_changed: see `to_onnx`.
        overwrite: replace an existing artifact.
        formats: "keras" (trainable), "saved_model" (TensorFlow), "litert" (.tflite) and "onnx"; each is checked.
        activation: see `to_onnx`; the Keras model then gives a dict of both.
        atol: absolute term of the rule |a - b| <= atol + rtol * |b|; default 1e-5.
        rtol: relative term of the rule; default 1e-5.
        proof_budget: see `to_onnx`.
        text_input: make the tokenizer the model's first layer, which takes `text`, strings [batch], and nothing else;
            "keras" and "saved_model" alone. It is first proven equal to the model's, token by token, on 20,000 texts.
        registry: converters; default the built-in ones and those of installed plugins.
        on_stage: called with the name of each stage as it starts.

    Returns:
        The published artifact; its manifest holds the parity report.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError, ArtifactError:
            see `sbertconv.errors`. Nothing is written then.
        ParityError: if a written model differs from encode(). Nothing is published then.
        TokenizationError: if the tokenizer in the model gives one other token. Nothing is written then.
    """
    model = model_name(model)
    require("tf", "torch", "sentence_transformers", "keras")
    on_stage("loading libraries")
    keep_nothing_freed()
    from sbertconv.converters.keras.backend import KerasOptions
    from sbertconv.converters.keras.writer import write_keras

    options = KerasOptions(tuple(formats), text_input, activation)
    options.check()
    source, registry = _open(model, revision, trust_remote_code, registry, model_class, pooling, allow_changed)
    options = options.of(source.model_class)
    target = _target(directory, source.name, "keras")
    with settled_heap(), float32_policy(), stage(target, overwrite=overwrite) as staging:
        write = partial(write_keras, options=options)
        bounds = Bounds("fp32", {"atol": atol, "rtol": rtol}, proof_budget=proof_budget)
        content, report = _convert_and_compare(source, registry, "keras", write, staging, bounds, on_stage)
        return _publish(staging, content, report, on_stage)


def to_keras(model: str | Path | SentenceTransformer, *, task: str | None = None, **options: Any) -> keras.Model:
    """Convert a model to a Keras model in memory, proven equal to encode().

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer.
        task: for a model with routes, the task whose route is meant; None: the one that encode() takes.
        options: revision, trust_remote_code, model_class, pooling, allow_changed, atol, rtol, proof_budget, registry,
            on_stage of
            `to_tf`.

    Returns:
        A functional model from a dict of int32 tensors [batch, sequence] to embeddings, float32 [batch, dim].

    Raises:
        What `to_tf` raises.
    """
    with scratch_folder() as folder:
        artifact = to_tf(model, folder / "model", formats=["keras"], **options)
        graph = open_model(artifact).graph(
            "text" if task is not None else artifact.manifest["graphs"][0]["modality"], task
        )
        return load_keras_model(artifact.path(graph.section["formats"]["keras"]))


def to_torch(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    model_class: str | None = None,
    pooling: str | None = None,
    allow_changed: bool = False,
    overwrite: bool = False,
    outputs: Sequence[str] | None = None,
    activation: bool = False,
    sparse: bool = False,
    top_k: int | None = None,
    precision: str = "fp32",
    atol: float | None = None,
    rtol: float | None = None,
    proof_budget: float | None = None,
    registry: Registry | None = None,
    on_stage: OnStage = _say_nothing,
) -> Artifact:
    """Convert a model to a folder with one PyTorch program (.pt2) per route, proven equal to encode().

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer.
        directory: where to write; default `<model's name>-torch` in the current folder.
        revision: a Hub branch, tag or commit.
        trust_remote_code: whether code that comes with the model may run.
        model_class: see `to_onnx`.
        pooling: see `to_onnx`.
        allow_changed: see `to_onnx`.
        overwrite: replace an existing artifact.
        outputs: see `to_onnx`.
        activation: see `to_onnx`.
        sparse: see `to_onnx`.
        top_k: see `to_onnx`.
        precision: "fp32", the only one.
        atol: absolute term of the rule |a - b| <= atol + rtol * |b|; default 1e-6.
        rtol: relative term of the rule; default 1e-6.
        proof_budget: see `to_onnx`.
        registry: converters; default the built-in ones and those of installed plugins.
        on_stage: called with the name of each stage as it starts.

    Returns:
        The published artifact; its manifest holds the parity report.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError, ArtifactError:
            see `sbertconv.errors`. Nothing is written then.
        ParityError: if a written program differs from encode(). Nothing is published then.
    """
    model = model_name(model)
    require("torch", "torch", "sentence_transformers")
    on_stage("loading libraries")
    from sbertconv.converters.torch.backend import TorchOptions
    from sbertconv.converters.torch.writer import write_torch

    options = TorchOptions(None if outputs is None else tuple(outputs), activation, sparse, top_k, precision)
    options.check()
    source, registry = _open(model, revision, trust_remote_code, registry, model_class, pooling, allow_changed)
    options = options.of(source.model_class)
    source = _with_top_k(source, options.top_k)
    target = _target(directory, source.name, "torch")
    with settled_heap(), stage(target, overwrite=overwrite) as staging:
        write = partial(write_torch, options=options)
        bounds = Bounds(precision, {"atol": atol, "rtol": rtol}, proof_budget=proof_budget)
        content, report = _convert_and_compare(source, registry, "torch", write, staging, bounds, on_stage)
        return _publish(staging, content, report, on_stage)


def pipeline(
    model: str | Path | SentenceTransformer,
    *,
    task: str | None = None,
    modality: str | None = None,
    outputs: Sequence[str] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    model_class: str | None = None,
    pooling: str | None = None,
    allow_changed: bool = False,
    registry: Registry | None = None,
) -> Pipeline:
    """A model's whole chain as one torch module: the one that `to_torch` traces and proves equal to encode().

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer, whose weights are copied.
        task: for a model with routes, the task whose route is meant; None: the one that encode() takes.
        modality: "text" or "image"; None: what encode() takes, texts where it takes both.
        outputs: see `to_onnx`.
        revision: a Hub branch, tag or commit.
        trust_remote_code: whether code that comes with the model may run.
        model_class: see `to_onnx`.
        pooling: see `to_onnx`.
        allow_changed: see `to_onnx`.
        registry: converters; default the built-in ones and those of installed plugins.

    Returns:
        A module from named tensors to a dict of named tensors, see `Pipeline.forward`: in evaluation mode, float32,
        on the CPU, trainable; its weights have the names of `SentenceTransformer.state_dict()`.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError: see `sbertconv.errors`.
    """
    model = model_name(model)
    require("torch", "torch", "sentence_transformers")
    from sbertconv.converters.torch.backend import Pipeline
    from sbertconv.plan.planning import plan_model
    from sbertconv.source.routes import choose_route

    source, registry = _open(model, revision, trust_remote_code, registry, model_class, pooling, allow_changed)
    source.model_class.choose_outputs(outputs)
    with source.loaded() as loaded:
        plan = plan_model(loaded, source.name, "torch", registry)
        plan.check()
        route = choose_route(plan.routes, modality, task)
        found: Pipeline = copy.deepcopy(Pipeline(route, loaded, outputs).eval())
    return found


def to_st(
    model: str | Path,
    directory: str | Path | None = None,
    *,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    atol: float | None = None,
    rtol: float | None = None,
    part: str | None = None,
    on_stage: OnStage = _say_nothing,
) -> ParityReport:
    """Write a Keras model's weights back into a sentence-transformers folder, proven equal to the Keras model. A
    classifier of texts becomes a transformers checkpoint again, with its labels.

    Args:
        model: what `to_tf` wrote, or a .keras file that began as that; fine-tuned or not.
        directory: where to write; default `<model's name>-st` in the current folder.
        trust_remote_code: whether code that comes with the model may run.
        overwrite: replace a folder that was written so.
        atol: absolute term of the rule |a - b| <= atol + rtol * |b|; default 1e-5.
        rtol: relative term of the rule; default 1e-5.
        part: "encoder" for a .keras file whose model contains a converted one: that one is written.
        on_stage: called with the name of each stage as it starts.

    Raises:
        ArtifactError: if a layer or a weight is missing or has another shape, or the model is not such a file.
        ParityError: if what was written gives other answers. Nothing is written then.
    """
    if not path_is_there(model):
        raise ArtifactError(f"{model}: no such file or folder.{like(str(model))}\nCheck the path.")
    require("tf", "torch", "sentence_transformers", "keras", "safetensors")
    on_stage("loading libraries")
    from sbertconv.converters.keras.back import keras_files, open_files, write_sentence_transformers
    from sbertconv.parity.comparison import Reference, compare
    from sbertconv.parity.kinds import CLASS_PARITY
    from sbertconv.source.opening import open_source

    target = _target(directory, str(model), "st")
    with settled_heap(), stage(target, overwrite=overwrite) as staging:
        on_stage("loading the model")
        embedder = open_files(keras_files(model), part, whole=False)
        on_stage("converting")
        write_sentence_transformers(embedder, str(model), staging)
        model_class = embedder.artifact.manifest["model_class"]
        source = open_source(staging.folder, trust_remote_code=trust_remote_code, model_class=model_class)
        source.check_classes()
        on_stage("comparing with encode()")
        with source.loaded() as written:
            reference = Reference.of(CLASS_PARITY[source.model_class.name].original(written), embedder)
        report = replace(compare(reference, embedder, atol=atol, rtol=rtol), backend="sentence-transformers")
        content = {
            "backend": "sentence-transformers",
            "model_class": source.model_class.name,
            "source": {"name": str(model), "revision": None},
        }
        staging.manifest({**content, "parity": report.to_json()})
        report.raise_if_failed()
        on_stage("publishing")
        staging.publish()
    return report


def _keras_to_onnx(
    model: Any,
    directory: str | Path | None,
    overwrite: bool,
    tolerances: tuple[float | None, float | None],
    part: str | None,
    on_stage: OnStage,
) -> Artifact:
    """A Keras model, as it is now, to ONNX, proven equal to the Keras model."""
    require("tf", "keras", "tensorflow", "tf2onnx", "onnxruntime")
    on_stage("loading libraries")
    from sbertconv.converters.keras.back import keras_files, open_files, write_onnx_of
    from sbertconv.parity.comparison import Reference, compare
    from sbertconv.parity.questions import Converted

    target = _target(directory, str(model), "onnx")
    with settled_heap(), stage(target, overwrite=overwrite) as staging:
        on_stage("loading the model")
        embedder = open_files(keras_files(model), part)
        on_stage("converting")
        content = write_onnx_of(embedder, str(model), staging)
        on_stage("comparing with the Keras model")
        written = open_model(staging.manifest(content), beyond_proof=True)
        reference = Reference.of(Converted(embedder), written)
        report = compare(reference, written, atol=tolerances[0], rtol=tolerances[1])
        return _publish(staging, content, report, on_stage)


def _open(
    model: str | Path | SentenceTransformer,
    revision: str | None,
    trust_remote_code: bool,
    registry: Registry | None,
    model_class: str | None,
    pooling: str | None,
    allow_changed: bool,
) -> tuple[Source, Registry]:
    from sbertconv.converters import default_registry
    from sbertconv.source.opening import open_source

    source = open_source(
        model,
        revision=revision,
        trust_remote_code=trust_remote_code,
        model_class=model_class,
        pooling=pooling,
        allow_changed=allow_changed,
    )
    source.check_classes()
    return source, registry or default_registry()


def _with_top_k(source: Source, top_k: int | None) -> Source:
    """The source, whose model leaves so many values of a vector while it is loaded; None: as it does by itself.

    Raises:
        UnsupportedOptionError: for a model without sparse vectors, or a number that is not positive.
    """
    if top_k is None:
        return source
    source.model_class.check_sparse("--top-k")
    if top_k <= 0:
        raise UnsupportedOptionError(f"--top-k {top_k}: must be positive.\nLeave the option out to keep every value.")
    return replace(source, changes={"max_active_dims": top_k})


def _publish(staging: Staging, content: Mapping[str, Any], report: ParityReport, on_stage: OnStage) -> Artifact:
    """Publish if the report allows it."""
    staging.manifest({**content, "parity": report.to_json()})
    report.raise_if_failed()
    on_stage("publishing")
    staging.publish()
    return read_artifact(staging.target)


def _convert_and_compare(
    source: Source,
    registry: Registry,
    backend: str,
    write: Write,
    staging: Staging,
    bounds: Bounds,
    on_stage: OnStage,
) -> tuple[dict[str, Any], ParityReport]:
    """Write the artifact, reload it and compare: the manifest's content and the report. Where there are several ways
    to write it, the first that passes is taken.

    Raises:
        ArtifactError: if the graph cannot be fused, loaded or run.
    """
    from sbertconv.parity.comparison import compare_formats

    ways, reference, proven = _convert(source, registry, backend, write, staging, bounds, on_stage)
    measured = {**bounds.to_json(), "sees_padding": reference.sees_padding, "proven_length": proven}
    while ways:
        release_memory()
        on_stage("writing")
        content = ways.pop(0)(measured)
        release_memory()
        on_stage(f"comparing with {source.model_class.method}()")
        report = compare_formats(reference, staging.manifest(content), **bounds.tolerances)
        if report.passed:
            break
    return content, report


def _convert(
    source: Source,
    registry: Registry,
    backend: str,
    write: Write,
    staging: Staging,
    bounds: Bounds,
    on_stage: OnStage,
) -> tuple[list[Finish], Reference, int | None]:
    """Load, plan and convert; the original answers the harness's questions and is let go, before what can do
    without it is written and long before the converted model is loaded. The last of the three is the number of tokens
    that it could be asked up to.
    """
    from sbertconv.parity.budget import cut_note, proven_length
    from sbertconv.parity.comparison import Reference
    from sbertconv.parity.kinds import CLASS_PARITY
    from sbertconv.plan.planning import plan_model

    start = time.monotonic()
    on_stage("loading the model")
    with source.loaded(widened_late=backend == "onnx") as model:
        on_stage("planning")
        plan = plan_model(model, source.name, backend, registry)
        plan.check()
        on_stage("converting")
        content, ways = write(source, model, plan, staging=staging)
        del plan
        release_memory()
        on_stage("asking the original")
        original = CLASS_PARITY[source.model_class.name].original(model)
        drafted = open_model(staging.manifest(content), beyond_proof=True)
        proven = proven_length(original, drafted, bounds.proof_budget, time.monotonic() - start)
        if note := cut_note(drafted, proven):
            content["notes"].append(note)
        drafted = open_model(staging.manifest({**content, "proven_length": proven}), beyond_proof=True)
        return list(ways), Reference.of(original, drafted, bounds.texts), proven


def verify(
    model: str | Path | SentenceTransformer,
    directory: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_changed: bool = False,
    atol: float | None = None,
    rtol: float | None = None,
    on_stage: OnStage = _say_nothing,
) -> ParityReport:
    """Compare an existing artifact with its model again, hashes first.

    Returns:
        The report; `report.passed` says whether every check held.

    Raises:
        SourceError, ArtifactError: if one of the two cannot be loaded.
    """
    model = model_name(model)
    require("onnx", "torch", "sentence_transformers")
    on_stage("checking the files")
    artifact = read_artifact(directory)
    artifact.verify_hashes()
    on_stage("loading the model")
    from sbertconv.parity.comparison import Reference, compare_formats
    from sbertconv.parity.kinds import CLASS_PARITY
    from sbertconv.source.opening import open_source

    options: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "allow_changed": allow_changed,
    }
    source = open_source(model, **options)
    wanted, pooling = artifact.manifest["model_class"], artifact.manifest.get("pooling")
    if wanted != source.model_class.name or pooling is not None:  # a bare checkpoint may have been read otherwise
        try:
            source = open_source(model, **options, model_class=wanted, pooling=pooling)
        except UnsupportedOptionError as error:
            raise SourceError(
                f"{source.name}: is a {source.model_class.name}, the folder a {wanted}.\nPass its own model."
            ) from error
    source.check_classes()
    source = _with_top_k(source, artifact.manifest.get("top_k"))
    with source.loaded(widened_late=True) as loaded:
        on_stage(f"comparing with {source.model_class.method}()")
        original = CLASS_PARITY[source.model_class.name].original(loaded)
        reference = Reference.of(original, open_model(artifact, beyond_proof=True))
    return compare_formats(reference, artifact, atol=atol, rtol=rtol)


def inspect(
    model: str | Path | SentenceTransformer,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    model_class: str | None = None,
    pooling: str | None = None,
) -> Mapping[str, Any]:
    """Describe a model without loading its weights, or what became of one; the arguments are those of `to_onnx`. The
    model may also be a converted folder or a .keras file: then no other argument applies, and sbertconv is all that
    need be installed.

    Returns:
        Of a model: name, revision, modules (label, type, settings, converter or problem per backend), architecture,
        tokenizer, embedding_dimension, max_seq_length, prompts, notes. Of what was converted: see `describe_converted`.

    Raises:
        SourceError, ArtifactError: if it does not exist or cannot be read.
        MissingDependencyError: for a model, if torch or sentence-transformers is not installed.
    """
    if is_converted(model):
        given = {"revision": revision, "model_class": model_class, "pooling": pooling}
        if idle := [option_name(name) for name, value in given.items() if value is not None]:
            raise UnsupportedOptionError(
                f"{model}: {', '.join(idle)}: it is converted already.\nLeave the options out."
            )
        return describe_converted(model)
    model = model_name(model)
    require("onnx", "torch", "sentence_transformers", "transformers")
    from sbertconv.converters import default_registry
    from sbertconv.plan.inspection import describe
    from sbertconv.source.opening import open_source

    source = open_source(
        model, revision=revision, trust_remote_code=trust_remote_code, model_class=model_class, pooling=pooling
    )
    return describe(source, default_registry())


def _target(directory: str | Path | None, name: str, backend: str) -> str | Path:
    """The folder to write: the one that was given, or the default."""
    if directory == "":
        raise UnsupportedOptionError(
            "The folder to write has an empty name.\nName it, or leave it out for the default: '.' is the current one."
        )
    return default_directory(name, backend) if directory is None else directory


def default_directory(name: str, backend: str) -> Path:
    """`<model's name>-<backend>` in the current folder."""
    stem = folder_name(Path(name)) if path_is_there(name) else name.rsplit("/", 1)[-1]
    stem = stem.removesuffix(KERAS_SUFFIX)
    if not stem:
        raise UnsupportedOptionError(f"{name!r} gives no name for a folder.\nPass the folder to write.")
    return Path.cwd() / f"{stem}-{backend}"
