"""Texts and conversations to token ids, as the artifact's model expects them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from webcompile.engine.artifact import Artifact
from webcompile.engine.chat_template import ChatTemplate, special_tokens
from webcompile.engine.tokenizer import Tokenizer
from webcompile.errors import WebcompileError


class PromptEncoder:
    """The tokenizer and the chat template of an artifact."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises artifact_invalid, artifact_corrupt or template_invalid."""
        info = artifact.manifest.tokenizer
        self._model = artifact.manifest.model.name
        self.tokenizer = Tokenizer(artifact.read_text(info.tokenizer))
        self._template: ChatTemplate | None = None
        self.template = artifact.read_text(info.chat_template) if info.chat_template else ""
        """Source of the chat template."""
        if self.template:
            tokens = special_tokens(artifact.read_json(info.config)) if info.config else {}
            self._template = ChatTemplate(self.template, tokens)

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`, as the model expects a text of its own."""
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> list[int]:
        """Token ids of the prompt for `messages`, ending where the assistant begins.

        Raises template_invalid, also for a model that has no chat template.
        """
        if self._template is None:
            hint = "Give a prompt as text; this is a base model that was not trained on chats."
            raise WebcompileError("template_invalid", f"{self._model} has no chat template", hint)
        return self.tokenizer.encode(self._template.render(messages, **variables), add_special_tokens=False)
