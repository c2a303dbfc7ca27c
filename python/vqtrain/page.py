"""One self-contained HTML page: tables and pictures that open offline, anywhere, for good.

Pictures lie inside the page as base64. Nothing is fetched and nothing is executed.
"""

import base64
import html
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import NamedTuple

from vqtrain.files import write_atomic

Row = Sequence[str]
PANEL = 1000  # pixels; a picture that is wider has more than one panel


class Section(NamedTuple):
    """A heading, which may be empty, and the HTML under it."""

    title: str
    body: str


def write_page(
    path: Path, title: str, lead: str, sections: Sequence[Section], warnings: Sequence[str] = ()
) -> None:
    """Writes the page atomically.

    Args:
        path: HTML file to write.
        title: of the page, plain text.
        lead: one sentence under it, plain text.
        sections: in order; those without a body are left out.
        warnings: shown above everything else, plain text.
    """
    body = [f'<p class="warning">{html.escape(warning)}</p>' for warning in warnings]
    for section in sections:
        if section.body and section.title:
            body.append(f"<h2>{html.escape(section.title)}</h2>")
        body.append(section.body)
    template = resources.files("vqtrain") / "report_page.html"
    text = Template(template.read_text()).substitute(
        title=html.escape(title), lead=html.escape(lead), body="\n".join(body)
    )
    write_atomic(path, text.encode())


def table(head: Row, rows: Sequence[Row], caption: str = "") -> str:
    """A table whose first column names the rows; the others are numbers, aligned to the right.

    Args:
        head: names of the columns; empty for a table without a head.
        rows: plain text.
        caption: above the table, plain text.
    """
    if not rows:
        return ""
    lines = [f"<caption>{html.escape(caption)}</caption>"] if caption else []
    if head:
        lines.append(f"<thead>{_row(head, 'th', 'col')}</thead>")
    lines.append("<tbody>" + "".join(_row(row, "td", "row") for row in rows) + "</tbody>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def picture(path: Path, alt: str, caption: str = "") -> str:
    """A PNG inside the page; empty if there is no such file.

    One with more than a panel takes the whole width, and may be scrolled on a small screen.

    Args:
        path: PNG file.
        alt: what it shows, for those who cannot see it.
        caption: under the picture, plain text.
    """
    if not path.is_file():
        return ""
    content = path.read_bytes()
    wide = int.from_bytes(content[16:20], "big") > PANEL  # where a PNG tells its width
    data = base64.b64encode(content).decode()
    under = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    kind = ' class="wide"' if wide else ""
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
    return f'<figure{kind}><div class="scroll">{image}</div>{under}</figure>'


def side_by_side(*parts: str) -> str:
    """Parts next to each other where there is room; empty ones are left out."""
    present = [part for part in parts if part]
    if len(present) < 2:
        return "".join(present)
    return '<div class="columns">' + "".join(f"<div>{part}</div>" for part in present) + "</div>"


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """The few numbers that matter most: name, value, and what to hold it against."""
    return (
        '<dl class="tiles">'
        + "".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
            f'<dd class="note">{html.escape(against)}</dd></div>'
            for name, value, against in figures
        )
        + "</dl>"
    )


def listing(title: str, entries: Sequence[tuple[str, str]]) -> str:
    """Names and sentences, plain text."""
    lines = "".join(f"<li>{html.escape(n)}: {html.escape(text)}</li>" for n, text in entries)
    return f"<p>{html.escape(title)}:</p><ul>{lines}</ul>" if entries else ""


def note(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def folded(summary: str, text: str) -> str:
    """Preformatted text that a click unfolds."""
    inside = f"<summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre>"
    return f"<details>{inside}</details>"


def _row(cells: Row, tag: str, scope: str) -> str:
    first, *others = cells
    return (
        f'<tr><th scope="{scope}">{html.escape(first)}</th>'
        + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in others)
        + "</tr>"
    )
