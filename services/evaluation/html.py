"""A page for people that is one HTML file and needs nothing else: its style, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import compress

_STYLE = """
:root { color-scheme: light dark; --ground: #f5f6f8; --surface: #fff; --ink: #151a20; --quiet: #566270;
  --line: #dde2e8;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  font-variant-numeric: tabular-nums; }
@media (prefers-color-scheme: dark) { :root { --ground: #0b0f13; --surface: #12181f; --ink: #e8edf2;
  --quiet: #98a5b3; --line: #242d37; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--ink); }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p, ul { margin: .5rem 0; max-width: 46rem; }
ul { padding-left: 1.2rem; }
.quiet, figcaption, .box p { color: var(--quiet); font-size: .87rem; }
.box { background: var(--surface); border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
.box p { margin: 0; padding: .6rem .55rem; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .28rem .55rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--surface); }
thead th { border-bottom: 1px solid var(--line); font-weight: 600; }
tbody th { font-weight: 400; }
figure { margin: 1rem 0; padding: .75rem; background: var(--surface); border: 1px solid var(--line);
  border-radius: 6px; }
svg { display: block; width: 100%; height: auto; }
"""


def page(title: str, body: str, style: str = "") -> str:
    """The document, for a body in HTML below the title, which is text. `style` is added to what all pages have."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}</body>\n</html>\n"
    )


def html_table(heads: Iterable[str], rows: Iterable[tuple[str, Sequence[str], str]], caption: str) -> str:
    """Rows are a name, figures, and a class of the style. Columns without a figure are left out."""
    first, *others = heads
    rows = list(rows)
    told = [any(figures[column] for _, figures, _ in rows) for column in range(len(others))]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in (first, *compress(others, told)))
    body = "".join(
        f'<tr class="{kind}"><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(figure)}</td>" for figure in compress(figures, told))
        + "</tr>\n"
        for name, figures, kind in rows
    )
    return (
        f'<div class="box"><div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n<p>{escape(caption)}</p></div>\n"
    )
