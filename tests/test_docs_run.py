"""What runs the pages: which of their blocks, in which order, and how a mistake in a page shows."""

from __future__ import annotations

import importlib.util
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


def test_every_page_that_is_run_is_there(pages: Any) -> None:
    for page in pages.PAGES:
        found = list(pages.steps(page, (ROOT / page).read_text(encoding="utf-8")))
        assert any(not step.why_not for step in found), page
        for step in found:
            if step.kind == "python":
                compile(step.text, step.place, "exec")
