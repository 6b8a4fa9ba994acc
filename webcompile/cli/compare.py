"""`webcompile compare`: one model on several targets, token by token and logit by logit."""

from __future__ import annotations

import argparse
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from webcompile.browser.launch import ADAPTERS
from webcompile.build.artifact import build_artifact
from webcompile.cli.versions import versions
from webcompile.compare.page import render_page
from webcompile.compare.report import Report, compare_runs
from webcompile.compare.table import describe
from webcompile.compare.targets import Absence, Place, Plan, Prompt, Run, open_subject, read_layers, run_target
from webcompile.config import to_json
from webcompile.contracts import QUANTIZATIONS
from webcompile.engine import SamplingParams
from webcompile.engine.artifact import Artifact
from webcompile.engine.prompt import PromptEncoder
from webcompile.errors import WebcompileError
from webcompile.progress import Progress

PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a small village by the sea, there lived",
    "Water boils at a temperature of",
    "The three laws of motion are",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="as for compile: 'demo', a folder, a .gguf file or HF://org/name")
    parser.add_argument(
        "--targets",
        default="cpu,webgpu",
        type=_places,
        metavar="A,B,...",
        help="the first is the reference; opencl:1 is the second device, vulkan/f16 a variant (default: %(default)s)",
    )
    parser.add_argument(
        "--quantization", default="q4f32_1", help=f"one of {', '.join(QUANTIZATIONS)} (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="artifact folder (default: dist/NAME-QUANTIZATION)")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="JSON list of texts (default: five short ones)")
    parser.add_argument("--tokens", type=int, default=32, metavar="N", help="tokens of each answer (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the sampled answers (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="of the sampled answers (default: %(default)s)")
    parser.add_argument("--adapter", choices=ADAPTERS, default="swiftshader", help="for webgpu (default: %(default)s)")
    parser.add_argument("--layers", action="store_true", help="also compare the hidden states after each layer")
    parser.add_argument(
        "--report", type=Path, metavar="STEM", help="write STEM.json and STEM.html (default: compare in the working folder)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Builds, runs, writes and prints. Status 1 if targets differ by more than rounding explains."""
    report = compare(arguments)
    stem: Path = arguments.report or Path("compare")
    stem.parent.mkdir(parents=True, exist_ok=True)
    data, page = stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.html")
    data.write_text(json.dumps(to_json(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(render_page(report), encoding="utf-8")
    print(json.dumps(to_json(report), ensure_ascii=False) if arguments.json else f"{describe(report)}\n{data}\n{page}")
    return 0 if report.agreed else 1


def compare(arguments: argparse.Namespace) -> Report:
    """The report. Targets that cannot be built or opened are in it with the reason.

    Raises what the first target that does raise says, if none can run.
    """
    progress, places = Progress(), arguments.targets
    folder, absent = _build(arguments, arguments.output, places, progress)
    layers_folder = folder.with_name(f"{folder.name}-layers")
    if arguments.layers:
        built = [place for place in places if all(of.place != place for of in absent)]
        _build(arguments, layers_folder, built, progress, layered=True)
    artifact = Artifact.open(folder)
    plan = _plan(arguments, PromptEncoder(artifact))
    longest = max(len(prompt.token_ids) for prompt in plan.prompts)
    settings: dict[str, Any] = {"adapter": arguments.adapter, "max_context_tokens": longest + arguments.tokens + 1}
    runs: list[Run] = []
    for place in places:
        if any(of.place == place for of in absent):
            continue
        try:
            with progress.stage(f"run {place.name}"):
                run = run_target(
                    functools.partial(open_subject, folder, place, **settings), place, plan, runs[0] if runs else None
                )
                if arguments.layers:
                    opened = functools.partial(open_subject, layers_folder, place, **settings)
                    num_layers = artifact.variant(place.target).cache.num_layers
                    run = replace(run, layers=read_layers(opened, plan, num_layers, artifact.manifest.model.vocab_size))
                runs.append(run)
        except WebcompileError as error:
            absent.append(Absence(place, error))
    if not runs:
        raise absent[0].error
    return compare_runs(artifact.manifest.model, plan, runs, absent, versions())


def _build(
    arguments: argparse.Namespace, output: Path | None, places: list[Place], progress: Progress, *, layered: bool = False
) -> tuple[Path, list[Absence]]:
    """All targets in one folder, and those that cannot be built here."""
    folder, absent = output, []
    for place in places:
        try:
            _, report = build_artifact(
                arguments.model,
                target=place.target,
                quantization=arguments.quantization,
                output=folder,
                progress=progress,
                layered=layered,
            )
            folder = report.folder
        except WebcompileError as error:
            # What is wrong with the model or the command is wrong with all targets.
            if error.code not in ("tool_missing", "link_failed"):
                raise
            absent.append(Absence(place, error))
    if folder is None:
        raise absent[0].error
    return folder, absent


def _plan(arguments: argparse.Namespace, encoder: PromptEncoder) -> Plan:
    texts = PROMPTS if arguments.prompts is None else _read_prompts(arguments.prompts)
    common = {"max_tokens": arguments.tokens, "ignore_eos": True}
    return Plan(
        prompts=tuple(Prompt(text, tuple(encoder.tokenize(text))) for text in texts),
        greedy=SamplingParams(temperature=0, **common),
        seeded=SamplingParams(temperature=arguments.temperature, seed=arguments.seed, **common),
    )


def _read_prompts(path: Path) -> list[str]:
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WebcompileError("request_invalid", f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise WebcompileError("request_invalid", f'{path}: expected a list of texts such as ["Hello"]')
    return texts


def _places(text: str) -> list[Place]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected different targets such as cpu,webgpu, got {text!r}")
    return [Place.of(name) for name in names]
