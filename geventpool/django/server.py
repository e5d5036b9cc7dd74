"""What a database server says of its connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServerView:
    """One look at a server.

    Attributes:
        max_connections: how many it allows.
        connections: to all databases, as far as the user may see them.
        ours: to this alias's database; this one is not counted.
        active: of those: at work.
        idle: waiting for a statement, outside a transaction.
        in_transaction: waiting for a statement inside of one; MySQL does not tell, and counts it as idle.
    """

    max_connections: int
    connections: int
    ours: int
    active: int
    idle: int
    in_transaction: int


def look(wrapper: Any) -> ServerView:
    """Asks the server. Switches greenlets.

    Args:
        wrapper: `connections[alias]`.

    Raises:
        DatabaseError: the server cannot be asked.
    """
    ask = _ask_mysql if wrapper.vendor == "mysql" else _ask_postgresql
    with wrapper.temporary_connection() as cursor:
        return ask(cursor)


def _ask_mysql(cursor: Any) -> ServerView:
    cursor.execute("SELECT @@max_connections")
    (most,) = cursor.fetchone()
    cursor.execute(
        "SELECT COUNT(*), COALESCE(SUM(db = DATABASE()), 0), "
        "COALESCE(SUM(db = DATABASE() AND command = 'Sleep'), 0) "
        "FROM information_schema.processlist WHERE id <> CONNECTION_ID()"
    )
    connections, ours, idle = cursor.fetchone()
    return ServerView(most, connections, int(ours), int(ours - idle), int(idle), 0)


def _ask_postgresql(cursor: Any) -> ServerView:
    cursor.execute("SELECT current_setting('max_connections')")
    (most,) = cursor.fetchone()
    cursor.execute(
        "SELECT count(*), count(*) FILTER (WHERE here), count(*) FILTER (WHERE here AND state = "
        "'active'), count(*) FILTER (WHERE here AND state = 'idle'), count(*) FILTER (WHERE here AND "
        "state LIKE 'idle in transaction%') FROM (SELECT state, datname = current_database() AS here "
        "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL) AS backends"
    )
    connections, ours, active, idle, in_transaction = cursor.fetchone()
    return ServerView(int(most), connections, ours, active, idle, in_transaction)
