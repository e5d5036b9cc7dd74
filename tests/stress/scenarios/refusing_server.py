"""A server that has room for fewer connections than the pool wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from tools.servers import MariaDB, PostgreSQL

from . import books
from .base import Context, Row, Scenario

ROOM, MAX_SIZE, GREENLETS = 8, 20, 40


def run(context: Context) -> None:
    is_mysql = "mysql" in context.url
    kind: Callable[..., Any] = MariaDB if is_mysql else PostgreSQL
    with kind(max_connections=ROOM) as server:
        pool = context.make_pool(MAX_SIZE, url=server.url(context.row.driver))
        until = books.now() + context.pick(6, 3, 2)
        query = f"select {'sleep' if is_mysql else 'pg_sleep'}(0.02)"
        served = 0
        failed: dict[str, int] = {}

        def work() -> None:
            nonlocal served
            while books.now() < until:
                try:
                    with pool.connection() as connection:
                        connection.query(query)
                    served += 1
                except Exception as error:
                    told = f"{type(error).__name__}: {error}".splitlines()[0][:80]
                    failed[told] = failed.get(told, 0) + 1
                gevent.sleep(0.001)

        workers = [gevent.spawn(work) for _ in range(GREENLETS)]
        gevent.joinall(workers, timeout=context.pick(45, 42))
        hung = sum(not worker.dead for worker in workers)
        failures = sum(failed.values())
        context.figures.update(
            {
                "served": served,
                "failed": failures,
                "attempts to connect": pool.connects.begun,
                "connections": pool.connects.opened,
            }
        )
        told = max(failed, key=lambda name: failed[name]) if failed else ""
        context.expect(not failures, f"{failures} requests failed ({told})")
        context.expect(served > 0, "nothing was served")
        context.expect(not hung, f"hung: {hung} greenlets never ended")
        pool.close()


SCENARIO = Scenario(
    name="refusing_server",
    title="Refusing server",
    about=(
        f"A server that allows {ROOM} connections, a pool of {MAX_SIZE}, {GREENLETS} greenlets: whoever "
        "cannot get a new connection gets one that is returned. No request fails."
    ),
    run=run,
    rows=(Row("psycopg 3", "psycopg"), Row("PyMySQL", "pymysql")),
    limit=90,
    quick_limit=80,
)
