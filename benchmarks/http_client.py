"""Drives a web server with requests that come at random, whatever became of those before.

python -m benchmarks.http_client URL --seconds 3 --rate 200         open: so many a second
python -m benchmarks.http_client URL --seconds 3 --clients 20       closed: each waits for its answer

A latency counts from when the request was due, not from when it could be sent, so that a server that
stalls has the stall in all of its figures.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from urllib.parse import urlsplit

import gevent
from gevent import socket

TIMEOUT = 10.0


class Client:
    """Requests over connections that are kept open.

    Args:
        url: of the page.

    Attributes:
        latencies: seconds of each answer.
        errors: requests without an answer, or with a wrong one.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._idle: list[socket.socket] = []
        self.latencies: list[float] = []
        self.errors = 0

    def ask(self, due: float) -> None:
        """One request."""
        try:
            sock = self._idle.pop() if self._idle else self._connect()
            sock.sendall(self._request)
            head, _, body = sock.recv(65536).partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += sock.recv(65536)
        except (OSError, IndexError):
            self.errors += 1
            return
        self._idle.append(sock)
        self.errors += b" 200 " not in head[:16]
        self.latencies.append(time.perf_counter() - due)

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, TIMEOUT)


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--clients", type=int)
    options = parser.parse_args()
    client = Client(options.url)
    began = time.perf_counter()
    end = began + options.seconds
    if options.rate:
        _open(client, began, end, options.rate)
    else:
        _closed(client, end, options.clients)
    took = time.perf_counter() - began
    found = sorted(client.latencies)
    print(
        json.dumps(
            {
                "requests": len(found),
                "rate": len(found) / took,
                "p50": found[len(found) // 2] if found else None,
                "p99": found[len(found) * 99 // 100] if found else None,
                "errors": client.errors,
            }
        )
    )


def _open(client: Client, began: float, end: float, rate: float) -> None:
    rng = random.Random(7)  # the same arrivals for everybody
    asked = []
    due = began
    while (due := due + rng.expovariate(rate)) < end:
        gevent.sleep(max(0.0, due - time.perf_counter()))
        asked.append(gevent.spawn(client.ask, due))
    gevent.joinall(asked, timeout=TIMEOUT)


def _closed(client: Client, end: float, clients: int) -> None:
    def run() -> None:
        while (now := time.perf_counter()) < end:
            client.ask(now)

    gevent.joinall([gevent.spawn(run) for _ in range(clients)])


if __name__ == "__main__":
    main()
