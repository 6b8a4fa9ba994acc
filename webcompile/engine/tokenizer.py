"""Text to token ids and back, by the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers

from webcompile.errors import WebcompileError

_REPLACEMENT = "\ufffd"


class Tokenizer:
    """A `tokenizer.json`."""

    def __init__(self, text: str) -> None:
        """`text` is the file's content. Raises artifact_invalid when the tokenizers library rejects it."""
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # The library raises plain Exception.
            raise WebcompileError("artifact_invalid", f"the tokenizer cannot be read: {error}") from error
        # Padding and truncation are settings of training, not of one prompt.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids. `add_special_tokens` adds what the model begins or ends a text with; a chat template has its own."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of the tokens; bytes that are not UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens))


class Detokenizer:
    """Text of a growing list of tokens, in pieces that are whole characters.

    A window of earlier tokens is decoded along, because what a token spells can depend on the one before it
    (a leading space, the first byte of a character).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._token_ids: list[int] = []
        self._window = 0
        """Where decoding starts."""
        self._emitted = 0
        """Tokens whose text has been given out."""

    def push(self, token_id: int) -> str:
        """Text that this token completes; empty while it ends inside a character."""
        self._token_ids.append(token_id)
        return self._advance(final=False)

    def flush(self) -> str:
        """The rest: U+FFFD for the bytes of a character that stayed incomplete."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        before = self._tokenizer.decode(self._token_ids[self._window : self._emitted])
        after = self._tokenizer.decode(self._token_ids[self._window :])
        if len(after) <= len(before) or (after.endswith(_REPLACEMENT) and not final):
            return ""
        self._window, self._emitted = self._emitted, len(self._token_ids)
        return after[len(before) :]
