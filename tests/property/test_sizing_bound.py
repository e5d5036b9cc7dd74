"""For any load: cost ≤ 2 · optimum + 3·C/4 for each level that was ever used."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geventpool.simulator import Trace, optimum
from geventpool.simulator.replay import Replay
from geventpool.sizing.budget import ALLOWANCE, Budget
from geventpool.sizing.levels import Adaptive

C = 8.0

times = st.floats(0, 100) | st.sampled_from([share * C for share in (0, 0.25, 0.5, 1, 2, 3, 4.1)])
holds = st.floats(0.001, 10) | st.sampled_from([0.001, 1.0, C])
rows = st.lists(st.tuples(times, holds), min_size=1, max_size=40)
Rows = list[tuple[float, float]]


def share_of_the_allowance(
    rows: Rows, breakeven: float, silence: float, allowance: float = ALLOWANCE
) -> float:
    """What a run costs beyond twice the optimum, in C for each level."""
    trace = Trace("drawn", rows)
    policy, horizon = Adaptive(breakeven, 60.0, allowance), trace.last_return + silence
    replay = Replay(trace, policy, connect=0, max_size=1000, horizon=horizon)
    replay.run()
    in_use = levels = 0
    for _, is_rise in trace.events():
        in_use += 1 if is_rise else -1
        levels = max(levels, in_use)
    beyond = replay.idle_seconds + breakeven * replay.opens - 2 * optimum(trace, breakeven)
    return beyond / (breakeven * levels)


@settings(deadline=None, max_examples=200)
@given(rows, st.sampled_from([2.0, C, 30.0]), st.sampled_from([0.0, 3.0, 100.0]))
def test_no_load_costs_more_than_twice_the_optimum_and_the_allowance(
    drawn: Rows, breakeven: float, silence: float
) -> None:
    assert share_of_the_allowance(drawn, breakeven, silence) <= ALLOWANCE + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_an_adversary_that_climbs_does_not_get_beyond_the_bound(seed: int) -> None:
    shares = climbing(seed, ALLOWANCE)
    first, most = next(shares), max(shares)
    assert first < most <= ALLOWANCE + 1e-9  # it does climb
    print(f"from {first:.3f} to {most:.3f} C for each level")


def test_the_adversary_gets_beyond_the_bound_of_a_policy_that_may_risk_all() -> None:
    assert any(share > ALLOWANCE + 1e-9 for share in climbing(0, allowance=1e9))


def climbing(seed: int, allowance: float) -> Iterator[float]:
    """What each load costs that an adversary tries: changes of the worst that it has found."""
    chance = random.Random(seed)
    rows = [(chance.uniform(0, 60), chance.uniform(0.01, 5)) for _ in range(15)]
    most = share_of_the_allowance(rows, C, 20 * C, allowance)
    yield most
    for _ in range(300):
        changed = mutated(rows, chance)
        share = share_of_the_allowance(changed, C, 20 * C, allowance)
        yield share
        if share >= most:
            rows, most = changed, share


def mutated(rows: Rows, chance: random.Random) -> Rows:
    """One request moved, added after another, or taken away; or all after one put off."""
    which, kind = chance.randrange(len(rows)), chance.random()
    time, hold = rows[which]
    if kind < 0.5:
        time = abs(time + chance.gauss(0, 1) * chance.choice([0.1, 1, 5]))
        return [
            *rows[:which],
            (time, max(0.001, hold + chance.gauss(0, 0.5))),
            *rows[which + 1 :],
        ]
    if kind < 0.7 and len(rows) < 50:
        later = chance.choice([0, 1 / 32, 0.25, 0.5, 1, 2]) * C + 0.01
        return [*rows, (time + later, chance.choice([0.01, 1, C]))]
    if kind < 0.85 and len(rows) > 2:
        return [*rows[:which], *rows[which + 1 :]]
    pause = chance.choice([0.25, 0.5, 1]) * C
    return [(t + pause if t > time else t, hold) for t, hold in rows]


def test_early_and_late_closes_are_paid_from_what_was_saved() -> None:
    budget = Budget(C, allowance=0.0)
    assert budget.allowed(2.0, 1, 0.0) == C  # nothing was saved: neither earlier
    assert budget.allowed(2 * C, 1, 0.0) == C  # nor later
    budget.rose(1, 6.0)
    assert budget.left == 6.0
    assert budget.allowed(2.0, 1, 0.0) == 2.0
    assert budget.allowed(2 * C, 1, 0.0) == C
    budget.close(3.0, 1, 0.0)
    budget.close(3.0, 1, 0.0)  # told twice, paid once
    assert budget.left == 1.0
    budget.keep(1)
    assert budget.left == 6.0
    budget.close(3.0, 1, 0.0)
    budget.rose(1, 100.0)
    assert budget.left == 1.0 + 2 * (C - 3.0)
