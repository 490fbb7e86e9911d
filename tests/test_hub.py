"""The card in every folder, and folders on the Hub: a small server here speaks the few calls of its interface."""

from __future__ import annotations

import base64
import fnmatch
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import huggingface_hub
import pytest
from conftest import snapshot

import sbertconv
from sbertconv.artifact.card import CALLS, PIPELINES, card, license_in
from sbertconv.artifact.kinds import MODEL_CLASSES
from sbertconv.source import hub_answers
from sbertconv.source.description import description_on_hub


def front_matter(text: str) -> dict[str, Any]:
    found: dict[str, Any] = huggingface_hub.ModelCard(text).data.to_dict()
    return found


def test_every_class_has_a_card() -> None:
    assert set(PIPELINES) == set(CALLS) == set(MODEL_CLASSES)


def test_a_folder_has_a_card_with_its_proof(bert_artifact: Path) -> None:
    manifest = sbertconv.load(bert_artifact).artifact.manifest
    assert "README.md" in manifest["files"]
    text = (bert_artifact / "README.md").read_text(encoding="utf-8")
    said = front_matter(text)
    assert said["library_name"] == "sbertconv"
    assert said["pipeline_tag"] == "sentence-similarity"
    assert {"sentence-transformers", "onnx", "bert", "fp32"} <= set(said["tags"])
    assert "base_model" not in said  # a folder is none of the Hub
    for check in manifest["parity"]["checks"]:
        assert f"| {check['name']} | {check['texts']} |" in text
    assert "- prompt query: `query:`" in text


def test_the_card_says_where_a_model_comes_from(bert_artifact: Path, tmp_path: Path) -> None:
    manifest = json.loads((bert_artifact / "sbertconv.json").read_text(encoding="utf-8"))
    manifest["source"] = {"name": "owner/model-v1", "revision": "abc123", "license": "apache-2.0"}
    manifest["notes"] = ["a | note\nof two lines"]
    text = card(manifest)
    assert front_matter(text)["base_model"] == "owner/model-v1"
    assert front_matter(text)["license"] == "apache-2.0"
    assert "at revision `abc123`" in text
    assert "- a \\| note of two lines" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: mit\ntags:\n- a\n---\n# Model", "mit"),
        ("---\nlicense: 'cc-by-4.0'\n---\n", "cc-by-4.0"),
        ("---\ntags:\n- a\n---\nlicense: mit", None),
        ("# license: mit", None),
        ("---\nlicense: [mit, other]\n---\n", None),
    ],
)
def test_the_license_is_read_from_the_front_matter(text: str, expected: str | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert license_in(tmp_path) == expected
    assert license_in(tmp_path / "nowhere") is None
    assert license_in(None) is None


def test_a_packed_folder_says_what_opens_it(bert_artifact: Path, tmp_path: Path) -> None:
    packed = sbertconv.pack(bert_artifact, tmp_path / "packed", ["triton"])
    text = (packed.folder / "README.md").read_text(encoding="utf-8")
    assert "## Other software" in text
    assert "| triton | model_repository" in text
    packed.verify_hashes()


@dataclass
class Hub:
    """What a small server got."""

    address: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    refuses: bool = False
    ignores: str = ""  # a pattern of the repository's .gitignore
    insists: bool = False  # on that, whatever the client says


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.hub.refuses:
            return self.answer({"error": "You may not."}, 403)
        if "/paths-info/" in self.path:
            names = parse_qs(body.decode())["paths"]
            found = [{"type": "file", "path": name, "size": 1, "oid": "1" * 40} for name in names]
            return self.answer([one for one in found if one["path"] in self.hub.files])
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        self.hub.calls.append((*self.path.partition("?")[::2], lines[0]))
        if self.path == "/api/repos/create":
            return self.answer({"url": f"{self.hub.address}/owner/model", "name": "owner/model"})
        if "/preupload/" in self.path:
            ignored = fnmatch.filter((file["path"] for file in lines[0]["files"]), self.hub.ignores)
            if lines[0].get("gitIgnore") is not None and not self.hub.insists:  # what the client says comes first
                ignored = []
            files = [
                {**file, "uploadMode": "regular", "shouldIgnore": file["path"] in ignored} for file in lines[0]["files"]
            ]
            return self.answer({"files": files})
        if "/commit/" in self.path:
            for line in lines[1:]:
                assert line["key"] == "file"
                self.hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            model = f"{self.hub.address}/owner/model"
            pull = {"pullRequestUrl": f"{model}/discussions/1"} if "create_pr" in self.path else {}
            return self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": f"{model}/commit/1"} | pull)
        return self.answer({})

    def do_GET(self) -> None:
        if self.hub.refuses:
            return self.answer({"error": "You may not."}, 403)
        return self.answer({"id": "owner/model", "sha": "0" * 40, "siblings": []})

    def answer(self, content: Any, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Handler,), {"hub": found}))
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_is_pushed(static_artifact: Path, hub: Hub, tmp_path: Path) -> None:
    where = sbertconv.push(
        static_artifact, "owner/model", private=True, revision="onnx", token="hf_secret", endpoint=hub.address
    )
    assert where == f"{hub.address}/owner/model/commit/1"
    assert hub.tokens == {"Bearer hf_secret"}
    paths = [path for path, _, _ in hub.calls]
    assert paths[0] == "/api/repos/create"
    assert hub.calls[0][2].get("private") or hub.calls[0][2].get("visibility") == "private"
    assert any(re.fullmatch(r"/api/models/owner/model/branch/onnx", path) for path in paths)
    assert paths[-1] == "/api/models/owner/model/commit/onnx"
    for name, content in hub.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert snapshot(tmp_path) == snapshot(static_artifact)
    sbertconv.load(tmp_path).encode("a text")


def test_files_that_the_repository_ignores_are_pushed_too(static_artifact: Path, hub: Hub) -> None:
    hub.ignores = "*.onnx"
    sbertconv.push(static_artifact, "owner/model", token="hf_secret", endpoint=hub.address)
    assert any(name.endswith(".onnx") for name in hub.files)
    hub.files.clear()
    hub.insists = True
    with pytest.raises(sbertconv.ArtifactError, match=r"the server left out onnx/model\.onnx, 1 of \d+ files"):
        sbertconv.push(static_artifact, "owner/model", token="hf_secret", endpoint=hub.address)


def test_a_pull_request_is_opened(static_artifact: Path, hub: Hub) -> None:
    where = sbertconv.push(static_artifact, "owner/model", create_pr=True, token="hf_secret", endpoint=hub.address)
    assert where.endswith("/discussions/1")
    assert hub.calls[-1][:2] == ("/api/models/owner/model/commit/main", "create_pr=1")
    assert not any("branch" in path for path, _, _ in hub.calls)


def test_what_is_not_of_the_folder_stays_here(static_artifact: Path, copy_of: Any, hub: Hub) -> None:
    folder = copy_of(static_artifact)
    (folder / "notes.txt").write_text("my own", encoding="utf-8")
    sbertconv.push(folder, "owner/model", token="hf_secret", endpoint=hub.address)
    assert "notes.txt" not in hub.files


def test_what_the_server_refuses_is_one_error(static_artifact: Path, copy_of: Any, hub: Hub) -> None:
    hub.refuses = True
    with pytest.raises(sbertconv.ArtifactError, match="owner/model: the server did not take the folder") as caught:
        sbertconv.push(static_artifact, "owner/model", token="hf_secret", endpoint=hub.address)
    assert "hf_secret" not in str(caught.value)
    with pytest.raises(sbertconv.ArtifactError, match="not a name of a repository"):
        sbertconv.push(static_artifact, "a/b/c", token="hf_secret", endpoint=hub.address)
    folder = copy_of(static_artifact)
    (folder / "README.md").write_text("changed", encoding="utf-8")
    with pytest.raises(sbertconv.ArtifactError):
        sbertconv.push(folder, "owner/model", token="hf_secret", endpoint=hub.address)
    assert not hub.files


def test_offline_nothing_is_pushed(static_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(sbertconv.ArtifactError, match="HF_HUB_OFFLINE is set"):
        sbertconv.push(static_artifact, "owner/model", token="hf_secret")


def test_the_command_pushes(static_artifact: Path, hub: Hub, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    ran = cli("push", static_artifact, "owner/model", "--create-pr")
    assert ran.code == 0, ran.err
    assert "/owner/model/discussions/1" in ran.out
    hub.refuses = True
    ran = cli("push", static_artifact, "owner/model")
    assert ran.code == 1
    assert "the server did not take the folder" in ran.err


def test_a_conversion_pushes_its_folder(
    static_folder: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    artifact = sbertconv.to_onnx(static_folder, tmp_path / "model", push_to_hub="owner/model")
    assert hub.calls[-1][0] == "/api/models/owner/model/commit/main"
    assert set(hub.files) == {*artifact.manifest["files"], "sbertconv.json"}
    assert "options" not in artifact.manifest


def test_a_name_that_cannot_be_pushed_is_refused_before_the_work(
    static_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(sbertconv.ArtifactError, match="HF_HUB_OFFLINE is set"):
        sbertconv.to_torch(static_folder, tmp_path / "model", push_to_hub="owner/model")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(sbertconv.ArtifactError, match="not a name of a repository"):
        sbertconv.to_openvino(static_folder, tmp_path / "model", push_to_hub="a/b/c")
    assert not (tmp_path / "model").exists()


OUTSIDE = "../../../../outside"
LIES: dict[str, dict[str, str]] = {
    "the ETag '../": {"etag": OUTSIDE},
    "the ETag '/": {"etag": "/proc/outside"},
    "the commit '../": {"commit": OUTSIDE},
    "the commit '..": {"sha": OUTSIDE},
    "a file '../": {"path": OUTSIDE + ".json"},
    "a file 'C:": {"path": "C:\\outside.json"},
    "the hash '../": {"hash": OUTSIDE},
    "the commit '../../": {"commit": OUTSIDE, "status": "404"},
    "the commit 'main'": {"sha": "main"},
}


class Lying(BaseHTTPRequestHandler):
    """A server of the Hub's interface with one repository, and one answer that is a path."""

    lie: Mapping[str, str]

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/") and "/tree/" not in self.path:
            return self.answer({"id": "o/n", "sha": self.lie.get("sha", "a" * 40), "siblings": []})
        if self.path.startswith("/api/"):
            lfs = {"oid": self.lie.get("hash", "b" * 64), "size": 2, "pointerSize": 100}
            path = self.lie.get("path", "modules.json")
            return self.answer([{"type": "file", "path": path, "size": 2, "oid": "0" * 40, "lfs": lfs}])
        return self.answer({}, int(self.lie.get("status", 200)))

    do_HEAD = do_GET  # noqa: N815  # as the server asks for it

    def answer(self, content: Any, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Repo-Commit", self.lie.get("commit", "a" * 40))
        self.send_header("ETag", f'"{self.lie.get("etag", "c" * 40)}"')
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text)


@pytest.fixture
def lying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Lying]]:
    """A server of the Hub's interface on this machine, whose answers are those of its `lie`."""
    constants = huggingface_hub.constants
    handler = type("Here", (Lying,), {"lie": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "a" / "b" / "c" / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hub_answers, "LOOKED_AT", defaultdict(set))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("said", LIES)
def test_a_server_names_no_path_outside_of_the_cache(said: str, lying: type[Lying], tmp_path: Path) -> None:
    lying.lie = LIES[said]
    with pytest.raises(sbertconv.SourceError, match=re.escape(f"the server names {said}")) as caught:
        sbertconv.inspect("o/n")
    assert str(caught.value).startswith(f"{huggingface_hub.constants.ENDPOINT}/o/n")
    assert not [file for file in tmp_path.rglob("*") if "outside" in file.name]


@pytest.mark.parametrize(
    ("file", "lie", "found"),
    [
        ("modules.json", {}, True),
        ("model.safetensors", {}, True),
        ("model.safetensors", {"commit": "d" * 40}, True),
        ("router_config.json", {}, False),
        ("9_N/code.py", {}, False),
        ("modules.json", {"commit": "d" * 40}, False),
    ],
)
def test_nothing_is_taken_of_a_model_but_what_was_looked_at(
    file: str, lie: Mapping[str, str], found: bool, lying: type[Lying]
) -> None:
    description_on_hub("o/n", None)
    lying.lie = lie
    with hub_answers.checked_answers:
        if found:
            assert Path(huggingface_hub.hf_hub_download("o/n", file)).is_file()
            return
        with pytest.raises(sbertconv.SourceError, match=r"names a file at \w{40} that was not there"):
            huggingface_hub.hf_hub_download("o/n", file)
