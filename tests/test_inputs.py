"""What encode() and predict() take in the place of a text, beside the library: dicts and messages. About
30 s, most of it conversions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import tiny
from class_cases import YES_OR_NO, causal_reranker
from sentence_transformers import SentenceTransformer
from sentence_transformers.base import modality as theirs
from sentence_transformers.base.modality import InputFormatter
from sentence_transformers.sentence_transformer import modules as st

import sbertconv
from sbertconv.errors import UnsupportedOptionError
from sbertconv.runtime.inputs import modality_of, plain
from sbertconv.runtime.media import ENDINGS, names_medium

FLAT = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
STRUCTURED = "{% for m in messages %}{{ m.role }}: {{ m.content[0].text }}; {% endfor %}"


def chat(template: str) -> SentenceTransformer:
    """A decoder whose texts go through a chat template."""
    module: Any = st.Transformer(str(tiny.transformer_folder("qwen3", num_hidden_layers=1)))
    module.tokenizer.chat_template = template
    module.input_formatter = InputFormatter(module.config.model_type, processor=module.tokenizer)
    entry = module.modality_config["text"]
    module.modality_config = {"text": entry, "message": {**entry, "format": module.input_formatter.message_format}}
    return cases.chain(module, st.Pooling(32, "lasttoken"), prompts={"find": "Find it."})


@pytest.fixture(scope="module", params=[FLAT, STRUCTURED], ids=["flat", "structured"])
def chats(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """The original, what it was converted to, and a function from a role and a text to a message of its form."""
    model = chat(request.param)
    artifact = sbertconv.to_onnx(model, tmp_path_factory.mktemp("chat") / "model")
    wrapped = request.param == STRUCTURED

    def message(role: str, text: str, **more: Any) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}] if wrapped else text, **more}

    return model, sbertconv.load(artifact.folder), message


@pytest.mark.parametrize("options", [{}, {"prompt_name": "find"}], ids=str)
@pytest.mark.parametrize(
    "roles",
    ["user", "system user", "query document", "system query document"],
)
def test_messages_are_what_the_library_makes_of_them(roles: str, options: dict[str, str], chats: Any) -> None:
    model, converted, message = chats
    one = [message(role, f"a {role} in Berlin") for role in roles.split()]
    if options and roles.startswith("system"):
        with pytest.raises(UnsupportedOptionError, match="role system, and a prompt"):
            converted.encode(one, **options)
        return
    for inputs in (one, [one], [one, [message(role, "") for role in roles.split()]], one[0] if len(one) == 1 else one):
        theirs, ours = (side.encode(inputs, **options) for side in (model, converted))
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_messages_that_were_not_compiled_are_refused(chats: Any) -> None:
    _, converted, message = chats
    user = message("user", "a")
    other = {"role": "user", "content": "a" if isinstance(user["content"], list) else [{"type": "text", "text": "a"}]}
    for inputs, reason in (
        ([user, message("assistant", "b")], r"roles user, assistant \(have: user; query and document; each also"),
        ([user, user], "roles user, user"),
        (message("user", "a", name="me"), "a role and the content of one text"),
        ([message("query", "a"), {"role": "document"}], "a role and the content of one text"),
        ({"role": "user", "content": [{"type": "image", "image": "a.png"}]}, "the content of one text"),
        ({"role": "user", "content": [*[{"type": "text", "text": "a"}] * 2]}, "the content of one text"),
        (other, "the model's chat template takes the content"),
        ([[user], "a text"], "Messages and texts in one call"),
    ):
        with pytest.raises(UnsupportedOptionError, match=reason):
            converted.encode(inputs)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> tuple[SentenceTransformer, Any]:
    """A router with a route for queries and one for everything else, of tables alone."""
    queries, documents = (cases.seeded(lambda: st.StaticEmbedding(tiny.tokenizer("wordpiece"), embedding_dim=16))
                          for _ in range(2))  # fmt: skip
    with np.errstate(all="ignore"):
        documents.embedding.weight.data *= 2
        documents.embedding.weight.data[:, 0] += 1
    model = cases.chain(st.Router({"query": [queries], "document": [documents]}, default_route="document"))
    artifact = sbertconv.to_onnx(model, tmp_path_factory.mktemp("static") / "model")
    return model, sbertconv.load(artifact.folder)


@pytest.mark.parametrize(
    "inputs",
    [
        [{"query": "a fox"}],
        [{"query": "a fox"}, {"query": "Berlin"}],
        [{"document": "a fox"}],
        {"query": "a fox"},
    ],
    ids=str,
)
def test_dicts_name_the_task(inputs: Any, static: Any) -> None:
    theirs, ours = (side.encode(inputs) for side in static)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_tasks_of_dicts_matter(static: Any) -> None:
    """Otherwise the test above proves nothing."""
    _, converted = static
    assert np.abs(converted.encode({"query": "a fox"}) - converted.encode({"document": "a fox"})).max() > 0.1


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([{"query": "a"}, {"document": "b"}], "several kinds in one call"),
        ({"image": "a.png"}, r"dict of 'image' \(have: 'text' alone\)"),
        ([{"text": "a", "image": "b"}], "dict of 'text', 'image'"),
        ([{}], "dict of nothing"),
        ({"role": "user", "content": "a"}, "no chat template"),
        ([[{"role": "user", "content": "a"}]], "no chat template"),
        ({"text": 1}, "Input 0 is int"),
    ],
    ids=str,
)
def test_dicts_of_anything_else_are_refused(inputs: Any, reason: str, static: Any) -> None:
    with pytest.raises(UnsupportedOptionError, match=reason):
        static[1].encode(inputs)


def test_a_reranker_takes_messages_and_dicts(tmp_path: Path) -> None:
    model = causal_reranker(chat_template=YES_OR_NO, num_hidden_layers=1)
    converted: Any = sbertconv.load(sbertconv.to_onnx(model, tmp_path / "model").folder)
    pair = [{"role": "query", "content": "a fox"}, {"role": "document", "content": "Berlin"}]
    for inputs in (pair, [pair], [pair, [pair[0], {"role": "document", "content": "a quick fox"}]],
                   {"text": ["a fox", "Berlin"]}):  # fmt: skip
        theirs, ours = (side.predict(inputs) for side in (model, converted))
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    with pytest.raises(UnsupportedOptionError, match="Input 0"):
        converted.predict([{"text": "a"}, {"text": "b"}])


BEGINS = ("", "./", "http://h/", "https://h/", "HTTPS://h/", " https://h/", "ftp://h/", "file:///",
          "https://[[h]]/", "https://youtu.be/", "https://www.youtube.com\n", "data:image/png;base64,",
          "data:audio/wav;base64,")  # fmt: skip
MIDDLES = ("there", "not there", "", "a\nb", "a?b=", "a#b", "a;b", "a\0b", "\ud800", "folder")
ENDS = ("", ".png", ".PNG", ".jpg", ".svg", ".wav", ".mp3", ".flac", ".ogg", ".aac", ".aiff", ".mp4", ".mkv", ".webm",
        ".png?a=1", ".wav#a", ".mp4;a", ".png ", ".png\n", ".mp3\r\n", ".mkv\t", ".wav\v", ".png/")  # fmt: skip


@pytest.mark.parametrize("begin", BEGINS)
def test_a_string_names_what_it_names_to_the_library(
    begin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for end in (".png", ".PNG", ".jpg", ".wav", ".mp3", ".flac", ".ogg", ".aac", ".mp4", ".mkv"):
        Path(f"there{end}").touch()
    Path("folder.png").mkdir()
    for text in (begin + middle + end for middle in MIDDLES for end in ENDS):
        for modality in ENDINGS:
            assert names_medium(text, modality) == getattr(theirs, f"is_{modality}_url_or_path")(text), (text, modality)
        assert modality_of(text, ENDINGS) == theirs.infer_modality(text), text
        assert modality_of(text, ["audio"]) == theirs.infer_modality(text, ["audio"]), text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("https://h/a.mp4\n", "names a video (have: 'text'; 'video' is not converted).\nPass texts."),
        ("https://h/a.png", "names an image"),
        ("https://h/a.ogg", "names a sound"),
    ],
)
def test_the_name_of_what_was_not_converted_is_no_text(name: str, said: str) -> None:
    with pytest.raises(UnsupportedOptionError) as caught:
        plain(3, name, taken=("text",), left=tuple(ENDINGS), form=None)
    assert said in str(caught.value)
    assert plain(3, name, taken=("text",), left=(), form=None) == name


@pytest.mark.parametrize("item", [None, 3, b"a", ["a"], ("a", None)])
def test_tokens_are_of_texts(item: Any, static_artifact: Path) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match=r"Input 1 is \w+ \(have: texts\)"):
        sbertconv.load(static_artifact).tokenize(["a", item])
