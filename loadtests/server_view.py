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

_NAME = "load test, watching"

# Whoever watches is not counted: on MySQL because it is in another database, on PostgreSQL by its name.
_CONNECTIONS = {
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = :database",
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = :database"
    f" AND backend_type = 'client backend' AND application_name <> '{_NAME}'",
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
        place = make_url(url)
        self._database = place.database
        self._kind = place.get_backend_name().replace("mariadb", "mysql")
        if self._kind not in _CONNECTIONS:
            raise ValueError(f"{self._kind}: only mysql, mariadb and postgresql are understood")
        if self._kind == "mysql":
            place = place.set(database="information_schema")
        else:
            place = place.update_query_dict({"application_name": _NAME})
        self._engine = create_engine(place, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._connection: Connection | None = None

    def __enter__(self) -> ServerView:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def connections(self) -> set[int]:
        """The server's numbers of all other connections to this database."""
        return set(self._ask(_CONNECTIONS[self._kind]).scalars())

    def idle(self) -> set[int]:
        """The numbers of the idle connections."""
        return set(self._ask(_CONNECTIONS[self._kind] + _IDLE[self._kind]).scalars())

    def kill_idle(self) -> int:
        """End all idle connections, as an impatient server does; how many.

        One that the pool has lent, and on which nothing has arrived yet, is idle to the server, too.
        """
        numbers = self.idle()
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
        row = self._ask(f"SELECT {columns} FROM pg_stat_database WHERE datname = :database").one()
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
            given = {"database": self._database} if ":database" in query else {}
            return self._connection.execute(text(query), given)
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
        with ServerView(self._url) as view:
            while not self._stop.wait(INTERVAL):
                with contextlib.suppress(SQLAlchemyError):  # it is down, or about to be
                    count = len(view.connections())
                    self.samples.append((time.monotonic(), count))
