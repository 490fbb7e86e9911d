"""`sbertconv bench`: who takes part, what is written, and what is refused. Nothing here depends on a speed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran

from sbertconv.artifact.folder import read_artifact
from sbertconv.benchmark import QUICK, Settings, benchmark, html_page
from sbertconv.benchmark.contestants import BASELINE, Contestant, Worker, contestants_of, disk_size, told_apart
from sbertconv.benchmark.measuring import alternate, mixed_texts, texts_of
from sbertconv.benchmark.page import scale
from sbertconv.benchmark.report import QUANTITIES, BenchReport, Cell, cell, figures
from sbertconv.errors import ArtifactError, SourceError, UnsupportedOptionError

NAMES = [BASELINE, "ONNX Runtime fp32"]


@pytest.fixture(scope="module")
def written(built_once: Any, bert_folder: Path, bert_artifact: Path) -> dict[str, Path]:
    """What one run of the command leaves behind, and what it printed."""
    import contextlib
    import io

    from sbertconv.cli import app

    def build(folder: Path) -> None:
        folder.mkdir()
        out = io.StringIO()
        options = {"--json-file": "json", "--html": "html", "--markdown": "markdown"}
        files = {option: str(folder / f"report.{kind}") for option, kind in options.items()}
        arguments = ["--quick", "--threads", "1", *(part for item in files.items() for part in item)]
        with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))  # whatever runs beside the tests
            app(["bench", str(bert_folder), str(bert_artifact), *arguments], standalone_mode=False)
        (folder / "report.txt").write_text(out.getvalue(), encoding="utf-8")

    folder = Path(built_once("bench", build))
    return {kind: folder / f"report.{kind}" for kind in ("json", "html", "markdown", "txt")}


@pytest.fixture(scope="module")
def content(written: dict[str, Path]) -> dict[str, Any]:
    return dict(json.loads(written["json"].read_text(encoding="utf-8")))


def test_the_tables_name_every_contestant(written: dict[str, Path]) -> None:
    for kind in ("txt", "markdown"):
        printed = written[kind].read_text(encoding="utf-8")
        for title in ("Texts per second by length and batch size", "Latency by length, median"):
            table = printed.split(title)[1]
            assert all(name in table for name in NAMES)
        assert all(quantity.name in printed for quantity in QUANTITIES.values())
    assert "Written to" in written["txt"].read_text(encoding="utf-8")


def test_the_json_holds_every_figure_and_its_ratio(content: dict[str, Any]) -> None:
    assert [contestant["name"] for contestant in content["contestants"]] == NAMES
    cells = {(length, batch) for length in QUICK.lengths for batch in QUICK.batch_sizes}
    once, mixed = {(None, None)}, (None, max(QUICK.batch_sizes))
    places = {
        ("texts_per_second", "tokens_per_second", "share_of_limit"): cells | {mixed},
        ("latency_p50", "latency_p95"): {(length, 1) for length in QUICK.lengths},
        ("first_embedding", "peak_memory", "size_on_disk", "min_cosine"): once,
    }
    expected = {quantity: place for quantities, place in places.items() for quantity in quantities}
    for name in NAMES:
        mine = [figure for figure in content["figures"] if figure["contestant"] == name]
        found: dict[str, set[Any]] = {}
        for figure in mine:
            found.setdefault(figure["quantity"], set()).add((figure["length"], figure["batch_size"]))
            assert figure["value"] > 0
            assert figure["unit"] == QUANTITIES[figure["quantity"]].unit
            assert (figure["ratio"] is not None) == QUANTITIES[figure["quantity"]].has_ratio
            if name == BASELINE:
                assert figure["ratio"] in (None, 1.0)
        assert found == expected
    assert content["threads"] == 1
    assert content["limit"] > 0


def test_the_quality_is_that_of_the_conversion(content: dict[str, Any]) -> None:
    cosines = [figure["value"] for figure in content["figures"] if figure["quantity"] == "min_cosine"]
    assert cosines == pytest.approx([1, 1], abs=1e-6)


def test_operations_are_counted_with_attention(content: dict[str, Any], bert_folder: Path) -> None:
    """Two products of [tokens, tokens, hidden] in every layer grow with the square of the length."""
    config = json.loads(next(bert_folder.rglob("config.json")).read_text(encoding="utf-8"))
    square, per_token, _ = content["flops"]
    assert square == pytest.approx(4 * config["num_hidden_layers"] * config["hidden_size"])
    assert per_token > square


class Page(HTMLParser):
    """The tags of a page that balance, and every address that it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [f"{name}={value}" for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "rect", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("rect", "line", "circle", "polyline"):
            return
        assert self.open.pop() == tag


def test_the_page_is_self_contained(written: dict[str, Path]) -> None:
    text = written["html"].read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.loads == []
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert not re.search(r"https?://|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert all(name in text for name in NAMES)


def test_names_cannot_break_the_page() -> None:
    name = "<script>&"
    found = [
        *figures("texts_per_second", [name], [[1.0]], batch_size=1),
        *figures("tokens_per_second", [name], [[1.0]], batch_size=1),
        *figures("share_of_limit", [name], [[0.0]], batch_size=1),
        *figures("latency_p50", [name], [[1.0]], length=8, batch_size=1),
        *figures("latency_p95", [name], [[1.0]], length=8, batch_size=1),
        *(figure for quantity in ("first_embedding", "peak_memory", "size_on_disk", "min_cosine")
          for figure in figures(quantity, [name], [[1.0]])),
    ]  # fmt: skip
    machine = {"date": "", "cpu": name, "cores": 1, "memory_gib": None, "load": None, "versions": {}}
    settings = {"rounds": 1, "batch_sizes": (1,), "texts": 1, "mean_tokens": 8}
    report = BenchReport(name, machine, 1, 1.0, (0.0,), settings, ({"name": name},), tuple(found))
    assert "<script" not in html_page(report)
    assert name in report.to_markdown()


def test_an_artifact_of_another_model_is_refused(bert_folder: Path, static_artifact: Path) -> None:
    with pytest.raises(ArtifactError, match=r"(?s)dimensions.*another model.*\nGive the folder"):
        benchmark(bert_folder, [static_artifact], settings=QUICK, threads=1)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["{model}", "missing"], "missing: no such folder", 1),
        (["missing"], "missing: no such folder", 1),
        (["{model}", "--html", "missing/report.html"], "missing/report.html: cannot be written: No such file", 1),
        (["{model}", "--json-file", ""], "'.': cannot be written: no name of a file", 1),
        (["{model}", "--markdown", ".."], "'..': cannot be written: no name of a file", 1),
        (["{model}", "--html", "{model}"], "cannot be written: it is a folder", 1),
        (["{model}", "--html", "report", "--markdown", "./report"], "report: named for two outputs", 1),
        (["{model}", "--lengths", "8,none"], "not positive integers", 2),
        (["{model}", "--batch-sizes", "0"], "not positive integers", 2),
        (["{model}", "--threads", "100000"], "threads 100000 is not possible", 1),
    ],
)
def test_mistakes_are_refused_before_anything_runs(
    arguments: list[str], message: str, code: int, bert_folder: Path, cli: Callable[..., Ran], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sbertconv.benchmark.running.Worker", lambda *_: pytest.fail("something ran"))
    ran = cli("bench", *(argument.format(model=bert_folder) for argument in arguments))
    assert ran.code == code
    assert message in " ".join(ran.err.split())
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_says_why(static_artifact: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(static_artifact)
    graph = folder / "onnx/model.onnx"
    graph.write_bytes(bytes(graph.stat().st_size))
    (contestant,) = contestants_of([folder], 1)
    with pytest.raises(ArtifactError, match=r"(?s)ONNX Runtime fp32.*'load' with exit code 1.*onnxruntime.*\nMend"):
        Worker(contestant, 1)


def test_a_killed_worker_is_reported() -> None:
    with Worker(None, 1) as worker:
        worker._process.kill()
        with pytest.raises(SourceError, match=r"the machine's limit.*SIGKILL"):
            worker.ask("peak_memory")


def test_what_libraries_print_does_not_come_between_the_answers(tmp_path: Path) -> None:
    with Worker(None, 1) as worker:
        assert worker.ask("peak_memory") > 2**20
        with pytest.raises(SourceError, match=r"'dance' is no command \(have: load"):
            worker.ask("dance")


def test_every_format_of_a_folder_takes_part(static_artifact: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(static_artifact)
    path = folder / "sbertconv.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    (graph,) = manifest["graphs"]
    graph["formats"] = {**graph["formats"], "keras": "keras/model.keras", "saved_model": "saved_model/saved_model.pb"}
    manifest["engines"] |= {"keras": ["keras"], "saved_model": ["tensorflow"]}
    manifest["files"]["keras/model.keras"] = {"size": 1000, "sha256": "0" * 64}
    manifest["files"]["saved_model/variables/variables.index"] = {"size": 300, "sha256": "0" * 64}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    every = [one.name.removesuffix(" fp32") for one in contestants_of([folder], 2)]
    assert every == ["ONNX Runtime", "ONNX Runtime parallel", "Keras", "Keras/XLA", "SavedModel"]
    alone = [one.name.removesuffix(" fp32") for one in contestants_of([folder], 1)]
    assert alone == [name for name in every if "parallel" not in name]
    artifact = read_artifact(folder)
    shared = disk_size(folder, artifact, "keras") - 1000
    assert disk_size(folder, artifact, "saved_model") == shared + 300
    everything = sum(file["size"] for file in manifest["files"].values())
    assert disk_size(folder, artifact, "onnx") == everything - 1300


def test_names_are_told_apart() -> None:
    paths = ["a/x", "b/x", "b/y"]
    names = [one.name for one in told_apart([Contestant("ONNX", path, int, "onnx") for path in paths])]
    assert names == ["ONNX · x · a/x", "ONNX · x · b/x", "ONNX · y"]


def test_everyone_begins_a_round_in_turn() -> None:
    order: list[str] = []
    found = list(alternate(3, *(lambda name=name: order.append(name) or name for name in "abc")))
    assert found == [("a", "b", "c")] * 3
    assert "".join(order) == "abcbcacab"


def test_texts_have_as_many_tokens_as_asked() -> None:
    assert mixed_texts(20) == mixed_texts(20)
    texts = texts_of(12, 5, lambda text: len(text.split()) + 2)
    assert [len(text.split()) for text in texts] == [10] * 5
    assert len(set(texts)) == 5


def test_few_texts_are_padded_as_much_as_a_thousand() -> None:
    """A ratio to encode() would else be that of its padding."""

    def padded(count: int) -> float:
        lengths = sorted((len(text) for text in mixed_texts(count)), reverse=True)
        batches = [lengths[start : start + 32] for start in range(0, count, 32)]
        return sum(len(batch) * max(batch) for batch in batches) / sum(lengths)

    assert padded(64) == pytest.approx(padded(1000), rel=0.1)


@pytest.mark.parametrize(("largest", "axis"), [(0, (1, 0.2)), (9, (10, 2)), (17, (20, 5)), (1000, (1000, 200))])
def test_axes_end_at_a_round_number(largest: float, axis: tuple[float, float]) -> None:
    assert scale(largest) == pytest.approx(axis)


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    _, found = figures("texts_per_second", ["a", "b"], [[1, 2], [10, 30], [5, 5]])
    assert (found.value, found.ratio, found.rounds) == (5, 2, (2, 30, 5))
    _, without = figures("latency_p50", ["a", "b"], [[0, 2]])
    assert without.ratio is None


@pytest.mark.parametrize("options", [{"rounds": 0}, {"lengths": ()}, {"batch_sizes": (8, 0)}])
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOptionError, match=next(iter(options))):
        Settings(**options)


def test_a_ratio_is_told_in_words_with_its_spread_from_three_rounds_on() -> None:
    _, three = figures("texts_per_second", ["a", "b"], [[1, 2], [10, 23], [5, 10.5]])
    assert cell(three) == Cell("10.5 /s", "2.1 times as fast (2.0 to 2.3)")
    _, slower = figures("latency_p50", ["a", "b"], [[10, 3], [10, 3.4], [10, 3.6]])
    assert cell(slower).ratio == "0.34 times as long (0.30 to 0.36)"
    first, two = figures("texts_per_second", ["a", "b"], [[1, 2], [10, 558.4]])
    assert (cell(first).ratio, cell(two).ratio) == ("", "")
    first, once = figures("size_on_disk", ["a", "b"], [[100, 25]])
    assert (cell(first).ratio, cell(once).ratio) == ("", "0.25 times as large")


def page_of(rounds: int, load: float = 0.0) -> str:
    """The page of a run with two lengths and two batch sizes, whose rounds differ."""
    names, values = [BASELINE, "ONNX Runtime parallel fp32"], [[1.0, 2.0 + turn] for turn in range(rounds)]
    mixed = [{"batch_size": 8}]
    grid = [{"length": length, "batch_size": size} for length in (8, 64) for size in (1, 8)]
    single = [place for place in grid if place["batch_size"] == 1]
    by_batch = ("texts_per_second", "tokens_per_second", "share_of_limit")
    places: dict[str, list[dict[str, int]]] = {
        **dict.fromkeys(by_batch, mixed + grid), "latency_p50": single, "latency_p95": single,
    }  # fmt: skip
    found = [
        figure
        for name, quantity in QUANTITIES.items()
        for place in places.get(name, [{}])
        for figure in figures(name, names, values[:1] if quantity.once else values, **place)
    ]
    machine = {"date": "2026-01-01", "cpu": "a CPU", "cores": 1, "memory_gib": 4, "load": load, "versions": {}}
    settings = {"rounds": rounds, "batch_sizes": (1, 8), "texts": 1, "mean_tokens": 8}
    contestants = tuple({"name": name} for name in names)
    return html_page(BenchReport("m", machine, 1, 1.0, (0.0,), settings, contestants, tuple(found)))


def test_a_busy_machine_tells_no_ratio_of_times_and_says_why() -> None:
    page = page_of(3, load=0.9)
    assert "The machine was busy (load 0.9 at the start)" in page
    assert ("times as fast" in page, "times as long" in page, "beside PyTorch" in page) == (False, False, False)
    assert ("times as large" in page, "times as much" in page) == (True, True)
    quiet = page_of(3, load=0.4)
    assert ("was busy" in quiet, "times as fast" in quiet) == (False, True)


def test_curves_have_the_spread_of_the_rounds() -> None:
    curves = re.findall(r'<svg class="lines".*?</svg>', page_of(3))
    assert len(curves) == 6
    assert all(curve.count('<line class="spread"') == 2 for curve in curves)  # PyTorch's rounds are all alike
    assert '<line class="spread"' not in page_of(2)


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_page_tells_ratios_of_times_from_three_rounds_on(rounds: int) -> None:
    page = page_of(rounds)
    told = rounds >= 3
    assert ("times as fast" in page, "Throughput beside PyTorch" in page) == (told, told)
    assert ('<line class="spread"' in page, "times as large" in page) == (told, True)
    parser = Page()
    parser.feed(page)
    assert parser.open == []


def test_every_cell_has_its_name_on_a_phone() -> None:
    page = page_of(3)
    assert page.count("<td data-name=") == page.count("<td")
    for quantity in QUANTITIES.values():
        assert f'data-name="{quantity.name}"' in page
    narrow = page.partition("@media (max-width: 640px)")[2].partition("</style>")[0]
    assert "attr(data-name)" in narrow
