"""The cap finds itself, against a server model with a knee, in virtual time."""

from __future__ import annotations

import pytest

from geventpool.simulator.knee import Knee, run
from geventpool.sizing.cap import CapController

BOUND = 96
LOADS = {
    "one after the other on few processors": Knee(0.001, 0.45, 0.002),
    "one hot row": Knee(0.001, 0.9, 0.01),
    "short look-ups": Knee(0.001, 0.3, 0.001),
    "waiting: more is better": Knee(0.001, 0.02, 0.0, 0.02),
    "a mix": Knee(0.001, 0.1, 0.001, 0.002),
}
every_load = pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)


def share(load: Knee, cap: int) -> float:
    """Of the best throughput of all caps."""
    return load.throughput(cap) / load.throughput(load.best(BOUND))


def test_the_model_is_the_universal_scalability_law() -> None:
    load = Knee(0.002, 0.1, 0.009)
    assert load.throughput(1) == 500
    assert load.seconds(4) == pytest.approx(0.002 * (1 + 0.1 * 3 + 0.009 * 4 * 3))
    assert load.best(96) == 10 == round(((1 - 0.1) / 0.009) ** 0.5)


def test_the_same_seed_gives_the_same_run() -> None:
    ran = [run(CapController(BOUND), lambda _: LOADS["a mix"], 50, 3.0, seed=7) for _ in range(2)]
    assert ran[0] == ran[1]


@every_load
@pytest.mark.parametrize("seed", range(2))
def test_it_settles_at_a_small_cap_near_the_best_throughput_and_stays(load: Knee, seed) -> None:
    control = CapController(BOUND)
    ran = run(control, lambda _: load, 150, 30.0, seed)
    assert not control.is_searching
    assert share(load, control.point) >= 0.95
    best = load.throughput(load.best(BOUND))
    assert ran.throughput(18.0, 30.0) >= 0.95 * best
    assert not [cap for at, cap in ran.caps if at > 18.0], "it probes though it has found"
    assert control.point <= load.best(BOUND)


@every_load
def test_it_is_never_below_two_while_callers_wait(load: Knee) -> None:
    ran = run(CapController(BOUND), lambda _: load, 150, 15.0)
    assert min(cap for _, cap in ran.caps) >= 2
    assert max(cap for _, cap in ran.caps) <= BOUND


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("one hot row", "waiting: more is better"),
        ("waiting: more is better", "one hot row"),
        ("one hot row", "short look-ups"),
    ],
)
def test_another_load_is_noticed_within_few_windows_and_followed(before, after) -> None:
    control = CapController(BOUND)
    ran = run(control, lambda now: LOADS[before if now < 25.0 else after], 150, 55.0, seed=1)
    assert min(at for at, _ in ran.caps if at > 25.0) < 27.0
    assert share(LOADS[after], control.point) >= 0.95
    assert "throughput had changed" in control.last.reason


def test_queries_that_get_four_times_slower_do_not_make_it_lose_its_point() -> None:
    slow = Knee(0.004, 0.45, 0.002)
    control = CapController(BOUND)
    fast = LOADS["one after the other on few processors"]
    run(control, lambda now: fast if now < 20.0 else slow, 150, 70.0, seed=1)
    assert share(slow, control.point) >= 0.95


def test_without_a_line_nothing_is_probed() -> None:
    ran = run(CapController(BOUND), lambda _: LOADS["a mix"], 20, 5.0)
    assert ran.caps == [(0.0, 20)]


def test_a_line_that_ends_in_the_midst_of_a_search_ends_the_search() -> None:
    control = CapController(BOUND)
    run(control, lambda _: LOADS["one hot row"], lambda now: 150 if now < 1.5 else 2, 10.0)
    assert not control.is_searching
    assert control.cap == control.point >= 2


def test_a_connection_kept_during_an_outbound_call_is_no_slow_database() -> None:
    """Holds get 40 times longer; fewer connections would be the answer to a slow database."""
    load = Knee(0.001, 0.1, 0.0, 0.04)
    control = CapController(BOUND)
    run(control, lambda _: load, 150, 40.0)
    assert control.point > 40


def test_a_ring_of_nested_holders_raises_the_cap_by_one_within_the_bound() -> None:
    control = CapController(21, start=20)
    decision = control.found_ring(1.0)
    assert str(decision) == "cap 20 → 21: holders waited for each other"
    assert control.found_ring(2.0) is None
    assert control.cap == 21


def test_a_ring_at_a_probe_below_the_best_cap_known_ends_the_probe() -> None:
    control = CapController(BOUND, start=40)
    held, now = 0.01, 0.0
    while control.cap >= control.point:  # at a candidate above it, or at itself
        now += 0.0001 if control.cap == control.point else 0.0002
        control.returned(now, held, control.cap, 50)
    below = control.cap
    decision = control.found_ring(now)
    assert control.cap == control.point == 40
    assert str(decision) == f"cap {below} → 40: holders waited for each other"


def test_after_a_ring_no_search_goes_below_what_it_took() -> None:
    control = CapController(BOUND, start=5)
    control.found_ring(0.0)
    ran = run(control, lambda _: LOADS["one hot row"], 150, 20.0)
    assert min(cap for _, cap in ran.caps) == 6


def test_what_is_old_is_forgotten() -> None:
    control = CapController(BOUND)
    load = LOADS["one hot row"]
    ran = run(control, lambda _: load, lambda now: 1 if 15 < now < 700 else 150, 715.0)
    assert [at for at, _ in ran.caps if at > 700], "no search after the pause"


def test_a_decision_says_what_it_rests_on() -> None:
    control = CapController(BOUND)
    run(control, lambda _: LOADS["one hot row"], 150, 15.0, seed=1)
    assert str(control.last).startswith("cap 20 → 2: throughput 1")
    assert str(control.last).endswith("% higher (first search)")


@pytest.mark.parametrize("bound", [1, 2, 3])
def test_a_small_bound_is_kept(bound) -> None:
    ran = run(CapController(bound), lambda _: LOADS["a mix"], 50, 5.0)
    assert {cap for _, cap in ran.caps} <= set(range(1, bound + 1))
