"""What a check says: a measured value, a verdict, why, and the cure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from ..errors import printable, without_passwords


class Level(enum.Enum):
    """A verdict."""

    OK = "ok"
    UNSEEN = "not seen"
    """It could not be found out."""
    LOOK = "look"
    """It may be what is intended, and costs something."""
    WRONG = "wrong"


@dataclass(frozen=True)
class Judgement:
    """What a check makes of one thing that it looks at. Passwords are left out of its texts.

    Attributes:
        level: the verdict.
        measured: what was seen, with figures.
        why: what follows from it.
        cure: what to do, in one sentence; empty if there is nothing to do.
    """

    level: Level
    measured: str
    why: str = ""
    cure: str = ""

    def __post_init__(self) -> None:
        for name in ("measured", "why", "cure"):
            object.__setattr__(self, name, harmless(getattr(self, name)))


@dataclass(frozen=True)
class Finding:
    """A judgement, with who made it of what.

    Attributes:
        check: the check's name, as `server.max_connections`.
        about: what was looked at, such as a database or a pool; empty: the whole program.
        judgement: what it says.
    """

    check: str
    about: str
    judgement: Judgement

    @property
    def level(self) -> Level:
        """The verdict."""
        return self.judgement.level

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        it = self.judgement
        return {
            "check": self.check,
            "about": self.about,
            "verdict": it.level.value,
            "measured": it.measured,
            "why": it.why,
            "cure": it.cure,
        }


def harmless(text: str) -> str:
    """Text as a terminal may show it: on one line, and without passwords."""
    return printable(without_passwords(" ".join(text.split())))


def ok(measured: str) -> Judgement:
    """As it should be."""
    return Judgement(Level.OK, measured)


def look(measured: str, why: str, cure: str) -> Judgement:
    """Worth a look."""
    return Judgement(Level.LOOK, measured, why, cure)


def wrong(measured: str, why: str, cure: str) -> Judgement:
    """To be put right."""
    return Judgement(Level.WRONG, measured, why, cure)


def unseen(measured: str, cure: str) -> Judgement:
    """Not to be found out, and what would help."""
    return Judgement(Level.UNSEEN, measured, cure=cure)
