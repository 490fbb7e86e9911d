"""What files say is shown as it is: it moves no cursor, names no window, has no colour and ends no command."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import run_process

from sbertconv import SbertconvError
from sbertconv.artifact.folder import MANIFEST
from sbertconv.console.files import encode_texts
from sbertconv.console.plain import PlainConsole
from sbertconv.console.printing import json_text, snippet
from sbertconv.errors import HIDDEN, error_text, visible

HOSTILE = "\x1b]0;owned\x07\x1b[2J[/nothing][red]a[/] :smile: \u202eb\x9b1m\u2028"


def edited(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    edit(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_visible_text_is_what_a_terminal_shows() -> None:
    shown = visible(f"a\tb\n{HOSTILE}\ud800ü🎉")
    assert not HIDDEN.search(shown)
    assert shown.startswith("a\tb\n\\u001b]0;owned\\u0007")
    assert shown.endswith("\\ud800ü🎉")
    content = {"name": HOSTILE}
    assert json.loads(visible(json_text(content))) == content


def test_an_error_is_visible_and_has_no_colours() -> None:
    assert str(SbertconvError(HOSTILE)) == visible(HOSTILE)
    assert error_text(ValueError("\x1b[1mbold\x1b[0m")) == "ValueError: bold"


def test_a_str_is_no_markup_in_a_table() -> None:
    from rich.table import Table

    console = PlainConsole(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert written.count("[/nothing][red]a[/] :smile:") == 5
    assert "\x1b]" not in written
    assert "\u202e" not in written


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest["source"].update(name=HOSTILE),
        lambda manifest: manifest.update(notes=[HOSTILE]),
        lambda manifest: manifest.update(precision=HOSTILE),
        lambda manifest: manifest["prompts"].update({HOSTILE: HOSTILE}),
        lambda manifest: manifest["parity"].update(rule=HOSTILE),
        lambda manifest: manifest.update(chain=[HOSTILE]),
        lambda manifest: manifest["graphs"][0]["outputs"][0].update(shape=[HOSTILE, 1]),
        lambda manifest: manifest["graphs"][0].update(name=HOSTILE),
        lambda manifest: manifest["files"].update({HOSTILE: {"size": 1, "sha256": "0" * 64}}),
    ],
)
@pytest.mark.parametrize("machine", [[], ["--json"]])
def test_a_manifest_is_shown_as_it_is(
    edit: Callable[[dict[str, Any]], Any], machine: list[str], static_artifact: Path,
    copy_of: Callable[[Path], Path], cli: Callable[..., Any],
) -> None:  # fmt: skip
    folder = edited(copy_of(static_artifact), edit)
    found = cli("inspect", folder, *machine)
    assert found.code in (0, 1), found
    assert not HIDDEN.search(found.out + found.err), found


def test_a_folder_with_a_hostile_name(static_artifact: Path, copy_of: Callable[[Path], Path], cli: Any) -> None:
    folder = copy_of(static_artifact)
    hostile = folder.rename(folder.with_name(HOSTILE.replace("/", "")))
    assert cli("inspect", hostile).code == 0
    found = cli("inspect", hostile / "x")
    assert found.code == 1
    assert not HIDDEN.search(found.err)


def test_a_name_that_is_no_text_is_shown(static_artifact: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(static_artifact)
    folder = folder.rename(folder.with_name("a\udcff"))
    code = "from sbertconv.cli import main; main()"
    shown = run_process(sys.executable, "-c", code, "inspect", folder, env={"PYTHONIOENCODING": "ascii"})
    assert shown.code == 0, shown
    assert "a\\udcff: a SentenceTransformer" in shown.out


def test_tokens_of_a_model_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    class Model:
        def encode(self, texts: list[str]) -> list[dict[str, float]]:
            return [{HOSTILE: 0.5} for _ in texts]

    encode_texts(Model(), ["a"], None)
    out = capsys.readouterr().out
    assert not HIDDEN.search(out)
    assert json.loads(out) == {HOSTILE: 0.5}


def test_a_warning_is_a_line_of_the_command(static_artifact: Path, copy_of: Callable[[Path], Path]) -> None:
    code = "import sys, warnings; from sbertconv.cli import main, tell_warnings; tell_warnings(); "
    code += "warnings.warn('a' + chr(27)); sys.argv = ['sbertconv', '--version']; main()"
    found = run_process(sys.executable, "-c", code)
    assert found.err == "Note: a\\u001b\n"


@pytest.mark.parametrize(("formats", "call"), [(("torch",), "('a', format='torch')"), (("onnx", "torch"), "('a')")])
def test_the_format_of_a_folder_with_a_program_alone_is_said(formats: tuple[str, ...], call: str) -> None:
    manifest = {"model_class": "SentenceTransformer", "graphs": [{"outputs": [{"name": "sentence_embedding"}]}]}
    found = SimpleNamespace(folder=Path("a"), formats=formats, manifest=manifest)
    assert f"model = sbertconv.load{call}\n" in snippet(found)  # type: ignore[arg-type]
