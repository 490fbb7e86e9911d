"""A report as one HTML file: tables, and charts drawn here as inline SVG. It loads nothing and runs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from sbertconv.benchmark.report import FEWEST_ROUNDS, METHOD, BenchReport, Figure, Table, cell, place_name

MOST_NINES = 7  # float32 has no more digits
ROW, BAR = 58, 14  # pixels: one bar with its name above and its ratio below it, and the bar alone
FULL_BAR = 60  # percent of the width; the rest is for the figure
WIDTH, HEIGHT = 340, 230  # of a line chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 34  # of its axes
STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1a1d21; --soft: #5c6670; --line: #d9dee3;
  --track: #edf0f2; --c0: #6b7580; --c1: #2563b8; --c2: #c2560a; --c3: #15803d; --c4: #9333b8; --c5: #b8860b;
  --c6: #c02660; --c7: #0e7c86; --c8: #6d4c2f; --c9: #4f46c8; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1e2226; --text: #e6e9ec; --soft: #a0a9b2;
  --line: #363c42; --track: #2a2f34; --c0: #98a2ac; --c1: #6aa5f0; --c2: #f09a55; --c3: #5cc482; --c4: #cf8cec;
  --c5: #e0b84a; --c6: #f07aa5; --c7: #4cc3cd; --c8: #c9a27e; --c9: #a39cf5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 1120px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 8px 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; line-height: 1.35; margin: 0 0 10px; }
p { margin: 4px 0; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: 13px; }
.charts { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px; margin: 16px 0;
  min-width: 0; }
.charts .card { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 6px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); font-size: 13px; white-space: normal; }
thead th { vertical-align: bottom; }
tr:last-child > * { border-bottom: 0; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); color: var(--text);
  white-space: normal; overflow-wrap: break-word; min-width: 96px; max-width: 240px; }
td small { display: block; color: var(--soft); font-size: 12px; white-space: normal; min-width: 6em; }
.spread { stroke: var(--text); stroke-width: 1.5; }
@media (max-width: 640px) {
  thead { display: none; }
  table, tbody, tr, td, th:first-child { display: block; max-width: none; }
  tr { padding: 8px 0; border-bottom: 1px solid var(--line); }
  th, td { border: 0; padding: 3px 0; white-space: normal; }
  td { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 12px; }
  td::before { content: attr(data-name); color: var(--soft); }
  td small { width: 100%; }
}
svg { display: block; width: 100%; font-size: 12px; }
svg.lines { height: auto; max-width: 560px; }
text { fill: var(--text); }
text.soft { fill: var(--soft); font-size: 11px; }
.axis { stroke: var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin-top: 8px; font-size: 12px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
"""


def html_page(report: BenchReport) -> str:
    """The whole page, UTF-8."""
    headline, *grids = report.tables()
    title = f"{report.model}: PyTorch and its conversions"
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="soft">{escape(line)}</p>' for line in report.description),
        card(headline.title, table(headline)),
        f'<div class="charts">{"".join(charts(report))}</div>',
        *(card(grid.title, table(grid)) for grid in grids),
        f'<p class="soft">{escape(METHOD)}</p>',
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def charts(report: BenchReport) -> Iterator[str]:
    """Bars of what there is one figure of, lines of what was measured over lengths."""
    mixed, shortest = {"batch_size": max(report.settings["batch_sizes"])}, report.places("latency_p50")[0]
    told = any(figure.is_told for figure in report.select("texts_per_second", **mixed).values())
    beside, throughput = (" beside PyTorch", ratio) if told else ("", absolute)
    for title, quantity, place, length in (
        (f"Throughput{beside}, mixed lengths (longer is better)", "texts_per_second", mixed, throughput),
        (f"Median latency, {place_name(shortest)} (shorter is better)", "latency_p50", shortest, absolute),
        ("Start of a process to its first embedding (shorter is better)", "first_embedding", {}, absolute),
        ("Peak memory (shorter is better)", "peak_memory", {}, absolute),
        ("Size on disk (shorter is better)", "size_on_disk", {}, absolute),
        ("Smallest cosine with PyTorch (length: how many nines)", "min_cosine", {}, nines),
    ):
        yield card(title, bars(report.select(quantity, **place), length))
    by_batch: dict[int | None, list[int]] = {}
    for place in report.places("texts_per_second"):
        if place["length"]:
            by_batch.setdefault(place["batch_size"], []).append(place["length"])
    for batch_size, lengths in by_batch.items():
        for title, quantity in (
            ("Tokens per second", "tokens_per_second"),
            ("Share of the limit, %", "share_of_limit"),
        ):
            yield over_lengths(report, f"{title}, batches of {batch_size}", quantity, lengths, batch_size)
    lengths = [place["length"] for place in report.places("latency_p50") if place["length"]]
    for title, quantity in (("median", "latency_p50"), ("95th percentile", "latency_p95")):
        yield over_lengths(report, f"Latency of one text, {title}, ms", quantity, lengths, 1)


def card(title: str, content: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2>{content}</section>'


def table(content: Table) -> str:
    """The first column stays in sight where the rest has to be scrolled; on a phone each row is a list of its cells."""
    header = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in ("", *content.header))
    rows = (
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td data-name="{escape(heading)}">{escape(one.value)}<small>{escape(one.ratio)}</small></td>'
            for heading, one in zip(content.header, cells, strict=True)
        )
        + "</tr>"
        for name, cells in content.rows
    )
    return f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def absolute(figure: Figure) -> float:
    return figure.value


def ratio(figure: Figure) -> float:
    return figure.ratio or 0.0


def nines(figure: Figure) -> float:
    """0.999 has three."""
    return min(MOST_NINES, max(0.0, -math.log10(max(1 - figure.value, 10.0**-MOST_NINES))))


def color(index: int) -> str:
    return f"var(--c{index % 10})"


def bars(figures: Mapping[str, Figure], length: Callable[[Figure], float]) -> str:
    """A name, and beneath it a bar and its figure, per contestant; widths are shares, so that text keeps its size."""
    spreads = {name: spread_of(figure, length) for name, figure in figures.items()}
    longest = max(*map(length, figures.values()), *(high for _, high in spreads.values()), 0.0) or 1.0
    marks = []
    for index, (name, figure) in enumerate(figures.items()):
        written = cell(figure)
        y, share = index * ROW, length(figure) / longest
        marks += [
            f'<text x="0" y="{y + 14}">{escape(name)}</text>',
            *(
                f'<rect x="0" y="{y + 20}" width="{width:.2f}%" height="{BAR}" rx="3" fill="{fill}"/>'
                for width, fill in ((FULL_BAR, "var(--track)"), (FULL_BAR * share, color(index)))
            ),
            f'<text x="100%" y="{y + 20 + BAR - 3}" text-anchor="end">{escape(written.value)}</text>',
            f'<text class="soft" x="0" y="{y + 20 + BAR + 13}">{escape(written.ratio)}</text>',
        ]
        low, high = (FULL_BAR * end / longest for end in spreads[name])
        if low < high:
            middle = y + 20 + BAR / 2
            marks.append(f'<line class="spread" x1="{low:.2f}%" x2="{high:.2f}%" y1="{middle}" y2="{middle}"/>')
    return f'<svg height="{ROW * len(figures)}" role="img">{"".join(marks)}</svg>'


def spread_of(figure: Figure, length: Callable[[Figure], float]) -> tuple[float, float]:
    """From the least to the most of the rounds, as long as the bar; (0, 0) without enough of them."""
    if len(figure.rounds) < FEWEST_ROUNDS or length is nines:
        return 0.0, 0.0
    return (figure.spread or (0.0, 0.0)) if length is ratio else (min(figure.rounds), max(figure.rounds))


def over_lengths(report: BenchReport, title: str, quantity: str, lengths: Sequence[int], batch_size: int | None) -> str:
    """A line per contestant over the lengths of texts."""
    found = [report.select(quantity, length=length, batch_size=batch_size) for length in lengths]
    series = {name: [figures[name] for figures in found] for name in report.names}
    return card(title, lines(lengths, series) + legend(report.names))


def lines(xs: Sequence[int], series: Mapping[str, Sequence[Figure]]) -> str:
    """Lines over tokens per text, these on a logarithmic axis, values from 0; each point with the rounds' own."""
    tops = (max(figure.value, spread_of(figure, absolute)[1]) for figures in series.values() for figure in figures)
    highest, step = scale(max(tops))
    low, high = math.log(min(xs)), math.log(max(xs))

    def x_of(x: float) -> float:
        share = (math.log(x) - low) / (high - low) if high > low else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y_of(y: float) -> float:
        return HEIGHT - BOTTOM - y / highest * (HEIGHT - TOP - BOTTOM)

    marks = []
    for count in range(round(highest / step) + 1):
        y = y_of(count * step)
        marks.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text class="soft" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{count * step:,.6g}</text>')
    for x in xs:
        marks.append(f'<text class="soft" x="{x_of(x):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{x}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    marks.append(f'<text class="soft" x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">tokens per text</text>')
    for index, figures in enumerate(series.values()):
        points = [(x_of(x), y_of(figure.value)) for x, figure in zip(xs, figures, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{color(index)}" stroke-width="2"/>')
        marks += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color(index)}"/>' for x, y in points]
        for (place, _), figure in zip(points, figures, strict=True):
            bottom, top = map(y_of, spread_of(figure, absolute))
            if bottom > top:
                marks.append(
                    f'<line class="spread" x1="{place:.1f}" x2="{place:.1f}" y1="{bottom:.1f}" y2="{top:.1f}" '
                    f'style="stroke:{color(index)}"/>'
                )
    return f'<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(marks)}</svg>'


def scale(largest: float) -> tuple[float, float]:
    """The end of an axis from 0 and the distance of its marks, 1, 2 or 5 times a power of ten."""
    largest = largest or 1.0
    power = 10.0 ** math.floor(math.log10(largest / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * 5 >= largest)
    return step * math.ceil(largest / step), step


def legend(names: Sequence[str]) -> str:
    marks = (
        f'<span><i style="background:{color(index)}"></i>{escape(name)}</span>' for index, name in enumerate(names)
    )
    return f'<div class="legend">{"".join(marks)}</div>'
