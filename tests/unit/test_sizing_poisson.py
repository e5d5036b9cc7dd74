from __future__ import annotations

import math

import pytest
from scipy.special import gammaln
from scipy.stats import poisson as reference

from geventpool.sizing.poisson import level_for, log_pmf, log_tail, mean_gap

MEANS = [10.0 ** (power / 4) for power in range(-24, 25)]
CHANCES = [0.5, 0.2, 0.03, 1e-3, 1e-6, 1e-9]


def erlang_b(lines: int, load: float) -> float:
    """By the definition, in logarithms."""
    terms = [k * math.log(load) - gammaln(k + 1) for k in range(lines + 1)]
    top = max(terms)
    return math.exp(terms[-1] - top) / math.fsum(math.exp(term - top) for term in terms)


@pytest.mark.parametrize("chance", CHANCES)
@pytest.mark.parametrize("mean", MEANS)
def test_the_level_is_the_smallest_that_suffices(mean: float, chance: float) -> None:
    level = level_for(mean, chance)
    assert reference.sf(level - 1, mean) <= chance * (1 + 1e-6)
    assert level == 1 or reference.sf(level - 2, mean) > chance * (1 - 1e-6)


@pytest.mark.parametrize("chance", CHANCES)
@pytest.mark.parametrize("mean", MEANS)
def test_the_level_is_one_above_the_quantile_of_scipy(mean: float, chance: float) -> None:
    quantile = reference.ppf(1 - chance, mean)
    assert level_for(mean, chance) >= quantile
    assert level_for(mean, chance) - quantile in (1, 2 if chance < 1e-8 else 1)


@pytest.mark.parametrize("mean", [103.0, 120.0, 143.0, 745.0, 746.0, 1e5, 1e6, 1e7])
def test_no_mean_overflows(mean: float) -> None:
    level = level_for(mean, 1e-3)
    assert mean + 3.0 * math.sqrt(mean) < level < mean + 3.4 * math.sqrt(mean) + 3


@pytest.mark.parametrize("mean", [0.0, 5e-324, 1e-300])
def test_a_vanishing_mean_needs_one(mean: float) -> None:
    assert level_for(mean, 1e-12) == 1


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("sigmas", [-6.0, -1.0, -0.1, 0.0, 0.1, 1.0, 6.0])
def test_the_tail_agrees_with_scipy(mean: float, sigmas: float) -> None:
    count = max(0, round(mean + sigmas * math.sqrt(mean)))
    # scipy itself is off by 7e-7 at a mean of a million and six sigmas.
    assert log_tail(count, mean) == pytest.approx(reference.logsf(count - 1, mean), abs=1e-6)
    assert log_pmf(count, mean) == pytest.approx(reference.logpmf(count, mean), abs=1e-7)


def test_the_tail_is_exact_to_nine_digits_at_a_mean_of_a_million() -> None:
    # By 40-digit decimal arithmetic.
    assert log_tail(1_006_000, 1e6) == pytest.approx(-20.697881887003407502, rel=1e-9)


def test_with_a_mean_of_nothing_nothing_is_in_use() -> None:
    assert log_pmf(0, 0.0) == log_tail(0, 0.0) == 0.0
    assert log_pmf(1, 0.0) == log_tail(1, 0.0) == -math.inf


def test_a_level_far_below_the_mean_is_surely_reached() -> None:
    assert log_tail(10, 1e6) == 0.0


@pytest.mark.parametrize("mean", [0.01, 0.7, 5.0, 60.0, 100.0, 101.0, 150.0, 1000.0, 5000.0])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 1.0, 1.1, 1.3])
def test_the_mean_gap_is_that_of_erlangs_formula(mean: float, share: float) -> None:
    busy = round(share * mean)
    expected = 1 / (4 * erlang_b(busy, mean))
    gap = mean_gap(busy + 1, mean, 4.0)
    assert gap == (pytest.approx(expected, rel=0.013) if expected < 2e14 else math.inf)


@pytest.mark.parametrize("mean", [0.01, 0.7, 5.0, 60.0, 100.0])
def test_up_to_a_mean_of_a_hundred_the_mean_gap_is_exact(mean: float) -> None:
    for level in (1, 2, 5):
        gap = 1 / (4 * erlang_b(level - 1, mean))
        assert mean_gap(level, mean, 4.0) == pytest.approx(gap, rel=1e-9)


@pytest.mark.parametrize(
    ("level", "mean", "rate"), [(5, 1.0, 0.0), (2, 0.0, 1.0), (500, 1.0, 1.0), (10**9, 1e6, 1.0)]
)
def test_a_gap_beyond_reckoning_is_endless(level: int, mean: float, rate: float) -> None:
    assert mean_gap(level, mean, rate) == math.inf


def test_the_first_connection_is_used_by_every_request() -> None:
    assert mean_gap(1, 0.0, 4.0) == mean_gap(1, 1e6, 4.0) == 0.25
