"""What runs the pages: which of their blocks, in which order, and how a mistake in a page shows."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

PAGE = """# A page

    sbertconv to-onnx MODEL [DIRECTORY] [OPTIONS]

    $ printf 'made' > made.txt  # a comment
    made, says the output

```python
made = open("made.txt").read()
```

Prose.

<!-- not run: needs a camera -->

```python
raise RuntimeError
```

    $ pip install sbertconv

<!-- exits 3 -->

    $ exit \\
        3

```python
assert made == "made"
```
"""


@pytest.fixture(scope="module")
def pages() -> Iterator[Any]:
    """docs/run.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_run", ROOT / "docs/run.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_run"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["docs_run"]


def test_steps_are_what_a_reader_would_type(pages: Any) -> None:
    found = [(step.kind, step.text.strip(), step.why_not, step.code) for step in pages.steps("page", PAGE)]
    assert found == [
        ("shell", "printf 'made' > made.txt", "", 0),
        ("python", 'made = open("made.txt").read()', "", 0),
        ("python", "raise RuntimeError", "needs a camera", 0),
        ("shell", "exit 3", "", 3),
        ("python", 'assert made == "made"', "", 0),
    ]
    (first, *_) = pages.steps("page", PAGE)
    assert first.place == "page:5"


def test_a_page_runs_in_its_order(pages: Any, tmp_path: Path) -> None:
    folder = pages.Folder(tmp_path)
    ran = list(folder.page(list(pages.steps("page", PAGE))))
    assert [problem for _, problem, _ in ran] == [""] * 4
    again = [step.kind for step, _, _ in folder.page(list(pages.steps("page", PAGE)))]
    assert again == ["python", "python"]  # its commands ran already


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('assert made == "made"', "assert made == 1"), "AssertionError"),
        (("exit \\", "exit 0 + \\"), "exit code"),
        (('assert made == "made"', "import os; os._exit(1)"), "the process ended"),
    ],
)
def test_what_does_not_run_is_told(change: tuple[str, str], words: str, pages: Any, tmp_path: Path) -> None:
    found = list(pages.Folder(tmp_path).page(list(pages.steps("page", PAGE.replace(*change)))))
    assert words in found[-1][1]
    assert bool(words) == bool(found[-1][1])


def test_every_page_is_run_or_left_out_with_a_reason(pages: Any) -> None:
    every = pages.pages()
    for page in every:
        for step in pages.steps_of(page):
            if step.kind == "python" and not step.why_not:
                compile(step.text, step.place, "exec")
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    for page in files - set(every):
        assert page in pages.LEFT_OUT or not pages.steps_of(page), page
    assert set(pages.LEFT_OUT) <= files
    assert all(pages.LEFT_OUT.values())
    assert len(pages.notebooks()) >= 3


def test_a_notebook_is_its_cells(pages: Any) -> None:
    content = [
        ("markdown", "# A title\n!not a command"),
        ("code", "!printf 'made' > made.txt\n!pip install sbertconv"),
        ("code", "text = open('made.txt').read()\nprint(text)"),
    ]
    cells = [{"cell_type": kind, "source": [f"{line}\n" for line in text.split("\n")]} for kind, text in content]
    found = [(step.kind, step.text.strip()) for step in pages.steps("a.ipynb", json.dumps({"cells": cells}))]
    program = "text = open('made.txt').read()\nprint(text)"
    assert found == [("shell", "printf 'made' > made.txt"), ("python", program)]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("sbertconv to-onnx acme/model", "model-onnx"),
        ("sbertconv to-tf model made --format keras", "made"),
        ("sbertconv to-st tuned/model.keras", "model-st"),
        ("sbertconv pack made packed --for triton", "packed"),
        ("python examples/finetune_keras.py --steps 40 --out finetuned", "finetuned"),
        ("sbertconv encode made 'a text'", ""),
    ],
)
def test_a_command_makes_a_folder(command: str, name: str, pages: Any) -> None:
    assert pages.Step("page:1", "shell", command).makes == name


def test_a_page_alone_runs_what_it_needs_of_others_first(pages: Any) -> None:
    def needed(page: str) -> list[str]:
        return [step.text for step in pages.needed(pages.steps_of(page))]

    assert needed("docs/quickstart.md") == []  # it makes what it uses
    assert needed("docs/consumers/triton.md") == ["sbertconv to-onnx all-MiniLM-L6-v2 minilm"]
    assert needed("docs/finetuning.md") == ["sbertconv to-tf all-MiniLM-L6-v2"]


def test_changed_pages_are_those_that_differ(pages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        author = ["-c", "user.name=a", "-c", "user.email=a"]
        subprocess.run(["git", "-C", str(tmp_path), *author, *arguments], check=True, capture_output=True)

    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "docs/notebooks").mkdir(parents=True)
    (tmp_path / "docs/notebooks/a.ipynb").write_text('{"cells": []}')
    for page in (*pages.FIRST, "docs/other.md", "docs/same.md"):
        (tmp_path / page).write_text(f"# {page}\n\n    $ printf 'a'\n")
    first_two = list(pages.FIRST[:2])
    assert pages.changed("HEAD~1") == ["docs/notebooks/a.ipynb", *first_two]  # no repository
    git("init", "-q")
    for text in ("one", "two"):
        (tmp_path / "docs/other.md").write_text(f"# {text}\n\n    $ printf '{text}'\n")
        git("add", "-A")
        git("commit", "-q", "-m", text)
    pages.steps_of.cache_clear()
    assert pages.changed("HEAD~1") == ["docs/notebooks/a.ipynb", "docs/other.md"]
    assert pages.changed("HEAD") == ["docs/notebooks/a.ipynb", *first_two]
    pages.steps_of.cache_clear()


def test_no_page_is_begun_past_the_time(pages: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.main(["docs/quickstart.md", "--minutes", "-1"]) == 0
    assert "left for `make docs-run`: docs/quickstart.md" in capsys.readouterr().out
