"""Folders laid out for software that opens them by itself, and proven as that software reads them.

A row of `CONSUMERS` has the consumer's own rule in Python: its files, its cut, its pick of an output, its pooling.
`pack` publishes a folder when the vectors of every reader are those of `load(folder).encode()`.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, inside, link_or_copy, read_artifact, sha256
from sbertconv.artifact.json_reading import read_json
from sbertconv.artifact.publishing import Staging, stage
from sbertconv.artifact.tokenizer_file import rust_errors
from sbertconv.corpus.texts import CORPUS, long_text
from sbertconv.errors import ArtifactError, ParityError, UnsupportedOptionError, require
from sbertconv.parity.comparison import FLOAT32, Check, ParityReport, Tolerance

BATCH = 8
LONGEST = 1024  # tokens of a text that is compared
OVER = 5  # texts over the limit
SENTENCE, TOKENS, HIDDEN = "sentence_embedding", "token_embeddings", "last_hidden_state"
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
KINDS = {"onnx": ("onnx", "ONNX graphs", "to-onnx"), "saved_model": ("keras", "SavedModels", "to-tf")}
OPENSEARCH_TYPES = ("bert", "albert")  # the model types that it feeds token types
TOKEN_AXES = ("input_ids", "attention_mask", "token_type_ids")  # the order in which OpenSearch feeds them
SERVER_KEYS = ("architectures", "model_type", "hidden_size", "num_hidden_layers", "max_position_embeddings")
TRITON_TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32"}
VESPA_SETTING = re.compile(r"<([\w-]+)>([^<]*)</")
VESPA_GRAPH = re.compile(r'<transformer-model path="([^"]*)"')
TRITON_INPUT = re.compile(r'name: "(\w+)"')
Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Consumer:
    """One software.

    Attributes:
        name: what the user calls it.
        reads: its files and its output, in words.
        refuses: manifest -> why its answers would be wrong, each with the way out.
        layout: artifact, staging -> what is written besides the artifact's own files.
        read: packed folder, one batch of texts -> the vectors that it gives.
        over_limit: whether it cuts a text over the limit as encode() does; else only shorter ones are proven.
        hidden: the meaning of the output `last_hidden_state` that it reads, empty: it reads none. A folder has one.
        form: the format that it opens.
    """

    name: str
    reads: str
    refuses: Callable[[Manifest], list[str]]
    layout: Callable[[Artifact, Staging], None]
    read: Callable[[Path, Sequence[str]], np.ndarray]
    over_limit: bool = True
    hidden: str = ""
    form: str = "onnx"


def pack(
    folder: str | Path,
    directory: str | Path,
    consumers: Sequence[str],
    *,
    overwrite: bool = False,
    atol: float = FLOAT32.atol,
    rtol: float = FLOAT32.rtol,
    on_stage: Callable[[str], None] = lambda name: None,
) -> Artifact:
    """Copy a converted folder into the layout of other software, proven equal to the folder as that software reads it.

    Args:
        folder: what `to_onnx` wrote.
        directory: where to write; `load` opens it as well.
        consumers: names of `CONSUMERS`.
        overwrite: replace an existing artifact.
        atol: absolute term of the rule |a - b| <= atol + rtol * |b|.
        rtol: relative term of the rule.
        on_stage: called with the name of each stage as it starts.

    Returns:
        The published artifact; `consumers` in its manifest says for which software it is proven, and how well.

    Raises:
        ArtifactError: for a folder that is not as it was written, or a target that cannot be.
        UnsupportedOptionError: for a consumer that is not known, or whose answers would be wrong; names the way out.
        ParityError: if the answers of a reader differ. Nothing is published then.
    """
    rows = named(consumers)
    require("onnx", "onnx", "onnxruntime")
    from sbertconv.runtime.opening import open_model

    on_stage("checking the files")
    artifact = read_artifact(folder)
    artifact.verify_hashes()
    refused = [f"  {row.name}: {reason}" for row in rows for reason in row.refuses(artifact.manifest)]
    if refused:
        raise UnsupportedOptionError(
            f"{folder}: its vectors would be wrong, or none, in what it is packed for:\n"
            + "\n".join(refused)
            + "\nMend that, or leave the consumer out."
        )
    if len(meanings := {row.hidden: row.name for row in rows if row.hidden}) > 1:
        raise UnsupportedOptionError(
            f"{' and '.join(meanings.values())}: they read other tensors under the name {HIDDEN}, and a graph has one "
            "of that name.\nPack a folder for each."
        )
    with stage(directory, overwrite=overwrite) as staging:
        on_stage("writing")
        for name in artifact.manifest["files"]:
            target = staging.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path(name), target)
        for row in rows:
            row.layout(artifact, staging)
        written = staging.manifest({**artifact.manifest, "consumers": {}})
        on_stage("comparing")
        models = {form: open_model(written, form) for form in {row.form for row in rows}}
        rule = Tolerance(atol, rtol, FLOAT32.reason)
        try:
            checks = [compared(row, models[row.form], staging.folder, rule) for row in rows]
        finally:
            for kept in (opened, unzipped, served):
                kept.cache_clear()
        report = ParityReport("onnx", str(rule), tuple(checks), 0.0, "")
        if not report.passed:
            worst = report.worst
            raise ParityError(
                f"{worst.name} does not give the vectors of encode(): {worst.problem} on "
                f"text {worst.worst_text[:40]!r}. The rule is {rule}. Nothing was written.\nLeave this consumer out.",
                report,
            )
        proven = {
            row.name: {
                "reads": row.reads,
                "texts": check.texts,
                "max_abs_diff": check.max_abs_diff,
                "over_limit": row.over_limit and (models[row.form].max_seq_length or 0) <= LONGEST,
            }
            for row, check in zip(rows, checks, strict=True)
        }
        staging.manifest({**artifact.manifest, "consumers": proven})
        on_stage("publishing")
        staging.publish()
        return read_artifact(staging.target)


def named(names: Sequence[str]) -> list[Consumer]:
    """The rows of these names, each once."""
    unknown = [name for name in names if name not in CONSUMERS]
    if unknown or not names:
        raise UnsupportedOptionError(
            f"{', '.join(unknown) or 'no consumer'}: not known (have: {', '.join(CONSUMERS)}).\nName one with --for."
        )
    return [CONSUMERS[name] for name in dict.fromkeys(names)]


def compared(row: Consumer, model: Any, folder: Path, rule: Tolerance) -> Check:
    """The reader against encode(), in equal batches: the corpus, and texts over the limit."""
    length = model.max_seq_length or 512
    over = [f"{start} {long_text(length)}" for start in CORPUS[3 : 3 + OVER]] if length <= LONGEST else []
    texts = [*CORPUS, *over]
    if not row.over_limit:
        texts = [text for text in texts if model.tokenize([text])["input_ids"].shape[1] < length]
    worst, diff, cosine, problem = "", 0.0, 1.0, ""
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        with rust_errors(folder, ArtifactError):
            ours = row.read(folder, batch)
        theirs = model.encode(batch, batch_size=BATCH)
        if ours.shape != theirs.shape:
            worst, diff, problem = batch[0], float("inf"), f"shape {ours.shape} instead of {theirs.shape}"
            break
        for text, a, b in zip(batch, ours.astype(np.float64), theirs.astype(np.float64), strict=True):
            gap, norms = np.abs(a - b), float(np.linalg.norm(a) * np.linalg.norm(b))
            cosine = min(cosine, float(a @ b) / norms if norms else 1.0)
            if not bool((gap <= rule.atol + rule.rtol * np.abs(b)).all()):  # NaN included
                problem = problem or f"max abs diff {gap.max():.1e}"
            if not float(gap.max()) <= diff or not worst:
                worst, diff = text, float(gap.max())
    tokens = model.tokenize([worst])["input_ids"].shape[1]
    shape = (len(texts), int(model.get_embedding_dimension() or 0))
    return Check(row.name, len(texts), diff, worst, tokens, cosine, 0, shape, "float32", not problem, problem)


# What a consumer cannot be right for


def one_text_graph(manifest: Manifest, form: str = "onnx") -> Iterable[str]:
    """What every consumer asks: one graph from token ids to vectors, whose tokenizer.json is the whole tokenizer."""
    backend, kind, command = KINDS[form]
    found = (manifest["model_class"], manifest["backend"])
    if found != ("SentenceTransformer", backend) or form not in manifest["engines"]:
        yield f"takes {kind} of SentenceTransformer models alone; convert one with {command}."
        return
    graph, *others = manifest["graphs"]
    if others:
        yield "knows no routes or towers; save the part that it is for as a model, and convert that."
    if graph["modality"] != "text" or graph["tokenizer"] is None or manifest.get("text_input"):
        yield "brings its own tokenizer and gives token ids; convert without text_input=True."
        return
    tokenizer = graph["tokenizer"]
    if extra := [entry["name"] for entry in graph["inputs"] if entry["name"] not in TOKEN_INPUTS]:
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
        found = [entry["name"] for entry in manifest["graphs"][0]["outputs"]]
        if name not in (found[:1] if first else found):
            where = "as the first output" if first else "as an output"
            yield f"needs {name} {where}; convert with outputs=[{name!r}]{'' if first else ' besides the others'}."

    return check


def has_limit(manifest: Manifest) -> Iterable[str]:
    if manifest["max_seq_length"] is None:
        yield "stops without a limit in tokens; set max_seq_length and convert again."


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


def all_of(*checks: Callable[[Manifest], Iterable[str]], form: str = "onnx") -> Callable[[Manifest], list[str]]:
    """The reasons of every check; what does not even have one graph of texts is not asked further."""

    def refuses(manifest: Manifest) -> list[str]:
        found = list(one_text_graph(manifest, form))
        return found or [reason for check in checks for reason in check(manifest)]

    return refuses


# Layouts


def as_it_is(artifact: Artifact, staging: Staging) -> None:
    """The artifact's own files are what is read."""


def inference_server_layout(artifact: Artifact, staging: Staging) -> None:
    """The files are read as they are; what it cannot start without must be there.

    Raises:
        UnsupportedOptionError: if config.json has no position table or no other field that it requires.
    """
    config = from_json(staging.folder / "config.json")
    if missing := [key for key in SERVER_KEYS if config.get(key) is None]:
        raise UnsupportedOptionError(
            f"{artifact.folder}: text-embeddings-inference requires {', '.join(missing)} in config.json, which this "
            "architecture has not.\nLeave the consumer out."
        )


def transformers_js_layout(artifact: Artifact, staging: Staging) -> None:
    """Which file to take, so that the browser does not ask for a quantized one. "fp32" stands for no suffix."""
    config = from_json(staging.folder / "config.json")
    data = bool(artifact.manifest["graphs"][0]["data"])
    config["transformers.js_config"] = {"dtype": "fp32", "use_external_data_format": data}
    staging.write("config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def hidden_layout(artifact: Artifact, staging: Staging) -> None:
    """The token vectors under their second name, at the end of the outputs."""
    import onnx

    path = staging.folder / artifact.manifest["graphs"][0]["formats"]["onnx"]
    proto = onnx.load(str(path), load_external_data=False)
    if HIDDEN in [value.name for value in proto.graph.output]:
        return
    tokens = next(value for value in proto.graph.output if value.name == TOKENS)
    proto.graph.node.append(onnx.helper.make_node("Identity", [TOKENS], [HIDDEN]))
    proto.graph.output.add().CopyFrom(tokens)
    proto.graph.output[-1].name = HIDDEN
    onnx.save(proto, str(path))


def spread_layout(artifact: Artifact, staging: Staging) -> None:
    """The sentence embedding at every token, as last_hidden_state: whatever a consumer takes from it, the first, the
    last or the mean under the mask, is the sentence embedding, of models with other modules after the pooling too.
    """
    import onnx

    graph = artifact.manifest["graphs"][0]
    path = staging.folder / graph["formats"]["onnx"]
    proto = onnx.load(str(path), load_external_data=False)
    if HIDDEN in [value.name for value in proto.graph.output]:
        return
    made = onnx.helper.make_node
    proto.graph.initializer.append(onnx.helper.make_tensor("spread_axis", onnx.TensorProto.INT64, [1], [1]))
    proto.graph.node.extend(
        [
            made("Unsqueeze", [SENTENCE, "spread_axis"], ["spread_one"]),
            made("Shape", ["input_ids"], ["spread_places"]),
            made("Concat", ["spread_places", "spread_axis"], ["spread_shape"], axis=0),
            made("Expand", ["spread_one", "spread_shape"], [HIDDEN]),
        ]
    )
    size = next(entry["shape"][-1] for entry in graph["outputs"] if entry["name"] == SENTENCE)
    value = onnx.helper.make_tensor_value_info(HIDDEN, onnx.TensorProto.FLOAT, ["batch", "sequence", size])
    proto.graph.output.append(value)
    onnx.save(proto, str(path))


def vespa_layout(artifact: Artifact, staging: Staging) -> None:
    """The component of services.xml, beside the graph with the output that it pools."""
    spread_layout(artifact, staging)
    graph = artifact.manifest["graphs"][0]
    staging.write(
        "vespa/services.xml",
        f'<component id="sbertconv" type="hugging-face-embedder">\n'
        f'  <transformer-model path="{graph["formats"]["onnx"]}"/>\n'
        f'  <tokenizer-model path="tokenizer.json"/>\n'
        f"  <max-tokens>{artifact.manifest['max_seq_length']}</max-tokens>\n"
        f"  <transformer-output>{HIDDEN}</transformer-output>\n"
        f"  <pooling-strategy>cls</pooling-strategy>\n"
        f"  <normalize>false</normalize>\n"
        "</component>\n",
    )


def opensearch_layout(artifact: Artifact, staging: Staging) -> None:
    """A zip of the graph and tokenizer.json, and the body of the call that registers it. It feeds its tensors in one
    order, and of its pooling modes "cls" takes the first row, of a vector the vector itself.
    """
    import onnx

    graph = artifact.manifest["graphs"][0]
    proto = onnx.load(str(staging.folder / graph["formats"]["onnx"]))
    inputs = sorted(proto.graph.input, key=lambda value: TOKEN_AXES.index(value.name))
    outputs = [value for value in proto.graph.output if value.name == SENTENCE]
    for values, kept in ((proto.graph.input, inputs), (proto.graph.output, outputs)):
        del values[:]
        values.extend(kept)
    path = staging.folder / "opensearch/model.zip"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", proto.SerializeToString())
        archive.write(staging.folder / "tokenizer.json", "tokenizer.json")
    typed = any(entry["name"] == "token_type_ids" for entry in graph["inputs"])
    body = {
        "name": Path(artifact.manifest["source"]["name"]).name,
        "version": "1.0.0",
        "model_format": "ONNX",
        "model_content_size_in_bytes": path.stat().st_size,
        "model_content_hash_value": sha256(path),
        "model_config": {
            "model_type": OPENSEARCH_TYPES[0] if typed else "roberta",
            "embedding_dimension": artifact.manifest["embedding_dimension"],
            "framework_type": "sentence_transformers",
            "pooling_mode": "cls",
            "normalize_result": False,
            "all_config": (staging.folder / "config.json").read_text(encoding="utf-8"),
        },
    }
    staging.write("opensearch/register.json", json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def serving_layout(artifact: Artifact, staging: Staging) -> None:
    """The SavedModel under the number of a version, as a model server looks for it."""
    source = (staging.folder / artifact.manifest["graphs"][0]["formats"]["saved_model"]).parent
    for path in sorted(source.rglob("*")):
        if path.is_file():
            link_or_copy(path, staging.folder / f"serving/{server_name(artifact)}/1" / path.relative_to(source))


def server_name(artifact: Artifact) -> str:
    """The source's name as servers take it."""
    return re.sub(r"\W+", "_", Path(artifact.manifest["source"]["name"]).name)


def triton_layout(artifact: Artifact, staging: Staging) -> None:
    """A model repository beside the tokenizer's files. The tokens of a request are its client's."""
    graph = artifact.manifest["graphs"][0]
    name = server_name(artifact)
    folder = f"model_repository/{name}"
    for file in (graph["formats"]["onnx"], *graph["data"]):
        link_or_copy(staging.folder / file, staging.folder / folder / "1" / Path(file).name)
    inputs, outputs = (tensors(graph[key]) for key in ("inputs", "outputs"))
    staging.write(
        f"{folder}/config.pbtxt",
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 32\ninput [{inputs}]\noutput [{outputs}]\n'
        "dynamic_batching {}\n",
    )


def tensors(entries: Sequence[Mapping[str, Any]]) -> str:
    """Entries of config.pbtxt; the batch is not among the sizes."""
    found = []
    for entry in entries:
        sizes = ", ".join(str(size) if isinstance(size, int) else "-1" for size in entry["shape"][1:])
        found.append(f'\n  {{ name: "{entry["name"]}" data_type: {TRITON_TYPES[entry["dtype"]]} dims: [ {sizes} ] }}')
    return ",".join(found) + "\n"


# Readers


def from_json(path: Path) -> Any:
    return read_json(path, unique=False)


@lru_cache(maxsize=8)
def opened(path: Path) -> Any:
    """A session in ONNX Runtime; `pack` lets them go."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path: Path, encodings: Sequence[Any], output: str | None, typed: bool = True) -> np.ndarray:
    """One output of a graph, None: its first, from what the tokenizers library gives."""
    session = opened(path)
    fed = {
        "input_ids": [encoding.ids for encoding in encodings],
        "attention_mask": [encoding.attention_mask for encoding in encodings],
        "token_type_ids": [encoding.type_ids if typed else [0] * len(encoding.ids) for encoding in encodings],
    }
    wanted = [value.name for value in session.get_inputs()]
    found = session.run([output] if output else None, {name: np.array(fed[name], np.int64) for name in wanted})
    return np.asarray(found[0])


def file_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def read_fastembed(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Cut at the smaller of two keys, special tokens added once more, output 0, no pooling, no normalization."""
    from tokenizers import AddedToken

    tokenizer, config = file_tokenizer(folder), from_json(folder / "tokenizer_config.json")
    limits = [config.get(key) for key in ("model_max_length", "max_length")]
    limits = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 2**63]
    tokenizer.enable_truncation(min(limits), direction=config.get("truncation_side") or "right")
    special = folder / "special_tokens_map.json"
    for value in from_json(special).values() if special.is_file() else ():
        for token in value if isinstance(value, list) else [value]:
            tokenizer.add_special_tokens([AddedToken(**token) if isinstance(token, dict) else token])
    padding = tokenizer.padding or {}
    tokenizer.enable_padding(
        direction=config.get("padding_side") or padding.get("direction", "right"),
        pad_id=padding["pad_id"],
        pad_type_id=padding.get("pad_type_id", 0),
        pad_token=padding["pad_token"],
        pad_to_multiple_of=padding.get("pad_to_multiple_of"),
    )
    return run(folder / "onnx/model.onnx", tokenizer.encode_batch(list(texts)), None, typed=False)


def read_inference_server(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The limit of sentence_bert_config.json, padding by its own hand, sentence_embedding as it is."""
    tokenizer, settings = file_tokenizer(folder), from_json(folder / "sentence_bert_config.json")
    config = from_json(folder / "config.json")
    tokenizer.enable_truncation(min(settings["max_seq_length"], config["max_position_embeddings"]))
    pad = config.get("pad_token_id") or 0
    tokenizer.enable_padding(direction=from_json(folder / "tokenizer_config.json")["padding_side"], pad_id=pad)
    return run(folder / "onnx/model.onnx", tokenizer.encode_batch(list(texts)), SENTENCE)


def read_transformers_js(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Cut after the special tokens; the file of `transformers.js_config`, its sentence_embedding."""
    tokenizer, config = file_tokenizer(folder), from_json(folder / "tokenizer_config.json")
    tokenizer.no_truncation()
    suffix = {"fp32": ""}[from_json(folder / "config.json")["transformers.js_config"]["dtype"]]
    encodings = tokenizer.encode_batch(list(texts))
    for encoding in encodings:
        encoding.truncate(min(len(encoding), config["model_max_length"]))
    return run(folder / f"onnx/model{suffix}.onnx", encodings, SENTENCE)


def read_optimum(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """last_hidden_state of the graph, then the modules of modules.json."""
    tokenizer, settings = file_tokenizer(folder), from_json(folder / "config_sentence_transformers.json")
    tokenizer.enable_truncation(
        from_json(folder / "sentence_bert_config.json")["max_seq_length"],
        direction=from_json(folder / "tokenizer_config.json")["truncation_side"],
    )
    prompt = settings["prompts"].get(settings["default_prompt_name"] or "", "")
    encodings = tokenizer.encode_batch([prompt + text for text in texts])
    tokens = run(folder / "onnx/model.onnx", encodings, HIDDEN)
    mask = np.array([encoding.attention_mask for encoding in encodings], np.float32)[:, :, None]
    found = tokens
    for module in from_json(folder / "modules.json"):
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            config = inside(folder, f"{module['path']}/config.json", folder / "modules.json")
            found = pooled(found, mask, from_json(config))
        if kind == "Normalize":
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found


def pooled(tokens: np.ndarray, mask: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Pooling by the flags that every version reads, in that order."""
    rows, count = np.arange(len(tokens)), np.maximum(mask.sum(1), 1e-9)
    last = (mask[:, :, 0] * np.arange(1, mask.shape[1] + 1)).argmax(1)
    first = mask[:, :, 0].argmax(1)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "pooling_mode_cls_token": lambda: tokens[rows, first],
        "pooling_mode_max_tokens": lambda: np.where(mask > 0, tokens, -np.inf).max(1),
        "pooling_mode_mean_tokens": lambda: (tokens * mask).sum(1) / count,
        "pooling_mode_mean_sqrt_len_tokens": lambda: (tokens * mask).sum(1) / np.sqrt(count),
        "pooling_mode_lasttoken": lambda: tokens[rows, last],
    }
    return np.concatenate([way() for flag, way in ways.items() if config[flag]], axis=1)


def read_triton(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The one model of the repository, fed with what config.pbtxt names by a client with tokenizer.json."""
    (config,) = folder.glob("model_repository/*/config.pbtxt")
    inputs, outputs = config.read_text(encoding="utf-8").split("output [")
    encodings = file_tokenizer(folder).encode_batch(list(texts))
    if not set(TRITON_INPUT.findall(inputs)[1:]) <= set(TOKEN_INPUTS) or SENTENCE not in TRITON_INPUT.findall(outputs):
        raise ArtifactError(f"{config}: other tensors than a client of token ids has.\nLeave triton out.")
    return run(config.parent / "1/model.onnx", encodings, SENTENCE)


def read_vespa(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """What services.xml names: the limit, the output, the first of its tokens."""
    services = (folder / "vespa/services.xml").read_text(encoding="utf-8")
    found = dict(VESPA_SETTING.findall(services))
    (graph,) = VESPA_GRAPH.findall(services)
    tokenizer = file_tokenizer(folder)
    tokenizer.no_padding()
    tokenizer.enable_truncation(int(found["max-tokens"]), direction=tokenizer.truncation["direction"])
    rows = [run(folder / graph, [tokenizer.encode(text)], found["transformer-output"]) for text in texts]
    return np.concatenate([row[:, 0] for row in rows])


def read_spring(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """last_hidden_state, its mean under the mask, not normalised."""
    encodings = file_tokenizer(folder).encode_batch(list(texts))
    tokens = run(folder / "onnx/model.onnx", encodings, HIDDEN)
    mask = np.array([encoding.attention_mask for encoding in encodings], np.float32)[:, :, None]
    return np.asarray((tokens * mask).sum(1) / np.maximum(mask.sum(1), 1e-9))


def read_opensearch(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The zip's graph, text by text, token types by the model type, the first row of output 0."""
    names, session, tokenizer = unzipped(folder / "opensearch")
    rows = []
    for encoding in map(tokenizer.encode, texts):
        fed = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        rows.append(session.run(None, {name: np.array([ids]) for name, ids in zip(names, fed, strict=False)})[0])
    return np.concatenate(rows)


@lru_cache(maxsize=1)
def unzipped(folder: Path) -> tuple[list[str], Any, Any]:
    """The names in the order in which OpenSearch feeds them, the session and the tokenizer of its zip.

    Raises:
        ArtifactError: if the zip is not the one that register.json describes, or its graph takes other tensors.
    """
    body, path = from_json(folder / "register.json"), folder / "model.zip"
    if (path.stat().st_size, sha256(path)) != (body["model_content_size_in_bytes"], body["model_content_hash_value"]):
        raise ArtifactError(f"{path}: not the file that register.json describes.\nPack the folder again.")
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(path) as archive:
        archive.extractall(scratch)
        session, tokenizer = opened(Path(scratch, "model.onnx")), file_tokenizer(Path(scratch))
    typed = body["model_config"]["model_type"] in OPENSEARCH_TYPES
    names = [value.name for value in session.get_inputs()]
    if names != list(TOKEN_AXES[: 2 + typed]):
        raise ArtifactError(f"{path}: its graph takes {', '.join(names)}.\nPack the folder again.")
    return names, session, tokenizer


def read_serving(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The signature of the one version, fed by a client with tokenizer.json."""
    (path,) = folder.glob("serving/*/1")
    encodings = file_tokenizer(folder).encode_batch(list(texts))
    serve = served(path).signatures["serving_default"]
    fed = {
        "input_ids": [encoding.ids for encoding in encodings],
        "attention_mask": [encoding.attention_mask for encoding in encodings],
        "token_type_ids": [encoding.type_ids for encoding in encodings],
    }
    wanted = serve.structured_input_signature[1]
    found = serve(**{name: np.array(fed[name], np.int32) for name in wanted})
    return np.asarray(found[SENTENCE])


@lru_cache(maxsize=1)
def served(path: Path) -> Any:
    """A SavedModel, checked before it is opened."""
    from sbertconv.frameworks import import_tensorflow
    from sbertconv.runtime.saved_models import check_saved_model

    check_saved_model(path / "saved_model.pb")
    return import_tensorflow(["saved_model"]).saved_model.load(str(path))


CONSUMERS: dict[str, Consumer] = {
    row.name: row
    for row in (
        Consumer(
            "fastembed",
            "onnx/model.onnx, its first output, with PoolingType.DISABLED and normalization=False",
            all_of(no_default_prompt, has_limit, has_output(SENTENCE, first=True)),
            as_it_is,
            read_fastembed,
        ),
        Consumer(
            "text-embeddings-inference",
            f"onnx/model.onnx, its output {SENTENCE}",
            all_of(no_default_prompt, has_config, has_limit, only_float32, has_output(SENTENCE)),
            inference_server_layout,
            read_inference_server,
        ),
        Consumer(
            "sentence-transformers",
            f'onnx/model.onnx, its output {HIDDEN}, with backend="onnx", or optimum',
            all_of(has_config, has_limit, pools_itself, has_output(TOKENS)),
            hidden_layout,
            read_optimum,
            hidden="tokens",
        ),
        Consumer(
            "transformers.js",
            f"onnx/model.onnx, its output {SENTENCE}, through AutoModel; texts up to the limit",
            all_of(no_default_prompt, has_config, has_limit, has_output(SENTENCE)),
            transformers_js_layout,
            read_transformers_js,
            over_limit=False,
        ),
        Consumer(
            "triton",
            f"model_repository, its output {SENTENCE}; the client has tokenizer.json",
            all_of(no_default_prompt, has_output(SENTENCE)),
            triton_layout,
            read_triton,
        ),
        Consumer(
            "vespa",
            f"vespa/services.xml: the graph's output {HIDDEN}, the sentence embedding at every token",
            all_of(no_default_prompt, has_limit, has_output(SENTENCE)),
            vespa_layout,
            read_vespa,
            hidden="sentence",
        ),
        Consumer(
            "spring-ai",
            f"onnx/model.onnx, its output {HIDDEN}, the sentence embedding at every token",
            all_of(no_default_prompt, has_output(SENTENCE)),
            spread_layout,
            read_spring,
            hidden="sentence",
        ),
        Consumer(
            "opensearch",
            "opensearch/model.zip, registered with opensearch/register.json",
            all_of(no_default_prompt, has_config, has_output(SENTENCE)),
            opensearch_layout,
            read_opensearch,
        ),
        Consumer(
            "tensorflow-serving",
            "serving/NAME/1, the signature serving_default; the client has tokenizer.json",
            all_of(no_default_prompt, form="saved_model"),
            serving_layout,
            read_serving,
            form="saved_model",
        ),
    )
}
