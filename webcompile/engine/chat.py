"""OpenAI-shaped chats on the native engine: `engine.chat.completions.create(messages=…)`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

from webcompile.engine.answer import FinishReason, Usage
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
class Choice:
    """The one answer."""

    message: ChatMessage
    finish_reason: FinishReason
    index: int = 0


@dataclass(frozen=True)
class ChunkChoice:
    """A piece of the one answer."""

    delta: ChatMessage
    finish_reason: FinishReason | None
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

        Options: max_tokens (or max_completion_tokens), temperature (1), top_p (1), seed, stop (a string or some) and
        model, which is ignored: the engine has one. Raises request_invalid for any other option, template_invalid or
        context_overflow.
        """
        generation = self._engine.generate(self._engine.apply_chat_template(messages), _sampling(options))
        identifier = f"chatcmpl-{secrets.token_hex(12)}"
        if stream:
            return self._chunks(identifier, generation)
        answer = generation.wait()
        choice = Choice(ChatMessage(answer.text), answer.finish_reason)
        return ChatCompletion(identifier, self._engine.model.name, (choice,), answer.usage)

    def _chunks(self, identifier: str, generation: Generation) -> Iterator[ChatCompletionChunk]:
        try:
            for delta in generation:
                if delta.text or delta.finish_reason:
                    choice = ChunkChoice(ChatMessage(delta.text), delta.finish_reason)
                    usage = generation.answer.usage if delta.finish_reason and generation.answer else None
                    yield ChatCompletionChunk(identifier, self._engine.model.name, (choice,), usage)
        finally:
            generation.close()


class Chat:
    """Has `completions`, as in OpenAI's client."""

    def __init__(self, engine: Engine) -> None:
        self.completions = Completions(engine)


def _sampling(options: dict[str, Any]) -> SamplingParams:
    known = ("model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise WebcompileError("request_invalid", f"unknown option {unknown[0]!r}; known options: {', '.join(known)}")
    given = {key: value for key, value in options.items() if value is not None}
    given.pop("model", None)
    if "max_completion_tokens" in given:
        given["max_tokens"] = given.pop("max_completion_tokens")
    if "stop" in given:
        given["stop"] = (given["stop"],) if isinstance(given["stop"], str) else tuple(given["stop"])
    return SamplingParams(**given)
