"""OpenAI-shaped chats on the native engine: `engine.chat.completions.create(messages=…)`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

from webcompile.engine.answer import FinishReason, TokenLogprob, TokenLogprobs, Usage
from webcompile.engine.sequence import SamplingParams
from webcompile.errors import WebcompileError

if TYPE_CHECKING:
    from webcompile.engine.engine import Engine, Generation


@dataclass(frozen=True)
class ChatMessage:
    """What the assistant says; in a chunk only the new part."""

    content: str
    role: Literal["assistant"] = "assistant"


@dataclass(frozen=True)
class TopLogprob:
    """A token as it is written and how likely the model found it. `bytes` is None for a special token: it is no text."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None


@dataclass(frozen=True)
class ContentLogprob(TopLogprob):
    """A token of the answer with the most likely ones in its place."""

    top_logprobs: tuple[TopLogprob, ...]


@dataclass(frozen=True)
class ChatLogprobs:
    """Log probabilities of all tokens of the answer or of a piece of it, with the one that ends it."""

    content: tuple[ContentLogprob, ...]
    refusal: None = None


@dataclass(frozen=True)
class Choice:
    """The one answer."""

    message: ChatMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None
    index: int = 0


@dataclass(frozen=True)
class ChunkChoice:
    """A piece of the one answer."""

    delta: ChatMessage
    finish_reason: FinishReason | None
    logprobs: ChatLogprobs | None = None
    index: int = 0


@dataclass(frozen=True)
class ChatCompletion:
    """A whole answer."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    created: int = field(default_factory=lambda: int(time.time()))
    object: Literal["chat.completion"] = "chat.completion"


@dataclass(frozen=True)
class ChatCompletionChunk:
    """A piece of a streamed answer; the last has a finish reason and the usage."""

    id: str
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class Completions:
    """Has `create`, as in OpenAI's client."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @overload
    def create(
        self, *, messages: Sequence[Mapping[str, Any]], stream: Literal[False] = False, **options: Any
    ) -> ChatCompletion: ...

    @overload
    def create(
        self, *, messages: Sequence[Mapping[str, Any]], stream: Literal[True], **options: Any
    ) -> Iterator[ChatCompletionChunk]: ...

    def create(
        self, *, messages: Sequence[Mapping[str, Any]], stream: bool = False, **options: Any
    ) -> ChatCompletion | Iterator[ChatCompletionChunk]:
        """Answers `messages`.

        Options: max_tokens (or max_completion_tokens), stop (a string or some), logprobs (a bool), top_logprobs (0 to 20),
        those of `SamplingParams` that say how to choose tokens, and model, which is ignored: the engine has one. Raises
        request_invalid for any other option, template_invalid or context_overflow.
        """
        generation = self._engine.generate(self._engine.apply_chat_template(messages), _sampling(options))
        identifier = f"chatcmpl-{secrets.token_hex(12)}"
        if stream:
            return self._chunks(identifier, generation)
        answer = generation.wait()
        choice = Choice(ChatMessage(answer.text), answer.finish_reason, self._logprobs(answer.logprobs))
        return ChatCompletion(identifier, self._engine.model.name, (choice,), answer.usage)

    def _chunks(self, identifier: str, generation: Generation) -> Iterator[ChatCompletionChunk]:
        try:
            for delta in generation:
                if delta.text or delta.finish_reason or delta.logprobs:
                    choice = ChunkChoice(ChatMessage(delta.text), delta.finish_reason, self._logprobs(delta.logprobs))
                    usage = generation.answer.usage if delta.finish_reason and generation.answer else None
                    yield ChatCompletionChunk(identifier, self._engine.model.name, (choice,), usage)
        finally:
            generation.close()

    def _logprobs(self, tokens: tuple[TokenLogprobs, ...] | None) -> ChatLogprobs | None:
        if tokens is None:
            return None
        tokenizer = self._engine.tokenizer

        def spelled(token: TokenLogprob | TokenLogprobs) -> TopLogprob:
            text, spelling = tokenizer.spelling(token.token_id)
            return TopLogprob(text, token.logprob, None if spelling is None else tuple(spelling))

        return ChatLogprobs(
            tuple(ContentLogprob(**vars(spelled(token)), top_logprobs=tuple(map(spelled, token.top))) for token in tokens)
        )


class Chat:
    """Has `completions`, as in OpenAI's client."""

    def __init__(self, engine: Engine) -> None:
        self.completions = Completions(engine)


_PARAMETERS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "seed",
)
"""Options with the name and meaning of the field of `SamplingParams`."""


def _sampling(options: dict[str, Any]) -> SamplingParams:
    known = (*_PARAMETERS, "max_completion_tokens", "stop", "logprobs", "top_logprobs", "model")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise WebcompileError("request_invalid", f"unknown option {unknown[0]!r}; known options: {', '.join(known)}")
    given = {key: value for key, value in options.items() if value is not None}
    given.pop("model", None)
    if "max_completion_tokens" in given:
        given["max_tokens"] = given.pop("max_completion_tokens")
    if "stop" in given:
        given["stop"] = (given["stop"],) if isinstance(given["stop"], str) else tuple(given["stop"])
    if "logit_bias" in given:
        given["logit_bias"] = {_token_id(key): bias for key, bias in given["logit_bias"].items()}
    top_logprobs = given.pop("top_logprobs", None)
    if given.pop("logprobs", False):
        given["logprobs"] = top_logprobs or 0
    elif top_logprobs is not None:
        raise WebcompileError("request_invalid", "top_logprobs needs logprobs=True")
    return SamplingParams(**given)


def _token_id(key: object) -> int:
    """JSON has keys that are strings only."""
    if type(key) is int or (isinstance(key, str) and key.isascii() and key.isdigit()):
        return int(key)
    raise WebcompileError("request_invalid", f"logit_bias: expected token ids as keys, got {key!r}")
