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
from .figures import MARGIN, RIVALS, sections
from .study import (
    BREAKEVENS,
    LOADS,
    OTHERS,
    OURS,
    UNSEEN,
    Outcomes,
    Study,
    is_comparable,
    ratio,
)

HERE = Path(__file__).parent

TEXT = """# Results: what sizing costs

`python -m benchmarks.sizing` wrote this file; [docs/simulator.md](../../docs/simulator.md) says what is
simulated and how. Cost = opens · C + idle connection-seconds, as a multiple of the least possible cost;
{many} seeds of each family. Ours run through the real pool, with connects of 20 ms; nobody reaches a cap.
All but the simulator's own speed is the same on each machine.

{judged}

`queuepool:best` has been told the future: of all sizes it is the one that is best for this very trace, its
end included. Where it is better than `adaptive`, most of the difference is made in the last minute: a load
that has been steady, or has only grown, breaks off and drains, and who knows that it was the end closes
what comes back, while every other has to find out. On other loads a fixed size costs up to
{best_worst:.0f} times the optimum.

## Seeds that nothing was chosen on

Mean over the families / worst family.

{unseen}

![Cost by family](ratios.png)

## Seeds that the constants were chosen on

{train}

## By family, seeds that nothing was chosen on

Bold: better than `adaptive` by more than 5 %. \\*: not comparable, because one request in a hundred waits
for more than 0.1 s; who lets others wait needs few connections, and can cost less than the optimum, which
serves everybody at once.

{families}

![bursts](bursts.png)
![ramp](ramp.png)
![stop](stop.png)
"""


def write(found: Study) -> None:
    """Writes all files."""
    text = TEXT.format(
        many=len(UNSEEN),
        judged="\n\n".join(section.markdown() for section in sections(found)),
        unseen=summary(found.unseen, (*OURS, *OTHERS[:4])),
        train=summary(found.train, ("adaptive", "idle:C/2")),
        families="\n\n".join(by_family(found.unseen, breakeven) for breakeven in BREAKEVENS),
        best_worst=max(
            ratio(found.unseen, "queuepool:best", c, family) for c in BREAKEVENS for family in LOADS
        ),
    )
    (HERE / "RESULTS.md").write_text(text)
    plot_ratios(found.unseen, HERE / "ratios.png")
    plot_loads()


def summary(outcomes: Outcomes, policies: Sequence[str]) -> str:
    """Mean over the families and worst family, for each policy and break-even."""
    rows = []
    for policy in policies:
        cells = []
        for breakeven in BREAKEVENS:
            ratios = [ratio(outcomes, policy, breakeven, family) for family in LOADS]
            cells.append(f"{statistics.mean(ratios):.3f} / {max(ratios):.2f}")
        rows.append([f"`{policy}`", *cells])
    return markdown_table(["policy", *(f"C = {c:g} s" for c in BREAKEVENS)], rows)


def by_family(outcomes: Outcomes, breakeven: float) -> str:
    """Each family, ours beside the others."""
    shown = ("adaptive", *RIVALS, *OTHERS)
    rows = []
    for family in LOADS:
        mine = ratio(outcomes, "adaptive", breakeven, family)
        cells = []
        for policy in shown:
            its = ratio(outcomes, policy, breakeven, family)
            cell = f"{its:.2f}"
            if not is_comparable(outcomes, policy, breakeven, family):
                cell += "\\*"
            elif mine > MARGIN * its:
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
