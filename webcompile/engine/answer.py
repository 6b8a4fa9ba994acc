"""What a request gives back, on whichever device it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]
"""An end token or a stop string, or the limit of tokens or of the context window."""


@dataclass(frozen=True)
class TokenLogprob:
    """How likely the model found a token: a natural logarithm, at least -9999."""

    token_id: int
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs:
    """A token of the answer, and the most likely ones in its place. Penalties and the like have no part in it."""

    token_id: int
    logprob: float
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Delta:
    """A piece of an answer: tokens as they come, text as soon as it is certain. Either may be empty."""

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    """Set in the last piece only."""
    logprobs: tuple[TokenLogprobs, ...] | None = None
    """For each of the tokens, if the request asks for them."""


@dataclass(frozen=True)
class Usage:
    """Token counts in OpenAI's words; an end token counts as a completion token."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_prompt_tokens: int


@dataclass(frozen=True)
class Timings:
    """Seconds to the first token, and tokens per second; None where nothing was timed."""

    ttft_s: float
    prefill_tps: float | None
    decode_tps: float | None

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int, prefill_s: float, decode_s: float) -> Timings:
        """From `prompt_tokens` computed in `prefill_s` until the first token and the other tokens in `decode_s`."""
        return cls(
            prefill_s,
            prompt_tokens / prefill_s if prefill_s > 0 else None,
            (completion_tokens - 1) / decode_s if decode_s > 0 and completion_tokens > 1 else None,
        )


@dataclass(frozen=True)
class Answer:
    """A finished request. `text` has no special tokens and nothing from a stop string on; `token_ids` has all of them."""

    text: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    logprobs: tuple[TokenLogprobs, ...] | None = None
    """For each of the tokens, if the request asks for them."""


@dataclass(frozen=True)
class DeviceInfo:
    """What an engine runs on. The counters are of the last request's decode steps; None where nothing is counted."""

    kind: str
    adapter: str
    variant: str
    """Name of the compiled form in the manifest."""
    features: tuple[str, ...] = ()
    dispatches_per_token: float | None = None
    submits_per_token: float | None = None
    host_ms_per_token: float | None = None
    bytes_written_per_token: float | None = None
    bytes_read_per_token: float | None = None
    gpu_objects_per_token: float | None = None
    """GPU objects created."""
    pipelines: int | None = None
