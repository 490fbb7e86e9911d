"""Chat templates as literal pieces: the library's tokens, or a refusal that says why. About 3 s, no conversions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sentence_transformers.sentence_transformer.modules as st
import torch
from class_cases import YES_OR_NO, causal_reranker, saved
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import InputFormatter
from transformers import AutoModel, tokenization_utils_base

import sbertconv
from sbertconv.benchmark.worker import load_pytorch
from sbertconv.errors import SbertconvError, SourceError, UnsupportedOptionError
from sbertconv.plan.preprocessing import describe_input
from sbertconv.runtime.tokenization import TextTokenizer, load_tokenizer
from sbertconv.source.hub_answers import checked_answers
from sbertconv.source.rendering import bounded_templates

LONG = "{{ 'a ' * 10**5 }}"  # as long as a graph can bear, and longer than any template
ALL = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
NO_USER = "{% if messages[-1].role == 'user' %}{{ raise_exception('only pairs') }}{% endif %}" + ALL
TEXTS = [
    "",
    " both ends \n",
    "a",
    "<s> typed </s>",
    "Berlin " * 30,
    "Straße 機械学習 👍🏽",
    "{{ x }}",
    "https://a.b/c.png",
]


@pytest.fixture(scope="module")
def module() -> Any:
    return causal_reranker(num_hidden_layers=1)[0]


def templated(module: Any, template: Any, **options: Any) -> Any:
    """The module as if it had been loaded with this template."""
    module.tokenizer.chat_template = template
    module.input_formatter = InputFormatter(module.config.model_type, processor=module.tokenizer)
    entry = module.modality_config["text"]
    module.modality_config = {"text": entry, "message": {**entry, "format": module.input_formatter.message_format}}
    module.processing_kwargs = {"chat_template": options}
    module._chat_template_suffix_cache.clear()
    return module


def described(module: Any, folder: Path) -> TextTokenizer:
    found = describe_input(module)
    for name, text in found.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return load_tokenizer(found.section, folder)


@pytest.mark.parametrize(
    ("template", "options", "single"),
    [
        (YES_OR_NO, {}, True),
        (ALL + "{% if add_generation_prompt %}Answer: {% endif %}", {"add_generation_prompt": True}, True),
        (ALL, {"restore_suffix": False}, True),
        ("{% for m in messages %}{{ m.role }}: {{ m.content[0].text }}; {% endfor %}", {}, True),
        (NO_USER, {}, False),
        ("{{ bos_token }}{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", {}, True),
        ("{{ 'two\nlines' }}" + ALL, {}, True),
    ],
    ids=["reranker", "generation prompt", "end not restored", "structured", "pairs only", "twice, no end", "two lines"],
)
def test_tokens_are_the_librarys(
    template: str, options: dict[str, Any], single: bool, module: Any, tmp_path: Path
) -> None:
    templated(module, template, **options)
    structured = module.input_formatter.message_format == "structured"
    inputs: list[Any] = [(a, b) for a in TEXTS for b in TEXTS if not (structured and "png" in a + b)]
    inputs += [text for text in TEXTS if single and not (structured and "png" in text)]
    for limit in (4, 19, 48):
        module.max_seq_length = limit
        tokenizer = described(module, tmp_path)
        assert tokenizer.takes_single == single
        for prompt in (None, "", "Does the document answer?"):
            for text in inputs:
                theirs = module.preprocess([text], prompt=prompt)["input_ids"]
                ours = tokenizer.padded(tokenizer.ids([tokenizer.prompted(text, prompt)], limit))["input_ids"]
                assert torch.equal(torch.from_numpy(ours), theirs), (limit, prompt, text)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content | trim }}{% endfor %}", r"more with a text .*' both ends \\n'"),
        ("{{ messages | tojson }}", "more with a text"),
        ("{% for m in messages %}{% if m.content %}{{ m.content }}{% else %}-{% endif %}{% endfor %}", "e.g. with ''"),
        ("{% for m in messages %}{{ m.content[:1000] }}{% endfor %}", "more with a text .*xxx"),
        ("{% for m in messages %}{{ m.content.split('</a>')[-1] }}{% endfor %}", "more with a text .*'</a>'"),
        (
            "{% for m in messages %}{% if m.content.startswith('ab') and m.content.endswith('yz') %}!{% endif %}"
            "{{ m.content }}{% endfor %}",
            "more with a text .*'ab yz'",
        ),
        ("{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}", "the date of the day"),
        ("{{ task }}{% for m in messages %}{{ m.content }}{% endfor %}", "asks for the task"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "cannot carry a query and a doc"),
        ("{{ raise_exception('no') }}", "cannot carry a query and a document: .*no"),
        (
            "{% for m in messages %}" * 60 + "{% endfor %}" * 60 + ALL,
            "cannot be read: SyntaxError: too many statically",
        ),
        ("".join(f"{{{{ '{number}' }}}}" for number in range(200)) + ALL, "200 strings .have: up to 150"),
        ({"default": ALL, "other": "{{"}, "cannot be read: .*'end of temp"),
    ],
)
def test_what_is_not_literal_is_refused(template: Any, reason: str, module: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=reason):
        described(templated(module, template), tmp_path)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'x' * 10**10 }}", "takes more than 512 MiB of memory"),
        ("{% set a = '%1000000000s' % 3 %}", "takes more than 512 MiB of memory"),
        (LONG, r"chat template \"{{ 'a ' .* writes 200,\d\d\d characters .*and 100,000 characters beside its texts"),
    ],
)
def test_what_a_template_makes_is_bounded(template: str, reason: str, module: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=reason):
        described(templated(module, template + ALL), tmp_path)


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding model whose chat template writes more than any needs."""
    transformer = st.Transformer(str(saved(AutoModel, "qwen3", None, LONG + ALL, num_hidden_layers=2)))
    pooling = st.Pooling(transformer.get_embedding_dimension(), "mean")
    folder = tmp_path_factory.mktemp("long")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save_pretrained(str(folder))
    return folder


def timed(folder: Path, target: Path) -> None:
    """What the process of `bench` does, which is this one here."""
    try:
        load_pytorch(str(folder), "SentenceTransformer")[0].encode("a text")
    finally:
        bounded_templates.__exit__()
        checked_answers.__exit__()


@pytest.mark.parametrize(
    "command",
    [
        sbertconv.to_onnx,
        partial(sbertconv.trim, keep=["a text"]),
        partial(sbertconv.shorten, layers="1"),
        sbertconv.to_static,
        timed,
    ],
    ids=["to-onnx", "trim", "shorten", "to-static", "bench"],
)
def test_no_command_goes_around_the_bounds(command: Any, long_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SbertconvError, match=r"chat template .* writes 200,\d\d\d characters"):
        command(long_folder, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_the_library_renders_by_itself_again() -> None:
    own = tokenization_utils_base.render_jinja_template
    with bounded_templates:
        with bounded_templates:
            assert tokenization_utils_base.render_jinja_template is not own
        assert tokenization_utils_base.render_jinja_template is not own
    assert tokenization_utils_base.render_jinja_template is own


def test_a_prompt_without_room_is_an_error(module: Any, tmp_path: Path) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + ALL
    tokenizer = described(templated(module, template), tmp_path)
    with pytest.raises(UnsupportedOptionError, match=r"takes no document and prompt and query \(have: text; document"):
        tokenizer.prompted(("a", "b"), "Is it?")
