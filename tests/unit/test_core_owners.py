"""Greenlets that end with a connection in hand, and rings of greenlets that wait for each other."""

from __future__ import annotations

import gc
import logging
from typing import Any

import gevent
import pytest

from geventpool import ConnectionPool, PoolDeadlock, PoolTimeout
from geventpool.testing import settle

from .rings import nest_all


def take_and_end(pool: ConnectionPool, kept: list[Any]) -> None:
    kept.append(pool.connection())


def test_a_greenlet_that_ends_with_a_connection_is_reported_and_its_place_is_free(
    driver, clock, caplog
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    kept: list[Any] = []
    gevent.spawn(take_and_end, pool, kept).join()
    clock.advance(1.1)
    stats = pool.stats()
    assert (stats.in_use, stats.owners_ended, stats.closed["owner ended"]) == (0, 1, 1)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "<FakeConnection 1>" in record.getMessage()
    assert "Spawned at" in record.getMessage()
    kept[0].close()  # the one who still had it may give it back as ever
    with pool.connection() as other:
        assert other is not kept[0].connection
    pool.core.ledger.check()


def test_the_second_report_says_where_the_connection_was_taken(driver, clock, caplog) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    kept: list[Any] = []
    for _ in range(2):
        gevent.spawn(take_and_end, pool, kept).join()
        clock.advance(1.1)
    line = take_and_end.__code__.co_firstlineno + 1
    assert f'{__file__}", line {line}, in take_and_end' in caplog.records[1].getMessage()


def test_reports_show_no_lines_of_code_because_a_secret_may_be_written_there(
    driver, clock, caplog
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    kept: list[Any] = []
    for _ in range(2):
        gevent.spawn(take_and_end, pool, kept).join()  # hunter2
        clock.advance(1.1)
    assert "in take_and_end" in caplog.records[1].getMessage()
    assert "hunter2" not in caplog.text
    assert "kept" not in "".join(record.getMessage() for record in caplog.records)


def test_reports_do_not_show_what_a_greenlet_was_given(driver, clock, caplog) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    kept: list[Any] = []

    def with_a_secret(_secret: str) -> None:
        kept.append(pool.connection())
        raise RuntimeError(_secret)

    secret = "hunter2"
    greenlet = gevent.spawn(with_a_secret, secret)
    greenlet.join()
    clock.advance(1.1)
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in "".join(record.getMessage() for record in caplog.records)


def test_by_option_it_is_only_reported(driver, clock, caplog) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, reclaim_after=None)
    kept: list[Any] = []
    gevent.spawn(take_and_end, pool, kept).join()
    clock.advance(100)
    assert len(caplog.records) == 1
    assert (pool.stats().in_use, pool.stats().owners_ended) == (1, 1)
    kept[0].close()
    assert pool.stats().idle == 1


def test_a_connection_handed_to_another_greenlet_is_owned_by_who_uses_it(
    driver, clock, caplog
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    kept: list[Any] = []
    gevent.spawn(take_and_end, pool, kept).join()

    def stream() -> None:
        kept[0].cursor()
        clock.sleep(10)
        kept[0].close()

    consumer = gevent.spawn(stream)
    clock.advance(5)
    assert pool.stats().in_use == 1
    clock.advance(6)
    assert consumer.dead
    assert not caplog.records
    assert pool.stats().idle == 1


def test_one_that_is_given_back_in_time_is_nobodys_business(driver, clock, caplog) -> None:
    pool = ConnectionPool(driver.connect, clock=clock)
    kept: list[Any] = []
    gevent.spawn(take_and_end, pool, kept).join()
    kept[0].close()
    again = pool.connection()
    clock.advance(100)
    assert not caplog.records
    assert again.connection.is_open


def test_five_that_hold_one_of_five_and_want_a_second_are_told_at_once(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=5, timeout=30)
    # At once, but for the time that it takes to be sure.
    [error] = nest_all(pool, clock, 5, 0.1)
    assert error.why == "deadlock"
    assert str(error).count("in nest\n") == 5, "all holders with their stacks"
    assert str(error).count("holds <FakeConnection") == 5
    assert pool.stats().timeout_reasons == {"deadlock": 1}
    pool.core.ledger.check()


def test_a_ring_over_two_pools_is_found(driver, clock) -> None:
    first = ConnectionPool(driver.connect, clock=clock, max_size=1, name="first")
    second = ConnectionPool(driver.connect, clock=clock, max_size=1, name="second")
    outcomes = []

    def nest(one: ConnectionPool, other: ConnectionPool) -> None:
        try:
            with one.connection():
                settle()
                with other.connection():
                    outcomes.append("served")
        except PoolDeadlock as error:
            outcomes.append(
                "told of both" if {"<first", "<second"} <= set(str(error).split()) else "told"
            )

    both = [gevent.spawn(nest, first, second), gevent.spawn(nest, second, first)]
    clock.advance(0.1)
    gevent.joinall(both)
    assert outcomes == ["told of both", "served"]


def test_one_holder_that_does_not_wait_is_no_ring(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2)
    free = gevent.event.Event()

    def hold() -> None:
        with pool.connection():
            free.wait()

    def nest() -> str:
        with pool.connection(), pool.connection():
            return "served"

    holder, nesting = gevent.spawn(hold), gevent.spawn(nest)
    settle()
    assert not nesting.dead
    free.set()
    assert nesting.get() == "served"
    assert holder.successful()


def test_a_holder_that_was_served_and_has_not_woken_yet_is_no_ring(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2)
    ours = pool.connection()

    def nest() -> str:
        with pool.connection(), pool.connection():
            return "served"

    nesting = gevent.spawn(nest)
    settle()
    ours.close()  # hands it to the one that nests, which runs only after us
    with pool.connection():
        assert nesting.get() == "served"


def test_connections_handed_to_greenlets_that_have_not_begun_are_theirs(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=3)

    def work(lent: Any) -> None:
        with lent:
            clock.sleep(0.05)

    def produce() -> int:
        for _ in range(10):
            gevent.spawn(work, pool.connection())
        return 10

    producer = gevent.spawn(produce)
    clock.advance(1)
    assert producer.get() == 10
    assert pool.stats().timeout_reasons == {}


def test_of_a_ring_the_one_with_the_least_time_is_told(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2)
    told = []

    def nest(name: str, timeout: float) -> None:
        with pool.connection():
            clock.sleep(0.01)
            try:
                with pool.connection(timeout):
                    pass
            except PoolTimeout as error:
                told.append((name, error.why))

    gevent.spawn(nest, "patient", 30.0)
    gevent.spawn(nest, "hurried", 1.0)
    clock.advance(5)
    assert told == [("hurried", "deadlock")]


def test_a_reclaim_leaves_alone_what_another_greenlet_waits_on(driver, clock, caplog) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    kept: list[Any] = []
    gevent.spawn(take_and_end, pool, kept).join()
    settle()
    pool.core.handlers.is_busy = lambda _: True  # type: ignore[method-assign]
    clock.advance(10)
    assert (pool.stats().in_use, caplog.records) == (1, [])
    pool.core.handlers.is_busy = lambda _: False  # type: ignore[method-assign]
    clock.advance(2)
    assert (pool.stats().in_use, len(caplog.records)) == (0, 1)


def test_a_return_that_is_under_way_is_not_reclaimed(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    kept: list[Any] = []
    gevent.spawn(take_and_end, pool, kept).join()
    clock.advance(0.9)
    driver.call_time = 0.3
    giver = gevent.spawn(kept[0].close)
    clock.advance(1)
    giver.get()
    assert pool.stats().idle == 1
    pool.core.ledger.check()


@pytest.mark.parametrize("is_in_a_cycle", [False, True])
def test_connections_that_were_dropped_are_not_held(driver, clock, is_in_a_cycle: bool) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2)

    def drop_and_ask() -> int:
        for _ in range(2):
            dropped: list[Any] = [pool.connection()]
            if is_in_a_cycle:
                dropped.append(dropped)
        del dropped
        with pool.connection(), pool.connection():  # this greenlet's own have not come back yet
            return int(driver.attempts)

    gc.disable()  # so that they come back as late as possible
    try:
        asking = gevent.spawn(drop_and_ask)
        clock.advance(1)
        assert asking.get(block=False) == 2
    finally:
        gc.enable()


def test_the_timeout_names_those_who_hold(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, timeout=1)

    def the_culprit() -> None:
        with pool.connection():
            clock.sleep(60)

    gevent.spawn(the_culprit)
    waiting = gevent.spawn(pool.connection)
    clock.advance(2)
    with pytest.raises(PoolTimeout, match=r"saturated.*Held for longest: 1 s by .*the_culprit"):
        waiting.get()
    clock.advance(60)
