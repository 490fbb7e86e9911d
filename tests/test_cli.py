"""The command line as a user meets it: real processes, the real all-MiniLM-L6-v2, printed tables and snippets."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COMMAND, TEXTS, Ran, run_process, run_python
from rich.console import Console
from sentence_transformers import SentenceTransformer

import sbertconv
from sbertconv.console.printing import print_parity

CHECKS = ["tokens", "each text alone", "padded batch", "padded on the left"]


@pytest.fixture(scope="module")
def minilm(built_once: Any, minilm_folder: Path) -> tuple[Path, str]:
    """The folder that `sbertconv to-onnx <MiniLM>` makes in an empty current folder, and what it prints."""

    def build(folder: Path) -> None:
        folder.mkdir()
        ran = run_process(COMMAND, "to-onnx", minilm_folder, cwd=folder)
        assert (ran.code, ran.said) == (0, "")  # a line for each stage, and no warnings
        (folder / "printed.txt").write_text(ran.out, encoding="utf-8")

    folder = Path(built_once("minilm-cli", build))
    return folder / f"{minilm_folder.name}-onnx", (folder / "printed.txt").read_text(encoding="utf-8")


def test_the_default_folder_is_named_after_the_model(minilm: tuple[Path, str]) -> None:
    folder, _ = minilm
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "printed.txt"}
    assert (folder / "onnx/model.onnx").is_file()


def test_the_report_names_the_checks_the_files_and_the_sizes(minilm: tuple[Path, str]) -> None:
    folder, printed = minilm
    for check in CHECKS:
        (row,) = (line for line in printed.splitlines() if line.startswith(f"│ {check} "))
        assert " ok " in row
    assert "encode(), batch 1 / 32" in printed
    assert "Written to" in printed
    rows = [line for line in printed.splitlines() if "onnx/model.onnx" in line]
    assert any(" MiB " in row for row in rows)
    assert folder.name in printed


def test_the_printed_snippet_runs(minilm: tuple[Path, str], tmp_path: Path) -> None:
    folder, printed = minilm
    snippet = textwrap.dedent(printed.split("Run it:\n")[1])
    assert len(snippet.strip().splitlines()) == 5
    # the folder was moved to its shared place after it was written
    moved = snippet.replace(f"{folder.parent}.partial", str(folder.parent))
    ran = run_python(moved, cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("1.") >= 1
    assert "384" in snippet


def test_the_snippet_is_not_wrapped_in_a_narrow_terminal(static_artifact: Path, cli: Any, monkeypatch: Any) -> None:
    from sbertconv.console import printing as module

    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(module, "WIDTH", 30)
    artifact = sbertconv.load(static_artifact).artifact
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        module._print_artifact(artifact)
    assert module.snippet(artifact) in out.getvalue()


def test_minilm_equals_encode_and_keeps_its_own_limit(minilm: tuple[Path, str], minilm_folder: Path) -> None:
    """Its tokenizer.json says 128 tokens, sentence-transformers cuts at 256."""
    model = SentenceTransformer(str(minilm_folder), device="cpu")
    embedder = sbertconv.load(minilm[0], verify=True)
    texts = [*TEXTS, "word " * 200, "word " * 400]
    assert embedder.encode(texts) == pytest.approx(model.encode(texts), abs=1e-5)
    assert embedder.max_seq_length == 256
    assert np.abs(embedder.encode("word " * 140) - embedder.encode("word " * 126)).max() > 1e-4


def test_a_run_prints_json_for_machines(static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("to-onnx", static_folder, tmp_path / "out", "--json")
    assert (ran.code, ran.err) == (0, "")
    printed = json.loads(ran.out)
    assert printed == {"folder": str(tmp_path / "out"), **sbertconv.load(tmp_path / "out").artifact.manifest}


def test_a_failed_comparison_prints_json_for_machines(
    static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]
) -> None:
    ran = cli("to-onnx", static_folder, tmp_path / "model", "--json", "--atol", "0", "--rtol", "0")
    printed = json.loads(ran.out)
    assert (ran.code, printed["folder"], printed["parity"]["passed"]) == (3, None, False)
    assert any(check["max_abs_diff"] and not check["passed"] for check in printed["parity"]["checks"])
    assert not (tmp_path / "model").exists()


def test_options_reach_the_graph(static_folder: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    options = ["--opset", "20", "--external-data", "--no-optimize", "--atol", "1e-4", "--rtol", "0", "--json"]
    ran = cli("to-onnx", static_folder, tmp_path / "out", *options)
    assert (ran.code, ran.err) == (0, "")
    manifest = json.loads(ran.out)
    assert (manifest["opset"], manifest["optimized"]) == (20, False)
    assert manifest["parity"]["rule"] == "|a - b| <= 1e-04 + 0e+00 |b|"
    assert manifest["graphs"][0]["data"] == ["onnx/model.onnx_data"]
    assert (tmp_path / "out/onnx/model.onnx_data").stat().st_size > 10_000


def test_outputs_are_repeatable_and_ordered(bert_folder: Path, tmp_path: Path, cli: Callable[..., Ran]) -> None:
    outputs = ["--output", "token_embeddings", "--output", "sentence_embedding"]
    ran = cli("to-onnx", bert_folder, tmp_path / "out", "--no-token-type-ids", "--json", *outputs)
    assert (ran.code, ran.err) == (0, "")
    (graph,) = json.loads(ran.out)["graphs"]
    assert [tensor["name"] for tensor in graph["outputs"]] == ["token_embeddings", "sentence_embedding"]
    assert [tensor["name"] for tensor in graph["inputs"]] == ["input_ids", "attention_mask"]
    assert json.loads(ran.out)["embedding_dimension"] == 16  # that of the sentence embedding


def test_verify_agrees_with_its_own_model(static_folder: Path, static_artifact: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("verify", static_folder, static_artifact)
    assert (ran.code, ran.said) == (0, "")
    assert all(check in ran.out for check in ("tokens", "each text alone", "padded batch", "prompt query"))
    assert "FAILED" not in ran.out


def test_verify_tells_another_model_in_a_real_process(static_artifact: Path, bert_folder: Path, tmp_path: Path) -> None:
    """Other weights, another dimension, another tokenizer."""
    ran = run_process(COMMAND, "verify", bert_folder, static_artifact, "--json", cwd=tmp_path)
    assert ran.code == 3
    assert "Traceback" not in ran.err
    report = json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["passed"] is False
    assert any(check["max_abs_diff"] is None and "instead of" in check["problem"] for check in report["checks"])


def test_a_difference_that_is_no_number_is_printed(static_artifact: Path, bert_folder: Path, cli: Any) -> None:
    ran = cli("verify", bert_folder, static_artifact)
    assert (ran.code, "--overwrite" in ran.err) == (3, True)
    (row,) = (line for line in ran.out.splitlines() if line.startswith("│ each text alone "))
    assert [cell.strip() for cell in row.split("│")][3] == "-"
    assert "each text alone: float32 (32,) instead of float32 (16,)" in ran.out.splitlines()


def test_verify_tells_other_weights(static_folder: Path, static_artifact: Path, cli: Callable[..., Ran]) -> None:
    other = SentenceTransformer(str(static_folder), device="cpu")
    other[0].embedding.weight.data[17:] *= 1.001
    report = sbertconv.verify(other, static_artifact)
    assert not report.passed
    assert report.worst.max_abs_diff > 1e-5
    assert sbertconv.verify(other, static_artifact, atol=0.1).passed


def test_inspect_prints_the_chain(minilm_folder: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("inspect", minilm_folder)
    assert (ran.code, ran.said) == (0, "")
    assert all(words in ran.out for words in ("Transformer", "Pooling", "Normalize", "convert_pooling"))
    for line in ("architecture: bert", "tokenizer: WordPiece", "embedding dimension: 384", "max seq length: 256"):
        assert line in ran.out.splitlines()


def test_inspect_prints_json_for_machines(bert_folder: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("inspect", bert_folder, "--json")
    assert (ran.code, ran.said) == (0, "")
    assert json.loads(ran.out) == json.loads(json.dumps(sbertconv.inspect(bert_folder)))


def test_inspect_says_what_stands_in_the_way(bert_folder: Path, copy_of: Any, cli: Callable[..., Ran]) -> None:
    folder = copy_of(bert_folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.Whitening"
    modules[2]["type"] = "acme.nn.Layer"
    (folder / "modules.json").write_text(json.dumps(modules))
    ran = cli("inspect", folder, "--json")
    assert ran.code == 0
    problems = [module["backends"]["onnx"]["problem"] for module in json.loads(ran.out)["modules"]]
    assert [bool(problem) for problem in problems] == [False, True, True, False]
    assert "Whitening" in problems[1]
    assert "acme.nn.Layer" in problems[2]
    lines = cli("inspect", folder).out.splitlines()
    assert sum("unsupported" in line for line in lines if line.startswith("│")) == 2
    assert f"[2] Layer: {problems[2]}" in lines


@pytest.mark.parametrize(
    ("settings", "printed"),
    [({"out_features": 8}, "8"), ({"by": 0.25, "embedding": 3}, "unknown until loaded")],
    ids=str,
)
def test_the_dimension_of_a_foreign_module_is_not_guessed(
    settings: dict[str, Any], printed: str, bert_folder: Path, copy_of: Any, cli: Callable[..., Ran]
) -> None:
    folder = copy_of(bert_folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[3] = {**modules[3], "type": "acme.nn.Layer", "path": "3_Layer"}
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "3_Layer").mkdir()
    (folder / "3_Layer/config.json").write_text(json.dumps(settings))
    assert f"embedding dimension: {printed}" in cli("inspect", folder).out.splitlines()


def test_encode_prints_one_json_line_per_text(static_artifact: Path, tmp_path: Path) -> None:
    ran = run_process(COMMAND, "encode", static_artifact, *TEXTS, cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    found = np.array([json.loads(line) for line in ran.out.splitlines()])
    assert found == pytest.approx(sbertconv.load(static_artifact).encode(TEXTS), abs=1e-6)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_an_output_that_is_full_is_said_without_a_traceback(static_artifact: Path) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [COMMAND, "encode", static_artifact, *TEXTS], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (
        1, "The output: cannot be read or written: No space left on device."
    )  # fmt: skip
    assert len(ran.stderr.splitlines()) == 2


def test_encode_imports_no_torch(static_artifact: Path) -> None:
    code = (
        "import sys\nfrom sbertconv.cli import main\ntry:\n    main()\nexcept SystemExit as exit_:\n"
        "    heavy = {'torch', 'transformers', 'sentence_transformers', 'onnx', 'tensorflow', 'keras'}\n"
        "    print(exit_.code, sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ran = run_python(code, "encode", static_artifact, "a text")
    assert ran.err in ("0 []\n", "None []\n")


def test_ctrl_c_ends_without_a_traceback(static_folder: Path, tmp_path: Path, cli: Any, monkeypatch: Any) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sbertconv.parity.comparison.compare", interrupt)
    ran = cli("to-onnx", static_folder, tmp_path / "out")
    assert ran.code == 130
    assert "Nothing was written" in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["機械学習モデルは文章をベクトルに変換します。", "a" * 500])
def test_a_check_is_one_line_of_the_table(text: str) -> None:
    check = {
        "name": "saved_model: padded on the left", "texts": 20, "max_abs_diff": 3e-7, "worst_text": text,
        "worst_tokens": 24, "min_cosine": 1.0, "dtype": "float32", "passed": True, "problem": None,
    }  # fmt: skip
    report = {
        "method": "encode", "rule": "the rule", "checks": [check], "wobble": 2e-7, "wobble_text": text, "quality": [],
        "notes": [], "passed": True,
    }  # fmt: skip
    console = Console(width=120, record=True, file=io.StringIO())
    print_parity(report, console)
    assert len(console.export_text().splitlines()) == 8  # a title, a head of three, two rows, a rule between, a foot
