"""The package as an index shows it and as an installer takes it. What builds and installs runs under `make package`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import sbertconv

RELATIVE = re.compile(r"\]\((?!\w+://|#)")
EXTRAS = {
    "onnx",
    "tf",
    "torch",
    "parquet",
    "tables",
    "ray",
    "spark",
    "openvino",
    "tensorrt",
    "image",
    "sparse",
    "phrases",
}
EXTRAS |= {"demo", "all", "dev", "site", "hub", "langchain", "llama-index", "haystack", "genai"}


@pytest.fixture(scope="module")
def hook() -> Iterator[Any]:
    pytest.importorskip("hatchling")
    sys.path.insert(0, str(ROOT))
    try:
        import hatch_build

        yield hatch_build
    finally:
        sys.path.remove(str(ROOT))
        sys.modules.pop("hatch_build", None)


def test_links_of_the_readme_lead_somewhere_outside_of_the_repository(hook: Any) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(RELATIVE.findall(text)) > 30
    addresses = hook.with_absolute_links(text, "https://forge.example/sbertconv")
    assert not RELATIVE.search(addresses)
    assert "](https://forge.example/sbertconv/blob/main/docs/onnx.md)" in addresses
    plain = hook.with_absolute_links(text, "")
    assert not RELATIVE.search(plain)
    assert "docs/onnx.md" in plain


@pytest.mark.parametrize("repository", ["", "https://forge.example/sbertconv/"])
def test_the_addresses_are_made_of_one(repository: str, hook: Any) -> None:
    metadata: dict[str, Any] = {}
    hook.CustomMetadataHook(str(ROOT), {"repository": repository}).update(metadata)
    assert not RELATIVE.search(metadata["readme"]["text"])
    urls = metadata.get("urls", {})
    assert set(urls) == (set(hook.URLS) if repository else set())
    assert all(url.startswith("https://forge.example/sbertconv") and "//" not in url[8:] for url in urls.values())


def test_version_and_changes_are_one_story() -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    version, date = headings[1]
    assert version == sbertconv.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation
    assert f"\ndate-released: {date}\n" in citation


def test_the_project_says_who_and_what() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["authors"]
    assert set(project["optional-dependencies"]) == EXTRAS
    oldest = project["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {oldest}" in project["classifiers"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheel and sdist, built from this checkout."""
    pytest.importorskip("build")
    folder = Path(os.environ.get("DIST") or tmp_path_factory.mktemp("dist")).absolute()
    for old in (*folder.glob("*.whl"), *folder.glob("*.tar.gz")):
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


def run(*command: Any) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        return message_from_string(archive.read(name).decode())


@pytest.mark.package
def test_wheel_and_sdist_hold_what_they_should(built: Path) -> None:
    pytest.importorskip("twine")
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert "PASSED" in run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"sbertconv"}
    assert {"sbertconv/py.typed", "sbertconv/corpus/sentences.txt", "sbertconv/layers/aten.py"} <= set(names)
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CHANGELOG.md", "CITATION.cff", "hatch_build.py", "docs/onnx.md", "tests/tiny.py"} <= held
    metadata = metadata_of(wheel)
    assert (metadata["Version"], bool(metadata["Author"] or metadata["Author-email"])) == (sbertconv.__version__, True)
    assert set(metadata.get_all("Provides-Extra") or ()) == EXTRAS
    assert not RELATIVE.search(str(metadata.get_payload()))


# Extra -> what is run with it, words that are printed; a name in braces is a model, a converted folder or a file.
RUNS: dict[str, tuple[list[str], str]] = {
    "": (["encode", "{artifact}", "a text"], "["),
    "hub": (["inspect", "{artifact}"], "onnxruntime"),
    "onnx": (["to-onnx", "{model}", "made"], "Written to"),
    "openvino": (["encode", "{artifact}", "a text", "--engine", "openvino"], "["),
    "parquet": (["encode", "{artifact}", "--input", "{texts}", "--output", "made.parquet"], ""),
    "tables": (["encode", "{artifact}", "--input", "{texts}", "--output", "made/"], ""),
    "tf": (["to-tf", "{model}", "made", "--format", "keras"], "Written to"),
    "torch": (["to-torch", "{model}", "made"], "Written to"),
}
# The others, and who runs them.
RUN_ELSEWHERE = {
    "all": "the extras above together",
    "demo": "make demo",
    "dev": "make test",
    "genai": "make test-clients",
    "haystack": "make test-clients",
    "image": "tests/test_runtime.py",
    "langchain": "make test-clients",
    "llama-index": "make test-clients",
    "phrases": "tests/test_text.py",
    "ray": "tests/test_clusters.py",
    "site": "make site",
    "spark": "tests/test_clusters.py",
    "sparse": "tests/test_sparse.py",
    "tensorrt": "examples/tensorrt_check.py, with a GPU",
}


def test_every_extra_is_run_by_something() -> None:
    assert sorted([*filter(None, RUNS), *RUN_ELSEWHERE]) == sorted(EXTRAS)


@pytest.mark.package
@pytest.mark.parametrize("extra", RUNS)
def test_the_wheel_runs_in_a_fresh_environment(
    extra: str, built: Path, static_folder: Path, static_artifact: Path, tmp_path: Path
) -> None:
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "fresh", with_pip=True)
    programs = tmp_path / "fresh" / ("Scripts" if os.name == "nt" else "bin")
    wanted = f"{wheel}[{extra}]" if extra else wheel
    run(programs / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wanted)
    (tmp_path / "texts.txt").write_text("a text\nanother\n", encoding="utf-8")
    names = {"model": static_folder, "artifact": static_artifact, "texts": tmp_path / "texts.txt"}
    arguments, words = RUNS[extra]
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    outside["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    for asked, due in ((["--version"], sbertconv.__version__), ([part.format(**names) for part in arguments], words)):
        command = [str(programs / "sbertconv"), *asked]
        done = subprocess.run(command, env=outside, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (done.returncode, due in done.stdout) == (0, True), done.stderr
    shutil.rmtree(tmp_path / "fresh")  # some take gigabytes
