from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventpool.simulator import Setting, Trace, best_queuepool_size, make_trace, optimum, simulate

rows = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=9).map(
    lambda drawn: [(float(t), float(hold)) for t, hold in drawn]
)


def least_cost(trace: Trace, breakeven: float) -> float:
    """By dynamic programming over how many connections are open: knows nothing of levels."""
    events = list(trace.events())
    costs = {0: 0.0}
    in_use, before = 0, events[0][0]
    for now, is_rise in events:
        costs = {n: cost + (n - in_use) * (now - before) for n, cost in costs.items()}
        in_use += 1 if is_rise else -1
        before = now
        after: dict[int, float] = {}
        for open_now, cost in costs.items():
            for kept in range(in_use, max(in_use, open_now) + 1):
                opened = max(0, kept - open_now) * breakeven
                after[kept] = min(after.get(kept, float("inf")), cost + opened)
        costs = after
    return min(costs.values())


@given(rows, st.sampled_from([1.0, 5.0, 12.5]))
def test_the_optimum_is_that_of_a_search_over_all_decisions(
    drawn: list[tuple[float, float]], breakeven: float
) -> None:
    trace = Trace("drawn", drawn)
    assert optimum(trace, breakeven) == pytest.approx(least_cost(trace, breakeven))


@given(rows, st.sampled_from(["adaptive", "poisson", "idle:3", "idle:12", "queuepool:2+1000"]))
def test_nobody_who_lets_no_one_wait_is_better_than_the_optimum(
    drawn: list[tuple[float, float]], policy: str
) -> None:
    outcome = simulate(Trace("drawn", drawn), policy, Setting(breakeven=5, connect=0))
    assert outcome.ratio >= 1.0 - 1e-9


@pytest.mark.parametrize("family", ["steady", "bursts", "flash-crowd", "batches", "near-idle"])
def test_the_best_size_of_queuepool_is_found(family: str) -> None:
    whole = make_trace(family, 5)
    trace = Trace(family, list(whole)[:4000])
    end = trace.last_return
    setting = Setting(connect=0, max_size=200)
    sizes = range(1, 60)
    costs = {n: simulate(trace, f"queuepool:{n}+{200 - n}", setting).cost for n in sizes}
    best = best_queuepool_size(trace, setting.breakeven, 200, end)
    assert costs[best] <= 1.005 * min(costs.values())
    assert simulate(trace, "queuepool:best", setting).cost == pytest.approx(costs[best])
