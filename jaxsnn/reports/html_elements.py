"""Pieces of an HTML page that needs nothing else: style, tables, figures as data, the page itself."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --page: #f4f4f2; --card: #ffffff; --text: #1c1c1c; --quiet: #5c5c5c;
  --line: #dcdcd8; --strong: #1a5fb4; }
@media (prefers-color-scheme: dark) { :root { --page: #0d0d0d; --card: #191919; --text: #e6e6e6; --quiet: #a3a3a3;
  --line: #383838; --strong: #8ab4f8; }
  /* figures are drawn on white: turned over, hues kept, their ground becomes the card's */
  figure img { filter: invert(0.9) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 0.5rem; }
h3 { font-size: 1rem; margin: 1rem 0 0.25rem; }
p { margin: 0.5rem 0; }
.quiet, figcaption { color: var(--quiet); font-size: 0.9rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 0.5rem; padding: 1rem;
  margin: 1rem 0; }
figure { margin: 1rem 0 0; }
figcaption { margin-top: 0.25rem; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.table { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tr.own td { font-weight: 600; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
.value { overflow-wrap: anywhere; }
li { margin: 0.25rem 0; }
@media (max-width: 40rem) { body { padding: 0.5rem; } section { padding: 0.75rem; } table { font-size: 0.8rem; }
  th, td { padding-right: 0.5rem; } }
summary { cursor: pointer; color: var(--strong); }
"""


def page(title: str, sections: Iterable[str]) -> str:
    """The whole page; ``title`` is text, ``sections`` are HTML."""
    body = "\n".join(f"<section>{section}</section>" for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    numbers: Iterable[int] = (),
    own: Iterable[int] = (),
) -> str:
    """A table of text.

    Args:
        numbers: columns that are set to the right.
        own: rows that stand out.
    """
    right, bold = set(numbers), set(own)

    def cells(tag: str, values: Sequence[str]) -> str:
        classes = (' class="number"' if i in right else "" for i in range(len(values)))
        return "".join(f"<{tag}{c}>{escape(str(v))}</{tag}>" for c, v in zip(classes, values))

    starts = ('<tr class="own">' if i in bold else "<tr>" for i in range(len(rows)))
    body = "".join(f"{start}{cells('td', row)}</tr>" for start, row in zip(starts, rows))
    note = quiet(caption) if caption else ""
    return f'{note}<div class="table"><table><tr>{cells("th", headings)}</tr>{body}</table></div>'


def quiet(text: str) -> str:
    """A paragraph that does not stand out."""
    return f'<p class="quiet">{escape(text)}</p>'


def details(summary: str, content: str, shown: bool = False) -> str:
    """HTML that is unfolded by a click, or may be folded by one."""
    return f"<details{' open' * shown}><summary>{escape(summary)}</summary>{content}</details>"


def figure(path: Path, title: str, reading: str) -> str:
    """A PNG file with its caption; nothing where there is no such file."""
    if not path.is_file():
        return ""
    image = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{image}">'
        f"<figcaption><b>{escape(title)}</b> {escape(reading)}</figcaption></figure>"
    )
