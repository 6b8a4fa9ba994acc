"""The sampling kernels against the host's sampler, token by token, and their log probabilities against numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.kernel_benches import BENCHES, Bench, normal, unwritten
from webcompile.contracts import SAMPLING_SETTINGS, TOP_LOGPROBS
from webcompile.engine.sampler import Sampler, logprobs_of
from webcompile.engine.sequence import SamplingParams
from webcompile.kernels.sampling import choose, logprobs, num_strips, penalize

DEVICES = [param for param in BENCHES if param.id.endswith(("vulkan", "opencl", "-f32", "-f32-software"))]
VOCAB_SIZES = [5, 256, 1000, 4099]
STEPS = 12


@dataclass
class DeviceSampler:
    """The kernels with the buffers that the web engine keeps for them."""

    bench: Bench
    sampling: SamplingParams
    vocab_size: int
    prompt_ids: Sequence[int]
    state: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        settings: list[Any] = []
        for name in SAMPLING_SETTINGS[:6]:
            settings.append(int(np.float32(getattr(self.sampling, name)).view(np.int32)))
        settings += [self.sampling.top_k, *np.array([self.sampling.seed], np.uint64).view(np.int32)]
        bias, counts = np.zeros(self.vocab_size, np.float32), np.zeros(self.vocab_size, np.int32)
        for token, value in self.sampling.logit_bias.items():
            bias[token] = value
        counts[list(self.prompt_ids)] = 1 << 30
        self.state = {
            "settings": np.array(settings, np.int32),
            "bias": bias,
            "counts": counts,
            "step": np.zeros(1, np.int32),
            "token": np.zeros(1, np.int32),
            "position": np.array([7], np.int32),
        }

    def sample(self, logits: np.ndarray) -> int:
        """As Sampler.sample."""
        state, strips, schedule = self.state, num_strips(self.vocab_size), self.bench.schedule
        *_, scores, best, best_ids = self.bench.run(
            penalize(schedule, self.vocab_size),
            *(logits[None], state["bias"], state["counts"], state["settings"]),
            *(unwritten(self.vocab_size), unwritten(strips), np.zeros(strips, np.int32)),
        )
        names = ("settings", "counts", "step", "token", "position")
        arguments = (scores, best, best_ids, *(state[name] for name in names))
        results = self.bench.run(choose(schedule, self.vocab_size), *arguments)
        state.update(zip(names, results[3:], strict=True))
        return int(state["token"][0])


SAMPLINGS = {
    "greedy": SamplingParams(temperature=0),
    "greedy-penalized": SamplingParams(temperature=0, repetition_penalty=1.3, frequency_penalty=0.5, presence_penalty=0.7),
    "plain": SamplingParams(seed=1),
    "warm": SamplingParams(temperature=1.7, seed=2**53 - 1),
    "top-p": SamplingParams(top_p=0.6, seed=3),
    "top-p-tiny": SamplingParams(top_p=1e-4, seed=4),
    "top-k": SamplingParams(top_k=3, seed=5),
    "top-k-one": SamplingParams(top_k=1, seed=6),
    "min-p": SamplingParams(min_p=0.4, seed=7),
    "bias": SamplingParams(temperature=0.5, logit_bias={2: 100, 4: -100}, seed=8),
    "all": SamplingParams(
        temperature=0.8,
        top_p=0.9,
        top_k=20,
        min_p=0.01,
        repetition_penalty=0.8,
        frequency_penalty=-0.3,
        presence_penalty=0.4,
        logit_bias={0: 1.5, 3: -2},
        seed=9,
    ),
}


@pytest.mark.parametrize("bench", DEVICES)
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_the_device_chooses_as_the_host_does(sampling: SamplingParams, vocab_size: int, bench: Bench) -> None:
    prompt_ids = [1, 3, 3]
    host, device = Sampler(sampling, vocab_size, prompt_ids), DeviceSampler(bench, sampling, vocab_size, prompt_ids)
    steps = 2.5 * normal(STEPS, vocab_size)
    chosen = [host.sample(logits) for logits in steps]
    assert [device.sample(logits) for logits in steps] == chosen
    assert device.state["step"] == [STEPS]
    assert device.state["position"] == [7 + STEPS]
    counts = np.bincount(chosen, minlength=vocab_size)
    np.testing.assert_array_equal(device.state["counts"] & ((1 << 30) - 1), counts)


@pytest.mark.parametrize("bench", DEVICES)
def test_equal_logits(bench: Bench) -> None:
    logits = np.full(1000, 0.25, np.float32)
    assert DeviceSampler(bench, SamplingParams(temperature=0), 1000, []).sample(logits) == 0
    sampling = SamplingParams(top_k=2, seed=11)
    device, host = DeviceSampler(bench, sampling, 1000, []), Sampler(sampling, 1000, [])
    tokens = [device.sample(logits) for _ in range(STEPS)]
    assert tokens == [host.sample(logits) for _ in range(STEPS)]
    assert set(tokens) == {0, 1}


@pytest.mark.parametrize("bench", DEVICES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("sampling", [SamplingParams(temperature=0), SamplingParams(seed=1)], ids=["greedy", "plain"])
def test_logits_that_are_not_finite_give_no_token(sampling: SamplingParams, bad: float, bench: Bench) -> None:
    logits = normal(1000)
    logits[777] = bad
    assert DeviceSampler(bench, sampling, 1000, []).sample(logits) == -1


@pytest.mark.parametrize("bench", DEVICES)
@pytest.mark.parametrize("vocab_size", [256, 4099])
def test_log_probabilities(vocab_size: int, bench: Bench) -> None:
    check_logprobs(bench, vocab_size)


def check_logprobs(bench: Bench, vocab_size: int) -> None:
    logits = 3 * normal(vocab_size)
    logits[10] = logits[200] = logits.max()  # equal ones come by id
    *_, out = bench.run(
        logprobs(bench.schedule, vocab_size), logits[None], np.array([33], np.int32), unwritten(2, 1 + TOP_LOGPROBS)
    )
    expected = logprobs_of(logits, 33, TOP_LOGPROBS)
    everything = [expected, *expected.top]
    assert [int(token) for token in out[0]] == [each.token_id for each in everything]
    np.testing.assert_allclose(out[1], [each.logprob for each in everything], rtol=0, atol=2e-5)
