"""What is particular to mysql-connector-python and to MariaDB Connector/Python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from geventpool import BlockingDriverWarning, ConnectionPool, drivers
from geventpool.drivers import State, driver_for

from .dbapi import eventually, module_of, open_connection, run

CONNECTOR = "mysql.connector"
MANY = "select seq, repeat('x', 1000) from seq_1_to_300000"


@pytest.fixture
def url(mariadb: Any) -> str:
    return str(mariadb.url(CONNECTOR))


@pytest.fixture
def pool_of(url: str) -> Iterator[Callable[..., ConnectionPool]]:
    with contextlib.ExitStack() as stack:

        def pool_of(name: str = CONNECTOR, **arguments: Any) -> ConnectionPool:
            pool = ConnectionPool(lambda: open_connection(name, url, **arguments), max_size=1)
            return stack.enter_context(contextlib.closing(pool))

        yield pool_of


def ask(url: str, sql: str) -> list[Any]:
    """Through another connection."""
    with contextlib.closing(open_connection("pymysql", url)) as observer:
        return run(observer, sql)


@pytest.mark.parametrize("arguments", [{}, {"consume_results": True}])
def test_a_result_that_was_not_read_to_its_end_is_abandoned(
    pool_of: Callable[..., ConnectionPool], url: str, arguments: Any
) -> None:
    pool = pool_of(**arguments)
    with pool.connection() as used:
        cursor = used.cursor()
        cursor.execute(MANY)
        cursor.fetchone()
        assert driver_for(used).state(used) is State.BROKEN
    with pool.connection() as other:
        assert other is not used
        assert run(other, "select 7") == [(7,)]
    assert pool.stats().closed == {"abandoned": 1}
    at_work = "select id from information_schema.processlist where info like 'select seq,%'"
    assert eventually(lambda: ask(url, at_work) == [])


def test_between_several_results_a_connection_is_not_reset_as_the_next_would_be_its_answer(
    pool_of: Callable[..., ConnectionPool],
) -> None:
    pool = pool_of()
    with pool.connection() as used:
        results = used.cmd_query_iter("select 1; select 2")
        next(results)
        used.get_rows()
        assert driver_for(used).state(used) is State.BROKEN
        results.close()
    with pool.connection() as other:
        assert run(other, "select 7") == [(7,)]


def test_a_transaction_in_mid_read_is_not_taken_for_what_stood_before_its_rows(
    pool_of: Callable[..., ConnectionPool],
) -> None:
    with pool_of().connection() as used:
        driver = driver_for(used)
        run(used, "create table if not exists connector_law (id int primary key) engine = innodb")
        used.rollback()
        assert driver.state(used) is State.CLEAN
        cursor = used.cursor(prepared=True)
        cursor.execute("select id from connector_law where id > ?", (0,))
        cursor.fetchall()
        assert driver.state(used) is State.IN_TRANSACTION
        cursor.close()
        used.rollback()
        assert driver.state(used) is State.CLEAN
        with pytest.raises(module_of(CONNECTOR).Error):
            run(
                used,
                "select 1 from (select 1 union select 2) as t where 1 = (select 1 union select 2)",
            )
        assert driver.state(used) is State.UNKNOWN, "an error has no flags"


def test_a_connection_that_reconnects_while_it_is_lent_is_watched_by_its_new_socket(
    pool_of: Callable[..., ConnectionPool], url: str
) -> None:
    pool = pool_of()
    with pool.connection() as used:
        before = used.connection_id
        used.reconnect()
        assert used.connection_id != before
    assert pool.stats().size == 1
    ask(url, f"kill {used.connection_id}")
    assert eventually(lambda: pool.stats().size == 0)


def test_its_own_pool_s_connections_are_pooled_without_trust(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    pooling: Any = pytest.importorskip("mysql.connector.pooling")
    where = make_url(url)
    theirs = pooling.MySQLConnectionPool(
        pool_name="theirs",
        pool_size=1,
        use_pure=True,
        host=where.host,
        port=where.port,
        database=where.database,
        user=where.username,
        password=where.password,
    )
    with contextlib.closing(ConnectionPool(theirs.get_connection, max_size=1)) as pool:
        for _ in range(2):
            with pool.connection() as connection:
                assert run(connection, "select 1") == [(1,)]
        assert pool.stats().opened == 1
    assert "it is one of mysql.connector's own pool" in caplog.text


@pytest.mark.parametrize(
    ("name", "arguments", "cure"),
    [
        (CONNECTOR, {"use_pure": False}, "connect with use_pure=True"),
        ("mariadb", {}, "use PyMySQL instead"),
    ],
)
def test_what_blocks_is_told_with_the_cure_and_works_nevertheless(
    pool_of: Callable[..., ConnectionPool],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: Any,
    cure: str,
) -> None:
    module = module_of(name)
    if name == CONNECTOR and not module.HAVE_CEXT:
        pytest.skip("NOT RUN: mysql-connector-python has no C extension here")
    monkeypatch.setattr(drivers, "_warned", set())
    pool = pool_of(name, **arguments)
    with pytest.warns(BlockingDriverWarning, match=cure), pool.connection() as used:
        assert run(used, "select 1") == [(1,)]
    with pool.connection() as again:
        assert again is used
        driver = driver_for(used)
        ask(url, f"kill {driver.server_id(used)}")
        with pytest.raises(module.Error):
            run(again, "select 1")
        assert not driver.ping(again)
