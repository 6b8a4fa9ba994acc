"""Pages of the KV cache: who holds which, and how a new sequence starts from what another one already computed.

A page is never written below its holder's `num_cached_tokens`, so full pages are shared by counting holders. A page that is
shared in part is copied. Finished sequences stay as prefixes until their pages are needed, oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from itertools import chain

from webcompile.engine.sequence import Sequence


@dataclass(frozen=True)
class _Prefix:
    """Computed tokens and the pages that hold them."""

    token_ids: tuple[int, ...]
    pages: tuple[int, ...]


class BlockManager:
    """Hands out `num_pages` pages of `page_tokens` tokens. `copy_page(source, target)` copies a page in all layers."""

    def __init__(self, num_pages: int, page_tokens: int, copy_page: Callable[[int, int], None]) -> None:
        self.page_tokens = page_tokens
        self._copy_page = copy_page
        self._free = list(reversed(range(num_pages)))
        self._holders = [0] * num_pages
        self._active: list[Sequence] = []
        self._retained: list[_Prefix] = []

    @property
    def num_available_pages(self) -> int:
        """Pages that no active sequence holds."""
        return len(self._holders) - len(set(chain.from_iterable(sequence.pages for sequence in self._active)))

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
        """Gives the sequence pages for its first `num_tokens` tokens; False, changing nothing, if there are too few."""
        missing = self.pages_for(num_tokens) - len(sequence.pages)
        if missing > self.num_available_pages:
            return False
        sequence.pages += [self._take() for _ in range(missing)]
        return True

    def release(self, sequence: Sequence, *, retain: bool = True) -> None:
        """Ends the sequence's hold. With `retain` its tokens stay as a prefix for later sequences."""
        self._active.remove(sequence)
        pages, sequence.pages = sequence.pages, []
        if retain and sequence.num_cached_tokens:
            tokens = tuple(sequence.token_ids[: sequence.num_cached_tokens])
            prefix = _Prefix(tokens, tuple(pages[: self.pages_for(len(tokens))]))
            self._hold(prefix.pages)
            for other in [other for other in self._retained if tokens[: len(other.token_ids)] == other.token_ids]:
                self._evict(other)
            self._retained.append(prefix)
        sequence.num_cached_tokens = 0
        self._drop(pages)

    def clear(self) -> None:
        """Forgets all retained prefixes."""
        while self._retained:
            self._evict(self._retained[0])

    def _start_from_prefix(self, sequence: Sequence) -> None:
        limit = len(sequence.token_ids) - 1
        best, common = _Prefix((), ()), 0
        for prefix in self._prefixes():
            length = min(limit, _common_length(prefix.token_ids, sequence.token_ids))
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
        sequence.num_cached_tokens = common
        sequence.num_reused_tokens = min(common, sequence.num_prompt_tokens)

    def _prefixes(self) -> Iterable[_Prefix]:
        yield from reversed(self._retained)
        for sequence in self._active:
            yield _Prefix(tuple(sequence.token_ids[: sequence.num_cached_tokens]), tuple(sequence.pages))

    def _take(self) -> int:
        while not self._free:
            self._evict(self._retained[0])
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def _hold(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._holders[page] += 1

    def _drop(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)

    def _evict(self, prefix: _Prefix) -> None:
        self._retained.remove(prefix)
        self._drop(prefix.pages)


def _common_length(a: SequenceOf[int], b: SequenceOf[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
