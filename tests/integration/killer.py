"""Has a server end connections, from a process of its own, while this one's hub has no turn.

The test waits for it in the blocking way of the system, as a greenlet that computes keeps the hub waiting.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from typing import Any

from gevent import subprocess
from gevent.monkey import get_original

# gevent's own puts it off to the next turn of the loop, which may wait for what that leads to.
_close = get_original("os", "close")

MYSQL_LIST = "select id from information_schema.processlist"
POSTGRESQL_LIST = "select pid from pg_stat_activity where backend_type = 'client backend'"


class Killer:
    """Ends connections of a server's.

    Args:
        url: the database's.
        is_mysql: which of the two kinds of servers.
    """

    def __init__(self, url: str, is_mysql: bool) -> None:
        mine, its = os.pipe(), os.pipe()
        self._told, self._tells = its[0], mine[1]
        self._process = subprocess.Popen(
            [sys.executable, __file__, url, str(int(is_mysql)), str(mine[0]), str(its[1])],
            pass_fds=[mine[0], its[1]],
        )
        _close(mine[0])
        _close(its[1])
        assert os.read(self._told, 8), "it could not connect"

    def __enter__(self) -> Killer:
        return self

    def __exit__(self, *_: object) -> None:
        _close(self._tells)
        self._process.wait()
        _close(self._told)

    def kill(self, number: int) -> float:
        """Ends a connection, and blocks the hub until it is gone: when. Never switches."""
        os.write(self._tells, struct.pack("q", number))
        return float(struct.unpack("d", os.read(self._told, 8))[0])


def _connect(url: str, is_mysql: bool) -> Any:
    from sqlalchemy.engine import make_url

    where: Any = make_url(url)
    arguments = {"host": where.host, "port": where.port, "user": where.username}
    arguments["password"] = where.password
    if is_mysql:
        import pymysql

        return pymysql.connect(**arguments, database=where.database, autocommit=True)
    import psycopg

    return psycopg.connect(**arguments, dbname=where.database, autocommit=True)


def _main(url: str, kind: str, listens: str, answers: str) -> None:
    is_mysql = bool(int(kind))
    connection = _connect(url, is_mysql)
    kill = "kill {}" if is_mysql else "select pg_terminate_backend({})"
    cursor = connection.cursor()
    os.write(int(answers), b"ready")
    while told := os.read(int(listens), 8):
        number = struct.unpack("q", told)[0]
        cursor.execute(kill.format(number))
        while True:
            cursor.execute(MYSQL_LIST if is_mysql else POSTGRESQL_LIST)
            if (number,) not in [tuple(row) for row in cursor.fetchall()]:
                break
        os.write(int(answers), struct.pack("d", time.monotonic()))


if __name__ == "__main__":
    _main(*sys.argv[1:])
