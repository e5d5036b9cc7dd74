"""Which connection an abandoned query is cancelled through, without a server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from geventpool.core import threads
from geventpool.drivers import AbandonedQuery
from geventpool.drivers.canceller import Canceller

SECONDS = 5.0


class Server:
    """What cancels are asked of.

    Attributes:
        lent: what the pool has to lend: connections, `None`, or an error that comes of using it.
        opened: connections that were opened beside the pool.
        log: which connection each query was cancelled through.
    """

    def __init__(self) -> None:
        self.lent: list[Any] = []
        self.opened: list[Connection] = []
        self.log: list[tuple[str, list[int]]] = []
        self.lost: list[str] = []
        self.may_go_on = Event()
        self.may_go_on.set()
        self.refuses = False
        self.canceller = Canceller(self.connect, self.lend, threads.off_hub)

    def connect(self) -> Connection:
        self.opened.append(Connection(self, "opened"))
        return self.opened[-1]

    @contextlib.contextmanager
    def lend(self) -> Iterator[Any]:
        connection = self.lent.pop(0) if self.lent else None
        try:
            yield connection
        except BaseException:
            self.lost.append(connection.name)
            raise

    def abandon(self, number: int) -> tuple[gevent.Greenlet, Abandoned]:
        abandoned = Abandoned(number)
        return gevent.spawn(self.canceller.cancel, abandoned, SECONDS), abandoned


class Connection:
    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.is_open = True
        self.is_dead = False

    def close(self) -> None:
        self.is_open = False


class Abandoned(AbandonedQuery):
    """A query at work on the other socket of a pair."""

    needs_connection = True

    def __init__(self, number: int) -> None:
        ours, self.theirs = socket.socketpair()
        super().__init__(ours.fileno(), number)
        ours.close()

    @staticmethod
    def cancel_all(abandoned_queries: Sequence[Any], connection: Any) -> list[Exception]:
        server = connection.server
        server.may_go_on.wait()
        if connection.is_dead:
            raise OSError("lost")
        server.log.append(
            (connection.name, [abandoned.server_id for abandoned in abandoned_queries])
        )
        if server.refuses:
            return [RuntimeError("another connection leads to another server")]
        for abandoned in abandoned_queries:
            abandoned.theirs.close()
        return []


@pytest.fixture
def server() -> Server:
    return Server()


def test_a_query_that_ends_by_itself_in_a_moment_is_not_cancelled(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geventpool.drivers.canceller._MOMENT", SECONDS)
    laying, abandoned = server.abandon(1)
    gevent.idle()
    abandoned.theirs.close()
    assert laying.get(timeout=SECONDS)
    assert server.log == server.opened == []


def test_a_connection_of_the_pools_cancels_where_it_has_one_to_lend(server: Server) -> None:
    server.lent = [Connection(server, "lent")]
    assert server.abandon(1)[0].get(timeout=SECONDS)
    assert server.log == [("lent", [1])]
    assert server.opened == server.lost == []


def test_where_it_has_none_one_is_opened_and_closed(server: Server) -> None:
    assert server.abandon(1)[0].get(timeout=SECONDS)
    assert server.log == [("opened", [1])]
    assert [connection.is_open for connection in server.opened] == [False]


def test_a_lent_connection_that_is_dead_is_lost_and_one_is_opened(server: Server) -> None:
    server.lent = [Connection(server, "lent")]
    server.lent[0].is_dead = True
    assert server.abandon(1)[0].get(timeout=SECONDS)
    assert server.log == [("opened", [1])]
    assert server.lost == ["lent"]


def test_all_that_are_pending_are_cancelled_at_once(server: Server) -> None:
    server.may_go_on.clear()
    first, _ = server.abandon(1)
    while not server.opened:
        gevent.sleep(0.001)
    others = [server.abandon(number)[0] for number in (2, 3, 4)]
    while len(server.canceller._pending) < 4:
        gevent.sleep(0.001)
    server.may_go_on.set()
    gevent.joinall([first, *others], timeout=SECONDS)
    assert [one.value for one in (first, *others)] == [True] * 4
    assert len(server.opened) <= 2
    assert sorted(number for _, numbers in server.log for number in numbers) == [1, 2, 3, 4]


def test_when_the_one_that_cancels_is_killed_the_next_takes_over(server: Server) -> None:
    server.may_go_on.clear()
    first, abandoned = server.abandon(1)
    while not server.opened:
        gevent.sleep(0.001)
    second, _ = server.abandon(2)
    while len(server.canceller._pending) < 2:
        gevent.sleep(0.001)
    first.kill()
    server.may_go_on.set()
    assert second.get(timeout=SECONDS)
    assert server.log == [("opened", [2])]
    assert not any(connection.is_open for connection in server.opened)
    abandoned.theirs.close()


def test_what_is_refused_is_said_once_and_the_connection_is_kept(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuses = True
    server.lent = [Connection(server, "lent") for _ in range(2)]
    with caplog.at_level(logging.WARNING, "geventpool"):
        for number in (1, 2):
            laying, abandoned = server.abandon(number)
            while len(server.log) < number:
                gevent.sleep(0.001)
            abandoned.theirs.close()
            assert laying.get(timeout=SECONDS), "it is waited for all the same"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "leads to another server" in caplog.text
    assert server.lost == server.opened == []
