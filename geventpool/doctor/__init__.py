"""What is wrong with a system, and the cure: `geventpool doctor`.

A check (`checks/`) is a function that judges one thing of a `Case`; `sources/` make a case from a URL,
an application of Flask's or SQLAlchemy's, Django's settings, gunicorn's, and what running pools publish.
The command line, `flask geventpool`, `manage.py geventpool` and Django's system checks all end here.
"""

from __future__ import annotations

from . import checks as checks
from .case import Case, Deployment, Process, Target
from .finding import Finding, Judgement, Level
from .registry import CHECKS, examine

__all__ = [
    "CHECKS",
    "Case",
    "Deployment",
    "Finding",
    "Judgement",
    "Level",
    "Process",
    "Target",
    "examine",
]
