"""The hub's epoll: who is told of what, across numbers that are used again, forks, threads and hubs."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import pymysql
import pytest
from gevent import monkey

from geventpool import ConnectionPool
from geventpool.core import watch
from geventpool.core.threads import mailbox_here
from geventpool.core.watch import FEW, MOMENT, Watch
from geventpool.testing import settle

if sys.platform != "linux":
    pytest.skip("there is no epoll", allow_module_level=True)


class Wired(pymysql.connections.Connection):
    """PyMySQL's connection to a server that does what the test does with the other end."""

    def __init__(self) -> None:
        self.connect()
        self._result = None
        self.server_status = 0
        self.client_flag = 0

    def connect(self, sock: Any = None) -> None:
        self._sock, self.server = socket.socketpair()

    def rollback(self) -> None:
        self.server_status = 0

    def close(self) -> None:
        self._force_close()

    def _force_close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self.server.close()

    __del__ = _force_close

    def hang_up(self) -> None:
        """As a server that ends it. At once, while gevent's own would wait for the hub's next turn."""
        self.server.shutdown(socket.SHUT_RDWR)


def lend(pool: ConnectionPool, count: int) -> list[Any]:
    """So many connections, which are idle now."""
    lent = [pool.connection() for _ in range(count)]
    connections = [one.connection for one in lent]
    for one in lent:
        one.close()
    return connections


def turn() -> None:
    """Lets the hub look at its descriptors, and others do what they then have to do."""
    gevent.sleep(0.005)
    settle()


@pytest.fixture
def pool() -> Any:
    pool = ConnectionPool(Wired, sizing="fixed")
    yield pool
    pool.close()


def test_who_hangs_up_is_gone_without_anybody_asking(pool: ConnectionPool) -> None:
    connections = lend(pool, 3)
    for one in connections[:2]:
        one.hang_up()
    turn()
    assert (pool.stats().idle, pool.stats().closed) == (1, {"dead": 2})


def test_a_caller_is_lent_what_has_not_hung_up_though_the_hub_had_no_turn(
    pool: ConnectionPool,
) -> None:
    connections = lend(pool, FEW + 4)
    for one in connections[1:]:
        one.hang_up()
    assert pool.connection(timeout=0).connection is connections[0]
    assert (pool.stats().size, pool.stats().closing) == (FEW + 4, FEW + 3)
    settle()
    assert (pool.stats().size, pool.stats().closed) == (1, {"dead": FEW + 3})


def test_last_words_are_seen_before_the_hanging_up(pool: ConnectionPool) -> None:
    [connection] = lend(pool, 1)
    [entry] = pool.core.ledger.entries
    connection.server.send(b"\x17\0\0\0\xff")
    entry.quiet_until = 0.0  # the look before is more than a moment ago
    assert pool.connection().connection is not connection
    assert pool.stats().closed == {"dead": 1}


def test_last_words_are_looked_for_again_however_short_the_loans_are(
    pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend(pool, 1)
    looks = []
    poll_for = watch._poll_for
    monkeypatch.setattr(watch, "_poll_for", lambda fd: looks.append(fd) or poll_for(fd))
    began = time.monotonic()
    while len(looks) < 5 and time.monotonic() < began + 10:
        pool.connection().close()
    assert 5 <= len(looks) <= (time.monotonic() - began) / MOMENT + 1


def test_what_hangs_up_while_it_is_lent_is_closed_when_it_comes_back(pool: ConnectionPool) -> None:
    lent = pool.connection()
    lent.connection.hang_up()
    turn()
    assert pool.stats().closed == {}
    lent.close()
    assert pool.stats().closed == {"dead": 1}


def test_who_was_handed_one_that_has_hung_up_is_first_in_line_again() -> None:
    pool = ConnectionPool(Wired, sizing="fixed", max_size=1, max_waiting=2)
    lent = pool.connection()
    served: list[int] = []

    def use(number: int) -> None:
        with pool.connection():
            served.append(number)

    callers = [gevent.spawn(use, number) for number in range(2)]
    settle()
    callers.append(gevent.spawn(use, 2))  # joins the line before the first one wakes
    lent.connection.hang_up()
    lent.close()  # the hub has had no turn
    gevent.joinall(callers, timeout=5)
    assert served == [0, 1, 2]
    assert pool.stats().closed == {"dead": 1}
    pool.close()


def test_one_that_reconnects_while_it_is_lent_is_known_by_its_new_socket(
    pool: ConnectionPool,
) -> None:
    lent = pool.connection()
    connection = lent.connection
    connection.hang_up()
    turn()
    connection.close()
    connection.connect()
    lent.close()
    [entry] = pool.core.ledger.entries
    assert (entry.fd, entry.is_suspect) == (connection._sock.fileno(), False)
    with pool.connection() as again:
        assert again is connection
    connection.hang_up()
    turn()
    assert (pool.stats().closed, pool.stats().pings) == ({"dead": 1}, 0)


def test_a_new_one_that_could_not_be_watched_is_pinged_before_it_is_lent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(connection: Any) -> Any:
        raise RuntimeError("a driver's surprise")

    pings: list[Any] = []
    monkeypatch.setattr(Wired, "ping", lambda one, reconnect: pings.append(one), raising=False)
    pool = ConnectionPool(Wired, sizing="fixed", min_idle=1)
    with monkeypatch.context() as fault:
        fault.setattr(pool.core.handlers, "fileno", fail)
        pool.warm_up()
        settle()
    with pool.connection() as connection:
        assert (pings, pool.stats().pings) == ([connection], 1)
    pool.close()


def test_a_number_that_is_used_again_is_its_new_owners(pool: ConnectionPool) -> None:
    [first] = lend(pool, 1)
    number = first._sock.fileno()
    first._sock.close()
    gevent.sleep(0)
    assert pool.stats().closed == {}, "a socket that is closed here says nothing"
    other = ConnectionPool(Wired)
    others: list[Any] = []
    while number not in [one._sock.fileno() for one in others]:
        assert len(others) < 20, "the number is not used again"
        others = lend(other, len(others) + 1)
    [mine] = [entry for entry in other.core.ledger.entries if entry.fd == number]
    assert (
        pool.connection().connection is not first
    )  # it is retired, and takes nothing of the other's
    settle()
    assert pool.stats().closed == {"dead": 1}
    assert other.stats().closed == {}
    mine.resource.hang_up()
    turn()
    assert other.stats().closed == {"dead": 1}
    other.close()


def test_an_event_of_a_socket_that_had_the_number_before_does_no_harm(pool: ConnectionPool) -> None:
    lend(pool, 2)
    with pool.connection():
        for entry in pool.core.ledger.entries:
            entry.watch.tell([(entry.fd, 0)])
        settle()
    with pool.connection(), pool.connection():
        stats = pool.stats()
    assert (stats.in_use, stats.closed, stats.pings) == (2, {}, 0)


def test_a_pool_that_nobody_refers_to_is_collected_though_it_is_watched() -> None:
    pool = ConnectionPool(Wired)
    [connection] = lend(pool, 1)
    gone = weakref.ref(pool), weakref.ref(pool.core)
    del pool
    turn()  # what has just opened it is at its end
    gc.collect()
    assert [one() for one in gone] == [None, None]
    connection.hang_up()  # which nobody is interested in any more
    turn()


def forked(fork: Callable[[], int], child: Callable[[], bool]) -> bool:
    """Is it so in a child?"""
    pid = fork()
    if pid == 0:
        status = 1
        signal.alarm(20)
        try:
            status = 0 if child() else 2
        finally:
            os._exit(status)
    return monkey.get_original("os", "waitpid")(pid, 0)[1] == 0


def test_a_child_has_an_epoll_of_its_own_and_its_parents_tells_the_parent(
    pool: ConnectionPool,
) -> None:
    connections = lend(pool, 3)

    def child() -> bool:
        gevent.reinit()
        assert pool.stats().size == 0
        mine = lend(pool, 2)
        mine[0].hang_up()
        turn()
        assert pool.stats().closed == {"dead": 1}
        pool.close()
        gc.collect()
        return True

    connections[0].hang_up()  # already, and the hub had no turn
    assert forked(monkey.get_original("os", "fork"), child)
    connections[1].hang_up()
    turn()
    assert (pool.stats().idle, pool.stats().closed) == (1, {"dead": 2})


def test_a_child_that_python_was_not_told_of_takes_nothing_from_its_parent(
    pool: ConnectionPool,
) -> None:
    connections = lend(pool, 2)
    connections[0].hang_up()  # already, and the hub had no turn

    def child() -> bool:
        turn()
        return pool.stats().closed == {}

    assert forked(ctypes.CDLL(None).fork, child)
    turn()
    assert (pool.stats().idle, pool.stats().closed) == (1, {"dead": 1})
    connections[1].hang_up()
    turn()
    assert pool.stats().closed == {"dead": 2}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_thread_has_an_epoll_for_its_own_hub_and_leaves_none_behind() -> None:
    def work() -> dict[str, int]:
        pool = ConnectionPool(Wired)
        pool.core.hub = gevent.get_hub()
        pool.core.mailbox = mailbox_here()
        [connection] = lend(pool, 1)
        connection.hang_up()
        turn()
        closed = dict(pool.stats().closed)
        pool.close()
        gevent.get_hub().destroy(destroy_loop=True)
        return closed

    def in_thread() -> None:
        done = monkey.get_original("_thread", "allocate_lock")()
        done.acquire()

        def run() -> None:
            told.append(work())
            done.release()

        monkey.get_original("_thread", "start_new_thread")(run, ())
        done.acquire()
        gevent.sleep(0.05)

    told: list[dict[str, int]] = []
    in_thread()
    gc.collect()
    before = descriptors()
    for _ in range(3):
        in_thread()
    gc.collect()
    assert told == [{"dead": 1}] * 4
    assert descriptors() == before


@pytest.fixture
def no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch._watches, "here", None, raising=False)


def test_without_a_descriptor_for_it_sockets_are_looked_at_one_by_one(
    pool: ConnectionPool, no_watch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise OSError("too many open files")

    monkeypatch.setattr(watch, "_new_epoll", fail)
    connections = lend(pool, 2)
    connections[1].hang_up()
    turn()
    assert pool.stats().closed == {}
    assert pool.connection().connection is connections[0]
    assert pool.stats().closed == {"dead": 1}


def test_without_epoll_what_hangs_up_is_found_at_each_borrow(
    pool: ConnectionPool, no_watch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_new_epoll", None)
    connections = lend(pool, 3)
    for one in connections[1:]:
        one.hang_up()
    assert pool.connection(timeout=0).connection is connections[0]
    assert pool.stats().closed == {"dead": 2}
    pool.core.discard(next(iter(pool.core.ledger.entries)), "invalidated")


def test_a_watch_that_was_ended_by_a_fork_ends_once(no_watch: None) -> None:
    one = Watch(watch._new_epoll)  # type: ignore[arg-type]
    one.pid = 0
    one.on_ready()
    one.end()
    del one
    gc.collect()
