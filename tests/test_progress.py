import io

import pytest

from webcompile.progress import Progress, SilentProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_terminal_gets_one_line_with_amount_rate_and_time_left() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(stream, clock).stage("download", 98_400_000) as stage:
        clock.now = 4.0
        stage.advance(24_600_000)
        assert stream.getvalue().endswith("\r\x1b[2Kdownload: 24.6 MB of 98.4 MB, 25 %, 6.2 MB/s, 12 s left")
        assert "\n" not in stream.getvalue()
        clock.now = 75.0
        stage.advance(73_800_000)
    assert stream.getvalue().endswith("\r\x1b[2Kdownload: 98.4 MB in 1 min 15 s\n")


def test_redraws_are_limited() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(stream, clock).stage("write", 1000) as stage:
        for _ in range(1000):
            clock.now += 0.001
            stage.advance(1)
    assert stream.getvalue().count("\r") <= 13


def test_a_log_gets_a_line_every_ten_seconds_and_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock).stage("quantize", 30, unit="tensors") as stage:
        for _ in range(30):
            clock.now += 0.5
            stage.advance()
    assert stream.getvalue().splitlines() == [
        "quantize: 20 tensors of 30 tensors, 66 %, 2 tensors/s, 5.0 s left",
        "quantize: 30 tensors in 15 s",
    ]


def test_a_stage_that_fails_does_not_claim_to_be_done() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), Progress(stream).stage("compile"):
        raise KeyError
    assert stream.getvalue() == "compile: stopped\n"


def test_silent_progress_counts_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with SilentProgress().stage("download", 10) as stage:
        stage.advance(4)
        stage.advance(6)
    assert stage.done == 10
    assert capsys.readouterr() == ("", "")
