"""The sampler: the published random numbers, and what temperature, top_p and seeds must mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webcompile.engine.sampler import philox4x32, sample, uniform
from webcompile.engine.sequence import SamplingParams
from webcompile.errors import WebcompileError

FULL = 0xFFFFFFFF
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


@given(LOGITS)
def test_greedy_takes_the_lowest_of_the_best(logits: npt.NDArray[np.float32]) -> None:
    token = sample(logits, SamplingParams(temperature=0), 0)
    assert logits[token] == logits.max()
    assert not (logits[:token] == logits[token]).any()


@given(LOGITS, st.floats(0.05, 2), st.floats(0.01, 1), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_sampling_repeats_and_stays_in_the_nucleus(
    logits: npt.NDArray[np.float32], temperature: float, top_p: float, seed: int, step: int
) -> None:
    sampling = SamplingParams(temperature=temperature, top_p=top_p, seed=seed)
    token = sample(logits, sampling, step)
    assert token == sample(logits, sampling, step)
    weights = np.exp(logits.astype(np.float64) / temperature - logits.max() / temperature)
    # What is strictly more likely than the chosen token must not fill top_p alone.
    assert weights[weights > weights[token]].sum() < top_p * weights.sum() * (1 + 1e-9)


@given(LOGITS, st.integers(0, 2**64 - 1))
def test_a_tiny_top_p_is_greedy(logits: npt.NDArray[np.float32], seed: int) -> None:
    sampling = SamplingParams(temperature=1, top_p=1e-9, seed=seed)
    assert sample(logits, sampling, 3) == int(np.argmax(logits))


def test_frequencies_follow_the_probabilities() -> None:
    probabilities = np.array([0.1, 0.2, 0.3, 0.4])
    logits = np.log(probabilities).astype(np.float32)
    tokens = [sample(logits, SamplingParams(temperature=1, seed=7), step) for step in range(20_000)]
    counts = np.bincount(tokens, minlength=4) / len(tokens)
    assert np.abs(counts - probabilities).max() < 0.015  # 4 standard deviations


def test_masked_tokens_are_never_taken() -> None:
    logits = np.array([-np.inf, 0, -np.inf, 0], np.float32)
    tokens = {sample(logits, SamplingParams(temperature=2, seed=1), step) for step in range(200)}
    assert tokens == {1, 3}


# The TypeScript sampler gives the same tokens for these; so must every later version of either.
@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (
            SamplingParams(temperature=0.8, top_p=0.9, seed=123456789012345),
            [581, 136, 852, 754, 459, 321, 828, 397],
        ),
        (SamplingParams(temperature=1.7, seed=7), [636, 569, 642, 964, 939, 791, 275, 334]),
        (SamplingParams(temperature=1.0, top_p=0.5, seed=-5), [371, 704, 840, 988, 383, 309, 25, 223]),
    ],
)
def test_known_tokens(sampling: SamplingParams, expected: list[int]) -> None:
    logits = ((np.arange(1000, dtype=np.int64) * 7919 % 1000) / 100).astype(np.float32)
    assert [sample(logits, sampling, step) for step in range(8)] == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(bad: float) -> None:
    with pytest.raises(WebcompileError, match=r"as logit of token 1 \[internal\]"):
        sample(np.array([0, bad, 1], np.float32), SamplingParams(), 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": 2.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
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
