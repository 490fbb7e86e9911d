"""Strings to embeddings outside of Python: the real all-MiniLM-L6-v2 in Node.js, and in a page in Chromium.

Each is skipped, and says so, where node or chromium is missing. Their packages are looked for in the folders of
NODE_PATH, else installed with npm into build/clients, once. About 40 s, half of it the conversion.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from filelock import FileLock

import sbertconv

TEXTS = ["The quick brown fox.", "", "Ünïcödé, 機械学習 [SEP] typed 👩‍👩‍👧", "a " * 200]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NODE = """
const ort = require("onnxruntime-node");
const [model, texts] = [process.argv[2], JSON.parse(process.argv[3])];
ort.InferenceSession.create(model).then(async (session) => {
  const { sentence_embedding } = await session.run({ text: new ort.Tensor("string", texts, [texts.length]) });
  console.log(JSON.stringify(Array.from(sentence_embedding.data)));
});
"""
PAGE = """<!doctype html><script type="module">
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
async function run() {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", location.href).href;
  const texts = await (await fetch("./texts.json")).json();
  const session = await ort.InferenceSession.create("./model.onnx", { executionProviders: ["wasm"] });
  const { sentence_embedding } = await session.run({ text: new ort.Tensor("string", texts, [texts.length]) });
  return Array.from(sentence_embedding.data);
}
const answer = await run().catch((error) => String(error.stack ?? error));
await fetch("./answer", { method: "POST", body: JSON.stringify(answer) });
</script>"""


def node_modules(package: str) -> Path:
    """The folder that has the package, which npm may have to fill first; where that fails the test is skipped."""
    for folder in map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep))):
        if (folder / package).is_dir():
            return folder
    folder, npm = ROOT / "build/clients", program("npm")
    wanted = (ROOT / "examples/javascript/package.json").read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        installed = folder / "installed.json"  # is written when all is there
        if not installed.is_file() or installed.read_text(encoding="utf-8") != wanted:
            (folder / "package.json").write_text(wanted, encoding="utf-8")
            options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
            try:
                done = subprocess.run(
                    [npm, "install", *options], cwd=folder, capture_output=True, text=True, timeout=120, check=False
                )
            except subprocess.TimeoutExpired:
                pytest.skip("npm install took more than two minutes")
            if done.returncode:
                pytest.skip(f"npm install failed: {done.stderr[-300:]}")
            installed.write_text(wanted, encoding="utf-8")
    return folder / "node_modules"


def program(*names: str) -> str:
    """The path of the first of these programs; without any the test is skipped."""
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.skip(f"{' or '.join(names)} is not installed")


@pytest.fixture(scope="module")
def minilm(built_once: Any, minilm_folder: Path) -> Path:
    """The real model with its tokenizer inside the graph, proven as every conversion proves it."""
    return Path(built_once("minilm-text", lambda folder: sbertconv.to_onnx(minilm_folder, folder, text_input=True)))


@pytest.fixture(scope="module")
def vectors(minilm_folder: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    found: np.ndarray = SentenceTransformer(str(minilm_folder), device="cpu").encode(TEXTS)
    return found


def assert_same(found: Any, vectors: np.ndarray) -> None:
    assert isinstance(found, list), found
    np.testing.assert_allclose(np.array(found).reshape(vectors.shape), vectors, atol=1e-5)


def test_the_real_model_is_proven_and_small(minilm: Path) -> None:
    (graph,) = sbertconv.load(minilm).artifact.manifest["graphs"]
    assert graph["text"]["fuzz"] == 20_000
    assert graph["text"]["bytes"] < 4e6


def test_node_gives_the_same_vectors(minilm: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    node, modules = program("node"), node_modules("onnxruntime-node")
    script = tmp_path / "embed.cjs"
    script.write_text(NODE, encoding="utf-8")
    done = subprocess.run(
        [node, str(script), str(minilm / "onnx/model.onnx"), json.dumps(TEXTS)],
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_same(json.loads(done.stdout), vectors)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what is posted."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def __init__(self, *arguments: Any, answers: queue.Queue[Any], **options: Any) -> None:
        self.answers = answers
        super().__init__(*arguments, **options)

    def do_POST(self) -> None:
        self.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        return None


@pytest.fixture
def site(minilm: Path, tmp_path: Path) -> Iterator[tuple[str, queue.Queue[Any]]]:
    """The address of a page with the model, and what it answers."""
    program(*BROWSERS)
    (tmp_path / "node_modules").symlink_to(node_modules("onnxruntime-web"))
    (tmp_path / "model.onnx").symlink_to(minilm / "onnx/model.onnx")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    (tmp_path / "index.html").write_text(PAGE, encoding="utf-8")
    answers: queue.Queue[Any] = queue.Queue()
    handler = functools.partial(Handler, answers=answers, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html", answers
        server.shutdown()
        thread.join()


def test_a_page_gives_the_same_vectors(site: tuple[str, queue.Queue[Any]], vectors: np.ndarray, tmp_path: Path) -> None:
    address, answers = site
    browser = program(*BROWSERS)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    log = tmp_path / "browser.log"
    with log.open("wb") as errors:
        process = subprocess.Popen([browser, *options, address], stdout=errors, stderr=errors)
        try:
            found = answers.get(timeout=300)
        except queue.Empty:
            pytest.fail(f"no answer from the page: {log.read_text(errors='replace')[-2000:]}")
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert_same(found, vectors)
