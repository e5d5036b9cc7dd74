"""What becomes of connections of a DBAPI that has no file of its own, when they are given back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from sqlalchemy import event

from geventpool import ConnectionPool
from geventpool.drivers import by_class, driver_for, prepare
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeConnection, FakeDriver, settle


class Deaf(FakeConnection):
    """Its class cannot be watched, as if it were written in C."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "__class__":
            raise TypeError("__class__ assignment only supported for mutable types")
        super().__setattr__(name, value)


class Raw:
    """`ConnectionPool` with the interface of SQLAlchemy's pools."""

    def __init__(self, connect: Callable[[], Any], **settings: Any) -> None:
        self.pool = ConnectionPool(connect, **settings)
        self.connect, self.stats, self.close = (
            self.pool.connection,
            self.pool.stats,
            self.pool.close,
        )


@pytest.fixture(params=[Raw, GeventPool])
def pool_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(connect: Callable[[], Any]) -> Any:
        made.append(request.param(connect, max_size=1))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.mark.parametrize("is_waiting", [False, True])
def test_a_connection_that_another_greenlet_uses_while_it_is_rolled_back_is_not_lent_again(
    pool_of: Callable[..., Any], is_waiting: bool
) -> None:
    driver = FakeDriver()
    pool = pool_of(driver.connect)
    lent = pool.connect()
    driver.call_time = 0.001
    back = gevent.spawn(lent.close)
    gevent.sleep(0)  # it rolls back
    next_one = gevent.spawn(lambda: pool.connect().close()) if is_waiting else None
    used = driver.connections[0]
    with contextlib.suppress(FakeDriver.Error):  # it may be closed meanwhile
        used.commit()
    back.get()
    if next_one is not None:
        next_one.get()
    pool.connect().close()
    assert [one.calls for one in driver.connections[:1]] == [["rollback", "commit", "close"]]
    assert len(driver.connections) == 2


@pytest.mark.parametrize("error", [FakeDriver.OperationalError, ValueError])
def test_a_connection_whose_rollback_fails_is_replaced(
    pool_of: Callable[..., Any], error: type[Exception]
) -> None:
    driver = FakeDriver()
    pool = pool_of(driver.connect)
    pool.connect().close()

    def fail(_name: str) -> None:
        raise error("no")

    driver.connections[0]._call = fail  # type: ignore[method-assign]
    lent = pool.connect()
    lent.close()
    lent.close()
    settle()
    assert not driver.connections[0].is_open
    pool.connect().close()
    assert len(driver.connections) == 2
    assert driver.connections[1].calls == ["rollback"]


def test_a_kill_in_the_rollback_goes_on_and_the_place_is_free(pool_of: Callable[..., Any]) -> None:
    driver = FakeDriver()
    pool = pool_of(driver.connect)
    pool.connect().close()
    driver.call_time = 3600.0
    lent = pool.connect()
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
        lent.close()
    driver.call_time = 0.0
    pool.connect().close()
    assert [one.is_open for one in driver.connections] == [False, True]
    assert pool.stats().in_use == 0


def test_what_sqlalchemy_has_rolled_back_is_not_rolled_back_again() -> None:
    driver = FakeDriver()
    pool = GeventPool(driver.connect)
    fairy: Any = pool.connect()
    fairy.rollback()
    fairy._close_special(transaction_reset=True)
    assert driver.connections[0].calls == ["rollback"]
    pool.close()


def test_a_listener_that_leaves_the_connection_in_the_middle_of_a_query_has_it_replaced() -> None:
    driver = FakeDriver()
    pool = GeventPool(driver.connect)

    @event.listens_for(pool, "reset")
    def ask(connection: Any, *_: object) -> None:
        driver.call_time = 3600.0
        with gevent.Timeout(0.001, False):
            connection.commit()
        driver.call_time = 0.0

    pool.connect().close()
    settle()
    assert not driver.connections[0].is_open
    assert driver.connections[0].calls == ["commit", "close"]
    pool.close()


def test_a_watched_connection_is_known_however_many_classes_there_are() -> None:
    connection: Any = FakeDriver().connect()
    prepare(connection)
    before = driver_for(connection)
    connection._geventpool_exchange.spoil()
    by_class.clear()
    assert driver_for(connection) is before
    assert driver_for(connection).state(connection).value == "broken"


def test_what_an_unwatched_connection_may_have_inside_is_looked_for_once() -> None:
    looks: list[str] = []

    class Looking(Deaf):
        def __getattr__(self, name: str) -> Any:
            looks.append(name)
            raise AttributeError(name)

    pool = ConnectionPool(lambda: Looking(FakeDriver(), 1))
    with pool.connection():
        pass
    looks.clear()
    for _ in range(3):
        with pool.connection():
            pass
    assert looks == []
    pool.close()
