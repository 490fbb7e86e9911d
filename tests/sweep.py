"""Every text architecture of transformers as a tiny model, converted to every backend: `make sweep`.

Its config is shrunk by the names of its numbers (`SMALL`), so that no architecture is written down here but those that
this does not serve (`OVERRIDES`). Each conversion is a process of its own, with a limit of time and of memory. What
came of it is a line of build/sweep/ledger.jsonl, and a run goes on where another one ended; --write puts the lines
into docs/architectures.json, which docs/generate.py shows.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before the libraries are imported; what imports this file keeps its own settings
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

FOLDER = ROOT / "build" / "sweep"
RESULT = ROOT / "docs" / "architectures.json"
SECONDS = 300  # of the processor, for one conversion
IDLE = 6  # times that it may wait for one
MEMORY = 16 << 30  # bytes of addresses of one conversion
LONGEST = 48  # tokens
NEAR = 4  # times as far as encode() is from itself
CLOSE = 1e-4  # between the folder's vectors and encode()'s, of texts that the proof has not seen
PACKAGES = (
    "sentence-transformers", "transformers", "torch", "onnxruntime", "onnxscript", "openvino", "keras", "tensorflow",
    "tensorflow-cpu",
)  # fmt: skip

# A whole number of a config by its name: the first row that fits says how large it may be at most.
SMALL: dict[str, int] = {
    r"^(type|segment|langs?)_vocab|^n_langs$|_side$|^padding_idx$|window_overlap": 1 << 30,
    r"^index_n_heads$": 1 << 30,  # of few ReLUs the sum is often 0, and the best of equal scores are anybody's choice
    r"(token|pad|bos|eos|unk|mask|sep|cls).*_(id|ids|index|idx)$|^(pad|bos|eos)_index$": 1 << 30,
    r"interval|period|every|freq|stride": 2,
    r"offset|first_k_dense|n(um)?_(expert_)?groups?$|topk_group|shared_expert$|n_shared|num_next": 1,
    r"(per_tok|top_?k|topk|moe_k)": 2,
    r"experts?$|num_local_experts": 4,
    r"shared_layers": 0,
    r"(^|_)layers?$|num_hidden_layers|n_blocks|num_blocks": 2,
    r"mem_|memory": 8,
    r"sparse_step|_step$": 1,
    r"key_value_heads|kv_heads|n_kv|query_groups": 2,
    r"^mamba.*(head_dim|d_head)": 16,
    r"d_head|head_dim|d_kv|kv_channels|head_size|qk_.*dim|v_.*dim|rotary_dim|rope_dim": 8,
    r"heads?$|n_head": 4,
    r"lora_rank|_rank$|low_rank": 16,
    r"kernel|conv": 3,
    r"state": 8,
    r"intermediate|ffn|d_ff|feedforward|inner|mlp|expand_dim|lru_width|hidden_dim": 64,
    r"max_?(source_|target_)?(seq|len)|position(s|_embeddings)$|n_ctx|context": 64,
    r"hidden_size|d_model|n_embd|embd|embed|^dim$|width|channels|emb": 32,
    r"window|chunk|block|local|bucket|lsh": 8,
    r"image_size": 32,
    r"patch_size": 8,
    r"": 64,
}
FLOATS = {r"^initializer_range$|^init_std$|^initializer_std$": 0.2}  # sharp enough for a wrong mask to show
# A number that a class leaves open, and cannot do without; and lists whose sum is half of a head.
UNSET = {
    "head_dim": 8,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
}
EXACT = {"mrope_section": [2, 1, 1]}
# What these names do not tell.
OVERRIDES: dict[str, dict[str, Any]] = {
    "reformer": {
        "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"], "hash_seed": 1,
    },
    "mpnet": {"relative_attention_num_buckets": 32},
    "mamba2": {"head_dim": 16},
    "xmod": {"default_language": "en_XX"},
    "lilt": {"hidden_size": 48},
    "longcat_flash": {"qk_head_dim": 16},
    "mistral4": {"qk_head_dim": 16, "head_dim": 16},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0}},
    "falcon_h1": {"mamba_d_head": 16},
    "qwen4_exp_text": {
        "indexer_budget": 16, "indexer_compress_ratio": 2, "indexer_n_heads": 2, "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
    },
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "num_heads": 2, "qk_dim_factor": 1.0},
    "qwen2_vl_text": {"rope_parameters": {"mrope_section": [2, 1, 1]}},
    "qwen2_5_vl_text": {"rope_parameters": {"mrope_section": [2, 1, 1]}},
    "hunyuan_vl_text": {"rope_parameters": {"mrope_section": [1, 1, 1, 1]}},
    "zamba2": {"attention_hidden_size": 64, "attention_head_dim": 16, "mamba_headdim": 16, "hybrid_layer_ids": [1]},
    "glm5_next_text": {"index_topk": 8, "index_kpool": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "glm4v_moe_text": {"head_dim": 16, "rope_parameters": {"mrope_section": [2, 1, 1]}},
    "glm4v_text": {"rope_parameters": {"mrope_section": [2, 1, 1]}},
    "glm_image_text": {"rope_parameters": {"mrope_section": [2, 1, 1]}},
    "glm_ocr_text": {"rope_parameters": {"mrope_section": [2, 1, 1]}},
    "zamba": {
        "num_hidden_layers": 4, "layer_types": ["mamba", "hybrid"] * 2, "attn_layer_period": 2, "attn_layer_offset": 1,
        "attention_hidden_size": 64,
    },
    "longformer": {"attention_window": [8, 8]},
    "funnel": {"block_sizes": [1, 1], "block_repeats": [1, 1]},
    "convbert": {"head_ratio": 2, "num_groups": 1},
    "mobilebert": {"true_hidden_size": 32, "intra_bottleneck_size": 32, "embedding_size": 32},
    "xlm": {"n_langs": 1},
}  # fmt: skip
NO_SETTINGS = {"model_type", "transformers_version", "architectures", "dtype", "_name_or_path", "id2label", "label2id"}
LAYERS = re.compile(r"^(num_hidden_layers|num_layers|n_layers?|encoder_layers)$")
OTHER_INPUTS = re.compile(r"pixel|image|video|audio|input_features|input_values|speech|codes|past_values|coordinates")


def architectures() -> list[str]:
    """The model types of transformers that take tokens and nothing else, by the forward of their model."""
    from transformers.models.auto import configuration_auto, modeling_auto

    names = {
        name: mapping
        for mapping in (
            modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
            modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
            modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
            modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING,
            modeling_auto.MODEL_MAPPING,
        )
        for name in mapping._model_mapping
    }
    found = []
    for name, mapping in names.items():
        try:
            chosen = mapping[configuration_auto.CONFIG_MAPPING[name]]
            takes = set(inspect.signature((chosen[0] if isinstance(chosen, tuple) else chosen).forward).parameters)
        except Exception:  # needs a package that is not there: its row says so
            takes = {"input_ids"}
        if "input_ids" in takes and not any(map(OTHER_INPUTS.search, takes)):
            found.append(name)
    return sorted(found)


# Tiny models


def shrunk(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A config's numbers made small; lists with an entry for each layer keep one layer of each kind, two at least."""
    layers = next((value for key, value in content.items() if LAYERS.match(key) and isinstance(value, int)), 0)
    lists = [value for value in content.values() if isinstance(value, list) and layers == len(value) > 1]
    numbered = [{int(k): v for k, v in value.items()} for value in content.values() if _is_numbered(value)]
    kinds: dict[Any, int] = {}
    for layer in range(layers if lists or numbered else 0):
        kinds.setdefault(repr([*(each[layer] for each in lists), *(each.get(layer) for each in numbered)]), layer)
    kept = sorted([*list(kinds.values())[:4], *([1] if len(kinds) == 1 else [])])
    found = {}
    for key, value in content.items():
        if isinstance(value, list) and value in lists:
            value = [value[layer] for layer in kept]
        if _is_numbered(value):
            value = {int(number): shrunk(inner, {}) for number, inner in value.items()}
            value = {place: value[layer] for place, layer in enumerate(kept) if layer in value}
        found[key] = len(kept) if LAYERS.match(key) and kept and isinstance(value, int) else _small(key, value, content)
    return _merged(found, overrides)


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = {key for key in changes if isinstance(changes[key], dict) and isinstance(content.get(key), dict)}
    return {**content, **changes, **{key: _merged(content[key], changes[key]) for key in both}}


def _is_numbered(value: Any) -> bool:
    """Whether a setting has an entry for some layers: their numbers are its keys."""
    return (
        isinstance(value, dict) and bool(value) and all(str(k).isdigit() and isinstance(value[k], dict) for k in value)
    )


def _small(key: str, value: Any, beside: Mapping[str, Any]) -> Any:
    if key in EXACT and value is not None:
        return EXACT[key]
    if value is None:
        return UNSET.get(key)
    if isinstance(value, dict):
        whole = all(isinstance(name, str) for name in value) and not _is_numbered(value)
        return shrunk(value, {}) if whole else value
    if isinstance(value, list):
        return [_small(key, item, beside) for item in value]
    if isinstance(value, float):
        return next((small for names, small in FLOATS.items() if re.search(names, key)), value)
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if "key_value_heads" in key and value == beside.get("num_attention_heads"):
        key = "num_attention_heads"
    most = next(small for names, small in SMALL.items() if re.search(names, key))
    return min(value, most)


def tiny_config(name: str, ids: Mapping[str, int], vocabulary: int) -> Any:
    """The config of a model type with small numbers, for a tokenizer."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[name]
    content = config_class().to_dict()
    content = {key: value for key, value in content.items() if key not in NO_SETTINGS}
    changed = shrunk(content, OVERRIDES.get(name, {}))
    _put_tokens(changed, ids, vocabulary)
    return config_class(**changed)


def _put_tokens(content: dict[str, Any], ids: Mapping[str, int], vocabulary: int) -> None:
    """The tokenizer's numbers wherever a config has such names, and none beyond its vocabulary."""
    for key, value in content.items():
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            _put_tokens(value, ids, vocabulary)
        elif re.fullmatch(r"(\w+_)?vocab_size\w*|n_vocab|n_words", key) and not key.startswith(("type_", "lang")):
            content[key] = vocabulary
        elif key in ids or key.replace("_index", "_token_id") in ids:
            content[key] = ids.get(key, ids.get(key.replace("_index", "_token_id")))
        elif re.search(r"(token|start|image|audio|video).*_(id|index)$", key) and isinstance(value, int):
            content[key] = min(value, vocabulary - 1)


def tiny_folder(name: str, folder: Path) -> Path:
    """A saved tiny checkpoint of a model type, with a tokenizer."""
    import tiny
    import torch
    from sentence_transformers.base.modules.transformer import _ENCODER_ONLY_MODELS
    from transformers import MODEL_MAPPING, AutoModel

    tokenizer = tiny.tokenizer("bpe", max_length=LONGEST)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos", "cls", "sep")}
    torch.manual_seed(7)
    config = tiny_config(name, ids, len(tokenizer))
    encoder = next((row for row in _ENCODER_ONLY_MODELS if type(config) is row[0]), None)
    if isinstance(classes := MODEL_MAPPING.get(type(config), None), tuple):  # chosen by the name that a checkpoint has
        config.architectures = [classes[0].__name__]
    if encoder is not None:
        model = getattr(importlib.import_module(encoder[1]), encoder[2])(config)
    else:
        model = AutoModel.from_config(config)
    _spread(model)
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _spread(model: Any) -> None:
    """Weights that are all zeros or ones at first, as biases and routers are: a model that leaves them out would be
    none the worse. So is the embedding of padding: a mask that lets it through would not show, and a router has no
    choice of experts for it.
    """
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            if weight.is_floating_point() and weight.numel() > 1 and weight.min() == weight.max():
                weight.add_(torch.randn_like(weight), alpha=0.2)
        for module in model.modules():
            if (
                isinstance(module, torch.nn.Embedding)
                and module.padding_idx is not None
                and module.weight.requires_grad
            ):
                module.weight[module.padding_idx] = 0.2 * torch.randn(module.embedding_dim)


# One conversion


@dataclass(frozen=True)
class Row:
    """What came of one architecture and one backend.

    Attributes:
        status: "proven"; "refused"; "wrong": published, and another vector all the same; "fails": an error that is
            none of sbertconv's; "limit": time or memory; "library": sentence-transformers cannot encode with it, or
            is as far from itself in another batch.
        reason: why, as it was said.
        attention: of the ONNX graphs, {"found": n, "fused": n}.
        fallback: why the graph is written without fused operators.
    """

    name: str
    backend: str
    status: str
    reason: str = ""
    attention: dict[str, int] = field(default_factory=dict)
    fallback: str = ""
    tracer: str = ""
    seconds: float = 0.0
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def convert(backend: str, model: Any, folder: Path) -> Any:
    """A model as a folder of this backend."""
    import sbertconv

    command, options = BACKENDS[backend]
    return getattr(sbertconv, command)(model, folder, **options)


BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("to_onnx", {}),
    "torch": ("to_torch", {}),
    "openvino": ("to_openvino", {}),
    "keras": ("to_tf", {"formats": ["keras"]}),
    "litert": ("to_tf", {"formats": ["litert"]}),
}


def texts() -> list[str]:
    """Texts of all lengths in no order, so that short ones are padded by what stands beside them."""
    import tiny

    chosen, words = random.Random(5), " ".join(tiny.LINES).split()
    return ["", *(" ".join(chosen.choices(words, k=chosen.randint(1, 2 * LONGEST))) for _ in range(40)), "fox", "a b"]


def run_row(name: str, backend: str) -> Row:
    """Make a tiny model, ask the library, convert, and ask the folder what the proof has not asked."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    import sbertconv

    with tempfile.TemporaryDirectory() as base:
        try:
            folder = tiny_folder(name, Path(base) / "checkpoint")
            model = SentenceTransformer(str(folder), device="cpu")
            expected = model.encode(texts(), batch_size=8)
            again = SentenceTransformer(str(folder), device="cpu").encode(texts(), batch_size=8)
            if not (np.isfinite(expected).all() and np.array_equal(expected, again)):
                return Row(name, backend, "library", "its vectors are not finite, or others each time")
        except Exception as error:
            traceback.print_exc()
            return Row(name, backend, "library", said(error))
        try:
            made = convert(backend, str(folder), Path(base) / "converted")
        except sbertconv.ParityError as error:
            return Row(name, backend, "refused" if is_far(error.report) else "library", said(error))
        except sbertconv.SbertconvError as error:
            traceback.print_exc()
            return Row(name, backend, "refused", said(error))
        graphs = made.manifest["graphs"]
        found = {key: sum(graph.get("attention", {}).get(key, 0) for graph in graphs) for key in ("found", "fused")}
        notes = [note for note in made.manifest["notes"] if "without fused operators" in note]
        more = {"attention": found, "fallback": " ".join(notes), "tracer": graphs[0].get("tracer", "")}
        converted = sbertconv.load(made.folder).encode(texts(), batch_size=8)
        off = float(np.max(np.abs(converted - expected) / (1 + np.abs(expected))))
        return Row(name, backend, "proven" if off <= CLOSE else "wrong", f"{off:.1g}", **more)


def is_far(report: Any) -> bool:
    """Whether the two sides are further apart than a model with large numbers is from itself in another batch."""
    from sbertconv.parity.comparison import SEES_PADDING

    return bool(report.wobble > SEES_PADDING or report.worst.max_abs_diff > NEAR * report.wobble)


def said(error: Exception) -> str:
    """An error in one line, without the names of folders that are gone."""
    text = " · ".join(line.strip() for line in str(error).splitlines())
    return re.sub(r"'?/tmp/[\w/.-]+'?", "the model", f"{type(error).__name__}: {text}")[:1500]


def work(name: str, backend: str, result: Path, logs: Path, seconds: float, memory: int) -> None:
    """The process of one conversion: its row goes into a file."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    log = os.open(logs / f"{name}-{backend}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        row = run_row(name, backend)
    except MemoryError:
        row = Row(name, backend, "limit", f"more than {memory >> 30} GiB of memory")
    except BaseException as error:
        traceback.print_exc()
        row = Row(name, backend, "fails", f"{type(error).__name__}: {error}"[:600])
    result.write_text(json.dumps(asdict(row)), encoding="utf-8")
    os._exit(0)  # libraries that end threads at the end hang in a forked process


# All of them


def run(cases: Collection[tuple[str, str]], jobs: int, logs: Path, seconds: float = SECONDS) -> Iterator[Row]:
    """Convert each (name, backend) in a process of its own, so many at once; the rows in the order of their end."""
    _import_all({backend for _, backend in cases})
    logs.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    waiting = list(cases)[::-1]
    running: list[tuple[Any, float, tuple[str, str], Path]] = []
    with tempfile.TemporaryDirectory() as base:
        while waiting or running:
            while waiting and len(running) < jobs:
                case = waiting.pop()
                result = Path(base) / "-".join(case)
                process = context.Process(target=work, args=(*case, result, logs, seconds, MEMORY), daemon=True)
                process.start()
                running.append((process, time.monotonic(), case, result))
            for entry in list(running):
                process, start, case, result = entry
                process.join(0.2 / len(running))
                took = time.monotonic() - start
                if process.is_alive() and took < IDLE * seconds:
                    continue
                process.kill()
                process.join()
                running.remove(entry)
                yield _row_of(case, result, took, process.exitcode, seconds)


def _row_of(case: tuple[str, str], result: Path, took: float, code: int | None, seconds: float) -> Row:
    if result.is_file():
        row = Row(**json.loads(result.read_text(encoding="utf-8")))
    elif code in (-signal.SIGKILL, -signal.SIGXCPU):
        row = Row(*case, "limit", f"it took more than {seconds:g} s")
    else:
        row = Row(*case, "fails", f"the process ended with {code}")
    today = datetime.now(UTC).date().isoformat()
    return Row(**{**asdict(row), "seconds": round(took, 1), "date": today, "versions": versions()})


def versions() -> dict[str, str]:
    """What the rows depend on, without the builds of a version."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name).partition("+")[0]
    return found


def _import_all(backends: Collection[str]) -> None:
    """What every conversion imports, once for all: the processes are copies of this one."""
    import sentence_transformers  # noqa: F401
    import torch

    import sbertconv.converters

    torch.set_num_threads(1)
    if {"onnx", "openvino"} & set(backends):
        import onnxruntime  # noqa: F401

        import sbertconv.converters.onnx.writer
    if "torch" in backends:
        import sbertconv.converters.torch.writer  # noqa: F401


def read_ledger(ledger: Path) -> dict[tuple[str, str], Row]:
    """The last row of each (name, backend)."""
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.is_file() else []
    rows = [Row(**json.loads(line)) for line in lines if line.endswith("}")]
    return {(row.name, row.backend): row for row in rows}


def tenth(names: Collection[str], seed: int, parts: int = 10) -> list[str]:
    """A seeded part of the names."""
    return sorted(random.Random(seed).sample(sorted(names), -(-len(names) // parts)))


def published() -> dict[tuple[str, str], Row]:
    """The rows of docs/architectures.json, if it was made with these versions."""
    content = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"versions": None}
    if content["versions"] != versions():
        return {}
    more = {"date": content["date"], "versions": content["versions"]}
    found = content["architectures"]
    return {
        (name, backend): Row(name, backend, **row, **more)
        for name, rows in found.items()
        for backend, row in rows.items()
    }


def write_result(names: Collection[str], rows: Collection[Row]) -> None:
    """docs/architectures.json: a line for each architecture."""
    by_name: dict[str, dict[str, Any]] = {name: {} for name in names}
    for row in sorted(rows, key=lambda row: (row.name, list(BACKENDS).index(row.backend))):
        kept = {
            key: value for key, value in asdict(row).items() if value and key in ("status", "attention", "fallback")
        }
        kept |= {"reason": row.reason} if row.status != "proven" else {}
        by_name.setdefault(row.name, {})[row.backend] = kept
    newest = max(rows, key=lambda row: row.date)
    head = {"date": newest.date, "versions": versions()}
    lines = [f"    {json.dumps(name)}: {json.dumps(found, ensure_ascii=False)}" for name, found in by_name.items()]
    text = (
        json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "architectures": {\n' + ",\n".join(lines) + "\n  }\n}\n"
    )
    RESULT.write_text(text, encoding="utf-8")


def main() -> None:
    """Run what is not in the ledger, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="model types")
    parser.add_argument("--backends", nargs="*", default=list(BACKENDS), choices=list(BACKENDS))
    parser.add_argument("--tenth", type=int, metavar="SEED", help="a seeded tenth of the model types")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of one conversion")
    parser.add_argument("--again", nargs="*", default=[], help="statuses whose rows are run once more, or 'all'")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the ledger and of what each process printed")
    parser.add_argument("--write", action="store_true", help="write docs/architectures.json from the ledger, and end")
    given = parser.parse_args()
    ledger = given.folder / "ledger.jsonl"
    done = (published() if given.folder == FOLDER else {}) | read_ledger(ledger)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with the processes that it started
    if given.write:
        write_result(architectures(), list(done.values()))
        return
    names = given.only or architectures()
    names = names if given.tenth is None else tenth(names, given.tenth)
    old = {case for case, row in done.items() if not {row.status, "all"} & set(given.again)}
    cases = [(name, backend) for backend in given.backends for name in names if (name, backend) not in old]
    print(f"{len(cases)} of {len(names) * len(given.backends)} rows are to be run", flush=True)
    counts: dict[str, int] = {}
    for row in run(cases, given.jobs, given.folder / "logs", given.seconds):
        with ledger.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        counts[row.status] = counts.get(row.status, 0) + 1
        told = row.fallback or (row.reason if row.status != "proven" else "")
        print(f"{row.backend} {row.name}: {row.status} {row.attention} {row.seconds} s {told[:160]}", flush=True)
    print(counts)


if __name__ == "__main__":
    main()
