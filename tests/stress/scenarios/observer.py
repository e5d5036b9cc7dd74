"""A connection beside the pool, that asks the server what it sees."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from sqlalchemy.engine import make_url

_MYSQL = {
    "others": "select id from information_schema.processlist"
    " where user not in ('event_scheduler', 'system user') and id <> connection_id()",
    "active": "select count(*) from information_schema.processlist where id <> connection_id()"
    " and command = 'Query' and info like '%sleep(%'",
    "transactions": "select count(*) from information_schema.innodb_trx",
    "kill": "kill {}",
}
_POSTGRESQL = {
    "others": "select pid from pg_stat_activity where backend_type = 'client backend'"
    " and pid <> pg_backend_pid()",
    "active": "select count(*) from pg_stat_activity where state = 'active'"
    " and query like '%sleep(%' and pid <> pg_backend_pid()",
    "transactions": "select count(*) from pg_stat_activity where pid <> pg_backend_pid()"
    " and state like 'idle in%'",
    "kill": "select pg_terminate_backend({})",
}


class Observer:
    """Asks a server, in a connection of its own.

    Args:
        url: SQLAlchemy's, of the pool that is observed.
    """

    def __init__(self, url: str) -> None:
        place = make_url(url)
        self._is_mysql = place.drivername.startswith("mysql")
        self._queries = _MYSQL if self._is_mysql else _POSTGRESQL
        arguments: dict[str, Any] = {
            "host": place.host,
            "port": place.port,
            "user": place.username,
            "password": place.password,
        }
        if self._is_mysql:
            import pymysql

            self._connection: Any = pymysql.connect(
                database=place.database, autocommit=True, **arguments
            )
        else:
            import psycopg

            self._connection = psycopg.connect(dbname=place.database, autocommit=True, **arguments)

    def ask(self, query: str) -> list[Any]:
        """The first column of all rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return [row[0] for row in cursor.fetchall()]

    def do(self, statement: str) -> None:
        """Something without an answer."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement)

    def others(self) -> set[int]:
        """The server's numbers of all other connections of clients."""
        return set(self.ask(self._queries["others"]))

    def connections(self) -> int:
        """How many others there are."""
        return len(self.others())

    def active(self) -> int:
        """Connections in which a sleep is being executed."""
        return int(self.ask(self._queries["active"])[0])

    def transactions(self) -> int:
        """Transactions that nobody is working at."""
        return int(self.ask(self._queries["transactions"])[0])

    def clear(self) -> None:
        """Ends what others may have left connected."""
        for _ in range(200):
            left = self.others()
            if not left:
                return
            for number in left:
                with contextlib.suppress(Exception):  # it may just have gone by itself
                    self.do(self._queries["kill"].format(number))
            time.sleep(0.02)
        raise RuntimeError(f"connections that do not go: {left}")

    def close(self) -> None:
        self._connection.close()
