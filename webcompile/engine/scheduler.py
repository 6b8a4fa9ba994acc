"""Which sequence runs next, and how many of its tokens.

Sequences start in order of arrival and then take turns, one prefill chunk or one decoded token each, so a long prompt
does not hold up the others. When pages run out, the youngest gives its pages back and waits at the head of the line; what it
computed stays in the cache for as long as there is room.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from webcompile.engine.block_manager import BlockManager
from webcompile.engine.sequence import Sequence


@dataclass(frozen=True)
class Step:
    """Run the first `num_tokens` pending tokens of `sequence`."""

    sequence: Sequence
    num_tokens: int


class Scheduler:
    """Owns every unfinished sequence. The block manager must have pages for one sequence of full length."""

    def __init__(self, blocks: BlockManager, prefill_chunk_tokens: int, max_sequences: int) -> None:
        self._blocks = blocks
        self._chunk = prefill_chunk_tokens
        self._max_sequences = max_sequences
        self._waiting: deque[Sequence] = deque()
        self._running: deque[Sequence] = deque()

    def add(self, sequence: Sequence) -> None:
        """Puts a new sequence at the end of the line."""
        self._waiting.append(sequence)

    def schedule(self) -> Step | None:
        """The next step with pages for its tokens in place, or None when there is nothing to do."""
        self._admit()
        while self._running:
            sequence = self._running[0]
            num_tokens = min(self._chunk, sequence.num_pending_tokens)
            if self._blocks.grow(sequence, sequence.num_cached_tokens + num_tokens):
                self._running.rotate(-1)
                return Step(sequence, num_tokens)
            self._preempt(max(self._running, key=lambda running: running.id))
        return None

    def remove(self, sequence: Sequence) -> None:
        """Forgets a finished or cancelled sequence; what it computed stays in the cache while there is room."""
        if sequence in self._running:
            self._running.remove(sequence)
            self._blocks.release(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._max_sequences:
            sequence = self._waiting[0]
            # Pages for all its tokens, or it would soon be sent back here.
            if self._blocks.pages_for(len(sequence.token_ids)) > self._blocks.num_available_pages:
                return
            self._blocks.attach(sequence)
            self._running.append(self._waiting.popleft())

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._blocks.release(sequence)
        self._waiting.appendleft(sequence)
