"""Takes a model's reply apart while it is written: what it thinks, what it says, which tools it calls.

`runtime-web/src/openai/reply.ts` is the same in TypeScript; `tests/vectors/replies.json` holds both to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

_REASONING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
_CALLS = (("<tool_call>", "</tool_call>"), ("<|tool_call_start|>", "<|tool_call_end|>"))

_State = Literal["start", "reasoning", "content", "call", "bare"]


@dataclass(frozen=True)
class ReplyFormat:
    """How a family of models marks the parts of a reply, as its chat template shows."""

    reasoning: tuple[str, str] | None
    """What thoughts stand between."""
    call: tuple[str, str] | None
    """What a call stands between; None for a reply that is nothing but calls, as JSON."""

    @classmethod
    def of(cls, template: str) -> ReplyFormat:
        """The format of a chat template (its Jinja source)."""
        reasoning = next((pair for pair in _REASONING if pair[1] in template), None)
        return cls(reasoning, next((pair for pair in _CALLS if pair[0] in template), None))


@dataclass(frozen=True)
class ToolCall:
    """A call of a function; `arguments` are JSON."""

    name: str
    arguments: str


@dataclass(frozen=True)
class ReplyDelta:
    """What a piece of text adds to the parts of a reply."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


class ReplyParser:
    """Cuts one reply. Text that only looks like a call is content: nothing is lost."""

    def __init__(self, form: ReplyFormat, *, tools: bool = False, prompt: str = "") -> None:
        """Calls are looked for if there are `tools`. Some templates end the `prompt` with the mark that opens thoughts."""
        self._form = form
        self._tools = tools
        opened = form.reasoning is not None and prompt.rstrip().endswith(form.reasoning[0])
        self._state: _State = "reasoning" if opened else "start"
        self._text = ""
        self._fresh = True
        """Only white space since the last mark: it is not part of what follows."""
        self._content, self._reasoning, self._calls = "", "", list[ToolCall]()

    def push(self, text: str) -> ReplyDelta:
        """The next piece of the reply."""
        self._text += text
        while self._step():
            pass
        return self._take()

    def finish(self) -> ReplyDelta:
        """The reply has ended."""
        text, self._text = self._text, ""
        if self._state in ("call", "bare"):
            self._add_calls(text, text if self._state == "bare" or self._form.call is None else self._form.call[0] + text)
        elif self._state == "reasoning":
            self._add_reasoning(text)
        else:
            self._add_content(text)
        return self._take()

    def _step(self) -> bool:
        """Cuts off what is certain; whether the state is another one now."""
        form = self._form
        if self._state == "start":
            start = self._text.lstrip()
            if not start:
                return False
            if form.reasoning is not None and form.reasoning[0].startswith(start[: len(form.reasoning[0])]):
                if len(start) < len(form.reasoning[0]):
                    return False
                self._text = start[len(form.reasoning[0]) :]
                return self._enter("reasoning")
            is_bare = self._tools and form.call is None and start[0] in "{["
            return self._enter("bare" if is_bare else "content")
        if self._state == "reasoning" and form.reasoning is not None:
            before, found = self._until(form.reasoning[1])
            self._add_reasoning(before)
            return found and self._enter("start")
        if self._state == "content" and self._tools and form.call is not None:
            before, found = self._until(form.call[0])
            self._add_content(before)
            return found and self._enter("call")
        if self._state == "content":
            self._add_content(self._text)
            self._text = ""
        if self._state == "call" and form.call is not None and form.call[1] in self._text:
            inside, _, self._text = self._text.partition(form.call[1])
            self._add_calls(inside, form.call[0] + inside + form.call[1])
            return self._enter("content")
        return False

    def _enter(self, state: _State) -> bool:
        self._state, self._fresh = state, True
        return True

    def _until(self, mark: str) -> tuple[str, bool]:
        """Takes the text before the mark, and the mark; without it, all that cannot be its beginning."""
        before, found, after = self._text.partition(mark)
        if found:
            self._text = after
            return before, True
        held = max(n for n in range(len(mark)) if self._text.endswith(mark[:n]))
        self._text = before[len(before) - held :]
        return before[: len(before) - held], False

    def _trimmed(self, text: str) -> str:
        if self._fresh:
            text = text.lstrip()
            self._fresh = not text
        return text

    def _add_content(self, text: str) -> None:
        self._content += self._trimmed(text)

    def _add_reasoning(self, text: str) -> None:
        self._reasoning += self._trimmed(text)

    def _add_calls(self, text: str, raw: str) -> None:
        calls = _parse_calls(text)
        if calls is None:
            self._content += raw
        else:
            self._calls += calls

    def _take(self) -> ReplyDelta:
        delta = ReplyDelta(self._content, self._reasoning, tuple(self._calls))
        self._content, self._reasoning, self._calls = "", "", []
        return delta


def _parse_calls(text: str) -> list[ToolCall] | None:
    """The calls that JSON stands for: one, or a list of them; None if it stands for something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    calls = [_parse_call(item) for item in (value if isinstance(value, list) else [value])]
    return None if not calls or None in calls else [call for call in calls if call is not None]


def _parse_call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, dict):
        return None
    return ToolCall(value["name"], json.dumps(arguments, ensure_ascii=False, separators=(",", ":")))
