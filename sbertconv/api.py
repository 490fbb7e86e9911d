"""The public verbs: each opens its model, says how the folder is written, and goes through `sbertconv.conversion`.

Their options stand in `sbertconv.options`, once for all of them and for the command line.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from sbertconv.artifact.folder import Artifact, is_keras_artifact, link_or_copy, read_artifact
from sbertconv.artifact.hub import check_repository, push
from sbertconv.artifact.publishing import stage
from sbertconv.artifact.scratch import scratch_folder
from sbertconv.conversion import (
    Bounds,
    Conversion,
    OnStage,
    exact_bounds,
    located,
    opened,
    published,
    say_nothing,
    staged,
    target_folder,
    with_changes,
)
from sbertconv.errors import ArtifactError, SourceError, UnsupportedOptionError, require
from sbertconv.frameworks import float32_policy
from sbertconv.memory import keep_nothing_freed
from sbertconv.options import (
    FolderOptions,
    GateOptions,
    KerasOptions,
    LayerOptions,
    LikenessOptions,
    LookInsideOptions,
    ModelOptions,
    OnnxOptions,
    OpenVinoOptions,
    PartOptions,
    ProofOptions,
    PushOptions,
    RuleOptions,
    StaticOptions,
    TorchOptions,
    TrimOptions,
    recorded,
    refuse_idle,
    subject,
    verb,
)
from sbertconv.parity.by_module import check_inside
from sbertconv.runtime.description import describe_converted, is_converted
from sbertconv.runtime.engines import load_keras_model
from sbertconv.runtime.opening import open_model
from sbertconv.source.naming import like, model_name, path_is_there

if TYPE_CHECKING:
    import keras
    from sentence_transformers import SentenceTransformer

    import sbertconv.keywords as keywords
    from sbertconv.converters.onnx.backend import GraphSettings
    from sbertconv.converters.torch.backend import Pipeline
    from sbertconv.parity.comparison import ParityReport
    from sbertconv.plan.registry import Registry
    from sbertconv.reduction.reports import Reduction
    from sbertconv.source.opening import Source

KERAS_TO_ONNX = {
    "overwrite",
    "push_to_hub",
    "atol",
    "rtol",
    "part",
}  # what to_onnx has a use for where the model is one of to_tf


def uploader(options: Mapping[str, Any], on_stage: OnStage) -> Callable[[Artifact], Artifact]:
    """What a verb does with the published folder: uploads it if it is asked to. Refused before the work."""
    repo_id = subject(PushOptions, options).push_to_hub
    if repo_id is not None:
        check_repository(repo_id)

    def pushed(artifact: Artifact) -> Artifact:
        if repo_id is not None:
            on_stage("uploading")
            push(artifact.folder, repo_id)
        return artifact

    return pushed


@verb
def to_onnx(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    registry: Registry | None = None,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.ToOnnx],
) -> Artifact:
    """Convert a model to a folder with one ONNX graph per route, proven equal to encode().

    Below fp32 no graph can be equal; it must then pass a quality gate on 1,200 sentences and the texts given.

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer; or a folder that `to_tf` wrote, or a .keras file
            that began as one: then the graph is proven equal to that Keras model, and of the options below only
            overwrite, push_to_hub, atol, rtol and part apply.
        directory: where to write; default `<model's name>-onnx` in the current folder.
        registry: converters; default the built-in ones and those of installed plugins.
        on_stage: called with the name of each stage as it starts.
        {options}

    Returns:
        The published artifact; its manifest holds the parity report, with the measured quality.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError, ArtifactError:
            see `sbertconv.errors`. Nothing is written then.
        ParityError: if the written graph differs from encode(), or fails the gate. Nothing is published then.
        TokenizationError: if the tokenizer in the graph gives one other token. Nothing is written then.
    """
    pushed = uploader(options, on_stage)
    if is_keras_artifact(model):
        reason = f"{model} is a Keras model: it has its inputs and outputs already, and is written as they are."
        refuse_idle("to_onnx", {**options, "registry": registry}, KERAS_TO_ONNX, reason)
        return pushed(_keras_to_onnx(model, directory, options, on_stage))
    if (part := options.get("part")) is not None:
        raise UnsupportedOptionError(f"part={part!r}: {model} is no Keras model of to-tf.\nLeave the option out.")
    return pushed(_to_graph("to_onnx", model, directory, subject(OnnxOptions, options), options, registry, on_stage))


@verb
def to_openvino(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    registry: Registry | None = None,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.ToOpenvino],
) -> Artifact:
    """Convert a model to a folder with one graph per route in OpenVINO's intermediate representation, proven equal to
    encode() on OpenVINO.

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer.
        directory: where to write; default `<model's name>-openvino` in the current folder.
        registry: converters; default the built-in ones and those of installed plugins.
        on_stage: called with the name of each stage as it starts.
        {options}

    Returns:
        The published artifact; its manifest holds the parity report, with the measured quality.

    Raises:
        SbertconvError: what `to_onnx` raises.
    """
    require("openvino", "openvino")
    pushed, how = uploader(options, on_stage), subject(OpenVinoOptions, options)
    return pushed(_to_graph("to_openvino", model, directory, how, options, registry, on_stage))


def _to_graph(
    verb_name: str,
    model: str | Path | SentenceTransformer,
    directory: str | Path | None,
    how: OnnxOptions | OpenVinoOptions,
    options: Mapping[str, Any],
    registry: Registry | None,
    on_stage: OnStage,
) -> Artifact:
    """Convert to a graph with fused operators, or without them where those fail."""
    model = model_name(model)
    require("onnx", "torch", "sentence_transformers", "onnx", "onnxscript", "onnxruntime")
    on_stage("loading libraries")
    from sbertconv.consumers.packing import named, packed
    from sbertconv.consumers.refusals import outputs_for
    from sbertconv.converters.onnx.backend import GraphSettings
    from sbertconv.converters.onnx.writer import write_onnx

    only = {"form": "openvino", "engines": ("openvino",)} if isinstance(how, OpenVinoOptions) else {}
    settings: GraphSettings = GraphSettings(**{**vars(how), **only})
    bounds = Bounds(settings.precision, subject(GateOptions, options))
    settings.check()
    known = named(how.consumers) if how.consumers else {}
    source, converters = opened(model, subject(ModelOptions, options), registry)
    if how.outputs is None and not how.sparse:
        settings = replace(settings, outputs=outputs_for(known, source.model_class))
    settings = settings.of(source.model_class)
    ways = {"": partial(write_onnx, options=settings)}
    if settings.optimize:
        note = "Written without fused operators. With them: {reason}"
        ways[note] = partial(write_onnx, options=replace(settings, optimize=False))
    conversion = Conversion(
        source=with_changes(source, settings.top_k, settings.truncate_dim, settings.normalize, settings.outputs or ()),
        registry=converters,
        backend="onnx",
        bounds=bounds,
        recorded=recorded(verb_name, options),
        on_stage=on_stage,
    )
    target = target_folder(directory, source.name, settings.kind)
    overwrite = subject(FolderOptions, options).overwrite
    if not known:
        return conversion.into(target, ways, overwrite=overwrite)
    with stage(target, overwrite=overwrite), scratch_folder() as scratch:  # refuses before the work
        made = conversion.into(scratch / "converted", ways, overwrite=False)
        return packed(made.folder, target, known, overwrite=overwrite, on_stage=on_stage)


@verb
def build_plan(
    directory: str | Path, *, on_stage: OnStage = say_nothing, **options: Unpack[keywords.BuildPlan]
) -> Artifact:
    """Build a TensorRT plan of every graph of a folder, for the GPU of this machine, and prove it equal to the graph.

    The graph runs in ONNX Runtime on the CPU for that; `verify` compares the plan with the model itself.

    Args:
        directory: what `to_onnx(target="tensorrt")` wrote; a plan that it holds already is replaced.
        on_stage: called with the name of each stage as it starts.
        {options}

    Returns:
        The artifact, now with the format "tensorrt"; `plan` in its manifest says with what and for which GPU it was
        built, and holds the parity report.

    Raises:
        MissingDependencyError: if TensorRT or a GPU is not there, with what to do.
        ArtifactError, UnsupportedOptionError, UnsupportedModuleError: see `sbertconv.errors`. The folder is unchanged.
        ParityError: if a plan differs from its graph. The folder is unchanged then.
    """
    from sbertconv.runtime.tensorrt import gpu_name, import_tensorrt

    on_stage("checking the files")
    artifact = read_artifact(directory)
    if artifact.manifest.get("target") != "tensorrt":
        raise UnsupportedOptionError(
            f"{directory}: not written for TensorRT.\nConvert the model with to-onnx --target tensorrt."
        )
    artifact.verify_hashes()
    bounds = Bounds(artifact.manifest["precision"], subject(RuleOptions, options))
    trt, cuda = import_tensorrt(artifact.folder)
    on_stage("loading libraries")
    from sbertconv.converters.onnx.tensorrt_plan import plan_names, write_plan
    from sbertconv.parity.comparison import Reference, compare
    from sbertconv.parity.questions import Converted

    plans, kept = plan_names(artifact)
    with staged(artifact.folder, overwrite=True) as staging:
        for name in kept:
            link_or_copy(artifact.path(name), staging.folder / name)
        on_stage("building")
        graphs = []
        for graph, plan in zip(artifact.manifest["graphs"], plans, strict=True):
            file = graph["formats"]["onnx"]
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
        report = replace(compare(reference, planned, **bounds.rule), backend="tensorrt")
        proven = published(staging, content, report, on_stage, lambda proof: {"plan": {**made, "parity": proof}})
        return read_artifact(proven)


@verb
def to_tf(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    registry: Registry | None = None,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.ToTf],
) -> Artifact:
    """Convert a model to a folder with one Keras model per route, proven equal to encode().

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer.
        directory: where to write; default `<model's name>-keras` in the current folder.
        registry: converters; default the built-in ones and those of installed plugins.
        on_stage: called with the name of each stage as it starts.
        {options}

    Returns:
        The published artifact; its manifest holds the parity report.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError, ArtifactError:
            see `sbertconv.errors`. Nothing is written then.
        ParityError: if a written model differs from encode(). Nothing is published then.
        TokenizationError: if the tokenizer in the model gives one other token. Nothing is written then.
    """
    model, pushed = model_name(model), uploader(options, on_stage)
    require("tf", "torch", "sentence_transformers", "keras")
    on_stage("loading libraries")
    keep_nothing_freed()
    from sbertconv.converters.keras.backend import KerasSettings
    from sbertconv.converters.keras.writer import write_keras

    settings = KerasSettings(**vars(subject(KerasOptions, options)))
    settings.check()
    source, converters = opened(model, subject(ModelOptions, options), registry)
    conversion = Conversion(
        source=with_changes(source, None, settings.truncate_dim, settings.normalize),
        registry=converters,
        backend="keras",
        bounds=exact_bounds(subject(ProofOptions, options)),
        recorded=recorded("to_tf", options),
        on_stage=on_stage,
        policy=float32_policy,
    )
    ways = {"": partial(write_keras, options=settings.of(source.model_class))}
    target = target_folder(directory, source.name, "keras")
    return pushed(conversion.into(target, ways, overwrite=subject(FolderOptions, options).overwrite))


@verb
def to_keras(
    model: str | Path | SentenceTransformer,
    *,
    task: str | None = None,
    registry: Registry | None = None,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.ToKeras],
) -> keras.Model:
    """Convert a model to a Keras model in memory, proven equal to encode().

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer.
        task: for a model with routes, the task whose route is meant; None: the one that encode() takes.
        registry: converters; default the built-in ones and those of installed plugins.
        on_stage: called with the name of each stage as it starts.
        {options}

    Returns:
        A functional model from a dict of int32 tensors [batch, sequence] to embeddings, float32 [batch, dim].

    Raises:
        SbertconvError: what `to_tf` raises.
    """
    with scratch_folder() as folder:
        artifact = to_tf(model, folder / "model", formats=["keras"], registry=registry, on_stage=on_stage, **options)
        graph = open_model(artifact).graph(
            "text" if task is not None else artifact.manifest["graphs"][0]["modality"], task
        )
        return load_keras_model(artifact.path(graph.section["formats"]["keras"]))


@verb
def to_torch(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    registry: Registry | None = None,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.ToTorch],
) -> Artifact:
    """Convert a model to a folder with one PyTorch program (.pt2) per route, proven equal to encode().

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer.
        directory: where to write; default `<model's name>-torch` in the current folder.
        registry: converters; default the built-in ones and those of installed plugins.
        on_stage: called with the name of each stage as it starts.
        {options}

    Returns:
        The published artifact; its manifest holds the parity report.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError, ArtifactError:
            see `sbertconv.errors`. Nothing is written then.
        ParityError: if a written program differs from encode(). Nothing is published then.
    """
    model, pushed = model_name(model), uploader(options, on_stage)
    require("torch", "torch", "sentence_transformers")
    on_stage("loading libraries")
    from sbertconv.converters.torch.writer import write_torch

    how = subject(TorchOptions, options)
    source, converters = opened(model, subject(ModelOptions, options), registry)
    outputs = source.model_class.choose_outputs(how.outputs, how.activation, how.sparse)
    conversion = Conversion(
        source=with_changes(source, how.top_k, how.truncate_dim, how.normalize, outputs),
        registry=converters,
        backend="torch",
        bounds=exact_bounds(subject(ProofOptions, options)),
        recorded=recorded("to_torch", options),
        on_stage=on_stage,
    )
    ways = {"": partial(write_torch, options=replace(how, outputs=outputs))}
    target = target_folder(directory, source.name, "torch")
    return pushed(conversion.into(target, ways, overwrite=subject(FolderOptions, options).overwrite))


@verb
def pipeline(
    model: str | Path | SentenceTransformer,
    *,
    task: str | None = None,
    modality: str | None = None,
    registry: Registry | None = None,
    **options: Unpack[keywords.Pipeline],
) -> Pipeline:
    """A model's whole chain as one torch module: the one that `to_torch` traces and proves equal to encode().

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer, whose weights are copied.
        task: for a model with routes, the task whose route is meant; None: the one that encode() takes.
        modality: "text" or "image"; None: what encode() takes, texts where it takes both.
        registry: converters; default the built-in ones and those of installed plugins.
        {options}

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

    source, converters = opened(model, subject(ModelOptions, options), registry)
    outputs = subject(TorchOptions, options).outputs
    source = with_changes(source, outputs=source.model_class.choose_outputs(outputs))
    with source.loaded() as loaded:
        plan = plan_model(loaded, source.name, "torch", converters)
        plan.check()
        route = choose_route(plan.routes, modality, task)
        found: Pipeline = copy.deepcopy(Pipeline(route, loaded, outputs).eval())
    return found


def recorded_tasks(artifact: Artifact) -> tuple[str, ...]:
    """The tasks that a folder was converted with."""
    tasks = artifact.manifest.get("options", {}).get("tasks")
    return tuple(map(str, tasks)) if isinstance(tasks, (list, tuple)) else ()


@verb
def to_st(
    model: str | Path,
    directory: str | Path | None = None,
    *,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.ToSt],
) -> ParityReport:
    """Write a Keras model's weights back into a sentence-transformers folder, proven equal to the Keras model. A
    classifier of texts becomes a transformers checkpoint again, with its labels.

    Args:
        model: what `to_tf` wrote, or a .keras file that began as that; fine-tuned or not.
        directory: where to write; default `<model's name>-st` in the current folder.
        on_stage: called with the name of each stage as it starts.
        {options}

    Raises:
        ArtifactError: if a layer or a weight is missing or has another shape, or the model is not such a file.
        UnsupportedOptionError: for a model that was converted with tasks.
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

    how, rule = subject(ModelOptions, options), subject(RuleOptions, options)
    target = target_folder(directory, str(model), "st")
    with staged(target, overwrite=subject(FolderOptions, options).overwrite) as staging:
        on_stage("loading the model")
        embedder = open_files(keras_files(model), subject(PartOptions, options).part, whole=False)
        if tasks := recorded_tasks(embedder.artifact):
            raise UnsupportedOptionError(
                f"{model}: converted with tasks={list(tasks)}, copies of one module, for which a folder of "
                "sentence-transformers has no place.\nConvert the model without tasks= to train it."
            )
        on_stage("converting")
        write_sentence_transformers(embedder, str(model), staging)
        model_class = embedder.artifact.manifest["model_class"]
        source = open_source(staging.folder, trust_remote_code=how.trust_remote_code, model_class=model_class)
        source.check_classes()
        source = with_changes(source, normalize=embedder.artifact.manifest.get("normalized", False))
        on_stage("comparing with encode()")
        with source.loaded() as written:
            reference = Reference.of(CLASS_PARITY[source.model_class.name].original(written), embedder)
        report = compare(reference, embedder, **vars(rule))
        content = {
            "backend": "sentence-transformers",
            "model_class": source.model_class.name,
            "source": {"name": str(model), "revision": None},
        }
        report = replace(report, backend="sentence-transformers")
        published(staging, content, report, on_stage)
    return report


@verb
def trim(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.Trim],
) -> Reduction:
    """Write a model with fewer tokens, as a folder that sentence-transformers loads: the rows of its embedding table
    and its tokenizer are cut to those that texts or languages need. Every kept text has the same embedding, to the last
    bit.

    Args:
        model: a Hub id, a folder, or a live model, which is left as it is.
        directory: where to write; default `<model's name>-trimmed` in the current folder.
        on_stage: called with the name of each stage as it starts.
        {options}

    Returns:
        The sizes before and after, the share of other texts that change their tokens, and the proof.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError, ArtifactError:
            see `sbertconv.errors`. Nothing is written then.
        ParityError: if a kept text has another embedding. Nothing is published then.
    """
    from sbertconv.reduction.trimming import trim as reduce

    how = partial(reduce, options=subject(TrimOptions, options))
    return _reduced("trim", model, directory, options, on_stage, "trimmed", how)


@verb
def shorten(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.Shorten],
) -> Reduction:
    """Write a model with fewer layers, as a folder that sentence-transformers loads, behind a quality gate on its
    similarities.

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer, which is left as it is.
        directory: where to write; default `<model's name>-short` in the current folder.
        on_stage: called with the name of each stage as it starts.
        {options}

    Returns:
        The sizes before and after, and the measured quality.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError, ArtifactError:
            see `sbertconv.errors`. Nothing is written then.
        ParityError: if the similarities stay below the gate. Nothing is published then.
    """
    from sbertconv.reduction.layers import shorten as reduce

    how = partial(reduce, layers=subject(LayerOptions, options), gate=subject(LikenessOptions, options))
    return _reduced("shorten", model, directory, options, on_stage, "short", how)


@verb
def to_static(
    model: str | Path | SentenceTransformer,
    directory: str | Path | None = None,
    *,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.ToStatic],
) -> Reduction:
    """Write a model of token vectors, a StaticEmbedding that sentence-transformers loads, distilled from a model by
    asking it for every token, behind a quality gate on its similarities.

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer, which is left as it is.
        directory: where to write; default `<model's name>-static` in the current folder.
        on_stage: called with the name of each stage as it starts.
        {options}

    Returns:
        The sizes before and after, and the measured quality.

    Raises:
        SourceError, UnsupportedModuleError, UnsupportedOptionError, MissingDependencyError, ArtifactError:
            see `sbertconv.errors`. Nothing is written then.
        ParityError: if the similarities stay below the gate. Nothing is published then.
    """
    from sbertconv.reduction.distilling import to_static as reduce

    how = partial(reduce, how=subject(StaticOptions, options), gate=subject(LikenessOptions, options))
    return _reduced("to_static", model, directory, options, on_stage, "static", how)


def _reduced(
    verb_name: str,
    model: str | Path | SentenceTransformer,
    directory: str | Path | None,
    options: Mapping[str, Any],
    on_stage: OnStage,
    kind: str,
    reduce: Callable[..., Reduction],
) -> Reduction:
    """Open a model, write a smaller one into a staged folder, and publish that if its proof allows it."""
    model = model_name(model)
    require("torch", "torch", "sentence_transformers")
    on_stage("loading libraries")
    from sbertconv.reduction.reports import content_of
    from sbertconv.source.opening import open_source

    source: Source = open_source(model, **vars(subject(ModelOptions, options)))
    source.check_classes()
    target = target_folder(directory, source.name, kind)
    with staged(target, overwrite=subject(FolderOptions, options).overwrite) as staging:
        made = reduce(source, staging=staging, on_stage=on_stage)
        content = content_of(source, made, recorded(verb_name, options))
        published(staging, content, made.parity, on_stage)
    return made


def _keras_to_onnx(model: Any, directory: str | Path | None, options: Mapping[str, Any], on_stage: OnStage) -> Artifact:
    """A Keras model, as it is now, to ONNX, proven equal to the Keras model."""
    require("tf", "keras", "tensorflow", "tf2onnx", "onnxruntime")
    on_stage("loading libraries")
    from sbertconv.converters.keras.back import keras_files, open_files, write_onnx_of
    from sbertconv.parity.comparison import Reference, compare
    from sbertconv.parity.questions import Converted

    target = target_folder(directory, str(model), "onnx")
    with staged(target, overwrite=subject(FolderOptions, options).overwrite) as staging:
        on_stage("loading the model")
        embedder = open_files(keras_files(model), subject(PartOptions, options).part)
        on_stage("converting")
        content = write_onnx_of(embedder, str(model), staging)
        on_stage("comparing with the Keras model")
        written = open_model(staging.manifest(content), beyond_proof=True)
        reference = Reference.of(Converted(embedder), written)
        report = compare(reference, written, **vars(subject(RuleOptions, options)))
        return read_artifact(published(staging, content, report, on_stage))


@verb
def verify(
    model: str | Path | SentenceTransformer,
    directory: str | Path,
    *,
    on_stage: OnStage = say_nothing,
    **options: Unpack[keywords.Verify],
) -> ParityReport:
    """Compare an existing artifact with its model again: hashes first, then the settings that come from the model.

    Args:
        model: a Hub id, a folder, or a live SentenceTransformer.
        directory: a converted folder.
        on_stage: called with the name of each stage as it starts.
        {options}

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
    by_module = subject(LookInsideOptions, options).by_module
    if by_module:
        check_inside(artifact)
    on_stage("loading the model")
    from sbertconv.converters.settings import other_settings
    from sbertconv.parity.comparison import Reference, compare_formats
    from sbertconv.parity.kinds import CLASS_PARITY
    from sbertconv.source.opening import open_source

    how = {**vars(subject(ModelOptions, options)), "tasks": recorded_tasks(artifact)}
    source = open_source(model, **how)
    wanted, pooling = artifact.manifest["model_class"], artifact.manifest.get("pooling")
    if wanted != source.model_class.name or pooling is not None:  # a bare checkpoint may have been read otherwise
        try:
            source = open_source(model, **{**how, "model_class": wanted, "pooling": pooling})
        except UnsupportedOptionError as error:
            own = f"is a {source.model_class.name}, the folder a {wanted}"
            if wanted == source.model_class.name:
                own = f"has its own pooling, the folder {pooling!r}, chosen for a checkpoint without one"
            raise SourceError(f"{source.name}: {own}.\nPass its own model.") from error
    source.check_classes()
    manifest = artifact.manifest
    cut = manifest.get("options", {}).get("truncate_dim")
    given = [output["name"] for output in manifest["graphs"][0]["outputs"]]
    source = with_changes(source, manifest.get("top_k"), cut, manifest.get("normalized", False), given)
    with source.loaded(widened_late=True) as loaded:
        others = other_settings(source, loaded, artifact)
        on_stage(f"comparing with {source.model_class.method}()")
        original = CLASS_PARITY[source.model_class.name].original(loaded)
        reference = Reference.of(original, open_model(artifact, beyond_proof=True))
    if reference.sees_padding and not manifest["sees_padding"]:
        others.append("sees_padding: False, and the model's answers depend on the padding of a batch")
    report = compare_formats(reference, artifact, **vars(subject(RuleOptions, options))).with_settings(others)
    if by_module:
        on_stage("comparing module by module")
        report = located(report, reference, source, artifact)
    return report


@verb
def inspect(model: str | Path | SentenceTransformer, **options: Unpack[keywords.Inspect]) -> Mapping[str, Any]:
    """Describe a model without loading its weights, or what became of one. The model may also be a converted folder or
    a .keras file: then no other argument applies, and sbertconv is all that need be installed.

    Args:
        model: a Hub id, a folder, a live SentenceTransformer, or what was converted.
        {options}

    Returns:
        Of a model: name, revision, modules (label, type, settings, converter or problem per backend), architecture,
        tokenizer, embedding_dimension, max_seq_length, prompts, notes. Of what was converted: see `describe_converted`.

    Raises:
        SourceError, ArtifactError: if it does not exist or cannot be read.
        MissingDependencyError: for a model, if torch or sentence-transformers is not installed.
    """
    if is_converted(model):
        refuse_idle("inspect", options, {"trust_remote_code"}, f"{model} is converted already.")
        return describe_converted(model)
    model = model_name(model)
    require("onnx", "torch", "sentence_transformers", "transformers")
    from sbertconv.converters import default_registry
    from sbertconv.plan.inspection import describe
    from sbertconv.source.opening import open_source

    return describe(open_source(model, **vars(subject(ModelOptions, options))), default_registry())
