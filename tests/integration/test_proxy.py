"""The proxy does to connections what it says it does."""

from __future__ import annotations

import contextlib
import errno
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import select, socket
from gevent.monkey import get_original
from gevent.server import StreamServer

from .dbapi import eventually
from .proxy import Proxy

SOON, LONGEST = 0.2, 10.0
native: Any = get_original("socket", "socket")


class Server:
    """Says `hello`, answers each line with itself, and `flood` with very much.

    Attributes:
        sockets: of its clients.
    """

    flood = b"x" * 1_000_000

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self._server = StreamServer(("127.0.0.1", 0), self._handle)
        self._server.start()
        self.port: int = self._server.server_port

    def close(self) -> None:
        self._server.stop(timeout=0)

    def _handle(self, client: socket.socket, _address: object) -> None:
        self.sockets.append(client)
        try:
            client.sendall(b"hello\n")
            with client.makefile("rb") as lines:
                for line in lines:
                    client.sendall(self.flood if line == b"flood\n" else line)
        except OSError:
            pass
        finally:
            self.sockets.remove(client)
            client.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", server.port) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Callable[[], socket.socket]]:
    """Opens a connection through the proxy."""
    with contextlib.ExitStack() as opened:

        def connect() -> socket.socket:
            address = (proxy.host, proxy.port)
            return opened.enter_context(socket.create_connection(address, LONGEST))

        yield connect


@pytest.fixture
def client(connect: Callable[[], socket.socket]) -> socket.socket:
    """A connection through the proxy on which the server has said hello."""
    return greeted(connect())


def greeted(client: socket.socket) -> socket.socket:
    assert client.recv(100) == b"hello\n"
    return client


def ask(client: socket.socket, line: bytes = b"question\n") -> bytes:
    client.sendall(line)
    return client.recv(100)


def gets_nothing(client: socket.socket) -> bool:
    client.settimeout(SOON)
    try:
        return not client.recv(100) and False
    except TimeoutError:
        return True
    finally:
        client.settimeout(LONGEST)


def gets_nothing_yet(client: socket.socket) -> bool:
    return not select.select([client], [], [], 0)[0]


def test_it_forwards_both_ways_and_counts(proxy: Proxy, client: socket.socket) -> None:
    assert ask(client) == b"question\n"
    figures = proxy.figures()
    assert (figures.opened, figures.live) == (1, 1)
    assert (figures.to_server, figures.to_client) == (9, 15)


def test_the_end_of_a_connection_reaches_the_other_side(
    proxy: Proxy,
    server: Server,
    client: socket.socket,
    connect: Callable[[], socket.socket],
) -> None:
    client.close()
    assert eventually(lambda: not server.sockets)
    assert eventually(lambda: proxy.figures().live == 0)
    other = greeted(connect())
    server.sockets[0].shutdown(socket.SHUT_RDWR)
    assert other.recv(100) == b""
    other.close()
    assert eventually(lambda: proxy.figures().live == 0)


@pytest.mark.parametrize("to", ["server", "client"])
def test_a_delay_holds_up_one_direction_until_it_is_taken_back(
    proxy: Proxy, server: Server, client: socket.socket, to: str
) -> None:
    proxy.delay(SOON, to=to)
    began = time.monotonic()
    assert ask(client) == b"question\n"
    assert time.monotonic() - began >= SOON
    proxy.delay(60)
    proxy.delay(0)
    assert ask(client) == b"question\n"


def test_a_cut_resets_both_sides_now(
    proxy: Proxy,
    server: Server,
    client: socket.socket,
    connect: Callable[[], socket.socket],
) -> None:
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    assert eventually(lambda: not server.sockets)
    assert ask(greeted(connect())) == b"question\n", "new ones are served"
    assert proxy.figures().live == 1


def test_a_cut_in_the_middle_of_an_answer_comes_after_so_many_bytes(
    proxy: Proxy, client: socket.socket, connect: Callable[[], socket.socket]
) -> None:
    other = greeted(connect())
    proxy.cut_after(1000)
    client.sendall(b"flood\n")
    got = b""
    with pytest.raises(ConnectionResetError):
        while True:
            got += client.recv(300)
    assert len(got) == 1000
    assert ask(other) == b"question\n", "it has not said as much"
    later = greeted(connect())
    later.sendall(b"flood\n")
    assert sum(len(later.recv(65536)) for _ in range(3)) > 1000, "it was not there"


def test_a_stall_accepts_and_forwards_nothing_until_it_is_over(
    proxy: Proxy,
    server: Server,
    client: socket.socket,
    connect: Callable[[], socket.socket],
) -> None:
    proxy.stall()
    client.sendall(b"question\n")
    other = connect()
    assert gets_nothing(client)
    assert gets_nothing(other)
    proxy.resume()
    assert client.recv(100) == b"question\n"
    greeted(other)
    proxy.stall()
    other.close()
    gevent.sleep(SOON)
    assert len(server.sockets) == 2, "the server has not been told"
    proxy.resume()
    assert eventually(lambda: len(server.sockets) == 1)


def test_connects_are_refused_until_they_are_accepted_again(
    proxy: Proxy, client: socket.socket, connect: Callable[[], socket.socket]
) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect()
    assert ask(client) == b"question\n", "who is there goes on"
    proxy.accept()
    assert ask(greeted(connect())) == b"question\n"


def test_a_delay_of_connects_holds_up_new_connections_only(
    proxy: Proxy, client: socket.socket, connect: Callable[[], socket.socket]
) -> None:
    proxy.delay_connects(SOON)
    began = time.monotonic()
    slow = connect()
    assert ask(client) == b"question\n"
    assert gets_nothing_yet(slow)
    greeted(slow)
    assert time.monotonic() - began >= SOON
    proxy.delay_connects(0)
    greeted(connect())


def test_without_a_server_connections_are_reset(
    proxy: Proxy, server: Server, connect: Callable[[], socket.socket]
) -> None:
    server.close()
    with pytest.raises(ConnectionResetError):
        connect().recv(100)
    assert eventually(lambda: proxy.figures().live == 0)


def test_a_connect_into_a_full_backlog_hangs(proxy: Proxy, client: socket.socket) -> None:
    proxy.black_hole(at_connect=True)
    with socket.socket() as hanging:
        hanging.settimeout(SOON)
        with pytest.raises(TimeoutError):
            hanging.connect((proxy.host, proxy.port))
    assert ask(client) == b"question\n", "who is there goes on"
    proxy.accept()
    with socket.create_connection((proxy.host, proxy.port), LONGEST) as later:
        greeted(later)
    assert proxy.figures().opened == 2, "its own do not count"


def test_a_black_hole_accepts_and_never_answers(
    proxy: Proxy,
    server: Server,
    client: socket.socket,
    connect: Callable[[], socket.socket],
) -> None:
    proxy.black_hole()
    swallowed = connect()
    swallowed.sendall(b"question\n")
    assert gets_nothing(swallowed)
    assert len(server.sockets) == 1, "the server knows nothing of it"
    assert ask(client) == b"question\n", "who is there goes on"
    proxy.accept()
    greeted(connect())
    assert gets_nothing(swallowed)
    swallowed.close()
    assert eventually(lambda: proxy.figures().live == 2)


def test_a_half_open_link_is_closed_for_the_server_only(
    proxy: Proxy,
    server: Server,
    client: socket.socket,
    connect: Callable[[], socket.socket],
) -> None:
    proxy.half_open()
    assert eventually(lambda: not server.sockets)
    assert gets_nothing(client)
    client.sendall(b"question\n")
    assert gets_nothing(client)
    assert ask(greeted(connect())) == b"question\n", "new ones are served"
    client.close()
    assert eventually(lambda: proxy.figures().live == 1)


def test_a_half_open_link_can_answer_by_a_reset(
    proxy: Proxy, server: Server, client: socket.socket
) -> None:
    proxy.half_open(resets=True)
    assert eventually(lambda: not server.sockets)
    assert gets_nothing(client)
    client.sendall(b"question\n")
    with pytest.raises(ConnectionResetError):
        client.recv(100)


def test_it_goes_on_while_the_hub_of_the_test_is_blocked() -> None:
    with native() as target, native() as client:
        target.bind(("127.0.0.1", 0))
        target.listen()
        with Proxy(*target.getsockname()) as other:
            for one in (target, client):
                one.settimeout(LONGEST)
            # From here to the end nothing switches to the hub.
            client.connect((other.host, other.port))
            number, _ = target._accept()
            with native(fileno=number) as answering:
                client.sendall(b"question")
                assert answering.recv(100) == b"question"
                answering.sendall(b"answer")
                assert client.recv(100) == b"answer"


def test_a_wrong_order_is_an_error_and_the_next_one_is_obeyed(proxy: Proxy) -> None:
    with pytest.raises(RuntimeError, match="sideways"):
        proxy.delay(1, to="sideways")
    assert proxy.figures().opened == 0


def test_it_ends_with_its_block(server: Server) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        pass
    assert has_gone(proxy.port)


def test_it_ends_with_a_parent_that_was_killed(server: Server) -> None:
    program = (
        "import os, signal, sys\n"
        "from tests.integration.proxy import Proxy\n"
        "with Proxy('127.0.0.1', int(sys.argv[1])) as proxy:\n"
        "    print(proxy.port, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(server.port)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        timeout=LONGEST,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert eventually(lambda: has_gone(int(done.stdout)))


def has_gone(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
