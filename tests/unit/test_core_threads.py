"""Other native threads, and programs that are not monkey-patched."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gevent
import gevent.event
import pytest
from gevent import get_hub
from gevent.monkey import get_original

from geventpool import ConnectionPool, PoolClosed, PoolTimeout
from geventpool.core.clock import HubClock
from geventpool.core.waiter import Waiter
from geventpool.testing import FakeDriver, settle

start_thread = get_original("_thread", "start_new_thread")


@pytest.fixture
def pool() -> ConnectionPool:
    pool = ConnectionPool(FakeDriver().connect, max_size=1, timeout=5)
    pool.connection().close()  # and so this thread's hub owns it
    return pool


def in_thread(function: Any, *arguments: Any) -> Any:
    return get_hub().threadpool.apply(function, arguments)


def in_plain_thread(function: Any) -> Any:
    """In a thread without a hub, of which gevent knows nothing."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    start_thread(run, ())
    while not outcome:
        gevent.sleep(0.001)
    return outcome[0]


def borrow(pool: ConnectionPool) -> int:
    with pool.connection() as connection:
        return int(connection.number)


def test_a_plain_thread_and_one_of_gevents_share_the_connection(pool) -> None:
    assert in_plain_thread(lambda: borrow(pool)) == 1
    assert in_thread(borrow, pool) == 1
    assert pool.stats().opened == 1
    assert pool.stats().in_use == 0, "a release is seen when it returns"
    pool.core.ledger.check()


def test_a_thread_waits_in_line_with_the_greenlets(pool) -> None:
    held = pool.connection()
    elsewhere = get_hub().threadpool.spawn(borrow, pool)
    while not pool.stats().waiting:
        gevent.sleep(0.001)
    behind = gevent.spawn(borrow, pool)
    settle()
    assert pool.stats().waiting == 2
    held.close()
    assert elsewhere.get() == behind.get() == 1


def test_a_thread_is_told_when_its_time_is_over_or_the_pool_is_closed(pool) -> None:
    held = pool.connection()
    with pytest.raises(PoolTimeout, match="saturated"):
        in_thread(pool.connection, 0.05)
    assert isinstance(in_plain_thread(lambda: pool.connection(0)), PoolTimeout)
    waiting = get_hub().threadpool.spawn(borrow, pool)
    while not pool.stats().waiting:
        gevent.sleep(0.001)
    in_plain_thread(pool.close)
    with pytest.raises(PoolClosed):
        waiting.get()
    held.close()


def test_a_killed_greenlet_of_another_thread_takes_nothing_with_it(pool) -> None:
    """In line, and after it was served."""
    held = pool.connection()

    def elsewhere(seconds: float) -> bool:
        with gevent.Timeout(seconds, False):
            pool.connection()
            return True
        return False

    assert in_thread(elsewhere, 0.05) is False
    settle()
    assert pool.stats().waiting == 0
    held.close()
    step = max(5e-6, gevent.get_hub().loop.approx_timer_resolution)  # libuv counts milliseconds
    for number in range(40):
        in_thread(elsewhere, number * step)
    with pool.connection(timeout=1):
        pool.core.ledger.check()


def test_settings_and_figures_are_for_every_thread(pool) -> None:
    in_plain_thread(lambda: pool.configure(max_size=3, min_idle=2))
    in_plain_thread(pool.warm_up)
    gevent.sleep(0.01)
    stats = in_plain_thread(pool.stats)
    assert (stats.max_size, stats.idle) == (3, 2)
    assert in_plain_thread(lambda: pool.drain(1)) is True


def test_what_a_thread_drops_comes_back(pool) -> None:
    def drop() -> None:
        pool.connection()

    in_thread(drop)
    with pool.connection(timeout=1) as connection:
        assert connection.number == 1


UNPATCHED = """
import threading, time
from geventpool import ConnectionPool, PoolTimeout
from geventpool.testing import FakeConnection

lock, live, most = threading.Lock(), set(), 0

class Driver:
    Error = Exception
    call_time = 0

def connect():
    time.sleep(0.01)
    return FakeConnection(Driver, 1)

pool = ConnectionPool(connect, max_size=3)

def work():
    global most
    for _ in range(50):
        with pool.connection() as connection:
            with lock:
                assert connection not in live
                live.add(connection)
                most = max(most, len(live))
            time.sleep(0.0005)
            with lock:
                live.discard(connection)

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
work()
for thread in threads: thread.join()
stats = pool.stats()
assert most == 3, most
assert (stats.checkouts, stats.in_use, stats.waiting) == (450, 0, 0), stats
held = [pool.connection() for _ in range(3)]
try:
    pool.connection(timeout=0.05)
except PoolTimeout as error:
    assert "max 3" in str(error)
else:
    raise AssertionError("a fourth")
pool.close()
for connection in held: connection.close()
for _ in range(1000):  # they are closed in the background
    if not pool.stats().size: break
    time.sleep(0.01)
assert pool.stats().size == 0
print("fine")
"""


def test_a_program_that_is_not_monkey_patched_works_with_its_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", UNPATCHED],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


def test_what_a_native_thread_uses_is_not_reclaimed_when_the_greenlet_that_took_it_ends(
    driver, clock, caplog: pytest.LogCaptureFixture
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, reclaim_after=1)
    lent = gevent.spawn(pool.connection).get()
    settle()
    clock.advance(0.5)
    in_thread(lambda: lent.number)
    settle()
    clock.advance(5)
    assert (driver.open_connections, caplog.text) == (driver.connections, "")
    in_thread(lent.close)
    settle()
    assert (pool.stats().idle, pool.stats().owners_ended) == (1, 0)


ANOTHER_HUB = """
from gevent import monkey; monkey.patch_all()
import gevent, logging
from geventpool import ConnectionPool
from geventpool.testing import FakeDriver

driver = FakeDriver()
pool = ConnectionPool(driver.connect, timeout=1, max_size=1)
lent = pool.connection()
waits = gevent.spawn(pool.connection, timeout=None)
gevent.sleep(0)
gevent.get_hub().destroy(destroy_loop=True)
with pool.connection() as connection:
    assert connection is driver.connections[1]
lent.close()
assert gevent.spawn(pool.drain, 1).get()
assert str(pool).startswith("<pool (max 1, idle 1, in use 0"), pool
pool.close()
print("as before")
"""


def test_a_pool_goes_on_when_the_hub_that_owned_it_was_destroyed_and_made_anew() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_HUB], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("as before\n", "")


CHILD = """
from gevent import monkey; monkey.patch_all()
import os, sys, gevent
from gevent.monkey import get_original
from geventpool import ConnectionPool
from geventpool.testing import FakeDriver

pool = ConnectionPool(FakeDriver().connect, max_size=2)
pool.connection().close()
get_original("_thread", "start_new_thread")(pool.connection, ())
while not pool.core.mailbox._letters:
    get_original("time", "sleep")(0.001)
if sys.argv[1] == "taken out":
    pool.core.mailbox._open()
child = os.fork()
if not child:
    pool.connection().close()
    gevent.get_hub().threadpool.apply(lambda: pool.connection().close())
    print(pool.stats().checkouts, pool.stats().in_use, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("letter", ["not taken out", "taken out"])
def test_what_a_thread_of_the_parent_has_asked_for_is_not_done_in_the_child(letter: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, letter], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("2 0\n", "")


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("how", ["serve", "refuse", "expire"])
def test_what_another_thread_has_done_too_late_disturbs_nobody(how, is_killed) -> None:
    waiter = Waiter()
    if is_killed:
        get_hub().loop.run_callback(gevent.getcurrent().throw, ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            waiter.wait(HubClock(), None)
    else:
        assert not waiter.wait(HubClock(), 0.0)
    {"serve": lambda: waiter.serve(1), "refuse": lambda: waiter.refuse(OSError())}.get(
        how, waiter.expire
    )()
    looked = gevent.event.Event()
    assert not looked.wait(0.0), "nothing wakes this greenlet"
    settle()


def test_a_waiter_is_settled_once() -> None:
    waiter = Waiter()
    waiter.serve(1)
    assert waiter.wait(HubClock(), None)
    with pytest.raises(AssertionError, match="bug"):
        waiter.refuse(OSError())
    assert (waiter.value, waiter.error) == (1, None)
