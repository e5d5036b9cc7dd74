from __future__ import annotations

import math

import pytest

from geventpool.sizing import Demand, SizingPolicy, adaptive, fixed, poisson

POLICIES = [adaptive(), poisson(), fixed()]
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=repr)


def hold(policy: SizingPolicy, start: float, seconds: float, in_use: int = 0) -> None:
    """One request that finds `in_use` connections in use, and its return."""
    policy.requested(start)
    policy.rose(start, in_use + 1)
    policy.fell(start + seconds, in_use)


@every_policy
def test_without_a_request_there_is_no_demand(policy: SizingPolicy) -> None:
    demand = policy.fresh().demand(5.0)
    assert (demand.mean_in_use, demand.checkouts_per_second) == (0.0, 0.0)


@every_policy
def test_the_mean_integrates_the_level_held_and_not_the_level_seen(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    for second in range(1200):
        hold(policy, second, 0.25)
    assert policy.demand(1200.0).mean_in_use == pytest.approx(0.25, abs=0.01)


@every_policy
def test_the_rate_settles_at_the_requests_per_second(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    for request in range(12_000):
        policy.requested(request / 10)
    assert policy.demand(1200.0).checkouts_per_second == pytest.approx(10.0, rel=0.01)


@every_policy
def test_in_silence_both_figures_halve_in_a_half_life(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    hold(policy, 0.0, 30.0)
    before, after = policy.demand(30.0), policy.demand(90.0)
    assert after.mean_in_use == pytest.approx(before.mean_in_use / 2)
    assert after.checkouts_per_second == pytest.approx(before.checkouts_per_second / 2)


@every_policy
def test_a_connection_that_is_held_draws_the_mean_to_one(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    policy.requested(0.0)
    policy.rose(0.0, 1)
    assert policy.demand(60.0).mean_in_use == pytest.approx(0.5)
    assert policy.demand(1e6).mean_in_use == pytest.approx(1.0)


@every_policy
def test_a_clock_that_is_set_back_costs_only_that_interval(policy: SizingPolicy) -> None:
    policy, other = policy.fresh(), policy.fresh()
    for second in range(600):
        hold(policy, second, 0.5)
        hold(other, second, 0.5)
    for second in range(600):
        hold(policy, second, 0.5)
        hold(other, 600 + second, 0.5)
    back, forth = policy.demand(599.5), other.demand(1199.5)
    assert back.mean_in_use == pytest.approx(forth.mean_in_use, rel=0.02)
    assert back.checkouts_per_second == pytest.approx(forth.checkouts_per_second, rel=0.02)


@every_policy
def test_a_silence_of_days_leaves_nothing(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    hold(policy, 0.0, 1.0)
    demand = policy.demand(1e7)
    assert demand.mean_in_use == demand.checkouts_per_second == 0.0
    hold(policy, 1e7, 1.0)
    assert policy.demand(1e7 + 1).mean_in_use == pytest.approx(1 - 0.5 ** (1 / 60))


@every_policy
@pytest.mark.parametrize("in_use", [-1, -(10**400), 10**9, 10**400])
def test_a_count_that_cannot_be_meant_does_no_harm(policy: SizingPolicy, in_use: int) -> None:
    policy = policy.fresh()
    policy.requested(0.0)
    policy.rose(0.0, in_use)
    policy.fell(1.0, in_use)
    demand = policy.demand(61.0)
    assert 0.0 <= demand.mean_in_use <= 1e7
    assert policy.open_delay(62.0, 10**400, -(10**400), 0.1) in (0.0, 0.1)
    assert not math.isnan(policy.closes_at(62.0, 10**400, 1.0))


@every_policy
def test_a_fresh_policy_has_the_settings_and_no_history(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    hold(policy, 0.0, 10.0)
    copy = policy.fresh()
    assert repr(copy) == repr(policy)
    assert (copy.min_idle, copy.max_size) == (policy.min_idle, policy.max_size)
    assert copy.demand(10.0).mean_in_use == 0.0 < policy.demand(10.0).mean_in_use


def test_demand_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Demand(0.0, 0.0, 0).level = 1  # type: ignore[misc]


def busy(policy: SizingPolicy) -> SizingPolicy:
    """Ten requests a second, each held for a tenth of one, then five in use."""
    policy = policy.fresh()
    for request in range(6000):
        hold(policy, request / 10, 0.1)
    for in_use in range(1, 6):
        policy.rose(600.0, in_use)
    return policy


@every_policy
def test_with_nothing_in_use_nothing_can_come_back(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    hold(policy, 0.0, 0.1)
    assert policy.open_delay(0.2, 0, 0, 1.0) == 0.0


@every_policy
def test_with_an_unknown_connect_time_a_connection_is_opened(policy: SizingPolicy) -> None:
    assert busy(policy).open_delay(600.0, 0, 0, 0.0) == 0.0


@every_policy
def test_a_caller_waits_when_many_returns_are_due_meanwhile(policy: SizingPolicy) -> None:
    # One hold takes 0.1 s, so five in use give 50 returns in a second: a quarter of them is 12.5.
    policy = busy(policy)
    assert policy.open_delay(600.0, 0, 0, 1.0) == 1.0
    assert policy.open_delay(600.0, 11, 0, 1.0) == 1.0
    assert policy.open_delay(600.0, 12, 0, 1.0) == 0.0


@every_policy
def test_a_quick_connect_is_not_waited_for(policy: SizingPolicy) -> None:
    assert busy(policy).open_delay(600.0, 0, 0, 0.05) == 0.0


@every_policy
def test_pending_connects_serve_those_in_line(policy: SizingPolicy) -> None:
    assert busy(policy).open_delay(600.0, 14, 3, 1.0) == 1.0
    assert busy(policy).open_delay(600.0, 14, 2, 1.0) == 0.0
    assert busy(policy).open_delay(600.0, 0, 1, 0.001) == 0.001


@every_policy
def test_a_caller_does_not_wait_for_one_that_is_held_for_ever(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    policy.requested(0.0)
    policy.rose(0.0, 1)
    policy.requested(3600.0)
    assert policy.open_delay(3600.0, 0, 0, 1.0) == 0.0
