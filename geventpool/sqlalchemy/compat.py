"""Which versions of SQLAlchemy will do, and all in which 1.4 differs from 2.x for us."""

from __future__ import annotations

import re
from typing import Any

OLDEST = "1.4.43"  # has all events that its last release has
_CURE = "pip install 'geventpool[sqlalchemy]'"


def refusal(version: str) -> str | None:
    """Why a version of SQLAlchemy will not do; `None`: it will."""
    given, oldest = (tuple(map(int, re.findall(r"\d+", one)[:3])) for one in (version, OLDEST))
    if given >= oldest:
        return None
    return f"geventpool needs SQLAlchemy {OLDEST} or newer, this is {version}: {_CURE}"


try:
    import sqlalchemy.pool
except ModuleNotFoundError as missing:
    raise ImportError(f"this part of geventpool needs SQLAlchemy: {_CURE}") from missing
if (_refusal := refusal(sqlalchemy.__version__)) is not None:
    raise ImportError(_refusal)

_ResetState: Any = getattr(sqlalchemy.pool, "PoolResetState", None)


def told_of_reset(fairy: Any, **details: bool) -> tuple[Any, ...]:
    """What the listeners of `reset` are told: 1.4 knows no details.

    Args:
        fairy: what is about to be reset.
        **details: what SQLAlchemy has told its `_reset`.
    """
    if _ResetState is None:
        return fairy, fairy._connection_record
    return fairy.dbapi_connection, fairy._connection_record, _ResetState(**details)


def ping(dialect: Any, connection: Any) -> bool:
    """One round trip, of whose errors listeners are told where there is such an event. May switch."""
    ask = getattr(dialect, "_do_ping_w_event", None) or dialect.do_ping
    return bool(ask(connection))
