from __future__ import annotations

import math
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson as reference

from geventpool.sizing import SizingPolicy, adaptive, fixed, poisson
from geventpool.sizing.poisson import level_for, log_tail

spans = st.floats(1e-3, 1e9)
policies = st.one_of(
    st.builds(adaptive, spans, spans),
    st.builds(poisson, spans, spans),
    st.builds(fixed, st.integers(0, 5), st.integers(5, 50), st.floats(0, 1e9)),
)
any_time = st.floats(allow_nan=False, allow_infinity=False)
likely_time = st.floats(0, 1e4)
counts = st.one_of(st.integers(-2, 60), st.integers())
events = st.tuples(st.sampled_from(["requested", "rose", "fell"]), any_time | likely_time, counts)
traffic = st.lists(
    st.tuples(st.floats(0, 100) | st.floats(0, 0.5), st.integers(-8, 8)), min_size=1, max_size=40
)
means = st.floats(-13.8, 13.8).map(math.exp)
chances = st.floats(-25.0, math.log(0.5)).map(math.exp)


def feed(policy: SizingPolicy, happened: Iterable[tuple[str, float, int]]) -> None:
    for kind, now, in_use in happened:
        if kind == "requested":
            policy.requested(now)
        else:
            getattr(policy, kind)(now, in_use)


def drive(policy: SizingPolicy, steps: Iterable[tuple[float, int]]) -> tuple[float, int]:
    """Time passes, then use rises or falls by some; returns the time and what is in use."""
    now, in_use = 1000.0, 0
    for pause, change in steps:
        now += pause
        for _ in range(abs(change)):
            if change > 0:
                in_use += 1
                policy.requested(now)
                policy.rose(now, in_use)
            elif in_use:
                in_use -= 1
                policy.fell(now, in_use)
    return now, in_use


@given(policies, st.lists(events, max_size=30), any_time | likely_time, any_time, counts, any_time)
def test_whatever_happens_the_answers_are_sane(
    policy: SizingPolicy,
    happened: list[tuple[str, float, int]],
    now: float,
    since: float,
    size: int,
    connect_time: float,
) -> None:
    feed(policy, happened)
    demand = policy.demand(now)
    assert 0.0 <= demand.mean_in_use <= 1e7
    assert 0.0 <= demand.checkouts_per_second < math.inf
    assert 0 <= demand.level < 2e7
    for asked in (size, 1, 2, demand.level, demand.level + 1):
        assert not math.isnan(policy.closes_at(now, asked, since))
        assert not math.isnan(policy.closes_at(since, asked, now))
    assert policy.open_delay(now, size, 0, connect_time) in (0.0, connect_time)


@settings(max_examples=30)
@given(policies, st.integers(10**5, 10**6), st.floats(0, 1e6), st.floats(0, 30 * 86_400))
def test_a_million_in_use_a_clock_set_back_and_days_of_silence_give_sane_figures(
    policy: SizingPolicy, many: int, back: float, silence: float
) -> None:
    now = 2e6
    for step in range(20):  # twenty half-lives of the usual sixty seconds
        now += 60.0
        policy.took(now, many + step % 3)
    policy.fell(now - back, many)
    policy.took(now - back + 1.0, many)
    later = now - back + 1.0 + silence
    demand = policy.demand(later)
    assert 0.0 <= demand.mean_in_use <= many + 2
    assert 0.0 <= demand.checkouts_per_second <= 21 * math.log(2) / policy.half_life  # type: ignore[attr-defined]
    assert 0 <= demand.level <= 1.1 * many + 10
    for size in (many, many + 1, 2 * many):
        assert policy.closes_at(later, size, later) >= later - 1e-6 * later


@given(policies, traffic)
def test_the_mean_lies_between_the_least_and_the_most_in_use(
    policy: SizingPolicy, steps: list[tuple[float, int]]
) -> None:
    most, in_use = 0, 0
    for _, change in steps:
        in_use = max(0, in_use + change)
        most = max(most, in_use)
    now, _ = drive(policy, steps)
    for later in (0.0, 1.0, 1e3):
        assert 0.0 <= policy.demand(now + later).mean_in_use <= most * (1 + 1e-9)


@settings(max_examples=200)
@given(policies, traffic, st.integers(1, 20), st.floats(0, 300), st.floats(0, 300))
def test_a_cleaner_that_sleeps_until_the_answer_finds_it_due(
    policy: SizingPolicy, steps: list[tuple[float, int]], idle: int, past: float, ahead: float
) -> None:
    now, in_use = drive(policy, steps)
    since = now - past
    now += ahead
    size = in_use + idle
    while size > in_use:
        due = policy.closes_at(now, size, since)
        if due == math.inf:
            break
        if due > now:
            assert policy.closes_at(due, size, since) <= due
            now = due
        size -= 1
    if size > in_use:
        assert policy.closes_at(now + 1e9, size, since) == math.inf


@settings(max_examples=200)
@given(st.builds(poisson, st.floats(0.1, 1e3), st.floats(1, 1e3)), traffic, st.integers(1, 12))
def test_a_poisson_close_is_when_the_level_falls_below_the_size(
    policy: SizingPolicy, steps: list[tuple[float, int]], idle: int
) -> None:
    now, in_use = drive(policy, steps)
    size = in_use + idle
    due = policy.closes_at(now, size, -1e12)
    step = 1e-5 * policy.half_life  # type: ignore[attr-defined]
    if due == math.inf:
        later = [policy.demand(now + 2.0**power * step).level for power in range(60)]
        assert min(later) >= size
    else:
        assert policy.demand(max(due, now) + step).level < size
        if due > now + step:
            assert policy.demand(due - step).level >= size


@given(means, means, chances)
def test_the_level_rises_with_the_mean(one: float, other: float, chance: float) -> None:
    low, high = sorted((one, other))
    assert level_for(low, chance) <= level_for(high, chance)


@given(means, chances, chances)
def test_the_level_falls_with_the_accepted_chance(mean: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert level_for(mean, low) >= level_for(mean, high)


@given(means, chances)
def test_the_level_is_not_under_the_quantile_of_scipy(mean: float, chance: float) -> None:
    assert level_for(mean, chance) >= reference.ppf(1 - chance, mean)


@given(means, chances)
def test_the_level_agrees_with_the_tail(mean: float, chance: float) -> None:
    level = level_for(mean, chance)
    assert log_tail(level, mean) <= math.log(chance) + 1e-7
    assert level == 1 or log_tail(level - 1, mean) > math.log(chance) - 1e-7
