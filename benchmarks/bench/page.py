"""Renders a benchmark as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .records import Record
from .sections import headline, sections

TEMPLATE = Path(__file__).with_name("page.html")


def render(records: Sequence[Record], chart: bytes | None) -> str:
    """Render headline, chart (a PNG file's bytes) and tables."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE.name).render(
        headline=headline(records),
        chart=None if chart is None else base64.b64encode(chart).decode(),
        sections=sections(records),
    )
