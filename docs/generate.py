"""Writes docs/cli.md, docs/manifest.md, docs/support.md, docs/architectures.md and sbertconv/keywords.py from the code.

With --check it says which of them are stale.

The check also follows every relative link and heading anchor of README.md, CONTRIBUTING.md and docs/*.md.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

NOTICE = "<!-- Written by docs/generate.py: change the code, then run `python docs/generate.py`. -->"
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *([re.sub(r"([|<])", r"\\\1", cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def cli_page() -> list[str]:
    """The command line, read from the typer app and not from its rendered help, which depends on the terminal."""
    import typer

    from sbertconv.cli import app

    group: Any = typer.main.get_command(app)
    lines = [f"sbertconv: {group.help}", "", *options_of(group), "", group.epilog]
    for name, command in group.commands.items():
        usage = " ".join(
            ["sbertconv", name, *(placeholder(p) for p in command.params if not is_option(p)), "[OPTIONS]"]
        )
        lines += ["", f"## {name}", "", command.help, "", f"    {usage}", "", *options_of(command)]
    return ["# Command line", "", *lines]


def is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def placeholder(parameter: Any) -> str:
    name = parameter.name.upper()
    return name if parameter.required else f"[{name}]{'...' if parameter.nargs == -1 else ''}"


def options_of(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        names = " / ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        rows.append([names if is_option(parameter) else parameter.name.upper(), parameter.help, default_of(parameter)])
    return table(["", "", "default"], rows)


def default_of(parameter: Any) -> str:
    """The default where the help text does not say it; an option that is off or not given has none to show."""
    if not parameter.show_default or parameter.default in (None, False):
        return "required" if parameter.required else ""
    return f"`{parameter.opts[0] if parameter.default is True else parameter.default}`"


def manifest_page() -> list[str]:
    """The types of the manifest, a table for each."""
    from sbertconv.artifact.manifest import SECTIONS

    lines = [
        "# The manifest",
        "",
        "`sbertconv.json` of a converted folder. Keys that are *internal* may change in any version; all others keep",
        "their meaning as long as `format_version` does, and new ones may come. Every key is checked when a folder is",
        "written and when it is read.",
    ]
    for section in SECTIONS:
        rows = [key_row(name, hint) for name, hint in get_type_hints(section, include_extras=True).items()]
        lines += [
            "",
            f"## {section.__name__}",
            "",
            section.__doc__ or "",
            "",
            *table(["key", "value", "meaning"], rows),
        ]
    return lines


def key_row(name: str, hint: Any) -> list[str]:
    """A key of a section: its name, its type and the meaning that stands in the type."""
    from sbertconv.artifact.manifest import INTERNAL

    optional = get_origin(hint) is NotRequired
    kind, *_, note = get_args(get_args(hint)[0] if optional else hint)
    marks = [mark for mark, holds in (("optional", optional), (INTERNAL, note.extra)) if holds]
    return [f"`{name}`", kind_name(kind), f"{note.description}{f' ({chr(44).join(marks)})' if marks else ''}"]


def kind_name(kind: Any) -> str:
    """A type in words: `int`, `[Tensor]`, `"left" or "right"`."""
    if get_origin(kind) is Annotated:
        return kind_name(get_args(kind)[0])
    if kind is Any:
        return "any"
    if get_origin(kind) is Literal:
        return " or ".join(f"`{choice!r}`".replace("'", '"') for choice in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(kind_name(option) for option in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {kind_name(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"dict of {kind_name(get_args(kind)[1])}"
    if kind is type(None):
        return "null"
    return f"[{kind.__name__}](#{kind.__name__.lower()})" if is_typeddict(kind) else kind.__name__


def support_page() -> list[str]:
    """The registry's tables and the rows of the parity table."""
    import cases
    import class_cases
    import tiny

    from sbertconv.converters import default_registry
    from sbertconv.runtime.engines import ENGINES

    registry = default_registry()
    found = {backend: registry.supported(backend) for backend in registry.backends}
    own = {name for converters in found.values() for name in converters if name.startswith("sentence_transformers.")}
    types = sorted(own, key=lambda name: class_of(name).lower())
    rows = [[class_of(name), *(how(found[backend].get(name)) for backend in found)] for name in types]
    settings = {name: case for name, case in cases.CASES.items() if name not in tiny.ARCHITECTURES}
    return [
        "# What is supported",
        "",
        "Everything on this page is a row of a table in the code. A module type without a row is traced, and so is a",
        "subclass of one that has a row; if that fails, the conversion is refused by name before any work. How to add",
        "one: [extending.md](extending.md).",
        "",
        "## Module types",
        "",
        "How each module type of sentence-transformers is converted to each backend: *yes*, by a converter of its own",
        "(`convert_<type>` in `converters/`); *traced*, its own `forward` is traced; or *no*.",
        "",
        *table(["module", *found], rows),
        "",
        "## Architectures",
        "",
        "The transformers architectures that the tests convert to ONNX, run by ONNX Runtime and OpenVINO, and to Keras",
        "(a .keras file and a SavedModel), and those marked also to PyTorch, and compare, each as a tiny model with",
        "random weights. Others are converted by the same mechanism and the same check:",
        "[architectures.md](architectures.md) has every text architecture of transformers.",
        "",
        "*Attentions* are those that the tiny model's ONNX graph has, and *fused* those that became one operator of",
        "ONNX Runtime. A converted model's own numbers are in its manifest, under `attention` of each graph; a note in",
        "the manifest says if some are not fused.",
        "",
        *table(
            ["architecture", "tokenizer", "padding", "pooling", "attentions", "fused", "PyTorch"],
            architectures(tiny.ARCHITECTURES, cases.ARCHITECTURES, cases.TORCH_ARCHITECTURES),
        ),
        "",
        "## Engines",
        "",
        "What runs a converted model. `sbertconv engines` says which of them is installed.",
        "",
        *table(
            ["engine", "formats", "extra of sbertconv", "needs"],
            [
                [f"`{name}`", ", ".join(f"`{form}`" for form in engine.opens), engine.extra or "none", engine.needs]
                for name, engine in ENGINES.items()
            ],
        ),
        "",
        "## Module settings",
        "",
        "The other rows of the parity table in `tests/cases.py`; those marked ONNX are options of `to-onnx`, those",
        "marked PyTorch are also converted to that. OpenVINO runs all but those marked otherwise.",
        "",
        *(
            f"- {name}"
            + marks(
                {
                    "ONNX": case.options,
                    "PyTorch": name in cases.TORCH_MODULES,
                    "not OpenVINO": "openvino" not in case.engines,
                }
            )
            for name, case in settings.items()
        ),
        "",
        "Models whose images are tokens of any number have rows for the formats that take them:",
        "",
        *(f"- {name} ({', '.join(formats)})" for name, formats in cases.GRIDDED.items()),
        "",
        "## Modalities",
        "",
        "A model that takes several kinds of input becomes a graph for each. Another kind is refused by its name.",
        "",
        *table(["input", "how it becomes tensors", "proven with"], [[*row] for row in MODALITIES]),
        "",
        "## Adapters and tasks",
        "",
        *table(["form", "what becomes of it"], [[*row] for row in ADAPTERS]),
        "",
        "## Other classes of models",
        "",
        "The rows of the parity table in `tests/class_cases.py`: every one is converted to ONNX, and run by ONNX",
        "Runtime and OpenVINO, to Keras (a .keras file and a SavedModel) and to PyTorch, and asked what the library is",
        "asked.",
        "",
        *table(["class", "rows"], [[f"`{name}`", "; ".join(kind.rows)] for name, kind in class_cases.CLASSES.items()]),
    ]


# Input -> how it becomes tensors, and what was compared.
MODALITIES = (
    (
        "texts",
        "the tokenizers library, or the graph itself with `--text-input`",
        "every row above; chat templates that are plain text around the input, and messages of the roles that they "
        "were compiled for; `processing_kwargs` of the table `HONOURED`, others are refused by name",
    ),
    (
        "images of one size: Pillow images, arrays, files, bytes, columns of tables",
        "Pillow and numpy, by the settings of the image processor, as the library does where torchvision is not "
        "installed (with it pixels differ by a step of 8 bits, which a note says): RGB (transparent ones on white), "
        "resize, crop, rescale, normalize",
        "the rows `clip`, `siglip`, `aimv2`, `dinov2` and `convnext`; by hand also Chinese-CLIP, MetaCLIP 2, CLIPSeg, "
        "OWL-ViT, GroupViT, ViT, BEiT, DeiT, Swin, ResNet and the image halves of CLIP and SigLIP",
    ),
    (
        "images in patches of any number up to a largest",
        "as above, resized to nearly so many patches, which are cut out and filled up with zeros; the model's places "
        "are resized to the grid of each image inside the graph, as a product with weights made of it. An image of one "
        "patch beside none is refused",
        "the row `siglip2` (NaFlex) on every engine; the patches of that processor at odd sizes, the places at odd "
        "grids",
    ),
    (
        "images among the tokens of a language model, as many tokens for every image",
        "as images of one size; the ids around an image and in its place are constants of the graph, and so is the "
        "default prompt, where the library sends an image as a message; another prompt before an image is refused",
        'the rows `llava`, `gemma3` and `colpali` (`transformer_task="retrieval"`: pages as images, questions as '
        "texts, MaxSim) on every engine",
    ),
    (
        "sounds as spectrograms of one size: samples, samples with their rate, WAV files, bytes, columns of tables",
        "numpy, by the settings of the feature extractor (Whisper, CLAP without fusion, AST): fill or cut, frames, "
        "Fourier transform, mel filters, logarithm",
        "the rows `whisper` (its encoder), `ast` and `clap`; the spectrograms with those extractors at odd lengths",
    ),
    (
        "images among the tokens of a language model, as many tokens as their size makes, one image for each run",
        "as above, resized to whole groups of patches between the fewest and the most pixels; one id in the manifest "
        "is repeated for every group. From the grid follow inside the graph: places, windows of attention (a mask, in "
        "the order of the patches), a table of places that is resized, and time, row and column of each token",
        "Qwen2-VL, Qwen2.5-VL and Qwen3-VL as embedders of texts and of images, and ColQwen2 (`tests/test_images.py`, "
        "at odd sizes) with ONNX Runtime, OpenVINO and PyTorch; by hand also Qwen3-VL-MoE and ColQwen2 on Qwen2.5-VL. "
        "The library needs torchvision to load a Qwen-VL, for its videos; a converted one needs none. Keras, "
        "TensorFlow, LiteRT and TensorRT, which want sizes beforehand, are refused by name",
    ),
    (
        "other images as tokens of any number",
        "not yet",
        "LLaVA-NeXT, Idefics3 and the like are refused by the tensors that their processors give for each image",
    ),
    (
        "sounds as waves of any length, each with the vector that it has alone",
        "numpy, by the settings of wav2vec 2.0's feature extractor: mean and variance. A call takes sounds "
        "of one length, because the library averages a batch's padding too; `--target tensorrt` is refused",
        "the row `wav2vec2`; from the shortest sound on also HuBERT, WavLM, UniSpeech, UniSpeech-SAT, Data2VecAudio, "
        "SEW, SEW-D, Wav2Vec2-Conformer and the encoder of Moonshine with random weights, in ONNX",
    ),
    (
        "sounds as rows of a spectrogram, of any number, each with the vector that it has alone",
        "numpy, by the settings of SeamlessM4T's feature extractor, equal to the last bit: frames as Kaldi makes them, "
        "each filter's mean and deviation, two frames for each row, and the mask of full rows. A sound of one frame "
        "alone, of whose row nothing counts, is refused. A call takes sounds of as many rows, because the adapter of a "
        "model lets the padding of a batch in; `--target tensorrt` is refused",
        "the row `wav2vec2-bert` on every engine; in ONNX also its other places (relative, rotary) and its adapter. "
        "The library opens such a model with a tokenizer beside the extractor, for all that it takes no texts, or with "
        '`"processor_class": "SeamlessM4TFeatureExtractor"` in preprocessor_config.json',
    ),
    (
        "the encoder of an encoder-decoder",
        "as texts; the decoder is left out, as the library does",
        "T5, mT5, UMT5 and T5Gemma from checkpoints of the whole model. Of M2M100, Pegasus, Pegasus-X, Marian and "
        "Whisper the library leaves the encoder random; that is refused with the way to save it alone, which is "
        "converted",
    ),
    (
        "videos, messages of several parts",
        "not yet",
        "refused; of a model that takes videos (`not_converted` in the manifest) also the name of one",
    ),
)
# Form of an adapter -> what becomes of it.
ADAPTERS = (
    (
        "a folder with `adapter_config.json`, alone or beside `modules.json`",
        "it is loaded with its base, as SentenceTransformer does (which needs peft), and traced as it is: LoRA, "
        "rsLoRA, IA3, LoHa and OFT were. Every number of its file must be the model's: of DoRA the library makes some "
        "up anew, which is refused with the way to merge it. Prompt learning the library does not load",
    ),
    (
        "several adapters of a live model",
        "those that are active, and a note names them; `--task NAME` (`tasks=[...]`) makes a graph for each name",
    ),
    (
        "a module that takes `task`: by `kwargs` of modules.json, `forward_kwargs`, or a model whose forward names it",
        "`--task NAME` makes a graph for each; without it the model is refused by name, with the tasks that it is "
        "known to have",
    ),
)
# What the code of a model does -> why no graph of it is published, and where it was seen.
REFUSED = (
    (
        "it takes the best tokens by a score that several of them share",
        "which of equal ones are taken is decided by the order in which PyTorch sorts, and differs between engines "
        "and between batches",
        "`doge`, beyond its window, where a word is repeated",
    ),
    (
        "it makes a Python list with an entry for each token",
        "the list has the length of the example; the reason names its line",
        "`cpmant`, `funnel`",
    ),
    (
        "it makes tensors of a size that only the data has, and goes on by what that is",
        "a graph would hold one way for all texts; the reason names the line",
        "`blt`, `reformer`, `qwen4_exp_text`; in Keras, whose backends have no such sizes, `longcat_flash`, "
        "`switch_transformers`, `jetmoe` and `xmod` too",
    ),
    (
        "it goes through the tokens in a loop, or in blocks whose number it counts",
        "the loop has the length of the example, unless `converters/scans.py` knows it",
        "`rwkv`, `minimax`",
    ),
)


def architectures_page() -> list[str]:
    """The rows of docs/architectures.json, which `make sweep` writes."""
    import sweep

    result = json.loads(sweep.RESULT.read_text(encoding="utf-8"))
    every: dict[str, dict[str, Any]] = result["architectures"]
    encoded = {name: rows for name, rows in every.items() if not is_beyond(rows)}
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    totals = []
    for backend in sweep.BACKENDS:
        counts = Counter(rows[backend]["status"] for rows in encoded.values() if backend in rows)
        ran = sum(counts.values())
        share = f"{counts['proven'] / ran:.1%}" if ran else ""
        others = (str(counts[status]) for status in ("refused", "library", "wrong", "limit", "fails"))
        totals.append([backend, str(counts["proven"]), *others, str(len(encoded) - ran), share])
    return [
        "# Architectures",
        "",
        f"The {len(every)} text architectures of transformers, each as a tiny model with random weights and a",
        "tokenizer trained on the spot, and what a conversion of it came to; many layers and trained weights are not",
        f"what this shows. `make sweep` ran it, until {result['date']}, with {versions}.",
        "",
        "*Proven*: published, and equal to `encode()` on texts that the proof has not seen either. *Refused*: nothing",
        "is written, with the reason below. *Wrong*: published, and another vector. *Limit*: not done in the",
        f"time of one core that is told below, or in {sweep.MEMORY >> 30} GiB. *Fails*: an error that is none of",
        "sbertconv's. *Not run*: not tried yet.",
        "",
        *table(
            ["", "proven", "refused", "library", "wrong", "limit", "fails", "not run", "of those run, proven"], totals
        ),
        "",
        "The aim is 97 % in ONNX and PyTorch, 92 % in Keras, and none wrong. What is missing does what a graph",
        "cannot hold for every text, in the kinds under [Reasons](#reasons), or is *library*: its vectors differ by",
        "more than the tolerance from one batch to another in PyTorch itself.",
        "",
        "*Fused* are the attentions of the ONNX graph that became one operator of ONNX Runtime, of those that there",
        "are.",
        "",
        *table(
            ["model type", *sweep.BACKENDS, "fused"],
            [[f"`{name}`", *architecture_row(rows, sweep.BACKENDS)] for name, rows in encoded.items()],
        ),
        "",
        "## Reasons",
        "",
        "Most of what is refused belongs to one of these kinds. Models of these architectures run in PyTorch alone.",
        "",
        *table(["what the code does", "why that is refused", "seen in"], [[*row] for row in REFUSED]),
        "",
        *table(
            ["model type", "backend", "", "reason"],
            [
                [f"`{name}`", ", ".join(backends), *told]
                for name, rows in encoded.items()
                for told, backends in reasons_of(rows).items()
            ],
        ),
        "",
        "## What sentence-transformers does not encode with",
        "",
        "These need other inputs, packages or a config with more than small numbers in it.",
        "",
        *table(
            ["model type", "what it says"],
            [
                [f"`{name}`", shortened(rows[next(iter(rows))]["reason"])]
                for name, rows in every.items()
                if is_beyond(rows)
            ],
        ),
    ]


def is_beyond(rows: Mapping[str, Any]) -> bool:
    return bool(rows) and all(row["status"] == "library" for row in rows.values())


def architecture_row(rows: Mapping[str, Any], backends: Iterable[str]) -> list[str]:
    attention = rows.get("onnx", {}).get("attention", {})
    found = [rows[backend]["status"] if backend in rows else "not run" for backend in backends]
    return [*found, f"{attention['fused']} of {attention['found']}" if attention.get("found") else ""]


def reasons_of(rows: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """(status, reason) -> the backends, a graph that is written without fused operators among them."""
    found: dict[tuple[str, str], list[str]] = {}
    for backend, row in rows.items():
        if row.get("reason"):
            found.setdefault((row["status"], shortened(row["reason"])), []).append(backend)
        if row.get("fallback"):
            found.setdefault(("not fused", shortened(row["fallback"])), []).append(backend)
    return found


def shortened(reason: str, most: int = 400) -> str:
    """The begin of a reason; its brackets are no links."""
    begin = reason if len(reason) <= most else f"{reason[:most]} ..."
    return begin.replace("[", "\\[")


def class_of(dotted: str) -> str:
    return dotted.rsplit(".", 1)[-1]


def how(converter: Any) -> str:
    if converter is None:
        return "no"
    return "traced" if converter.__name__ == "convert_traced" else "yes"


def marks(shown: Mapping[str, Any]) -> str:
    names = ", ".join(name for name, show in shown.items() if show)
    return f" ({names})" if names else ""


def architectures(rows: Mapping[str, Any], tested: Mapping[str, Any], in_torch: Collection[str]) -> list[list[str]]:
    return [
        [
            f"`{name}`",
            tokenizer["kind"],
            tokenizer.get("padding_side", "right"),
            pooling,
            *(str(tested[name].expected["attention"][column]) for column in ("found", "fused")),
            "yes" if name in in_torch else "",
        ]
        for name, (_, tokenizer, pooling) in rows.items()
    ]


def broken_links() -> Iterator[str]:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if "://" in link:
                continue
            if not target.exists():
                yield f"{page.relative_to(ROOT)}: {link} does not exist"
            elif anchor and anchor not in anchors(target):
                yield f"{page.relative_to(ROOT)}: {link} has no such heading"


def anchors(page: Path) -> set[str]:
    """The headings as links name them: lower case, spaces to hyphens, punctuation dropped."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def keywords_module() -> list[str]:
    """The flat keywords of every public verb as a TypedDict, which type checkers and editors read."""
    from sbertconv.options import VERBS, fields_of

    lines = [
        '"""The keywords of the public verbs, for type checkers: docs/generate.py writes this file from',
        "`sbertconv.options`.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Sequence",
        "from typing import TypedDict",
        "",
        "Names = Sequence[str]",
        "Shape = tuple[int, int]",
    ]
    for verb in VERBS:
        name = "".join(part.title() for part in verb.split("_"))
        lines += ["", "", f"class {name}(TypedDict, total=False):", f'    """Options of `{verb}`."""', ""]
        for key, (entry, _) in fields_of(verb).items():
            lines += [f"    {key}: {entry.type}"]
    return lines


CONSUMER_FOLDERS = {  # format, whether strings go in -> a folder that docs/consumers.md makes
    ("onnx", False): "minilm",
    ("onnx", True): "minilm-text",
    ("openvino", False): "minilm-openvino",
    ("saved_model", False): "minilm-tf",
    ("saved_model", True): "minilm-tf-text",
    ("litert", False): "minilm-tf",
    ("torch", False): "minilm-torch",
}
TAKE_STRINGS = {"oracle", "duckdb", "postgresql", "clickhouse", "bigquery"}
MADE = """`{folder}` is made in [consumers.md](../consumers.md). A model that the software would get wrong is refused
by name; else every answer by its own rule is that of the folder, or nothing is published."""
CONVERTED_FOR = {  # what needs outputs that a folder does not have by default
    "sentence-transformers": ("to-onnx", "all-MiniLM-L6-v2"),
    "sentence-transformers-openvino": ("to-openvino", "all-MiniLM-L6-v2"),
}
RUN_ELSEWHERE = {
    "litert-int8": "`tests/test_consumer_rows.py` runs it with TensorFlow's LiteRT 2.21, on a tiny model.",
    "openvino-model-server": "Not run. It reads what [openvino-genai](openvino-genai.md) reads, which is run.",
}
NEED_MORE = dict.fromkeys(("openvino-genai", "openvino-model-server"), "it needs sbertconv[genai]")


def consumer_pages() -> dict[str, list[str]]:
    """A page for each consumer: name -> its lines."""
    from sbertconv.consumers import default_consumers

    table = default_consumers()
    return {name: consumer_page(name, table.rows(name)) for name in table.names}


def consumer_page(name: str, rows: Mapping[str, Any]) -> list[str]:
    """Its rows, how a folder is made for it and opened, and with which version it was run."""
    from sbertconv.consumers.opening import opens

    first = next(iter(rows.values()))
    folder = CONSUMER_FOLDERS[first.form, name in TAKE_STRINGS]
    made, source = CONVERTED_FOR.get(name, ("pack", folder))
    command = f"    sbertconv {made} {source} packed-{name} --for {name}"
    lines = [f"# {name}", "", *table(["model", "what it reads"], [[kind, row.reads] for kind, row in rows.items()]), ""]
    lines += [f"<!-- not run: {NEED_MORE[name]} -->", ""] if name in NEED_MORE else []
    lines += [command, "", *MADE.format(folder=folder).splitlines(), "", "## Open it"]
    for kind in rows:
        if found := opens(name, kind):
            why = "the real software is run by `make test-clients`" if clients_of(name) else "it is not had here"
            lines += ["", *([f"{kind}:", ""] if len(rows) > 1 else [])]
            lines += [f"<!-- not run: {why} -->", "", f"```{found[0]}", *found[1].splitlines(), "```"]
    lines += ["", "## Run", ""]
    if found := clients_of(name):
        lines += ["`make test-clients` runs it on converted folders and compares with `encode()`:", ""]
        versions = [
            [", ".join(one.dependencies) or "a program in C", f"tests/clients/{one.file.name}"] for one in found
        ]
        return lines + table(["version", "what is run"], versions)
    if name in RUN_ELSEWHERE:
        return [*lines, RUN_ELSEWHERE[name]]
    return [
        *lines,
        "Not run: no package of the registries has it. Its rule was written from its source and reference, and",
        "runs in every `pack`.",
    ]


def clients_of(name: str) -> list[Any]:
    """The clients that run a consumer."""
    import importlib.util

    if "clients_run" not in sys.modules:
        spec: Any = importlib.util.spec_from_file_location("clients_run", ROOT / "tests/clients/run.py")
        sys.modules["clients_run"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["clients_run"])
    return [one for one in sys.modules["clients_run"].clients(own=True) if one.consumer == name]


PAGES = {
    "docs/cli.md": cli_page,
    "docs/manifest.md": manifest_page,
    "docs/support.md": support_page,
    "docs/architectures.md": architectures_page,
}
MODULES = {"sbertconv/keywords.py": keywords_module}


def main() -> int:
    """Write the pages, or with --check name what is wrong; returns the exit code."""
    pages = {ROOT / name: "\n".join([NOTICE, "", *make()]) + "\n" for name, make in PAGES.items()}
    pages |= {ROOT / name: "\n".join(make()) + "\n" for name, make in MODULES.items()}
    for name, lines in consumer_pages().items():
        pages[ROOT / f"docs/consumers/{name}.md"] = "\n".join([NOTICE, "", *lines]) + "\n"
    if "--check" not in sys.argv:
        for path, text in pages.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return 0
    problems = [
        f"{path.relative_to(ROOT)}: stale, run python docs/generate.py"
        for path, text in pages.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    problems += broken_links()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
