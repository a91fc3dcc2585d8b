"""Renders a benchmark as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from .records import Record
from .section import Section
from .sections import headline, sections

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1e1e1e; max-width: 62em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: .3em 0 }
td, th { padding: .15em .9em .15em 0; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td:first-child, th:first-child { text-align: left }
th { border-bottom: 1px solid #999; font-weight: 600 }
h2 { font-size: 1.1em; margin: 1.6em 0 .2em }
p.note { color: #666; margin: .2em 0 }
img { max-width: 100% }
"""


def render(records: Sequence[Record], chart: Image.Image | None) -> str:
    """Render headline, chart and tables."""
    parts = [
        "<!doctype html>",
        '<meta charset="utf-8">',
        "<title>kontext-trt bench</title>",
        f"<style>{_STYLE}</style>",
    ]
    parts.append("<h1>kontext-trt bench</h1>")
    parts += [f"<p>{html.escape(line)}</p>" for line in headline(records)]
    if chart is not None:
        buffer = io.BytesIO()
        chart.save(buffer, "PNG", optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append(f'<img alt="milliseconds of each stage, a bar an engine" src="data:image/png;base64,{data}">')
    parts += [part for section in sections(records) for part in _section(section)]
    return "\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.rows:
        parts += ["<table>", _row("th", section.columns), *(_row("td", row) for row in section.rows), "</table>"]
    if section.note:
        parts.append(f'<p class="note">{html.escape(section.note)}</p>')
    return parts


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
