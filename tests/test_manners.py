"""How commands and methods behave where something is not as it should be: a message, and nothing left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import TEXTS, Ran, run_python
from tokenizers import Tokenizer

import sbertconv
from sbertconv import ArtifactError, SbertconvError, UnsupportedOptionError
from sbertconv.artifact import scratch
from sbertconv.artifact.publishing import stage
from sbertconv.benchmark import Settings, benchmark
from sbertconv.console import files
from sbertconv.console.printing import json_text
from sbertconv.plan.registry import Registry
from sbertconv.runtime import long_texts
from sbertconv.runtime.long_texts import is_local
from sbertconv.runtime.model import ConvertedModel
from sbertconv.runtime.predicting import Reranker
from sbertconv.runtime.token_pooling import HierarchicalTokenPooling
from sbertconv.runtime.tokenization import FastTokenizer
from sbertconv.tables.embedding import EmbedTable
from sbertconv.tables.encoding import TableOptions

COMMAND_LINE = "import sys; from sbertconv import main; sys.argv[0] = 'sbertconv'; main()"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda _: TableOptions(workers="x", nulls="null"), r"workers='x' is str .have: int"),  # type: ignore[arg-type]
        (lambda _: EmbedTable(folder=8), r"folder=8 is int .have: str"),  # type: ignore[arg-type]
        (lambda _: HierarchicalTokenPooling(pool_factor="x"), "pool_factor='x' is str"),  # type: ignore[arg-type]
        (lambda _: Registry().add(3, 4, 5), "add.3, 4, 5. .have: a backend's name"),  # type: ignore[arg-type]
        (lambda model: model.tokenize(3), "3 is no list of texts or pairs"),
        (lambda model: model.tokenize("one"), "'one' is no list of texts or pairs"),
        (lambda model: model.similarity("a", "b"), "'a' is no array of numbers"),
        (lambda model: model.similarity_pairwise(["a"], ["b"]), "is no array of numbers"),
        (lambda model: sbertconv.quantize_embeddings(1.5, "int8"), "an array of 0 axes"),
        (lambda model: sbertconv.quantize_embeddings([np.ones((2, 3)), np.ones((2, 4))], "binary"), "of the sizes"),
        (lambda model: sbertconv.load(model.artifact.folder, session_options=np.array([1, 2])), "have: a dict, and"),
        (lambda model: model.decode([1.0]), r"An Embedder has no decode.. .have: encode"),
    ],
)
def test_a_call_with_something_else_is_an_error_of_ours(
    call: Callable[[Any], Any], said: str, static_artifact: Path
) -> None:
    with pytest.raises(UnsupportedOptionError, match=said):
        call(sbertconv.load(static_artifact))


def test_a_folder_of_tables_may_be_a_path(static_artifact: Path) -> None:
    assert EmbedTable(folder=static_artifact).folder == str(static_artifact)  # type: ignore[arg-type]


def test_inspect_without_torch_says_what_to_install(static_folder: Path) -> None:
    ran = run_python(f"import sys; sys.modules['torch'] = None; {COMMAND_LINE}", "inspect", static_folder)
    assert (ran.code, ran.out) == (1, "")
    assert "torch" in ran.err
    assert 'pip install "sbertconv[onnx]"' in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": "8"}, r"batch_size='8' is str .have: a whole number"),
        ({"batch_size": 2.5}, "batch_size=2.5 is float"),
        ({"batch_size": True}, "batch_size=True is bool"),
        ({"prompt": 3}, r"prompt=3 is int .have: text, None"),
        ({"prompt_name": ["query"]}, "prompt_name=.'query'. is list"),
        ({"output_value": 1}, "output_value=1"),
        ({"precision": None}, r"precision=None is NoneType .have: text"),
        ({"normalize_embeddings": "yes"}, r"normalize_embeddings='yes' is str .have: True, False"),
        ({"truncate_dim": 2.0}, "truncate_dim=2.0"),
        ({"show_progress_bar": "no"}, "show_progress_bar='no'"),
        ({"task": 1}, "task=1 is int"),
        ({"task": "nope"}, r"task 'nope' is not known .have: document, query"),
    ],
    ids=str,
)
def test_an_option_of_a_wrong_type_is_named(options: dict[str, Any], said: str, static_artifact: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=said):
        sbertconv.load(static_artifact).encode(TEXTS, **options)


def test_options_as_numpy_has_them(static_artifact: Path) -> None:
    model = sbertconv.load(static_artifact)
    found = model.encode(TEXTS, None, None, np.int64(2), np.bool_(False), task="query")
    np.testing.assert_allclose(found, model.encode(TEXTS), atol=1e-6)


def test_a_method_of_another_class_is_named(static_artifact: Path) -> None:
    model = sbertconv.load(static_artifact)
    with pytest.raises(SbertconvError, match=r"An Embedder has no predict\(\) .have: encode, encode_query"):
        model.predict(TEXTS)
    with pytest.raises(SbertconvError, match=r"A Reranker has no encode\(\) .have: predict, rank, logits, scores"):
        _ = Reranker.__new__(Reranker).encode
    assert not hasattr(model, "predict")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ConvertedModel.__new__(ConvertedModel).nothing  # type: ignore[attr-defined]


def test_json_for_machines_has_no_nan() -> None:
    assert json.loads(json_text({"a": [float("nan"), 1.5, float("-inf")]}), parse_constant=pytest.fail) == {
        "a": [None, 1.5, None]
    }


def test_a_target_with_a_name_as_long_as_file_systems_take(static_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 125)
    sbertconv.to_onnx(static_folder, target)
    sbertconv.to_onnx(static_folder, target, overwrite=True)
    assert sbertconv.load(target).encode("a text").shape == (32,)
    assert list(tmp_path.iterdir()) == [target]


def test_messages_do_not_name_the_hidden_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught, stage(tmp_path / "out") as staging:
        raise ArtifactError(f"{staging.folder}/model.onnx: broken")
    assert str(caught.value) == f"{tmp_path / 'out'}/model.onnx: broken"


@pytest.fixture
def no_process() -> int:
    """The number of a process that is no more."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_killed_runs_leave_is_removed(no_process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch.scratch_folder() as mine:
        dead = tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{no_process}-")
        other_machine = tmp_path / f"sbertconv-00000000-{no_process}-abc"
        for folder in (dead, other_machine, tmp_path / "sbertconv-mine"):
            folder.mkdir()
            (folder / "file").write_text("a")
        with scratch.scratch_folder():
            assert sorted(path.name for path in tmp_path.iterdir() if path.name == dead.name) == []
            assert mine.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [other_machine.name, "sbertconv-mine"]


def test_a_half_written_output_of_a_killed_run_does_not_stay(
    no_process: int, static_artifact: Path, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    (tmp_path / f".out.npy.{no_process}-0a.partial").write_bytes(b"half")
    other = tmp_path / f".out.npy.{os.getppid()}-0a.partial"
    other.write_bytes(b"somebody writes it")
    assert cli("encode", static_artifact, "a text", "--output", tmp_path / "out.npy").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "out.npy"]


@pytest.mark.parametrize("stdout", ["closed", "broken"])
def test_an_output_that_nobody_reads_is_no_traceback(stdout: str, static_artifact: Path) -> None:
    code = "import os; os.close(1)" if stdout == "closed" else "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1)"
    start = (
        "import subprocess as s, sys; sys.exit(s.run([sys.executable, '-c', sys.argv[1], *sys.argv[2:]]).returncode)"
    )
    wrapped = f"import sys; {COMMAND_LINE}"
    ran = run_python(f"{code}; {start}", wrapped, "encode", static_artifact, "a text")
    assert "Traceback" not in ran.err
    assert (ran.code, ran.err) == (0, "") if stdout == "broken" else "The output is closed" in ran.err


@pytest.mark.parametrize(
    ("blocks", "said"), [(0, "Nothing was written"), (2, "Of the rows 2 are printed, the others are not")]
)
def test_an_interrupt_says_what_was_printed(
    blocks: int, said: str, static_artifact: Path, cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*rest: Any) -> Iterator[list[str]]:
        yield from [["a text"]] * blocks
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "blocks_of", stopped)
    ran = cli("encode", static_artifact, "a text")
    assert (ran.code, ran.err, len(ran.out.splitlines())) == (130, f"Interrupted. {said}.\n", blocks)


def test_an_interrupt_during_the_imports_is_quiet() -> None:
    stopping = (
        "import builtins, os, signal\nplain = builtins.__import__\n"
        "def stop(name, *rest, **more):\n"
        f"    if name == 'typer': os.kill(os.getpid(), {int(signal.SIGINT)})\n"
        "    return plain(name, *rest, **more)\n"
        f"builtins.__import__ = stop\n{COMMAND_LINE}"
    )
    ran = run_python(stopping, "engines")
    assert (ran.code, ran.out, ran.err) == (130, "", "Interrupted. Nothing was written.\n")


@pytest.mark.parametrize(
    ("command", "name", "code"),
    [
        ("encode", "SIGINT", 130),
        ("encode", "SIGTERM", 143),
        ("encode", "SIGHUP", 129),
        ("to_onnx", "SIGTERM", 143),
        ("to_st", "SIGTERM", 143),
    ],
)
def test_a_signal_leaves_nothing_behind(
    command: str, name: str, code: int, bert_folder: Path, static_artifact: Path, bert_keras: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a fox\n" * 100, encoding="utf-8")
    place, temporary = tmp_path / "place", tmp_path / "temporary"
    words, stop = {
        "to_onnx": (["to-onnx", bert_folder, place / "o"], "sbertconv.converters.writing.write_module_configs"),
        "encode": (
            ["encode", static_artifact, "--input", tmp_path / "texts.txt", "--output", place / "o.npy"],
            "sbertconv.runtime.graph.Graph.tensors",
        ),
        "to_st": (["to-st", bert_keras, place / "o"], "sbertconv.artifact.publishing.Staging.manifest"),
    }[command]
    place.mkdir()
    temporary.mkdir()
    code_of_stop = (
        "import os, pkgutil, signal, sys\nfrom unittest import mock\n"
        f"stop = lambda *rest, **more: os.kill(os.getpid(), signal.{name})\n"
        f"with mock.patch({stop!r}, stop):\n    {COMMAND_LINE}"
    )
    ran = run_python(code_of_stop, *words, env={"TMPDIR": str(temporary)})
    assert (ran.code, "Traceback" in ran.err) == (code, False), ran.err
    assert [*place.iterdir(), *temporary.iterdir()] == []


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_that_is_ignored_stays_so(name: str) -> None:
    ending = f"os.kill(os.getpid(), signal.{name})"
    code = f"import atexit, os, signal\nsignal.signal(signal.{name}, signal.SIG_IGN)\natexit.register(lambda: {ending})"
    assert run_python(f"{code}\n{COMMAND_LINE}", "engines").code == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
@pytest.mark.parametrize("words", [["--help"], ["encode", "--help"], ["engines"], ["--version"]])
def test_an_output_that_takes_nothing_is_one_error(words: list[str]) -> None:
    code = f"import os\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n{COMMAND_LINE}"
    ran = run_python(code, *words)
    assert (ran.code, "Traceback" in ran.err) == (1, False), ran.err
    assert "No space left on device" in ran.err


def test_an_interrupt_of_tables_says_what_stays(static_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "a fox"}\n', encoding="utf-8")
    code = (
        "import os, signal\nfrom unittest import mock\n"
        "stop = lambda *rest, **more: os.kill(os.getpid(), signal.SIGINT)\n"
        f"with mock.patch('sbertconv.tables.encoding.embed_tables', stop):\n    {COMMAND_LINE}"
    )
    ran = run_python(code, "encode", static_artifact, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert ran.code == 130
    assert "out keeps what is done: the same command goes on there." in ran.err


def test_an_error_of_the_engine_stands_in_its_message_alone(
    bert_artifact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = sbertconv.load(bert_artifact, engine="onnxruntime")
    tensors = model.tokenize(["a text"])
    for entry in model.graphs[0].section["inputs"]:
        entry.pop("below", None)
    with pytest.raises(ArtifactError, match="out of data bounds"):
        model.graphs[0].run({**tensors, "input_ids": tensors["input_ids"] + 10**6})
    assert capfd.readouterr() == ("", "")


SECTION = {
    "padding_side": "right", "tensors": ["input_ids"], "split_special_tokens": False, "add_special_tokens": True,
    "truncation_side": "right", "cut": "truncate",
}  # fmt: skip


def texts() -> Iterator[str]:
    """Texts with long stretches of one kind, and of all."""
    words = [word for line in tiny.LINES for word in line.split()]
    pieces = [*words, "  ", "\n", "\u200b" * 300, "," * 40, "x" * 200, "İΣς", "e\u0301" * 9, "<s>", "[MASK]", "a a a"]
    for seed in range(60):
        chosen = random.Random(seed)
        few = chosen.sample(pieces, chosen.randint(1, len(pieces)))
        yield chosen.choice(["", " "]).join(chosen.choice(few) for _ in range(chosen.randint(1, 400)))


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
@pytest.mark.parametrize(("cut", "side"), [("truncate", "right"), ("slice", "right"), ("truncate", "left")])
def test_a_very_long_text_has_the_tokens_of_the_whole(
    kind: str, cut: str, side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.json").write_text(tiny.backend_tokenizer(kind), encoding="utf-8")
    tokenizer = FastTokenizer({**SECTION, "cut": cut, "truncation_side": side}, tmp_path / "tokenizer.json")
    assert tokenizer._is_local
    given = list(texts())
    few = [text[:220] for text in given[::6]]  # the library takes the square of what two texts have beyond the limit
    pairs = [(text, other[:size]) for text in few for other in few[:3] for size in (30, 180)]
    pairs += [(second, first) for first, second in pairs]
    for asked, limit in ((given, 17), (given, 24), (given, 60), (pairs, 40), (pairs, 41)):
        expected = tokenizer.ids(asked, limit)
        with monkeypatch.context() as patch:
            patch.setattr(long_texts, "LONG", 60)
            patch.setattr(long_texts, "FIRST", 20)
            assert tokenizer.ids(asked, limit) == expected


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "text",
    ["word " * 2_000_000, ("a query", "word " * 2_000_000), ("word " * 500_000, "one " * 500_000)],
    ids=["text", "pair", "two"],
)
def test_little_of_a_very_long_text_is_tokenized(
    text: Any, side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.json").write_text(tiny.backend_tokenizer("wordpiece"), encoding="utf-8")
    tokenizer = FastTokenizer({**SECTION, "truncation_side": side}, tmp_path / "tokenizer.json")
    lengths: list[int] = []
    cut_at = tokenizer._cut_at

    class Counting:
        def __init__(self, backend: Any) -> None:
            self.backend = backend

        def encode_batch_fast(self, texts: list[Any], **options: Any) -> Any:
            lengths.extend(len(part) for text in texts for part in ((text,) if isinstance(text, str) else text))
            return self.backend.encode_batch_fast(texts, **options)

    monkeypatch.setattr(tokenizer, "_cut_at", lambda limit: Counting(cut_at(limit)))
    ((ids, _),) = tokenizer.ids([text], 48 + isinstance(text, tuple))  # an even number for both
    assert len(ids) == 48 + isinstance(text, tuple)
    assert sum(lengths) < 60_000


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}},
        {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}},
        {"added_tokens": [{"content": "two words"}]},
    ],
    ids=str,
)
def test_a_tokenizer_that_looks_further_reads_the_whole(change: dict[str, Any]) -> None:
    described = json.loads(Tokenizer.from_str(tiny.backend_tokenizer("wordpiece")).to_str())
    assert is_local(described)
    assert not is_local({**described, **change})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda folder: sbertconv.load(folder, threads="8"), r"threads='8' is str .have: a whole number, None"),
        (lambda folder: sbertconv.load(folder, parallel="2"), "parallel='2' is str"),
        (lambda folder: sbertconv.load(folder, part=1), "part=1 is int"),
        (lambda folder: sbertconv.load(folder, engine=8), r"engine=8 is int .have: text"),
        (lambda folder: sbertconv.load(folder, verify="yes"), "verify='yes' is str"),
        (
            lambda folder: sbertconv.load(folder, thread=1),
            r"thread=: load\(\) has no such option .have: folder,",
        ),
        (lambda folder: sbertconv.load(folder).encode("a", batch=1), r"batch=: encode\(\) has no such option"),
        (lambda folder: sbertconv.inspect(folder, xyz=1), r"xyz=: inspect\(\) has no such option"),
        (lambda folder: sbertconv.to_onnx(folder, on_stage=3), "on_stage=3 is no function"),
        (lambda folder: sbertconv.to_onnx(folder, registry=3), "registry=3 is no Registry"),
        (lambda folder: sbertconv.maxsim(3, 3), "int where vectors of tokens are due"),
        (lambda folder: sbertconv.maxsim_pairwise("a", "b"), "str where vectors of tokens are due"),
        (lambda folder: sbertconv.to_st(8), "8: no such file or folder"),
        (lambda folder: benchmark(folder, settings=3), "settings=3 is int"),
        (lambda folder: benchmark(folder, threads="x"), r"threads='x' is str .have: a whole number, None"),
        (lambda folder: benchmark(folder, 8), "artifacts=8 is int"),
        (lambda folder: Settings(rounds="x"), "rounds x is not possible"),
    ],
    ids=range(17),
)
def test_every_function_names_what_it_cannot_take(call: Any, said: str, static_artifact: Path) -> None:
    with pytest.raises(SbertconvError, match=said):
        call(static_artifact)


@pytest.mark.parametrize(("given", "found"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_of_a_command_leave_their_cores_while_they_wait(given: dict[str, str], found: str) -> None:
    code = "import atexit, os, sys, sbertconv; sys.argv = ['sbertconv', '--version']\n"
    code += "atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY'])); sbertconv.main()"
    assert run_python(code, env=given).out.split()[-1] == found
