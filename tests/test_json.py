"""JSON of files that nobody vouches for: one bounded reader, whose errors name the file and the key."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sbertconv
from sbertconv import ArtifactError, SbertconvError, SourceError
from sbertconv.artifact import json_reading
from sbertconv.artifact.json_reading import read_json

ROOT = Path(sbertconv.__file__).parent
# Where json.loads stands beside the reader: what this process wrote itself, or the manifest's own parser
OWN = {
    "artifact/json_reading.py", "artifact/folder.py", "text/components.py", "text/normalizers.py",
    "text/pretokenizers.py", "console/printing.py", "benchmark/contestants.py", "benchmark/worker.py",
    "tables/ledger.py", "tables/reading.py",
}  # fmt: skip


def test_json_of_files_is_read_in_one_place() -> None:
    found = {
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.load", "json.loads", "json.JSONDecoder")
    }
    assert {place for place in found if not place.startswith("artifact/manifest")} <= OWN


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not readable as JSON: Expecting value"),
        (b"\xff\xfe{}", "not readable as JSON: 'utf-8' codec"),
        (b"[" * 100_000, "more than 100 levels deep"),
        (b"[" * 150 + b"]" * 150, "more than 100 levels deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "more than 100 levels deep"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b"[]", "holds a list, not an object"),
        (b"null", "holds null, not an object"),
        (b"9" * 5000, "not readable as JSON"),
    ],
)
def test_what_is_no_json_is_one_error(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"a\.json: .*{said}"):
        read_json(tmp_path / "a.json", dict)


def test_files_that_are_none_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "missing", "a\0b", "n" * 300, "."):
        with pytest.raises(ArtifactError, match="cannot be read"):
            read_json(tmp_path / name)
    monkeypatch.setattr(json_reading, "LARGEST", 10)
    (tmp_path / "a.json").write_text(json.dumps("a text that is longer"))
    with pytest.raises(ArtifactError, match=r"23 bytes .have: up to 10"):
        read_json(tmp_path / "a.json")


def changed(file: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps({**content, **values}), encoding="utf-8")

    return change


SETTINGS, TOKENIZER = "config_sentence_transformers.json", "tokenizer_config.json"
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "a side that is none": (changed(TOKENIZER, padding_side="zzz"), 'padding_side: "zzz" .have: right, left'),
    "a prompt that is a number": (
        changed(SETTINGS, prompts={"query": 1}),
        r'prompts: {"query": 1} .have: an object of',
    ),
    "a similarity that is none": (
        changed(SETTINGS, similarity_fn_name="foo"),
        r'similarity_fn_name: "foo" .have: cosine',
    ),
    "a dimension that is text": (changed(SETTINGS, truncate_dim="12"), "truncate_dim: .12. .have: a whole number"),
    "a dimension that is negative": (changed(SETTINGS, truncate_dim=-1), "truncate_dim: -1"),
    "labels that are a list": (changed("config.json", id2label=[1]), "id2label"),
    "an architecture that is a number": (changed("config.json", architectures=3), "architectures: 3"),
    "a mode that is an object": (changed("1_Pooling/config.json", pooling_mode={}), "pooling_mode"),
    "code from the Hub": (changed("config.json", attn_implementation="a/kernel"), "attn_implementation: .a/kernel."),
    "a million layers": (changed("config.json", num_hidden_layers=10**6), "num_hidden_layers: 1000000 .have: a whole"),
    "a function of torch": (
        changed("2_Dense/config.json", activation_function="torch.utils.collect_env.main"),
        "activation_function: .*a class of torch.nn",
    ),
    "a function of torch for scores": (
        changed("config.json", sentence_transformers={"activation_fn": "torch.distributed.run.main"}),
        "sentence_transformers: .*activation_fn of torch.nn",
    ),
    "a function of torch in an older file": (
        changed("config.json", sbert_ce_default_activation_function="torch.distributed.run.main"),
        "sbert_ce_default_activation_function: .*a class of torch.nn",
    ),
    "sizes that are text": (changed("2_Dense/config.json", in_features="a", out_features=[]), "out_features"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_a_wrong_type_is_named_with_its_file(
    name: str, bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    change, said = WRONG[name]
    folder = copy_of(bert_folder)
    change(folder)
    with pytest.raises(SourceError, match=rf"json: not as it should be:\n(.*\n)*.*{said}"):
        sbertconv.inspect(folder)


JUNK: tuple[Any, ...] = (None, -1.5, "a\0b", [[]], {"a": {"b": [1]}})


def test_wrong_types_anywhere_in_a_models_files_are_no_traceback(bert_folder: Path, tmp_path: Path) -> None:
    for file in ("modules.json", SETTINGS, "config.json", "sentence_bert_config.json", "1_Pooling/config.json",
                 "2_Dense/config.json", TOKENIZER, "tokenizer.json"):  # fmt: skip
        content = json.loads((bert_folder / file).read_text(encoding="utf-8"))
        folder = tmp_path / file.replace("/", "-")
        shutil.copytree(bert_folder, folder)
        parts = [(content, key) for key in (range(len(content)) if isinstance(content, list) else list(content))]
        parts += [(part, key) for part in (content if isinstance(content, list) else ()) for key in part]
        for holder, key in parts:
            kept = holder[key]
            for junk in JUNK:
                holder[key] = junk
                (folder / file).write_text(json.dumps(content), encoding="utf-8")
                with contextlib.suppress(SbertconvError):
                    sbertconv.inspect(folder)
            holder[key] = kept


def test_a_tokenizer_with_half_a_character_is_one_error(
    bert_folder: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = copy_of(bert_folder)
    changed(TOKENIZER, model_input_names=["input_ids", "\ud800", "attention_mask"])(folder)
    with pytest.raises(SbertconvError, match=r"tokenizer_config.json: not readable as JSON: .*surrogates not allowed"):
        sbertconv.to_onnx(folder, tmp_path / "onnx")


def test_a_module_whose_folder_no_file_system_takes_is_one_error(
    bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_folder)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[1]["path"] = "n" * 300
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(SourceError, match="too long"):
        sbertconv.inspect(folder)


def test_routers_that_lead_back_to_themselves_end(bert_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert_folder)
    router = folder / "1_Router"
    router.mkdir()
    types = dict.fromkeys(("a", "b"), "sentence_transformers.models.Router")
    (router / "router_config.json").write_text(json.dumps({"types": types, "structure": {"x": ["a", "b"]}}))
    for name in types:
        (router / name).symlink_to(".")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1] |= {"type": types["a"], "path": "1_Router"}
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SourceError, match="routers inside routers"):
        sbertconv.inspect(folder)


def test_a_small_file_is_no_module_a_thousand_times(bert_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(bert_folder)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*modules, *[modules[1]] * 1000]))
    with pytest.raises(SourceError, match=r"modules\.json: more than 100 modules"):
        sbertconv.inspect(folder)


def test_what_takes_the_name_of_a_file_a_moment_later_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    os.mkfifo(file)
    plain = tmp_path / "plain"
    plain.touch()
    monkeypatch.setattr(Path, "stat", lambda self, **options: os.stat(plain))  # as it was when it was looked at
    with pytest.raises(ArtifactError, match="it is a pipe or a device"):
        read_json(file)
