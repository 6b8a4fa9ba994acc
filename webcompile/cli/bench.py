"""`webcompile bench`: how fast a compiled model loads, reads a prompt and answers."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import Any

from webcompile.cli import devices
from webcompile.config import to_json
from webcompile.engine import Answer, SamplingParams
from webcompile.errors import WebcompileError

_TEXT = """The library at the end of the street opens at nine. On rainy mornings a small queue forms under its roof: two
students, a retired engineer with a thermos, sometimes a child who is early for school. Inside, seven rooms hold maps,
letters, journals and some forty thousand books, few of which have been asked for this year. """

_FIGURES = ("ttft_s", "prefill_tps", "decode_tps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    devices.add_arguments(parser)
    parser.add_argument("--prompt-tokens", type=int, default=128, metavar="N", help="length of the prompt (default: 128)")
    parser.add_argument("--decode-tokens", type=int, default=64, metavar="N", help="length of the answer (default: 64)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="measured runs after the first (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints. The first run is reported apart: it compiles kernels and fills caches."""
    for name in ("prompt_tokens", "decode_tokens", "repeat"):
        if getattr(arguments, name) < 1:
            raise WebcompileError("request_invalid", f"{name}: expected at least 1, got {getattr(arguments, name)}")
    sampling = SamplingParams(max_tokens=arguments.decode_tokens, temperature=0, seed=0, ignore_eos=True)
    with devices.open_engine(arguments) as loaded:
        engine = loaded.engine
        token_ids = engine.tokenize(_TEXT, add_special_tokens=False)
        prompts = distinct_prompts(token_ids, arguments.prompt_tokens, arguments.repeat + 1)
        answers = [engine.answer(prompt, sampling) for prompt in prompts]
        result = {
            "prompt_tokens": arguments.prompt_tokens,
            "decode_tokens": arguments.decode_tokens,
            "repeat": arguments.repeat,
            "load_s": loaded.load_s,
            "first": to_json(answers[0].timings),
            **summarize(answers[1:]),
            "cached_prompt_tokens": max(answer.usage.cached_prompt_tokens for answer in answers),
            "device": to_json(engine.device()),
            "versions": loaded.versions,
        }
    print(json.dumps(result) if arguments.json else _table(result))
    return 0


def distinct_prompts(token_ids: Sequence[int], length: int, count: int) -> list[list[int]]:
    """`count` prompts of `length` tokens that begin differently, so that none finds a prefix of another in the cache."""
    starts = list({token: index for index, token in reversed(list(enumerate(token_ids)))}.values())
    rounds = length // len(token_ids) + 2
    return [(list(token_ids) * rounds)[starts[i % len(starts)] :][:length] for i in range(count)]


def summarize(answers: Sequence[Answer]) -> dict[str, Any]:
    """Median, minimum and maximum of each figure; None for one that was not measured."""
    summary: dict[str, Any] = {}
    for name in _FIGURES:
        values = [value for answer in answers if (value := getattr(answer.timings, name)) is not None]
        summary[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None
    return summary


def _table(result: dict[str, Any]) -> str:
    device = result["device"]
    lines = [
        f"{device['kind']}: {device['adapter']}",
        f"{result['prompt_tokens']} prompt tokens, {result['decode_tokens']} decoded, {result['repeat']} runs and a first",
        f"{'load':>12} {result['load_s']:9.2f} s",
    ]
    for name, label, unit in (
        ("ttft_s", "first token", "s"),
        ("prefill_tps", "prefill", "tokens/s"),
        ("decode_tps", "decode", "tokens/s"),
    ):
        figure, first = result[name], result["first"][name]
        if figure is not None:
            spread = f"({figure['min']:.2f} to {figure['max']:.2f}; first run {first:.2f})"
            lines.append(f"{label:>12} {figure['median']:9.2f} {unit} {spread}")
    if device["dispatches_per_token"] is not None:
        lines.append(
            f"{'per token':>12} {device['dispatches_per_token']:9.1f} dispatches, {device['host_ms_per_token']:.2f} ms host"
        )
    return "\n".join(lines)
