"""Writes everything of a Keras artifact but its parity report into the staging folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbertconv.artifact.folder import MANIFEST
from sbertconv.artifact.kinds import ModelClass
from sbertconv.artifact.manifest import FORMAT_VERSION
from sbertconv.artifact.publishing import Staging
from sbertconv.artifact.scratch import scratch_folder
from sbertconv.converters.guards import TraceFacts
from sbertconv.converters.keras.backend import KerasSettings, build_model, describe_inputs, describe_outputs
from sbertconv.converters.keras.formats import FORMATS, write_format
from sbertconv.converters.keras.tracing import TRAINING
from sbertconv.converters.keras.weights import weights
from sbertconv.converters.text import text_tables
from sbertconv.converters.traced import quiet
from sbertconv.converters.writing import (
    Finish,
    graph_name,
    manifest_content,
    route_content,
    to_json,
    write_module_configs,
    write_tokenizer,
)
from sbertconv.errors import error_text
from sbertconv.frameworks import import_tensorflow
from sbertconv.plan.outputs import OUTPUTS
from sbertconv.plan.planning import Plan
from sbertconv.plan.routes import PlannedRoute
from sbertconv.source.opening import Source
from sbertconv.text import GraphTokenizer
from sbertconv.text.proof import Tokenize
from sbertconv.text.tf_emitter import function_runner

if TYPE_CHECKING:
    import keras
    from sentence_transformers import SentenceTransformer

PACKAGES = ("torch", "sentence-transformers", "transformers", "tokenizers", "keras", "tensorflow", "tf2onnx")
SKELETON = "sentence_transformers"  # the folder of configs inside a .keras file
WEIGHTS = "model.safetensors"
Folders = Mapping[int, tuple[str, Any]]  # id of a module -> its folder and what its weights file holds


def write_keras(
    source: Source, model: SentenceTransformer, plan: Plan, options: KerasSettings, staging: Staging
) -> tuple[dict[str, Any], list[Finish]]:
    """Write tokenizers and configs; returns the manifest's content, and what writes the models.

    The Keras models hold weights of their own by then, so that the original need not wait for their files.
    """
    tables = text_tables(plan, options.text_input, source.model_class.text_pair, _tokenizer)
    graphs, models = [], []
    for index, route in enumerate(plan.routes):
        section = write_tokenizer(route, index == 0, staging)
        name = graph_name(route.name, index == 0)
        text = tables.get(route.name)
        models.append(build_model(route, model, options.outputs, text))
        outputs = describe_outputs(models[-1], source.model_class.output)
        formats = {form: FORMATS[form].file.format(name=name) for form in options.formats}
        inputs = describe_inputs(route)
        entry = {"inputs": inputs} if text is None else text.section(inputs)
        facts = TraceFacts.together(getattr(layer, "facts", TraceFacts()) for layer, _ in _stated_layers(route))
        entry |= facts.section(section, route.places)
        graphs.append({**route_content(route, formats, inputs, outputs, section), **entry})
    write_module_configs(model, staging)
    engines = {form: FORMATS[form].engines for form in options.formats}
    more = {"text_input": True} if options.text_input else {}
    content = manifest_content(source, model, plan, graphs, engines, PACKAGES, **more)
    content["notes"] += list(_trace_notes(plan))
    folders = module_folders(model)
    packed = _packed(source.model_class, staging, model, plan, folders, content["notes"])
    manifests = []
    for route, graph, keras_model in zip(plan.routes, graphs, models, strict=True):
        last = keras_model.get_layer(source.model_class.output)
        last.files = packed
        manifests.append((last, _manifest(route, graph, content, folders)))
        packed = {name: data for name, data in packed.items() if not name.startswith(SKELETON)}  # once is enough
    return content, [partial(_write_models, models, manifests, content, staging.folder)]


def _tokenizer(tables: GraphTokenizer) -> tuple[Tokenize, dict[str, int]]:
    """A tokenizer as a function of TensorFlow, as a SavedModel has it, and its size."""
    return function_runner(import_tensorflow(["text input"]), tables)


def _trace_notes(plan: Plan) -> Iterator[str]:
    """What a fine-tuning will miss, where a module could not be traced as it trains."""
    for route in plan.routes:
        for layer, _ in _stated_layers(route):
            mode = getattr(layer, "graph", {}).get("mode", TRAINING)
            if mode != TRAINING:
                yield (
                    f"{layer.name} was traced in {mode}: dropouts or skipped layers outside of that have no "
                    "counterpart when the Keras model is trained."
                )


def _write_models(
    models: Sequence[keras.Model],
    manifests: Sequence[tuple[Any, Mapping[str, Any]]],
    content: Mapping[str, Any],
    folder: Path,
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Every model in every format, with its own manifest in the layer that carries it."""
    for layer, manifest in manifests:
        layer.files = {**layer.files, MANIFEST: to_json({**manifest, **measured}).encode()}
    for model, graph in zip(models, content["graphs"], strict=True):
        for form, file in graph["formats"].items():
            write_format(form, model, graph["inputs"], folder / file)
    return {**content, **measured}


def _packed(
    model_class: ModelClass,
    staging: Staging,
    model: SentenceTransformer,
    plan: Plan,
    folders: Folders,
    notes: list[str],
) -> dict[str, bytes]:
    """What travels inside a .keras file: the tokenizer files and configs staged so far, and the way back, or a note
    why there is none.
    """
    files = {
        path.relative_to(staging.folder).as_posix(): path.read_bytes()
        for path in sorted(staging.folder.rglob("*"))
        if path.is_file()
    }
    try:
        return files | _skeleton(model_class, model, plan, folders)
    except Exception as error:  # a module that sentence-transformers itself cannot save
        notes.append(f"to-st will not work: the model cannot be saved ({error_text(error)}).")
        return files


def _manifest(
    route: PlannedRoute, graph: Mapping[str, Any], content: Mapping[str, Any], folders: Folders
) -> dict[str, Any]:
    """The manifest of a .keras file alone, which also says where each layer's weights belong in PyTorch's files."""
    graph = {**graph, "formats": {"keras": FORMATS["keras"].file.format(name="model")}}
    content = {**content, "engines": {"keras": FORMATS["keras"].engines}, "graphs": [graph]}
    origin = {
        layer.name: {**origin, "shapes": {w.name: w.shape for w in weights(layer, origin["prefix"])}}
        for layer, origin in _layers(route, folders)
    }
    return {"format_version": FORMAT_VERSION, **content, "torch_weights": origin, "files": {}}


def module_folders(model: SentenceTransformer) -> Folders:
    """Id of a module -> the folder that `SentenceTransformer.save` gives it, and what its weights file holds."""
    found: dict[int, tuple[str, Any]] = {}

    def walk(folder: str, module: Any) -> None:
        held = module.model if hasattr(module, "model") and hasattr(module, "modality_config") else module
        found.setdefault(id(module), (folder, held))
        for route, nested in (getattr(module, "sub_modules", None) or {}).items():
            for index, part in enumerate(nested):
                walk(f"{folder}{route}_{index}_{type(part).__name__}/", part)

    for index, module in enumerate(model.children()):
        root = getattr(module, "save_in_root", False) and index == 0
        walk("" if root else f"{index}_{type(module).__name__}/", module)
    return found


def _layers(route: PlannedRoute, folders: Folders) -> Iterator[tuple[Any, dict[str, str]]]:
    """Each Keras layer, the weights file it came from, and the prefix of its keys there."""
    for layer, (prefix, module) in _stated_layers(route):
        folder, held = folders[id(module)]
        prefix = prefix if held is module else prefix.removeprefix("model.")
        yield layer, {"file": f"{folder}{WEIGHTS}", "prefix": prefix}


def _stated_layers(route: PlannedRoute) -> Iterator[tuple[Any, tuple[str, Any]]]:
    """Each Keras layer with weights, and where in which module's state_dict they belong."""
    for _, module in route.modules:
        state: Mapping[str, Any] = route.converted[id(module)].state  # type: ignore[attr-defined]
        for prefix, layer in state.items():
            yield layer, (prefix, module)


def _skeleton(model_class: ModelClass, model: SentenceTransformer, plan: Plan, folders: Folders) -> dict[str, bytes]:
    """What the library writes, without the weights that Keras layers hold."""
    import safetensors.torch

    held: dict[str, set[str]] = {}
    for route in plan.routes:
        for layer, origin in _layers(route, folders):
            keys = {weight.name for weight in weights(layer, origin["prefix"])}
            held.setdefault(origin["file"], set()).update(keys)
    with scratch_folder() as folder, quiet():
        OUTPUTS[model_class.name].save(model, str(folder))
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".safetensors" not in path.name]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    for module_folder, module in folders.values():
        name = f"{module_folder}{WEIGHTS}"
        state = {} if hasattr(module, "sub_modules") else module.state_dict()
        covered = held.get(name, set())
        shared = {state[key].data_ptr() for key in covered if key in state}  # tied weights are one
        left = {k: t.contiguous() for k, t in state.items() if k not in covered and t.data_ptr() not in shared}
        if left:
            files[name] = safetensors.torch.save(left, {"format": "pt"})
    return {f"{SKELETON}/{name}": data for name, data in files.items()}
