from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
from scipy.special import lambertw
from scipy.stats import poisson as reference

from geventpool.errors import ConfigError
from geventpool.sizing import SizingPolicy, adaptive, fixed, poisson

HALF_LIFE = 60.0


def steady(policy: SizingPolicy, until: float, gap: float, held: int) -> float:
    """Requests every `gap` seconds, each held for `held` gaps; then everything comes back."""
    now, in_use = 0.0, 0
    for request in range(round(until / gap)):
        now = request * gap
        if in_use == held:
            in_use -= 1
            policy.fell(now, in_use)
        policy.requested(now)
        in_use += 1
        policy.rose(now, in_use)
    while in_use:
        in_use -= 1
        policy.fell(now, in_use)
    return now


def drops(policy: SizingPolicy, now: float, size: int) -> list[float]:
    """When each of `size` connections, idle from now on, is closed in silence; stops at never."""
    idle_since, times = now, []
    while size and (now := max(now, policy.closes_at(now, size, idle_since))) < math.inf:
        assert policy.closes_at(now, size, idle_since) <= now
        times.append(now)
        size -= 1
    return times


def test_the_package_offers_three_policies() -> None:
    for factory in (adaptive, poisson, fixed):
        policy: SizingPolicy = factory()
        assert repr(policy).startswith(factory.__name__)
    assert adaptive().max_size is adaptive().min_idle is poisson().max_size is None


@pytest.mark.parametrize("value", [0, -1, 1e10, math.inf, math.nan, "5", None, True, [5.0]])
@pytest.mark.parametrize(
    ("factory", "name"),
    [
        (adaptive, "breakeven"),
        (adaptive, "half_life"),
        (poisson, "open_interval"),
        (poisson, "half_life"),
    ],
)
def test_a_span_that_cannot_be_used_is_refused_by_name(
    factory: Callable[..., SizingPolicy], name: str, value: object
) -> None:
    with pytest.raises(ConfigError, match="give seconds") as caught:
        factory(**{name: value})
    assert (caught.value.argument, caught.value.value) == (name, value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"min_idle": -1}, "min_idle"),
        ({"min_idle": 1.0}, "min_idle"),
        ({"min_idle": True}, "min_idle"),
        ({"min_idle": 21}, "min_idle"),
        ({"max_size": 0}, "max_size"),
        ({"max_size": "9"}, "max_size"),
        ({"idle_timeout": -0.1}, "idle_timeout"),
        ({"idle_timeout": math.nan}, "idle_timeout"),
        ({"idle_timeout": None}, "idle_timeout"),
    ],
)
def test_a_fixed_size_that_cannot_be_used_is_refused_by_name(
    settings: dict[str, object], name: str
) -> None:
    make: Callable[..., SizingPolicy] = fixed
    with pytest.raises(ConfigError) as caught:
        make(**settings)
    assert caught.value.argument == name


@pytest.mark.parametrize("factory", [adaptive, poisson, fixed])
def test_every_argument_has_a_default(factory: Callable[..., SizingPolicy]) -> None:
    for parameter in inspect.signature(factory).parameters.values():
        assert parameter.default is not inspect.Parameter.empty


# fixed


def test_fixed_tells_the_pool_its_bounds() -> None:
    policy = fixed(min_idle=2, max_size=7)
    assert (policy.min_idle, policy.max_size) == (2, 7)


def test_fixed_closes_after_the_idle_timeout_and_not_before() -> None:
    policy = fixed(idle_timeout=10.0)
    assert policy.closes_at(103.0, 5, 100.0) == 110.0
    assert fixed(idle_timeout=math.inf).closes_at(103.0, 5, 100.0) == math.inf


def test_the_level_of_fixed_is_what_it_insists_on() -> None:
    policy = fixed(min_idle=2)
    assert policy.demand(0.0).level == 2
    policy.rose(0.0, 5)
    assert policy.demand(0.0).level == 5


# poisson


@pytest.mark.parametrize("held", [1, 3, 20, 150])
@pytest.mark.parametrize("gap", [0.01, 0.2])
def test_the_poisson_level_keeps_opens_as_rare_as_asked(held: int, gap: float) -> None:
    policy = poisson(open_interval=5.0)
    now = steady(policy, 600.0, gap, held)
    demand = policy.demand(now)
    assert demand.mean_in_use == pytest.approx(held, rel=0.05)
    chance = 1 / max(2.0, 5.0 * demand.checkouts_per_second)
    assert reference.sf(demand.level - 1, demand.mean_in_use) <= chance
    assert reference.sf(demand.level - 2, demand.mean_in_use) > chance


def test_each_close_in_silence_is_when_the_poisson_level_falls() -> None:
    policy = poisson(open_interval=5.0)
    start = steady(policy, 600.0, 0.05, 12)
    size = policy.demand(start).level
    times = drops(policy, start, size)
    assert len(times) == size
    assert times == sorted(times)
    for left, time in zip(range(size - 1, -1, -1), times, strict=True):
        assert policy.demand(time + 1e-3).level == left
        if time > start + 5.0:
            assert policy.demand(time - 1e-3).level > left


def test_the_last_poisson_drop_has_a_closed_form() -> None:
    policy = poisson(open_interval=5.0)
    start = steady(policy, 600.0, 0.1, 1)
    rate = policy.demand(start).checkouts_per_second
    last = start + HALF_LIFE * math.log2(5.0 * rate)
    assert drops(policy, start, 1) == [pytest.approx(last)]


def test_a_poisson_drop_is_close_to_the_closed_form_of_the_first_term() -> None:
    # C·rate·w·P(L = n) = 1 by Lambert's W; the tail P(L ≥ n) is larger, so the true drop is later.
    policy = poisson(open_interval=5.0)
    start = steady(policy, 600.0, 0.01, 3)
    demand = policy.demand(start)
    mean, traffic = demand.mean_in_use, 5.0 * demand.checkouts_per_second
    size = demand.level
    for left, time in zip(range(size - 1, 0, -1), drops(policy, start, size), strict=False):
        order = left + 1
        ratio = (math.factorial(left) / (mean**left * traffic)) ** (1 / order)
        weight = -(order / mean) * lambertw(-mean / order * ratio).real
        first_term = start - HALF_LIFE * math.log2(weight)
        if first_term > start + 5.0:
            assert first_term < time < first_term + 0.2 * HALF_LIFE


def test_a_poisson_connection_is_never_closed_before_it_was_idle_for_the_open_interval() -> None:
    policy = poisson(open_interval=5.0)
    for in_use in range(1, 51):
        policy.requested(0.0)
        policy.rose(0.0, in_use)
    for in_use in range(49, -1, -1):
        policy.fell(0.5, in_use)
    assert min(drops(policy, 0.5, 50)) == 5.5


def test_the_poisson_level_is_one_until_the_open_interval_after_the_last_event() -> None:
    policy = poisson(open_interval=5.0)
    assert policy.demand(0.0).level == 0
    steady(policy, 1.0, 1.0, 1)
    assert policy.demand(4.9).level == 1
    assert policy.demand(5.0).level == 0


def test_the_poisson_level_never_falls_below_one_while_a_connection_is_in_use() -> None:
    policy = poisson()
    policy.requested(0.0)
    policy.rose(0.0, 1)
    assert policy.demand(1e6).level >= 1
    assert policy.closes_at(1e6, 1, 0.0) == math.inf


def test_what_a_poisson_pool_needs_beside_long_holders_is_kept_for_ever() -> None:
    policy = poisson()
    for in_use in range(1, 11):
        policy.requested(0.0)
        policy.rose(0.0, in_use)
    later = 1e5
    level = policy.demand(later).level
    assert level == 11
    assert policy.closes_at(later, level, 0.0) == math.inf
    assert policy.closes_at(later, level + 1, 0.0) <= later


def test_a_level_that_rises_and_then_falls_is_due_when_it_falls() -> None:
    # Holders that stay draw the mean up while the rate decays: two opposite movements.
    policy = poisson(open_interval=100.0)
    for request in range(3000):
        policy.requested(request / 100)
    for in_use in range(1, 6):
        policy.rose(30.0, in_use)
    for size in range(1, 40):
        due = policy.closes_at(30.0, size, -1e9)
        if 30.0 < due < math.inf:
            assert policy.demand(due + 1e-3).level < size
            assert policy.demand(due - 1e-3).level >= size


def test_asking_poisson_at_every_checkout_gives_a_recent_answer() -> None:
    policy = poisson(open_interval=5.0)
    start = steady(policy, 600.0, 0.05, 12)
    first = policy.closes_at(start, 13, start)
    policy.requested(start + 0.1)
    assert policy.closes_at(start + 0.1, 13, start) == first
    policy.requested(start + 1.0)
    assert policy.closes_at(start + 1.0, 13, start) != first


def test_a_recent_poisson_answer_does_not_outlive_a_return() -> None:
    policy = poisson()
    for in_use in (1, 2, 3):
        policy.requested(0.0)
        policy.rose(0.0, in_use)
    policy.fell(1000.0, 2)
    assert policy.closes_at(1000.0, 3, 1000.0) == math.inf
    policy.fell(1000.1, 1)
    policy.fell(1000.2, 0)
    assert policy.closes_at(1000.2, 3, 1000.0) < 1200.0


@pytest.mark.parametrize("policy", [adaptive(), poisson()], ids=repr)
def test_an_answer_does_not_outlive_an_event_of_the_same_instant(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    for in_use in (1, 2):
        policy.requested(0.0)
        policy.rose(0.0, in_use)
    policy.fell(1000.0, 1)
    policy.closes_at(1000.0, 2, 1000.0)
    policy.fell(1000.0, 0)
    assert policy.closes_at(1e6, 2, 1000.0) <= 1e6


# adaptive


@pytest.mark.parametrize("breakeven", [5.0, 30.0, 120.0])
def test_an_adaptive_timeout_is_one_of_seven_shares_of_the_breakeven(breakeven: float) -> None:
    policy = adaptive(breakeven=breakeven)
    start = steady(policy, 600.0, 0.1, 8)
    for size in range(1, 20):
        share = (policy.closes_at(start, size, start) - start) / breakeven
        assert math.log2(share) == pytest.approx(round(math.log2(share)))
        assert 1 / 32 <= share <= 2


def test_an_adaptive_pool_closes_everything_in_silence() -> None:
    policy = adaptive(breakeven=30.0)
    start = steady(policy, 600.0, 0.1, 8)
    times = drops(policy, start, 20)
    assert len(times) == 20
    assert times[-1] <= start + 60.0


@pytest.mark.parametrize("level", [1, 10, 21, 40])
def test_a_level_without_experience_is_kept_for_a_quarter_of_the_breakeven(level: int) -> None:
    policy = adaptive(breakeven=30.0)
    start = steady(policy, 600.0, 0.05, 20)
    assert policy.closes_at(start, level, start) == start + 7.5


def test_a_level_without_experience_is_kept_for_the_breakeven_at_most() -> None:
    policy = adaptive(breakeven=30.0)
    now = 0.0
    for gap in (18.0, 18.0, 18.0, 39.0) * 50:  # in these, the first has learnt that 2·C pays
        policy.took(now, 1)
        policy.fell(now, 0)
        now += gap
    policy.took(now, 1)
    policy.fell(now, 0)
    assert policy.closes_at(now, 1, now) == now + 60.0
    for level in (2, 3, 4):
        for in_use in range(1, level + 1):
            policy.took(now, in_use)
        for in_use in reversed(range(level)):
            policy.fell(now, in_use)
        assert policy.closes_at(now, level, now) - now <= 30.0


def test_what_stops_at_once_is_let_go_after_a_quarter_of_the_breakeven() -> None:
    policy = adaptive(breakeven=30.0)
    now, top = 0.0, 60
    for step in range(600):  # a ramp in a minute, in which each level dips for seconds
        now = 0.1 * step
        for in_use in range(1, top * step // 600 + 1):
            policy.took(now, in_use)
        for in_use in reversed(range(top * step // 600)):
            policy.fell(now + 0.05, in_use)
    stopped = now + 0.05
    times = drops(policy, stopped, top - 1)
    assert len(times) == top - 1
    assert times[-1] <= stopped + 7.5


def test_traffic_that_goes_on_is_no_silence() -> None:
    policy = adaptive(breakeven=30.0)
    end = 0.0
    for burst in range(40):  # five are in use every ten seconds, two all the time
        for tick in range(200):
            end = 10.0 * burst + tick * 0.05
            many = 5 if tick < 2 else 2
            for in_use in range(1, many + 1):
                policy.took(end, in_use)
            for in_use in reversed(range(many)):
                policy.fell(end + 0.04, in_use)
    fell_at = 10.0 * 39 + 0.09
    assert policy.closes_at(end + 0.04, 5, fell_at) > end + 0.04
    assert policy.closes_at(end + 0.04, 5, fell_at) < end + 15.0


def test_a_level_that_is_needed_every_twenty_seconds_learns_to_stay() -> None:
    policy = adaptive(breakeven=30.0)
    now = 0.0
    for burst in range(20):
        now = 20.0 * burst
        for in_use in range(1, 6):
            policy.requested(now)
            policy.rose(now, in_use)
        for in_use in range(4, -1, -1):
            policy.fell(now + 0.1, in_use)
    for size in range(1, 6):
        assert policy.closes_at(now + 0.1, size, now + 0.1) - now > 20.0


def test_a_level_that_is_needed_every_ten_minutes_learns_to_go() -> None:
    policy = adaptive(breakeven=30.0)
    now = 0.0
    for burst in range(20):
        now = 600.0 * burst
        for in_use in range(1, 6):
            policy.requested(now)
            policy.rose(now, in_use)
        for in_use in range(4, -1, -1):
            policy.fell(now + 0.1, in_use)
    for size in range(1, 6):
        assert policy.closes_at(now + 0.1, size, now + 0.1) - now < 1.1


@pytest.mark.parametrize("level", [45, 10**9])
def test_what_use_cannot_climb_to_within_the_breakeven_is_let_go_soon(level: int) -> None:
    policy = adaptive(breakeven=30.0)
    start = steady(policy, 600.0, 0.05, 20)  # 20 requests a second, holds of a second
    assert policy.closes_at(start, level, start) == start + 30.0 / 32


def test_with_long_holds_a_surplus_is_let_go_soon() -> None:
    policy = adaptive(breakeven=30.0)
    for in_use in range(1, 21):
        policy.requested(float(in_use))
        policy.rose(float(in_use), in_use)
    for in_use in range(19, 4, -1):
        policy.fell(400.0, in_use)
    assert policy.closes_at(400.0, 20, 400.0) == 400.0 + 30.0 / 32
    assert policy.closes_at(400.0, 6, 400.0) > 400.0 + 30.0 / 32


def test_the_timeout_is_not_chosen_anew_before_its_end() -> None:
    policy = adaptive(breakeven=30.0)
    start = steady(policy, 600.0, 0.05, 20)
    due = policy.closes_at(start, 25, start)
    steady(policy, 10.0, 0.01, 5)
    assert policy.closes_at(start + 1e-3, 25, start) == due


def test_the_adaptive_level_is_what_a_lifo_pool_would_hold() -> None:
    policy = adaptive(breakeven=30.0)
    assert policy.demand(0.0).level == 0
    for in_use in range(1, 11):
        policy.requested(0.0)
        policy.rose(0.0, in_use)
    for in_use in range(9, 3, -1):
        policy.fell(1.0, in_use)
    assert policy.demand(1.0).level == 10
    assert policy.demand(1e4).level == 4


def test_memory_is_kept_only_for_levels_with_a_gap_worth_noting() -> None:
    policy = adaptive(breakeven=30.0)
    steady(policy, 60.0, 0.05, 20)
    assert len(policy._gaps) == len(policy._rests) == 0  # type: ignore[attr-defined]
    assert len(policy._down) == 20  # type: ignore[attr-defined]


@pytest.mark.parametrize("policy", [adaptive(), poisson(), fixed()], ids=repr)
@pytest.mark.parametrize("size", [0, -1, -(10**400)])
def test_what_is_not_open_is_never_closed(policy: SizingPolicy, size: int) -> None:
    assert policy.closes_at(0.0, size, 0.0) == math.inf


@pytest.mark.parametrize("policy", [adaptive(), poisson()], ids=repr)
def test_a_single_sequential_client_is_never_told_to_keep_a_second(policy: SizingPolicy) -> None:
    policy = policy.fresh()
    start = steady(policy, 600.0, 0.01, 1)
    for request in range(200):
        now = start + 0.01 * request
        assert policy.open_delay(now, 0, 0, 0.1) == 0.0
        policy.requested(now)
        policy.rose(now, 1)
        policy.fell(now + 0.005, 0)
    assert policy.demand(start + 2.0).level >= 1


def test_an_adaptive_pool_of_one_sequential_client_has_a_level_of_one() -> None:
    policy = adaptive()
    start = steady(policy, 600.0, 0.01, 1)
    assert policy.demand(start).level == 1
