"""A server that is not the one to write to any more: a demoted primary, a standby, one that shuts down.

Clients reach their server through a proxy that can lead new connections elsewhere, as an address does that
moves with a failover. What a pool keeps afterwards is the subject.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool
from tools.servers import MariaDB, PostgreSQL, Standby

from .dbapi import ALL, MYSQL, POSTGRESQL, eventually, module_of, open_connection, run
from .proxy import Proxy

SIZE = 4
WRITES = 100
DIALECTS = {"MySQLdb": "mysqldb"}
INSERT = "insert into failover_hits (x) values (1)"
TABLE = "create table failover_hits (x int)"
USER = "shop"


@dataclass
class Pair:
    """Two servers, and a proxy that leads to the old one first.

    Attributes:
        old: does not take writes, once it is demoted.
        new: does.
        proxy: where clients connect to.
        administrator: of the old one.
    """

    old: Any
    new: Any
    proxy: Proxy
    administrator: Any

    @property
    def is_mysql(self) -> bool:
        return isinstance(self.old, MariaDB)

    def url(self, driver: str) -> str:
        """As a user without rights to write to a server that is read only."""
        url = make_url(self.proxy.url(self.old.url(DIALECTS.get(driver, driver))))
        return url.set(username=USER, password=USER).render_as_string(hide_password=False)

    def demote(self) -> None:
        if self.is_mysql:  # the standby is read only all the time
            run(self.administrator, "set global read_only = 1")

    def fail_over(self) -> None:
        self.demote()
        self.proxy.lead_to(self.new.host, self.new.port)

    def restore(self) -> None:
        self.proxy.lead_to(self.old.host, self.old.port)
        if self.is_mysql:
            run(self.administrator, "set global read_only = 0")


def administer(server: Any) -> Any:
    name = "psycopg" if isinstance(server, PostgreSQL) else "pymysql"
    return open_connection(name, server.url(name), autocommit=True)


def prepare(server: Any) -> None:
    with contextlib.closing(administer(server)) as connection:
        run(connection, "drop table if exists failover_hits")
        run(connection, TABLE)
        if isinstance(server, PostgreSQL):
            run(connection, f"create role {USER} login password '{USER}'")
            run(connection, f"grant insert, select on failover_hits to {USER}")
        else:
            run(connection, f"create or replace user {USER}@'%' identified by '{USER}'")
            run(connection, f"grant insert, select on {server.database}.* to {USER}@'%'")


@contextlib.contextmanager
def pair_of(old: Any, new: Any) -> Iterator[Pair]:
    with Proxy(old.host, old.port) as proxy, contextlib.closing(administer(old)) as administrator:
        yield Pair(old, new, proxy, administrator)


@pytest.fixture(scope="module")
def mysql_pair(mariadb: Any) -> Iterator[Pair]:
    prepare(mariadb)
    with MariaDB() as old:
        prepare(old)
        with pair_of(old, mariadb) as pair:
            yield pair
        old.kill()  # to stop it in order takes seconds
    with contextlib.closing(administer(mariadb)) as connection:
        run(connection, "drop table failover_hits")
        run(connection, f"drop user {USER}@'%'")


@pytest.fixture(scope="module")
def postgresql_pair(postgresql: Any) -> Iterator[Pair]:
    with PostgreSQL() as new:
        prepare(new)
        with Standby(new) as old, pair_of(old, new) as pair:
            yield pair


@pytest.fixture
def pair(request: pytest.FixtureRequest, driver: str) -> Iterator[Pair]:
    module_of(driver)
    kind = "mysql_pair" if driver in MYSQL else "postgresql_pair"
    pair: Pair = request.getfixturevalue(kind)
    yield pair
    pair.restore()


@dataclass
class Door:
    """One way to a pool.

    Attributes:
        lend: lends a connection.
        run: runs statements on it and commits.
        give_back: ends the loan, with or without an error.
        close: the pool.
        errors: what a refused write raises.
        failures: what was raised.
    """

    lend: Callable[[], Any]
    run: Callable[..., object]
    give_back: Callable[[Any, BaseException | None], object]
    close: Callable[[], object]
    errors: Any
    failures: list[Exception] = field(default_factory=list)

    def fill(self) -> None:
        """From now on so many are idle."""
        lent = [self.lend() for _ in range(SIZE)]
        for one in lent:
            self.use(one, "select 1")

    def use(self, lent: Any, *statements: str) -> bool:
        """Runs a transaction as a request does, and gives the connection back."""
        try:
            self.run(lent, *statements)
        except self.errors as error:
            self.failures.append(error)
            self.give_back(lent, error)
            return False
        self.give_back(lent, None)
        return True

    def write(self, count: int = 1) -> int:
        """How many of so many writes, one request each, succeed."""
        return sum(self.use(self.lend(), INSERT) for _ in range(count))


def of_engine(url: str, driver: str, poolclass: Any, **settings: Any) -> Door:
    engine = create_engine(url, poolclass=poolclass, **settings)

    def execute(connection: Any, *statements: str) -> None:
        for statement in statements:
            connection.execute(text(statement))
        connection.commit()

    def give_back(connection: Any, error: BaseException | None) -> None:
        connection.close()

    return Door(engine.connect, execute, give_back, engine.dispose, DBAPIError)


def by_sqlalchemy(url: str, driver: str, **settings: Any) -> Door:
    return of_engine(url, driver, GeventPool, max_size=SIZE, min_idle=SIZE, **settings)


def by_queue_pool(url: str, driver: str) -> Door:
    return of_engine(url, driver, QueuePool, pool_size=SIZE, max_overflow=0)


def by_hand(url: str, driver: str, **settings: Any) -> Door:
    pool = ConnectionPool(
        lambda: open_connection(driver, url), max_size=SIZE, min_idle=SIZE, **settings
    )

    def execute(lent: Any, *statements: str) -> None:
        for statement in statements:
            run(lent.connection, statement)
        lent.connection.commit()

    def give_back(lent: Any, error: BaseException | None) -> None:
        lent.__exit__(type(error) if error else None, error, None)

    return Door(pool.connection, execute, give_back, pool.close, module_of(driver).Error)


DOORS = [by_sqlalchemy, by_hand]


@pytest.fixture(params=ALL)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=DOORS)
def make_door(request: pytest.FixtureRequest, driver: str, pair: Pair) -> Iterator[Any]:
    with contextlib.ExitStack() as made:

        def make(**settings: Any) -> Door:
            door: Door = request.param(pair.url(driver), driver, **settings)
            made.callback(door.close)
            return door

        yield make


def test_after_a_failover_one_write_fails_for_each_connection_in_use_and_none_for_idle_ones(
    make_door: Any, pair: Pair
) -> None:
    door: Door = make_door()
    door.fill()
    in_use = [door.lend(), door.lend()]
    pair.fail_over()
    assert door.write(WRITES) == WRITES - 1
    assert [door.use(lent, INSERT) for lent in in_use] == [False, False]
    assert door.write(WRITES) == WRITES
    assert len(door.failures) == 3


@pytest.mark.parametrize("driver", ["pymysql", "psycopg"])
def test_after_a_failover_queue_pool_fails_for_ever(pair: Pair, driver: str) -> None:
    door = by_queue_pool(pair.url(driver), driver)
    with contextlib.closing(door):
        door.fill()
        pair.fail_over()
        assert door.write(WRITES) == 0


def test_while_the_address_leads_to_the_old_server_it_is_not_met_by_a_storm(
    make_door: Any, pair: Pair
) -> None:
    door: Door = make_door()
    door.fill()
    pair.demote()
    before, began = pair.proxy.figures().opened, time.monotonic()
    assert door.write(WRITES) == 0
    rounds = 1 + int(time.monotonic() - began)  # one a second at most
    assert pair.proxy.figures().opened - before <= rounds, "connects"
    pair.fail_over()
    assert eventually(door.write, 10), "it is looked for again"
    assert door.write(WRITES) == WRITES


@pytest.mark.parametrize("make", DOORS)
@pytest.mark.parametrize("driver", POSTGRESQL)
def test_who_has_set_a_transaction_read_only_has_no_connection_replaced(
    postgresql_pair: Pair, driver: str, make: Any
) -> None:
    with Proxy(postgresql_pair.new.host, postgresql_pair.new.port) as proxy:
        door: Door = make(proxy.url(postgresql_pair.new.url(driver)), driver)
        with contextlib.closing(door):
            door.fill()
            before = proxy.figures().opened
            for _ in range(WRITES):
                assert not door.use(door.lend(), "set transaction read only", INSERT)
            assert {"read-only transaction" in str(error) for error in door.failures} == {True}
            assert door.write(WRITES) == WRITES
            assert proxy.figures().opened == before


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_who_has_set_an_engine_read_only_has_no_connection_replaced(
    postgresql_pair: Pair, driver: str
) -> None:
    with Proxy(postgresql_pair.new.host, postgresql_pair.new.port) as proxy:
        url = proxy.url(postgresql_pair.new.url(driver))
        options = {"postgresql_readonly": True}
        with contextlib.closing(by_sqlalchemy(url, driver, execution_options=options)) as door:
            door.fill()
            before = proxy.figures().opened
            assert door.write(WRITES) == 0
            assert proxy.figures().opened == before


@pytest.mark.parametrize("driver", ["pymysql", "MySQLdb"])
def test_writes_in_a_read_only_transaction_of_mysql_cost_a_bounded_number_of_connects(
    make_door: Any, pair: Pair
) -> None:
    door: Door = make_door()
    door.fill()
    before, began = pair.proxy.figures().opened, time.monotonic()
    for _ in range(WRITES):  # a session cannot be told from a server that is read only by default
        assert not door.use(door.lend(), "start transaction read only", INSERT)
    rounds = 1 + int(time.monotonic() - began)
    assert pair.proxy.figures().opened - before <= rounds
    assert door.write(WRITES) == WRITES


@pytest.mark.parametrize("driver", ["psycopg", "pymysql"])
def test_the_transaction_that_has_met_the_error_goes_on_as_with_any_pool(
    pair: Pair, driver: str
) -> None:
    door = by_sqlalchemy(pair.url(driver), driver)
    with contextlib.closing(door):
        door.fill()
        pair.fail_over()
        with door.lend() as connection:
            with pytest.raises(DBAPIError) as caught, connection.begin_nested():
                connection.execute(text(INSERT))
            assert not caught.value.connection_invalidated
            assert connection.execute(text("select 1")).scalar_one() == 1
        assert door.write(WRITES) == WRITES


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_a_server_that_has_become_read_only_by_its_settings_is_left(
    make_door: Any, pair: Pair
) -> None:
    primary = administer(pair.new)
    try:
        pair.proxy.lead_to(pair.new.host, pair.new.port)
        door: Door = make_door()
        door.fill()
        run(primary, "alter system set default_transaction_read_only = on")
        run(primary, "select pg_reload_conf()")
        assert eventually(lambda: run(primary, "show default_transaction_read_only") == [("on",)])
        assert eventually(lambda: not door.write())
        pair.proxy.lead_to(pair.old.host, pair.old.port)
        lent = [door.lend() for _ in range(SIZE)]
        standbys = [is_standby(door, one) for one in lent]
        assert standbys == [True] * SIZE, "all were replaced"
    finally:
        run(primary, "set default_transaction_read_only = off")
        run(primary, "alter system reset default_transaction_read_only")
        run(primary, "select pg_reload_conf()")
        primary.close()


def is_standby(door: Door, lent: Any) -> bool:
    connection = getattr(lent.connection, "dbapi_connection", lent.connection)
    ((found,),) = run(connection, "select pg_is_in_recovery()")
    door.give_back(lent, None)
    return bool(found)


def test_when_a_primary_is_stopped_and_its_standby_promoted_only_connections_in_use_fail(
    postgresql: Any,
) -> None:
    with PostgreSQL() as primary:
        prepare(primary)
        with Standby(primary) as standby, pair_of(primary, standby) as pair:
            doors = [make(pair.url(name), name) for name in POSTGRESQL for make in DOORS]
            for door in doors:
                door.fill()
            in_use = [(door, door.lend()) for door in doors]
            primary.stop()
            standby.promote()
            pair.fail_over()
            for door in doors:
                assert door.write(WRITES) == WRITES
            for door, lent in in_use:
                assert not door.use(lent, INSERT)
            for door in doors:
                assert door.write(WRITES) == WRITES
                assert len(door.failures) == 1
                door.close()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_libpq_finds_the_server_that_takes_writes_if_it_is_told_of_both(
    postgresql_pair: Pair, driver: str
) -> None:
    servers = postgresql_pair.old, postgresql_pair.new
    hosts = ",".join(server.host for server in servers)
    ports = ",".join(str(server.port) for server in servers)
    url = (
        f"postgresql+{driver}://{USER}:{USER}@/{postgresql_pair.new.database}?host={hosts}"
        f"&port={ports}&target_session_attrs=read-write"
    )
    with contextlib.closing(by_sqlalchemy(url, driver)) as door:
        assert door.write(WRITES) == WRITES


NO_TABLE = "select * from nowhere"


@pytest.mark.parametrize("driver", ["pymysql", "psycopg2"])
def test_an_error_of_the_users_own_has_everything_of_its_age_replaced(
    make_door: Any, pair: Pair
) -> None:
    asked: list[BaseException] = []

    def is_disconnect(error: BaseException) -> bool:
        asked.append(error)
        return "nowhere" in str(error)

    door: Door = make_door(is_disconnect=is_disconnect)
    door.fill()
    before = pair.proxy.figures().opened
    assert not door.use(door.lend(), NO_TABLE)
    assert {type(error).__module__.partition(".")[0] for error in asked} <= {"pymysql", "psycopg2"}
    lent = [door.lend() for _ in range(SIZE)]
    assert pair.proxy.figures().opened - before == SIZE
    for one in lent:
        door.give_back(one, None)


@pytest.mark.parametrize("driver", ["pymysql"])
def test_a_function_of_the_users_that_fails_does_not_take_the_errors_place(
    make_door: Any, pair: Pair, caplog: Any
) -> None:
    door: Door = make_door(is_disconnect=lambda error: 1 / 0)
    assert not door.use(door.lend(), NO_TABLE)
    assert "nowhere" in str(door.failures[0])
    assert "could not judge an error" in caplog.text
