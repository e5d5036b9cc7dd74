"""A TCP proxy that misbehaves as told, in a process of its own: a hub that blocks here does not stop it.

    with Proxy(server.host, server.port) as proxy:
        engine = create_engine(proxy.url(server.url("pymysql")))
        proxy.stall()

The child does what one line of JSON on a socket pair says, and answers with one. It ends with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event

_HOST = "127.0.0.1"
_BACKLOG = 128
_LONGEST = 20.0
_PR_SET_PDEATHSIG = 1
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER, 0 s: close() sends RST
_FULL_AFTER = 0.1  # a connect on loopback that takes this long found the backlog full
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Figures:
    """What went through.

    Attributes:
        opened: connections that clients made, since the proxy was started.
        live: those that are still there; a forgotten one is until its client closes it.
        to_server: bytes.
        to_client: bytes.
    """

    opened: int
    live: int
    to_server: int
    to_client: int


class Proxy:
    """Stands between clients and a server, and does what a network or a failing server does.

    Args:
        host: of the server.
        port: of the server; nothing need listen there yet.

    Attributes:
        host: loopback.
        port: where clients connect to.
    """

    host = _HOST

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._target = (host, port)
        self._lock = threading.Lock()

    def url(self, url: str) -> str:
        """The same URL, but through the proxy."""
        from sqlalchemy.engine import make_url  # the child does without, and so starts sooner

        there = make_url(url).set(host=self.host, port=self.port)
        return there.render_as_string(hide_password=False)

    def delay(self, seconds: float, to: str | None = None) -> None:
        """Holds each piece of data up for so long.

        Args:
            seconds: 0: no longer.
            to: `"server"` or `"client"`: only in this direction.
        """
        self._tell("delay", seconds=seconds, to=to)

    def cut(self) -> None:
        """Resets all connections, on both sides."""
        self._tell("cut")

    def cut_after(self, count: int) -> None:
        """Resets each connection that is there now when the server has said so many more bytes on it."""
        self._tell("cut_after", count=count)

    def stall(self) -> None:
        """Still accepts, but forwards nothing, not even the end of a connection."""
        self._tell("stall")

    def resume(self) -> None:
        """Forwards again, first what has been held up."""
        self._tell("resume")

    def refuse(self) -> None:
        """New connects are refused, as if nothing listened. Connections that are there go on."""
        self._tell("refuse")

    def black_hole(self, *, at_connect: bool = False) -> None:
        """New connects hang; connections that are there go on.

        Args:
            at_connect: the backlog is full, so that the system itself gets no answer to its SYN. Else
                the connection is accepted and nothing ever said on it, which a driver's time-out for
                connecting need not cover.
        """
        self._tell("black_hole", at_connect=at_connect)

    def accept(self) -> None:
        """Ends `refuse` and `black_hole` for new connects. What hangs after its accept hangs on."""
        self._tell("accept")

    def lead_to(self, host: str, port: int) -> None:
        """New connections are to another server, as after a failover; those that are there go on."""
        self._tell("lead_to", host=host, port=port)

    def delay_connects(self, seconds: float) -> None:
        """Forwards nothing on a new connection for so long; those that are there go on.

        Args:
            seconds: 0: no longer.
        """
        self._tell("delay_connects", seconds=seconds)

    def half_open(self, *, resets: bool = False) -> None:
        """Forgets all connections: the server sees each of them closed, its client is told nothing.

        Args:
            resets: a client that speaks on one is answered by a reset, as a host does that has
                restarted; else by silence, as from a network device.
        """
        self._tell("half_open", resets=resets)

    def figures(self) -> Figures:
        """What went through by now."""
        return Figures(**self._tell("figures"))

    def __enter__(self) -> Proxy:
        ours, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.integration.proxy",
                    *map(str, (os.getpid(), its.fileno(), *self._target)),
                ],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                # Ctrl-C is for the tests; they stop it.
                start_new_session=True,
            )
        ours.settimeout(_LONGEST)
        self._socket = ours
        self._file = ours.makefile("rw")
        try:
            self.port = self._read()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._socket.close()  # which it takes for an order to end
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, order: str, **arguments: Any) -> Any:
        with self._lock:
            self._file.write(json.dumps([order, arguments]) + "\n")
            self._file.flush()
            return self._read()

    def _read(self) -> Any:
        line = self._file.readline()
        if not line:
            raise RuntimeError(f"the proxy has ended with {self._process.wait(2)}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"the proxy: {answer['error']}")
        return answer["value"]


class _Link:
    """A client's connection, and the one to the server that belongs to it.

    Attributes:
        client: the client's.
        server: the server's; `None` if it was never made.
        left: bytes of the server's to come until both are reset; `None`: no such order.
        is_forgotten: the client gets no answer any more.
        resets: or rather, the answer is a reset.
    """

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.left: int | None = None
        self.is_forgotten = self.resets = False

    def reset(self) -> None:
        """Ends both sides with RST."""
        for side in (self.client, self.server):
            if side is not None:
                with contextlib.suppress(OSError):  # it has ended
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def forget(self, resets: bool) -> None:
        """Ends the server's side only."""
        self.is_forgotten, self.resets = True, resets
        if self.server is not None:
            self.server.close()

    def close(self) -> None:
        """Ends both sides in order."""
        self.client.close()
        if self.server is not None:
            self.server.close()


class _Relay:
    """What runs in the child: a greenlet accepts, one serves each connection with another to help it.

    The public methods are the orders.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._links: set[_Link] = set()
        self._flow = Event()
        self._flow.set()
        self._delays = {"server": 0.0, "client": 0.0}
        self._connect_delay = 0.0
        self._bytes = {"server": 0, "client": 0}
        self._opened = 0
        self._fillers: list[socket.socket] = []
        # It never listens, but nobody else gets its port while nothing does.
        self._keeper = _bind(0)
        self.port: int = self._keeper.getsockname()[1]
        self._listener: socket.socket | None = None
        self._accepting: gevent.Greenlet | None = None
        self.accept()

    def delay(self, seconds: float, to: str | None) -> None:
        if to is not None and to not in self._delays:
            raise ValueError(f"no such direction: {to!r}")
        for direction in self._delays if to is None else (to,):
            self._delays[direction] = seconds

    def cut(self) -> None:
        for link in list(self._links):
            link.reset()

    def cut_after(self, count: int) -> None:
        for link in self._links:
            link.left = count

    def stall(self) -> None:
        self._flow.clear()

    def resume(self) -> None:
        self._flow.set()

    def refuse(self) -> None:
        if self._accepting is not None:
            self._accepting.kill()
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        while self._fillers:
            self._fillers.pop().close()

    def black_hole(self, at_connect: bool) -> None:
        self.refuse()
        self._listen(answers=False, accepts=not at_connect)
        while at_connect:
            filler = socket.socket()
            filler.settimeout(_FULL_AFTER)
            try:
                filler.connect((_HOST, self.port))
            except TimeoutError:
                filler.close()
                return
            self._fillers.append(filler)

    def accept(self) -> None:
        self.refuse()
        self._listen(answers=True, accepts=True)

    def lead_to(self, host: str, port: int) -> None:
        self._target = host, port

    def delay_connects(self, seconds: float) -> None:
        self._connect_delay = seconds

    def half_open(self, resets: bool) -> None:
        for link in self._links:
            link.forget(resets)

    def figures(self) -> dict[str, int]:
        return {
            "opened": self._opened,
            "live": len(self._links),
            "to_server": self._bytes["server"],
            "to_client": self._bytes["client"],
        }

    def _listen(self, answers: bool, accepts: bool) -> None:
        self._listener = listener = _bind(self.port)
        listener.listen(_BACKLOG if accepts else 0)
        if accepts:
            self._accepting = gevent.spawn(self._accept, listener, answers)

    def _accept(self, listener: socket.socket, answers: bool) -> None:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._opened += 1
            link = _Link(client)
            link.is_forgotten = not answers
            self._links.add(link)
            gevent.spawn(self._serve, link)

    def _serve(self, link: _Link) -> None:
        answers = None
        try:
            if not link.is_forgotten:
                if self._connect_delay:
                    _pause(self._connect_delay)
                self._flow.wait()
                link.server = socket.create_connection(self._target)
                link.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answers = gevent.spawn(self._forward_answers, link)
            self._forward_requests(link)
            if answers is not None:
                answers.join()
        except OSError:  # one side was reset, or closed by an order: so is the other one
            link.reset()
        finally:
            if answers is not None:
                answers.kill()
            link.close()
            self._links.discard(link)

    def _forward_requests(self, link: _Link) -> None:
        while data := link.client.recv(65536):
            self._hold_up("server")
            if not link.is_forgotten:
                self._send(link.server, data, "server")
            elif link.resets:
                link.reset()
                return
        self._flow.wait()
        if not link.is_forgotten and link.server is not None:
            link.server.shutdown(socket.SHUT_WR)

    def _forward_answers(self, link: _Link) -> None:
        assert link.server is not None
        try:
            while data := link.server.recv(65536):
                self._hold_up("client")
                if link.left is not None:
                    data = data[: link.left]
                    link.left -= len(data)
                self._send(link.client, data, "client")
                if link.left == 0:
                    link.reset()
                    return
            self._flow.wait()
            link.client.shutdown(socket.SHUT_WR)
        except OSError:
            if not link.is_forgotten:
                link.reset()

    def _hold_up(self, to: str) -> None:
        if self._delays[to]:
            _pause(self._delays[to])
        self._flow.wait()

    def _send(self, side: socket.socket | None, data: bytes, to: str) -> None:
        assert side is not None
        side.sendall(data)
        self._bytes[to] += len(data)


def _pause(seconds: float) -> None:
    """For so long at least: a timer begins at the time that the loop has last seen, which may be over."""
    gevent.get_hub().loop.update_now()
    gevent.sleep(seconds)


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_HOST, port))
    return bound


def _main(parent: str, control: str, host: str, port: str) -> None:
    """Runs until the parent closes its end of the control socket, or is no more."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return
    relay = _Relay((host, int(port)))
    with socket.socket(fileno=int(control)) as pair, pair.makefile("rw") as file:
        answer: dict[str, Any] = {"value": relay.port}
        while True:
            file.write(json.dumps(answer) + "\n")
            file.flush()
            line = file.readline()
            if not line:
                return
            order, arguments = json.loads(line)
            try:
                answer = {"value": getattr(relay, order)(**arguments)}
            except Exception as error:
                answer = {"error": repr(error)}


if __name__ == "__main__":
    _main(*sys.argv[1:])
