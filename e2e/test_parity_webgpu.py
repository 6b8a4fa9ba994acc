"""The demo model on WebGPU in Chromium against transformers in float32, and against our own CPU build."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reference import COMPLETION_TOKENS, PROMPTS, Reference
from webcompile.browser.engine import BrowserEngine
from webcompile.engine.engine import Engine
from webcompile.engine.sequence import SamplingParams


@pytest.mark.parametrize("quantization", ["q0f32", "q4f32_1", "q4f16_1"])
def test_greedy_tokens_and_prefill_logits_equal_the_reference(
    quantization: str, demo_artifact: Callable[[str], Path], demo_reference: Callable[[str], Reference]
) -> None:
    reference = demo_reference(quantization)
    folder = demo_artifact(quantization)
    greedy = SamplingParams(temperature=0, max_tokens=COMPLETION_TOKENS, ignore_eos=True)
    with BrowserEngine(folder) as browser, Engine(folder, device="cpu") as native:
        for prompt in PROMPTS:
            token_ids = native.tokenize(prompt)
            assert browser.tokenize(prompt) == token_ids
            assert np.abs(browser.forward(token_ids) - reference.logits(token_ids)[-1]).max() < 2e-3
            completion = list(browser.answer(token_ids, greedy).token_ids)
            assert completion == reference.complete(token_ids)[0]
            assert completion == list(native.answer(token_ids, greedy).token_ids)


PENALTIES: dict[str, Any] = {
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.3,
    "presence_penalty": 0.2,
    "logit_bias": {28: 1.5, 30: -100.0},
}


def test_seeded_sampling_is_the_same_on_both_devices(demo_artifact: Callable[[str], Path]) -> None:
    folder = demo_artifact("q4f32_1")
    common = SamplingParams(temperature=0.8, seed=7, max_tokens=16, ignore_eos=True, logprobs=3)
    samplings = [
        replace(common, top_p=0.9),
        replace(common, temperature=1.2, top_k=40, min_p=0.02, **PENALTIES),
        replace(common, temperature=0.0, **PENALTIES),
    ]
    with BrowserEngine(folder) as browser, Engine(folder, device="cpu") as native:
        for prompt, sampling in itertools.product(PROMPTS[:2], samplings):
            token_ids = native.tokenize(prompt)
            expected, found = native.answer(token_ids, sampling), browser.answer(token_ids, sampling)
            assert found.token_ids == expected.token_ids
            assert found.logprobs is not None
            assert expected.logprobs is not None
            for one, other in zip(found.logprobs, expected.logprobs, strict=True):
                assert one.logprob == pytest.approx(other.logprob, abs=2e-3)
                assert [top.logprob for top in one.top] == pytest.approx([top.logprob for top in other.top], abs=2e-3)
