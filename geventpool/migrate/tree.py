"""Which files of a source tree have to do with pools, and what is proposed for each."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..doctor.sources.gunicorn import USUAL
from ..errors import ConfigError
from .django import propose_django
from .engines import propose_create_engine, propose_flask
from .gunicorn import propose_gunicorn
from .plan import Plan

_CONCERNS = re.compile(
    r"create_engine|create_async_engine|engine_from_config|SQLALCHEMY_|DATABASES|worker_class"
    r"|[\"']ENGINE[\"']"
)
_LEFT_OUT: Final = {
    *(
        "__pycache__",
        "build",
        "dist",
        "env",
        "node_modules",
        "site-packages",
        "test",
        "tests",
        "venv",
    )
}
_LARGEST = 2_000_000


def plans_in(path: Path) -> Iterator[Plan]:
    """The plans for a file, or for all Python files of a folder that have to do with pools.

    Raises:
        ConfigError: there is no such path.
    """
    if not path.exists():
        raise ConfigError("path", str(path), "there is no such file or folder")
    for file in [path] if path.is_file() else _files(path):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if path.is_file() or _CONCERNS.search(text) or file.name == USUAL:
            plan = plan_for(text, str(file))
            if plan is not None:
                yield plan


def plan_for(text: str, name: str) -> Plan | None:
    """The plan for a source; `None`: nothing in it has to do with pools, or it is no Python."""
    try:
        plan = Plan(name, text)
    except (SyntaxError, ValueError):
        return None
    propose_create_engine(plan)
    propose_flask(plan)
    propose_django(plan)
    if os.path.basename(name) == USUAL or _sets_worker_class(plan):
        propose_gunicorn(plan)
    if not plan.is_changed and not plan.reasons:
        return None
    plan.reasons = sorted(set(plan.reasons))
    ast.parse(plan.after)  # what is proposed has to be Python
    return plan


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(
            one for one in folders if not one.startswith(".") and one not in _LEFT_OUT
        )
        for name in sorted(names):
            file = Path(where, name)
            if name.endswith(".py") and file.is_file() and file.stat().st_size < _LARGEST:
                yield file


def _sets_worker_class(plan: Plan) -> bool:
    return any(
        isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "worker_class"
        for one in plan.tree.body
    )
