"""What is claimed of sizing, each figure with its target."""

from __future__ import annotations

import statistics

from ..measure import Scale, spread
from ..result import Figure, Section
from ..run import Serve
from .study import BREAKEVENS, LOADS, SILENCE, UNSEEN, Outcomes, Study, is_comparable, ratio, study

# Mean over the families, and worst family: charged to the last return, and with silence.
COSTS = {
    5.0: ((1.20, 1.36), (1.22, 1.45)),
    30.0: ((1.16, 1.33), (1.22, 1.45)),
    120.0: ((1.16, 1.36), (1.24, 1.48)),
}
WORST_TRACE = 2.0
SHORT_RAMP = 1.45
RIVALS = ("idle:C/2", "idle:C", "queuepool:best")
MARGINS = {"idle:C/2": 1.03, "idle:C": 1.03, "queuepool:best": 1.05}
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
            "Sizing: the same with silence charged",
            f"After each trace nothing comes for {SILENCE} C, and what idles then is charged.",
            _silence(found.silent),
        ),
        Section(
            "Sizing: `adaptive` beside others, in the family in which they are best",
            "Its cost beside that of LIFO time-outs, and of QueuePool with the size that is best for that "
            "very trace; 1.03: they are better by 3 %. Charged to the last return.",
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
    return [figure for c, (plain, _) in COSTS.items() for figure in _judged(unseen, c, plain)]


def _silence(silent: Outcomes) -> list[Figure]:
    figures = []
    for c, (_, targets) in COSTS.items():
        figures += _judged(silent, c, targets)
        worst = max(it.ratio for family in LOADS for it in silent["adaptive", c, family])
        figures.append(Figure(f"C = {c:g} s, worst single trace", worst, target=WORST_TRACE))
        ramps = ratio(silent, "adaptive", c, "short-ramp")
        figures.append(Figure(f"C = {c:g} s, short ramps that stop", ramps, target=SHORT_RAMP))
    return figures


def _judged(outcomes: Outcomes, c: float, targets: tuple[float, float]) -> list[Figure]:
    ratios = {ratio(outcomes, "adaptive", c, family): family for family in LOADS}
    worst = max(ratios)
    mean = statistics.mean(ratio(outcomes, "adaptive", c, family) for family in LOADS)
    return [
        Figure(f"C = {c:g} s, mean over the families", mean, target=targets[0]),
        Figure(f"C = {c:g} s, worst family: {ratios[worst]}", worst, target=targets[1]),
    ]


def _beside(unseen: Outcomes, rival: str, breakeven: float) -> Figure:
    most, family = max(
        (margin(unseen, rival, breakeven, family), family)
        for family in LOADS
        if is_comparable(unseen, rival, breakeven, family)
    )
    name = f"`adaptive` / `{rival}`, C = {breakeven:g} s: {family}"
    return Figure(name, most, target=MARGINS[rival])


def margin(unseen: Outcomes, rival: str, breakeven: float, family: str) -> float:
    """Cost of `adaptive` beside that of another, on the seeds on which the other was run."""
    theirs = unseen[rival, breakeven, family]
    ours = unseen["adaptive", breakeven, family][: len(theirs)]
    return statistics.mean(it.ratio for it in ours) / statistics.mean(it.ratio for it in theirs)


def _opens(found: Study, load: str, breakeven: float) -> Figure:
    opens = found.opens[load, breakeven]
    target = OPENS["ramp" if "ramp" in load else "grid"][breakeven]
    told = ", ".join(f"{name} {many:,.0f}" for name, many in opens.items())
    name = f"opens / the optimum's, {load}, C = {breakeven:g} s (an hour: {told})"
    return Figure(name, opens["adaptive"] / opens["optimum"], target=target)
