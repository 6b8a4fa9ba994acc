"""Ratios, gains and the chart of the comparison benchmark, from a small result. The benchmark itself runs by hand."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from e2e.bench.chart import chart, number
from e2e.bench.figures import Metric, Spread, agreement, compare

SPEED = Metric("decode_tps", "decode", "tokens/s", higher_is_better=True)
TIME = Metric("first_token_s", "page to first token", "s")
MADE = Metric("buffers", "buffers made per token", "")


def test_ratios_are_taken_run_by_run() -> None:
    ours = [
        {"decode_tps": 20.0, "first_token_s": 2.0, "buffers": 0.0},
        {"decode_tps": 40.0, "first_token_s": 1.0, "buffers": 0.0},
    ]
    stock = [
        {"decode_tps": 10.0, "first_token_s": 8.0, "buffers": 3.0},
        {"decode_tps": 4.0, "first_token_s": 10.0, "buffers": 3.0},
    ]
    speed, time, made = compare([SPEED, TIME, MADE], ours, stock)
    assert (speed.ours, speed.stock) == (Spread(30, 20, 40), Spread(7, 4, 10))
    assert speed.ratio == speed.gain == Spread(6, 2, 10)
    assert time.ratio == Spread(pytest.approx(0.175), 0.1, 0.25)
    assert time.gain == Spread(pytest.approx(1 / 0.175), 4, 10)
    assert made.ratio == Spread(0, 0, 0)
    assert made.gain is None


def test_there_is_no_ratio_to_nothing() -> None:
    (made,) = compare([MADE], [{"buffers": 1.0}], [{"buffers": 0.0}])
    assert made.ratio is None and made.gain is None


def test_runs_come_in_pairs() -> None:
    with pytest.raises(ValueError):
        compare([SPEED], [{"decode_tps": 1.0}], [])


def test_agreement_ends_at_the_first_difference() -> None:
    assert agreement([[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 5]]) == (5, 5)
    assert agreement([[1, 2, 3], [4, 5]], [[1, 9, 3], [4, 5]]) == (3, 5)


def test_the_chart_shows_bars_values_and_gains() -> None:
    comparisons = compare(
        [SPEED, TIME, MADE],
        [{"decode_tps": 20.0, "first_token_s": 2.0, "buffers": 0.0}],
        [{"decode_tps": 10.0, "first_token_s": 8.0, "buffers": 3.0}],
    )
    root = ElementTree.fromstring(chart(comparisons, "Ours & theirs", "on <one> adapter"))
    space = "{http://www.w3.org/2000/svg}"
    bars = [(bar.get("class"), float(bar.get("width", 0))) for bar in root.iter(f"{space}rect")][2:]  # after the legend
    longest = max(width for _, width in bars)
    assert [side for side, _ in bars] == ["ours", "stock"] * 3
    assert [round(width / longest, 2) for _, width in bars] == [1, 0.5, 0.25, 1, 0, 1]
    texts = [text.text for text in root.iter(f"{space}text")]
    assert "Ours & theirs" in texts and "on <one> adapter" in texts
    assert [text for text in texts if text and text.endswith("×")] == ["2×", "4×"]
    assert "20 tokens/s" in texts and "8 s" in texts
    right = float(root.get("viewBox", "").split()[2])
    assert all(float(text.get("x", 0)) < right for text in root.iter(f"{space}text"))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.1234, "0.123"), (15.39, "15.4"), (999.6, "1,000"), (12345, "12,345")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
