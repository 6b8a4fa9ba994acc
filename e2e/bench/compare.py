"""`python -m e2e.bench.compare ARTIFACT`: our engine against TVM's stock stack, on the same weights, adapter and browser."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2e.bench.chart import chart, number
from e2e.bench.figures import Comparison, agreement, compare, metrics
from e2e.bench.measure import SHORT_PROMPT_TOKENS, Measured, Plan, measure
from e2e.bench.stock.model import PREFILL_CHUNK_TOKENS
from webcompile.browser.launch import ADAPTERS
from webcompile.cli.bench import distinct_prompts
from webcompile.cli.versions import versions
from webcompile.engine.artifact import Artifact
from webcompile.engine.prompt import PromptEncoder
from webcompile.errors import WebcompileError

_ROOT = Path(__file__).resolve().parent.parent.parent
_TEXT = """The lighthouse keeper wrote down the weather every morning before breakfast. Most days there was little to say:
wind from the west, four; sea moderate; a coaster heading north. But once a year, when the herring came, he used a whole
page and drew the boats in its margin, one small triangle for each, so that nobody could doubt what he had counted. """


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table and writes JSON and SVG."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench.compare", description=__doc__)
    parser.add_argument("artifact", type=Path, help="folder of a compiled Llama in q4f16_1 or q4f32_1")
    parser.add_argument("--adapter", choices=ADAPTERS, default="swiftshader", help="WebGPU adapter (default: swiftshader)")
    parser.add_argument("--adapter-name", metavar="TEXT", help="what the adapter is, where the browser does not say so")
    parser.add_argument("--prompt-tokens", type=_lengths, default=[128], metavar="N,N", help="prompt lengths (default: 128)")
    parser.add_argument("--decode-tokens", type=int, default=4, metavar="N", help="measured decode steps (default: 4)")
    parser.add_argument("--repeat", type=int, default=2, metavar="N", help="runs of each side, in turns (default: 2)")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the figures go")
    parser.add_argument("--svg", type=Path, required=True, metavar="FILE", help="where the chart goes")
    options = parser.parse_args(arguments)
    if min(options.decode_tokens, options.repeat) < 1:
        parser.error("--decode-tokens and --repeat: expected at least 1")
    try:
        artifact = Artifact.open(options.artifact)
        plan = make_plan(artifact, options.prompt_tokens, options.decode_tokens)
        measured = measure(artifact, options.adapter, plan, options.repeat)
    except WebcompileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    comparisons = compare(
        metrics(options.prompt_tokens),
        [run.figures for run in measured.ours],
        [run.figures for run in measured.stock],
    )
    result = report(artifact, plan, measured, comparisons)
    if options.adapter_name:
        result["adapter"]["name"] = options.adapter_name
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    subtitle = f"{result['model']}, {result['quantization']}; {result['adapter']['name']}, {result['versions']['browser']}"
    options.svg.write_text(chart(comparisons, "webcompile and TVM's stock stack", subtitle))
    print(_table(comparisons))
    print(f"same greedy tokens: {result['agreement']['equal']} of {result['agreement']['compared']}")
    return 0


def make_plan(artifact: Artifact, prompt_tokens: Sequence[int], decode_tokens: int) -> Plan:
    """Prompts of this artifact's tokenizer; no two begin with the same token."""
    token_ids = PromptEncoder(artifact).tokenize(_TEXT, add_special_tokens=False)
    lengths = [SHORT_PROMPT_TOKENS] * 3 + list(prompt_tokens)
    prompts = distinct_prompts(token_ids, max(lengths), len(lengths))
    opening, short, again, *long = (prompt[:length] for prompt, length in zip(prompts, lengths, strict=True))
    return Plan(opening, short, again, dict(zip(prompt_tokens, long, strict=True)), decode_tokens)


def report(artifact: Artifact, plan: Plan, measured: Measured, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """All there is to know about a run, as JSON."""
    web_runtime = json.loads((_ROOT / "node_modules/@mlc-ai/web-runtime/package.json").read_text())["version"]
    equal, compared = 0, 0
    for ours, stock in zip(measured.ours, measured.stock, strict=True):
        counted = agreement(ours.answers, stock.answers)
        equal, compared = equal + counted[0], compared + counted[1]
    return {
        "model": artifact.manifest.model.name,
        "quantization": artifact.manifest.model.quantization,
        "adapter": measured.adapter,
        "variants": {"ours": measured.ours[0].info["variant"], "stock": measured.stock[0].info["variant"]},
        "versions": {**versions(), "web_runtime": web_runtime, "browser": measured.browser},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "prompt_tokens": list(plan.long),
        "decode_tokens": plan.decode_tokens,
        "repeat": len(measured.ours),
        "agreement": {"equal": equal, "compared": compared},
        "metrics": [asdict(comparison) for comparison in comparisons],
        "runs": {"ours": [run.figures for run in measured.ours], "stock": [run.figures for run in measured.stock]},
    }


def _lengths(text: str) -> list[int]:
    lengths = [int(part) for part in text.split(",")]
    if len(set(lengths)) < len(lengths) or not all(1 <= length <= PREFILL_CHUNK_TOKENS for length in lengths):
        raise argparse.ArgumentTypeError(f"expected different lengths from 1 to {PREFILL_CHUNK_TOKENS}, got {text}")
    return lengths


def _table(comparisons: Sequence[Comparison]) -> str:
    lines = [f"{'':28} {'ours':>12} {'stock':>12} {'':10} {'ours / stock':>12}"]
    for one in comparisons:
        ratio = "" if one.ratio is None else f"{one.ratio.median:12.4g} ({one.ratio.min:.4g} to {one.ratio.max:.4g})"
        sides = f"{number(one.ours.median):>12} {number(one.stock.median):>12}"
        lines.append(f"{one.metric.label:28} {sides} {one.metric.unit:10} {ratio}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
