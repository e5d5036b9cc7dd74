"""Why callers wait, who of them is next, and when the line is too long."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import gevent
import pytest
from gevent.event import Event

from geventpool import ConnectionPool, ConnectTimeout, PoolOverloaded, PoolTimeout
from geventpool.core.patience import Patience
from geventpool.testing import FakeClock, settle


def error_of(greenlet: gevent.Greenlet) -> Any:
    assert greenlet.dead
    return greenlet.exception


def test_a_wait_in_a_full_pool_is_put_down_to_saturation(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, timeout=1)
    held = pool.connection()
    late = gevent.spawn(pool.connection)
    clock.advance(2)
    assert error_of(late).why == "saturated"
    assert "raise max_size" in str(error_of(late))
    served = gevent.spawn(pool.connection)
    settle()
    held.close()
    served.get().close()
    stats = pool.stats()
    assert stats.wait_reasons == {"saturated": 2, "connecting": 1}
    assert stats.timeout_reasons == {"saturated": 1}


def test_only_the_first_whom_a_new_connection_serves_has_waited_for_its_connect(
    driver, clock
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)

    def borrow(is_over: Event) -> None:
        with pool.connection():
            is_over.wait()

    ends = [Event() for _ in range(5)]
    callers = [gevent.spawn(borrow, one) for one in ends]
    for caller, end in zip(callers, ends, strict=True):
        clock.advance(0.5)
        end.set()
        caller.get(timeout=5)
    assert driver.attempts == 1
    assert pool.stats().wait_reasons == {"saturated": 4, "connecting": 1}


def test_a_wait_for_a_slow_connect_is_put_down_to_connecting(driver, clock) -> None:
    driver.connect_time = 5
    pool = ConnectionPool(driver.connect, clock=clock, timeout=1)
    late = gevent.spawn(pool.connection)
    clock.advance(2)
    assert error_of(late).why == "connecting"
    assert "opening a connection takes long" in str(error_of(late))
    clock.advance(10)


def test_a_wait_while_opens_fail_is_put_down_to_the_database(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=3, timeout=3)
    held = pool.connection()
    driver.is_down = True
    late = [gevent.spawn(pool.connection) for _ in range(30)]
    clock.advance(4)
    whys = [error_of(one).why for one in late if isinstance(error_of(one), PoolTimeout)]
    assert set(whys) == {"database down"}
    told = [str(error_of(one)) for one in late if isinstance(error_of(one), PoolTimeout)]
    assert "the fake server is down" in told[0]
    held.close()


def test_a_time_out_shows_no_password_that_the_drivers_error_quotes(driver, clock) -> None:
    def connect() -> object:
        if driver.is_down:
            raise driver.OperationalError("malformed: postgresql://shop:planted@db/shop")
        return driver.connect()

    pool = ConnectionPool(connect, clock=clock, timeout=0.5)
    pool.connection().invalidate()
    driver.is_down = True
    late = gevent.spawn(pool.connection)
    clock.advance(0.6)
    assert "postgresql://shop:***@db/shop" in str(error_of(late))


def test_a_wait_while_the_hub_was_blocked_is_put_down_to_that(driver) -> None:
    pool = ConnectionPool(driver.connect, max_size=1, timeout=0.05)
    held = pool.connection()
    late = gevent.spawn(pool.connection)
    gevent.sleep(0)
    blocked_until = time.perf_counter() + 0.3
    while time.perf_counter() < blocked_until:
        pass
    late.join()
    assert error_of(late).why == "hub blocked"
    assert "blocks without yielding" in str(error_of(late))
    held.close()


def test_a_connect_that_hangs_is_given_up_after_its_own_time(driver, clock) -> None:
    driver.connect_time = 1000
    pool = ConnectionPool(driver.connect, clock=clock, connect_timeout=2, timeout=30)
    caller = gevent.spawn(pool.connection)
    clock.advance(2.1)
    assert isinstance(error_of(caller), ConnectTimeout)
    assert "connect_timeout=2 s" in str(error_of(caller))
    assert pool.stats().opening == 0
    driver.connect_time = 0
    clock.advance(1)
    pool.connection().close()


def test_who_would_be_beyond_the_longest_line_is_told_at_once(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, max_waiting=2)
    held = pool.connection()
    waiting = [gevent.spawn(pool.connection) for _ in range(2)]
    settle()
    with pytest.raises(PoolOverloaded, match="2 callers are in line"):
        pool.connection()
    with pytest.raises(PoolOverloaded):
        pool.connection(timeout=None)
    assert pool.stats().timeout_reasons == {"overloaded": 2}
    held.close()
    settle()
    waiting[0].get().close()
    waiting[1].get().close()


def test_a_line_that_stands_for_too_long_is_served_newest_first_and_refused_early(
    driver, clock
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, shed_after=0.5, timeout=30)
    held = pool.connection()
    old = [gevent.spawn(pool.connection) for _ in range(3)]
    clock.advance(0.4)
    young = [gevent.spawn(pool.connection) for _ in range(2)]
    clock.advance(0.25)
    assert [isinstance(error_of(one), PoolOverloaded) for one in old] == [True] * 3
    held.close()
    settle()
    assert [one.successful() for one in young] == [False, True]
    young[1].get().close()
    young[0].get().close()
    assert pool.stats().timeout_reasons == {"overloaded": 3}


def test_a_short_line_is_served_in_order_even_with_shedding_on(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, shed_after=0.5)
    held = pool.connection()
    both = [gevent.spawn(pool.connection) for _ in range(2)]
    clock.advance(0.4)
    held.close()
    settle()
    assert [one.successful() for one in both] == [True, False]
    both[0].get().close()
    both[1].get().close()


def test_everybody_has_a_deadline_of_his_own(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    held = pool.connection()
    ended: dict[float | None, float] = {}

    def client(timeout: float | None) -> None:
        with suppress(PoolTimeout):
            pool.connection(timeout).close()
        ended[timeout] = round(clock.now() - start, 6)

    start = clock.now()
    for timeout in (None, 30.0, 5.0, 0.03, 12.0, 0.05):
        gevent.spawn(client, timeout)
        settle()
    clock.advance(40)
    assert ended == {0.03: 0.03, 0.05: 0.05, 5.0: 5.0, 12.0: 12.0, 30.0: 30.0}
    held.close()
    settle()
    assert ended[None] == 40
    clock.advance(0.1)
    assert clock.pending == 0


def test_a_wait_without_a_deadline_keeps_no_process_alive() -> None:
    code = (
        "import gevent; from geventpool import ConnectionPool; from geventpool.testing import FakeDriver\n"
        "pool = ConnectionPool(FakeDriver().connect, max_size=1)\n"
        "held = pool.connection()\n"
        "gevent.spawn(lambda: pool.connection(timeout={}))\n"
        "began = __import__('time').monotonic()\n"
        "print(gevent.wait(timeout=1), __import__('time').monotonic() - began > 0.3)\n"
    )
    for timeout, expected in (("None", "True False\n"), ("0.4", "True True\n")):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from gevent import monkey; monkey.patch_all()\n" + code.format(timeout),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stdout == expected, done.stderr


def overload(pool: ConnectionPool, clock: FakeClock, patience: float, seconds: float) -> list[bool]:
    """One place, holds of 0.1 s, a caller each 0.05 s who is killed after `patience` seconds."""
    outcomes: list[bool] = []

    def client() -> None:
        me = gevent.getcurrent()
        kill = clock.call_later(
            patience,
            lambda: gevent.get_hub().loop.run_callback(me.throw, gevent.Timeout()),
            ref=False,
        )
        lent = None
        try:
            lent = pool.connection()
            clock.sleep(0.1)
        except gevent.Timeout:
            outcomes.append(False)
            if lent is not None:  # as one that was left in mid-query
                pool.core.discard(lent._entry, "abandoned")
        else:
            outcomes.append(True)
            lent.close()
        finally:
            kill.stop()

    for _ in range(int(seconds / 0.05)):
        gevent.spawn(client)
        clock.advance(0.05)
    return outcomes


def test_callers_that_are_about_to_be_killed_are_passed_over_once_that_is_learnt(
    driver, clock
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1, timeout=None)
    handlers: Any = pool.core.handlers  # whose driver's file finds that a query was left behind
    handlers.abandoned, handlers.cancel = (lambda _: "an abandoned query"), (lambda _: True)
    outcomes = overload(pool, clock, patience=0.52, seconds=20)
    late = outcomes[len(outcomes) // 2 :]
    # Strictly in order, all are served at an age at which they cannot finish.
    assert sum(late) / len(late) > 0.8 * 0.5, "of twice the demand that there is room for"


def test_who_outlives_the_age_that_was_learnt_is_first_again() -> None:
    patience = Patience()
    for number in range(20):
        patience.ended(0.5, now=number)
    patience.held(0.02)
    young, old = patience.about_to_give_up(now=20)
    assert 0.4 < young < 0.5 < old < 0.8


@pytest.mark.parametrize(
    "ages", [[0.5] * 5, [0.1, 5.0] * 20, [0.03] * 20], ids=["too few", "no agreement", "all doomed"]
)
def test_nobody_is_passed_over_on_weak_evidence(ages: list[float]) -> None:
    patience = Patience()
    patience.held(0.02)
    for number, age in enumerate(ages):
        patience.ended(age, now=number * 0.1)
    young, old = patience.about_to_give_up(now=len(ages) * 0.1)
    assert young > old


def test_what_was_learnt_is_forgotten_when_nobody_is_killed_any_more() -> None:
    patience = Patience()
    for _ in range(20):
        patience.ended(0.5, now=0.0)
    assert patience.about_to_give_up(now=1.0)[0] <= 0.5
    young, old = patience.about_to_give_up(now=6.0)
    assert young > old
