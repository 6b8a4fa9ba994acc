"""The targets of a comparison, each opened as the engine that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from webcompile.engine import Answer, DeviceInfo, SamplingParams
from webcompile.errors import WebcompileError


@dataclass(frozen=True)
class Place:
    """Where to run: a target, as in `vulkan`; of several devices the second, `vulkan:1`; a variant by name, `vulkan/f16`."""

    name: str
    device: str
    variant: str | None

    @classmethod
    def of(cls, name: str) -> Place:
        """From what a user writes."""
        device, _, variant = name.partition("/")
        return cls(name, device, variant or None)

    @property
    def target(self) -> str:
        """What to compile for."""
        return self.device.partition(":")[0]


class Subject(Protocol):
    """What is asked of an engine."""

    def answer(self, prompt: str | Sequence[int], sampling: SamplingParams | None = None) -> Answer:
        """See `Engine.answer`."""

    def follow(self, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """See `Engine.follow`."""

    def forward(self, prompt_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """See `Engine.forward`."""

    def tokenize(self, text: str) -> list[int]:
        """See `Engine.tokenize`."""

    def device(self) -> DeviceInfo:
        """See `Engine.device`."""


Open = Callable[[Path, Place], AbstractContextManager[Subject]]
"""Opens an artifact's engine at a place; see `open_subject`."""


def open_subject(folder: Path, place: Place, *, adapter: str, max_context_tokens: int) -> AbstractContextManager[Subject]:
    """The engine of `place`: the web runtime in a browser on `adapter`, or the native one. Raises what they raise."""
    if place.target == "webgpu":
        from webcompile.browser.engine import BrowserEngine

        return BrowserEngine(
            folder, adapter=adapter, variant=place.variant, max_context_tokens=max_context_tokens, in_page=True
        )
    from webcompile.engine import Engine

    return Engine(folder, device=place.device, variant=place.variant, max_context_tokens=max_context_tokens)


@dataclass(frozen=True)
class Prompt:
    """A prompt as all targets get it."""

    text: str
    token_ids: tuple[int, ...]


Logits = npt.NDArray[np.float32]
"""float32[tokens, vocab]: those after the prompt, after the first token, ..."""


@dataclass(frozen=True)
class Run:
    """What one target did: the tokens of each prompt, and the logits that chose those of the reference."""

    place: Place
    device: DeviceInfo
    load_s: float
    greedy: tuple[Answer, ...]
    seeded: tuple[Answer, ...]
    greedy_logits: tuple[Logits, ...]
    """Along the greedy tokens of the reference, for each prompt."""
    seeded_logits: tuple[Logits | None, ...]
    """Along its seeded tokens; None where this target's are the same."""
    layers: npt.NDArray[np.float32] | None = None
    """float32[layers + 1, hidden] after the embedding and each layer, at the last token of the first prompt."""


@dataclass(frozen=True)
class Absence:
    """Why a target did not run."""

    place: Place
    error: WebcompileError


@dataclass(frozen=True)
class Plan:
    """What every target is asked."""

    prompts: tuple[Prompt, ...]
    greedy: SamplingParams
    seeded: SamplingParams


OpenEngine = Callable[[], AbstractContextManager[Subject]]


def read_layers(open_engine: OpenEngine, plan: Plan, num_layers: int, vocab_size: int) -> Logits:
    """Run.layers, from the engine of an artifact that was built `layered`: its logits end with the model's own."""
    with open_engine() as engine:
        return engine.forward(plan.prompts[0].token_ids)[:-vocab_size].reshape(num_layers + 1, -1)


def run_target(open_engine: OpenEngine, place: Place, plan: Plan, reference: Run | None) -> Run:
    """Runs the plan. `reference` is what logits are to follow, or None for the first target."""
    started = time.perf_counter()
    with open_engine() as engine:
        load_s = time.perf_counter() - started
        greedy, seeded = (
            tuple(engine.answer(list(prompt.token_ids), sampling) for prompt in plan.prompts)
            for sampling in (plan.greedy, plan.seeded)
        )
        followed = reference.greedy if reference else greedy
        greedy_logits = tuple(
            engine.follow(prompt.token_ids, answer.token_ids) for prompt, answer in zip(plan.prompts, followed, strict=True)
        )
        followed = reference.seeded if reference else seeded
        seeded_logits = tuple(
            engine.follow(prompt.token_ids, expected.token_ids)
            if reference is None or found.token_ids != expected.token_ids
            else None
            for prompt, expected, found in zip(plan.prompts, followed, seeded, strict=True)
        )
        return Run(place, engine.device(), load_s, greedy, seeded, greedy_logits, seeded_logits)
