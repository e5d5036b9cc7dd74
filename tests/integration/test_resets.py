"""A rollback that keeps nobody, with each driver against real servers: what can be noticed of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool

from .dbapi import SURE, eventually, open_connection, run, server_of
from .proxy import Proxy
from .wire import Wire

DRIVERS = ["pymysql", "psycopg", "psycopg2", "pg8000"]
TABLE = "reset_rows"
READ = text(f"select number from {TABLE}")
LOCK = text(f"select number from {TABLE} for update nowait")


@pytest.fixture
def server(driver: str, request: pytest.FixtureRequest) -> Any:
    server = server_of(request, driver)
    engine = create_engine(server.url(driver), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"drop table if exists {TABLE}"))
        connection.execute(text(f"create table {TABLE} (number int primary key)"))
        connection.execute(text(f"insert into {TABLE} values (1)"))
    return server


@pytest.fixture
def wire(server: Any) -> Iterator[Wire]:
    with Wire(server.host, server.port) as wire:
        yield wire


@pytest.fixture
def engine_of(driver: str, server: Any) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def engine_of(port: int | None = None, **settings: Any) -> Engine:
        url = make_url(server.url(driver))
        url = url if port is None else url.set(host="127.0.0.1", port=port)
        settings.setdefault("pool_reset_on_return", "behind")
        made.append(create_engine(url, poolclass=GeventPool, **settings))
        return made[-1]

    yield engine_of
    for engine in made:
        engine.dispose()


def waited_for(wire: Wire, act: Callable[[], object]) -> int:
    """How many answers have come while something is done."""
    before = wire.answers
    act()
    return wire.answers - before


def is_settled(pool: Any) -> Callable[[], bool]:
    return lambda: not pool.stats().resetting


@pytest.mark.parametrize("driver", SURE)
def test_the_raw_pool_sends_the_rollback_and_waits_for_no_answer(driver, server, wire) -> None:
    url = make_url(server.url(driver)).set(port=wire.port).render_as_string(hide_password=False)
    pool = ConnectionPool(lambda: open_connection(driver, url), reset_on_return="behind")
    for _ in range(3):
        lent = pool.connection()
        first = lent.connection
        run(first, READ.text)
        assert waited_for(wire, lent.close) == 0
        assert (pool.stats().resetting, pool.stats().in_use) == (1, 1)
        with pool.connection() as connection:  # it waits for its own
            assert connection is first
            assert b"rollback" in bytes(wire.sent).lower()
            assert pool.stats().resetting == 0
    assert wire.opened == 1
    pool.close()


@pytest.mark.parametrize("driver", DRIVERS)
def test_close_of_a_connection_and_of_a_session_wait_for_no_answer(wire, engine_of) -> None:
    engine = engine_of(wire.port)
    for _ in range(3):
        for lent in (engine.connect(), Session(engine)):
            lent.execute(READ).all()
            assert waited_for(wire, lent.close) == 0
            assert engine.pool.stats().resetting == 1
            assert (engine.pool.checkedout(), engine.pool.checkedin()) == (0, 1)
            assert eventually(is_settled(engine.pool))
    lent = engine.raw_connection()
    run(lent, READ.text)
    assert waited_for(wire, lent.close) == 0
    assert wire.opened == 1
    assert engine.pool.stats().resets == 7


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_told_explicitly_is_waited_for(wire, engine_of) -> None:
    engine = engine_of(wire.port)

    def ended(lent: Any, end: Callable[[], object]) -> int:
        lent.execute(READ).all()
        waited = waited_for(wire, end)
        assert engine.pool.stats().resetting == 0
        lent.close()
        return waited

    for name in ("rollback", "commit"):
        connection = engine.connect()
        assert ended(connection, getattr(connection, name)) >= 1
        session = Session(engine)
        assert ended(session, getattr(session, name)) >= 1
    connection = engine.connect()
    transaction = connection.begin()
    assert ended(connection, transaction.close) >= 1
    connection = engine.connect()
    transaction = connection.begin()
    assert ended(connection, transaction.rollback) >= 1
    outer = engine.connect()
    session = Session(outer)  # the connection is not the session's, and not given back
    assert ended(session, session.close) >= 0
    assert engine.pool.checkedout() == 1
    outer.close()
    raw = engine.raw_connection()
    run(raw, READ.text)
    assert waited_for(wire, raw.rollback) >= 1
    raw.close()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("what", ["smart", "rollback", "a listener", "isolation level"])
def test_who_wants_it_or_is_to_be_told_has_it_as_before(wire, engine_of, what) -> None:
    engine = engine_of(
        wire.port, pool_reset_on_return=what if what in ("smart", "rollback") else "behind"
    )
    told: list[object] = []
    if what == "a listener":
        event.listen(engine, "checkin", lambda connection, record: told.append(connection))
    for _ in range(2):
        connection = engine.connect()
        if what == "isolation level":
            connection = connection.execution_options(isolation_level="SERIALIZABLE")
        connection.execute(READ).all()
        assert waited_for(wire, connection.close) >= 1
        assert engine.pool.stats().resetting == 0
    assert len(told) == (2 if what == "a listener" else 0)
    with engine.connect() as connection:
        assert connection.execute(READ).all() == [(1,)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_greenlet_never_meets_a_lock_of_its_own(engine_of) -> None:
    engine = engine_of()
    others = [engine.connect() for _ in range(3)]
    for one in others:
        one.close()
    for _ in range(100):
        for lent in (engine.connect(), Session(engine)):
            assert lent.execute(LOCK).all() == [(1,)]
            lent.close()
    assert engine.pool.stats().opened == 3


@pytest.mark.parametrize("driver", DRIVERS)
def test_another_sees_the_lock_until_the_answer_is_there(server, engine_of, driver) -> None:
    with Proxy(server.host, server.port) as proxy:
        engine, direct = engine_of(proxy.port), engine_of()
        with direct.connect() as other:
            lent = engine.connect()
            lent.execute(LOCK)
            proxy.delay(0.3, "server")
            lent.close()
            with pytest.raises(exc.DBAPIError):
                other.execute(LOCK)
            other.rollback()
            engine.pool.core.settle()
            assert other.execute(LOCK).all() == [(1,)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_rollback_that_is_never_answered_keeps_nobody(server, engine_of, caplog) -> None:
    with Proxy(server.host, server.port) as proxy:
        engine = engine_of(proxy.port, cancel_deadline=0.2, max_size=3)
        lent = engine.connect()
        lent.execute(LOCK)
        proxy.stall()
        lent.close()
        assert engine.pool.stats().resetting == 1
        assert eventually(is_settled(engine.pool))
        proxy.resume()
        assert "gave up resetting" in caplog.text
        assert engine.pool.stats().closed == {"reset failed": 1}
        assert eventually(lambda: not engine.pool.core.ledger.closing)
        with engine.connect() as connection:
            assert connection.execute(READ).all() == [(1,)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_rollback_whose_connection_is_cut_closes_it_and_reaches_nobody(server, engine_of) -> None:
    with Proxy(server.host, server.port) as proxy:
        engine = engine_of(proxy.port)
        for lent in (engine.connect(), Session(engine)):
            lent.execute(LOCK)
            proxy.stall()
            lent.close()
            proxy.cut()
            proxy.resume()
            assert eventually(is_settled(engine.pool))
            with engine.connect() as connection:
                assert connection.execute(READ).all() == [(1,)]
            engine.pool.core.settle()
        assert engine.pool.stats().closed == {"reset failed": 2}
        assert engine.pool.stats().opened == 3


@pytest.mark.parametrize("driver", DRIVERS)
def test_dispose_leaves_nothing_that_is_being_reset(server, engine_of, driver) -> None:
    with Proxy(server.host, server.port) as proxy:
        engine = engine_of(proxy.port)
        lent = engine.connect()
        lent.execute(READ).all()
        proxy.delay(0.02)
        lent.close()
        pool = engine.pool
        assert pool.stats().resetting == 1
        engine.dispose()
        assert (pool.stats().size, pool.stats().closed) == (0, {"disposed": 1})


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_statement_that_failed_a_dropped_connection_and_a_kill(server, engine_of) -> None:
    engine = engine_of(max_size=1)
    connection = engine.connect()
    connection.execute(READ).all()
    with pytest.raises(exc.DBAPIError):
        connection.execute(text("select nothing from nowhere"))
    connection.close()
    with engine.connect() as connection:
        assert connection.execute(LOCK).all() == [(1,)]
    connection = engine.connect()
    connection.execute(LOCK)
    del connection
    gc.collect()

    def hold() -> None:
        with engine.connect() as connection:
            connection.execute(LOCK)
            gevent.sleep(60)

    holder = gevent.spawn(hold)
    gevent.sleep(0.05)
    holder.kill()
    with engine.connect() as connection:
        assert connection.execute(LOCK).all() == [(1,)]
    assert engine.pool.stats().opened == 1
