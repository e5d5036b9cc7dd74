"""A pool's psycopg connections wait by the hub: the same answers and time-outs, and no wait for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gevent
import psycopg
import pytest

from geventpool import ConnectionPool


@pytest.fixture
def pool(postgresql: Any) -> Iterator[ConnectionPool]:
    url = postgresql.url("psycopg").replace("+psycopg", "")
    pool = ConnectionPool(lambda: psycopg.connect(url, autocommit=True), max_size=4)
    yield pool
    pool.close()


def test_the_connection_is_psycopgs_own_and_waits_by_the_hub(pool: ConnectionPool) -> None:
    with pool.connection() as connection:
        assert isinstance(connection, psycopg.Connection)
        assert type(connection)._waits_by_hub
        big = "x" * 3_000_000  # more than a socket takes at once, in both directions
        assert connection.execute("select %s::text", [big]).fetchone() == (big,)
        # Longer than what it takes to look whether the connection is still there.
        assert connection.execute("select 1 from pg_sleep(1.2)").fetchone() == (1,)
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1/0")
        with connection.cursor("named") as cursor, connection.transaction():
            assert len(cursor.execute("select generate_series(1, 500)").fetchall()) == 500
        with connection.cursor().copy("copy (select generate_series(1, 500)) to stdout") as copy:
            assert len(list(copy.rows())) == 500
        with connection.pipeline():
            both = [connection.execute("select %s", [number]) for number in (1, 2)]
        assert [cursor.fetchone() for cursor in both] == [(1,), (2,)]


def test_notifications_are_still_waited_for_with_a_time_out(pool: ConnectionPool) -> None:
    with pool.connection() as listener, pool.connection() as other:
        listener.execute("listen here")
        assert list(listener.notifies(timeout=0.05)) == []
        gevent.spawn_later(0.05, other.execute, "notify here")
        assert len(list(listener.notifies(timeout=30, stop_after=1))) == 1
        listener.execute("unlisten here")


def test_a_close_by_another_greenlet_ends_the_wait(pool: ConnectionPool) -> None:
    lent = pool.connection()
    connection = lent.connection
    waiting = gevent.spawn(connection.execute, "select pg_sleep(30)")
    gevent.sleep(0.1)
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        waiting.get(timeout=30)
    lent.close()


def test_other_greenlets_run_while_one_waits(pool: ConnectionPool) -> None:
    with pool.connection() as connection, pool.connection() as holder:
        holder.execute("select pg_advisory_lock(1)")

        def others_turns() -> None:
            for _ in range(10):
                gevent.sleep(0.01)
            holder.execute("select pg_advisory_unlock(1)")

        connection.execute("set lock_timeout = '30s'")
        other = gevent.spawn(others_turns)
        connection.execute("select pg_advisory_lock(1)")  # given when the other has had its turns
        other.get(timeout=30)
        connection.execute("select pg_advisory_unlock(1)")
        connection.execute("reset lock_timeout")


@pytest.mark.parametrize("is_waiting", [False, True])
def test_a_connection_on_which_somebody_waits_for_notifications_is_never_lent_again(
    pool: ConnectionPool, is_waiting: bool
) -> None:
    """Whoever waits keeps the connection's lock, for which the next borrower would wait for ever."""

    def listen() -> None:
        with contextlib.suppress(psycopg.OperationalError):  # it is closed
            next(notifications)

    with pool.connection() as connection:
        connection.execute("listen news")
        notifications = connection.notifies()
        waiting = gevent.spawn(listen) if is_waiting else None
        gevent.sleep(0)  # it takes the lock
        if not is_waiting:
            connection.execute("notify news")
            next(notifications)
        assert connection.lock.locked()
    with gevent.Timeout(10), pool.connection() as other:
        assert other is not connection
        assert other.execute("select 1").fetchone() == (1,)
    if waiting is not None:
        waiting.get(timeout=10)
