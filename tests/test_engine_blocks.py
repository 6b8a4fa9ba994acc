"""Pages and turns: nothing is lost, nothing is held twice, everyone gets a turn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webcompile.engine.block_manager import FREED, BlockManager
from webcompile.engine.scheduler import Scheduler
from webcompile.engine.sequence import SamplingParams, Sequence
from webcompile.errors import WebcompileError


class Pages:
    """A block manager over a cache that remembers which token was written where."""

    def __init__(self, num_pages: int, page_tokens: int) -> None:
        self.content = [[-1] * page_tokens for _ in range(num_pages)]
        self.blocks = BlockManager(num_pages, page_tokens, self.copy)
        self.page_tokens = page_tokens
        self.num_copies = 0

    def copy(self, source: int, target: int) -> None:
        self.num_copies += 1
        self.content[target] = list(self.content[source])

    def compute(self, sequence: Sequence, num_tokens: int) -> None:
        for position in range(sequence.num_cached_tokens, sequence.num_cached_tokens + num_tokens):
            page, slot = divmod(position, self.page_tokens)
            self.content[sequence.pages[page]][slot] = sequence.token_ids[position]
        sequence.num_cached_tokens += num_tokens

    def check(self, sequence: Sequence) -> None:
        for position in range(sequence.num_cached_tokens):
            page, slot = divmod(position, self.page_tokens)
            assert self.content[sequence.pages[page]][slot] == sequence.token_ids[position]

    def run(self, token_ids: list[int]) -> Sequence:
        sequence = Sequence(token_ids, SamplingParams())
        self.blocks.attach(sequence)
        assert self.blocks.grow(sequence, len(token_ids))
        self.compute(sequence, sequence.num_pending_tokens)
        self.check(sequence)
        return sequence


def test_a_longer_prompt_starts_at_the_token_where_it_differs() -> None:
    pages = Pages(8, 4)
    pages.blocks.release(pages.run([1, 2, 3, 4, 5, 6]))
    second = pages.run([1, 2, 3, 4, 5, 9, 9])
    assert second.num_reused_tokens == 5
    assert pages.num_copies == 1


def test_the_last_token_is_always_computed() -> None:
    pages = Pages(8, 4)
    pages.blocks.release(pages.run([1, 2, 3, 4]))
    assert pages.run([1, 2, 3, 4]).num_reused_tokens == 3


def test_a_running_sequence_is_shared_too() -> None:
    pages = Pages(8, 4)
    first = pages.run(list(range(8)))
    second = pages.run([*range(8), 99])
    assert second.num_reused_tokens == 8
    assert second.pages[:2] == first.pages
    assert pages.num_copies == 0


def test_retained_prefixes_give_way_oldest_first() -> None:
    pages = Pages(4, 4)
    for start in (10, 20, 30, 40, 50):
        pages.blocks.release(pages.run([start, 1, 2, 3]))
    assert pages.run([20, 1, 2, 3]).num_reused_tokens == 3
    assert pages.run([10, 1, 2, 3]).num_reused_tokens == 0


def test_growing_past_the_last_page_changes_nothing() -> None:
    pages = Pages(2, 4)
    sequence = pages.run([1] * 5)
    assert not pages.blocks.grow(sequence, 9)
    assert len(sequence.pages) == 2


def test_released_without_retaining_is_forgotten() -> None:
    pages = Pages(4, 4)
    pages.blocks.release(pages.run([1, 2, 3]), retain=False)
    assert pages.run([1, 2, 3]).num_reused_tokens == 0
    pages.blocks.clear()


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["start", "extend", "end", "forget", "clear"]),
        st.integers(0, 3),
        st.lists(st.integers(0, 1), min_size=1, max_size=9),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_any_order_of_requests_keeps_every_sequence_intact(
    actions: list[tuple[str, int, list[int]]],
) -> None:
    pages = Pages(6, 3)
    running: list[Sequence] = []
    for action, which, token_ids in actions:
        if action == "start":
            sequence = Sequence(token_ids, SamplingParams())
            pages.blocks.attach(sequence)
            running.append(sequence)
            pages.check(sequence)
            assert sequence.num_pending_tokens >= 1
        elif action == "clear":
            pages.blocks.clear()
        elif running:
            sequence = running[which % len(running)]
            if action == "extend":
                sequence.token_ids += token_ids
                if pages.blocks.grow(sequence, len(sequence.token_ids)):
                    pages.compute(sequence, sequence.num_pending_tokens)
                else:
                    del sequence.token_ids[-len(token_ids) :]
            else:
                running.remove(sequence)
                pages.blocks.release(sequence, retain=action == "end")
        for sequence in running:
            pages.check(sequence)
    for sequence in running:
        pages.blocks.release(sequence)
    pages.blocks.clear()
    assert pages.blocks.num_available_pages == 6
    assert sorted(pages.blocks._free) == list(range(6))


class Cache:
    """A pool of pages on the host, and beside it the plain arrays that sequences would have without pages.

    Each token's key and value are its own random numbers, so that no page passes for another.
    """

    def __init__(self, num_pages: int, page_tokens: int, window: int | None = None, sinks: int = 0, width: int = 3) -> None:
        self.rng = np.random.default_rng(0)
        self.pool = np.full((num_pages, page_tokens, width), np.nan)
        self.blocks = BlockManager(num_pages, page_tokens, self.copy, window=window, sinks=sinks)
        self.page_tokens, self.window, self.sinks = page_tokens, window, sinks
        self.plain: dict[Sequence, np.ndarray] = {}

    def copy(self, source: int, target: int) -> None:
        assert source != target
        self.pool[target] = self.pool[source]

    def start(self) -> Sequence:
        sequence = Sequence([], SamplingParams())
        self.blocks.attach(sequence, reuse=False)
        self.plain[sequence] = np.empty((0, self.pool.shape[2]))
        return sequence

    def append(self, sequence: Sequence, num_tokens: int) -> bool:
        length = sequence.num_cached_tokens + num_tokens
        if not self.blocks.grow(sequence, length):
            return False
        rows = self.rng.standard_normal((num_tokens, self.pool.shape[2]))
        for position, row in enumerate(rows, sequence.num_cached_tokens):
            page, slot = divmod(position, self.page_tokens)
            self.pool[sequence.pages[page], slot] = row
        self.plain[sequence] = np.concatenate([self.plain[sequence], rows])
        sequence.token_ids += map(int, self.rng.integers(0, 2, num_tokens))
        sequence.num_cached_tokens = length
        return True

    def fork(self, sequence: Sequence) -> None:
        self.plain[self.blocks.fork(sequence)] = self.plain[sequence].copy()

    def rollback(self, sequence: Sequence, num_tokens: int) -> bool:
        before = list(sequence.pages), list(sequence.token_ids), sequence.num_cached_tokens
        try:
            self.blocks.rollback(sequence, num_tokens)
        except WebcompileError as error:
            assert error.code == "request_invalid"
            assert self.window is not None
            assert (sequence.pages, sequence.token_ids, sequence.num_cached_tokens) == before
            return False
        self.plain[sequence] = self.plain[sequence][: sequence.num_cached_tokens]
        return True

    def remove(self, sequence: Sequence, *, retain: bool) -> None:
        del self.plain[sequence]
        self.blocks.release(sequence, retain=retain)

    def check(self) -> None:
        """What the next token of each sequence would see is what it wrote, and every page is free or held as counted."""
        holders = np.zeros(len(self.pool), int)
        for sequence, plain in self.plain.items():
            assert sequence.num_cached_tokens == len(plain)
            token = np.arange(len(plain))
            seen = token[(len(plain) - token < (self.window or np.inf)) | (token < self.sinks)]
            pages = np.array(sequence.pages, int)[seen // self.page_tokens]
            assert (pages >= 0).all()
            np.testing.assert_array_equal(self.pool[pages, seen % self.page_tokens], plain[seen])
            holders += np.bincount([page for page in sequence.pages if page != FREED], minlength=len(holders))
        for prefix in self.blocks._retained:
            holders += np.bincount(prefix.pages, minlength=len(holders))
        assert list(holders) == self.blocks._holders
        assert sorted(self.blocks._free) == list(np.flatnonzero(holders == 0))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("window", "sinks"), [(None, 0), (5, 0), (6, 4)], ids=["all", "window", "sinks"])
def test_forks_and_rollbacks_keep_every_sequence_intact(seed: int, window: int | None, sinks: int) -> None:
    rng, cache = np.random.default_rng(seed), Cache(10, 3, window, sinks)
    happened = Counter[str]()
    for _ in range(200):
        live = list(cache.plain)
        action = str(rng.choice(["start", "append", "append", "append", "fork", "rollback", "remove"])) if live else "start"
        action = "remove" if len(live) > 8 else action
        sequence = live[rng.integers(len(live))] if live else None
        if action == "start" or sequence is None:
            cache.start()
        elif action == "append":
            action += " done" if cache.append(sequence, int(rng.integers(1, 9))) else " refused"
        elif action == "fork":
            cache.fork(sequence)
        elif action == "rollback":
            cache.rollback(sequence, int(rng.integers(0, min(8, len(sequence.token_ids)) + 1)))
        else:
            cache.remove(sequence, retain=bool(rng.integers(2)))
        happened[action] += 1
        cache.check()
    assert min(happened[action] for action in ("append done", "append refused", "fork", "rollback", "remove")) > 0, happened
    for sequence in list(cache.plain):
        cache.remove(sequence, retain=False)
    cache.blocks.clear()
    cache.check()
    assert cache.blocks.num_available_pages == len(cache.pool)


class States:
    """A pool of pages with the states of a recurrent layer, and beside it the states of each sequence after each token.

    A step writes what `manifest.CacheSpec` says. A state depends on all tokens before, so that none passes for another.
    """

    def __init__(self, num_pages: int, page_tokens: int, width: int = 3) -> None:
        self.rng = np.random.default_rng(0)
        self.pool = np.full((num_pages, 2, width), np.nan)
        self.blocks = BlockManager(num_pages, page_tokens, self.copy, recurrent=True)
        self.page_tokens, self.width = page_tokens, width
        self.live: list[Sequence] = []

    def copy(self, source: int, target: int) -> None:
        assert source != target
        self.pool[target] = self.pool[source]

    def state_after(self, token_ids: list[int]) -> np.ndarray:
        state = np.zeros(self.width)
        for token_id in token_ids:
            state = 0.9 * np.roll(state, 1) + np.sin(token_id + np.arange(self.width))
        return state

    def start(self, token_ids: list[int]) -> None:
        sequence = Sequence(token_ids, SamplingParams())
        self.blocks.attach(sequence)
        self.live.append(sequence)

    def step(self, sequence: Sequence, most: int) -> bool:
        """Computes up to so many pending tokens, from the state that lies where the last one should have left it."""
        begin = sequence.num_cached_tokens
        end = begin + min(most, sequence.num_pending_tokens)
        if not self.blocks.grow(sequence, end):
            return False
        for position in range(begin, end):
            if position >= end - 2 or (position + 1) % self.page_tokens == 0:
                page = sequence.pages[position // self.page_tokens]
                self.pool[page, position % 2] = self.state_after(sequence.token_ids[: position + 1])
        sequence.advance(end - begin)
        return True

    def remove(self, sequence: Sequence, *, retain: bool) -> None:
        self.live.remove(sequence)
        self.blocks.release(sequence, retain=retain)

    def check(self) -> None:
        """What each sequence goes on from is the state after its cached tokens."""
        for sequence in self.live:
            length = sequence.num_cached_tokens
            if length:
                page = sequence.pages[(length - 1) // self.page_tokens]
                expected = self.state_after(sequence.token_ids[:length])
                np.testing.assert_array_equal(self.pool[page, (length - 1) % 2], expected)
        holders = Counter(page for sequence in self.live for page in sequence.pages)
        holders += Counter(page for prefix in self.blocks._retained for page in prefix.pages)
        assert [holders[page] for page in range(len(self.pool))] == self.blocks._holders


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("page_tokens", [3, 4])
def test_recurrent_sequences_fork_and_roll_back_to_states_that_are_left(seed: int, page_tokens: int) -> None:
    rng, states = np.random.default_rng(seed), States(12, page_tokens)
    happened = Counter[str]()
    for _ in range(300):
        action = str(rng.choice(["start", "append", "append", "append", "fork", "rollback", "remove"]))
        action = "start" if not states.live else "remove" if len(states.live) > 6 else action
        if action == "start":
            states.start(rng.integers(0, 2, int(rng.integers(1, 12))).tolist())
            happened["reused"] += states.live[-1].num_reused_tokens > 0
            states.check()
            continue
        sequence = states.live[rng.integers(len(states.live))]
        if action == "append":
            if not sequence.num_pending_tokens:
                sequence.token_ids += rng.integers(0, 2, int(rng.integers(1, 9))).tolist()
            action += " done" if states.step(sequence, int(rng.integers(1, 9))) else " refused"
        elif action == "fork":
            states.live.append(states.blocks.fork(sequence))
        elif action == "rollback":
            wanted = len(sequence.token_ids) - int(rng.integers(0, min(4, len(sequence.token_ids)) + 1))
            cached = min(sequence.num_cached_tokens, wanted)
            states.blocks.rollback(sequence, len(sequence.token_ids) - wanted)
            assert len(sequence.token_ids) == wanted
            assert cached - page_tokens < sequence.num_cached_tokens <= cached
            action += " exact" if sequence.num_cached_tokens == cached else " further"
        else:
            states.remove(sequence, retain=bool(rng.integers(2)))
        happened[action] += 1
        states.check()
    expected = ("append done", "append refused", "fork", "rollback exact", "rollback further", "remove", "reused")
    assert min(happened[action] for action in expected) > 0, happened
    for sequence in list(states.live):
        states.remove(sequence, retain=False)
    states.blocks.clear()
    assert states.blocks.num_available_pages == len(states.pool)


def test_a_step_too_far_is_taken_back_exactly() -> None:
    """Twice in a row it cannot be: there are two states, and the older one was overwritten."""
    states = States(4, 8)
    states.start([1, 0, 1, 1, 0, 1])
    (sequence,) = states.live
    assert states.step(sequence, 6)
    states.blocks.rollback(sequence, 1)
    assert (len(sequence.token_ids), sequence.num_cached_tokens) == (5, 5)
    states.check()
    states.blocks.rollback(sequence, 1)
    assert (len(sequence.token_ids), sequence.num_cached_tokens) == (4, 0)


def test_a_fork_copies_only_the_last_page() -> None:
    pages = Pages(8, 4)
    first = pages.run([1, 2, 3, 4, 5, 6])
    second = pages.blocks.fork(first)
    assert second.pages == first.pages
    for sequence, token_id in ((first, 7), (second, 8)):
        sequence.token_ids.append(token_id)
        assert pages.blocks.grow(sequence, 7)
        pages.compute(sequence, 1)
    pages.check(first)
    pages.check(second)
    assert first.pages[0] == second.pages[0]
    assert pages.num_copies == 1, "the last to write has the page to itself"


def test_a_prefix_gives_way_where_a_copy_has_no_page() -> None:
    pages = Pages(2, 4)
    first = pages.run(list(range(8)))
    pages.blocks.release(pages.blocks.fork(first))
    pages.blocks.rollback(first, 2)
    first.token_ids += [20, 21]
    assert pages.blocks.grow(first, 8)
    pages.compute(first, 2)
    pages.check(first)
    assert pages.num_copies == 0


def test_a_window_gives_back_what_it_has_passed() -> None:
    cache = Cache(8, 4, window=6, sinks=3)
    sequence = cache.start()
    for _ in range(100):
        assert cache.append(sequence, 1)
        cache.check()
    assert sum(page != FREED for page in sequence.pages) <= 4
    assert not cache.rollback(sequence, 20)
    with pytest.raises(WebcompileError, match="expected 0 to 100, got 101"):
        cache.blocks.rollback(sequence, 101)


def make(num_pages: int, max_sequences: int = 4) -> tuple[Pages, Scheduler]:
    pages = Pages(num_pages, 4)
    return pages, Scheduler(pages.blocks, 6, max_sequences)


def serve(pages: Pages, scheduler: Scheduler, lengths: dict[int, int], limit: int = 500) -> list[int]:
    """Runs until nothing is left: a sequence ends at its length. Ids in order of steps."""
    order = []
    for _ in range(limit):
        step = scheduler.schedule()
        if step is None:
            return order
        order.append(step.sequence.id)
        assert 1 <= step.num_tokens <= 6
        pages.compute(step.sequence, step.num_tokens)
        pages.check(step.sequence)
        if not step.sequence.num_pending_tokens:
            step.sequence.token_ids.append(step.sequence.id)
            if len(step.sequence.token_ids) == lengths[step.sequence.id]:
                scheduler.remove(step.sequence)
    raise AssertionError("the scheduler does not come to an end")


def test_a_long_prompt_is_cut_into_chunks() -> None:
    pages, scheduler = make(8)
    sequence = Sequence([7] * 14, SamplingParams())
    scheduler.add(sequence)
    for expected in (6, 6, 2):
        step = scheduler.schedule()
        assert step is not None
        assert step.num_tokens == expected
        pages.compute(sequence, step.num_tokens)


def test_turns_alternate_between_a_long_prompt_and_a_short_answer() -> None:
    pages, scheduler = make(16)
    long, short = Sequence([1] * 24, SamplingParams()), Sequence([2] * 2, SamplingParams())
    scheduler.add(long)
    scheduler.add(short)
    order = serve(pages, scheduler, {long.id: 26, short.id: 6})
    assert order[:8] == [long.id, short.id] * 4


def test_first_come_first_served() -> None:
    pages, scheduler = make(8, max_sequences=1)
    sequences = [Sequence([i, i], SamplingParams()) for i in range(3)]
    for sequence in sequences:
        scheduler.add(sequence)
    order = serve(pages, scheduler, {sequence.id: 4 for sequence in sequences})
    assert order == sorted(order)


def test_a_waiting_request_can_be_removed() -> None:
    _, scheduler = make(8)
    sequence = Sequence([1], SamplingParams())
    scheduler.add(sequence)
    scheduler.remove(sequence)
    assert scheduler.schedule() is None


@given(st.lists(st.tuples(st.integers(1, 15), st.integers(1, 9)), min_size=1, max_size=6), st.integers(6, 12))
def test_everyone_finishes_when_pages_are_short(requests: list[tuple[int, int]], num_pages: int) -> None:
    pages, scheduler = make(num_pages)
    lengths = {}
    for prompt, answer in requests:
        sequence = Sequence([5] * prompt, SamplingParams())
        lengths[sequence.id] = prompt + answer
        scheduler.add(sequence)
    order = serve(pages, scheduler, lengths)
    assert set(order) == set(lengths)


@pytest.mark.parametrize("num_pages", [6, 7])
def test_the_youngest_gives_way(num_pages: int) -> None:
    pages, scheduler = make(num_pages)
    old, young = Sequence([1] * 8, SamplingParams()), Sequence([2] * 8, SamplingParams())
    scheduler.add(old)
    scheduler.add(young)
    order = serve(pages, scheduler, {old.id: 22, young.id: 22})
    assert order.index(young.id) < len(order) - 1 - order[::-1].index(old.id), "both ran before one gave way"
    assert order[-1] == young.id
