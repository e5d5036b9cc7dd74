"""What is claimed of sizing, each figure with its target."""

from __future__ import annotations

import statistics

from ..measure import Scale, spread
from ..result import Figure, Section
from ..run import Serve
from .study import BREAKEVENS, LOADS, UNSEEN, Outcomes, Study, is_comparable, ratio, study

# Mean over the families and worst family: target and stretch.
COSTS = {
    5.0: ((1.27, 1.22), (1.6, 1.5)),
    30.0: ((1.22, 1.18), (1.5, 1.4)),
    120.0: ((1.20, 1.15), (1.45, 1.35)),
}
RIVALS = ("idle:C/2", "queuepool:best")
MARGIN = 1.05
OPENS = {"ramp": {30.0: 650 / 554}, "grid": {5.0: 850 / 658, 30.0: 160 / 125, 120.0: 50 / 37}}
BARE_LOOPS = 20


def measure(scale: Scale, _serve: Serve) -> list[Section]:
    """One section for each question."""
    seeds = len(UNSEEN) if scale.is_full else 1
    return sections(study(seeds, is_full=scale.is_full, rounds=2 if scale.is_full else 1))


def sections(found: Study) -> list[Section]:
    """What a study has found, judged."""
    return [
        Section(
            "Sizing: cost beside that of a pool which knows the future",
            "Cost = opens · C + idle connection-seconds; seeds that nothing was chosen on; through the "
            "real pool, in virtual time.",
            _costs(found.unseen),
        ),
        Section(
            "Sizing: `adaptive` beside others, in the family in which they are best",
            f"Its cost beside that of a LIFO time-out of C/2, and of QueuePool with the size that is best "
            f"for that very trace; {MARGIN}: they are better by 5 %.",
            [_beside(found.unseen, rival, c) for c in BREAKEVENS for rival in RIVALS],
        ),
        Section(
            "Sizing: waits and opens",
            "The longest wait for a connection, in connects, with no cap in the way; and opens.",
            [
                Figure("longest wait, in connects", found.longest_wait, target=2.0001),
                *(_opens(found, load, breakeven) for load, breakeven in found.opens),
            ],
        ),
        Section(
            "The simulator itself",
            "Processor time of a whole simulation with a mean of 5,000 in use, beside a loop that pushes "
            "and pops the same events on a heap; its peak of memory, beside that with a quarter of them.",
            [
                spread("adaptive / bare heap loop", found.speed, BARE_LOOPS),
                Figure("memory, four times the events", found.memory, target=1.1),
            ],
        ),
    ]


def _costs(unseen: Outcomes) -> list[Figure]:
    figures = []
    for breakeven, (mean, worst) in COSTS.items():
        ratios = [ratio(unseen, "adaptive", breakeven, family) for family in LOADS]
        name = f"`adaptive`, C = {breakeven:g} s"
        figures.append(
            Figure(f"{name}, mean over the families", statistics.mean(ratios), None, None, *mean)
        )
        figures.append(Figure(f"{name}, worst family", max(ratios), None, None, *worst))
    return figures


def _beside(unseen: Outcomes, rival: str, breakeven: float) -> Figure:
    margin, family = max(
        (
            ratio(unseen, "adaptive", breakeven, family) / ratio(unseen, rival, breakeven, family),
            family,
        )
        for family in LOADS
        if is_comparable(unseen, rival, breakeven, family)
    )
    return Figure(f"`adaptive` / `{rival}`, C = {breakeven:g} s: {family}", margin, target=MARGIN)


def _opens(found: Study, load: str, breakeven: float) -> Figure:
    opens = found.opens[load, breakeven]
    target = OPENS["ramp" if "ramp" in load else "grid"][breakeven]
    told = ", ".join(f"{name} {many:,.0f}" for name, many in opens.items())
    name = f"opens / the optimum's, {load}, C = {breakeven:g} s (an hour: {told})"
    return Figure(name, opens["adaptive"] / opens["optimum"], target=target)
