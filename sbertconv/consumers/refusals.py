"""What a consumer cannot be right for: manifest -> the reasons, each with the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from sbertconv.artifact.kinds import ModelClass
from sbertconv.artifact.naming import in_graph
from sbertconv.artifact.text_input import TEXT
from sbertconv.consumers.consumer import SENTENCE, TOKEN_INPUTS, Check, Consumer, Manifest

KINDS = {
    "onnx": ("onnx", "ONNX graphs", "to-onnx"),
    "openvino": ("onnx", "OpenVINO models", "to-openvino"),
    "saved_model": ("keras", "SavedModels", "to-tf"),
    "litert": ("keras", "LiteRT models", "to-tf, and formats=['saved_model', 'litert']"),
    "torch": ("torch", "PyTorch programs", "to-torch"),
}


def one_text_graph(
    manifest: Manifest, form: str = "onnx", text: bool | None = False, also: Sequence[str] = ()
) -> Iterable[str]:
    """What every consumer asks: one graph from token ids to answers, whose tokenizer.json is the whole tokenizer.

    Args:
        manifest: of the folder.
        form: the format.
        text: whether it gives strings; None: strings or token ids, as the graph takes them.
        also: further inputs that its layout takes care of.
    """
    backend, kind, command = KINDS[form]
    if manifest["backend"] != backend or form not in manifest["engines"]:
        yield f"takes {kind} alone; convert the model with {command}."
        return
    graph, *others = manifest["graphs"]
    if others:
        yield "knows no routes or towers; save the part that it is for as a model, and convert that."
    if graph["modality"] != "text" or graph["tokenizer"] is None:
        yield "takes texts; use sbertconv.load."
        return
    given = bool(manifest.get("text_input"))
    if text is not None and given != text:
        yield (
            "gives strings; convert with text_input=True."
            if text
            else "brings its own tokenizer and gives token ids; convert without text_input=True."
        )
        return
    tokenizer = graph["tokenizer"]
    fed = (TEXT,) if given else (*TOKEN_INPUTS, *also)
    if extra := [name for name in map(in_graph, graph["inputs"]) if name not in fed]:
        yield f"cannot feed {', '.join(extra)}; save the model with include_prompt=True in its Pooling."
    if tokenizer["kind"] != "fast" or tokenizer["cut"] != "truncate":
        yield "reads a tokenizer.json that cuts by itself, and this model has another tokenizer; use sbertconv.load."


def no_default_prompt(manifest: Manifest) -> Iterable[str]:
    if manifest["prompts"].get(manifest["default_prompt_name"] or ""):
        yield (
            f"puts no prompt before a text, and encode() puts {manifest['default_prompt_name']!r}; save the model "
            "without default_prompt_name, and put the prompt there yourself."
        )


def has_output(name: str, first: bool = False) -> Callable[[Manifest], Iterable[str]]:
    def check(manifest: Manifest) -> Iterable[str]:
        found = [in_graph(entry) for entry in manifest["graphs"][0]["outputs"]]
        if name not in (found[:1] if first else found):
            where = "as the first output" if first else "as an output"
            yield f"needs {name} {where}; convert with outputs=[{name!r}]{'' if first else ' besides the others'}."

    return check


def has_limit(manifest: Manifest) -> Iterable[str]:
    if manifest["max_seq_length"] is None:
        yield "stops without a limit in tokens; set max_seq_length and convert again."


def cuts_right(manifest: Manifest) -> Iterable[str]:
    if manifest["graphs"][0]["tokenizer"]["truncation_side"] != "right":
        yield "keeps the beginning of a long text, and this model its end; use sbertconv.load."


def has_config(manifest: Manifest) -> Iterable[str]:
    if "config.json" not in manifest["files"]:
        yield "needs the config.json of a transformer, which this model has not; use sbertconv.load."


def only_float32(manifest: Manifest) -> Iterable[str]:
    if manifest["precision"] != "fp32":
        yield f"takes float32 alone, and this is {manifest['precision']}; convert without precision=."


def pools_itself(manifest: Manifest) -> Iterable[str]:
    """The modules after the pooling have no weights in the folder, so that it could not run them."""
    if other := [name for name in manifest["chain"] if name not in ("Transformer", "Pooling", "Normalize")]:
        yield f"pools token vectors itself, and {', '.join(other)} would be left out; use {SENTENCE} with another one."


def all_of(
    *checks: Callable[[Manifest], Iterable[str]],
    form: str = "onnx",
    text: bool | None = False,
    also: Sequence[str] = (),
) -> Check:
    """The reasons of every check; what does not even have one graph of texts is not asked further."""

    def refuses(manifest: Manifest) -> list[str]:
        found = list(one_text_graph(manifest, form, text, also))
        return found or [reason for check in checks for reason in check(manifest)]

    return refuses


def outputs_for(known: Mapping[str, Mapping[str, Consumer]], model_class: ModelClass) -> tuple[str, ...] | None:
    """The outputs that consumers ask of a class of models, its own default behind them; None: they ask for none."""
    asked = [name for rows in known.values() if model_class.name in rows for name in rows[model_class.name].outputs]
    return tuple(dict.fromkeys([*asked, model_class.output])) if asked else None


def ends_normalized(manifest: Manifest) -> Iterable[str]:
    """It divides vectors by their length, whether the model does or not."""
    if manifest["chain"][-1] != "Normalize":
        yield "divides vectors by their length, and this model does not; leave the consumer out."


def one_label(manifest: Manifest) -> Iterable[str]:
    if manifest["num_labels"] != 1:
        yield f"reads one score for a pair, and this model has {manifest['num_labels']}; use sbertconv.load."


def has_activation(name: str) -> Callable[[Manifest], Iterable[str]]:
    def check(manifest: Manifest) -> Iterable[str]:
        if manifest["activation"] != name:
            yield f"takes the {name} of logits, and this model {manifest['activation']}; use sbertconv.load."

    return check
