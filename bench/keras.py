"""`sbertconv to-tf` and its Keras models beside PyTorch, on the same batches."""

from __future__ import annotations

import json
import statistics
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.harness import Row, computes_bfloat16, hold_to, run, worker
from sbertconv.benchmark.measuring import alternate, mixed_texts
from sbertconv.runtime.batches import usable_cores

COUNT_TEXTS = 256
BATCH_SIZE = 32
STEPS = 3  # training steps per side and block
LIMIT = "<= 40"  # seconds for the conversion of MiniLM on 2 cores


def sections(model: str, folder: Path, rounds: int) -> list[Iterator[Row]]:
    """What is measured, in order."""
    artifact, core_counts = folder / "model-keras", sorted({1, usable_cores()})
    found = [conversion(model, artifact), memory(model, folder)]
    return found + [part(artifact, model, rounds, cores) for part in (inference, training) for cores in core_counts]


def conversion(model: str, artifact: Path) -> Iterator[Row]:
    """The whole command as users run it, check included, and what it wrote."""
    command = [str(Path(sysconfig.get_path("scripts"), "sbertconv")), "to-tf", model, str(artifact), "--overwrite"]
    done = run(command)
    section = "to-tf, check included"
    yield Row(section, "wall time", "s", [done.wall], [], LIMIT)
    yield Row(section, "CPU time", "s", [done.cpu], [])
    weights = weight_bytes(model) / 2**20
    for name in ("keras", "saved_model"):
        size = sum(path.stat().st_size for path in (artifact / name).rglob("*") if path.is_file()) / 2**20
        yield Row(section, f"size of {name}, beside the weights", "MiB", [size], [weights], "<= 1.10")


def memory(model: str, folder: Path) -> Iterator[Row]:
    """The largest resident set while converting, above that of a process that has everything imported."""
    found = json.loads(run(worker("keras_memory", model, folder / "memory")).stdout)
    above, weights = found["above"], weight_bytes(model) / 2**20
    name = "peak memory above the imports, beside the weights"
    yield Row("to-tf, check included", name, "MiB", [above], [weights], "<= 3.00")


def inference(artifact: Path, model: str, rounds: int, cores: int) -> Iterator[Row]:
    """Token ids to embeddings; texts per second."""
    found = json.loads(run(worker("keras_inference", artifact, model, rounds, cores)).stdout)
    section = (
        f"Inference beside PyTorch in float32, {COUNT_TEXTS} texts of {found['mean_tokens']:.0f} tokens on average, "
        f"batches of {BATCH_SIZE}"
    )
    bfloat16 = ">= 2.50" if computes_bfloat16() else ""
    targets = {"SavedModel": ">= 1.00", "XLA": ">= 1.10", "mixed_bfloat16": bfloat16}
    for name, pairs in found["pairs"].items():
        sides = [[COUNT_TEXTS / pair[side] for pair in pairs] for side in (0, 1)]
        yield Row(section, f"{name}, cores: {cores}", "texts/s", *sides, targets[name])


def training(artifact: Path, model: str, rounds: int, cores: int) -> Iterator[Row]:
    """One step of AdamW on one batch, dropout active on both sides."""
    found = json.loads(run(worker("keras_training", artifact, model, rounds, cores)).stdout)
    section = f"One training step beside PyTorch: batch of {BATCH_SIZE}, {found['tokens']} tokens, AdamW, float32"
    sides = [[1000 * pair[side] / STEPS for pair in found["pairs"]] for side in (0, 1)]
    yield Row(section, f"train_on_batch, cores: {cores}", "ms", *sides, "<= 1.20")


def weight_bytes(model: str) -> int:
    """The size of the checkpoint's weights."""
    return sum(path.stat().st_size for path in Path(model).rglob("*.safetensors"))


def load_both(artifact: str, model: str, cores: str) -> tuple[Any, Any, list[dict[str, Any]]]:
    """The Keras model, the SentenceTransformer, and batches of int32 tensors sorted by length."""
    hold_to(int(cores))
    import numpy as np
    from sentence_transformers import SentenceTransformer

    import sbertconv
    from sbertconv.frameworks import import_tensorflow
    from sbertconv.runtime.engines import load_keras_model

    tf = import_tensorflow(["keras"])
    tf.config.threading.set_intra_op_parallelism_threads(int(cores))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    embedder = sbertconv.load(artifact)
    texts = sorted(mixed_texts(COUNT_TEXTS), key=len)
    starts = range(0, COUNT_TEXTS, BATCH_SIZE)
    batches = [embedder.tokenize(texts[start : start + BATCH_SIZE]) for start in starts]
    batches = [{name: array.astype(np.int32) for name, array in batch.items()} for batch in batches]
    path = Path(artifact) / "keras/model.keras"
    return load_keras_model(path), SentenceTransformer(model, device="cpu"), batches


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_inference(artifact: str, model: str, rounds: str, cores: str) -> dict[str, Any]:
    """Worker: seconds for all batches, in pairs with PyTorch, for every way to run the Keras model."""
    keras_model, original, batches = load_both(artifact, model, cores)
    import numpy as np
    import tensorflow as tf
    import torch

    from sbertconv.layers import set_dtype_policy
    from sbertconv.runtime.engines import load_keras_model

    half = load_keras_model(Path(artifact) / "keras/model.keras")
    set_dtype_policy(half, "mixed_bfloat16")
    loaded = tf.saved_model.load(str(Path(artifact) / "saved_model"))
    serve = loaded.signatures["serving_default"]
    xla = tf.function(lambda batch: keras_model(batch, training=False), jit_compile=True)
    compiled = tf.function(lambda batch: half(batch, training=False), reduce_retracing=True)
    ways: dict[str, Callable[[Any], Any]] = {
        "SavedModel": lambda batch: serve(**batch)["sentence_embedding"],
        "XLA": xla,
        "mixed_bfloat16": compiled,
    }
    ours = [{name: tf.constant(array) for name, array in batch.items()} for batch in batches]
    theirs = [{name: torch.from_numpy(array).long() for name, array in batch.items()} for batch in batches]

    def pytorch() -> list[Any]:
        with torch.inference_mode():
            return [original(dict(batch))["sentence_embedding"].numpy() for batch in theirs]

    expected = np.concatenate(pytorch())
    pairs = {}
    for name, call in ways.items():

        def run_all(call: Callable[[Any], Any] = call) -> list[Any]:
            return [call(batch).numpy() for batch in ours]

        found = np.concatenate(run_all())  # the warm-up, and XLA's compilation
        if float((found * expected).sum(1).min()) < (0.99 if "16" in name else 0.9999):
            sys.exit(f"{name} gives something else.")
        pairs[name] = list(alternate(2 * int(rounds), lambda f=run_all: seconds(f), lambda: seconds(pytorch)))
    tokens = statistics.mean(int(count) for batch in batches for count in batch["attention_mask"].sum(1))
    return {"pairs": pairs, "mean_tokens": tokens}


def measure_training(artifact: str, model: str, rounds: str, cores: str) -> dict[str, Any]:
    """Worker: seconds for some steps, in pairs."""
    keras_model, original, batches = load_both(artifact, model, cores)
    import keras
    import numpy as np
    import torch

    batch = batches[len(batches) // 2]
    target = np.random.default_rng(0).normal(size=(BATCH_SIZE, keras_model.output.shape[-1])).astype(np.float32)
    keras_model.compile(keras.optimizers.AdamW(1e-5), "mse", jit_compile=False)
    original.train()
    optimizer = torch.optim.AdamW(original.parameters(), 1e-5)
    features = {name: torch.from_numpy(array).long() for name, array in batch.items()}
    goal = torch.from_numpy(target)

    def step() -> None:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(original(dict(features))["sentence_embedding"], goal)
        loss.backward()
        optimizer.step()

    def times(work: Callable[[], Any]) -> float:
        return seconds(lambda: [work() for _ in range(STEPS)])

    pairs = list(
        alternate(
            2 * int(rounds) + 1, lambda: times(lambda: keras_model.train_on_batch(batch, target)), lambda: times(step)
        )
    )
    return {"pairs": pairs[1:], "tokens": int(batch["input_ids"].shape[1])}


def measure_memory(model: str, folder: str) -> dict[str, float]:
    """Worker: MiB above the resident set of a process that has converted a tiny model before."""
    import sbertconv
    from sbertconv.memory import release_memory

    with tempfile.TemporaryDirectory() as tiny:
        sbertconv.to_tf(tiny_model(tiny), Path(tiny) / "converted")
    release_memory()
    base = peak = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        sbertconv.to_tf(model, folder)
    finally:
        done.set()
        watcher.join()
    return {"above": (peak - base) / 2**20}


def resident() -> int:
    """The bytes of this process that are in memory."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def tiny_model(folder: str) -> Any:
    """A BERT with random weights that needs everything a large one needs imported."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as st
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[UNK] $A", special_tokens=[("[UNK]", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.model_max_length = 16
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=4, max_position_embeddings=16, **sizes)).save_pretrained(folder)
    fast.save_pretrained(folder)
    return SentenceTransformer(modules=[st.Transformer(folder), st.Pooling(8, "mean")], device="cpu")


WORKERS: dict[str, Callable[..., Any]] = {
    "keras_inference": measure_inference,
    "keras_training": measure_training,
    "keras_memory": measure_memory,
}
