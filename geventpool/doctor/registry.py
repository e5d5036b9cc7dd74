"""The checks, by name, and how they are run. A check is a function that judges one thing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from .case import Case
from .finding import Finding, Judgement, Level, unseen

Subjects = Callable[[Case], Iterable[tuple[str, Any]]]
"""What a check looks at, one after the other, each with its name."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: its group and its own, as `server.max_connections`.
        symptoms: for which it is among the first to be asked; of `symptoms.SYMPTOMS`.
        subjects: what it looks at.
        judge: of the case and one subject; `None`: it does not apply.
    """

    name: str
    symptoms: tuple[str, ...]
    subjects: Subjects
    judge: Callable[[Case, Any], Judgement | None]

    def run(self, case: Case) -> list[Finding]:
        """Judges all its subjects. May switch greenlets."""
        found = []
        for about, subject in self.subjects(case):
            try:
                said = self.judge(case, subject)
            except Exception as error:  # a server may answer anything; the other checks go on
                told = f"the check has failed: {type(error).__name__}: {case.hide(error)}"
                said = unseen(told, "report it, please")
            if said is not None:
                found.append(Finding(self.name, about, said))
        return found


CHECKS: Final[dict[str, Check]] = {}
"""All of them, in the order in which they are asked."""


def once(case: Case) -> Iterable[tuple[str, None]]:
    """For checks of the program as a whole."""
    return [("", None)]


def each_target(case: Case) -> Iterable[tuple[str, Any]]:
    """For checks of what is configured of each database."""
    return [(target.name, target) for target in case.targets]


def each_server(case: Case) -> Iterable[tuple[str, Any]]:
    """For checks of what was measured of each database; those that cannot be reached are left out."""
    measured = ((target.name, case.look_at(target)) for target in case.targets)
    return [(name, server) for name, server in measured if server.error is None]


def each_pool(case: Case) -> Iterable[tuple[str, Any]]:
    """For checks of the pools that run, the sums of all processes."""
    return case.pools()


def check(
    name: str, *symptoms: str, of: Subjects
) -> Callable[[Callable[[Case, Any], Judgement | None]], Callable[[Case, Any], Judgement | None]]:
    """Adds a function to the checks.

    Args:
        name: see `Check`.
        *symptoms: see `Check`.
        of: what it looks at.
    """

    def add(judge: Callable[[Case, Any], Judgement | None]) -> Any:
        if name in CHECKS:
            raise AssertionError(f"bug: two checks are called {name}")
        CHECKS[name] = Check(name, symptoms, of, judge)
        return judge

    return add


_FAULTS: Final = (Level.WRONG, Level.LOOK)
_WORST_FIRST: Final = (Level.WRONG, Level.LOOK, Level.UNSEEN, Level.OK)


def examine(
    case: Case, names: Collection[str] | None = None, symptom: str | None = None
) -> list[Finding]:
    """Runs checks. May switch greenlets.

    Args:
        case: what is looked at.
        names: of the checks; `None`: all.
        symptom: a name of `symptoms.SYMPTOMS`, whose checks come first.

    Returns:
        Faults first, the worst first; of a symptom those of its checks before the others.
    """
    chosen = [one for one in CHECKS.values() if names is None or one.name in names]
    chosen.sort(key=lambda one: symptom is not None and symptom not in one.symptoms)
    found = [(one, finding) for one in chosen for finding in one.run(case)]

    def place(pair: tuple[Check, Finding]) -> tuple[bool, bool, int]:
        level = pair[1].level
        is_beside = symptom is not None and symptom not in pair[0].symptoms
        return level not in _FAULTS, is_beside, _WORST_FIRST.index(level)

    return [finding for _, finding in sorted(found, key=place)]
