"""Tokens that both samplers must choose. `python -m tests.sampler_vectors` writes them anew from the Python sampler."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from webcompile.browser.engine import web_request
from webcompile.config import to_json
from webcompile.engine.sampler import Sampler, logprobs_of, uniform
from webcompile.engine.sequence import SamplingParams

PATH = Path(__file__).resolve().parent.parent / "runtime-web" / "test" / "sampler-vectors.json"
ABOUT = (
    "Tokens that the Python sampler chooses (python -m tests.sampler_vectors) and the TypeScript one must. "
    "Logit i is float32((uniform(9, i) - 0.5) * spread), first rounded down to a multiple of grain unless that is 0."
)
SIZES = (100, 256, 1000, 5000)
PROMPT = (3, 1, 41, 59, 26, 53, 58, 97, 93, 23)
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"top_p": 0.8},
    {"top_p": 0.05, "temperature": 0.25},
    {"top_k": 7},
    {"min_p": 0.2, "temperature": 1.7},
    {"top_p": 0.95, "top_k": 40, "min_p": 0.01, "temperature": 0.6},
    {"temperature": 0.0, "repetition_penalty": 1.8, "frequency_penalty": 0.5, "presence_penalty": 0.25},
    {"top_p": 0.9, "repetition_penalty": 0.7, "frequency_penalty": -0.4, "presence_penalty": 1.5},
    {"top_k": 5, "logit_bias": {0: 3.5, 7: -100.0, 64: 6.25}},
)
SEEDS = (0, 42, 2**53 - 1, -7)


@functools.cache
def logits_of(size: int, spread: float, grain: float) -> npt.NDArray[np.float32]:
    """float32[size] as `ABOUT` says."""
    values = [(uniform(9, i) - 0.5) * spread for i in range(size)]
    return np.array([math.floor(value / grain) * grain if grain else value for value in values], np.float32)


def inputs() -> Iterator[tuple[int, float, float, SamplingParams]]:
    """(size, spread, grain, parameters) of each case."""
    for (i, size), (j, filters) in itertools.product(enumerate(SIZES), enumerate(FILTERS)):
        spread, grain = ((8.0, 0.0), (20.0, 0.5), (2.0, 0.0), (0.0, 0.0))[(i + j) % 4]
        bias = {token: value for token, value in filters.get("logit_bias", {}).items() if token < size}
        logprobs = 3 if j == i else None
        yield (
            size,
            spread,
            grain,
            replace(SamplingParams(**filters, seed=SEEDS[(i + 3 * j) % 4], logprobs=logprobs), logit_bias=bias),
        )


def cases() -> list[dict[str, Any]]:
    """The content of the file."""
    result = []
    for size, spread, grain, sampling in inputs():
        logits, prompt = logits_of(size, spread, grain), [token for token in PROMPT if token < size]
        sampler = Sampler(sampling, size, prompt)
        tokens = [sampler.sample(logits) for _ in range(6)]
        case = {"size": size, "spread": spread, "grain": grain, "prompt": prompt, "request": web_request(sampling)}
        case["tokens"] = tokens
        if sampling.logprobs is not None:
            case["logprobs"] = to_json(logprobs_of(logits, tokens[0], sampling.logprobs))
        result.append(case)
    return result


if __name__ == "__main__":
    lines = ",\n".join(f"  {json.dumps(case)}" for case in cases())
    PATH.write_text(f'{{"about": {json.dumps(ABOUT)}, "cases": [\n{lines}\n]}}\n')
