"""The next token from the logits. The TypeScript engine has the same algorithm, step for step.

Randomness is a function of (seed, step) alone, so an answer does not depend on what else the engine was doing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from webcompile.engine.sequence import SamplingParams
from webcompile.errors import WebcompileError

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_GREEDY_BELOW = 1e-6
"""Colder than this only overflows: all probability is on the best token."""

Words = tuple[int, int, int, int]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3": four 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform(seed: int, step: int) -> float:
    """A float64 in (0, 1) for the `step`-th token under a 64-bit `seed`."""
    word = philox4x32((step & _MASK, 0, 0, 0), (seed & _MASK, seed >> 32 & _MASK))[0]
    return (word + 0.5) / 2.0**32


def sample(logits: npt.NDArray[np.float32], sampling: SamplingParams, step: int) -> int:
    """Token id for `logits` float32[vocab_size], as the `step`-th completion token (from 0).

    Greedy (lowest id among equals) at temperature 0. Raises `internal` when logits hold NaN or no finite value.
    """
    best = int(np.argmax(logits))
    # argmax stops at the first NaN, so the one value it found says whether there is any.
    if not np.isfinite(logits[best]):
        raise WebcompileError("internal", f"the model returned {logits[best]} as logit of token {best}")
    if sampling.temperature < _GREEDY_BELOW:
        return best
    scaled = logits.astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled[best])
    order = np.argsort(-weights, kind="stable")
    cumulative = np.cumsum(weights[order])
    # Not cumulative[-1] and not sum(): both add in another order, and the last bit can decide.
    total = np.cumsum(weights)[-1]
    kept = int(np.searchsorted(cumulative, sampling.top_p * total, side="left")) + 1
    kept = min(kept, len(order))
    chosen = int(np.searchsorted(cumulative[:kept], uniform(sampling.seed, step) * cumulative[kept - 1], side="right"))
    return int(order[min(chosen, kept - 1)])
