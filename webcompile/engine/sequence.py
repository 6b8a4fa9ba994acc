"""A request on its way through the engine: its tokens, its pages and how to sample the next token."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from webcompile.errors import WebcompileError

_ids = itertools.count()


MAX_LOGIT_BIASES = 1024


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens and when to stop. `engine.sampler` says what each number does.

    `max_tokens` None means until the context window is full. `temperature` 0 is greedy, `top_k` 0 keeps all. `logit_bias`
    is by token id. `seed` is 64 bits; the default is drawn at random. `logprobs` asks for log probabilities, with so many
    alternatives. `stop` strings end the answer and are not part of it. `ignore_eos` goes on past end tokens.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = field(default_factory=lambda: secrets.randbits(53))
    logprobs: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        """Raises request_invalid naming the field that is out of range."""
        biases = self.logit_bias
        for name, holds, expected in (
            ("max_tokens", self.max_tokens is None or self.max_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature <= 2, "between 0 and 2"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", type(self.top_k) is int and 0 <= self.top_k < 2**31, "a whole number, 0 (off) or above"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", 0 < self.repetition_penalty <= 2, "above 0 and at most 2"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "between -2 and 2"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "between -2 and 2"),
            ("logit_bias", len(biases) <= MAX_LOGIT_BIASES, f"at most {MAX_LOGIT_BIASES} entries"),
            ("logit_bias", all(type(token) is int and token >= 0 for token in biases), "token ids as keys"),
            ("logit_bias", all(-100 <= bias <= 100 for bias in biases.values()), "numbers between -100 and 100"),
            ("seed", -(2**63) <= self.seed < 2**64, "a 64-bit integer"),
            ("logprobs", self.logprobs is None or 0 <= self.logprobs <= 20, "between 0 and 20"),
            ("stop", all(self.stop) and len(self.stop) <= 16, "at most 16 non-empty strings"),
        ):
            if not holds:
                got = f"{len(biases)}" if "entries" in expected else repr(getattr(self, name))
                raise WebcompileError("request_invalid", f"{name}: expected {expected}, got {got[:80]}")


class Sequence:
    """Tokens of one request, prompt first; positions below `num_cached_tokens` are in the KV cache at `pages`."""

    def __init__(self, prompt_ids: SequenceOf[int], sampling: SamplingParams) -> None:
        self.id = next(_ids)
        """Ascending in order of arrival."""
        self.token_ids = list(prompt_ids)
        self.num_prompt_tokens = len(self.token_ids)
        self.sampling = sampling
        self.pages: list[int] = []
        self.num_cached_tokens = 0
        self.num_computed_tokens = 0
        """Where the last step ended: `num_cached_tokens`, or more if some were taken back since."""
        self.num_reused_tokens = 0
        """Prompt tokens that came from another sequence's cache."""

    def advance(self, num_tokens: int) -> None:
        """Counts the tokens of a step as cached."""
        self.num_cached_tokens += num_tokens
        self.num_computed_tokens = self.num_cached_tokens

    @property
    def completion_ids(self) -> list[int]:
        """Tokens generated so far."""
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def num_completion_tokens(self) -> int:
        """How many tokens were generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_pending_tokens(self) -> int:
        """Tokens that are known but not yet in the cache; when a step brings it to 0, its logits choose the next."""
        return len(self.token_ids) - self.num_cached_tokens
