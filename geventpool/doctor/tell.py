"""Findings as text for people, as JSON, and as an exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from .finding import Finding, Level

_STYLES: Final = {
    Level.WRONG: "bold red",
    Level.LOOK: "yellow",
    Level.UNSEEN: "blue",
    Level.OK: "green",
}
_INDENT = " " * 10


def exit_code(findings: Sequence[Finding]) -> int:
    """0: nothing is to be done; 1: something is worth a look; 2: something is wrong."""
    levels = {one.level for one in findings}
    return 2 if Level.WRONG in levels else 1 if Level.LOOK in levels else 0


def as_json(findings: Sequence[Finding]) -> str:
    """For programs: the verdict of all, and each finding."""
    verdict = ("ok", "look", "wrong")[exit_code(findings)]
    return json.dumps(
        {"verdict": verdict, "findings": [one.to_json() for one in findings]}, indent=1
    )


def tell(console: Console, findings: Sequence[Finding]) -> None:
    """What is wrong first, with why and the cure; what is right in a line each."""
    for one in findings:
        _tell_one(console, one)
    many = {level: sum(one.level is level for one in findings) for level in Level}
    console.print()
    if exit_code(findings):
        console.print(f"{many[Level.WRONG]} wrong, {many[Level.LOOK]} to look at, ", end="")
    else:
        console.print("nothing is wrong: ", end="")
    console.print(f"{many[Level.OK]} ok, {many[Level.UNSEEN]} not seen")


def _tell_one(console: Console, finding: Finding) -> None:
    it = finding.judgement
    about = f"{finding.about}: " if finding.about else ""
    line = Text(f"{it.level.value:<10}", style=_STYLES[it.level])
    line.append(f"{finding.check}  ", style="bold")
    line.append(f"{about}{it.measured}", style="default")
    console.print(line, soft_wrap=True)
    for name, text in (("why", it.why), ("cure", it.cure)):
        if text:
            console.print(Text(f"{_INDENT}{name}: {text}"), soft_wrap=True)
