"""What a request gives back, on whichever device it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True)
class Delta:
    """A piece of an answer: tokens as they come, text as soon as it is certain. Either may be empty."""

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    """Set in the last piece: an end token or stop string, the token limit, or cancellation."""


@dataclass(frozen=True)
class Usage:
    """Token counts in OpenAI's words; an end token counts as a completion token."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_prompt_tokens: int


@dataclass(frozen=True)
class Timings:
    """Seconds and tokens per second. `prefill_tps` counts computed prompt tokens; None where nothing was timed."""

    ttft_s: float
    prefill_tps: float | None
    decode_tps: float | None


@dataclass(frozen=True)
class Answer:
    """A finished request. `text` has no special tokens and nothing from a stop string on; `token_ids` has all of them."""

    text: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
