"""Cases in which a pool once lost a place, overstepped a deadline or did what nobody had asked for."""

from __future__ import annotations

import gc
import os
import socket
import time
import weakref
from contextlib import suppress
from typing import Any

import gevent
import pytest
import sqlalchemy
from gevent import monkey

from geventpool import ConnectionPool, PoolClosed, PoolTimeout
from geventpool.core.watch import look
from geventpool.drivers import Driver
from geventpool.sizing import fixed
from geventpool.sqlalchemy import GeventPool, GeventPoolTimeout, wrap
from geventpool.testing import FakeDriver, settle


def test_an_open_that_ends_after_the_pool_was_closed_is_closed_too(clock, driver) -> None:
    driver.connect_time = 1
    pool = ConnectionPool(driver.connect, clock=clock)
    caller = gevent.spawn(pool.connection)
    settle()
    pool.close()
    clock.advance(2)
    assert isinstance(caller.exception, PoolClosed)
    assert (driver.open_connections, pool.stats().size) == ([], 0)


def test_a_pool_that_was_warmed_up_and_disposed_of_opens_nothing_more() -> None:
    driver = FakeDriver()
    pool = GeventPool(driver.connect, min_idle=2, sizing=fixed(idle_timeout=0))
    pool.warm_up()
    settle()
    assert len(driver.open_connections) == 2
    pool.dispose()
    settle()
    assert (driver.open_connections, driver.attempts) == ([], 2)
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None


def test_recreating_keeps_what_was_configured_meanwhile() -> None:
    connect = FakeDriver().connect
    pool = GeventPool(connect, pool_size=5, max_overflow=10)
    pool.resize(3)
    assert pool.recreate().config.max_size == 3
    pool = GeventPool(connect, pool_size=20, max_overflow=0)
    pool.configure(max_overflow=5)
    assert (pool.config.max_size, pool.size()) == (25, 20)
    pool.configure(profile="production", recycle=60)
    config = pool.recreate().config
    assert (config.max_size, config.timeout, config.recycle) == (75, 60, 60)
    pool.configure(max_size=4)
    assert (pool.config.max_size, pool.config.timeout) == (4, 60)


def test_sqlalchemys_side_of_a_setting_changes_with_it() -> None:
    driver = FakeDriver()
    pool = GeventPool(driver.connect, recycle=1800, reset_on_return="rollback")
    pool.configure(reset_on_return="commit", recycle=-1)
    pool.connect().close()
    assert driver.connections[0].calls == ["commit"]
    assert pool._recycle == -1
    pool.configure(reset_on_return=None)
    pool.connect().close()
    assert driver.connections[0].calls == ["commit"]


def test_who_ends_the_opening_greenlet_does_not_end_the_caller(clock, driver) -> None:
    driver.connect_time = 1
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    caller = gevent.spawn(pool.connection)
    settle()
    for greenlet in list(pool.core.upkeep.in_flight):
        gevent.get_hub().loop.run_callback(greenlet.throw, gevent.GreenletExit)
    clock.advance(3)
    assert caller.get(block=False) is not None
    assert driver.attempts == 2


def test_killing_all_greenlets_loses_no_place(driver) -> None:
    pool = ConnectionPool(driver.connect, max_size=1)
    with pytest.raises(PoolTimeout):
        pool.connection(timeout=0)
    found = [one for one in gc.get_objects() if issubclass(type(one), gevent.Greenlet)]
    gevent.killall([one for one in found if not one.dead], block=False)
    settle()
    assert pool.connection(timeout=0) is not None


def test_sqlalchemys_timeout_zero_does_not_wait_for_what_others_wait_for(driver, clock) -> None:
    pool = GeventPool(driver.connect, max_size=2, timeout=0)
    held = [pool.connect()]
    pool.core.clock = clock
    driver.connect_time = 1
    first = gevent.spawn(lambda: held.append(pool.connect()))
    settle()
    second = gevent.spawn(pool.connect)
    settle()
    assert isinstance(second.exception, GeventPoolTimeout)
    clock.advance(1)
    assert first.dead
    assert len(held) == 2


def test_the_deadline_covers_the_ping(driver) -> None:
    driver.clock = None
    pool = ConnectionPool(driver.connect, pre_ping=True, reset_on_return=None)
    pool.connection().close()
    driver.call_time = 60
    began = time.monotonic()
    with pytest.raises(PoolTimeout):
        pool.connection(timeout=0.05)
    assert time.monotonic() - began < 30, "the ping is still under way"
    settle()
    assert pool.stats().size == 0


def test_a_timeout_of_the_callers_own_during_the_ping_comes_out_as_itself(driver) -> None:
    driver.clock = None
    pool = ConnectionPool(driver.connect, pre_ping=True, reset_on_return=None)
    pool.connection().close()
    driver.call_time = 5
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.05) as own:
        pool.connection(timeout=3)
    assert caught.value is own


@pytest.mark.parametrize("how", ["close", "invalidate"])
def test_a_connection_given_back_by_a_native_thread_is_not_lost(how: str, driver) -> None:
    pool = ConnectionPool(driver.connect, max_size=1)
    lent = pool.connection()
    gevent.get_hub().threadpool.apply(getattr(lent, how))
    gevent.sleep(0.01)
    assert pool.stats().in_use == 0
    assert pool.connection(timeout=1) is not None


def test_a_native_thread_is_served_by_the_hub_that_owns_the_pool(driver) -> None:
    pool = ConnectionPool(driver.connect)
    ours = pool.connection()
    ours.close()

    def elsewhere() -> tuple[object, int]:
        with pool.connection() as connection:
            return connection, pool.stats().in_use

    theirs, in_use = gevent.get_hub().threadpool.apply(elsewhere)
    assert theirs is ours.connection
    assert in_use == 1
    assert pool.stats().in_use == 0


def _error_of(call: Any) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None


def test_draining_ends_when_the_last_waiter_has_been_refused(driver, clock) -> None:
    driver.connect_time, driver.is_down = 1, True
    pool = ConnectionPool(driver.connect, clock=clock)
    caller = gevent.spawn(_error_of, pool.connection)
    settle()
    drainer = gevent.spawn(pool.drain, 100)
    clock.advance(2)
    assert isinstance(caller.value, FakeDriver.Error)
    assert drainer.value is True


def test_a_fork_while_a_connection_is_opened_leaves_nothing_of_it_in_the_child(driver) -> None:
    driver.clock = None
    driver.connect_time = 0.05
    pool = ConnectionPool(driver.connect, max_size=2)
    caller = gevent.spawn(_error_of, lambda: pool.connection().close())
    gevent.sleep(0.01)
    assert pool.stats().opening == 1
    # gevent's own fork would also start the child's signal handling; the plain one is enough here.
    child = monkey.get_original("os", "fork")()
    if child == 0:
        status = 1
        try:
            gevent.reinit()
            gevent.sleep(0.1)
            pool.core.ledger.check()
            stats = pool.stats()
            if (stats.size, stats.opened, stats.opening) == (0, 0, 0):
                pool.connection().close()
                status = 0 if pool.stats().opened == 1 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    caller.join(1)
    assert caller.value is None
    assert pool.stats().opened == 1


def test_a_look_at_a_socket_leaves_it_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    os.set_blocking(ours.fileno(), True)
    socket.setdefaulttimeout(5)
    try:
        assert look(ours.fileno()) == b"x"
    finally:
        socket.setdefaulttimeout(None)
    assert os.get_blocking(ours.fileno())
    assert ours.recv(1) == b"x"
    assert look(ours.fileno()) is None
    theirs.close()
    assert look(ours.fileno()) == b""
    ours.close()


class Surprising(Driver):
    """A driver's file that raises where none should."""

    name = "surprising"

    def __init__(self, method: str) -> None:
        setattr(self, method, self._raise)

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("a driver's surprise")


@pytest.mark.parametrize("method", ["fileno", "state", "ping"])
def test_a_driver_that_raises_where_none_should_costs_no_place(
    method: str, driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    surprising = Surprising(method)
    monkeypatch.setattr("geventpool.drivers.driver_for", lambda _: surprising)
    pool = ConnectionPool(driver.connect, max_size=1, pre_ping=True)
    for _ in range(3):
        with suppress(RuntimeError):
            pool.connection(timeout=1).close()
        settle()
        stats = pool.stats()
        assert (stats.in_use, stats.opening, stats.waiting) == (0, 0, 0)


@pytest.mark.parametrize("style", ["commit", None])
def test_wrapping_keeps_what_a_pool_does_on_return(style: str | None, tmp_path: Any) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/x.db", pool_reset_on_return=style)
    assert wrap(engine).pool.config.reset_on_return == style


def test_a_ping_that_nobody_waits_for_is_given_up_in_time(driver) -> None:
    pool = ConnectionPool(driver.connect, ping_after=0, max_size=1, connect_timeout=0.01)
    pool.connection().close()
    driver.call_time = 1  # of its clock, which stands still: a link that was lost
    with pytest.raises(PoolTimeout):
        pool.connection(timeout=0)
    assert pool.stats().in_use == 1
    with gevent.Timeout(5):
        while pool.stats().size:
            gevent.sleep(0.001)
    assert pool.stats().closed == {"dead": 1}
