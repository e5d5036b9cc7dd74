"""Writes RESULTS.md and the plots: python -m benchmarks.sizing [--quick]

Everything is seeded and in virtual time, so that the figures are the same on each machine; only the last
table measures time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geventpool.simulator import FAMILIES, Outcome, Setting, Trace, make_trace, simulate
from geventpool.simulator.optimum import optimum_opens
from geventpool.simulator.plot import draw
from geventpool.simulator.replay import Replay
from geventpool.sizing import adaptive, poisson

from .loads import busy, grid, long_ramp

HERE = Path(__file__).parent
BREAKEVENS = (5.0, 30.0, 120.0)
TRAIN, UNSEEN = range(3), range(100, 103)
OURS = ("adaptive", "poisson", "idle:C/2", "idle:C", "queuepool:best")
OTHERS = ("idle:600", "saautopool", "hikaricp", "psycopg_pool", "djangoqueuepool", "queuepool:5+10")

# By policy, break-even, family: one outcome for each seed.
Outcomes = dict[tuple[str, float, str], list[Outcome]]


def run(seeds: Iterable[int]) -> Outcomes:
    """Everything on every family; no cap that anybody would reach."""
    outcomes: Outcomes = {}
    for family in FAMILIES:
        for seed in seeds:
            trace = make_trace(family, seed)
            for breakeven in BREAKEVENS:
                for policy in OURS + OTHERS:
                    name = policy.replace("C/2", f"{breakeven / 2:g}").replace(
                        "C", f"{breakeven:g}"
                    )
                    setting = Setting(breakeven=breakeven, max_size=2000)
                    outcome = simulate(trace, name, setting)
                    outcomes.setdefault((policy, breakeven, family), []).append(outcome)
            print(f"{trace.name}", file=sys.stderr, flush=True)
    return outcomes


def ratio(outcomes: Outcomes, policy: str, breakeven: float, family: str) -> float:
    """Mean over the seeds."""
    return statistics.mean(it.ratio for it in outcomes[policy, breakeven, family])


def summary(outcomes: Outcomes, title: str) -> str:
    """Mean over the families and worst family, for each policy and break-even."""
    lines = [f"| {title} | C = 5 s | C = 30 s | C = 120 s |", "|---|---|---|---|"]
    for policy in (*OURS, *OTHERS[:4]):
        cells = []
        for breakeven in BREAKEVENS:
            ratios = [ratio(outcomes, policy, breakeven, family) for family in FAMILIES]
            cells.append(f"{statistics.mean(ratios):.3f} / {max(ratios):.2f}")
        lines.append(f"| `{policy}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_family(outcomes: Outcomes, breakeven: float) -> str:
    """Each family, ours beside the two that could be better."""
    rivals = ("adaptive", "idle:C/2", "queuepool:best", *OTHERS)
    names = " | ".join(f"`{name}`" for name in rivals)
    lines = [
        f"| C = {breakeven:g} s | {names} | longest wait of `adaptive` |",
        "|---|" + "---|" * (len(rivals) + 1),
    ]
    for family in FAMILIES:
        mine = ratio(outcomes, "adaptive", breakeven, family)
        cells = []
        for policy in rivals:
            its = outcomes[policy, breakeven, family]
            cell = f"{ratio(outcomes, policy, breakeven, family):.2f}"
            if statistics.mean(it.p99 for it in its) > 0.1:
                cell += "\\*"
            elif policy in rivals[1:3] and mine > 1.05 * ratio(outcomes, policy, breakeven, family):
                cell = f"**{cell}**"
            cells.append(cell)
        longest = max(it.max_wait for it in outcomes["adaptive", breakeven, family])
        lines.append(f"| {family} | {' | '.join(cells)} | {longest * 1000:.0f} ms |")
    return "\n".join(lines)


def special() -> str:
    """Opens an hour: the long ramp, and SAAutoPool's grid."""
    ramp = long_ramp()
    hour = 3600 / (ramp.last_return - ramp.start)
    setting = Setting(max_size=2000)
    lines = [
        "| opens an hour | optimum | `adaptive` | `idle:C/2` | `saautopool` |",
        "|---|---|---|---|---|",
        "| ramp to 200 in use in 20 minutes, C = 30 s | "
        f"{optimum_opens(ramp, 30.0) * hour:,.0f} | "
        + " | ".join(
            f"{simulate(ramp, policy, setting).opens * hour:,.0f}"
            for policy in ("adaptive", "idle:15", "saautopool")
        )
        + " |",
    ]
    totals: dict[tuple[str, float], list[float]] = {}
    for trace in grid():
        hour = 3600 / (trace.last_return - trace.start)
        theirs = simulate(trace, "saautopool", Setting(max_size=50)).opens * hour
        for breakeven in BREAKEVENS:
            setting = Setting(breakeven=breakeven, max_size=50)
            for name, opens in (
                ("optimum", optimum_opens(trace, breakeven)),
                ("adaptive", simulate(trace, "adaptive", setting).opens),
                ("idle", simulate(trace, f"idle:{breakeven / 2:g}", setting).opens),
            ):
                totals.setdefault((name, breakeven), []).append(opens * hour)
            totals.setdefault(("saautopool", breakeven), []).append(theirs)
    for breakeven in BREAKEVENS:
        cells = [
            f"{statistics.mean(totals[name, breakeven]):,.0f}"
            for name in ("optimum", "adaptive", "idle", "saautopool")
        ]
        lines.append(f"| SAAutoPool's grid, mean, C = {breakeven:g} s | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(requests: int, rounds: int) -> str:
    """A mean of 5,000 in use, beside a bare loop over a heap; in processor time."""
    trace = busy(requests)
    ratios: dict[str, list[float]] = {"adaptive": [], "poisson": []}
    for _ in range(rounds):
        for name, policy in (("adaptive", adaptive()), ("poisson", poisson())):
            began = time.process_time()
            bare_loop(trace)
            bare = time.process_time() - began
            began = time.process_time()
            Replay(trace, policy, connect=0.02, max_size=math.inf).run()
            ratios[name].append((time.process_time() - began) / bare)
    lines = ["| times a bare heap loop | median | least | most |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {statistics.median(its):.1f} | {min(its):.1f} | {max(its):.1f} |"
        for name, its in ratios.items()
    ]
    return "\n".join(lines)


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


def plot_ratios(outcomes: Outcomes, path: Path) -> None:
    """Each family's ratio, for each break-even."""
    shown: Mapping[str, str] = {
        "adaptive": "o",
        "poisson": "v",
        "idle:C/2": "s",
        "queuepool:best": "x",
        "idle:600": "^",
        "saautopool": "+",
    }
    figure = Figure(figsize=(10, 9), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(BREAKEVENS), 1, sharex=True)
    places = range(len(FAMILIES))
    for axis, breakeven in zip(rows, BREAKEVENS, strict=True):
        for policy, marker in shown.items():
            ratios = [ratio(outcomes, policy, breakeven, family) for family in FAMILIES]
            axis.plot(
                places, ratios, marker, label=policy, markersize=8 if policy == "adaptive" else 6
            )
        axis.set_yscale("log")
        axis.set_yticks(
            [1, 1.2, 1.5, 2, 3, 5, 10, 20, 50], ["1", "1.2", "1.5", "2", "3", "5", "10", "20", "50"]
        )
        axis.minorticks_off()
        axis.set_ylim(0.97, 80)
        axis.grid(alpha=0.3)
        axis.set_title(f"C = {breakeven:g} s", loc="left", fontsize=10)
    rows[0].legend(ncols=6, fontsize=8, loc="upper right")
    rows[-1].set_xticks(list(places), list(FAMILIES), rotation=30, ha="right")
    figure.suptitle("Cost as a multiple of the optimum, unseen seeds (log scale)")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def plot_loads() -> None:
    """What is held, on three loads."""
    for family in ("bursts", "ramp", "stop"):
        trace = make_trace(family, UNSEEN[0])
        policies: Sequence[str] = (
            "adaptive",
            "idle:15",
            "queuepool:best",
            "saautopool",
            "psycopg_pool",
        )
        outcomes = [simulate(trace, policy, Setting(max_size=2000)) for policy in policies]
        draw(trace, outcomes, HERE / f"{family}.png")


TEXT = """# Results: what sizing costs

`python -m benchmarks.sizing` wrote this file; [docs/simulator.md](../../docs/simulator.md) says what is
simulated and how. Cost = opens · C + idle connection-seconds, as a multiple of the least possible cost;
mean over the families / worst family, {many} seeds of each. Ours run through the real pool, with connects
of 20 ms; nobody reaches a cap.

## Unseen seeds

{unseen}

## Seeds that the policy's constants were chosen on

{train}

![Cost by family](ratios.png)

## By family, unseen seeds

Bold: better than `adaptive` by more than 5 %. \\*: not comparable, because one request in a hundred waits
for more than 0.1 s; who lets others wait needs few connections, and can cost less than the optimum, which
serves everybody at once.

{families}

## Opens

{special}

## The simulator itself

{requests:,} requests with a mean of 5,000 in use: processor time of the whole simulation through the real
pool, beside a loop that pushes and pops the same events on a `heapq` and does nothing else.

{speed}

## Where others are better

* `queuepool:best` has been told the future: of all sizes it is the one that is best for this very trace.
  On a load that does not change, or is over before a policy can learn, a fixed size is hard to beat; on
  others it costs up to {best_worst:.0f} times the optimum.
* With short traces and C = 120 s, much of the cost is the start and the end: every policy has to find out
  that nothing comes any more.

![bursts](bursts.png)
![ramp](ramp.png)
![stop](stop.png)
"""


def main() -> None:
    """Runs all and writes it."""
    parser = argparse.ArgumentParser(description="what sizing costs")
    parser.add_argument(
        "--quick", action="store_true", help="one seed, fewer events, to the terminal"
    )
    is_quick = parser.parse_args().quick
    unseen = run(UNSEEN[:1] if is_quick else UNSEEN)
    if is_quick:
        print(summary(unseen, "one unseen seed"), by_family(unseen, 30.0), sep="\n\n")
        print(speed(50_000, 1))
        return
    train = run(TRAIN)
    worst = max(
        ratio(unseen, "queuepool:best", c, family) for c in BREAKEVENS for family in FAMILIES
    )
    requests = 500_000
    text = TEXT.format(
        many=len(UNSEEN),
        unseen=summary(unseen, "policy"),
        train=summary(train, "policy"),
        families="\n\n".join(by_family(unseen, breakeven) for breakeven in BREAKEVENS),
        special=special(),
        requests=requests,
        speed=speed(requests, 3),
        best_worst=worst,
    )
    (HERE / "RESULTS.md").write_text(text)
    plot_ratios(unseen, HERE / "ratios.png")
    plot_loads()


if __name__ == "__main__":
    main()
