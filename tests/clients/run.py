"""Runs other software on converted folders and compares what it gives with encode(): `make test-clients`.

Each client is one file here with its requirements on top. It gets a folder, a JSON file with texts and a file to write
{"version": ..., "vectors": ...} to. Its environment is made from the package registries in build/clients, once; with
`base = true` it sees the project's own packages behind its own, so that torch is installed once. Folders are made from
the real all-MiniLM-L6-v2 and tiny models, each when first needed.
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
import sysconfig
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build/clients"
BLOCK = re.compile(r"^(?P<mark>#|//) /// script\n(?P<body>(?:(?P=mark).*\n)+?)(?P=mark) ///$", re.M)
SUFFIXES = (".py", ".mjs", ".c")
ATOL = 1e-5
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
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
        base: whether it sees the project's own packages too.
        over_limit: whether it is asked texts over the limit.
        nul: whether it is asked texts with a NUL in them.
        programs: what must be on the PATH.
        atol: the largest difference.
    """

    file: Path
    dependencies: tuple[str, ...]
    folder: str
    base: bool = False
    over_limit: bool = True
    nul: bool = True
    programs: tuple[str, ...] = ()
    atol: float = ATOL

    @property
    def name(self) -> str:
        return self.file.stem.replace("_", "-")

    @property
    def environment(self) -> Path:
        """Clients with the same requirements share one."""
        said = json.dumps([self.dependencies, self.base, self.file.suffix == ".mjs", sys.version_info[:2]])
        first = re.split(r"[^\w-]", self.dependencies[0].lstrip("@").replace("/", "-"))[0] if self.dependencies else "c"
        return BUILD / f"{first}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"


def clients() -> list[Client]:
    """Every client, in the order of the folders that they read."""
    found = []
    for file in sorted(HERE.iterdir()):
        match = BLOCK.search(file.read_text(encoding="utf-8")) if file.suffix in SUFFIXES else None
        if match:
            lines = [line.removeprefix(match["mark"]).removeprefix(" ") for line in match["body"].splitlines()]
            said = tomllib.loads("\n".join(lines))
            more = said["tool"]["client"]
            found.append(Client(file, tuple(said["dependencies"]), **more | tuples(more)))
    return sorted(found, key=lambda client: (client.folder, client.name))


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


def prepared(client: Client) -> list[str]:
    """The command that runs it, its environment made.

    Raises:
        SkippedError: if a program or a package cannot be had.
    """
    for program in client.programs:
        if shutil.which(program) is None:
            raise SkippedError(f"{program} is not installed")
    place = client.environment
    ready = place / "ready"
    if not ready.is_file():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            (install_npm if client.file.suffix == ".mjs" else install_pip)(client, place)
        except RuntimeError as error:
            raise SkippedError(f"cannot be installed: {error}") from error
        ready.touch()
    if client.file.suffix == ".mjs":
        shutil.copyfile(client.file, place / client.file.name)  # modules are looked for from the file's own place
        return ["node", str(place / client.file.name)]
    through = [str(HERE / "compiled.py")] if client.file.suffix == ".c" else []
    return [str(place / "bin/python"), "-P", *through, str(client.file)]  # files here have names of packages


def install_pip(client: Client, place: Path) -> None:
    called([sys.executable, "-m", "venv", str(place)], "venv")
    python = str(place / "bin/python")
    if client.base:
        base, own = sysconfig.get_path("purelib"), called([python, "-c", PURELIB], "venv").strip()
        Path(own, "zz_base.pth").write_text(f"import site; site.addsitedir({base!r})\n", encoding="utf-8")
    called([python, *PIP, *client.dependencies], "pip")


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


def run(client: Client) -> tuple[str, float]:
    """The version that ran, and the largest difference.

    Raises:
        SkippedError: if it cannot run here.
        RuntimeError: if it fails.
    """
    place = folder_of(client.folder)
    command = prepared(client)
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
    called(
        [*command, str(place / "folder"), str(asked), str(answer)],
        client.name,
        env=env,
    )
    said = json.loads(answer.read_text(encoding="utf-8"))
    if "skipped" in said:
        raise SkippedError(said["skipped"])
    found = np.array(said["vectors"], np.float64)
    if found.shape != expected[kept].shape:
        raise RuntimeError(f"shape {found.shape} instead of {expected[kept].shape}")
    return said["version"], float(np.abs(found - expected[kept]).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="clients to run; all if none is named")
    names = parser.parse_args().names
    known = clients()
    if unknown := set(names) - {client.name for client in known}:
        parser.error(f"{', '.join(sorted(unknown))}: not known (have: {', '.join(client.name for client in known)})")
    failed = skipped = passed = 0
    print(f"{'client':28} {'version':14} {'folder':14} {'largest':>9} {'seconds':>8}  result", flush=True)
    for client in known:
        if names and client.name not in names:
            continue
        start, version, diff, result = time.monotonic(), "", "", "ok"
        try:
            version, largest = run(client)
            diff, passed = f"{largest:.1e}", passed + 1
            if not largest <= client.atol:
                result, failed, passed = f"DIFFERS: the limit is {client.atol}", failed + 1, passed - 1
        except SkippedError as reason:
            result, skipped = f"SKIPPED: {reason}", skipped + 1
        except (RuntimeError, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as error:
            result, failed = f"FAILED: {error}", failed + 1
        seconds = time.monotonic() - start
        print(f"{client.name:28} {version:14} {client.folder:14} {diff:>9} {seconds:8.0f}  {result}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
