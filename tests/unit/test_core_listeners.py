"""Who is told of what happens to a pool."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool
from geventpool.core import registry
from geventpool.core.listener import Listener
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeDriver, settle


def test_a_listener_need_say_nothing(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    pool.core.add_listener(Listener())
    with pool.connection() as connection:
        assert connection is driver.connections[0]
    pool.connection().invalidate()


class Failing(Listener):
    """Raises in one of its methods."""

    def __init__(self, method: str) -> None:
        self.times = 0
        setattr(self, method, self._fail)

    def _fail(self, *_: object) -> Any:
        self.times += 1
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "method", ["lent", "waited", "refused", "returned", "opened", "closed", "handed_out"]
)
def test_a_listener_that_raises_is_told_nothing_more_and_costs_nothing(
    driver, clock, method, caplog: pytest.LogCaptureFixture
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, timeout=1)
    pool.core.add_listener(listener := Failing(method))
    lent = pool.connection()
    late = gevent.spawn(pool.connection, timeout=0.5)
    clock.advance(0.7)
    assert late.exception is not None
    lent.close()
    pool.connection().invalidate()
    settle()
    assert pool.stats().size == 0
    pool.connection().close()
    settle()
    assert (pool.stats().idle, pool.stats().size) == (1, 1)
    assert (listener.times, pool.core.listener) == (1, None)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("method", ["cursor_made", "transaction_ending"])
def test_a_listener_that_raises_costs_nothing_at_sqlalchemys_door(method) -> None:
    driver = FakeDriver()
    pool = GeventPool(driver.connect)
    pool.core.add_listener(listener := Failing(method))
    connection = pool.connect()
    cursor = connection.cursor()
    cursor.execute("select 1")
    connection.commit()
    connection.close()
    settle()
    assert (listener.times, pool.core.listener) == (1, None)
    assert pool.stats().idle == 1


class Killed(Failing):
    """Has switched greenlets in one of its methods, against its contract, and was killed there."""

    def _fail(self, *_: object) -> Any:
        raise gevent.GreenletExit


@pytest.mark.parametrize(
    "method", ["lent", "waited", "refused", "returned", "opened", "closed", "handed_out"]
)
def test_a_kill_that_arrives_in_a_listener_costs_no_connection(driver, clock, method) -> None:
    shed_after = 1 if method == "refused" else None
    pool = ConnectionPool(
        driver.connect, clock=clock, max_size=1, shed_after=shed_after, reclaim_after=None
    )
    pool.core.add_listener(killed := Killed(method))

    def use(end: str) -> None:
        lent = pool.connection(timeout=5)
        clock.sleep(2)  # for too long for the next in line
        getattr(lent, end)()

    users = [gevent.spawn(use, end) for end in ("close", "invalidate", "invalidate", "close")]
    clock.advance(30)
    assert all(user.dead for user in users)
    pool.core.remove_listener(killed)
    pool.core.ledger.check()
    assert pool.stats().size == pool.stats().idle
    pool.connection(timeout=1).close()
    pool.core.dispose()
    assert driver.open_connections == []


def test_a_kill_that_arrives_in_a_listener_at_dispose_leaves_nothing_open(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2)
    for one in [pool.connection(), pool.connection()]:
        one.close()
    pool.core.add_listener(killed := Killed("closed"))
    with pytest.raises(gevent.GreenletExit):
        pool.core.dispose()
    pool.core.remove_listener(killed)
    settle()
    pool.core.dispose()
    assert (driver.open_connections, pool.stats().size) == ([], 0)


class Replaces(Listener):
    """Ends itself, has another take its place, and raises all the same."""

    def __init__(self, pool: Any, other: Listener) -> None:
        self._pool, self._other = pool, other

    def lent(self, *_: object) -> None:
        self._pool.core.remove_listener(self)
        self._pool.core.add_listener(self._other)
        raise ZeroDivisionError


class Counting(Listener):
    times = 0

    def lent(self, *_: object) -> None:
        self.times += 1


def test_a_listener_that_takes_the_place_of_one_that_raises_stays(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    other = Counting()
    pool.core.add_listener(Replaces(pool, other))
    pool.connection().close()
    assert pool.core.listeners == (other,)
    pool.connection().close()
    settle()
    assert other.times == 1


def test_a_listener_that_another_thread_adds_meanwhile_stays(driver, monkeypatch) -> None:
    """Python may switch threads anywhere, such as while the methods of a listener are looked up."""
    pool = ConnectionPool(driver.connect)
    other = Counting()

    class Slow(Listener):
        @property
        def opened(self) -> Any:
            if other not in pool.core.listeners:
                pool.core.add_listener(other)
            return super().opened

    slow = Slow()
    pool.core.add_listener(slow)
    assert pool.core.listeners == (slow, other)
    pool.connection().close()
    assert other.times == 1


def test_a_listener_that_is_added_twice_is_told_once(driver) -> None:
    pool = ConnectionPool(driver.connect)
    pool.core.add_listener(one := Counting())
    pool.core.add_listener(one)
    pool.connection().close()
    assert one.times == 1
    pool.core.remove_listener(one)
    assert pool.core.listener is None


@pytest.mark.usefixtures("no_pools_of_other_tests")
def test_a_listener_that_raises_about_a_connection_of_the_parent_costs_the_child_nothing(
    driver, caplog: pytest.LogCaptureFixture, monkeypatch
) -> None:
    monkeypatch.setattr(registry, "_at_fork", [])
    pool = GeventPool(driver.connect)
    parents = pool.connect()
    pool.core.add_listener(Failing("cursor_made"))
    registry.unforked.value = 0  # as the kernel does in a child
    parents.cursor()
    settle()
    assert "ZeroDivisionError" in caplog.text
    assert pool.core.listener is None
    parents.close()
