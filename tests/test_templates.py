"""Chat templates as literal pieces: the library's tokens, or a refusal that says why. About 3 s, no conversions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from class_cases import YES_OR_NO, causal_reranker
from sentence_transformers.base.modality import InputFormatter

from sbertconv.errors import UnsupportedOptionError
from sbertconv.plan.preprocessing import describe_input
from sbertconv.runtime.tokenization import TextTokenizer, load_tokenizer

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
    ],
    ids=["reranker", "generation prompt", "end not restored", "structured", "pairs only", "twice, no end"],
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
        ("{{ 'x' * 10**10 }}" + ALL, "takes more than 512 MiB of memory"),
        ("{% set a = '%1000000000s' % 3 %}" + ALL, "takes more than 512 MiB of memory"),
        ("".join(f"{{{{ '{number}' }}}}" for number in range(200)) + ALL, "200 strings .have: up to 150"),
        ({"default": ALL, "other": "{{"}, "cannot be read: .*'end of temp"),
    ],
)
def test_what_is_not_literal_is_refused(template: Any, reason: str, module: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=reason):
        described(templated(module, template), tmp_path)


def test_a_prompt_without_room_is_an_error(module: Any, tmp_path: Path) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + ALL
    tokenizer = described(templated(module, template), tmp_path)
    with pytest.raises(UnsupportedOptionError, match=r"takes no document and prompt and query \(have: text; document"):
        tokenizer.prompted(("a", "b"), "Is it?")
