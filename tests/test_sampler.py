"""The sampler: the published random numbers, and what every parameter must mean."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import sampler_vectors
from webcompile.engine.sampler import Sampler, logprobs_of, philox4x32, uniform
from webcompile.engine.sequence import SamplingParams
from webcompile.errors import WebcompileError

FULL = 0xFFFFFFFF
DRAWS = 6000
LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=60).map(lambda values: np.asarray(values, np.float32))


# Known answers of Random123, the authors' own library.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((FULL,) * 4, (FULL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert philox4x32(counter, key) == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31))
def test_uniform_is_inside_the_unit_interval(seed: int, step: int) -> None:
    assert 0 < uniform(seed, step) < 1


def test_both_halves_of_the_seed_count() -> None:
    assert len({uniform(seed, 0) for seed in (0, 1, 1 << 32, 1 << 63)}) == 4


def draws(logits: Any, count: int, prompt: tuple[int, ...] = (), **fields: Any) -> list[int]:
    """The first tokens of an answer whose model always says the same."""
    values = np.asarray(logits, np.float32)
    sampler = Sampler(SamplingParams(**{"seed": 1, **fields}), len(values), prompt)
    return [sampler.sample(values) for _ in range(count)]


def shares(logits: npt.NDArray[np.float32], sampling: SamplingParams) -> npt.NDArray[np.float64]:
    """Probabilities float64[vocab] of the tokens that are kept, by the definition and with a sort."""
    scaled = logits.astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled.max())
    order = np.argsort(-scaled, kind="stable")
    ranked = weights[order]
    kept = (np.cumsum(ranked) - ranked < sampling.top_p * weights.sum()) & (ranked >= sampling.min_p)
    kept &= np.arange(len(order)) < (sampling.top_k or len(order))
    weights[order[~kept]] = 0
    return weights / weights.sum()


@given(LOGITS, st.sampled_from([{"temperature": 0}, {"top_k": 1}]))
def test_greedy_takes_the_lowest_of_the_best(logits: npt.NDArray[np.float32], greedy: dict[str, Any]) -> None:
    (token,) = draws(logits, 1, **greedy)
    assert logits[token] == logits.max()
    assert not (logits[:token] == logits[token]).any()


FIELDS = st.fixed_dictionaries(
    {
        "temperature": st.floats(0.05, 2),
        "top_p": st.floats(0.01, 1),
        "top_k": st.integers(0, 9),
        "min_p": st.floats(0, 1),
        "seed": st.integers(0, 2**64 - 1),
    }
)


@given(LOGITS, FIELDS)
def test_a_token_is_one_of_those_kept(logits: npt.NDArray[np.float32], fields: dict[str, Any]) -> None:
    tokens = draws(logits, 3, **fields)
    assert tokens == draws(logits, 3, **fields)
    scaled = logits.astype(np.float64) / fields["temperature"]
    weights = np.exp(scaled - scaled.max())
    for token in tokens:
        heavier = logits > logits[token]
        heavier[:token] |= logits[:token] == logits[token]
        assert weights[heavier].sum() < fields["top_p"] * weights.sum() * (1 + 1e-9)
        assert not fields["top_k"] or heavier.sum() < fields["top_k"]
        assert weights[token] >= fields["min_p"] * (1 - 1e-9)


@given(LOGITS, st.integers(0, 2**64 - 1), st.sampled_from([{"top_p": 1e-9}, {"min_p": 1.0, "top_k": 1}]))
def test_a_tiny_top_p_is_greedy(logits: npt.NDArray[np.float32], seed: int, fields: dict[str, Any]) -> None:
    assert draws(logits, 2, seed=seed, **fields) == [int(np.argmax(logits))] * 2


@pytest.mark.parametrize("size", [7, 256, 300])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"top_p": 0.6},
        {"top_k": 5},
        {"min_p": 0.3},
        {"top_k": 1000, "temperature": 0.5},
        {"top_p": 0.9, "top_k": 6, "min_p": 0.05, "temperature": 1.6},
    ],
    ids=str,
)
def test_frequencies_follow_the_kept_weights(size: int, fields: dict[str, Any]) -> None:
    logits = (3 * np.sin(np.arange(size) ** 2)).astype(np.float32)
    expected = shares(logits, SamplingParams(**fields))
    counts = np.bincount(draws(logits, DRAWS, seed=12, **fields), minlength=size)
    assert not counts[expected == 0].any()
    kept = expected > 0
    square = float(((counts - DRAWS * expected)[kept] ** 2 / (DRAWS * expected[kept])).sum())
    freedom = int(kept.sum()) - 1
    # Chance exceeds this less than once in 10,000 seeds; the seed is fixed.
    assert square < freedom + 3.72 * np.sqrt(2 * freedom) + 8


def test_of_equal_logits_the_lowest_ids_are_kept() -> None:
    assert set(draws(np.zeros(1000), 200, top_k=3)) == {0, 1, 2}
    assert set(draws(np.zeros(1000), 200, top_p=0.004)) == {0, 1, 2, 3}
    assert len(set(draws(np.zeros(1000), 200))) > 150


def test_one_dominant_token_is_all_there_is() -> None:
    assert draws([0.0, 90.0, 0.0], 50, temperature=2) == [1] * 50
    assert draws([5.0], 3) == [0] * 3


def test_a_token_depends_on_seed_and_step_alone() -> None:
    logits = np.sin(np.arange(500))
    assert draws(logits, 20) == draws(logits, 20)
    assert draws(logits, 20) != draws(logits, 20, seed=2)
    assert len(set(draws(logits, 20))) > 10


def test_masked_tokens_are_never_taken() -> None:
    assert set(draws([-np.inf, 0, -np.inf, 0], 200, temperature=2)) == {1, 3}


@pytest.mark.parametrize(
    ("fields", "prompt", "expected"),
    [
        ({}, (), [2, 2, 2, 2]),
        ({"repetition_penalty": 1.5}, (2,), [1, 2, 2, 2]),  # 2.1 / 1.5 against 2, then against 2 / 1.5
        ({"presence_penalty": 0.5}, (2,), [2, 1, 2, 2]),  # the prompt does not count
        ({"frequency_penalty": 0.4}, (), [2, 1, 2, 1]),
        ({"frequency_penalty": -1, "presence_penalty": -1}, (1,), [2, 2, 2, 2]),
    ],
)
def test_penalties(fields: dict[str, Any], prompt: tuple[int, ...], expected: list[int]) -> None:
    assert draws([1, 2, 2.1, -1], 4, prompt, temperature=0, **fields) == expected


def test_a_penalty_pushes_down_what_is_below_zero_too() -> None:
    assert draws([-1, -1.5], 1, (0,), temperature=0, repetition_penalty=2) == [1]


def test_bias_forces_and_forbids() -> None:
    logits = np.sin(np.arange(300))
    assert draws(logits, 50, logit_bias={290: 100}) == [290] * 50
    assert draws(logits, 50, logit_bias=dict.fromkeys(range(299), -100)) == [299] * 50


def test_a_bias_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(WebcompileError, match="logit_bias: token id 3 is not below 3") as caught:
        Sampler(SamplingParams(logit_bias={3: 1}), 3, ())
    assert caught.value.code == "request_invalid"


# The TypeScript sampler gives the same tokens for these; so must every later version of either.
def test_shared_vectors() -> None:
    assert json.loads(sampler_vectors.PATH.read_text())["cases"] == sampler_vectors.cases()


@given(LOGITS, st.integers(0, 20))
def test_log_probabilities(logits: npt.NDArray[np.float32], count: int) -> None:
    exact = np.log(np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum())
    found = logprobs_of(logits, len(logits) - 1, count)
    order = np.argsort(-logits, kind="stable")[:count]
    assert [one.token_id for one in found.top] == order.tolist()
    assert np.allclose([one.logprob for one in found.top], exact[order], atol=1e-9)
    assert found.token_id == len(logits) - 1
    assert np.isclose(found.logprob, exact[-1], atol=1e-9)


def test_the_impossible_has_a_log_probability_that_json_can_hold() -> None:
    assert logprobs_of(np.array([-np.inf, 0], np.float32), 0, 1).logprob == -9999


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_no_numbers_are_an_error(bad: float, temperature: float) -> None:
    with pytest.raises(WebcompileError, match=r"as logit of token 1 \[internal\]"):
        draws([0, bad, 1], 1, temperature=temperature)


def test_logits_without_a_finite_one_are_an_error() -> None:
    with pytest.raises(WebcompileError, match=r"-inf as logit .* \[internal\]"):
        draws([-np.inf, -np.inf], 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": 2.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"top_k": 1.5},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 2.1},
        {"frequency_penalty": 2.1},
        {"presence_penalty": -2.1},
        {"logit_bias": {-1: 0.0}},
        {"logit_bias": {"1": 0.0}},
        {"logit_bias": {1: 101.0}},
        {"logit_bias": dict.fromkeys(range(1025), 0.0)},
        {"logprobs": -1},
        {"logprobs": 21},
        {"seed": -(2**63) - 1},
        {"seed": 2**64},
        {"stop": ("",)},
        {"stop": ("x",) * 17},
    ],
)
def test_parameters_out_of_range_are_named(fields: dict[str, object]) -> None:
    with pytest.raises(WebcompileError, match=f"{next(iter(fields))}: expected") as caught:
        SamplingParams(**fields)  # type: ignore[arg-type]
    assert caught.value.code == "request_invalid"
