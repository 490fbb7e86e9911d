"""Where a converted model parts from its original: the values inside both, module by module.

Both sides answer one text. Of the original a hook keeps the answer of every module, in the order in which they end; of
the converted model every value of its graph is kept. Fusion leaves no names and few of the values, so the two are
brought together by what they are: an answer of a module is there if the graph holds the same numbers. Behind the last
module whose answer is there, the two part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sbertconv.artifact.folder import fresh, inside, link_or_copy
from sbertconv.artifact.naming import by_own_names, section_in_graph
from sbertconv.artifact.scratch import scratch_folder
from sbertconv.errors import SbertconvError, UnsupportedOptionError
from sbertconv.parity.questions import TOKENS, Converted, Question, Side, ask

if TYPE_CHECKING:
    from sbertconv.artifact.folder import Artifact
    from sbertconv.artifact.manifest import GraphSection
    from sbertconv.runtime.model import ConvertedModel

SLACK = 10  # times the rule, whose |b| is the usual size of an answer's numbers: sums over thousands of products
CONSTANTS = ("Constant", "Parameter", "Result")  # of OpenVINO: no values that are computed
FEATURES = ("sentence_embedding", "token_embeddings", "last_hidden_state", "logits", "scores")
Values = list[np.ndarray]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ModuleDiff:
    """The answer of one module of the original beside the converted model's values.

    Attributes:
        path: its name in the model, as `named_modules` has it.
        type: its class.
        max_abs_diff: to the nearest of the values of the same number of elements; None: there is none, or no number.
        found: whether that is within the rule, ten times.
    """

    path: str
    type: str
    max_abs_diff: float | None
    found: bool


@dataclass(frozen=True)
class Parting:
    """The modules of the original in the order in which they end, beside one engine's values.

    Attributes:
        engine: what ran the converted model.
        text: what both sides answered.
        modules: those with an answer of floating numbers.
    """

    engine: str
    text: str
    modules: tuple[ModuleDiff, ...]

    @property
    def before(self) -> ModuleDiff | None:
        """The last module whose answer the converted model has; None: it has none."""
        return next((module for module in reversed(self.modules) if module.found), None)

    @property
    def after(self) -> ModuleDiff | None:
        """The module behind it; None: they do not part."""
        place = 0 if self.before is None else self.modules.index(self.before) + 1
        return self.modules[place] if place < len(self.modules) else None

    def __str__(self) -> str:
        if self.after is None:
            return f"{self.engine}: the modules agree to the last."
        last = "from the first module on" if self.before is None else f"equal up to {_named(self.before)}"
        return f"{self.engine}: {last}, apart at {_named(self.after)}."


def _named(module: ModuleDiff) -> str:
    diff = "no such value" if module.max_abs_diff is None else f"{module.max_abs_diff:.1e}"
    return f"{module.path} ({module.type}, {diff})"


def parting(original: Side, embedder: ConvertedModel, question: Question, atol: float, rtol: float) -> Parting:
    """Ask both sides one question with one input, and compare what is inside.

    Args:
        original: the model of sentence-transformers in float32.
        embedder: the converted folder with one of its formats, a key of `INSIDE`.
        question: what is asked; its first input.
        atol: absolute term of the rule.
        rtol: relative term of the rule.
    """
    (item, *_) = question.inputs
    question = replace(question, inputs=[item], together=None)
    answers, theirs = _original_answers(original, question)
    values, ours = _converted_values(embedder, question)
    by_size: dict[int, Values] = {}
    for value in values:
        by_size.setdefault(value.size, []).append(value.reshape(-1))
    modules = []
    for path, kind, answer in answers:
        flat = answer.reshape(-1)
        diffs = [distance(value, flat) for value in by_size.get(flat.size, ())]
        nearest = min((diff for diff in diffs if diff is not None), default=None)
        allowed = SLACK * (atol + rtol * float(np.sqrt(np.square(flat, dtype=np.float64).mean())))
        modules.append(ModuleDiff(path, kind, nearest, nearest is not None and nearest <= allowed))
    # The last one is the answer itself: something may stand behind the last module.
    diff = distance(ours, theirs) if ours.shape == theirs.shape else None
    held = diff is not None and bool(np.isclose(ours, theirs, rtol, atol, equal_nan=True).all())
    modules.append(ModuleDiff("the answer", question.method, diff, held))
    text = item if isinstance(item, str) else " | ".join(item)
    return Parting(embedder.engine, text, tuple(modules))


def distance(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """The largest difference of two arrays of one shape; None where one side alone has a number. NaN is as NaN."""
    with np.errstate(invalid="ignore"):
        diffs = np.abs(ours - theirs)[~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))]
    return float(diffs.max(initial=0)) if np.isfinite(diffs).all() else None


def can_look_inside(artifact: Artifact, form: str) -> bool:
    """Whether the values of a format can be had."""
    return form in INSIDE and not artifact.manifest.get("text_input")


def check_inside(artifact: Artifact) -> None:
    """Raise UnsupportedOptionError unless the values of one of a folder's formats can be had."""
    if not any(can_look_inside(artifact, form) for form in artifact.formats):
        what = "takes strings" if artifact.manifest.get("text_input") else f"holds {', '.join(artifact.formats)}"
        raise UnsupportedOptionError(
            f"by_module=: {artifact.folder} {what} (have: {', '.join(INSIDE)}).\n"
            "Convert the model to one of these with the same options, and look into that."
        )


def _original_answers(original: Any, question: Question) -> tuple[list[tuple[str, str, np.ndarray]], np.ndarray]:
    """Path, class and answer of every module, in the order in which they end, and the answer of them all. The last call
    of each module counts.
    """
    import torch

    found: dict[str, tuple[str, np.ndarray]] = {}
    hooks = []

    def keep(path: str) -> Callable[..., None]:
        def hook(module: Any, given: Any, answer: Any) -> None:
            tensor = _tensor_of(answer)
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel():
                found.pop(path, None)
                found[path] = type(module).__name__, tensor.detach().float().numpy().copy()

        return hook

    try:
        for path, module in original.model.named_modules():
            if path:
                hooks.append(module.register_forward_hook(keep(path)))
        (whole,) = ask(original, question)
    finally:
        for handle in hooks:
            handle.remove()
    return [(path, kind, answer) for path, (kind, answer) in found.items()], whole


def _tensor_of(answer: Any) -> Any:
    """The tensor that an answer is about: itself, the first of a tuple, or of a dict the one with a known name."""
    if isinstance(answer, Mapping):
        return next((answer[name] for name in FEATURES if name in answer), None)
    return answer[0] if isinstance(answer, (tuple, list)) and answer else answer


def _converted_values(embedder: ConvertedModel, question: Question) -> tuple[Values, np.ndarray]:
    """Every floating value that the converted model computes on the way to its answer, and the answer.

    Raises:
        ArtifactError: if a graph cannot be opened with all its values.
    """
    from sbertconv.runtime.engines import ENGINES, cannot_load

    found: Values = []
    for graph in embedder.graphs:
        try:
            run = INSIDE[embedder.format](graph.artifact, section_in_graph(graph.section), found)
        except (SbertconvError, OSError):  # of the disk it is said elsewhere
            raise
        except Exception as error:
            raise cannot_load(graph.artifact.folder, ENGINES[embedder.engine].package, error) from error
        graph.run_with(by_own_names(run, graph.section))
    try:
        (whole,) = ask(Converted(embedder), question)
    finally:
        for graph in embedder.graphs:
            graph.run_with(None)
    return [value for value in found if value.dtype.kind == "f"], whole


def inside_onnx(artifact: Artifact, section: GraphSection, found: Values) -> Any:
    """ONNX Runtime, each value of the main graph an output. The changed graph lies in a folder of its own, with the
    weights that lie beside the graph.
    """
    import onnx
    import onnxruntime

    file = section["formats"]["onnx"]
    model = onnx.load(artifact.path(file), load_external_data=False)
    named = {output.name for output in model.graph.output}
    inner = [name for node in model.graph.node for name in node.output if name and name not in named]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with scratch_folder() as folder:
        for name in section.get("data", ()):
            link_or_copy(artifact.path(name), inside(folder, name))
        changed = str(fresh(inside(folder, file)))
        onnx.save(model, changed)
        session = onnxruntime.InferenceSession(changed, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Arrays) -> Arrays:
        answers = dict(zip(names, session.run(names, dict(feeds)), strict=True))
        found.extend(value for value in answers.values() if isinstance(value, np.ndarray))
        return {name: answers[name] for name in named}

    return run


def inside_openvino(artifact: Artifact, section: GraphSection, found: Values) -> Any:
    """OpenVINO, each value of the graph an output."""
    from sbertconv.frameworks import import_openvino
    from sbertconv.runtime.engines import graph_file

    openvino = import_openvino()
    form = "openvino" if "openvino" in section["formats"] else "onnx"
    model = openvino.Core().read_model(graph_file(artifact, section, form))
    named = [tensor["name"] for tensor in section["outputs"]]
    own = len(model.outputs)
    model.add_outputs(
        [port for op in model.get_ordered_ops() if op.get_type_name() not in CONSTANTS for port in op.outputs()]
    )
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(feeds: Arrays) -> Arrays:
        answers = [value.copy() for value in compiled(dict(feeds)).values()]
        found.extend(answers)
        return dict(zip(named, answers[:own], strict=True))

    return run


def inside_torch(artifact: Artifact, section: GraphSection, found: Values) -> Any:
    """The PyTorch program, node by node."""
    import torch

    from sbertconv.runtime.engines import graph_file
    from sbertconv.runtime.programs import check_program

    path = graph_file(artifact, section, "torch")
    check_program(path)
    program = torch.export.load(path)
    names = [tensor["name"] for tensor in section["inputs"]]

    class Watched(torch.fx.Interpreter):
        def run_node(self, node: Any) -> Any:
            value = super().run_node(node)
            if isinstance(value, torch.Tensor) and node.op.startswith("call"):
                found.append(value.detach().float().numpy().copy())
            return value

    module = program.module()

    def run(feeds: Arrays) -> Arrays:
        with torch.inference_mode():
            flat = Watched(module).run(*(torch.from_numpy(feeds[name]) for name in names))
        outputs = [tensor["name"] for tensor in section["outputs"]]
        answers = flat if isinstance(flat, dict) else dict(zip(outputs, flat, strict=True))
        return {name: value.numpy() for name, value in answers.items()}

    return run


# Formats whose values can be had, and the run that keeps them.
INSIDE: Mapping[str, Callable[[Artifact, GraphSection, Values], Any]] = {
    "onnx": inside_onnx,
    "openvino": inside_openvino,
    "torch": inside_torch,
}


def question_of(name: str, text: str, asked: Sequence[Question]) -> Question | None:
    """The question of this name with the input that is shown so, or the first one that a graph answers; None: there is
    none about texts.
    """
    from sbertconv.parity.comparison import shown

    answered = [
        replace(question, inputs=[item])
        for question in asked
        if question.method != TOKENS
        for item in question.inputs
        if isinstance(item, (str, tuple))
    ]
    named = (one for one in answered if name.endswith(one.name) and shown(one.inputs[0]) == text)
    return next(named, next(iter(answered), None))
