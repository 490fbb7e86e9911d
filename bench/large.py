"""What a large model takes while it is converted: `python -m bench.large`, apart from the other benchmarks.

A decoder with random weights is written to disk shard by shard, so that making it takes little memory. Then each
precision is converted in a process of its own, whose resident memory is watched stage by stage. Pages of mapped files
are counted too, although the system may drop them whenever memory is short.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness import python, run
from sbertconv.benchmark.measuring import described, machine

PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int4")
# In the architecture of Qwen 3. The large one is wide rather than deep: tracing takes time for every layer.
SIZES: dict[str, dict[str, int]] = {
    "1.5B": dict(hidden_size=2560, num_hidden_layers=13, num_attention_heads=20, num_key_value_heads=4,
                 intermediate_size=9728, vocab_size=151_936),
    "0.3B": dict(hidden_size=1024, num_hidden_layers=14, num_attention_heads=8, num_key_value_heads=2,
                 intermediate_size=4096, vocab_size=81_920),
}  # fmt: skip
HEAD, LENGTH = 128, 512
SHARD = 2**30  # bytes
GIB = 2**30
OPEN = {"min_cosine": 0.0, "min_spearman": -1.0, "min_top10": 0.0}  # random weights are no measure of quality


def make_model(folder: Path, size: str, dtype_name: str) -> None:
    """A sentence-transformers folder with random weights, its tokenizer trained on sbertconv's sentences."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as st
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = trained_tokenizer()
    sizes = SIZES[size] | {"head_dim": HEAD, "max_position_embeddings": LENGTH}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    dtype = getattr(torch, dtype_name)
    with tempfile.TemporaryDirectory() as small:  # the chain around the weights, saved by the library itself
        nothing = sizes | {"num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": len(tokenizer)}
        Qwen3Model(Qwen3Config(**nothing, **ids)).save_pretrained(small)
        tokenizer.save_pretrained(small)
        chain = [st.Transformer(small), st.Pooling(sizes["hidden_size"], "lasttoken"), st.Normalize()]
        SentenceTransformer(modules=chain, device="cpu").save_pretrained(str(folder))
    (folder / "model.safetensors").unlink()
    config = Qwen3Config(**sizes, **ids, dtype=dtype, architectures=["Qwen3Model"])
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in Qwen3Model(config).named_parameters()}
    write_shards(folder, shapes, dtype)


def write_shards(folder: Path, shapes: dict[str, Any], dtype: Any) -> None:
    """Random weights, one file of them in memory at a time: normalisations are near 1, rows are of length 1."""
    import torch
    from safetensors.torch import save_file

    chance, shard, places, total = torch.Generator().manual_seed(0), {}, {}, 0

    def flush() -> None:
        file = f"model-{len(set(places.values())) + 1:05}.safetensors"
        places.update(dict.fromkeys(shard, file))
        save_file(shard, folder / file, metadata={"format": "pt"})
        shard.clear()

    for name, shape in shapes.items():
        weight = torch.empty(shape).normal_(generator=chance).mul_(0.1 if len(shape) == 1 else shape[-1] ** -0.5)
        shard[name] = (weight + 1 if len(shape) == 1 else weight).to(dtype)
        total += shard[name].nbytes
        if sum(tensor.nbytes for tensor in shard.values()) >= SHARD:
            flush()
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def trained_tokenizer() -> Any:
    """A tokenizer as decoders have it: padding on the left, </s> at the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from sbertconv.corpus.texts import sentences

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LENGTH, padding_side="left",
        model_input_names=["input_ids", "attention_mask"], **names,
    )  # fmt: skip


def resident() -> dict[str, int]:
    """Bytes of this process that lie in memory: its own, and those of mapped files.

    https://docs.kernel.org/filesystems/proc.html, RssAnon and RssFile
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    own, mapped = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) * 1024 for name in ("RssAnon", "RssFile"))  # type: ignore[index]
    return {"own": own, "mapped": mapped, "total": own + mapped}


class Watch:
    """The largest values of `resident` in each stage, above what they were at the start."""

    def __init__(self, limit: float) -> None:
        self.before = resident()
        self.stages: dict[str, dict[str, float]] = {}
        self.limit = limit
        self.on_stage("start")

    def on_stage(self, name: str) -> None:
        self.stage = self.stages.setdefault(name, {"seconds": 0.0, **dict.fromkeys(self.before, 0)})

    @contextmanager
    def running(self) -> Iterator[None]:
        ended = threading.Event()

        def look() -> None:
            clock = time.perf_counter()
            while not ended.wait(0.01):
                stage, now = self.stage, resident()
                stage["seconds"] += time.perf_counter() - clock
                clock = time.perf_counter()
                for name, value in now.items():
                    stage[name] = max(stage[name], value - self.before[name])
                if now["total"] > self.limit:
                    print(f"{now} in {self.stages}", file=sys.stderr, flush=True)
                    os._exit(1)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def convert(model: str, target: str, precision: str, texts: str, limit: str) -> dict[str, Any]:
    """Worker: convert and tell what it took; the libraries are warm before, through a model of a few bytes."""
    import sbertconv
    from sbertconv.corpus.texts import sentences
    from sbertconv.memory import release_memory
    from sbertconv.parity import questions

    questions.sentences = lambda: sentences()[: int(texts)]  # type: ignore[attr-defined]
    gate = {} if precision == "fp32" else OPEN
    with tempfile.TemporaryDirectory() as folder:
        SIZES["tiny"] = SIZES["0.3B"] | {"hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 5000}
        make_model(Path(folder, "tiny"), "tiny", "float32")
        sbertconv.to_onnx(Path(folder, "tiny"), Path(folder, "warm"), precision=precision, **gate)
    release_memory()
    watch = Watch(float(limit) * GIB)
    with watch.running():
        artifact = sbertconv.to_onnx(
            model, target, precision=precision, overwrite=True, on_stage=watch.on_stage, **gate
        )
    return {"stages": watch.stages, "size": size_of(artifact.folder), "parity": artifact.manifest["parity"]}


def size_of(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def row(precision: str, result: dict[str, Any], checkpoint: int, parameters: int) -> str:
    """One precision's line of the table."""
    stages = result["stages"].values()
    peak, seconds = max(stage["total"] for stage in stages), sum(stage["seconds"] for stage in stages)
    cells = [f"{value / GIB:.1f} GiB" for value in (result["size"], peak)]
    cells += [f"{peak / whole:.2f}x" for whole in (checkpoint, 4 * parameters)]
    return f"| `{precision}` | {' | '.join(cells)} | {seconds / 60:.1f} min |"


def report(name: str, checkpoint: int, parameters: int, found: dict[str, dict[str, Any]]) -> str:
    """The table for the documentation, and every stage of each precision."""
    lines = [f"{name}: {parameters / 1e9:.2f} billion parameters, a checkpoint of {checkpoint / GIB:.1f} GiB", ""]
    lines += ["| `--precision` | written | peak memory | beside the checkpoint | beside float32 weights | time |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [row(precision, result, checkpoint, parameters) for precision, result in found.items()]
    for precision, result in found.items():
        lines += ["", f"{precision}, GiB above the imports: own, mapped, together, seconds"]
        for stage, peaks in result["stages"].items():
            figures = "  ".join(f"{peaks[key] / GIB:6.2f}" for key in ("own", "mapped", "total"))
            lines.append(f"  {stage:24}{figures}  {peaks['seconds']:6.1f}")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(convert(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(prog="python -m bench.large", description="Memory while a large model converts.")
    parser.add_argument("--size", choices=list(SIZES), default="1.5B", help="(default: 1.5B)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16",
                        help="of the checkpoint (default: bfloat16)")  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="repeat for several (default: all)")
    parser.add_argument("--texts", type=int, default=100, help="of the quality gate's sentences (default: 100)")
    parser.add_argument("--folder", type=Path, default=Path("build/large"), help="where the models lie, and stay")
    parser.add_argument("--limit", type=float, default=64, help="end when a process holds more GiB (default: 64)")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    name = f"{options.size}-{options.dtype}"
    model, target = options.folder / name, options.folder / "converted"
    if not (model / "model.safetensors.index.json").is_file():
        make_model(model, options.size, options.dtype)
    total = json.loads((model / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    parameters, found = total // (4 if options.dtype == "float32" else 2), {}
    for precision in options.precision or PRECISIONS:
        print(f"{precision} ...", file=sys.stderr, flush=True)
        command = python("-m", "bench.large", "--worker", *map(str, (model.resolve(), target.resolve(), precision)))
        found[precision] = json.loads(run([*command, str(options.texts), str(options.limit)]).stdout)
        print(row(precision, found[precision], total, parameters), file=sys.stderr, flush=True)
        shutil.rmtree(target)
    print("\n".join(f"- {line}" for line in described(machine())))
    print(report(name, total, parameters, found))


if __name__ == "__main__":
    main()
