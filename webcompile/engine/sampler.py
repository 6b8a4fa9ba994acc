"""The next token from the logits: one algorithm for the host, in Python and TypeScript, and for the device.

1. Scores. z = logits. For a repetition penalty r other than 1, tokens of the prompt or of the answer get z / r if z > 0,
   else z * r. Then z -= frequency_penalty * count + presence_penalty * (count > 0), where count is how often the answer
   has the token, and z += logit_bias.
2. Below a temperature of 1e-6, or with top_k = 1, the token of the largest z is taken; of equal ones the lowest id.
3. Weights. w = exp((z - max z) / temperature). Token i is heavier than x if z_i > z_x, or z_i = z_x and i < x. A token is
   kept if what is heavier has less than top_p of the sum of all weights and is fewer than top_k tokens (0: any number), and
   if w >= min_p.
4. Draws. The candidates are all tokens at first. Round r = 0 .. 31: in the order (id mod 256, id div 256), which is that of
   a workgroup of 256 threads, take the first candidate whose running sum of weights exceeds u(r) times the sum of all
   candidates; the last one with a weight if rounding leaves none. A token that is kept is chosen. Else the candidates are
   now the tokens heavier than it. After the last round the token of the largest z is chosen.
   u(r) = (word + 0.5) / 2^32 with the first word of Philox4x32-10 for the counter (step, r, 0, 0) and the seed as key, where
   step counts the tokens of the answer from 0.

Whatever is kept is heavier than whatever is not, so a rejected draw removes nothing that could be chosen, and a kept one has
its share of the kept weights: top_k, top_p and min_p without sorting. Randomness is a function of (seed, step) alone, so an
answer does not depend on what else the engine was doing.

The host computes in float64 and adds up each residue of 256 before it adds those, in Python and in TypeScript alike, so that
both choose the same tokens. The device computes in float32 and differs where a draw is within some 1e-6 of a bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from webcompile.engine.answer import TokenLogprob, TokenLogprobs
from webcompile.engine.sequence import SamplingParams
from webcompile.errors import WebcompileError

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_GREEDY_BELOW = 1e-6
"""Colder than this only overflows: all probability is on the best token."""
_LANES = 256
_ROUNDS = 32
_LOWEST_LOGPROB = -9999.0
"""Log probability of what is impossible, and the least there is: JSON has no infinity."""

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


def uniform(seed: int, step: int, number: int = 0) -> float:
    """A float64 in (0, 1) for the `number`-th draw of the `step`-th token under a 64-bit `seed`."""
    word = philox4x32((step & _MASK, number, 0, 0), (seed & _MASK, seed >> 32 & _MASK))[0]
    return (word + 0.5) / 2.0**32


class Sampler:
    """Chooses the tokens of one request."""

    def __init__(self, sampling: SamplingParams, vocab_size: int, prompt_ids: Sequence[int]) -> None:
        """Raises request_invalid when `logit_bias` has a token outside the vocabulary."""
        self._sampling = sampling
        self._step = 0
        self._counts = np.zeros(vocab_size)
        """How often the answer has each token, float64[vocab_size]."""
        self._seen = np.zeros(vocab_size, np.bool_)
        """Whether prompt or answer have a token."""
        self._seen[list(prompt_ids)] = True
        outside = next((token for token in sampling.logit_bias if token >= vocab_size), None)
        if outside is not None:
            raise WebcompileError(
                "request_invalid", f"logit_bias: token id {outside} is not below {vocab_size} (vocab_size)"
            )
        self._bias_ids = np.fromiter(sampling.logit_bias.keys(), np.int64)
        self._biases = np.fromiter(sampling.logit_bias.values(), np.float64)

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """The token that follows `logits` float32[vocab_size]. Raises `internal` when they hold NaN or nothing finite."""
        token = self._choose(self._scores(logits))
        self._counts[token] += 1
        self._seen[token] = True
        self._step += 1
        return token

    def _scores(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        sampling, scores = self._sampling, logits.astype(np.float64)
        if sampling.repetition_penalty != 1:
            seen, penalty = scores[self._seen], sampling.repetition_penalty
            scores[self._seen] = np.where(seen > 0, seen / penalty, seen * penalty)
        if sampling.frequency_penalty or sampling.presence_penalty:
            scores -= sampling.frequency_penalty * self._counts + sampling.presence_penalty * (self._counts > 0)
        scores[self._bias_ids] += self._biases
        return scores

    def _choose(self, scores: npt.NDArray[np.float64]) -> int:
        sampling = self._sampling
        best = int(np.argmax(scores))
        # argmax stops at the first NaN, so the one value it found says whether there is any.
        if not np.isfinite(scores[best]):
            raise WebcompileError("internal", f"the model returned {scores[best]} as logit of token {best}")
        if sampling.temperature < _GREEDY_BELOW or sampling.top_k == 1:
            return best
        weights = np.exp((scores - scores[best]) / sampling.temperature)
        candidates = weights
        mass = total = _lane_sums(candidates)[-1]
        for number in range(_ROUNDS):
            token = _draw(candidates, uniform(sampling.seed, self._step, number) * mass)
            heavier = scores > scores[token]
            heavier[:token] |= scores[:token] == scores[token]
            candidates = np.where(heavier, weights, 0)
            mass = _lane_sums(candidates)[-1]
            if (
                mass < sampling.top_p * total
                and (sampling.top_k == 0 or np.count_nonzero(heavier) < sampling.top_k)
                and weights[token] >= sampling.min_p
            ):
                return token
        return best


def logprobs_of(logits: npt.NDArray[np.float32], token: int, count: int) -> TokenLogprobs:
    """Log probabilities by `logits` float32[vocab_size] alone: of `token` and the `count` most likely (equals by id)."""
    values = logits.astype(np.float64)
    largest = values.max()
    total = largest + np.log(np.exp(values - largest).sum())
    count = min(count, len(values))
    least = np.partition(values, -count)[-count] if count else np.inf
    ids = np.flatnonzero(values >= least)
    top = ids[np.argsort(-values[ids], kind="stable")][:count]

    def logprob(token_id: int) -> float:
        return max(float(values[token_id] - total), _LOWEST_LOGPROB)

    return TokenLogprobs(token, logprob(token), tuple(TokenLogprob(int(i), logprob(int(i))) for i in top))


def _lane_sums(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Running sums float64[256] over the lanes of `weights`, each added up in order (numpy does so along a first axis)."""
    padded = np.zeros((-(-len(weights) // _LANES), _LANES))
    padded.reshape(-1)[: len(weights)] = weights
    return np.cumsum(padded.sum(axis=0))


def _draw(weights: npt.NDArray[np.float64], threshold: float) -> int:
    """The first token, in the order of the algorithm, whose running sum exceeds `threshold`. Tokens of weight 0 are none."""
    ends = _lane_sums(weights)
    # Lanes at or after the last rise hold nothing more.
    lane = min(int(np.searchsorted(ends, threshold, side="right")), int(np.searchsorted(ends, ends[-1])))
    ids = np.arange(lane, len(weights), _LANES)
    ids = ids[weights[ids] > 0]
    sums = np.cumsum(np.concatenate(([ends[lane - 1] if lane else 0.0], weights[ids])))[1:]
    return int(ids[min(int(np.searchsorted(sums, threshold, side="right")), len(ids) - 1)])
