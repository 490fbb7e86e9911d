"""Nobody is told: no command and no engine asks for an address, and no file appears beside what was asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, run_python, snapshot

STRACE = shutil.which("strace")
WATCHES = (
    STRACE is not None and not subprocess.run([STRACE, "-qq", "true"], capture_output=True, check=False).returncode
)
needs_strace = pytest.mark.skipif(not WATCHES, reason="strace is missing, or may not trace: nothing is watched")
ADDRESS = re.compile(r"sa_family=AF_INET6?|sin6?_addr")
MADE = re.compile(r'(?:openat\([^,]+|creat\(|open\(), "([^"]+)", [^)]*O_CREAT')
RECORDS = ".cache/sbertconv/conversions.json"  # the one file that docs/privacy.md names
RUN = "import sys, sbertconv; print(sbertconv.load(sys.argv[1], engine=sys.argv[2]).encode(['a text']).shape)"


def watched(command: list[str], folder: Path) -> tuple[list[str], list[str]]:
    """The system calls with an address, and the files that were made, of a command and all it starts; its home and its
    folder for temporary files are in `folder`.
    """
    home, scratch, log = folder / "home", folder / "tmp", folder / "strace.log"
    home.mkdir()
    scratch.mkdir()
    given = {**os.environ, "HOME": str(home), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    given.pop("ORT_DISABLE_TELEMETRY", None)
    given.pop("XDG_CACHE_HOME", None)
    assert STRACE
    traced = [STRACE, "-f", "-qq", "-e", "trace=%network,openat,creat", "-o", str(log), *command]
    done = subprocess.run(traced, env=given, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.err
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    made = [match[1] for line in lines if (match := MADE.search(line)) and "= -1" not in line]
    found = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    assert set(found) <= {RECORDS}, "files in the home folder"
    return [line for line in lines if ADDRESS.search(line)], made


@needs_strace
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_running_a_folder_asks_for_no_address_and_makes_no_file(
    engine: str, static_artifact: Path, tmp_path: Path
) -> None:
    asked, made = watched([sys.executable, "-c", RUN, str(static_artifact), engine], tmp_path)
    assert not asked
    assert not [name for name in made if not name.startswith(("/dev/", "/proc/", str(tmp_path / "tmp")))]


@needs_strace
def test_a_conversion_asks_for_no_address_and_writes_its_target_alone(static_folder: Path, tmp_path: Path) -> None:
    before = snapshot(static_folder)
    asked, made = watched([str(COMMAND), "to-onnx", str(static_folder), str(tmp_path / "made")], tmp_path)
    assert not asked
    records = tmp_path / "home" / RECORDS
    allowed = ("/dev/", "/proc/", str(tmp_path / "tmp"), str(tmp_path / ".made.sbertconv-"), str(records))
    assert not [name for name in made if not name.startswith(allowed)]
    assert f"~/{RECORDS}" in (ROOT / "docs/privacy.md").read_text(encoding="utf-8")
    words = records.read_text(encoding="utf-8")
    assert not [word for word in (static_folder.name, "made", str(tmp_path)) if word in words]
    assert snapshot(static_folder) == before


def test_it_is_said_when_the_engine_was_imported_first() -> None:
    code = "import os; os.environ.pop('ORT_DISABLE_TELEMETRY', None); import onnxruntime, sbertconv"
    assert "import sbertconv first" in run_python(code).err
    assert "import sbertconv first" not in run_python("import sbertconv, onnxruntime").err
