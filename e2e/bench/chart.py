"""Draws comparisons as an SVG bar chart that reads on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from e2e.bench.figures import Comparison

_WIDTH, _LABEL, _BARS = 840, 200, 390
_ROW, _BAR, _TOP, _BOTTOM = 44, 13, 76, 30
_STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-size: 16px; font-weight: 600 }
    .soft { fill: #59636e; font-size: 12px }
    .gain { font-weight: 600 }
    .ours { fill: #0969da }
    .stock { fill: #afb8c1 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .soft { fill: #9198a1 }
      .ours { fill: #4493f8 }
      .stock { fill: #59636e }
    }"""


def chart(comparisons: Sequence[Comparison], title: str, subtitle: str) -> str:
    """An SVG document: per metric a bar for ours and one for stock, the longer one full width, and the gain beside them."""
    height = _TOP + _ROW * len(comparisons) + _BOTTOM
    label = f"{title}. {subtitle}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">',
        f"  <style>{_STYLE}\n  </style>",
        _text(16, 28, title, "title"),
        _text(16, 48, subtitle, "soft"),
        f'  <rect class="ours" x="{_LABEL}" y="58" width="10" height="10" rx="2"/>',
        _text(_LABEL + 15, 67, "webcompile", "soft"),
        f'  <rect class="stock" x="{_LABEL + 100}" y="58" width="10" height="10" rx="2"/>',
        _text(_LABEL + 115, 67, "stock TVM", "soft"),
        _text(_WIDTH - 16, 67, "times better (min to max)", "soft", "end"),
    ]
    for row, comparison in enumerate(comparisons):
        parts += _row(_TOP + _ROW * row, comparison)
    note = "Bars: medians, each pair on a scale of its own. Below the label: which way is better."
    parts += [_text(16, height - 10, note, "soft"), "</svg>\n"]
    return "\n".join(parts)


def _row(top: int, comparison: Comparison) -> list[str]:
    metric, gain = comparison.metric, comparison.gain
    better = "more is better" if metric.higher_is_better else "less is better"
    longest = max(comparison.ours.median, comparison.stock.median) or 1
    parts = [_text(16, top + 18, metric.label, ""), _text(16, top + 34, better, "soft")]
    for index, (side, figure) in enumerate((("ours", comparison.ours), ("stock", comparison.stock))):
        y, width = top + 6 + index * (_BAR + 3), figure.median / longest * _BARS
        parts.append(f'  <rect class="{side}" x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>')
        value = f"{number(figure.median)} {metric.unit}".strip()
        parts.append(_text(_LABEL + width + 6, y + 11, value, "soft"))
    if gain is not None:
        parts.append(_text(_WIDTH - 16, top + 18, f"{number(gain.median)}×", "gain", "end"))
        parts.append(_text(_WIDTH - 16, top + 34, f"{number(gain.min)} to {number(gain.max)}", "soft", "end"))
    return parts


def number(value: float) -> str:
    """Three significant digits, with separators of thousands from a thousand on."""
    if value >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    end = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'  <text{kind}{end} x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'
