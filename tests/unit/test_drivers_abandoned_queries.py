"""What an abandoned query does to its socket, without a server."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent._hub_local import get_hub_if_exists
from gevent.monkey import get_original

from geventpool.drivers import AbandonedQuery, Driver
from geventpool.drivers.pg8000 import Pg8000
from geventpool.drivers.sockets import move_socket


@pytest.fixture
def pair() -> Iterator[tuple[Any, Any]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def nothing(connect: object) -> None:
    """A cancel that has no effect."""


def test_an_unknown_driver_leaves_no_abandoned_query_and_is_never_full() -> None:
    driver = Driver()
    assert driver.abandoned(object()) is None
    assert not driver.server_is_full(Exception("too many clients already"))
    driver.move(object())


def test_an_abandoned_query_waits_until_the_peer_has_hung_up(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    abandoned = AbandonedQuery(ours.fileno(), 7, nothing)
    ours.close()
    assert not abandoned.wait(0)
    assert not abandoned.wait(0.01)
    assert theirs.recv(1) == b"", "we have hung up, though the descriptor is open"
    gevent.spawn_later(0.01, theirs.close)
    assert abandoned.wait(5)
    abandoned.close()
    abandoned.close()
    assert not abandoned.wait(5), "nothing is to be seen any more"


def test_an_abandoned_query_reads_what_the_peer_wants_to_be_rid_of(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    abandoned = AbandonedQuery(ours.fileno(), 7, nothing)
    ours.close()

    def answer() -> None:
        theirs.sendall(bytes(5_000_000))
        theirs.close()

    gevent.spawn(answer)
    assert abandoned.wait(5)
    abandoned.close()


def test_a_peer_that_never_stops_talking_does_not_stop_the_hub(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    abandoned = AbandonedQuery(ours.fileno(), 7, nothing)
    ours.close()

    def talk() -> None:
        while True:
            theirs.sendall(bytes(100_000))

    talker = gevent.spawn(talk)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.001)
            ticks += 1

    ticker = gevent.spawn(tick)
    assert not abandoned.wait(0.2)
    gevent.killall([talker, ticker])
    abandoned.close()
    assert ticks > 5


def test_a_reset_is_an_end_too(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    abandoned = AbandonedQuery(ours.fileno(), 7, nothing)
    ours.sendall(b"unread")  # which makes it a reset
    ours.close()
    theirs.close()
    assert abandoned.is_over
    assert abandoned.wait(5)
    abandoned.close()


def test_where_the_peer_has_hung_up_already_there_is_no_abandoned_query_and_nothing_to_cancel(
    pair: tuple[Any, Any],
) -> None:
    ours, theirs = pair
    asked: list[object] = []
    abandoned = AbandonedQuery.of(ours.fileno(), 7, asked.append)
    assert abandoned is not None
    abandoned.cancel(list)
    assert asked == [list]
    theirs.sendall(b"farewell")
    theirs.close()
    abandoned.cancel(list)
    assert asked == [list]
    assert AbandonedQuery.of(ours.fileno(), 7, asked.append) is None
    abandoned.close()
    ours.close()
    assert AbandonedQuery.of(ours.fileno(), 7, asked.append) is None
    assert AbandonedQuery.of(None, 7, asked.append) is None


def test_an_abandoned_query_that_nobody_closes_is_no_leak(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    abandoned = AbandonedQuery(ours.fileno(), 7, nothing)
    ours.close()
    assert repr(abandoned) == "<AbandonedQuery of server connection 7>"
    del abandoned
    with gevent.Timeout(60):
        assert theirs.recv(1) == b""


def test_an_abandoned_query_is_closed_now_and_not_at_the_next_turn_of_the_loop(
    pair: tuple[Any, Any],
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    abandoned = AbandonedQuery(pair[0].fileno(), 7, nothing)
    assert set(os.listdir("/proc/self/fd")) != before
    abandoned.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_process_without_a_free_descriptor_can_cancel_but_not_see_the_end(
    pair: tuple[Any, Any],
) -> None:
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked: list[object] = []
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, was[1]))
    try:
        abandoned = AbandonedQuery.of(pair[0].fileno(), 7, asked.append)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, was)
    assert abandoned is not None
    abandoned.cancel(list)
    assert asked == [list]
    assert not abandoned.wait(5)
    abandoned.close()


def test_pg8000s_cancel_goes_to_the_unix_socket_that_the_connection_came_by(tmp_path: Path) -> None:
    address = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as ours:
        server.bind(address)
        server.listen()
        ours.connect(address)
        connection = SimpleNamespace(
            _usock=ours,
            _exchange=SimpleNamespace(is_open=True),
            _backend_key_data=struct.pack("!ii", 7, -8),
        )
        abandoned = Pg8000().abandoned(connection)
        assert abandoned is not None
        assert abandoned.server_id == 7
        theirs, _ = server.accept()
        heard: list[bytes] = []

        def listen() -> None:
            asking, _ = server.accept()
            heard.append(asking.recv(100))
            asking.close()

        listener = gevent.spawn(listen)
        abandoned.cancel(list)
        listener.join(5)
        assert heard == [struct.pack("!iiii", 16, 80877102, 7, -8)]
        theirs.close()
        abandoned.close()


def test_a_server_that_gave_pg8000_no_key_cannot_be_asked(pair: tuple[Any, Any]) -> None:
    connection = SimpleNamespace(
        _usock=pair[0], _exchange=SimpleNamespace(is_open=True), _backend_key_data=None
    )
    abandoned = Pg8000().abandoned(connection)
    assert abandoned is not None
    with pytest.raises(RuntimeError, match="no key"):
        abandoned.cancel(list)
    abandoned.close()


def test_what_is_no_socket_of_gevents_is_not_moved(pair: tuple[Any, Any]) -> None:
    foreign = object()
    for sock in (
        None,
        SimpleNamespace(),
        SimpleNamespace(hub=foreign),
        SimpleNamespace(hub=foreign, _read_event=None, _write_event=None),
        SimpleNamespace(hub=foreign, _read_event=1, _write_event=1, fileno=lambda: -1),
    ):
        before = dict(vars(sock)) if sock else None
        move_socket(sock)
        assert sock is None or vars(sock) == before
    events = pair[0]._read_event, pair[0]._write_event
    move_socket(pair[0])
    assert (pair[0]._read_event, pair[0]._write_event) == events, "it is ours already"


def test_a_plain_socket_gives_its_thread_no_hub() -> None:
    ended: Any = get_original("_thread", "allocate_lock")()
    ended.acquire()
    found: list[Any] = []

    def run() -> None:
        try:
            move_socket(SimpleNamespace())
            found.append(get_hub_if_exists())
        finally:
            ended.release()

    get_original("_thread", "start_new_thread")(run, ())
    assert ended.acquire(timeout=10)
    assert found == [None]
