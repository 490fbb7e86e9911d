"""The pages as a reader sees them, in headless Chromium: on a phone and a desktop, light and dark. `make site` runs it.

With SHOTS=<folder> it leaves a picture of each page there.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from chromium import PROGRAM, Page, chromium
from conftest import ROOT

from sbertconv.benchmark.report import QUANTITIES

SITE = ROOT / "build/site"
pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(PROGRAM is None, reason="chromium is missing"),
    pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built: make site"),
]
WIDTHS, SCHEMES = (400, 1280), ("light", "dark")
LOOKED_AT = ("index", "quickstart", "tensorflow", "cli", "api", "benchmarks", "support", "names", "consumers/fastembed")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """No line for each file."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium") / "profile") as found:
        yield found


def shot(page: Page, name: str, whole: bool = False) -> None:
    if folder := os.environ.get("SHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.picture(Path(folder) / f"{name.replace('/', '-')}.png", whole)


def is_dark(page: Page) -> bool:
    colour = page.run("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour.partition("(")[2].rstrip(")").split(",")[:3])) < 3 * 128


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_the_screen_in_light_and_dark(width: int, scheme: str, page: Page, address: str) -> None:
    for name in LOOKED_AT:
        page.open(f"{address}{name}.html", width, scheme=scheme)
        shot(page, f"{name}-{width}-{scheme}")
        over = page.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{name}: {over} pixels are beside the screen"
        assert is_dark(page) == (scheme == "dark"), name
        assert page.run("document.querySelector('article h1').innerText.trim().length") > 2


@pytest.mark.parametrize("width", WIDTHS)
def test_search_finds_the_page_of_an_option(width: int, page: Page, address: str) -> None:
    page.open(f"{address}index.html", width)
    if width < 600:  # behind the magnifying glass
        page.run("document.querySelector('label[for=__search]').click()")
    page.run("document.querySelector('.md-search__input').focus()")
    page.ask("Input.insertText", text="truncate-dim")
    page.wait("document.querySelectorAll('.md-search-result__item a').length > 0")
    shot(page, f"search-{width}")
    found = page.run("[...document.querySelectorAll('.md-search-result__item a')].map(one => one.getAttribute('href'))")
    assert any("cli.html" in link or "onnx.html" in link for link in found), found


def test_every_link_leads_somewhere(page: Page, address: str) -> None:
    broken = []
    for file in sorted(SITE.rglob("*.html")):
        name = file.relative_to(SITE).as_posix()
        page.open(f"{address}{name}", 1280)
        for link in page.run("[...document.querySelectorAll('a[href]')].map(one => one.getAttribute('href'))"):
            parts = urlsplit(urljoin(f"{address}{name}", link))
            if f"http://{parts.netloc}/" != address:
                continue
            target = SITE / (unquote(parts.path).lstrip("/") or "index.html")
            target = target / "index.html" if target.is_dir() else target
            if name != "404.html" and not target.is_file():
                broken.append((name, link))
            elif parts.fragment and target == file:
                there = page.run(f"document.getElementById({unquote(parts.fragment)!r}) !== null")
                if not there and parts.fragment != "__skip":
                    broken.append((name, link))
    assert not broken


def test_a_reader_can_change_to_dark(page: Page, address: str) -> None:
    page.open(f"{address}index.html", 1280, scheme="light")
    for name, dark in (("Light", False), ("Dark", True), ("As the system", False)):
        page.run(f"document.querySelector('label[title={json.dumps(name)}]').click()")
        assert is_dark(page) == dark, name


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_of_a_bench_has_every_figure_in_sight(width: int, scheme: str, page: Page, tmp_path: Path) -> None:
    from test_benchmark import page_of

    (tmp_path / "bench.html").write_text(page_of(3), encoding="utf-8")
    page.open((tmp_path / "bench.html").as_uri(), width, scheme=scheme)
    shot(page, f"bench-{width}-{scheme}", whole=True)
    assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert is_dark(page) == (scheme == "dark")
    cells = page.run(
        "[...document.querySelector('tbody tr:last-child').cells].map(cell => {"
        " const place = cell.getBoundingClientRect();"
        " return [cell.dataset.name ?? '', place.left >= 0 && place.right <= innerWidth]; })"
    )
    names = {quantity.name for quantity in QUANTITIES.values()}
    assert names <= {name for name, _ in cells}
    if width < 600:
        assert all(inside for _, inside in cells), cells
    else:  # the table may be scrolled, and says so by being cut
        assert page.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "auto"
