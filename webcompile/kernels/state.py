"""The state of a recurrent layer, paged like keys and values: see "Recurrent state is paged" in the design notes.

The state after the token at position p lies in slot p % 2 of page page_table[p // page_tokens]. A kernel reads the state
before its first token, and writes those after its last two tokens and after the last token of every page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from webcompile.kernels.builder import Buffer, Expr, argument, f32, local, store, when

DTYPE = "float32"
"""Of every state: what is added to it over thousands of tokens must not be rounded away."""


@dataclass(frozen=True)
class Paging:
    """A state of `shape` in pages of `page_tokens` tokens."""

    shape: tuple[int, ...]
    page_tokens: int

    def declare(self, tokens: Expr) -> State:
        """Declares the arguments position[1], page_table[pages] and state[num_pages, 2, *shape] of the open kernel."""
        position = argument("position", (1,), "int32")
        page_table = argument("page_table", (tirx.Var("max_pages", "int64"),), "int32")
        pool = argument("state", (tirx.Var("num_pages", "int64"), 2, *self.shape), DTYPE)
        return State(self.page_tokens, tokens, position, page_table, pool)


@dataclass(frozen=True)
class State:
    """The state's arguments in an open kernel. Whoever reads an element is the one to write it."""

    page_tokens: int
    tokens: Expr
    position: Buffer
    page_table: Buffer
    pool: Buffer

    def before(self) -> Before:
        """What there is to go on from."""
        page, slot, begins = local(1, "int32"), local(1, "int32"), self.position[0] == 0
        last = tirx.max(self.position[0] - 1, 0)
        store(page, 0, self.page_table[tirx.floordiv(last, self.page_tokens)])
        store(slot, 0, tirx.floormod(last, 2))
        return Before(self.pool, page, slot, begins)

    @contextmanager
    def kept(self, token: Expr) -> Iterator[tuple[Expr, Expr]]:
        """(page, slot) to write the state after a token to, under the condition that it is to be kept."""
        where = local(1, "int32")
        store(where, 0, self.position[0] + token)
        ends_page = tirx.floormod(where[0] + 1, self.page_tokens) == 0
        with when(tirx.any(token >= self.tokens - 2, ends_page)):
            yield self._place(where[0])

    @contextmanager
    def each_kept(self, condition: Expr) -> Iterator[tuple[Expr, Expr, Expr]]:
        """A loop over the tokens after which the state is kept, some of them twice: (token, page, slot).

        Not entered unless `condition` holds; barriers may be in it, where TVM has none under a condition.
        """
        pages, token = local(1, "int32"), local(1, "int32")
        end = self.position[0] + self.tokens
        store(pages, 0, tirx.floordiv(self.position[0], self.page_tokens))
        count = tirx.floordiv(_int32(end), self.page_tokens) - pages[0] + 2
        with T.serial(tirx.Select(condition, count, _int32(0))) as i:
            last = _int32(tirx.max(self.tokens - 2 + i, 0))
            ends_page = (pages[0] + i - 1) * self.page_tokens - 1 - self.position[0]
            store(token, 0, tirx.Select(i < 2, last, ends_page))
            page, slot = self._place(self.position[0] + token[0])
            yield token[0], page, slot

    def _place(self, where: Expr) -> tuple[Expr, Expr]:
        page, slot = local(1, "int32"), local(1, "int32")
        store(page, 0, self.page_table[tirx.floordiv(where, self.page_tokens)])
        store(slot, 0, tirx.floormod(where, 2))
        return page[0], slot[0]


def _int32(value: Expr) -> Expr:
    return tirx.const(value, "int32") if isinstance(value, int) else value.astype("int32")


@dataclass(frozen=True)
class Before:
    """The state before the first token of a step."""

    pool: Buffer
    page: Buffer
    slot: Buffer
    begins: Expr

    def __call__(self, *index: Expr, initial: float = 0.0) -> Expr:
        """An element; `initial` at the start of a sequence."""
        return tirx.Select(self.begins, f32(initial), self.pool[(self.page[0], self.slot[0], *index)])
