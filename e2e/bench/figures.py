"""What is measured, and how two sides that were measured in turns compare."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One measured quantity. `higher_is_better` decides which way an improvement goes."""

    key: str
    label: str
    unit: str
    higher_is_better: bool = False


@dataclass(frozen=True)
class Spread:
    """Median and extremes of the repetitions."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Comparison:
    """A metric of both sides. `ratio` is ours / stock, repetition by repetition; None where the stock figure is 0."""

    metric: Metric
    ours: Spread
    stock: Spread
    ratio: Spread | None

    @property
    def gain(self) -> Spread | None:
        """How many times better ours is, whichever way is better; None where that is no number."""
        if self.ratio is None or self.metric.higher_is_better:
            return self.ratio
        if self.ratio.min <= 0:
            return None
        return Spread(1 / self.ratio.median, 1 / self.ratio.max, 1 / self.ratio.min)


def metrics(prompt_tokens: Sequence[int]) -> list[Metric]:
    """All metrics, speed first. Keys are those of `measure.measure_page`."""
    speed = []
    for length in prompt_tokens:
        speed.append(Metric(f"prefill_tps_{length}", f"prefill, {length} tokens", "tokens/s", True))
        speed.append(Metric(f"decode_tps_{length}", f"decode after {length}", "tokens/s", True))
    return [
        *speed,
        Metric("first_token_s", "page to first token", "s"),
        Metric("host_ms_per_token", "host time per token", "ms"),
        Metric("dispatches_per_token", "dispatches per token", ""),
        Metric("passes_per_token", "compute passes per token", ""),
        Metric("submits_per_token", "submits per token", ""),
        Metric("bytesWritten_per_token", "written per token", "bytes"),
        Metric("bytesRead_per_token", "read per token", "bytes"),
        Metric("buffers_per_token", "new buffers per token", ""),
        Metric("bindGroups_per_token", "new bind groups per token", ""),
        Metric("pipelines", "pipelines", ""),
        Metric("download_gzip_bytes", "JavaScript and wasm, gzip", "bytes"),
    ]


def compare(
    metrics: Sequence[Metric], ours: Sequence[Mapping[str, float]], stock: Sequence[Mapping[str, float]]
) -> list[Comparison]:
    """One comparison per metric. Repetition i of both sides ran next to each other."""
    comparisons = []
    for metric in metrics:
        of_ours, of_stock = [run[metric.key] for run in ours], [run[metric.key] for run in stock]
        ratios = [a / b for a, b in zip(of_ours, of_stock, strict=True) if b != 0]
        ratio = Spread.of(ratios) if len(ratios) == len(of_stock) else None
        comparisons.append(Comparison(metric, Spread.of(of_ours), Spread.of(of_stock), ratio))
    return comparisons


def agreement(ours: Sequence[Sequence[int]], stock: Sequence[Sequence[int]]) -> tuple[int, int]:
    """(equal, compared) greedy tokens over all answers. What follows a first difference answers another text."""
    equal = 0
    for mine, theirs in zip(ours, stock, strict=True):
        same = [a == b for a, b in zip(mine, theirs, strict=True)]
        equal += [*same, False].index(False)
    return equal, sum(map(len, ours))
