"""Runs every policy on every load, in virtual time; only `speed` measures time."""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
import time
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from unittest import mock

from geventpool.simulator import FAMILIES, Outcome, Setting, Trace, make_trace, optimum, simulate
from geventpool.simulator.optimum import optimum_opens
from geventpool.simulator.policies import outcome, runner
from geventpool.simulator.replay import Replay
from geventpool.sizing import adaptive, levels
from geventpool.sizing.budget import ALLOWANCE
from geventpool.sizing.levels import Adaptive

from .loads import DEMO_DAY, busy, demo_day, grid, long_ramp

LOADS: tuple[str, ...] = (*FAMILIES, DEMO_DAY)
BREAKEVENS = (5.0, 30.0, 120.0)
SEEN = range(12)  # the policy's constants were chosen on these
UNSEEN = range(100, 103)
OURS = ("adaptive", "idle:C/2", "idle:C")
BEST = "queuepool:best"
OTHERS = ("idle:600", "saautopool", "hikaricp", "psycopg_pool", "djangoqueuepool", "queuepool:5+10")
CONNECT = 0.02
NO_CAP = 2000  # nobody comes near it
REQUESTS = 20_000  # of each trace, at most; more would take hours
PARETO_REQUESTS = 5_000  # the same, where many policies run
SILENCE = 10  # break-evens without a request, charged after the last return
CHOSEN = "as chosen"
CONSTANTS: dict[str, tuple[float, ...]] = {  # the main ones, and what else they could be
    "ALLOWANCE": (0.0, 0.25, 0.5, 1.5),
    "_SILENT": (1.0, 5.0),
    "_MEMORY": (0.9, 0.99),
    "_POISSON_WEIGHT": (0.0, 2.0),
    "_LONG_HOLD": (0.0, 0.25),
}
GRID_REQUESTS = 2_000
BUSY_REQUESTS = 500_000

Outcomes = dict[tuple[str, float, str], list[Outcome]]
"""By policy, break-even and family: one for each seed."""


@dataclass
class Study:
    """Everything that was found.

    Attributes:
        unseen: on seeds that nothing was chosen on, charged to the last return.
        silent: the same with silence charged, of our own pool.
        pareto: mean over the families and worst family, by break-even and what was changed in the
            policy, with silence charged; on a seed that the constants were chosen on.
        hindsight: mean over the families and worst family, by break-even, of who is told which
            time-out is best for each level of the very trace.
        longest_wait: of `adaptive`, in connects.
        opens: an hour, by load and break-even, and then by policy, the optimum among them.
        speed: whole simulation beside a bare loop over a heap; one for each round.
        memory: peak with so many requests, beside that with a quarter of them.
    """

    unseen: Outcomes
    silent: Outcomes
    pareto: dict[tuple[float, str], tuple[float, float]]
    hindsight: dict[float, tuple[float, float]]
    longest_wait: float
    opens: dict[tuple[str, float], dict[str, float]]
    speed: list[float]
    memory: float


def study(seeds: int, *, is_full: bool, rounds: int) -> Study:
    """Runs all of it.

    Args:
        seeds: how many of each family.
        is_full: with SAAutoPool's grid, and a million events; else a first look.
        rounds: of `speed`.
    """
    requests = BUSY_REQUESTS if is_full else BUSY_REQUESTS // 25
    unseen, silent = run(UNSEEN[:seeds])
    longest_wait = max(
        outcome.max_wait
        for family in LOADS
        for breakeven in BREAKEVENS
        for outcome in unseen["adaptive", breakeven, family]
    )
    return Study(
        unseen,
        silent,
        pareto() if is_full else {},
        hindsight(UNSEEN[:seeds]),
        longest_wait / CONNECT,
        ramp_opens() | (grid_opens() if is_full else {}),
        speed(requests, rounds),
        memory(),
    )


def shortened(family: str, seed: int, requests: int = REQUESTS) -> Trace:
    """A trace of a family, and no more of it than can be simulated soon."""
    trace = demo_day() if family == DEMO_DAY else make_trace(family, seed)
    return Trace(trace.name, list(trace)[:requests]) if len(trace) > requests else trace


def run(seeds: Iterable[int]) -> tuple[Outcomes, Outcomes]:
    """Every family, seed and break-even; others than ours on the first seed.

    Returns:
        Charged to the last return, and with silence.
    """
    plain: Outcomes = {}
    silent: Outcomes = {}
    for seed in seeds:
        for family in LOADS:
            if family == DEMO_DAY and seed != UNSEEN[0]:
                continue  # there is but one
            trace = shortened(family, seed)
            for breakeven in BREAKEVENS:
                for policy in OURS:
                    key = policy, breakeven, family
                    busy_part, whole = with_silence(trace, _named(policy, breakeven), breakeven)
                    plain.setdefault(key, []).append(busy_part)
                    silent.setdefault(key, []).append(whole)
            if seed == UNSEEN[0]:
                _run_others(plain, trace, family)
            print(trace.name, file=sys.stderr, flush=True)
    return plain, silent


def with_silence(trace: Trace, policy: str, breakeven: float) -> tuple[Outcome, Outcome]:
    """One run of our pool: charged to the last return, and with silence after it."""
    end = trace.last_return + SILENCE * breakeven
    setting = dataclasses.replace(_setting(breakeven), horizon=end)
    replay = runner(policy)(trace, setting, end, float)
    assert isinstance(replay, Replay)
    return (
        outcome(trace, policy, setting, replay, replay.busy_idle_seconds),
        outcome(trace, policy, setting, replay, replay.idle_seconds),
    )


def _run_others(plain: Outcomes, trace: Trace, family: str) -> None:
    for breakeven in BREAKEVENS:
        found = simulate(trace, BEST, _setting(breakeven))
        plain.setdefault((BEST, breakeven, family), []).append(found)
    for policy in OTHERS:  # which do not look at the break-even
        found = simulate(trace, policy, _setting(BREAKEVENS[0]))
        for breakeven in BREAKEVENS:
            priced = _priced(found, trace, breakeven)
            plain.setdefault((policy, breakeven, family), []).append(priced)


def pareto() -> dict[tuple[float, str], tuple[float, float]]:
    """What else the policy's main constants could be, beside plain time-outs."""
    ratios: dict[tuple[float, str], list[float]] = {}
    for family in LOADS:
        trace = shortened(family, SEEN[0], PARETO_REQUESTS)
        for breakeven in BREAKEVENS:
            changes = {CHOSEN: ("ALLOWANCE", ALLOWANCE)} | {
                f"{name.strip('_').lower().replace('_', ' ')} {value:g}": (name, value)
                for name, values in CONSTANTS.items()
                for value in values
            }
            for told, (name, value) in changes.items():
                its = _changed(trace, breakeven, name, value)
                ratios.setdefault((breakeven, told), []).append(its)
            for rival in OURS[1:]:
                its = with_silence(trace, _named(rival, breakeven), breakeven)[1].ratio
                ratios.setdefault((breakeven, rival), []).append(its)
        print(f"pareto {trace.name}", file=sys.stderr, flush=True)
    return {key: (statistics.mean(its), max(its)) for key, its in ratios.items()}


def _changed(trace: Trace, breakeven: float, name: str, value: float) -> float:
    """The cost of `adaptive` with one of its constants changed; with silence."""
    allowance = value if name == "ALLOWANCE" else ALLOWANCE
    setting, horizon = _setting(breakeven), trace.last_return + SILENCE * breakeven
    with mock.patch.object(levels, name, value):
        policy = Adaptive(breakeven, 60.0, allowance)
        replay = Replay(trace, policy, connect=CONNECT, max_size=NO_CAP, horizon=horizon)
        replay.run()
    return outcome(trace, name, setting, replay, replay.idle_seconds).ratio


def hindsight(seeds: Iterable[int]) -> dict[float, tuple[float, float]]:
    """What could be had by learning: each level's best time-out is known from the start."""
    ratios: dict[float, dict[str, list[float]]] = {c: {} for c in BREAKEVENS}
    for seed in seeds:
        for family in LOADS:
            trace = shortened(family, seed)
            for c, its in ratios.items():
                share = best_timeouts(trace, c) / optimum(trace, c)
                its.setdefault(family, []).append(share)
    means = {c: [statistics.mean(one) for one in its.values()] for c, its in ratios.items()}
    return {c: (statistics.mean(its), max(its)) for c, its in means.items()}


def best_timeouts(trace: Trace, breakeven: float) -> float:
    """The cost with the best of the policy's seven time-outs for each level, and instant connects."""
    timeouts = [share * breakeven for share in levels.TIMEOUTS]
    costs: dict[int, list[float]] = {}
    fell_at: dict[int, float] = {}
    in_use = 0
    for now, is_rise in trace.events():
        if not is_rise:
            fell_at[in_use] = now
            in_use -= 1
            continue
        in_use += 1
        if in_use not in costs:
            costs[in_use] = [breakeven] * len(timeouts)
            continue
        gap = now - fell_at[in_use]
        its = costs[in_use]
        for place, timeout in enumerate(timeouts):
            its[place] += gap if gap <= timeout else timeout + breakeven
    return sum(map(min, costs.values()))


def ratio(outcomes: Outcomes, policy: str, breakeven: float, family: str) -> float:
    """Cost beside the optimum's: mean over the seeds."""
    return statistics.mean(it.ratio for it in outcomes[policy, breakeven, family])


def is_comparable(outcomes: Outcomes, policy: str, breakeven: float, family: str) -> bool:
    """False: one request in a hundred waits for more than 0.1 s, which makes connections cheap."""
    return statistics.mean(it.p99 for it in outcomes[policy, breakeven, family]) <= 0.1


def ramp_opens() -> dict[tuple[str, float], dict[str, float]]:
    """Opens an hour while use grows from 0 to 200."""
    ramp = long_ramp()
    hour = 3600 / (ramp.last_return - ramp.start)
    found = {"optimum": optimum_opens(ramp, 30.0) * hour}
    for policy in ("adaptive", "idle:C/2", "saautopool"):
        found[policy] = simulate(ramp, _named(policy, 30.0), _setting(30.0)).opens * hour
    return {("a ramp from 0 to 200 in use in 20 minutes", 30.0): found}


def grid_opens() -> dict[tuple[str, float], dict[str, float]]:
    """Opens an hour, mean over SAAutoPool's own grid."""
    found: dict[float, dict[str, list[float]]] = {breakeven: {} for breakeven in BREAKEVENS}
    for trace in grid(GRID_REQUESTS):
        hour = 3600 / (trace.last_return - trace.start)
        theirs = simulate(trace, "saautopool", _setting(30.0)).opens
        for breakeven, its in found.items():
            opens = {
                "optimum": optimum_opens(trace, breakeven),
                "adaptive": simulate(trace, "adaptive", _setting(breakeven)).opens,
                "saautopool": theirs,
            }
            for name, many in opens.items():
                its.setdefault(name, []).append(many * hour)
        print(f"grid {trace.name}", file=sys.stderr, flush=True)
    return {
        ("SAAutoPool's own test grid", breakeven): {
            name: statistics.mean(many) for name, many in its.items()
        }
        for breakeven, its in found.items()
    }


def speed(requests: int, rounds: int) -> list[float]:
    """A mean of 5,000 in use, beside a bare loop over a heap; in processor time."""
    trace = busy(requests)
    ratios = []
    for _ in range(rounds):
        began = time.process_time()
        bare_loop(trace)
        bare = time.process_time() - began
        began = time.process_time()
        Replay(trace, adaptive(), connect=CONNECT, max_size=math.inf).run()
        ratios.append((time.process_time() - began) / bare)
    return ratios


def memory(requests: int = 40_000) -> float:
    """Peak beside that of a quarter as many requests, the trace itself not counted."""

    def peak(trace: Trace) -> int:
        tracemalloc.start()
        Replay(trace, adaptive(), connect=CONNECT, max_size=math.inf).run()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    return peak(busy(requests, 500.0)) / peak(busy(requests // 4, 500.0))


def bare_loop(trace: Trace) -> None:
    """The least that a simulation of the same events can do: one push and one pop for a request."""
    times, holds, many, place = trace.times, trace.holds, len(trace), 0
    returns: list[tuple[float, int]] = []
    in_use = 0
    while place < many or returns:
        asked = times[place] if place < many else math.inf
        if returns and returns[0][0] <= asked:
            heappop(returns)
            in_use -= 1
        else:
            heappush(returns, (asked + holds[place], place))
            place += 1
            in_use += 1


def _setting(breakeven: float) -> Setting:
    return Setting(breakeven=breakeven, connect=CONNECT, max_size=NO_CAP)


def _named(policy: str, breakeven: float) -> str:
    return policy.replace("C/2", f"{breakeven / 2:g}").replace("C", f"{breakeven:g}")


def _priced(outcome: Outcome, trace: Trace, breakeven: float) -> Outcome:
    """The same run, where a connect is worth something else."""
    cost, least = outcome.opens * breakeven + outcome.idle_seconds, optimum(trace, breakeven)
    return dataclasses.replace(outcome, cost=cost, optimum=least, ratio=cost / least)
