"""Comparing targets: what the report says of engines whose differences are known, and what the command does."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from tests.native_devices import device_params
from tests.test_build import build, write_model
from tests.test_models import TINY
from webcompile.build.artifact import build_artifact
from webcompile.cli.main import main
from webcompile.compare.page import render_page
from webcompile.compare.report import Report, compare_runs
from webcompile.compare.table import describe
from webcompile.compare.targets import Absence, Place, Plan, Prompt, Run, run_target
from webcompile.config import from_json, to_json
from webcompile.engine import Answer, DeviceInfo, Engine, SamplingParams, Timings, Usage
from webcompile.engine.sampler import Sampler
from webcompile.errors import WebcompileError
from webcompile.manifest import ModelInfo
from webcompile.progress import SilentProgress

VOCAB = 50
INFO = ModelInfo("toy <b>", "llama", "q4f32_1", VOCAB, 64, 16, 1000)
COMMON = {"max_tokens": 6, "ignore_eos": True}
PLAN = Plan(
    (Prompt("one", (1, 2)), Prompt("two <script>", (3,))),
    SamplingParams(temperature=0, **COMMON),
    SamplingParams(temperature=0.8, seed=5, **COMMON),
)


class Toy:
    """An engine whose logits are random numbers fixed by the tokens before, plus what `change` does to them."""

    def __init__(self, name: str, change: dict[tuple[int, ...], dict[int, float]] | None = None, noise: float = 0) -> None:
        self.name, self.change, self.noise = name, change or {}, noise

    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        row = np.random.default_rng(list(token_ids)).standard_normal(VOCAB).astype(np.float32)
        for token, amount in self.change.get(tuple(token_ids), {}).items():
            row[token] += amount
        return row + np.float32(self.noise) * np.random.default_rng(1).standard_normal(VOCAB).astype(np.float32)

    def answer(self, prompt: str | Sequence[int], sampling: SamplingParams | None = None) -> Answer:
        assert sampling is not None
        prompt_ids = [int(token) for token in prompt]
        sampler, tokens = Sampler(sampling, VOCAB, prompt_ids), list[int]()
        for _ in range(sampling.max_tokens or 0):
            tokens.append(sampler.sample(self.logits([*prompt_ids, *tokens])))
        return Answer(
            " ".join(map(str, tokens)),
            tuple(prompt_ids),
            tuple(tokens),
            "length",
            Usage(len(prompt_ids), len(tokens), len(prompt_ids) + len(tokens), 0),
            Timings(0.1, 10.0, 20.0),
        )

    def follow(self, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> np.ndarray:
        return np.stack([self.logits([*prompt_ids, *token_ids[:i]]) for i in range(len(token_ids))])

    def device(self) -> DeviceInfo:
        return DeviceInfo(self.name, f"{self.name} adapter", "f32")


def compared(*engines: Toy) -> Report:
    runs: list[Run] = []
    for engine in engines:
        runs.append(
            run_target(lambda engine=engine: nullcontext(engine), Place.of(engine.name), PLAN, runs[0] if runs else None)
        )
    absent = Absence(Place.of("opencl:1"), WebcompileError("target_unsupported", "no driver", "get one"))
    return compare_runs(INFO, PLAN, runs, [absent], {"webcompile": "0"})


def test_equal_engines_agree_in_every_token_and_logit() -> None:
    report = compared(Toy("cpu"), Toy("vulkan/f32"))
    assert report.agreed
    for target in report.targets:
        assert (target.same_tokens, target.seeded_same_tokens, target.num_tokens) == (12, 12, 12)
        assert (target.max_difference, target.mean_difference) == (0, 0)


def test_the_size_of_a_difference_is_measured() -> None:
    report = compared(Toy("cpu"), Toy("gpu", noise=1e-6))
    error = 1e-6 * np.abs(np.random.default_rng(1).standard_normal(VOCAB))
    assert report.agreed
    assert report.targets[1].max_difference == pytest.approx(error.max(), rel=0.2)
    assert report.targets[1].mean_difference == pytest.approx(error.mean(), rel=0.2)


def at_third_token(above: float) -> dict[tuple[int, ...], dict[int, float]]:
    """A change that lifts the runner-up of the third greedy token of prompt one so far above the first."""
    toy = Toy("cpu")
    tokens = toy.answer([1, 2], PLAN.greedy).token_ids
    before = (1, 2, *tokens[:2])
    row = toy.logits(before)
    first, second = np.argsort(-row)[:2]
    assert first == tokens[2]
    return {before: {int(second): float(row[first] - row[second] + above)}}


def test_a_token_that_differs_by_less_than_the_logits_is_explained() -> None:
    change = at_third_token(0.01)
    report = compared(Toy("cpu"), Toy("gpu", change))
    answers = report.targets[1].answers[0]
    assert answers.same == 2
    assert answers.split is not None
    assert answers.split.position == 2
    assert answers.split.other_gap == pytest.approx(0.01, abs=1e-5)
    assert answers.split.gap < answers.split.error == report.targets[1].max_difference
    assert report.agreed
    assert report.targets[1].same_tokens == 8
    assert "prompt 1, greedy: parts at token 2" in describe(report)


def test_a_token_that_differs_for_no_reason_in_the_logits_is_not_explained() -> None:
    class Wrong(Toy):
        """Chooses other tokens than its logits say."""

        def answer(self, prompt: str | Sequence[int], sampling: SamplingParams | None = None) -> Answer:
            right = super().answer(prompt, sampling)
            return Answer(**{**vars(right), "token_ids": tuple((token + 1) % VOCAB for token in right.token_ids)})

    report = compared(Toy("cpu"), Wrong("gpu"))
    splits = [split for of in report.targets[1].answers for split in (of.split, of.seeded_split)]
    assert all(split is not None and not split.explained for split in splits)
    assert not report.agreed
    assert "NOT EXPLAINED" in describe(report)
    assert "differ by more than rounding explains" in render_page(report)


def test_a_seeded_token_that_differs_is_explained_by_drawing_it_again() -> None:
    toy = Toy("cpu")
    tokens = toy.answer([1, 2], PLAN.seeded).token_ids
    change = {(1, 2, tokens[0]): {(tokens[1] + 1) % VOCAB: 20.0}}
    answers = compared(toy, Toy("gpu", change)).targets[1].answers[0]
    assert answers.seeded_same == 1
    assert answers.seeded_split is not None
    assert answers.seeded_split.other_token == (tokens[1] + 1) % VOCAB
    assert answers.seeded_split.explained


def test_the_page_stands_alone_and_escapes_what_it_shows() -> None:
    report = compared(Toy("cpu"), Toy("gpu", at_third_token(0.01)))
    page = render_page(report)
    assert not re.search(r"(?:src|href|url)\s*[=(]", page)
    assert "<script" not in page
    assert "two &lt;script&gt;" in page
    assert "toy &lt;b&gt;" in page
    assert "opencl:1" in page
    assert "no driver [target_unsupported] get one" in page


def test_the_report_as_json_holds_everything() -> None:
    report = compared(Toy("cpu"), Toy("gpu", at_third_token(0.01)))
    assert from_json(Report, json.loads(json.dumps(to_json(report))), where="report") == report


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("compare") / "model")


def test_following_tokens_gives_the_logits_after_each(tmp_path: Path, model: Path) -> None:
    build(model, tmp_path / "out")
    with Engine(tmp_path / "out") as engine:
        prompt, tokens = [5, 6, 7], [9, 11, 13]
        logits = engine.follow(prompt, tokens)
        for i, row in enumerate(logits):
            np.testing.assert_allclose(row, engine.forward([*prompt, *tokens[:i]]), atol=1e-5)
        with pytest.raises(WebcompileError, match="not below"):
            engine.follow(prompt, [VOCAB * 1000, 1])


def test_the_command_writes_a_report_and_says_what_is_missing(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.json").write_text('["t1 t2", "t3"]')
    options = ["--targets", "cpu,rocm", "-o", str(tmp_path / "out"), "--report", str(tmp_path / "report"), "--tokens", "4"]
    assert main(["compare", str(model), *options, "--prompts", str(tmp_path / "prompts.json")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^cpu +f32 +8/8 +8/8 ", out, flags=re.MULTILINE)
    assert "rocm: not run, this machine has no runtime for rocm" in out
    report = from_json(Report, json.loads((tmp_path / "report.json").read_text()), where="report.json")
    assert [missing.code for missing in report.missing] == ["target_unsupported"]
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("device", device_params("llvmpipe", "swiftshader", "pthread"))
def test_native_devices_give_the_tokens_of_the_cpu(tmp_path: Path, model: Path, device: str) -> None:
    """Seeded answers begin as greedy ones did: they also copy a page that is filled in part."""
    options = ["--targets", f"cpu,{device}", "-o", str(tmp_path / "out"), "--report", str(tmp_path / "report")]
    (tmp_path / "prompts.json").write_text('["t1 t2 t3 t4 t5", "t1 t2 t3 t7", "t9"]')
    assert main(["compare", str(model), *options, "--prompts", str(tmp_path / "prompts.json"), "--tokens", "20"]) == 0
    report = from_json(Report, json.loads((tmp_path / "report.json").read_text()), where="report.json")
    assert not report.missing
    assert [(of.same_tokens, of.seeded_same_tokens, of.num_tokens) for of in report.targets] == [(60, 60, 60)] * 2
    assert 0 < report.targets[1].max_difference < 1e-3


@pytest.mark.parametrize("device", device_params("llvmpipe"))
def test_layers_are_compared_on_request(
    tmp_path: Path, model: Path, device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--targets", f"cpu,{device}", "-o", str(tmp_path / "out"), "--report", str(tmp_path / "report"), "--layers"]
    assert main(["compare", str(model), *options, "--tokens", "2"]) == 0
    report = from_json(Report, json.loads((tmp_path / "report.json").read_text()), where="report.json")
    layers = report.targets[1].layers
    assert [layer.index for layer in layers] == [0, 1, 2]
    assert all(layer.relative < 1e-5 for layer in layers)
    assert layers[2].max_difference > 0
    assert layers[0].max_difference <= layers[2].max_difference
    assert f"{device}, layer 2: max diff" in capsys.readouterr().out
    assert "Layer by layer" in (tmp_path / "report.html").read_text()
    assert "keep_" not in (tmp_path / "out" / "model.cpu.f32.so").read_bytes().decode("latin-1")


def test_a_layered_model_shows_its_layers_and_then_its_logits(tmp_path: Path, model: Path) -> None:
    """The last hidden state leads to the logits, which are those of the model itself."""
    build(model, tmp_path / "plain")
    options = {"target": "cpu", "quantization": "q4f32_1", "progress": SilentProgress()}
    build_artifact(str(model), output=tmp_path / "layered", layered=True, **options)
    with Engine(tmp_path / "plain") as plain, Engine(tmp_path / "layered") as layered:
        for prompt in ([5, 6, 7], [9]):
            shown, logits = layered.forward(prompt), plain.forward(prompt)
            assert len(shown) == 3 * TINY["hidden_size"] + TINY["vocab_size"]
            np.testing.assert_array_equal(shown[-len(logits) :], logits)
            hidden = shown[: -len(logits)].reshape(3, -1)
            assert np.isfinite(hidden).all()
            assert len({row.tobytes() for row in hidden}) == 3


@pytest.mark.parametrize("device", device_params("llvmpipe"))
def test_half_floats_part_where_logits_are_close(tmp_path: Path, model: Path, device: str) -> None:
    """Two layouts of the kernels, and float32."""
    options = ["--targets", f"{device}/f16,{device}/f16-subgroups,cpu", "--quantization", "q4f16_1", "--tokens", "20"]
    assert main(["compare", str(model), *options, "-o", str(tmp_path / "out"), "--report", str(tmp_path / "report")]) == 0
    report = from_json(Report, json.loads((tmp_path / "report.json").read_text()), where="report.json")
    assert not report.missing
    assert [target.variant for target in report.targets] == ["f16", "f16-subgroups", "f32"]
    assert all(target.max_difference < 0.1 for target in report.targets)
    assert report.targets[2].max_difference > 1e-5, "half floats were not used"


@pytest.mark.parametrize("targets", ["", "cpu,cpu"])
def test_targets_must_differ(targets: str) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "demo", "--targets", targets])


def test_prompts_must_be_texts(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.json").write_text("[1]")
    options = ["--targets", "cpu", "-o", str(tmp_path / "out"), "--prompts", str(tmp_path / "prompts.json")]
    assert main(["compare", str(model), *options]) == 1
    assert "request_invalid" in capsys.readouterr().err
