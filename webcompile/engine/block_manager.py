"""Pages of the KV cache: who holds which, and how a sequence starts from what another one already computed.

Pages are shared by counting holders. Only a page with one holder is written: `grow`, which comes before every write, copies
the last, partly filled page if somebody else holds it too. Finished sequences stay as prefixes until their pages are needed,
oldest first. With a sliding window, pages that it has passed are given back; `FREED` stands in their places.

Where the model is recurrent, a sequence goes on only from a state that is still there (`manifest.CacheSpec`): tokens between
that and where it was to go on are computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from itertools import chain

from webcompile.engine.sequence import Sequence
from webcompile.errors import WebcompileError

FREED = -1
"""In a sequence's list of pages: the window has passed, and no kernel looks."""


@dataclass(frozen=True)
class _Prefix:
    """Computed tokens and the pages that hold them."""

    token_ids: tuple[int, ...]
    pages: tuple[int, ...]
    num_computed_tokens: int
    """See Sequence."""


class BlockManager:
    """Hands out `num_pages` pages of `page_tokens` tokens. `copy_page(source, target)` copies a page in all layers.

    `window` and `sinks` are those of the model's attention, see `kernels.heads.Heads`; `recurrent` is `CacheSpec.recurrent`.
    """

    def __init__(
        self,
        num_pages: int,
        page_tokens: int,
        copy_page: Callable[[int, int], None],
        *,
        window: int | None = None,
        sinks: int = 0,
        recurrent: bool = False,
    ) -> None:
        self.page_tokens = page_tokens
        self._recurrent = recurrent
        self._window, self._sinks = window, sinks
        self._copy_page = copy_page
        self._free = list(reversed(range(num_pages)))
        self._holders = [0] * num_pages
        self._active: list[Sequence] = []
        self._retained: list[_Prefix] = []

    @property
    def num_available_pages(self) -> int:
        """Pages that no active sequence holds."""
        return len(self._holders) - len(set(chain.from_iterable(map(_held, self._active))))

    def pages_for(self, num_tokens: int) -> int:
        """Pages that `num_tokens` tokens take."""
        return -(-num_tokens // self.page_tokens)

    def attach(self, sequence: Sequence, *, reuse: bool = True) -> None:
        """Makes the sequence active, starting from the longest prefix of its tokens that is in the cache.

        At least one token stays pending: somebody has to compute its logits.
        """
        if reuse:
            self._start_from_prefix(sequence)
        self._active.append(sequence)

    def grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Gives the sequence pages of its own to write, up to its first `num_tokens` tokens; False if there are too few.

        Either way the pages that its window has passed are given back.
        """
        self._free_passed(sequence)
        missing = max(0, self.pages_for(num_tokens) - len(sequence.pages))
        last, filled = divmod(sequence.num_cached_tokens, self.page_tokens)
        shared = filled > 0 and num_tokens > sequence.num_cached_tokens and self._holders[sequence.pages[last]] > 1
        if shared and missing + 1 > self.num_available_pages:
            # A prefix need not survive; another sequence must.
            for prefix in [prefix for prefix in self._retained if sequence.pages[last] in prefix.pages]:
                self._evict(prefix)
            shared = self._holders[sequence.pages[last]] > 1
        if missing + shared > self.num_available_pages:
            return False
        if shared:
            source = sequence.pages[last]
            sequence.pages[last] = self._take()
            self._copy_page(source, sequence.pages[last])
            self._drop([source])
        sequence.pages += [self._take() for _ in range(missing)]
        return True

    def fork(self, sequence: Sequence) -> Sequence:
        """A second active sequence with the same tokens and pages; the first to go on copies a partly filled one."""
        twin = Sequence(sequence.token_ids, sequence.sampling)
        twin.num_prompt_tokens = sequence.num_prompt_tokens
        twin.num_cached_tokens, twin.num_computed_tokens = sequence.num_cached_tokens, sequence.num_computed_tokens
        twin.num_reused_tokens = min(twin.num_cached_tokens, twin.num_prompt_tokens)
        twin.pages = sequence.pages[: self.pages_for(sequence.num_cached_tokens)]
        self._hold(twin.pages)
        self._active.append(twin)
        return twin

    def rollback(self, sequence: Sequence, num_tokens: int) -> None:
        """Takes back the last `num_tokens` tokens, pending ones among them, and their pages.

        Where the model is recurrent, some of those before may become pending.
        Raises request_invalid, changing nothing, if there are fewer or if the window has passed what would be seen again.
        """
        left = len(sequence.token_ids) - num_tokens
        cached = self._resumable(min(sequence.num_cached_tokens, left), sequence.num_computed_tokens)
        if not 0 <= num_tokens <= len(sequence.token_ids):
            raise WebcompileError("request_invalid", f"rollback: expected 0 to {len(sequence.token_ids)}, got {num_tokens}")
        kept = self.pages_for(cached)
        if FREED in sequence.pages[self._first_seen_page(cached) : kept]:  # Those before it are passed by then, too.
            raise WebcompileError(
                "request_invalid",
                f"rollback to {cached} tokens: the sliding window has passed tokens that would be seen again",
                "Start a new sequence from these tokens.",
            )
        del sequence.token_ids[left:]
        sequence.num_cached_tokens = cached
        sequence.num_prompt_tokens = min(sequence.num_prompt_tokens, left)
        sequence.num_reused_tokens = min(sequence.num_reused_tokens, cached)
        self._drop(sequence.pages[kept:])
        del sequence.pages[kept:]

    def release(self, sequence: Sequence, *, retain: bool = True) -> None:
        """Ends the sequence's hold. With `retain` its tokens stay as a prefix for later sequences."""
        self._active.remove(sequence)
        pages, sequence.pages = sequence.pages, []
        if retain and sequence.num_cached_tokens and FREED not in pages:
            tokens = tuple(sequence.token_ids[: sequence.num_cached_tokens])
            prefix = _Prefix(tokens, tuple(pages[: self.pages_for(len(tokens))]), sequence.num_computed_tokens)
            self._hold(prefix.pages)
            if not self._recurrent:  # Else only the shorter one may be gone on from at its end.
                for other in [other for other in self._retained if tokens[: len(other.token_ids)] == other.token_ids]:
                    self._evict(other)
            self._retained.append(prefix)
        sequence.num_cached_tokens = sequence.num_computed_tokens = 0
        self._drop(pages)

    def clear(self) -> None:
        """Forgets all retained prefixes."""
        while self._retained:
            self._evict(self._retained[0])

    def _start_from_prefix(self, sequence: Sequence) -> None:
        limit = len(sequence.token_ids) - 1
        best, common = _Prefix((), (), 0), 0
        for prefix in self._prefixes():
            length = min(limit, _common_length(prefix.token_ids, sequence.token_ids))
            length = self._resumable(length, prefix.num_computed_tokens)
            if length > common:
                best, common = prefix, length
        full, tail = divmod(common, self.page_tokens)
        pages = best.pages[: self.pages_for(common)]
        self._hold(pages)
        sequence.pages = list(pages[:full])
        if best in self._retained:  # Most recently used goes last.
            self._retained.remove(best)
            self._retained.append(best)
        if tail:
            # `pages` are held above, so that taking a page cannot evict the one that is copied.
            if self._free or self.num_available_pages > len(set(pages)):
                target = self._take()
                self._copy_page(pages[full], target)
                sequence.pages.append(target)
            else:
                common -= tail
            self._drop(pages[full:])
        sequence.num_cached_tokens, sequence.num_computed_tokens = common, best.num_computed_tokens
        sequence.num_reused_tokens = min(common, sequence.num_prompt_tokens)

    def _prefixes(self) -> Iterable[_Prefix]:
        yield from reversed(self._retained)
        for sequence in self._active:
            if FREED in sequence.pages:
                continue
            tokens = tuple(sequence.token_ids[: sequence.num_cached_tokens])
            yield _Prefix(tokens, tuple(sequence.pages), sequence.num_computed_tokens)

    def _resumable(self, num_tokens: int, num_computed_tokens: int) -> int:
        """How many of the first `num_tokens` cached tokens a sequence can go on from, of which a step ended where given."""
        if not self._recurrent or num_tokens >= num_computed_tokens - 1:
            return num_tokens
        return num_tokens - num_tokens % self.page_tokens

    def _take(self) -> int:
        while not self._free:
            self._evict(self._retained[0])
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def _first_seen_page(self, num_tokens: int) -> int:
        """Of the pages that hold more than sinks, the first that the token after `num_tokens` sees a part of."""
        return 0 if self._window is None else max(0, num_tokens - self._window + 1) // self.page_tokens

    def _free_passed(self, sequence: Sequence) -> None:
        for index in range(self.pages_for(self._sinks), self._first_seen_page(sequence.num_cached_tokens)):
            self._drop([sequence.pages[index]])
            sequence.pages[index] = FREED

    def _hold(self, pages: Iterable[int]) -> None:
        for page in pages:
            if page != FREED:
                self._holders[page] += 1

    def _drop(self, pages: Iterable[int]) -> None:
        for page in pages:
            if page == FREED:
                continue
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)

    def _evict(self, prefix: _Prefix) -> None:
        self._retained.remove(prefix)
        self._drop(prefix.pages)


def _held(sequence: Sequence) -> Iterable[int]:
    return (page for page in sequence.pages if page != FREED)


def _common_length(a: SequenceOf[int], b: SequenceOf[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
