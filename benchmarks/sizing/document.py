"""RESULTS.md and its plots."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geventpool.simulator import Setting, make_trace, simulate
from geventpool.simulator.plot import draw

from ..result import markdown_table
from .figures import COSTS, RIVALS, margin, sections
from .study import (
    BEST,
    BREAKEVENS,
    CHOSEN,
    LOADS,
    NO_CAP,
    OTHERS,
    OURS,
    PARETO_REQUESTS,
    REQUESTS,
    SEEN,
    UNSEEN,
    Outcomes,
    Study,
    is_comparable,
    ratio,
)

HERE = Path(__file__).parent
Pareto = Mapping[tuple[float, str], tuple[float, float]]

TEXT = """# Results: what sizing costs

`python -m benchmarks.sizing` wrote this file; [docs/simulator.md](../../docs/simulator.md) says what is
simulated and how. Cost = opens · C + idle connection-seconds, as a multiple of the least possible cost;
{many} seeds of each family for ours, the first of them for others, and no more than {requests:,} requests
of each trace. Ours run through the real pool, with connects of 20 ms; nobody reaches a cap.
`demo-day` is no family but one recorded trace: the demo's application on SQLite under its own load.
All but the simulator's own speed is the same on each machine. All figures are of one run.

{judged}

`queuepool:best` has been told the future: of all sizes it is the one that is best for this very trace, its
end included. Where it is better than `adaptive`, most of the difference is made in the last minute: a load
that has been steady, or has only grown, breaks off and drains, and who knows that it was the end closes
what comes back, while every other has to find out. On other loads a fixed size costs up to
{best_worst:.0f} times the optimum.

## Seeds that nothing was chosen on

The policy's constants were chosen on seeds 0 to {last_seen}. Mean over the families / worst family,
charged to the last return:

{unseen}

{hindsight}

The same with 10 C of silence charged, and the worst single trace:

{silent}

![Cost by family](ratios.png)

## What else the constants could be

Mean over the families / worst family, silence charged, with one constant of the policy changed: seed 0,
one of those that they were chosen on, {pareto_requests:,} requests of each trace at most. The star is the
policy as it is, the grey corner the target. With instant connects a time-out
of C costs 2 at most; what is above that comes of connects that take time, in traces so short.
[docs/sizing.md](../../docs/sizing.md#how-good-is-it) says what the trade is.

![Mean against worst](pareto.png)

{pareto}

## By family, seeds that nothing was chosen on

Bold: better than `adaptive` by more than 5 % on the same seeds. \\*: not comparable, because one
request in a hundred waits for more than 0.1 s; who lets others wait needs few connections, and can cost
less than the optimum, which serves everybody at once.

{families}

![bursts](bursts.png)
![ramp](ramp.png)
![stop](stop.png)
![short ramp](short-ramp.png)
"""

HINDSIGHT = """Who is told in advance which of the seven time-outs is best for each level of the trace,
and never has to learn, pays {} (C = 5, 30, 120 s; instant connects).
Who learns can hardly do better."""


def write(found: Study) -> None:
    """Writes all files."""
    text = TEXT.format(
        many=len(UNSEEN),
        judged="\n\n".join(section.markdown() for section in sections(found)),
        requests=REQUESTS,
        pareto_requests=PARETO_REQUESTS,
        unseen=summary(found.unseen, (*OURS, BEST, *OTHERS[:4])),
        silent=summary(found.silent, OURS, is_worst_told=True),
        last_seen=SEEN[-1],
        hindsight=HINDSIGHT.format(
            ", ".join(f"{mean:.3f} / {worst:.2f}" for mean, worst in found.hindsight.values())
        ),
        pareto=pareto_table(found.pareto),
        families="\n\n".join(by_family(found.unseen, breakeven) for breakeven in BREAKEVENS),
        best_worst=max(
            ratio(found.unseen, "queuepool:best", c, family) for c in BREAKEVENS for family in LOADS
        ),
    )
    (HERE / "RESULTS.md").write_text(text)
    plot_ratios(found.unseen, HERE / "ratios.png")
    plot_pareto(found.pareto, HERE / "pareto.png")
    plot_loads()


def summary(outcomes: Outcomes, policies: Sequence[str], *, is_worst_told: bool = False) -> str:
    """Mean over the families and worst family, for each policy and break-even."""
    rows = []
    for policy in policies:
        cells = []
        for breakeven in BREAKEVENS:
            ratios = [ratio(outcomes, policy, breakeven, family) for family in LOADS]
            cell = f"{statistics.mean(ratios):.3f} / {max(ratios):.2f}"
            if is_worst_told:
                traces = [
                    it.ratio for family in LOADS for it in outcomes[policy, breakeven, family]
                ]
                cell += f" / {max(traces):.2f}"
            cells.append(cell)
        rows.append([f"`{policy}`", *cells])
    return markdown_table(["policy", *(f"C = {c:g} s" for c in BREAKEVENS)], rows)


def by_family(outcomes: Outcomes, breakeven: float) -> str:
    """Each family, ours beside the others."""
    shown = ("adaptive", *RIVALS, *OTHERS)
    rows = []
    for family in LOADS:
        cells = []
        for policy in shown:
            its = ratio(outcomes, policy, breakeven, family)
            cell = f"{its:.2f}"
            if not is_comparable(outcomes, policy, breakeven, family):
                cell += "\\*"
            elif margin(outcomes, policy, breakeven, family) > 1.05:
                cell = f"**{cell}**"
            cells.append(cell)
        longest = max(it.max_wait for it in outcomes["adaptive", breakeven, family])
        rows.append([family, *cells, f"{longest * 1000:.0f} ms"])
    names = (f"`{name}`" for name in shown)
    return markdown_table(
        [f"C = {breakeven:g} s", *names, "longest wait of `adaptive`, cold"], rows
    )


def plot_ratios(outcomes: Outcomes, path: Path) -> None:
    """Each family's ratio, for each break-even."""
    shown: Mapping[str, str] = {
        "adaptive": "o",
        "idle:C/2": "s",
        "queuepool:best": "x",
        "idle:600": "^",
        "saautopool": "+",
    }
    figure = Figure(figsize=(10, 9), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(BREAKEVENS), 1, sharex=True)
    places = range(len(LOADS))
    for axis, breakeven in zip(rows, BREAKEVENS, strict=True):
        for policy, marker in shown.items():
            ratios = [ratio(outcomes, policy, breakeven, family) for family in LOADS]
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
    rows[-1].set_xticks(list(places), list(LOADS), rotation=30, ha="right")
    figure.suptitle("Cost as a multiple of the optimum, unseen seeds (log scale)")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def pareto_table(pareto: Pareto) -> str:
    """Mean and worst, for each change and break-even."""
    changes = list(dict.fromkeys(change for _, change in pareto))
    return markdown_table(
        ["policy", *(f"C = {c:g} s" for c in BREAKEVENS)],
        [
            [change, *("{:.3f} / {:.2f}".format(*pareto[c, change]) for c in BREAKEVENS)]
            for change in changes
        ],
    )


def plot_pareto(pareto: Pareto, path: Path) -> None:
    """Mean against worst."""
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, breakeven in zip(figure.subplots(1, len(BREAKEVENS)), BREAKEVENS, strict=True):
        mean, worst = COSTS[breakeven][1]
        axis.fill_between([1.1, mean], 1.1, worst, color="lightgrey", label="target")
        points = [(name, at) for (c, name), at in pareto.items() if c == breakeven]
        for place, (name, at) in enumerate(points):
            marker = (
                "*" if name == CHOSEN else "s" if name.startswith("idle") else "osD^v<>"[place % 7]
            )
            axis.plot(*at, marker, label=name, markersize=15 if name == CHOSEN else 7, alpha=0.8)
        axis.set_xlim(min(at[0] for _, at in points) - 0.06, None)
        axis.set_ylim(min(at[1] for _, at in points) - 0.1, None)
        axis.set_title(f"C = {breakeven:g} s", loc="left", fontsize=10)
        axis.set_xlabel("mean over the families")
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("worst family")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    figure.suptitle("Cost as a multiple of the optimum, silence charged, one constant changed")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def plot_loads() -> None:
    """What is held, on three loads."""
    for family in ("bursts", "ramp", "stop", "short-ramp"):
        trace = make_trace(family, UNSEEN[0])
        policies: Sequence[str] = (
            "adaptive",
            "idle:15",
            "queuepool:best",
            "saautopool",
            "psycopg_pool",
        )
        setting = Setting(max_size=NO_CAP, horizon=trace.last_return + 120.0)
        outcomes = [simulate(trace, policy, setting) for policy in policies]
        draw(trace, outcomes, HERE / f"{family}.png")
