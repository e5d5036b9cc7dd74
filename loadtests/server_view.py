"""What the database server itself says of the load, asked over a connection of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

INTERVAL = 0.2

_CONNECTIONS = {
    "mysql": "SELECT id FROM information_schema.processlist"
    " WHERE db = database() AND id <> connection_id()",
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
}
_IDLE = {
    "mysql": " AND command = 'Sleep'",
    "postgresql": " AND state = 'idle'",
}
_KILL = {"mysql": "KILL {}", "postgresql": "SELECT pg_terminate_backend({})"}
_MYSQL_COUNTERS = {
    "connects": "Connections",
    "aborted connects": "Aborted_connects",
    "aborted clients": "Aborted_clients",
    "commits": "Com_commit",
    "rollbacks": "Com_rollback",
    "selects": "Com_select",
    "pings": "Com_admin_commands",
}
_POSTGRESQL_COUNTERS = {
    "connects": "sessions",
    "aborted connects": "sessions_fatal",
    "aborted clients": "sessions_abandoned",
    "commits": "xact_commit",
    "rollbacks": "xact_rollback",
}


class ServerView:
    """A connection that asks.

    Args:
        url: SQLAlchemy's, of the database under load.
    """

    def __init__(self, url: str) -> None:
        # By the blocking client where that is psycopg2: this process has no hub.
        self._engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._kind = make_url(url).get_backend_name().replace("mariadb", "mysql")
        if self._kind not in _CONNECTIONS:
            raise ValueError(f"{self._kind}: only mysql, mariadb and postgresql are understood")
        self._connection: Connection | None = None

    def connections(self) -> set[int]:
        """The server's numbers of all other connections to this database."""
        return set(self._ask(_CONNECTIONS[self._kind]).scalars())

    def kill_idle(self) -> int:
        """End all idle connections, as an impatient server does; how many."""
        numbers = set(self._ask(_CONNECTIONS[self._kind] + _IDLE[self._kind]).scalars())
        for number in numbers:
            with contextlib.suppress(SQLAlchemyError):  # it has just gone by itself
                self._ask(_KILL[self._kind].format(number))
        return len(numbers)

    def counters(self) -> dict[str, int]:
        """Counts since the server's start, by what they count."""
        if self._kind == "mysql":
            rows = self._ask("SHOW GLOBAL STATUS").all()
            found = dict(rows)
            return {name: int(found[key]) for name, key in _MYSQL_COUNTERS.items()}
        columns = ", ".join(_POSTGRESQL_COUNTERS.values())
        row = self._ask(
            f"SELECT {columns} FROM pg_stat_database WHERE datname = current_database()"
        ).one()
        return dict(zip(_POSTGRESQL_COUNTERS, map(int, row), strict=True))

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, query: str) -> Any:
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            return self._connection.execute(text(query))
        except SQLAlchemyError:
            with contextlib.suppress(SQLAlchemyError):
                self.close()
            raise


class Watch:
    """Asks five times a second, in a thread of its own, until it is told to stop.

    Attributes:
        samples: `[monotonic seconds, connections]`; while the server does not answer there are none.
    """

    def __init__(self, url: str) -> None:
        self.samples: list[tuple[float, int]] = []
        self._url = url
        self._stop = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[Watch]:
        """Ask until the end of the block."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        view = ServerView(self._url)
        while not self._stop.wait(INTERVAL):
            with contextlib.suppress(SQLAlchemyError):  # it is down, or about to be
                count = len(view.connections())
                self.samples.append((time.monotonic(), count))
        view.close()
