"""Gemma 3 270M in Chromium against our own CPU build."""

from __future__ import annotations

from tests.gemma import NEEDS_GEMMA, gemma_artifact
from webcompile.browser.engine import BrowserEngine
from webcompile.engine.engine import Engine
from webcompile.engine.sequence import SamplingParams

pytestmark = NEEDS_GEMMA


def test_greedy_tokens_are_those_of_the_cpu() -> None:
    prompt, greedy = "The capital of France is", SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    with BrowserEngine(gemma_artifact()) as browser, Engine(gemma_artifact(), device="cpu") as native:
        token_ids = native.tokenize(prompt)
        assert browser.tokenize(prompt) == token_ids
        assert browser.answer(token_ids, greedy).token_ids == native.answer(token_ids, greedy).token_ids
