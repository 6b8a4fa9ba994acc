"""A comparison as one HTML file without anything beside it."""

from __future__ import annotations

from pathlib import Path

import jinja2

from webcompile.compare.report import Report
from webcompile.compare.table import describe_splits

_TEMPLATE = Path(__file__).resolve().parent / "report.html.jinja"


def render_page(report: Report) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(report=report, describe_splits=describe_splits)
