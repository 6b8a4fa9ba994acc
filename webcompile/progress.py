"""What a long command shows while it works: one stage at a time, with amount, rate and time left.

with progress.stage("download", total_nbytes) as stage:
    stage.advance(n)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_REDRAW_SECONDS = 0.1
_PLAIN_LINE_SECONDS = 10.0


class Stage:
    """One step of the work. `total` is 0 when the amount is not known beforehand."""

    def __init__(self, name: str, total: int, unit: str, redraw: Callable[[Stage], None], now: float) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0
        self.started = now
        self._redraw = redraw

    def advance(self, amount: int = 1) -> None:
        """Counts `amount` more bytes or items as done."""
        self.done += amount
        self._redraw(self)


class Progress:
    """Draws stages on a stream: one line that is redrawn on a terminal, now and then a plain line elsewhere."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._is_terminal = self._stream.isatty()
        self._last_drawn = 0.0

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Stage]:
        """A stage of `total` bytes (`unit` "B") or of items named by `unit`; ends with a line that stays."""
        stage = Stage(name, total, unit, self._maybe_draw, self._clock())
        self._last_drawn = stage.started
        if self._is_terminal:
            self._draw(stage)
        finished = False
        try:
            yield stage
            finished = True
        finally:
            self._close(stage, finished)

    def _maybe_draw(self, stage: Stage) -> None:
        if self._clock() - self._last_drawn >= (_REDRAW_SECONDS if self._is_terminal else _PLAIN_LINE_SECONDS):
            self._last_drawn = self._clock()
            self._draw(stage)

    def _draw(self, stage: Stage) -> None:
        line = format_stage(stage, self._clock() - stage.started)
        self._stream.write(f"\r\x1b[2K{line}" if self._is_terminal else f"{line}\n")
        self._stream.flush()

    def _close(self, stage: Stage, finished: bool) -> None:
        ending = format_finished(stage, self._clock() - stage.started) if finished else f"{stage.name}: stopped"
        self._stream.write(f"\r\x1b[2K{ending}\n" if self._is_terminal else f"{ending}\n")
        self._stream.flush()


class SilentProgress(Progress):
    """Counts, draws nothing: for tests and for output that a program reads."""

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Stage]:
        """The same stage, invisible."""
        yield Stage(name, total, unit, lambda stage: None, self._clock())


def format_stage(stage: Stage, seconds: float) -> str:
    """`download: 12.0 of 98.4 MB, 12 %, 3.1 MB/s, 28 s left`, as much of it as is known."""
    parts = [_amount(stage.done, stage.unit)]
    rate = stage.done / seconds if seconds > 0 else 0.0
    if stage.total:
        parts = [f"{_amount(stage.done, stage.unit)} of {_amount(stage.total, stage.unit)}"]
        parts.append(f"{min(100, 100 * stage.done // stage.total)} %")
    if rate:
        parts.append(f"{_amount(rate, stage.unit)}/s")
    if rate and stage.total > stage.done:
        parts.append(f"{_duration((stage.total - stage.done) / rate)} left")
    return f"{stage.name}: {', '.join(parts)}"


def format_finished(stage: Stage, seconds: float) -> str:
    """`download: 98.4 MB in 31 s`."""
    return f"{stage.name}: {_amount(stage.done, stage.unit) + ' in ' if stage.done else ''}{_duration(seconds)}"


def _amount(amount: float, unit: str) -> str:
    if unit != "B":
        return f"{amount:.0f} {unit}" if amount >= 10 or amount == int(amount) else f"{amount:.1f} {unit}"
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if amount >= size:
            return f"{amount / size:.1f} {prefix}B"
    return f"{amount:.0f} B"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
