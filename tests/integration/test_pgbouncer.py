"""PgBouncer between a pool and PostgreSQL: the program itself, giving sessions and giving transactions."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from sqlalchemy import create_engine, text

from geventpool import ConnectionPool
from geventpool.drivers import driver_for
from geventpool.drivers import postgresql as of_postgresql
from geventpool.sqlalchemy import GeventPool, prepare
from tools.proxies import PgBouncer

from .dbapi import POSTGRESQL, ask, eventually, module_of, open_connection, run

SIZE = 4
# Not what another test has abandoned, and is about to be over.
SLEEPS = "state = 'active' and query like 'select pg_sleep(300)%'"

pytestmark = pytest.mark.usefixtures("pgbouncer_program")


@pytest.fixture(scope="module", params=["session", "transaction"])
def bouncer(
    request: pytest.FixtureRequest, postgresql: Any, pgbouncer_program: None
) -> Iterator[PgBouncer]:
    with PgBouncer(postgresql, pool_mode=request.param) as bouncer:
        yield bouncer


@pytest.fixture
def observer(postgresql: Any) -> Iterator[Any]:
    with contextlib.closing(open_connection("psycopg", postgresql.url("psycopg"))) as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture
def make_pool() -> Iterator[Callable[..., Any]]:
    with contextlib.ExitStack() as made:

        def make(name: str, bouncer: PgBouncer, **settings: Any) -> ConnectionPool:
            pool = ConnectionPool(
                lambda: open_connection(name, bouncer.url(name)), **{"max_size": SIZE, **settings}
            )
            made.callback(pool.close)
            return pool

        yield make


def fill(pool: ConnectionPool) -> None:
    """From now on so many are idle, and each has been used."""
    ready = Event()

    def use(number: int) -> None:
        with pool.connection() as connection:
            if number == SIZE - 1:
                ready.set()
            ready.wait()
            run(connection, "select 1")

    gevent.joinall([gevent.spawn(use, number) for number in range(SIZE)], raise_error=True)
    assert pool.stats().idle == SIZE


def count(observer: Any, where: str = "true") -> int:
    ((found,),) = run(
        observer,
        f"select count(*) from pg_stat_activity where {where} "
        "and backend_type = 'client backend' and pid <> pg_backend_pid()",
    )
    return int(found)


def abandon(pool: ConnectionPool, observer: Any, times: int = 1) -> None:
    """Kills so many callers in the middle of queries that would take longer than any test."""

    def sleep() -> None:
        with pool.connection() as connection:
            run(connection, "select pg_sleep(300)")

    callers = [gevent.spawn(sleep) for _ in range(times)]
    assert eventually(lambda: count(observer, SLEEPS) == times)
    gevent.killall(callers)


@pytest.mark.parametrize("name", POSTGRESQL)
def test_a_query_whose_caller_is_killed_ends_on_the_server_behind_pgbouncer(
    bouncer: PgBouncer, observer: Any, make_pool: Any, name: str
) -> None:
    pool = make_pool(name, bouncer)
    abandon(pool, observer)
    assert eventually(lambda: count(observer, SLEEPS) == 0)
    assert eventually(lambda: pool.stats().cancelled == 1)
    assert ask(pool) == [(1,)]


@pytest.mark.parametrize("name", POSTGRESQL)
def test_cancels_through_pgbouncer_stop_nobody_elses_queries(
    postgresql: Any, observer: Any, make_pool: Any, name: str
) -> None:
    """Two server connections are shared by all, so that each has just been somebody else's."""
    with PgBouncer(postgresql, pool_mode="transaction", default_pool_size=2) as bouncer:
        killed, strangers = make_pool(name, bouncer), make_pool(name, bouncer)
        fill(killed)
        fill(strangers)
        answers: list[int] = []
        is_over = Event()

        def work(number: int) -> None:
            while not is_over.is_set():
                answers.append(ask(strangers, f"select {number} from pg_sleep(0.002)")[0][0])
                assert answers[-1] == number

        def be_killed() -> None:
            with killed.connection() as connection:
                run(connection, "select pg_sleep(0.04)")

        workers = [gevent.spawn(work, number) for number in range(2)]
        for _ in range(20):
            callers = [gevent.spawn(be_killed) for _ in range(2)]
            gevent.sleep(0.03)
            gevent.killall(callers)
        is_over.set()
        gevent.joinall(workers, raise_error=True)
        assert answers


@pytest.mark.parametrize("name", POSTGRESQL)
def test_no_number_of_pgbouncers_is_shown_as_that_of_a_server_process(
    bouncer: PgBouncer, make_pool: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_pool(name, bouncer).connection() as connection:
        ((number,),) = run(connection, "select pg_backend_pid()")
        assert driver_for(connection).server_id(connection) != number


@pytest.mark.parametrize("name", POSTGRESQL)
def test_idle_connections_whose_servers_were_killed_cost_no_caller_an_error(
    bouncer: PgBouncer, observer: Any, make_pool: Any, name: str
) -> None:
    pool = make_pool(name, bouncer)
    fill(pool)
    pids = {row["remote_pid"] for row in bouncer.tell("show servers")}
    assert pids
    for pid in pids:
        run(observer, f"select pg_terminate_backend({pid})")
    assert eventually(
        lambda: not pids & {row["remote_pid"] for row in bouncer.tell("show servers")}
    )
    for _ in range(2 * SIZE):
        assert ask(pool) == [(1,)]


def servers(bouncer: PgBouncer) -> list[Any]:
    return [row for row in bouncer.tell("show pools") if row["database"] == "geventpool"]


@pytest.mark.parametrize("name", POSTGRESQL)
def test_a_killed_server_costs_whoever_is_at_work_one_error(
    bouncer: PgBouncer, observer: Any, make_pool: Any, name: str
) -> None:
    pool = make_pool(name, bouncer)
    caller = gevent.spawn(ask, pool, "select pg_sleep(300)")
    assert eventually(lambda: count(observer, SLEEPS) == 1)
    run(observer, f"select pg_terminate_backend(pid) from pg_stat_activity where {SLEEPS}")
    caller.join()
    assert isinstance(caller.exception, Exception)
    for _ in range(2 * SIZE):
        assert ask(pool) == [(1,)]


@pytest.mark.parametrize("name", POSTGRESQL)
def test_a_restart_of_pgbouncer_costs_idle_connections_nothing_and_those_in_use_one_error_each(
    bouncer: PgBouncer, make_pool: Any, name: str
) -> None:
    pool = make_pool(name, bouncer)
    fill(pool)
    in_use = [pool.connection() for _ in range(2)]
    bouncer.restart()
    for _ in range(2 * SIZE):
        assert ask(pool) == [(1,)]
    for pooled in in_use:
        with pytest.raises(module_of(name).Error), pooled as connection:
            run(connection, "select 1")
    for _ in range(2 * SIZE):
        assert ask(pool) == [(1,)]


@pytest.mark.parametrize("cut", ["client_idle_timeout", "server_idle_timeout"])
def test_connections_that_pgbouncer_cuts_while_they_are_idle_cost_no_caller_an_error(
    postgresql: Any, make_pool: Any, cut: str
) -> None:
    settings = {"pool_mode": "transaction", cut: 1}
    with PgBouncer(postgresql, **settings) as bouncer:
        pools = [make_pool(name, bouncer) for name in POSTGRESQL]
        for pool in pools:
            ask(pool)
        kind = "cl_active" if cut == "client_idle_timeout" else "sv_idle"
        assert eventually(lambda: not any(row[kind] for row in servers(bouncer)))
        for pool in pools:
            for _ in range(2 * SIZE):
                assert ask(pool) == [(1,)]


@pytest.mark.parametrize("name", POSTGRESQL)
def test_when_pgbouncer_takes_no_more_clients_callers_wait_instead_of_failing(
    postgresql: Any, make_pool: Any, name: str
) -> None:
    with PgBouncer(postgresql, pool_mode="transaction", max_client_conn=3) as bouncer:
        pool = make_pool(name, bouncer, max_size=20)
        assert ask(pool) == [(1,)]
        callers = [gevent.spawn(ask, pool, "select 1 from pg_sleep(0.01)") for _ in range(30)]
        gevent.joinall(callers, raise_error=True)
        assert pool.stats().size <= 3


@pytest.fixture
def swapping(postgresql: Any) -> Iterator[PgBouncer]:
    """Gives each transaction the other one of two sessions."""
    with (
        PgBouncer(
            postgresql, pool_mode="transaction", server_round_robin=1, default_pool_size=2
        ) as bouncer,
        contextlib.ExitStack() as opened,
    ):
        two = [
            opened.enter_context(
                contextlib.closing(open_connection("psycopg", bouncer.url("psycopg")))
            )
            for _ in range(2)
        ]
        for one in two:
            run(one, "select 1")
        for one in two:
            one.rollback()  # there are two sessions now, and they take turns
        yield bouncer


def test_psycopgs_own_preparing_fails_behind_a_transaction_pooler(swapping: PgBouncer) -> None:
    with contextlib.closing(open_connection("psycopg", swapping.url("psycopg"))) as connection:
        with pytest.raises(Exception, match="prepared statement"):
            for _ in range(20):
                connection.execute("select %s::int", (1,))
                connection.commit()


def test_psycopgs_own_preparing_is_switched_off_behind_a_pooler_and_this_is_said_once(
    swapping: PgBouncer, make_pool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool("psycopg", swapping)
    fill(pool)
    for number in range(20):
        with pool.connection() as connection:
            assert connection.execute("select %s::int", (number,)).fetchone() == (number,)
            connection.commit()
    said = [record for record in caplog.records if "prepare_threshold" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert f":{swapping.port} is no PostgreSQL server" in said[0].getMessage()


def test_a_threshold_that_the_user_has_chosen_is_left_as_it_is(
    bouncer: PgBouncer, postgresql: Any
) -> None:
    for url, given, then in (
        (bouncer.url("psycopg"), 4, 4),
        (bouncer.url("psycopg"), 5, None),
        (postgresql.url("psycopg"), 5, 5),
    ):
        with contextlib.closing(
            open_connection("psycopg", url, prepare_threshold=given)
        ) as connection:
            driver_for(connection).adopt(connection)
            assert connection.prepare_threshold == then


@pytest.mark.parametrize("name", ["psycopg", "psycopg2"])
def test_statements_that_are_to_be_prepared_are_run_without_a_plan_behind_a_pooler(
    swapping: PgBouncer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(swapping.url(name), poolclass=GeventPool, max_size=SIZE)
    statement = text("select cast(:number as integer)")
    prepare(engine, statement)
    for number in range(20):
        with engine.connect() as connection:
            assert connection.scalar(statement, {"number": number}) == number
            plans = "select count(*) from pg_prepared_statements"
            assert connection.scalar(text(plans)) == 0
    engine.dispose()
    assert caplog.text.count("is no PostgreSQL server") == 1


def test_one_number_that_might_be_a_process_does_not_hide_a_pooler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(of_postgresql, "_poolers", set())
    assert not of_postgresql.is_pooler(4711, "one", 6432)
    assert of_postgresql.is_pooler(-4711, "two", 6432)
    assert of_postgresql.is_pooler(4711, "two", 6432)
    assert of_postgresql.is_pooler(2**31 - 1, "one", 6432)
