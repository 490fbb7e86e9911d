"""Mutated files of every kind that is read. `make fuzz` runs it for minutes, tests/test_fuzz.py a few seconds of it.

A case is a kind and a seed, and is the same one each time. Four rules hold for it: it ends in a SbertconvError or in an
answer with a row for each text, without any other exception; nothing is written outside; it takes less than a minute
and less than 1 GiB. Cases run in a worker process, since a library may take the process with it. Those that broke a
rule once stand in tests/fuzz_seeds.txt and run for ever.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import gc
import hashlib
import io
import json
import os
import random
import resource
import selectors
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ADAPTER = "adapter_config.json"
HERE = "<folder>/"  # in an adapter of a sample
SEEDS = Path(__file__).with_name("fuzz_seeds.txt")
TEXTS = ["The quick brown fox jumps over the lazy dog.", "", "How many people live in Berlin?"]
ENDINGS = ("error", "answer")
LONGEST, LARGEST = 60, 1 << 30  # seconds and bytes of a case
MEMORY = 24 << 30  # bytes of addresses of a worker: libraries map much more than they use
JUNK: list[Any] = [
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**40, 0.5, -1e308, float("nan"), float("inf"), "", "zzz", "a\0b",
    "../../x", "/etc/passwd", "\ud800", "é" * 300, [], [[]], [1], ["a"], {}, {"a": 1}, {"a": {"b": [None]}},
]  # fmt: skip
# What a terminal obeys and rich takes for markup; numbers and names that a library might take at their word
HOSTILE = [
    *JUNK, "\x1b]0;owned\x07\x1b[2J", "[/nothing]", "[red]", "\u202eb\x9b1m", 10**9, 2**31 - 1, -(2**31), "a/b",
    "a.b:c", "{{ x }}", "{% for a in range(9999999) %}{% endfor %}", "(a+)+$", {"Regex": "(a|a)*$"}, ["\x1b[1m"],
    "torch.nn.Linear",
]  # fmt: skip
DEEP = b"[" * 100_000


# Mutations


def mutated_json(content: bytes, chosen: random.Random, junk: Sequence[Any] = JUNK) -> bytes:
    """JSON with one value, or several, replaced, removed or copied over another one. Another `junk` is another case of
    every seed.
    """
    try:
        tree = json.loads(content)
    except ValueError:
        return mutated_bytes(content, chosen)
    if chosen.random() < 0.02:
        return DEEP
    for _ in range(chosen.choice([1, 1, 1, 2, 5])):
        places = list(_places(tree))
        if not places:
            break
        holder, key = chosen.choice(places)
        do = chosen.random()
        if do < 0.7:
            holder[key] = copy.deepcopy(chosen.choice(junk))
        elif do < 0.85:
            del holder[key]
        else:
            other, name = chosen.choice(places)
            with contextlib.suppress(LookupError):
                holder[key] = json.loads(json.dumps(other[name]))
    text = json.dumps(tree)
    return text.encode() if chosen.random() < 0.95 else mutated_bytes(text.encode(), chosen)


def hostile_json(content: bytes, chosen: random.Random) -> bytes:
    return mutated_json(content, chosen, HOSTILE)


def mutated_any(content: bytes, chosen: random.Random) -> bytes:
    """JSON as such, whatever else by its bytes."""
    return (hostile_json if content[:1] in b"{[" and chosen.random() < 0.8 else mutated_bytes)(content, chosen)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value by its holder and key; of long lists and objects the first ones, so that settings are met often."""
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        keys = list(range(len(holder)) if isinstance(holder, list) else holder)[:40]
        for key in keys:
            yield holder, key
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])


def mutated_bytes(content: bytes, chosen: random.Random) -> bytes:
    """Bytes flipped, cut, moved, repeated or put in."""
    found = bytearray(content)
    for _ in range(chosen.choice([1, 1, 2, 4, 16])):
        if not found:
            return bytes(found)
        at, size = chosen.randrange(len(found)), chosen.choice([1, 2, 4, 8, 64])
        match chosen.randrange(6):
            case 0:
                found[at] ^= 1 << chosen.randrange(8)
            case 1:
                found[at : at + size] = chosen.choice([b"\0", b"\xff", b"\x7f"]) * size
            case 2:
                del found[at : len(found) if chosen.random() < 0.3 else at + size]
            case 3:
                found[at:at] = chosen.randbytes(size)
            case 4:
                found[at:at] = found[at : at + size * 8]
            case _:
                found[at : at + size] = chosen.choice([b'"', b"\n", b",", b"{", b"]", b"\r\n", b"\xed\xa0\x80"])
    return bytes(found)


def mutated_zip(content: bytes, chosen: random.Random, keep: Callable[[str], bool] = lambda name: True) -> bytes:
    """An archive with one member mutated, or its own bytes."""
    if chosen.random() < 0.3:
        return mutated_bytes(content, chosen)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = chosen.choice([name for name in members if keep(name)])
    as_json = name.endswith(".json")
    members[name] = (mutated_json if as_json else mutated_bytes)(members[name], chosen)
    return zipped(members)


def mutated_lines(content: bytes, chosen: random.Random) -> bytes:
    """Lines of JSON, one of them mutated."""
    lines = content.splitlines(keepends=True)
    place = chosen.randrange(len(lines))
    lines[place] = mutated_json(lines[place], chosen) + b"\n"
    return b"".join(lines)


def mutated_tables(content: bytes, chosen: random.Random) -> bytes:
    """An archive with the tables of its tokenizer mutated, an archive themselves."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in members if name.endswith(".npz"))
    members[name] = mutated_zip(members[name], chosen)
    return zipped(members)


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, part in members.items():
            archive.writestr(name, part)
    return buffer.getvalue()


# Samples


@functools.cache
def sample(name: str) -> Path:
    """A small model or conversion; one for each machine and version of this file."""
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    place = Path(tempfile.gettempdir()) / f"sbertconv-fuzz-{os.getuid()}-{version}" / name
    if not place.exists():
        made = place.with_name(f"{name}-{os.getpid()}")
        with contextlib.redirect_stderr(io.StringIO()):
            SAMPLES[name](made)
        with contextlib.suppress(OSError):  # another process was first
            made.rename(place)
    return place


def _bert(folder: Path) -> None:
    import cases

    modules = cases.pooling("cls"), cases.dense(), cases.st.Normalize()
    cases.bert(*modules, prompts={"query": "query: "}).save_pretrained(str(folder))


def _static(folder: Path) -> None:
    import cases

    cases.chain(cases.static_embedding(), cases.st.Normalize(), prompts={"query": "q: "}).save_pretrained(str(folder))


def _adapter(folder: Path) -> None:
    """An adapter of a checkpoint that lies elsewhere, as PEFT saves it."""
    import tiny
    import torch
    from safetensors.torch import save_file

    base = tiny.transformer_folder("bert", num_hidden_layers=1)
    shutil.copytree(base, folder / "base")
    for file in base.glob("*token*.json"):
        shutil.copy(file, folder)
    config = {
        "peft_type": "LORA", "base_model_name_or_path": HERE + "base", "target_modules": ["query"], "r": 2,
        "lora_alpha": 4, "lora_dropout": 0.0, "bias": "none", "task_type": "FEATURE_EXTRACTION",
        "fan_in_fan_out": False, "inference_mode": True, "modules_to_save": None, "layers_to_transform": None,
        "layers_pattern": None, "init_lora_weights": True, "megatron_config": None, "megatron_core": "megatron.core",
        "auto_mapping": None, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, "use_dora": False,
    }  # fmt: skip
    (folder / ADAPTER).write_text(json.dumps(config), encoding="utf-8")
    size = json.loads((base / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    place = "base_model.model.encoder.layer.0.attention.self.query.lora_"
    weights = {f"{place}A.weight": torch.ones(2, size) / size, f"{place}B.weight": torch.ones(size, 2) / size}
    save_file(weights, folder / "adapter_model.safetensors")


def _vocabulary(folder: Path) -> None:
    """A tokenizer of the files that came before tokenizer.json: a list of words."""
    shutil.copytree(sample("bert"), folder)
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = sorted(described["model"]["vocab"], key=described["model"]["vocab"].__getitem__)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "BertTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _merges(folder: Path) -> None:
    """The same of merged bytes: a vocabulary and a list of merges."""
    import cases
    import tiny

    cases.chain(tiny.transformer("roberta", num_hidden_layers=1), cases.pooling()).save_pretrained(str(folder))
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(described["vocab"]), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in described["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "RobertaTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _pieces(folder: Path) -> None:
    """The same of a SentencePiece model: a message of protobuf, of which each piece is field 1 with a text, a score and
    a kind.
    """
    import cases
    import tiny

    cases.chain(tiny.transformer("t5", num_layers=1), cases.pooling()).save_pretrained(str(folder))
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3, "<pad>": 3}
    parts = []
    for piece, score in described["vocab"]:
        text = piece.encode()
        kind = kinds.get(piece, 1)
        part = b"\x0a" + varint(len(text)) + text + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind)
        parts.append(b"\x0a" + varint(len(part)) + part)
    trainer = b"\x18\x01"  # Unigram
    parts.append(b"\x12" + varint(len(trainer)) + trainer)
    (folder / "spiece.model").write_bytes(b"".join(parts))
    (folder / "tokenizer.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "T5Tokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _packable(folder: Path) -> None:
    import cases

    import sbertconv

    sbertconv.to_onnx(cases.chain(*cases.bert(cases.pooling("mean")), cases.st.Normalize()), folder)


def _archive(folder: Path) -> None:
    folder.mkdir(parents=True)
    with tarfile.open(folder / "folder.tar", "w") as archive:
        archive.add(sample("onnx"), arcname=".")


def _words(folder: Path) -> None:
    import cases

    import sbertconv

    sbertconv.to_onnx(cases.chain(cases.word_embeddings(), cases.pooling()), folder)


def _rows(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    (folder / "in.csv").write_text('id,text\n1,one\n2,"two, ""three""\nfour"\n3,\n', encoding="utf-8")
    (folder / "in.jsonl").write_text('{"text": "one", "id": 1}\n{"text": ""}\n"three"\n', encoding="utf-8")
    (folder / "in.txt").write_text("one\n\nthree\n", encoding="utf-8")
    table = pa.table({"id": [1, 2, 3], "text": ["one", "", "three"]})
    pq.write_table(table, folder / "in.parquet")
    with pa.ipc.new_file(folder / "in.arrow", table.schema) as out:
        out.write_table(table)


def _litert(folder: Path) -> None:
    import sbertconv

    sbertconv.to_tf(sample("bert"), folder, formats=["litert"])


def _ledger(folder: Path) -> None:
    """A run that was killed when half of its rows were done."""
    folder.mkdir(parents=True)
    embedded(sample("rows") / "in.csv", folder / "out")
    ledger = folder / "out/_sbertconv.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:2]))


def embedded(file: Path, output: Path) -> Any:
    from sbertconv.tables.embedding import EmbedTable
    from sbertconv.tables.encoding import TableOptions, embed_tables

    return embed_tables(EmbedTable(folder=str(sample("onnx"))), str(file), output, TableOptions(rows_per_file=2))


def _converted(command: str, **options: Any) -> Callable[[Path], None]:
    def convert(folder: Path) -> None:
        import sbertconv

        getattr(sbertconv, command)(sample("static"), folder, **options)

    return convert


SAMPLES: dict[str, Callable[[Path], None]] = {
    "bert": _bert,
    "static": _static,
    "words": _words,
    "rows": _rows,
    "onnx": _converted("to_onnx"),
    "torch": _converted("to_torch"),
    "keras": _converted("to_tf", formats=["keras"]),
    "openvino": _converted("to_openvino"),
    "saved_model": _converted("to_tf", formats=["saved_model"]),
    "litert": _litert,
    "text": _converted("to_tf", formats=["keras"], text_input=True),
    "ledger": _ledger,
    "adapter": _adapter,
    "vocabulary": _vocabulary,
    "merges": _merges,
    "pieces": _pieces,
    "packable": _packable,
    "archive": _archive,
}


# Questions


def ask_converted(folder: Path, file: Path) -> None:
    """Load and embed; the manifest knows the size that the file has now, so that readers behind that check are met."""
    import sbertconv

    manifest = folder / "sbertconv.json"
    if file != manifest:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        content["files"][file.relative_to(folder).as_posix()]["size"] = file.stat().st_size
        manifest.write_text(json.dumps(content), encoding="utf-8")
    found = sbertconv.load(folder).encode(TEXTS)
    assert len(found) == len(TEXTS), found.shape


def ask_keras(folder: Path, file: Path) -> None:
    import sbertconv

    assert len(sbertconv.load(file).encode(TEXTS)) == len(TEXTS)


def ask_model(folder: Path, file: Path) -> None:
    """Inspect, load and ask the original, as a conversion does before it writes anything."""
    import sbertconv
    from sbertconv.plan.planning import plan_model
    from sbertconv.source.opening import open_source

    json.dumps(sbertconv.inspect(folder), default=str)
    source = open_source(folder)
    source.check_classes()
    with source.loaded() as model:
        from sbertconv.converters import default_registry

        plan_model(model, source.name, "torch", default_registry()).check()


def ask_shown(folder: Path, file: Path) -> None:
    """What a command prints of a folder, and how it ends."""
    from sbertconv.cli import main
    from sbertconv.errors import HIDDEN

    sys.argv = ["sbertconv", "inspect", str(folder), *(["--json"] if file.stat().st_size % 2 else [])]
    code: Any = 0
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert code in (None, 0, 1, 2, 3), code
    assert not HIDDEN.search(shown.getvalue()), "the terminal is told what to do"


def ask_packed(folder: Path, file: Path) -> None:
    """Lay out for software that reads a tokenizer's files in its own way; the manifest knows all files as they are."""
    import sbertconv
    from sbertconv.artifact.folder import described

    manifest = folder / "sbertconv.json"
    if file != manifest:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        manifest.write_text(json.dumps({**content, "files": described(folder)}), encoding="utf-8")
    sbertconv.pack(folder, folder / "out", ["fastembed", "transformers.js"])


def ask_archive(folder: Path, file: Path) -> None:
    """Unpack what came from a cluster, and load it."""
    import sbertconv
    from sbertconv.ray import unpack_archive

    place = folder / "unpacked"
    place.mkdir()
    unpack_archive(file.read_bytes(), place)
    assert {path.name for path in folder.iterdir()} == {"folder.tar", "unpacked"}
    assert len(sbertconv.load(place).encode(TEXTS)) == len(TEXTS)


@functools.cache
def live(name: str) -> Any:
    """A sample as a model of the library, once for all cases."""
    import sentence_transformers

    return sentence_transformers.SentenceTransformer(str(sample(name)), device="cpu")


def ask_verify(folder: Path, file: Path) -> None:
    import sbertconv

    sbertconv.verify(live("static"), folder)


def ask_format(form: str) -> Callable[[Path, Path], None]:
    """Load and embed in one of the formats; sizes as in `ask_converted`."""

    def ask(folder: Path, file: Path) -> None:
        import sbertconv

        manifest = folder / "sbertconv.json"
        content = json.loads(manifest.read_text(encoding="utf-8"))
        content["files"][file.relative_to(folder).as_posix()]["size"] = file.stat().st_size
        manifest.write_text(json.dumps(content), encoding="utf-8")
        assert len(sbertconv.load(folder, format=form).encode(TEXTS)) == len(TEXTS)

    return ask


def ask_tables(folder: Path, file: Path) -> None:
    """Every row of a table is in the output, or there is an error. A ledger is believed."""
    import pyarrow.parquet as pq

    begun = file.parent != folder  # the file is the ledger of a run that was killed
    done = embedded(sample("rows") / "in.csv" if begun else file, folder / "out")
    written = sum(pq.read_metadata(path).num_rows for path in (folder / "out").glob("*.parquet"))
    assert begun or written == done.rows, (written, done)


def ask_rows(folder: Path, file: Path) -> None:
    """What is read is text."""
    from sbertconv.console.files import read_texts

    assert all(isinstance(text, str) for text in read_texts(file))


@dataclass(frozen=True)
class Kind:
    """A kind of file: of which sample, which of its files, how they are mutated, and what is asked then."""

    sample: str
    files: tuple[str, ...]
    mutate: Callable[[bytes, random.Random], bytes]
    ask: Callable[[Path, Path], None]
    quick: bool = True


KINDS: dict[str, Kind] = {
    "manifest": Kind("onnx", ("sbertconv.json",), mutated_json, ask_converted),
    "tokenizer": Kind("onnx", ("tokenizer.json",), mutated_json, ask_converted),
    "words": Kind("words", ("whitespacetokenizer_config.json",), mutated_json, ask_converted),
    "onnx": Kind("onnx", ("onnx/model.onnx",), mutated_bytes, ask_converted),
    "pt2": Kind("torch", ("torch/model.pt2",), mutated_zip, ask_converted),
    "keras": Kind("keras", ("keras/model.keras",), mutated_zip, ask_keras, quick=False),
    "model": Kind(
        "bert",
        ("modules.json", "config.json", "config_sentence_transformers.json", "sentence_bert_config.json",
         "1_Pooling/config.json", "2_Dense/config.json", "tokenizer.json", "tokenizer_config.json"),
        mutated_json, ask_model, quick=False,
    ),
    "static": Kind(
        "static", ("modules.json", "config_sentence_transformers.json", "tokenizer.json"), mutated_json, ask_model
    ),
    "weights": Kind("static", ("model.safetensors",), mutated_bytes, ask_model),
    "shown": Kind("onnx", ("sbertconv.json",), hostile_json, ask_shown),
    "verified": Kind("onnx", ("sbertconv.json",), hostile_json, ask_verify, quick=False),
    "tables": Kind("rows", ("in.csv", "in.jsonl", "in.txt", "in.parquet", "in.arrow"), mutated_bytes, ask_tables),
    "ledger": Kind("ledger", ("out/_sbertconv.jsonl",), mutated_lines, ask_tables),
    "openvino": Kind(
        "openvino", ("openvino/openvino_model.xml", "openvino/openvino_model.bin"), mutated_bytes,
        ask_format("openvino"), quick=False,
    ),
    "saved_model": Kind(
        "saved_model",
        ("saved_model/saved_model.pb", "saved_model/variables/variables.index",
         "saved_model/variables/variables.data-00000-of-00001"),
        mutated_bytes, ask_format("saved_model"), quick=False,
    ),
    "litert": Kind("litert", ("litert/model.tflite",), mutated_bytes, ask_format("litert"), quick=False),
    "text": Kind("text", ("keras/model.keras",), mutated_tables, ask_keras, quick=False),
    "settings": Kind(
        "bert",
        ("config.json", "sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json",
         "modules.json", "1_Pooling/config.json", "2_Dense/config.json"),
        hostile_json, ask_model, quick=False,
    ),
    "described": Kind("bert", ("modules.json", "config_sentence_transformers.json", "2_Dense/config.json"),
                      hostile_json, ask_shown),
    "adapter": Kind("adapter", (ADAPTER, "base/config.json"), hostile_json, ask_model, quick=False),
    "vocabulary": Kind("vocabulary", ("vocab.txt", "tokenizer_config.json"), mutated_any, ask_model, quick=False),
    "merges": Kind(
        "merges", ("vocab.json", "merges.txt", "tokenizer_config.json"), mutated_any, ask_model, quick=False
    ),
    "pieces": Kind("pieces", ("spiece.model", "tokenizer_config.json"), mutated_any, ask_model, quick=False),
    "packed": Kind(
        "packable", ("tokenizer.json", "tokenizer_config.json", "config.json", "sbertconv.json", "onnx/model.onnx"),
        mutated_any, ask_packed, quick=False,
    ),
    "archive": Kind("archive", ("folder.tar",), mutated_bytes, ask_archive),
    "rows": Kind("rows", ("in.csv", "in.jsonl", "in.txt", "in.parquet"), mutated_bytes, ask_rows),
}  # fmt: skip


# Cases


def run_case(name: str, seed: int, base: Path) -> str:
    """ "error", "answer", or what broke a rule; `base` is an empty folder for it."""
    from sbertconv import SbertconvError

    kind, chosen = KINDS[name], random.Random(f"{name} {seed}")
    folder = base / "folder"
    shutil.copytree(sample(kind.sample), folder)
    if (adapter := folder / ADAPTER).is_file():
        adapter.write_text(adapter.read_text(encoding="utf-8").replace(HERE, f"{folder}/"))
    file = folder / chosen.choice(kind.files)
    file.write_bytes(kind.mutate(file.read_bytes(), chosen))
    begin, memory = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = list(base.iterdir()), list(Path.cwd().iterdir())
    try:
        kind.ask(folder, file)
        verdict = "answer"
    except SbertconvError as error:
        verdict = "error" if str(error) else "an error without a word"
    except BaseException as error:  # a panic of Rust is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        places = [f for f in traceback.extract_tb(error.__traceback__) if "/sbertconv/" in f.filename]
        at = f"{places[-1].filename.rpartition('/sbertconv/')[2]}:{places[-1].lineno}" if places else "?"
        verdict = f"{type(error).__name__} at {at}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
    if (list(base.iterdir()), list(Path.cwd().iterdir())) != before:
        verdict = f"wrote outside: {[path.name for path in base.iterdir()]}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) << 10
    seconds = time.perf_counter() - begin
    if seconds > LONGEST or grown > LARGEST:
        verdict = f"took {seconds:.0f} s and {grown >> 20} MiB"
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    return verdict


def work(name: str, seeds: Iterator[int]) -> None:
    """The worker: a line before each case and one after it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    told = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sample(KINDS[name].sample)
    with tempfile.TemporaryDirectory() as base, tempfile.TemporaryDirectory() as here:
        os.chdir(here)
        case = Path(base) / "case"
        case.mkdir()
        for seed in (-1, -2, -3):
            run_case(name, seed, case)  # imports the libraries, which no case is to answer for
        gc.freeze()  # their objects are not looked through again for each model that goes
        for seed in seeds:
            print(f"{seed} begins", file=told)
            print(f"{seed} {run_case(name, seed, case)}", file=told)
        os.chdir("/")


def fuzz(name: str, start: int, seconds: float, cases: int) -> tuple[Counter[str], list[str]]:
    """Run cases of a kind until the time is over: how they ended, and those that broke a rule."""
    counts: Counter[str] = Counter()
    broken: list[str] = []
    end, seed = time.monotonic() + seconds, start
    while time.monotonic() < end and seed < start + cases:
        begun, last = None, seed
        for number, verdict in _told(name, seed, end, start + cases - 1):
            last, begun = number, None if verdict != "begins" else number
            if begun is None:
                counts[verdict if verdict in ENDINGS else "broken"] += 1
                broken += [] if verdict in ENDINGS else [f"{name} {number} # {verdict}"]
        if begun is not None and time.monotonic() < end:
            broken.append(f"{name} {begun} # hangs, or ends the process")
            counts["broken"] += 1
        seed = last + 1
    return counts, broken


def _told(name: str, seed: int, end: float, last: int) -> Iterator[tuple[int, str]]:
    """What a new worker tells, until it ends, hangs, or the time is over."""
    command = [sys.executable, __file__, "--worker", name, "--seed", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker, selectors.DefaultSelector() as waiting:
        assert worker.stdout is not None
        waiting.register(worker.stdout, selectors.EVENT_READ)
        rest = b""
        try:
            while waiting.select(min(2 * LONGEST, max(0, end - time.monotonic()))):
                if not (given := os.read(worker.stdout.fileno(), 1 << 16)):
                    return
                *lines, rest = (rest + given).split(b"\n")
                for line in lines:
                    number, _, verdict = line.decode().partition(" ")
                    if int(number) > last:
                        return
                    yield int(number), verdict
        finally:
            worker.kill()


def known() -> list[tuple[str, int]]:
    """The cases that broke a rule once."""
    lines = [line.partition("#")[0].split() for line in SEEDS.read_text(encoding="utf-8").splitlines()]
    return [(name, int(seed)) for name, seed in filter(None, lines)]


def missing_for(name: str) -> str:
    """The package without which the library refuses every file of a kind, if it is not there: nothing would be
    tried.
    """
    package = {"pieces": "sentencepiece", "adapter": "peft"}.get(name, "")
    return package if package and find_spec(package) is None else ""


def main() -> None:
    """Run every kind, or those named, and print what broke a rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--cases", type=int, default=5000, help="of each kind")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--worker")
    given = parser.parse_args()
    if given.worker:
        work(given.worker, iter(range(given.seed, given.seed + 10**9)))
        return
    for name in list(given.kinds):
        if missing := missing_for(name):
            print(f"{name}: not run: {missing} is not installed", flush=True)
            given.kinds.remove(name)
            continue
        sample(KINDS[name].sample)  # before the time runs
    failed = False
    for name in given.kinds:
        counts, broken = fuzz(name, given.seed, 60 * given.minutes / len(given.kinds), given.cases)
        print(f"{name}: {sum(counts.values())} cases from seed {given.seed}: {dict(counts)}", flush=True)
        print(*(f"  {line}" for line in broken), sep="\n", flush=True)
        failed = failed or bool(broken)
    sys.exit(failed)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
