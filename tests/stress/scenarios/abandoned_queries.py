"""Queries that their callers have given up."""

from __future__ import annotations

import gevent

from . import books
from .base import Context, Row, Scenario

MAX_SIZE, CALLERS = 5, 40
PATIENCE = 0.2


def run(context: Context) -> None:
    seconds = context.pick(4, 4, 2)
    query = f"select {'sleep' if 'mysql' in context.url else 'pg_sleep'}({seconds})"
    observer = context.observer()
    pool = context.make_pool(MAX_SIZE)
    books.warm_up(pool, MAX_SIZE)
    most_active = most_sockets = 0

    def caller() -> None:
        patience = gevent.Timeout(PATIENCE)
        try:
            with pool.connection() as connection:
                patience.start()
                connection.query(query)
        except gevent.Timeout:
            pass
        finally:
            patience.close()

    began = books.now()
    callers = [gevent.spawn(caller) for _ in range(CALLERS)]
    while not all(one.dead for one in callers):
        if books.now() - began > 40:
            context.expect(False, "callers hang")
            break
        most_active = max(most_active, observer.active())
        most_sockets = max(most_sockets, observer.connections())
        gevent.sleep(0.02)
    took = books.now() - began
    failed = [one for one in callers if one.dead and one.exception is not None]
    context.figures.update(
        {
            "most active on the server": most_active,
            "most sockets": most_sockets,
            "seconds for all callers": round(took, 1),
            "callers with an error": len(failed),
        }
    )
    context.expect(
        most_active <= MAX_SIZE, f"{most_active} queries at once on a pool of {MAX_SIZE}"
    )
    context.expect(not failed, f"{len(failed)} callers got an error")
    gevent.sleep(seconds)
    problem = books.are_right(pool, observer, 6)
    context.expect(not problem, problem)


SCENARIO = Scenario(
    name="abandoned_queries",
    title="AbandonedQuery backends",
    about=(
        f"{CALLERS} greenlets on a pool of {MAX_SIZE}; each gives up its 4 s query after {PATIENCE} s "
        "(`gevent.Timeout` around the query). The server is asked from beside how many of these queries "
        f"it is executing: never more than {MAX_SIZE}, and nobody gets an error."
    ),
    run=run,
    rows=(Row("psycopg 3", "psycopg"), Row("PyMySQL", "pymysql")),
    limit=90,
)
