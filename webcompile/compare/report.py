"""What a comparison found, as data: written as JSON, shown as a table and as a page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from webcompile.compare.targets import Absence, Logits, Plan, Prompt, Run
from webcompile.engine import Answer, SamplingParams
from webcompile.engine.sampler import Sampler
from webcompile.manifest import ModelInfo


@dataclass(frozen=True)
class Split:
    """Where two answers part. Logits are those after the tokens that both have in common."""

    position: int
    """How many tokens are the same."""
    reference_token: int
    other_token: int
    gap: float
    """By how much the reference's logit of its token is above that of the other."""
    other_gap: float
    """By how much the other target's logit of its own token is above that of the reference's."""
    error: float
    """The largest difference of any logit between the two, measured over all prompts."""
    explained: bool
    """Greedy: the gap is not above the error, so nothing but rounding decided. Seeded: the sampler of this machine draws
    each target's token from that target's logits, so the draw was the same and the logits are not."""


@dataclass(frozen=True)
class Answers:
    """One prompt on one target."""

    token_ids: tuple[int, ...]
    text: str
    same: int
    """How many tokens, from the first, are those of the reference."""
    split: Split | None
    seeded_ids: tuple[int, ...]
    seeded_text: str
    seeded_same: int
    seeded_split: Split | None
    max_difference: float
    mean_difference: float
    """Of the logits, as absolute values, over the vocabulary and over the tokens that led to the reference's answer."""

    @property
    def explained(self) -> bool:
        """Whether all tokens are the same, or rounding says why not."""
        return all(split is None or split.explained for split in (self.split, self.seeded_split))


@dataclass(frozen=True)
class Layer:
    """Hidden states after the embedding (0) or a layer, against the reference's."""

    index: int
    max_difference: float
    relative: float
    """Root mean square of the difference over that of the reference's values."""


@dataclass(frozen=True)
class TargetReport:
    """One target against the reference."""

    name: str
    adapter: str
    variant: str
    load_s: float
    prefill_tps: float | None
    decode_tps: float | None
    """Medians over the prompts."""
    num_tokens: int
    same_tokens: int
    seeded_same_tokens: int
    max_difference: float
    mean_difference: float
    explained: bool
    answers: tuple[Answers, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Missing:
    """A target that did not run, and why."""

    name: str
    code: str
    message: str
    hint: str


@dataclass(frozen=True)
class PromptReport:
    """A prompt with its length."""

    text: str
    num_tokens: int


@dataclass(frozen=True)
class Report:
    """All of it. The first target is the reference."""

    model: str
    quantization: str
    reference: str
    max_tokens: int
    seed: int
    temperature: float
    prompts: tuple[PromptReport, ...]
    targets: tuple[TargetReport, ...]
    missing: tuple[Missing, ...]
    agreed: bool
    """Whether every difference in tokens is explained."""
    versions: dict[str, str | None]


def compare_runs(
    model: ModelInfo, plan: Plan, runs: Sequence[Run], absent: Sequence[Absence], versions: dict[str, str | None]
) -> Report:
    """The report; the first of `runs` is the reference."""
    reference = runs[0]
    targets = tuple(_compare(reference, run, plan) for run in runs)
    return Report(
        model=model.name,
        quantization=model.quantization,
        reference=reference.place.name,
        max_tokens=plan.greedy.max_tokens or 0,
        seed=plan.seeded.seed,
        temperature=plan.seeded.temperature,
        prompts=tuple(PromptReport(prompt.text, len(prompt.token_ids)) for prompt in plan.prompts),
        targets=targets,
        missing=tuple(Missing(of.place.name, of.error.code, of.error.message, of.error.hint) for of in absent),
        agreed=all(target.explained for target in targets),
        versions=versions,
    )


def _compare(reference: Run, run: Run, plan: Plan) -> TargetReport:
    differences = [np.abs(a - b) for a, b in zip(reference.greedy_logits, run.greedy_logits, strict=True)]
    error = max(float(difference.max()) for difference in differences)
    answers = []
    for i, difference in enumerate(differences):
        greedy, seeded = run.greedy[i], run.seeded[i]
        same = _same(reference.greedy[i], greedy)
        seeded_same = _same(reference.seeded[i], seeded)
        pair = reference.greedy_logits[i], run.greedy_logits[i]
        split = _split(reference.greedy[i], greedy, pair, error)
        if split is not None:
            split = replace(split, explained=split.gap <= error)
        seeded_split = _split(reference.seeded[i], seeded, (reference.seeded_logits[i], run.seeded_logits[i]), error)
        if seeded_split is not None:
            redrawn = _draw(plan.seeded, run.seeded_logits[i], plan.prompts[i], seeded_split.position)
            seeded_split = replace(seeded_split, explained=redrawn == seeded_split.other_token)
        answers.append(
            Answers(
                token_ids=greedy.token_ids,
                text=greedy.text,
                same=same,
                split=split,
                seeded_ids=seeded.token_ids,
                seeded_text=seeded.text,
                seeded_same=seeded_same,
                seeded_split=seeded_split,
                max_difference=float(difference.max()),
                mean_difference=float(difference.mean()),
            )
        )
    return TargetReport(
        name=run.place.name,
        adapter=run.device.adapter,
        variant=run.device.variant,
        load_s=run.load_s,
        prefill_tps=_median([answer.timings.prefill_tps for answer in run.greedy]),
        decode_tps=_median([answer.timings.decode_tps for answer in run.greedy]),
        num_tokens=sum(len(answer.token_ids) for answer in run.greedy),
        same_tokens=sum(answer.same for answer in answers),
        seeded_same_tokens=sum(answer.seeded_same for answer in answers),
        max_difference=error,
        mean_difference=float(np.mean([answer.mean_difference for answer in answers])),
        explained=all(answer.explained for answer in answers),
        answers=tuple(answers),
        layers=_layers(reference.layers, run.layers),
    )


def _same(expected: Answer, found: Answer) -> int:
    """How many tokens are the same before the first that is not."""
    pairs = zip(expected.token_ids, found.token_ids, strict=True)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(expected.token_ids))


def _split(expected: Answer, found: Answer, logits: tuple[Logits | None, Logits | None], error: float) -> Split | None:
    """Where the answers part, not yet explained; None if they do not. `logits` are along the expected tokens."""
    position = _same(expected, found)
    if position == len(expected.token_ids):
        return None
    a, b = expected.token_ids[position], found.token_ids[position]
    here, there = logits
    assert here is not None
    assert there is not None
    gap, other_gap = here[position, a] - here[position, b], there[position, b] - there[position, a]
    return Split(position, a, b, float(gap), float(other_gap), error, explained=False)


def _draw(sampling: SamplingParams, logits: Logits | None, prompt: Prompt, position: int) -> int:
    """What the sampler of this machine draws at `position` from a target's logits."""
    assert logits is not None
    sampler = Sampler(sampling, logits.shape[1], prompt.token_ids)
    return [sampler.sample(row) for row in logits[: position + 1]][-1]


def _median(rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return statistics.median(known) if known else None


def _layers(reference: Logits | None, found: Logits | None) -> tuple[Layer, ...]:
    if reference is None or found is None:
        return ()
    return tuple(
        Layer(i, float(np.abs(a - b).max()), float(np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2))))
        for i, (a, b) in enumerate(zip(reference, found, strict=True))
    )
