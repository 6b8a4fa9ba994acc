"""Stop strings in a stream of text pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Lets text through up to the first completed stop string; never a part of one.

    The result does not depend on how the text is cut into pieces: the stop string that ends first wins, and among those
    that end at the same character the longest.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = sorted(stops, key=len, reverse=True)
        self._held = ""
        self.matched: str | None = None
        """The stop string that was found."""

    def push(self, piece: str) -> str:
        """Text that is now known to come before any stop string. After a match always empty."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return piece
        start = len(self._held)
        text = self._held + piece
        # Only stop strings that end inside `piece` are new.
        for end in range(start + 1, len(text) + 1):
            for stop in self._stops:
                if text.endswith(stop, 0, end):
                    self.matched, self._held = stop, ""
                    return text[: end - len(stop)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The text still held back, when nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
