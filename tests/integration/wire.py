"""A proxy that counts: what a client says to a server, and how often it waits for the answer."""

from __future__ import annotations

import contextlib
from types import TracebackType

import gevent
from gevent import socket
from gevent.server import StreamServer


class Wire:
    """Forwards loopback connections to a server, in this process.

    Attributes:
        round_trips: how often a client spoke after the server did (or first): each of these is a
            time that the client waits.
        answers: how often the server spoke after a client did: what a caller has waited for by now.
        sent: everything that clients said.
        opened: connections made through it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server = StreamServer(("127.0.0.1", 0), self._handle)
        self.reset()

    def reset(self) -> None:
        """Counts from zero."""
        self.round_trips = self.answers = 0
        self.sent = bytearray()
        self.opened = 0

    @property
    def port(self) -> int:
        """Where to connect to."""
        return self._server.server_port

    def __enter__(self) -> Wire:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop(timeout=1)

    def _handle(self, client: socket.socket, _address: object) -> None:
        self.opened += 1
        server = socket.create_connection(self._target)
        turn = {"client": False}

        def forward(source: socket.socket, target: socket.socket, is_client: bool) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if is_client:
                        self.sent += data
                        if not turn["client"]:
                            self.round_trips += 1
                    elif turn["client"]:
                        self.answers += 1
                    turn["client"] = is_client
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        both = [
            gevent.spawn(forward, client, server, True),
            gevent.spawn(forward, server, client, False),
        ]
        gevent.joinall(both)
        server.close()
        client.close()
