"""What errors of PostgreSQL mean, and what it says unasked, whatever DBAPI they come through."""

from __future__ import annotations

from collections.abc import Callable

from .base import Idle

# Errors of a connect reach psycopg and psycopg2 as text only.
_TOO_MANY_CONNECTIONS = "53300"
_TOO_MANY_TEXTS = (
    "too many clients already",
    "remaining connection slots are reserved",
    "too many connections for role",
    "too many connections for database",
    "no more connections allowed",  # PgBouncer
)

# admin_shutdown, crash_shutdown, cannot_connect_now.
_POSTGRESQL_UNFIT = ("57P01", "57P02", "57P03")
_READ_ONLY_TRANSACTION = "25006"


def postgresql_unsolicited(peeked: bytes, is_encrypted: bool) -> Idle:
    """An idle PostgreSQL connection is sent an error only before it is closed; notices, parameters
    and notifications come at any time (PostgreSQL: Frontend/Backend Protocol, Asynchronous Operations).
    """
    return Idle.DEAD if peeked[:1] == b"E" and not is_encrypted else Idle.SUSPECT


def is_postgresql_full(error: BaseException, sqlstate: object) -> bool:
    """Does PostgreSQL refuse a connection because there are too many?

    Args:
        error: what the connect raised.
        sqlstate: its code, where the driver tells it.
    """
    if sqlstate is not None:
        return sqlstate == _TOO_MANY_CONNECTIONS
    text = str(error)
    return any(words in text for words in _TOO_MANY_TEXTS)


def is_postgresql_unfit(
    sqlstate: object, is_chosen: Callable[[], object], reported: Callable[[str], str | None]
) -> bool:
    """Does PostgreSQL say that it is not the one to write to (any more)?

    A write is refused in a standby, where all is read only by default, and where the user has made his
    transaction so. Since release 14 a server reports the first two to each session.

    Args:
        sqlstate: the error's code.
        is_chosen: has the user told the driver that he wants to read only?
        reported: what the server has reported of a parameter; `None`: nothing.
    """
    if sqlstate != _READ_ONLY_TRANSACTION:
        return sqlstate in _POSTGRESQL_UNFIT
    return not is_chosen() and any(
        reported(name) != "off" for name in ("in_hot_standby", "default_transaction_read_only")
    )
