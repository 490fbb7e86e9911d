"""Runs other software on converted folders and compares what it gives with encode(): `make test-clients`.

Each client is one file here with its requirements on top. It gets a folder, a JSON file with texts and a file to write
{"version": ..., "vectors": ...} to; "vectors" is a table of them where it runs several precisions. Its environment is
made from the package registries in build/clients, once: by uv, or by pip where uv cannot be had. With `base = true` it
sees, behind its own packages, the project and what that requires for development, so that torch is installed once. All
JavaScript has one environment. Folders are made from the real all-MiniLM-L6-v2 and tiny models. One thread makes
environments, another folders, and meanwhile the clients run that have theirs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build/clients"
BLOCK = re.compile(r"^(?P<mark>#|//) /// script\n(?P<body>(?:(?P=mark).*\n)+?)(?P=mark) ///$", re.M)
SCRIPTS = (".mjs", ".html")
SUFFIXES = (".py", ".c", *SCRIPTS)
THROUGH = {".c": "compiled.py", ".html": "browser.py"}  # what runs such a file
ATOL = 1e-5
ORDER = ("splade", "reranker", "colbert", "onnx", "int8", "javascript", "openvino", "text", "litert")  # of folders
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
# Large, and built for one another: not installed again where the project's own torch is seen.
BASE = ("torch", "torchvision")
NPM = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")
SLOW = 1200  # seconds


class SkippedError(Exception):
    """Why a client did not run."""


@dataclass(frozen=True)
class Client:
    """One file of this folder.

    Attributes:
        file: the file.
        dependencies: what pip or npm installs.
        folder: a name of `folders.FOLDERS`.
        consumer: the name of `sbertconv pack --for` that it proves, for that one's page.
        base: whether it sees the project and what that requires for development.
        over_limit: whether it is asked texts over the limit.
        nul: whether it is asked texts with a NUL in them.
        programs: what must be on the PATH.
        atol: the largest difference, or one for each precision.
    """

    file: Path
    dependencies: tuple[str, ...]
    folder: str
    consumer: str = ""
    base: bool = False
    over_limit: bool = True
    nul: bool = True
    programs: tuple[str, ...] = ()
    atol: float | Mapping[str, float] = ATOL

    @property
    def name(self) -> str:
        return self.file.stem.replace("_", "-")

    @property
    def script(self) -> bool:
        return self.file.suffix in SCRIPTS

    @property
    def environment(self) -> Path:
        """Clients with the same requirements share one."""
        said = json.dumps([self.dependencies, self.base, self.script, sys.version_info[:2]])
        first = re.split(r"[^\w-]", self.dependencies[0])[0] if not self.script else "javascript"
        return BUILD / f"{first}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"


def clients(own: bool = False) -> list[Client]:
    """Every client, those with slow folders last; own: JavaScript with its own packages alone."""
    found = []
    for file in sorted(HERE.iterdir()):
        match = BLOCK.search(file.read_text(encoding="utf-8")) if file.suffix in SUFFIXES else None
        if match:
            lines = [line.removeprefix(match["mark"]).removeprefix(" ") for line in match["body"].splitlines()]
            said = tomllib.loads("\n".join(lines))
            more = said["tool"]["client"]
            found.append(Client(file, tuple(said["dependencies"]), **more | tuples(more)))
    packages = tuple(sorted({name for client in found if client.script for name in client.dependencies}))
    found = [replace(client, dependencies=packages) if client.script and not own else client for client in found]
    return sorted(found, key=lambda client: (ORDER.index(client.folder), client.name))


def tuples(said: dict[str, object]) -> dict[str, object]:
    return {key: tuple(value) for key, value in said.items() if isinstance(value, list)}


def called(command: list[str], what: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program to its end; its output.

    Raises:
        RuntimeError: with the end of what it said, if it fails.
    """
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=SLOW, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{what}: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout


def command_of(client: Client) -> list[str]:
    """The command that runs it."""
    place = client.environment
    if client.script:  # modules are looked for from the file's own place
        shutil.copyfile(client.file, place / client.file.name)
    if client.file.suffix == ".mjs":
        return ["node", str(place / client.file.name)]
    through = [str(HERE / THROUGH[client.file.suffix])] if client.file.suffix in THROUGH else []
    python, file = (sys.executable, place / client.file.name) if client.script else (place / "bin/python", client.file)
    return [str(python), "-P", *through, str(file)]  # files here have names of packages


def installed(client: Client) -> None:
    """Make its environment.

    Raises:
        SkippedError: if a program or a package cannot be had.
    """
    for program in client.programs:
        if shutil.which(program) is None:
            raise SkippedError(f"{program} is not installed")
    place = client.environment
    if (place / "ready").is_file():
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        (install_npm if client.script else install_pip)(client, place)
    except RuntimeError as error:
        raise SkippedError(f"cannot be installed: {error}") from error
    (place / "ready").touch()


@cache
def uv() -> str | None:
    """A program that installs packages in a fraction of pip's time, or None where the registry has none."""
    place = BUILD / "uv"
    if not (place / "bin/uv").is_file():
        try:
            called([sys.executable, "-m", "venv", str(place)], "venv")
            called([str(place / "bin/python"), *PIP, "uv"], "pip")
        except RuntimeError:
            return None
    return str(place / "bin/uv")


def install_pip(client: Client, place: Path) -> None:
    python, program = str(place / "bin/python"), uv()
    called([sys.executable, "-m", "venv", *(["--without-pip"] if program else []), str(place)], "venv")
    if client.base:
        base, own = place / "base", called([python, "-c", PURELIB], "venv").strip()
        base.mkdir()
        for entry in entries("sbertconv[dev]"):
            (base / entry.name).symlink_to(entry)
        Path(own, "zz_base.pth").write_text(f"{base}\n", encoding="utf-8")
    if program is None:
        called([python, *PIP, *client.dependencies], "pip")
        return
    there = place / "there.txt"
    there.write_text("\n".join(BASE if client.base else ()), encoding="utf-8")
    options = ["--quiet", "--python", python, "--cache-dir", str(BUILD / "uv-cache"), "--excludes", str(there)]
    called([program, "pip", "install", *options, *client.dependencies], "uv")


def entries(requirement: str) -> set[Path]:
    """Files and folders of the site-packages that belong to a requirement and to what it requires itself.

    What else is installed there may need another version of a package than a client brings.
    """
    found: dict[tuple[str, str], set[Path]] = {}
    waiting = [Requirement(requirement)]
    while waiting:
        one = waiting.pop()
        for extra in ("", *one.extras):
            key = (canonicalize_name(one.name), extra)
            if key in found:
                continue
            found[key] = set()
            try:
                installed = distribution(one.name)
            except PackageNotFoundError:
                continue
            tops = {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}
            found[key] = {Path(str(installed.locate_file(top))).absolute() for top in tops}
            required = map(Requirement, installed.requires or ())
            waiting += [more for more in required if more.marker is None or more.marker.evaluate({"extra": extra})]
    return set().union(*found.values())


PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


def install_npm(client: Client, place: Path) -> None:
    (place / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    called(["npm", "install", *NPM, *client.dependencies], "npm", place)


def folder_of(name: str) -> Path:
    """A folder to read, with texts.json and expected.npy beside it."""
    place = BUILD / "folders" / name
    if not (place / "expected.npy").is_file():
        shutil.rmtree(place, ignore_errors=True)
        called([sys.executable, str(HERE / "folders.py"), name, str(place)], "convert", env=environment())
    return place


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": path, "CLIENTS_ROOT": str(ROOT)}


def run(client: Client, place: Path) -> tuple[str, dict[str, float]]:
    """The version that ran, and the largest difference of each precision.

    Raises:
        SkippedError: if it cannot run here.
        RuntimeError: if it fails.
    """
    texts = json.loads((place / "texts.json").read_text(encoding="utf-8"))
    expected = np.load(place / "expected.npy")
    kept = [
        index
        for index, text in enumerate(texts)
        if (client.over_limit or not text["over_limit"]) and (client.nul or "\0" not in text["text"])
    ]
    asked, answer = place / f"{client.name}.texts.json", place / f"{client.name}.answer.json"
    asked.write_text(json.dumps([texts[index]["text"] for index in kept]), encoding="utf-8")
    answer.unlink(missing_ok=True)
    env = environment() | ({} if client.base else {"PYTHONPATH": ""})
    called([*command_of(client), str(place / "folder"), str(asked), str(answer)], client.name, env=env)
    said = json.loads(answer.read_text(encoding="utf-8"))
    if "skipped" in said:
        raise SkippedError(said["skipped"])
    vectors, largest = said["vectors"], {}
    for precision, rows in (vectors if isinstance(vectors, dict) else {"": vectors}).items():
        found = np.array(rows, np.float64)
        if found.shape != expected[kept].shape:
            raise RuntimeError(f"{precision}: shape {found.shape} instead of {expected[kept].shape}")
        largest[precision] = float(np.abs(found - expected[kept]).max())
    return said["version"], largest


def started(chosen: Sequence[Client]) -> tuple[dict[Path, Future[None]], dict[str, Future[Path]]]:
    """Everything that the clients need, on its way: environment -> ready, folder -> its place."""
    environments: dict[Path, Future[None]] = {}
    folders: dict[str, Future[Path]] = {}
    installing, converting = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    for client in chosen:
        if client.environment not in environments:
            environments[client.environment] = installing.submit(installed, client)
        if client.folder not in folders:
            folders[client.folder] = converting.submit(folder_of, client.folder)
    for pool in (installing, converting):
        pool.shutdown(wait=False)
    return environments, folders


def result_of(client: Client, ready: Future[None], folder: Future[Path]) -> tuple[str, str, dict[str, float]]:
    """The outcome in words, the version and the differences."""
    try:
        ready.result()
        version, largest = run(client, folder.result())
    except SkippedError as reason:
        return f"SKIPPED: {reason}", "", {}
    except (RuntimeError, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as error:
        return f"FAILED: {error}", "", {}
    limits = client.atol if isinstance(client.atol, Mapping) else {"": client.atol}
    beyond = [f"{name}: the limit is {limit}" for name, limit in limits.items() if not largest[name] <= limit]
    return f"DIFFERS: {', '.join(beyond)}" if beyond else "ok", version, largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="clients to run; all if none is named")
    names = parser.parse_args().names
    known = clients()
    if unknown := set(names) - {client.name for client in known}:
        parser.error(f"{', '.join(sorted(unknown))}: not known (have: {', '.join(client.name for client in known)})")
    chosen = [client for client in known if not names or client.name in names]
    began, results = time.monotonic(), []
    environments, folders = started(chosen)
    print(f"{'client':28} {'version':14} {'folder':14} {'largest':>9} {'seconds':>8}  result", flush=True)
    for client in chosen:
        start = time.monotonic()
        result, version, largest = result_of(client, environments[client.environment], folders[client.folder])
        seconds = time.monotonic() - start
        for precision, diff in (largest or {"": None}).items():
            name, shown = f"{client.name} {precision}".strip(), "" if diff is None else f"{diff:.1e}"
            print(f"{name:28} {version:14} {client.folder:14} {shown:>9} {seconds:8.0f}  {result}", flush=True)
        results.append(result.partition(":")[0])
    passed, skipped = (results.count(word) for word in ("ok", "SKIPPED"))
    failed = len(results) - passed - skipped
    print(f"{passed} passed, {failed} failed, {skipped} skipped, {(time.monotonic() - began) / 60:.0f} minutes")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
