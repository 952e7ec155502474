"""A report as sections of plain text, tables and pictures, and that as Markdown or as one self-contained HTML file.

Texts are plain, but for names of flags and files between backticks. Everything else is escaped: class names come from
data sets.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..common.markdown import marked
from ..common.tables import markdown_table


@dataclass(frozen=True)
class Picture:
    """A PNG file by its name without the ending, and the same for dark pages where there is one.

    `alt` says what it shows, for people who cannot see it.
    """

    name: str
    png: bytes
    alt: str
    dark: bytes = b""


@dataclass(frozen=True)
class Table:
    """A table with a heading row; the first `text_columns` columns are text, the others figures, set to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and what is below it: text, pictures, tables, in this order."""

    title: str
    text: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Page:
    """A whole report: its title and its sections in order."""

    title: str
    sections: Sequence[Section]


# ---- Markdown ----


def as_markdown(page: Page) -> str:
    """The page as Markdown, with links to the pictures, which lie beside it as `<name>.png`."""
    parts = [f"# {marked(page.title)}"]
    for section in page.sections:
        parts.append(f"## {marked(section.title)}")
        parts += map(marked, section.text)
        parts += [f"![{marked(picture.alt)}]({picture.name}.png)" for picture in section.pictures]
        for table in section.tables:
            parts += [f"{marked(table.caption)}:"] if table.caption else []
            rows = [[marked(cell) for cell in row] for row in table.rows]
            parts.append(markdown_table([marked(name) for name in table.head], rows, table.text_columns))
    return "\n\n".join(parts) + "\n"


# ---- HTML ----

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #fff; --soft: #5b6570; --line: #d5dae0; --code: #f0f2f5 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7eb; --back: #15181c; --soft: #9aa4af; --line: #343b43; --code: #242a31 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 46rem; color: var(--text); background: var(--back);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.25 }
h2 { font-size: 1.2rem; margin-top: 2.5rem; padding-top: .8rem; border-top: 1px solid var(--line) }
nav { font-size: .9rem; line-height: 2 }
nav a { margin-right: 1rem; white-space: nowrap }
a { color: inherit }
code { background: var(--code); padding: .1em .3em; border-radius: .25em; font-size: .9em; overflow-wrap: anywhere }
img { display: block; width: 100%; height: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: .4rem }
.table { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
.figure { text-align: right; white-space: nowrap }
"""


def as_html(page: Page) -> str:
    """The page as one HTML file with the pictures inside; nothing is fetched when it is opened."""
    title = _escaped(page.title)
    links = " ".join(
        f'<a href="#s{number}">{_escaped(section.title)}</a>' for number, section in enumerate(page.sections)
    )
    body = "\n".join(_section(number, section) for number, section in enumerate(page.sections))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(page.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"<nav>{links}</nav>\n{body}\n</body>\n</html>\n"
    )


def _section(number: int, section: Section) -> str:
    lines = [f'<section id="s{number}">', f"<h2>{_escaped(section.title)}</h2>"]
    lines += [f"<p>{_escaped(text)}</p>" for text in section.text]
    lines += map(_picture, section.pictures)
    lines += map(_table, section.tables)
    return "\n".join([*lines, "</section>"])


def _picture(picture: Picture) -> str:
    source = '<source media="(prefers-color-scheme: dark)" srcset="{}">' if picture.dark else ""
    source = source.format(_address(picture.dark))
    return f'<picture>{source}<img src="{_address(picture.png)}" alt="{html.escape(picture.alt)}"></picture>'


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _table(table: Table) -> str:
    caption = f"<caption>{_escaped(table.caption)}</caption>" if table.caption else ""
    head = f"<thead><tr>{_cells('th', table.head, table.text_columns)}</tr></thead>\n" if any(table.head) else ""
    rows = "\n".join(f"<tr>{_cells('td', row, table.text_columns)}</tr>" for row in table.rows)
    return f'<div class="table"><table>{caption}\n{head}<tbody>\n{rows}\n</tbody></table></div>'


def _cells(tag: str, cells: Sequence[str], text_columns: int) -> str:
    return "".join(
        f"<{tag}{'' if column < text_columns else ' class=figure'}>{_escaped(cell)}</{tag}>"
        for column, cell in enumerate(cells)
    )


def _escaped(text: str) -> str:
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"<code>\1</code>", html.escape(text))
